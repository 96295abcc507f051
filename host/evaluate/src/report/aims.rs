//! What was to be reached, and whether it was.

use serde::Serialize;

use super::analysis::{Analysis, Block, Standing};
use super::duel::{Duel, Outcome};
use crate::stats::Interval;

/// Whether an aim was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Met {
    /// It was.
    Met,
    /// It was not.
    Missed,
    /// Nobody knows.
    NotMeasured,
}

/// An aim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Aim {
    /// In words.
    pub what: String,
    /// What was to be reached.
    pub wanted: String,
    /// What was; up to the first semicolon the figure itself.
    pub found: String,
    /// That figure as a number, where there is one: percent, cells that are lost, times.
    pub value: Option<f64>,
    /// Whether that is enough.
    pub met: Met,
}

/// The aims of the evaluation: of the subject, on the demo pair, among the ranked.
pub(super) fn aims(analysis: &Analysis, duels: &[Duel]) -> Vec<Aim> {
    let spec = analysis.spec();
    if spec.pair.is_twin() || analysis.subject().is_none() {
        return Vec::new();
    }
    let baseline = &spec.baseline;
    let mut aims: Vec<Aim> = [
        ("mean latency on the mixed workload", "total_ms", 50.0),
        ("FLOPs of both nodes on the mixed workload", "flops", 30.0),
        (
            "FLOPs of the cloud on the mixed workload",
            "flops_cloud",
            65.0,
        ),
        (
            "cache byte-seconds of the cloud on the mixed workload",
            "cache_byte_seconds_cloud",
            65.0,
        ),
    ]
    .into_iter()
    .map(|(what, column, percent)| {
        below(
            analysis,
            format!("{what}, against {baseline}"),
            column,
            percent,
        )
    })
    .collect();
    aims.push(nowhere_lost(duels));
    aims.push(goodput(analysis));
    aims
}

/// At least so many percent below the baseline: the geometric mean over the cells of mixed workloads, each of all its requests.
fn below(analysis: &Analysis, what: String, column: &str, percent: f64) -> Aim {
    let spec = analysis.spec();
    let mixed = |block: &Block| {
        let data = spec.data.iter().find(|it| it.name == block.data);
        data.is_some_and(|it| it.workload == "mixed")
    };
    let mut aim = Aim {
        what,
        wanted: format!("{percent:.0}% lower"),
        found: "-".to_owned(),
        value: None,
        met: Met::NotMeasured,
    };
    let Some(subject) = analysis.subject() else {
        return aim;
    };
    let (mut logs, mut reached, mut unranked, mut worse) = (Vec::new(), 0_usize, Vec::new(), false);
    let mut least: Option<(f64, Interval)> = None;
    let mut missing = 0_usize;
    for block in analysis.blocks().into_iter().filter(mixed) {
        let standing = analysis.standing(&block, subject);
        if !standing.is_ranked() {
            worse |= matches!(standing, Standing::Worse(_) | Standing::Unanswered);
            unranked.push(standing);
        }
        let all = analysis.ratio_of_all(&block, &subject.name, &spec.baseline, column);
        let by_repeats = analysis.ratio(&block, &subject.name, &spec.baseline, column);
        let (Some(ratio), Some(interval)) = (all, by_repeats) else {
            missing += 1;
            continue;
        };
        logs.push(ratio.ln());
        reached += usize::from(lower(ratio) >= percent);
        if least.is_none_or(|it| it.0 < ratio) {
            least = Some((ratio, interval));
        }
    }
    let (Some(mean), Some(least)) = (crate::stats::mean(&logs), least) else {
        return aim;
    };
    let all = lower(mean.exp());
    aim.value = Some(all);
    aim.found = format!(
        "{all:.1}% lower; enough in {reached} of {} cells; least {:.1}% ({:.1} to {:.1} by repeats)",
        logs.len(),
        lower(least.0),
        lower(least.1.high),
        lower(least.1.low)
    );
    if missing > 0 {
        aim.found
            .push_str(&format!("; {missing} cells are not measured yet"));
    }
    if let Some(standing) = unranked.first() {
        aim.found.push_str(&format!(
            "; not ranked in {} cells ({})",
            unranked.len(),
            standing.told()
        ));
    }
    aim.met = if all < percent || worse {
        Met::Missed
    } else if unranked.is_empty() && missing == 0 {
        Met::Met
    } else {
        Met::NotMeasured
    };
    aim
}

fn lower(ratio: f64) -> f64 {
    100.0 * (1.0 - ratio)
}

fn nowhere_lost(duels: &[Duel]) -> Aim {
    let count = |outcome: Outcome| duels.iter().filter(|it| it.outcome == outcome).count();
    let (won, even, lost) = (
        count(Outcome::Won),
        count(Outcome::Even),
        count(Outcome::Lost),
    );
    let open = duels.len() - won - even - lost;
    Aim {
        what: "mean latency in every cell, against the best ranked baseline".to_owned(),
        wanted: "not higher beyond noise".to_owned(),
        found: format!("{lost} lost; won {won}, even {even}, not ranked or not measured {open}"),
        value: Some(lost as f64),
        met: if lost > 0 {
            Met::Missed
        } else if open > 0 || duels.is_empty() {
            Met::NotMeasured
        } else {
            Met::Met
        },
    }
}

/// Against the best ranked baseline of the paper's kind, on each data set over each link; each kind of request by its own goal.
fn goodput(analysis: &Analysis) -> Aim {
    const WANTED: f64 = 2.5;
    let spec = analysis.spec();
    let mut aim = Aim {
        what: "goodput, against the best ranked baseline of the paper's kind".to_owned(),
        wanted: format!("{WANTED} times"),
        found: "-".to_owned(),
        value: None,
        met: Met::NotMeasured,
    };
    let Some(subject) = analysis.subject() else {
        return aim;
    };
    let (mut told, mut met) = (Vec::new(), Vec::new());
    for data in &spec.data {
        for link in &spec.links {
            let goals = analysis.goals(&data.name, &link.name);
            let carried = |policy: &str| {
                let found = analysis.goodput(&data.name, &link.name, policy, goals.as_ref()?)?;
                Some((found.carried_per_s, found.missed_per_s.is_none()))
            };
            let kind = analysis.baselines().filter(|it| {
                it.paper_kind && analysis.qualified(&data.name, &link.name, it).is_ranked()
            });
            let known = kind.filter_map(|it| carried(&it.name));
            let best = known.max_by(|a, b| a.0.unwrap_or(0.0).total_cmp(&b.0.unwrap_or(0.0)));
            let (Some((Some(best), open)), Some((mine, mine_open))) =
                (best, carried(&subject.name))
            else {
                met.push(Met::NotMeasured);
                continue;
            };
            let times = mine.unwrap_or(0.0) / best;
            let mark = if mine_open { "at least " } else { "" };
            if aim.value.is_none_or(|least| times < least) {
                aim.value = Some(times);
            }
            told.push(format!(
                "{}, {}: {mark}{times:.2} times",
                data.name, link.name
            ));
            met.push(match analysis.qualified(&data.name, &link.name, subject) {
                // The baseline carried all that was tried.
                Standing::Ranked if open => Met::NotMeasured,
                Standing::Ranked if times >= WANTED => Met::Met,
                Standing::Ranked if mine_open => Met::NotMeasured,
                Standing::Ranked | Standing::Worse(_) => Met::Missed,
                _ => Met::NotMeasured,
            });
        }
    }
    if let Some(least) = aim.value {
        aim.found = format!("{least:.2} times where it is least; {}", told.join("; "));
    }
    aim.met = if met.contains(&Met::Missed) {
        Met::Missed
    } else if met.is_empty() || met.contains(&Met::NotMeasured) {
        Met::NotMeasured
    } else {
        Met::Met
    };
    aim
}
