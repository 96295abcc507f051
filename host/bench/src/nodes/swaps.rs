//! Policies exchanged while many streams run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use msao_hostile::MANIFEST;
use msao_hostile::build::{ANSWERS, Core, Decision};
use serde_json::{Value, json};

use super::client::{activate, ask, operate, push};
use super::pair::{Pair, Places, Wanted};
use crate::report::Row;

const STREAMS: usize = 64;
const SWAPS: u32 = 200;
const FOR: Duration = Duration::from_secs(60);
/// Runs without exchanges, the worst of which counts: one by each policy, and so many by one that takes their routes in turns.
const STILL_TURNS: usize = 2;
/// Drafts a round, and rounds under way, of `fixed-speculate` where nobody says otherwise.
const GAMMA: u32 = 4;
const ROUNDS: u32 = 1;
const STILL_FOR: Duration = Duration::from_secs(12);

/// What a load saw.
#[derive(Default)]
struct Seen {
    /// When each answer was asked for since the load began, and the time to its first token in ms.
    firsts: Vec<(Duration, f64)>,
    failed: Vec<String>,
    unnamed: u64,
    answers: u64,
}

impl Seen {
    /// Of the times to the first token, in ms.
    fn p99(&self) -> f64 {
        let all: Vec<f64> = self.firsts.iter().map(|&(_, ms)| ms).collect();
        percentile(&all, 0.99)
    }

    /// The same by the turn in which an answer was asked for, of so many that follow each other.
    fn p99_by_turn(&self, turn: Duration, turns: u32) -> Vec<f64> {
        let of = |wanted: u32| {
            let in_turn = self.firsts.iter().filter(|(asked, _)| {
                asked.as_nanos() / turn.as_nanos().max(1) % u128::from(turns) == u128::from(wanted)
            });
            let all: Vec<f64> = in_turn.map(|&(_, ms)| ms).collect();
            percentile(&all, 0.99)
        };
        (0..turns).map(of).collect()
    }
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
    releases.push(brought(&pair, &trapping()).await?);
    if let Some(first) = releases.first() {
        activate(pair.operator, first).await?;
    }
    // Warm.
    load(&pair, Duration::from_secs(3)).await?;
    // Where the route changes all streams begin anew at once, and wait for each other, whoever changes it: so the control changes
    // it as well, as often, and exchanges nothing.
    let turns = brought(&pair, &in_turns()).await?;
    let still = (releases
        .iter()
        .zip(["edge-only", "fixed-speculate", "cloud-only"]))
    .chain(std::iter::repeat_n(
        (&turns, "their routes in turns"),
        STILL_TURNS,
    ));
    let (mut worst, mut worst_of_one_route): (f64, f64) = (0.0, 0.0);
    let mut told = Vec::new();
    for (release, name) in still {
        activate(pair.operator, release).await?;
        let seen = load(&pair, STILL_FOR).await?;
        let p99 = seen.p99();
        told.push(format!(
            "without, {name}: p99 {p99:.0} ms of {} answers",
            seen.answers
        ));
        worst = worst.max(p99);
        if *release != turns {
            worst_of_one_route = worst_of_one_route.max(p99);
        }
    }
    if let Some(first) = releases.first() {
        activate(pair.operator, first).await?;
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
    let p99 = seen.p99();
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
    let by_turn = seen.p99_by_turn(FOR / SWAPS, releases.len() as u32);
    let by_turn: Vec<String> = by_turn.iter().map(|ms| format!("{ms:.0}")).collect();
    told.push(format!(
        "with exchanges: p99 {p99:.0} ms of {} answers; of those asked for while edge-only, fixed-speculate, cloud-only and the one that traps were active: {}",
        seen.answers,
        by_turn.join(", ")
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
        Row::told(
            "the same beside the worst of the runs that keep to one route",
            p99 / worst_of_one_route,
            "",
        ),
        Row::at_most(
            "generations that decide, afterwards",
            live.unwrap_or(f64::NAN),
            1.0,
            "",
        ),
    ])
}

/// A policy whose plan traps: the fallback plans for it.
fn trapping() -> Core {
    Core {
        plan: "unreachable".into(),
        ..Core::policy()
    }
}

/// A policy that takes the routes of those that are exchanged in turns, by the clock: edge, speculate, and cloud twice, since
/// that is what the fallback plans.
fn in_turns() -> Core {
    let decision = Decision {
        gamma_max: GAMMA,
        in_flight_max: ROUNDS,
        patience_ms: 1000.0,
        ..Decision::default()
    };
    // Where the decision in memory has its route and its peer, and the request its clock.
    let (route, peer) = (ANSWERS + 8, ANSWERS + 12);
    let turn_ms = FOR.as_millis() as u64 / u64::from(SWAPS);
    Core {
        plan: format!(
            "(local $turn i64) (local $route i32)
            (local.set $turn (i64.rem_u
                (i64.div_u (i64.trunc_f64_u (f64.load offset=8 (local.get 0))) (i64.const {turn_ms}))
                (i64.const 4)))
            (local.set $route (select (i32.const 3) (i32.const 1) (i64.eq (local.get $turn) (i64.const 1))))
            (local.set $route (select (i32.const 0) (local.get $route) (i64.eqz (local.get $turn))))
            (i32.store8 (i32.const {route}) (local.get $route))
            (i32.store (i32.const {peer}) (i32.ne (local.get $route) (i32.const 0)))
            (i32.const {ANSWERS})"
        ),
        // As `fixed-speculate` does by default: it waits while so many rounds are under way, and sends whole ones.
        step: format!(
            "(select (i32.const 3)
                (select (i32.const 1) (i32.const 0) (i32.ge_u (local.get 7) (i32.const {GAMMA})))
                (i32.ge_u (local.get 8) (i32.const {})))",
            (ROUNDS - 1) * GAMMA + 1
        ),
        ..Core::deciding(&decision)
    }
}

/// Brings a policy to the node; its release.
async fn brought(pair: &Pair, policy: &Core) -> Result<Value> {
    use base64::Engine as _;
    let component = base64::engine::general_purpose::STANDARD.encode(policy.build()?);
    let body = json!({ "component": component, "manifest": MANIFEST });
    let pushed = operate(pair.operator, "/v1/policies", Some(&body)).await?;
    Ok(pushed.get("release").cloned().unwrap_or_default())
}

/// All streams, for so long.
async fn load(pair: &Pair, time: Duration) -> Result<Seen> {
    let began = Instant::now();
    let mut clients = Vec::new();
    for client in 0..STREAMS {
        let api = pair.edge.api;
        clients.push(tokio::spawn(async move {
            let mut seen = Seen::default();
            let mut number = 0_u64;
            while began.elapsed() < time {
                number += 1;
                let asked = began.elapsed();
                let body = json!({
                    "model": "demo",
                    "messages": [{ "role": "user", "content": format!("{client} + {number} = ?") }],
                    "max_completion_tokens": 16, "temperature": 1.0, "seed": number,
                });
                match ask(api, &body).await {
                    Ok(answer) if answer.is_whole() => {
                        seen.answers += 1;
                        if answer.first > Duration::ZERO {
                            seen.firsts
                                .push((asked, answer.first.as_secs_f64() * 1000.0));
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
        all.firsts.extend(seen.firsts);
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
