//! What a node has learned, and a power cut: it is killed at random moments while it learns, and started again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::progress::Progress;
use super::questions::Draw;
use super::setting::Setting;
use crate::nodes::client::{activate, ask, operate, push};
use crate::nodes::pair::Places;
use crate::nodes::process::NodeProcess;
use crate::report::Row;

/// The part's name.
pub const PART: &str = "kills";
/// The policy, which learns from every request.
const POLICY: &str = "perllm";
const KILLS: usize = 20;
/// The node's checkpoint interval, and what writing one may take.
const INTERVAL: Duration = Duration::from_secs(1);
const WRITING: Duration = Duration::from_millis(500);
/// From a node's start to its end: so long, and at most so much longer.
const LIFE: Duration = Duration::from_millis(1500);
const LONGER_MS: usize = 2500;
const CLIENTS: u64 = 2;
const SEED: u64 = 0x9;

/// The part's rows.
///
/// # Errors
/// A node does not come up for the first time, or does not answer.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let places = setting.places()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let work = tempfile::tempdir()?;
        let (mut lost, mut down, mut largest) = (Vec::new(), Vec::new(), 0.0_f64);
        let mut draw = Draw(SEED);
        let mut least = 0.0;
        let mut progress = Progress::new("kills", KILLS, 0);
        for kill in 0..=KILLS {
            setting.interrupt.check("kills are shown as a whole")?;
            let node = match start(&places, work.path()) {
                Ok(node) => node,
                Err(error) if kill > 0 => {
                    down.push(format!("after kill {kill}: {error:#}"));
                    break;
                }
                Err(error) => return Err(error),
            };
            let operator = node.operator.context("the operators' listener")?;
            if kill == 0 {
                let release = push(operator, &places.plugins, POLICY).await?;
                activate(operator, &release).await?;
            }
            let there = samples(operator).await?;
            if there < least {
                lost.push(format!(
                    "after kill {kill}: {there} samples, where there had been {least} an interval before"
                ));
            }
            largest = largest.max(there);
            if kill == KILLS {
                break;
            }
            let life = LIFE + Duration::from_millis(draw.below(LONGER_MS) as u64);
            least = live(&node, operator, life).await?;
            node.kill()?;
            progress.step();
        }
        progress.end();
        if largest == 0.0 {
            // Who has learned nothing has nothing to lose.
            lost.push(format!("{POLICY} learned nothing in any life"));
        }
        Ok(vec![
            Row::all(
                format!("{KILLS} times kill -9 while it learns: the node starts again"),
                KILLS,
                down,
            ),
            Row::all(
                "what was learned up to the last checkpoint interval is there again",
                KILLS,
                lost,
            )
            .with_more(Some(format!(
                "an interval is {INTERVAL:?}, and {WRITING:?} to write; at the end {largest} samples"
            ))),
        ])
    })
}

fn start(places: &Places, work: &Path) -> Result<NodeProcess> {
    let model = |role: &str| {
        let folder = places.models.join(format!("demo-{role}"));
        format!(
            "[models.{role}]\npath = \"{}\"\ncache-mib = 64\n",
            folder.display()
        )
    };
    let text = format!(
        "[node]\nname = \"killed\"\nrole = \"both\"\nstate = \"state\"\n{}{}[api]\nlisten = \"127.0.0.1:0\"\nmodel = \
         \"demo\"\n[sessions]\nlisten = \"127.0.0.1:0\"\n[operator]\nlisten = \"127.0.0.1:0\"\n[policy]\nallow-unsigned = true\n\
         [calibration]\ncheckpoint-ms = {}\n",
        model("draft"),
        model("target"),
        INTERVAL.as_millis()
    );
    let file = work.join("node.toml");
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    NodeProcess::start(&places.msao, &file, &work.join("node.log"), None)
}

/// Has a node learn for so long. Gives what it had learned an interval before the end.
async fn live(node: &NodeProcess, operator: std::net::SocketAddr, life: Duration) -> Result<f64> {
    let ended = Arc::new(AtomicBool::new(false));
    for client in 0..CLIENTS {
        let (api, ended) = (node.api, Arc::clone(&ended));
        tokio::spawn(async move {
            let mut number = 0_u64;
            while !ended.load(Ordering::SeqCst) {
                number += 1;
                let text = format!("{client} + {} = ?", number % 10);
                let body = json!({
                    "model": "demo", "messages": [{ "role": "user", "content": text }],
                    "temperature": 0, "max_completion_tokens": 4,
                });
                // The last one is cut off by the kill.
                if ask(api, &body).await.is_err() {
                    break;
                }
            }
        });
    }
    let began = Instant::now();
    let mut least = 0.0;
    while began.elapsed() < life {
        if life.saturating_sub(began.elapsed()) >= INTERVAL + WRITING {
            least = samples(operator).await?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ended.store(true, Ordering::SeqCst);
    Ok(least)
}

/// Samples in all of the policy's cells together.
async fn samples(operator: std::net::SocketAddr) -> Result<f64> {
    let learned = operate(operator, "/v1/calibration", None).await?;
    let counts = learned.get(POLICY).and_then(|cells| cells.get("count"));
    let counts = counts.and_then(Value::as_array).into_iter().flatten();
    Ok(counts.filter_map(Value::as_f64).sum())
}
