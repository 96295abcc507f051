//! More requests than two nodes can serve.
//!
//! What they can serve at best is found first, by ever more clients that each ask again once they have their answer. Then
//! requests come at four times that rate, whether or not answers come out, as from many people who know nothing of each
//! other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::client::{Answer, ask};
use super::floods::has_target;
use super::pair::{Pair, Places, Wanted};
use super::swaps::percentile;
use crate::report::Row;

/// Clients at once, each asking again and again.
const CLIENTS: [usize; 4] = [8, 16, 32, 48];
const EACH_FOR: Duration = Duration::from_secs(8);
const TIMES: f64 = 4.0;
const OVERLOADED_FOR: Duration = Duration::from_secs(30);
/// Tokens of an answer: long enough that a request costs far more than refusing one.
const TOKENS: u32 = 64;
/// What ends an answer of the demo models (their config.json's `eos_token_id`).
const END_OF_SEQUENCE: &str = "602";
/// An answer that begins later is no good to anybody.
const FIRST_WITHIN: Duration = Duration::from_secs(2);
/// No number of these was asked before.
const FIRST_NUMBER: u64 = 1 << 62;
/// Of those who were refused, so many come back when they were told to.
const COMING_BACK: u64 = 8;

/// What became of the requests.
#[derive(Default)]
struct Tally {
    good: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
    /// Refusals that do not say when to come back.
    silent: AtomicU64,
    failed: AtomicU64,
    came_back: AtomicU64,
    taken_back: AtomicU64,
}

/// The part's rows.
///
/// # Errors
/// A node does not come up.
pub async fn rows(places: &Places) -> Result<Vec<Row>> {
    let wanted = Wanted {
        api: "requests = 64".into(),
        ..Wanted::default()
    };
    let pair = Pair::start(places, &wanted).await?;
    pair.policy("fixed-speculate").await?;
    // Warm.
    closed(&pair, 4, Duration::from_secs(2)).await?;
    let mut best: f64 = 0.0;
    let mut told = Vec::new();
    for clients in CLIENTS {
        let (rate, firsts) = closed(&pair, clients, EACH_FOR).await?;
        told.push(format!(
            "{clients} clients: {rate:.1} answers/s, first token p50 {:.0} ms",
            percentile(&firsts, 0.5)
        ));
        best = best.max(rate);
    }
    let cloud = pair.cloud.as_ref().context("the cloud")?.id();
    let before = [memory(pair.edge.id())?, memory(cloud)?];
    let tally = Arc::new(Tally::default());
    let (served, offered) = open(&pair, TIMES * best, &tally).await?;
    let after = [memory(pair.edge.id())?, memory(cloud)?];
    let count = |of: &AtomicU64| of.load(Ordering::Relaxed) as f64;
    let share = count(&tally.taken_back) / count(&tally.came_back);
    Ok(vec![
        Row::told("best goodput, no more than is served", best, " answers/s").with_details(told),
        Row::at_least(
            "requests offered, beside the best goodput",
            offered / best,
            0.9 * TIMES,
            "",
        )
        .with_more(Some(format!("{offered:.0} a second"))),
        Row::at_least(
            "goodput at four times the capacity, beside the best",
            served / best,
            0.85,
            "",
        )
        .with_more(Some(format!(
            "{served:.1} answers/s; {} refused, {} late or without the target",
            count(&tally.refused),
            count(&tally.late)
        ))),
        Row::at_most(
            "requests that were neither answered nor refused with 429",
            count(&tally.failed),
            0.0,
            "",
        ),
        Row::at_most(
            "refusals without Retry-After",
            count(&tally.silent),
            0.0,
            "",
        ),
        Row::told(
            "of those who came back when they were told to, answered",
            100.0 * share,
            " %",
        )
        .with_more(Some(format!(
            "of {}, while others kept coming at the same rate: one in four finds a place by chance",
            count(&tally.came_back)
        ))),
        Row::at_most(
            "edge: memory that overload added",
            after[0] - before[0],
            256.0,
            " MB",
        )
        .with_more(Some(format!("{:.0} MB before", before[0]))),
        Row::at_most(
            "cloud: memory that overload added",
            after[1] - before[1],
            256.0,
            " MB",
        )
        .with_more(Some(format!("{:.0} MB before", before[1]))),
    ])
}

fn body(number: u64) -> Value {
    json!({
        "model": "demo",
        "messages": [{ "role": "user", "content": format!("Tell me about number {number}.") }],
        "max_completion_tokens": TOKENS, "temperature": 1.2, "seed": number,
        // Nothing ends an answer early: the id that would is not chosen.
        "logit_bias": { END_OF_SEQUENCE: -100 },
    })
}

/// Clients that ask one thing after the other. Gives whole answers a second, and the times to their first tokens in ms.
async fn closed(pair: &Pair, clients: usize, time: Duration) -> Result<(f64, Vec<f64>)> {
    let began = Instant::now();
    let mut running = Vec::new();
    for client in 0..clients as u64 {
        let api = pair.edge.api;
        running.push(tokio::spawn(async move {
            let mut firsts = Vec::new();
            let mut number = client << 32;
            while began.elapsed() < time {
                number += 1;
                let answer = ask(api, &body(number)).await?;
                ensure!(answer.is_whole(), "{}: {:?}", answer.status, answer.error);
                firsts.push(answer.first.as_secs_f64() * 1000.0);
            }
            anyhow::Ok(firsts)
        }));
    }
    let mut firsts = Vec::new();
    for client in running {
        firsts.extend(client.await??);
    }
    Ok((firsts.len() as f64 / began.elapsed().as_secs_f64(), firsts))
}

/// Requests at a rate. Gives good answers a second, and the rate that it came to.
async fn open(pair: &Pair, rate: f64, tally: &Arc<Tally>) -> Result<(f64, f64)> {
    let began = Instant::now();
    let apart = Duration::from_secs_f64(1.0 / rate);
    let mut running = tokio::task::JoinSet::new();
    let mut number = FIRST_NUMBER;
    let mut due = Duration::ZERO;
    while due < OVERLOADED_FOR {
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        due += apart;
        number += 1;
        let (api, tally) = (pair.edge.api, Arc::clone(tally));
        running.spawn(async move {
            let answer = ask(api, &body(number)).await;
            if let Some(after) = judge(&tally, answer)
                && number.is_multiple_of(COMING_BACK)
            {
                tokio::time::sleep(after).await;
                tally.came_back.fetch_add(1, Ordering::Relaxed);
                match ask(api, &body(number)).await {
                    Ok(answer) if answer.is_whole() => {
                        tally.taken_back.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(answer) if answer.status == 429 => {}
                    _ => {
                        tally.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
    }
    let good = tally.good.load(Ordering::Relaxed);
    let took = began.elapsed().as_secs_f64();
    let sent = number - FIRST_NUMBER;
    while running.join_next().await.is_some() {}
    Ok((good as f64 / took, sent as f64 / took))
}

/// Counts an answer; where it was refused, says after how long to come back.
fn judge(tally: &Tally, answer: Result<Answer>) -> Option<Duration> {
    let add = |counter: &AtomicU64| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    match answer {
        // What the draft model gave alone is not what was asked for.
        Ok(answer) if answer.is_whole() && !has_target(&answer) => add(&tally.late),
        Ok(answer) if answer.is_whole() && answer.first <= FIRST_WITHIN => add(&tally.good),
        Ok(answer) if answer.is_whole() => add(&tally.late),
        Ok(answer) if answer.status == 429 => {
            add(&tally.refused);
            if answer.retry_after.is_none() {
                add(&tally.silent);
            }
            return answer.retry_after;
        }
        _ => add(&tally.failed),
    }
    None
}

/// What a process has held at most is counted from here on.
///
/// # Errors
/// The system refuses.
pub fn forget_peak(process: u32) -> Result<()> {
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").context("clear_refs")
}

/// What a process holds at most so far, in MB.
///
/// # Errors
/// The process is not there.
pub fn memory(process: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: f64 = kib.context("VmHWM")?.parse()?;
    Ok(kib * 1024.0 / 1e6)
}
