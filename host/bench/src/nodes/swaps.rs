//! Policies exchanged while many streams run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use msao_hostile::MANIFEST;
use msao_hostile::build::Core;
use serde_json::{Value, json};

use super::client::{activate, ask, operate, push};
use super::pair::{Pair, Places, Wanted};
use crate::report::Row;

const STREAMS: usize = 64;
const SWAPS: u32 = 200;
const FOR: Duration = Duration::from_secs(60);
/// Runs without exchanges, the worst of which counts.
const STILL_RUNS: usize = 5;
const STILL_FOR: Duration = Duration::from_secs(12);

/// What a load saw.
#[derive(Default)]
struct Seen {
    first_ms: Vec<f64>,
    failed: Vec<String>,
    unnamed: u64,
    answers: u64,
}

/// The part's rows.
///
/// # Errors
/// A node does not come up, or refuses a policy.
pub async fn rows(places: &Places) -> Result<Vec<Row>> {
    let wanted = Wanted {
        api: "requests = 128".into(),
        ..Wanted::default()
    };
    let pair = Pair::start(places, &wanted).await?;
    let mut releases = Vec::new();
    for name in ["edge-only", "fixed-speculate", "cloud-only"] {
        releases.push(push(pair.operator, &places.plugins, name).await?);
    }
    releases.push(trapping(&pair).await?);
    if let Some(first) = releases.first() {
        activate(pair.operator, first).await?;
    }
    // Warm.
    load(&pair, Duration::from_secs(3)).await?;
    let mut worst: f64 = 0.0;
    let mut told = Vec::new();
    for (run, release) in (0..STILL_RUNS).zip(releases.iter().take(3).cycle()) {
        activate(pair.operator, release).await?;
        let seen = load(&pair, STILL_FOR).await?;
        let p99 = percentile(&seen.first_ms, 0.99);
        told.push(format!(
            "run {} without: p99 {p99:.0} ms of {} answers",
            run + 1,
            seen.answers
        ));
        worst = worst.max(p99);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(AtomicU64::new(0));
    let swapper = {
        let (stop, done, operator) = (Arc::clone(&stop), Arc::clone(&done), pair.operator);
        let releases = releases.clone();
        tokio::spawn(async move {
            let apart = FOR / SWAPS;
            let began = Instant::now();
            for (number, release) in (0..SWAPS).zip(releases.iter().cycle()) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let due = apart * number;
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
                if activate(operator, release).await.is_ok() {
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let seen = load(&pair, FOR).await?;
    stop.store(true, Ordering::Relaxed);
    swapper.await?;
    let p99 = percentile(&seen.first_ms, 0.99);
    // The last answers are out; what is learned of them may take a moment.
    let mut live = None;
    for _ in 0..100 {
        let state = operate(pair.operator, "/v1/state", None).await?;
        live = state
            .pointer("/plugins/live-generations")
            .and_then(Value::as_f64);
        if live == Some(1.0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    told.push(format!(
        "with exchanges: p99 {p99:.0} ms of {} answers",
        seen.answers
    ));
    Ok(vec![
        Row::at_least(
            "exchanges in 60 s, among them to a policy that traps",
            done.load(Ordering::Relaxed) as f64,
            f64::from(SWAPS),
            "",
        ),
        Row::at_most(
            format!("{STREAMS} streams at once: requests that failed"),
            seen.failed.len() as f64,
            0.0,
            "",
        )
        .with_details(seen.failed.into_iter().take(5).collect()),
        Row::at_most(
            "answers that name no generation",
            seen.unnamed as f64,
            0.0,
            "",
        ),
        Row::at_most(
            "p99 of the time to the first token, beside the worst of five runs without",
            p99 / worst,
            1.1,
            "",
        )
        .with_details(told),
        Row::at_most(
            "generations that decide, afterwards",
            live.unwrap_or(f64::NAN),
            1.0,
            "",
        ),
    ])
}

/// A policy whose plan traps: the fallback plans for it.
async fn trapping(pair: &Pair) -> Result<Value> {
    use base64::Engine as _;
    let core = Core {
        plan: "unreachable".into(),
        ..Core::policy()
    };
    let component = base64::engine::general_purpose::STANDARD.encode(core.build()?);
    let body = json!({ "component": component, "manifest": MANIFEST });
    let pushed = operate(pair.operator, "/v1/policies", Some(&body)).await?;
    Ok(pushed.get("release").cloned().unwrap_or_default())
}

/// All streams, for so long.
async fn load(pair: &Pair, time: Duration) -> Result<Seen> {
    let end = Instant::now() + time;
    let mut clients = Vec::new();
    for client in 0..STREAMS {
        let api = pair.edge.api;
        clients.push(tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut number = 0_u64;
            while Instant::now() < end {
                number += 1;
                let body = json!({
                    "model": "demo",
                    "messages": [{ "role": "user", "content": format!("{client} + {number} = ?") }],
                    "max_completion_tokens": 16, "temperature": 1.0, "seed": number,
                });
                match ask(api, &body).await {
                    Ok(answer) if answer.is_whole() => {
                        seen.answers += 1;
                        if answer.first > Duration::ZERO {
                            seen.first_ms.push(answer.first.as_secs_f64() * 1000.0);
                        }
                        seen.unnamed += u64::from(answer.report.get("generation").is_none());
                    }
                    Ok(answer) => seen
                        .failed
                        .push(format!("{}: {:?}", answer.status, answer.error)),
                    Err(error) => seen.failed.push(format!("{error:#}")),
                }
            }
            seen
        }));
    }
    let mut all = Seen::default();
    for client in clients {
        let seen = client.await?;
        all.first_ms.extend(seen.first_ms);
        all.failed.extend(seen.failed);
        all.unnamed += seen.unnamed;
        all.answers += seen.answers;
    }
    Ok(all)
}

/// Of unsorted values; 0 of none.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values.get(place.saturating_sub(1)).copied().unwrap_or(0.0)
}
