//! Confident mode's guarantee, over streams of requests whose truth is known.

use anyhow::{Context, Result};
use msao_adapt::audit::AuditConfig;
use msao_adapt::audit::simulate::{Play, Report, Traffic, Truth, simulate};

use super::progress::Progress;
use super::setting::Setting;
use super::work::share;
use crate::report::Row;

/// Streams, and requests of each.
const STREAMS: u32 = 200;
const REQUESTS: u64 = 50_000;
/// Streams that are played at once: progress is told between.
const TOGETHER: u32 = 20;
/// Share of requests that are audited.
const RATE: f64 = 0.1;
/// Chance that a threshold over budget opens, at most.
const DELTA: f64 = 0.05;
/// Shares of requests that may be broken.
const BUDGETS: [f64; 3] = [0.004, 0.01, 0.05];
/// Seed of the first stream's coins and requests, and of what traffic is like.
const SEED: u64 = 1;
const TRAFFIC_SEED: u64 = 9;

/// Runs over budget, of all: what a chance of [`DELTA`] each would exceed once in forty times.
const MOST_OVER: f64 = 16.0;
/// Part of the tokens that an oracle would let go unverified.
const PART: f64 = 0.5;
/// A bound that hardly holds anything, as a control: it must be seen to fail.
const CARELESS: f64 = 0.9;

/// A kind of traffic under a budget.
struct Case {
    name: String,
    truth: Truth,
    budget: f64,
    delta: f64,
    /// What is aimed at.
    aims: Aims,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Aims {
    /// The budget holds, and enough goes unverified.
    Both,
    /// The budget holds; nothing may go unverified.
    Budget,
    /// The budget does not hold.
    Control,
}

/// The part's rows.
///
/// # Errors
/// A configuration is out of range, or it is interrupted.
pub fn rows(setting: &Setting) -> Result<Vec<Row>> {
    setting.interrupt.check("this part had not begun")?;
    let cases = cases()?;
    let parts = STREAMS.div_ceil(TOGETHER);
    let jobs: Vec<(usize, u32)> = (0..cases.len())
        .flat_map(|case| (0..parts).map(move |part| (case, part * TOGETHER)))
        .collect();
    let mut reports: Vec<Option<Report>> = cases.iter().map(|_| None).collect();
    let mut progress = Progress::new(
        format!("times {TOGETHER} streams of {REQUESTS} requests"),
        jobs.len(),
        0,
    );
    share(
        &jobs,
        setting.workers,
        &setting.interrupt,
        || Ok(()),
        |(), &(case, first)| {
            let case = cases.get(case).context("there is no such case")?;
            Ok(simulate(&case.truth, &play(case, first))?)
        },
        |number, report| {
            let case = jobs.get(number).map(|(case, _)| *case);
            let slot = case.and_then(|case| reports.get_mut(case));
            let slot = slot.context("there is no such case")?;
            match slot {
                // The order of runs says nothing.
                Some(all) => all.runs.extend(report.runs),
                None => *slot = Some(report),
            }
            progress.step();
            Ok(())
        },
    )?;
    progress.end();
    (setting.interrupt).check("nothing is kept of streams that were not played to their end")?;
    let played = cases.iter().zip(&reports);
    Ok(played
        .flat_map(|(case, report)| match report {
            Some(report) => told(case, report),
            None => vec![Row::failed(&case.name, "played", "no stream was played")],
        })
        .collect())
}

/// Streams from number `first` on.
fn play(case: &Case, first: u32) -> Play {
    Play {
        audit: AuditConfig {
            budget: case.budget,
            delta: case.delta,
            rate: RATE,
            ..AuditConfig::new(SEED + u64::from(first))
        },
        streams: TOGETHER.min(STREAMS.saturating_sub(first)),
        requests: REQUESTS,
        unfinished: 0.0,
    }
}

/// Every kind of traffic under every budget, the two worst cases for the bound, and the control.
fn cases() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for budget in BUDGETS {
        let mut add = |name: &str, truth: Truth, delta: f64, aims: Aims| {
            cases.push(Case {
                name: format!("budget {} %, {name}", 100.0 * budget),
                truth,
                budget,
                delta,
                aims,
            });
        };
        for (name, traffic) in Traffic::KINDS {
            add(name, traffic.truth(TRAFFIC_SEED), DELTA, Aims::Both);
        }
        let none = Truth::brink(budget, budget * 1.01)?;
        let half = Truth::brink(budget, budget * 0.1)?;
        add("just over it everywhere", none.clone(), DELTA, Aims::Budget);
        add("just over it in the lower half", half, DELTA, Aims::Both);
        let control = format!("just over it everywhere, with delta {CARELESS} (a control)");
        add(&control, none, CARELESS, Aims::Control);
    }
    Ok(cases)
}

/// What came of a case.
fn told(case: &Case, report: &Report) -> Vec<Row> {
    let runs = report.runs.len();
    let over = report.over_budget() as f64;
    let name = format!("{}: of {runs} runs over budget", case.name);
    if case.aims == Aims::Control {
        return vec![Row::above(name, over, MOST_OVER, "")];
    }
    let waited = median(report.runs.iter().map(|run| run.waited as f64).collect());
    let alarms: u64 = report.runs.iter().map(|run| run.alarms).sum();
    let mut rows = vec![
        Row::at_most(name, over, MOST_OVER, "").with_details(vec![format!(
            "{} had more broken requests than the budget; half waited at most {waited:.0} requests for a first threshold; \
             {alarms} alarms",
            report.broken()
        )]),
    ];
    if case.aims == Aims::Both {
        let part = Row::at_least(
            format!("{}: unverified, as a part of an oracle's", case.name),
            report.part_of_oracle(),
            PART,
            "",
        );
        rows.push(part.with_details(vec![format!(
            "least of a run {:.3}; the oracle lets {:.1} % of the tokens go",
            report.least_part_of_oracle(),
            100.0 * report.oracle
        )]));
    }
    rows
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_streams_are_played_once_and_are_those_of_one_play() {
        let cases = cases().unwrap();
        // Six kinds, the two worst and the control, under three budgets.
        assert_eq!(cases.len(), 27);
        let first = &cases[0];
        assert_eq!(first.name, "budget 0.4 %, calibrated");
        let firsts = (0..STREAMS.div_ceil(TOGETHER)).map(|part| part * TOGETHER);
        let played: u32 = firsts.map(|it| play(first, it).streams).sum();
        assert_eq!(played, STREAMS);
        // Streams are named by the seed of the play and their number in it.
        let short = |first: &Case, from, streams| {
            let play = Play {
                streams,
                requests: 2_000,
                ..play(first, from)
            };
            simulate(&first.truth, &play).unwrap().runs
        };
        let whole = short(first, 0, 5);
        assert_eq!(whole[3..], short(first, 3, 2)[..]);
    }

    #[test]
    fn a_row_says_whether_the_budget_held() {
        let cases = cases().unwrap();
        let run = |broken: f64, unverified: f64| msao_adapt::audit::simulate::Run {
            opened_over_budget: false,
            broken,
            unverified,
            waited: 10,
            alarms: 0,
        };
        let report = |over: usize| Report {
            budget: 0.004,
            oracle: 0.5,
            runs: (0..200)
                .map(|number| run(if number < over { 0.01 } else { 0.001 }, 0.3))
                .collect(),
        };
        let rows = told(&cases[0], &report(16));
        assert!(rows.iter().all(|row| row.met), "{rows:?}");
        assert_eq!(rows[1].value.map(|it| (1e9 * it).round()), Some(6e8));
        assert!(!told(&cases[0], &report(17))[0].met);
        let control = cases.iter().find(|it| it.aims == Aims::Control).unwrap();
        assert!(!told(control, &report(16))[0].met);
        assert!(told(control, &report(17))[0].met);
        let none = cases.iter().find(|it| it.aims == Aims::Budget).unwrap();
        assert_eq!(told(none, &report(0)).len(), 1);
    }
}
