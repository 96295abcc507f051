//! What a node has learned, and a power cut: it is killed at random moments while it learns, and started again.
//!
//! One node with both models. Before the first kill drafts are judged until audits begin; from then on a policy that learns
//! plans, and requests that are audited teach the node itself: so all that is kept grows in every life.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use msao_hostile::MANIFEST;
use msao_hostile::build::{Core, Decision};
use serde_json::{Value, json};

use super::progress::Progress;
use super::questions::Draw;
use super::setting::Setting;
use crate::nodes::client::{activate, ask, bring, operate, push};
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
/// Drafts judged after which audits begin, and requests that may be needed for so many.
const SETTLE: u32 = 40;
const TEACHING: u64 = 2_000;
/// Requests between two looks at whether they have begun.
const LOOK: u64 = 10;
/// Numbers of a route and an action.
const SPECULATE: u8 = 3;
const SEND: u32 = 1;

/// What is kept.
const KINDS: [&str; 3] = [
    "what the policy learned (samples)",
    "what the node learned of its drafts (drafts judged)",
    "what audits were asked (requests)",
];

/// How much of a kind there is: audits are counted anew with each map that they hold to, so that its number comes first.
type Stand = (f64, f64);

/// A kind over all lives.
#[derive(Clone, Debug, Default)]
struct Kept {
    /// Before the first kill.
    first: Stand,
    /// When it was looked at last.
    last: Stand,
    /// Least that must be there after the next kill.
    least: Stand,
    lost: Vec<String>,
}

impl Kept {
    /// A node has come up after so many kills, with so much.
    fn there(&mut self, kill: usize, there: Stand) {
        if kill == 0 {
            self.first = there;
        } else if there < self.least {
            self.lost.push(format!(
                "after kill {kill}: {}, where there had been {} an interval before",
                words(there),
                words(self.least)
            ));
        }
        self.last = there;
    }

    fn row(mut self, kind: &str) -> Row {
        if self.last <= self.first {
            // Who has learned nothing has nothing to lose.
            self.lost.push("nothing was learned in any life".to_owned());
        }
        let name = format!("{kind}, up to the last checkpoint interval, is there again");
        Row::all(name, KILLS, self.lost).with_more(Some(format!(
            "an interval is {INTERVAL:?}, and {WRITING:?} to write; {} before the first kill, {} at the end",
            words(self.first),
            words(self.last)
        )))
    }
}

fn words((map, count): Stand) -> String {
    match map > 0.0 {
        true => format!("{count} by map {map}"),
        false => format!("{count}"),
    }
}

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
        let (mut down, mut other) = (Vec::new(), Vec::new());
        let mut kept: [Kept; 3] = Default::default();
        let mut tuned = Value::Null;
        let mut draw = Draw(SEED);
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
                teach(&node, operator).await?;
                let release = push(operator, &places.plugins, POLICY).await?;
                activate(operator, &release).await?;
            }
            for (kept, there) in kept.iter_mut().zip(stands(operator).await?) {
                kept.there(kill, there);
            }
            let now = active(operator).await?;
            if kill > 0 && now != tuned {
                other.push(format!(
                    "after kill {kill}: {now}, where {tuned} had been made active"
                ));
            }
            if kill == KILLS {
                break;
            }
            // Another one in each life.
            tuned = tune(operator, kill).await?;
            let life = LIFE + Duration::from_millis(draw.below(LONGER_MS) as u64);
            let least = live(&node, operator, life).await?;
            for (kept, least) in kept.iter_mut().zip(least) {
                kept.least = least;
            }
            node.kill()?;
            progress.step();
        }
        progress.end();
        let mut rows = vec![Row::all(
            format!("{KILLS} times kill -9 while it learns: the node starts again"),
            KILLS,
            down,
        )];
        let each = KINDS.into_iter().zip(kept);
        rows.extend(each.map(|(kind, kept)| kept.row(kind)));
        rows.push(Row::all(
            "the parameters that were tuned last are active again",
            KILLS,
            other,
        ));
        Ok(rows)
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
         [calibration]\ncheckpoint-ms = {}\n[confident]\nbudget = 0.05\naudit-rate = 0.5\nsettle-drafts = {SETTLE}\n",
        model("draft"),
        model("target"),
        INTERVAL.as_millis()
    );
    let file = work.join("node.toml");
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    NodeProcess::start(&places.msao, &file, &work.join("node.log"), None)
}

/// A policy that always drafts for the target beside it.
fn speculating() -> Core {
    let decision = Decision {
        route: SPECULATE,
        in_flight_max: 8,
        patience_ms: 1000.0,
        ..Decision::default()
    };
    Core {
        step: format!("(i32.const {SEND})"),
        ..Core::deciding(&decision)
    }
}

/// Has drafts judged until the node audits.
async fn teach(node: &NodeProcess, operator: SocketAddr) -> Result<()> {
    let release = bring(operator, &speculating().build()?, MANIFEST).await?;
    activate(operator, &release).await?;
    for number in 0..TEACHING {
        if number % LOOK == 0 && is_settled(&acceptance(operator).await?) {
            return Ok(());
        }
        let (one, other) = (number % 9 + 1, number % 7 + 2);
        let body = asked(&format!("{one} + {other} = ? Tell me why."), 12);
        let answer = ask(node.api, &body).await?;
        ensure!(answer.is_whole(), "{} {:?}", answer.status, answer.error);
    }
    let told = acceptance(operator).await?;
    ensure!(
        is_settled(&told),
        "{} drafts were judged in {TEACHING} requests, and audits begin after {SETTLE}",
        of_drafts(&told).1
    );
    Ok(())
}

fn asked(text: &str, tokens: u32) -> Value {
    json!({
        "model": "demo", "messages": [{ "role": "user", "content": text }],
        "temperature": 0, "max_completion_tokens": tokens,
    })
}

/// Has a node learn for so long. Gives what it had learned an interval before the end.
async fn live(node: &NodeProcess, operator: SocketAddr, life: Duration) -> Result<[Stand; 3]> {
    let ended = Arc::new(AtomicBool::new(false));
    for client in 0..CLIENTS {
        let (api, ended) = (node.api, Arc::clone(&ended));
        tokio::spawn(async move {
            let mut number = 0_u64;
            while !ended.load(Ordering::SeqCst) {
                number += 1;
                let body = asked(&format!("{client} + {} = ?", number % 10), 4);
                // The last one is cut off by the kill.
                if ask(api, &body).await.is_err() {
                    break;
                }
            }
        });
    }
    let began = Instant::now();
    let mut least = [(0.0, 0.0); 3];
    while began.elapsed() < life {
        if life.saturating_sub(began.elapsed()) >= INTERVAL + WRITING {
            least = stands(operator).await?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ended.store(true, Ordering::SeqCst);
    Ok(least)
}

/// How much there is of each kind.
async fn stands(operator: SocketAddr) -> Result<[Stand; 3]> {
    let cells = operate(operator, "/v1/calibration", None).await?;
    let own = acceptance(operator).await?;
    Ok([samples(&cells), of_drafts(&own), of_audits(&own)])
}

/// What the node has learned itself.
async fn acceptance(operator: SocketAddr) -> Result<Value> {
    operate(operator, "/v1/calibration/acceptance", None).await
}

/// Samples in all of the policy's cells together.
fn samples(cells: &Value) -> Stand {
    let counts = cells.get(POLICY).and_then(|cells| cells.get("count"));
    let counts = counts.and_then(Value::as_array).into_iter().flatten();
    // What there is none of sums up to -0.
    (0.0, counts.filter_map(Value::as_f64).sum::<f64>() + 0.0)
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    let list = value.get(name).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn number(value: &Value, name: &str) -> f64 {
    value.get(name).and_then(Value::as_f64).unwrap_or(0.0)
}

fn is_settled(acceptance: &Value) -> bool {
    list(acceptance, "pairs").any(|pair| pair.get("settled") == Some(&json!(true)))
}

/// Drafts that the target has judged; none where anything that was kept could not be read.
fn of_drafts(acceptance: &Value) -> Stand {
    let unreadable = acceptance.pointer("/counted/unreadable");
    if unreadable.and_then(Value::as_f64).is_none_or(|it| it > 0.0) {
        return (0.0, 0.0);
    }
    let each = list(acceptance, "pairs").map(|pair| number(pair, "drafts"));
    (0.0, each.sum())
}

/// Requests that audits were asked about, by the map that they hold to.
fn of_audits(acceptance: &Value) -> Stand {
    let maps = list(acceptance, "pairs").map(|pair| number(pair, "revision"));
    let classes = list(acceptance, "pairs").flat_map(|pair| list(pair, "classes"));
    let requests = classes.map(|class| number(class, "requests"));
    (maps.sum(), requests.sum())
}

/// What plans requests: the generation that runs, and what it is made of, the values of its parameters included.
async fn active(operator: SocketAddr) -> Result<Value> {
    let state = operate(operator, "/v1/state", None).await?;
    let policies = operate(operator, "/v1/policies", None).await?;
    let of = |told: &Value, at: &str| {
        let told = told.pointer(at).cloned();
        told.with_context(|| format!("the node does not tell {at}"))
    };
    Ok(json!({
        "runs": of(&state, "/plugins/active/number")?,
        "active": of(&policies, "/deployment/active")?,
    }))
}

/// Gives the policy a value of a parameter that it has not had before, and tells what is active then.
async fn tune(operator: SocketAddr, kill: usize) -> Result<Value> {
    let exploration = 0.3 + 0.01 * kill as f64;
    let body = json!({ "plugin": POLICY, "values": { "exploration": exploration } });
    operate(operator, "/v1/tune", Some(&body)).await?;
    let active = active(operator).await?;
    let value = active.pointer(&format!("/active/tuned/{POLICY}/exploration"));
    ensure!(
        value
            .and_then(Value::as_f64)
            .is_some_and(|it| (it - exploration).abs() < 1e-9),
        "{POLICY} was tuned to {exploration}, and {active} is active"
    );
    Ok(active)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_counted_by_kind() {
        let cells = json!({ "perllm": { "count": [3.0, 4.0] }, "other": { "count": [9.0] } });
        assert_eq!(samples(&cells), (0.0, 7.0));
        let own = json!({
            "pairs": [{
                "drafts": 50, "settled": true, "revision": 2,
                "classes": [{ "requests": 10 }, { "requests": 5 }],
            }],
            "counted": { "unreadable": 0 },
        });
        assert!(is_settled(&own));
        assert_eq!(
            (of_drafts(&own), of_audits(&own)),
            ((0.0, 50.0), (2.0, 15.0))
        );
        // What could not be read is not there, whatever was learned since.
        let mut broken = own;
        broken["counted"]["unreadable"] = json!(1);
        assert_eq!(of_drafts(&broken), (0.0, 0.0));
        let none = json!({});
        assert!(!is_settled(&none) && of_audits(&none) == (0.0, 0.0));
    }

    #[test]
    fn what_was_lost_and_what_was_never_learned_miss() {
        let through = |stands: [Stand; 3], least: Stand| {
            let mut kept = Kept::default();
            for (kill, there) in stands.into_iter().enumerate() {
                kept.there(kill, there);
                kept.least = least;
            }
            kept.row("it")
        };
        assert!(through([(1.0, 5.0), (1.0, 9.0), (1.0, 12.0)], (1.0, 8.0)).met);
        let row = through([(1.0, 5.0), (1.0, 7.0), (1.0, 12.0)], (1.0, 8.0));
        assert!(
            !row.met && row.details[0].contains("after kill 1"),
            "{row:?}"
        );
        // Audits that an alarm has had begin anew are later ones, not fewer.
        assert!(through([(1.0, 5.0), (2.0, 1.0), (2.0, 9.0)], (1.0, 8.0)).met);
        let row = through([(1.0, 5.0); 3], (1.0, 5.0));
        assert!(
            !row.met && row.details[0].contains("nothing was learned"),
            "{row:?}"
        );
    }

    #[test]
    fn the_policy_is_a_component() {
        assert!(!speculating().build().unwrap().is_empty());
    }
}
