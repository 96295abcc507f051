//! Links and loads that change while requests come: the adaptive policy beside fixed ones, on nodes that are processes.
//!
//! Each policy goes through the same phases with the same questions, one after the other, on a pair of nodes of its own. A
//! phase's first requests are for getting used to it; the rest are compared.

mod beside;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use msao_core::chat::Modality;
use msao_link::shaper::{Trace, TraceFormat};
use serde_json::{Value, json};

use self::beside::compared;
use super::progress::Progress;
use super::questions::Draw;
use super::setting::Setting;
use crate::nodes::between::Between;
use crate::nodes::client::{ask, operate, question};
use crate::nodes::pair::{Pair, Places, Wanted};
use crate::report::Row;
use crate::vqa::{Question, read};

/// The part's name.
pub const PART: &str = "phases";
/// The policy that is shown.
const ADAPTIVE: &str = "msao";
/// Fixed ones. What the first one answers is what the others' answers are held against; those that are as often right count.
const FIXED: [&str; 4] = ["cloud-only", "cloud-draft", "fixed-speculate", "edge-only"];
/// Requests to get used to a phase, and requests that are compared.
const USED_TO: usize = 20;
const COMPARED: usize = 60;
/// Seed of the choice of questions.
const SEED: u64 = 0xada;
/// Clients that keep the cloud busy, and tokens for which each of them has room set aside in the target's cache. As many as fit in
/// answer; the others wait for room, and who comes behind them waits as well: a queue.
const BUSY: u64 = 8;
const BUSY_TOKENS: u32 = 512;
/// Keys and values of each of the cloud's models, MiB: of the demo's target some 3,200 tokens, six of those clients.
const CACHE_MIB: u32 = 8;
/// By how much the wait at the cloud grows at least, as the edge's estimators have it, while others fill its queue.
const FULL_MS: f64 = 20.0;
/// Of the best fixed policy's mean latency in a phase, at most.
const BEST: f64 = 1.1;
/// Points of accuracy that may be lost, by the adaptive policy and by whoever is beside it.
const POINTS: f64 = 0.4;

/// What a phase does to link and cloud.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Bits a second and round trip in ms.
    Link(u64, f64),
    /// Others ask the cloud all the time.
    Busy,
    /// They stop.
    Idle,
    Lost,
    Back,
    /// A file of `tests/data/traces`, how it is written, and the round trip in ms, which traces do not have.
    Follow(&'static str, TraceFormat, f64),
}

const PHASES: [(&str, Change); 11] = [
    ("200 Mbit/s, 10 ms", Change::Link(200_000_000, 10.0)),
    ("5 Mbit/s, 10 ms", Change::Link(5_000_000, 10.0)),
    ("50 Mbit/s, 10 ms", Change::Link(50_000_000, 10.0)),
    ("50 Mbit/s, 120 ms", Change::Link(50_000_000, 120.0)),
    ("200 Mbit/s, 10 ms, again", Change::Link(200_000_000, 10.0)),
    ("the cloud's queue full", Change::Busy),
    ("the cloud's queue empty", Change::Idle),
    ("the link lost", Change::Lost),
    ("the link back", Change::Back),
    (
        "a cell's trace (mahimahi), 40 ms",
        Change::Follow("cell.mahimahi", TraceFormat::Mahimahi, 40.0),
    ),
    (
        "a tram's trace (HSDPA), 60 ms",
        Change::Follow("tram.hsdpa", TraceFormat::Hsdpa, 60.0),
    ),
];

/// What came of one request.
#[derive(Clone, Debug)]
struct Seen {
    ms: f64,
    /// Of a short answer, whether it is the reference word for word.
    right: Option<bool>,
    route: String,
    /// The wait at the cloud as the edge has it right after; negative where it knows nothing of it.
    queue_ms: f64,
}

/// The part's rows.
///
/// # Errors
/// A node does not come up, or a request fails.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let places = setting.places()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let asked = questions(&setting.heldout, PHASES.len() * (USED_TO + COMPARED))?;
        let all = FIXED.len() + 1;
        let mut progress = Progress::new("requests", all * asked.len(), 0);
        let mut seen = Vec::new();
        for policy in [ADAPTIVE].iter().chain(&FIXED) {
            seen.push(run(setting, &places, policy, &asked, &mut progress).await?);
        }
        progress.end();
        Ok(compared(&PHASES.map(|(name, _)| name), &seen))
    })
}

/// The questions of all phases, in an order in which pictures come and go.
fn questions(folder: &Path, count: usize) -> Result<Vec<Question>> {
    let mut all: Vec<Question> = read(folder)?
        .into_iter()
        .filter(|question| question.seen_mix && !question.media.is_empty())
        .collect();
    ensure!(
        all.len() >= count,
        "{} has {} questions about media, and {count} are asked: make a larger set with models/recipe/data.py",
        folder.display(),
        all.len()
    );
    Draw(SEED).shuffle(&mut all);
    all.truncate(count);
    Ok(all)
}

/// One policy through all phases.
async fn run(
    setting: &Setting,
    places: &Places,
    policy: &str,
    asked: &[Question],
    progress: &mut Progress,
) -> Result<Vec<Seen>> {
    let between = Arc::new(Between::start().await?);
    let wanted = Wanted {
        between: Some(Arc::clone(&between)),
        cache_mib: Some(CACHE_MIB),
        ..Wanted::default()
    };
    let pair = Pair::start(places, &wanted).await?;
    pair.policy_beside(policy, "mas-joint").await?;
    let cloud = pair.cloud.as_ref().context("the cloud")?.api;
    let busy = Arc::new(AtomicBool::new(false));
    let mut seen = Vec::new();
    let of_a_phase = asked.chunks(USED_TO + COMPARED);
    for ((name, change), questions) in PHASES.into_iter().zip(of_a_phase) {
        match change {
            Change::Link(bps, round_trip_ms) => between.set(bps, round_trip_ms)?,
            Change::Busy => {
                busy.store(true, Ordering::SeqCst);
                for client in 0..BUSY {
                    let busy = Arc::clone(&busy);
                    tokio::spawn(async move {
                        let mut number = 0_u64;
                        while busy.load(Ordering::SeqCst) {
                            number += 1;
                            let text = format!("Tell me about number {client}{number}.");
                            let body = json!({
                                "model": "demo", "messages": [{ "role": "user", "content": text }],
                                "temperature": 1.5, "seed": number, "max_completion_tokens": BUSY_TOKENS,
                            });
                            // What is refused comes again, as clients do.
                            let answer = ask(cloud, &body).await;
                            if !answer.is_ok_and(|answer| answer.is_whole()) {
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                        }
                    });
                }
            }
            Change::Idle => busy.store(false, Ordering::SeqCst),
            Change::Lost => between.link.take_down(),
            Change::Back => between.link.bring_up(),
            Change::Follow(file, format, round_trip_ms) => {
                let path = msao_golden::root().join("../data/traces").join(file);
                let trace = Trace::read(&path, format)?;
                between.follow(trace, round_trip_ms);
            }
        }
        for question in questions {
            setting.interrupt.check("phases are shown as a whole")?;
            let one = one(&pair, question).await;
            seen.push(one.with_context(|| format!("{policy}, {name}"))?);
            progress.step();
        }
    }
    busy.store(false, Ordering::SeqCst);
    Ok(seen)
}

/// A question as a client sends it: greedy.
///
/// # Errors
/// A file cannot be read.
pub fn asked_of(asked: &Question) -> Result<Value> {
    let files = asked.media.iter().map(|(modality, path)| {
        let kind = match modality {
            Modality::Image => "image",
            Modality::Video => "video",
            _ => "audio",
        };
        (kind, path.as_path())
    });
    let files: Vec<(&str, &Path)> = files.collect();
    let mut body = question("demo", &files, &asked.text)?;
    if let Value::Object(fields) = &mut body {
        fields.insert("temperature".into(), json!(0));
        fields.insert("max_completion_tokens".into(), json!(96));
    }
    Ok(body)
}

async fn one(pair: &Pair, asked: &Question) -> Result<Seen> {
    let body = asked_of(asked)?;
    let answer = ask(pair.edge.api, &body).await?;
    ensure!(
        answer.is_whole(),
        "question {}: {} {:?}",
        asked.id,
        answer.status,
        answer.error
    );
    let route = answer.report.get("route").and_then(Value::as_str);
    let state = operate(pair.operator, "/v1/state", None).await?;
    let queue_ms = state.pointer("/peers/0/queue-ms").and_then(Value::as_f64);
    Ok(Seen {
        ms: answer.total.as_secs_f64() * 1000.0,
        right: (!asked.long).then(|| answer.text.trim() == asked.answer),
        route: route.unwrap_or_default().to_owned(),
        queue_ms: queue_ms.context("the edge's state has no queue of the cloud's")?,
    })
}

/// Of some values; 0 of none.
pub fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    sum / f64::max(count, 1.0)
}
