//! Two folders side by side: the same cells, what differs, and what got worse.
//!
//! The runs were at different times, so that drift does not cancel out: intervals are Welch's over the repeats of each side, or none
//! with fewer than two repeats on either. Accuracies are compared item by item.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use thiserror::Error;

use crate::manifest::Difference;
use crate::plan::{Cell, Purpose};
use crate::report::{column, number};
use crate::rows::{Results, Row};
use crate::stats::{Interval, Scores, Verdict, qualify, ratio_of_unpaired};

/// Why two folders are not compared.
#[derive(Debug, Error)]
pub enum CompareError {
    /// Times of different machines say nothing of the program.
    #[error(
        "the machines differ: {}; compare runs of one machine, or say --across-machines if that is what you want to see",
        .0.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
    )]
    Machines(Vec<Difference>),
    /// There is nothing to compare.
    #[error(
        "the folders have no cell in common: data, link, arrivals and policy must have the same names; compare runs of one specification"
    )]
    Nothing,
}

/// A column of a cell, there and here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Where.
    pub cell: Cell,
    /// Which column.
    pub column: &'static str,
    /// Its mean in the first folder.
    pub before: f64,
    /// Its mean in the second.
    pub now: f64,
    /// The second over the first. None: too few repeats.
    pub ratio: Option<Interval>,
}

impl Change {
    /// More, beyond noise; of every column here more is worse.
    pub fn is_worse(&self) -> bool {
        self.ratio.is_some_and(|it| it.low > 1.0)
    }

    /// Less, beyond noise.
    pub fn is_better(&self) -> bool {
        self.ratio.is_some_and(|it| it.high < 1.0)
    }
}

/// An accuracy, there and here.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scored {
    /// Data set.
    pub data: String,
    /// Link.
    pub link: String,
    /// Policy.
    pub policy: String,
    /// The second folder less the first.
    pub verdict: Verdict,
}

/// What differs between two folders.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    /// What the manifests say otherwise.
    pub differences: Vec<Difference>,
    /// Columns of cells that both have.
    pub changes: Vec<Change>,
    /// Accuracies that both have.
    pub scores: Vec<Scored>,
    /// Cells that one alone has.
    pub unmatched: usize,
}

/// What is compared; of all of them less is better.
const COLUMNS: [&str; 7] = [
    "total_ms",
    "ttft_ms",
    "flops",
    "flops_cloud",
    "cache_byte_seconds_cloud",
    "bytes_up",
    "bytes_down",
];

type Cells<'a> = BTreeMap<Cell, BTreeMap<u32, Vec<&'a Row>>>;

fn cells(results: &Results) -> Cells<'_> {
    let mut cells = Cells::new();
    for row in &results.rows {
        let repeats = cells.entry(row.key.cell()).or_default();
        repeats.entry(row.key.repeat).or_default().push(row);
    }
    cells
}

/// Compares the second with the first.
///
/// # Errors
/// [`CompareError`]: the machines differ, unless that is wanted, or there is nothing in common.
pub fn compare(
    before: &Results,
    now: &Results,
    across_machines: bool,
) -> Result<Comparison, CompareError> {
    let differences = now.manifest.differences_from(&before.manifest);
    let machines: Vec<Difference> = (differences.iter())
        .filter(|it| it.what.starts_with("machine."))
        .cloned()
        .collect();
    if !machines.is_empty() && !across_machines {
        return Err(CompareError::Machines(machines));
    }
    let (old, new) = (cells(before), cells(now));
    let both: Vec<&Cell> = old.keys().filter(|cell| new.contains_key(*cell)).collect();
    if both.is_empty() {
        return Err(CompareError::Nothing);
    }
    let mut changes = Vec::new();
    for cell in both
        .iter()
        .copied()
        .filter(|it| it.purpose == Purpose::Timed)
    {
        for name in COLUMNS {
            let of = |cells: &Cells| -> Vec<Vec<f64>> {
                let repeats = cells.get(cell).into_iter().flat_map(BTreeMap::values);
                let values = repeats.map(|rows| {
                    let answered = rows.iter().filter(|row| row.measured.is_answered());
                    answered
                        .filter_map(|row| column(name)(&row.measured))
                        .collect()
                });
                values.collect()
            };
            let (old, new) = (of(&old), of(&new));
            let mean = |repeats: &[Vec<f64>]| crate::stats::mean(&repeats.concat());
            if let (Some(before), Some(now)) = (mean(&old), mean(&new)) {
                changes.push(Change {
                    cell: cell.clone(),
                    column: name,
                    before,
                    now,
                    ratio: ratio_of_unpaired(&new, &old),
                });
            }
        }
    }
    Ok(Comparison {
        differences,
        changes,
        scores: scores(before, now),
        unmatched: old.len() + new.len() - 2 * both.len(),
    })
}

/// By data, link and policy; of turns about accuracy alone, or else of the timed ones.
fn scores(before: &Results, now: &Results) -> Vec<Scored> {
    // The first row of an item counts: a later repeat may have asked it again. Of other data sets the same place is another item.
    type Items<'a> = BTreeMap<(String, String, String), BTreeMap<(u32, &'a str), (&'a str, f64)>>;
    fn items(results: &Results, purpose: Purpose) -> Items<'_> {
        let mut all = Items::new();
        for row in results.rows.iter().filter(|row| row.key.purpose == purpose) {
            if let Some(score) = row.score() {
                let key = (
                    row.key.data.clone(),
                    row.key.link.clone(),
                    row.key.policy.clone(),
                );
                let item = (row.measured.group.as_str(), score);
                all.entry(key)
                    .or_default()
                    .entry((row.key.index, row.measured.item.as_str()))
                    .or_insert(item);
            }
        }
        // Of answers that nobody scored only those that did not come are known.
        let scored = |row: &Row| row.measured.score.is_some();
        if !results.rows.iter().any(scored) {
            all.clear();
        }
        all
    }
    let purpose = |results: &Results| {
        results
            .rows
            .iter()
            .any(|row| row.key.purpose == Purpose::Accuracy)
    };
    let purpose = if purpose(before) && purpose(now) {
        Purpose::Accuracy
    } else {
        Purpose::Timed
    };
    let (old, new) = (items(before, purpose), items(now, purpose));
    let mut scores = Vec::new();
    for ((data, link, policy), items) in new {
        let Some(others) = old.get(&(data.clone(), link.clone(), policy.clone())) else {
            continue;
        };
        let pairs = items
            .iter()
            .filter_map(|(item, (group, score))| Some((*group, *score, others.get(item)?.1)));
        let margin = now.manifest.spec.margin_points();
        if let Some(verdict) = qualify(
            &Scores {
                pairs: pairs.collect(),
            },
            margin,
        ) {
            scores.push(Scored {
                data,
                link,
                policy,
                verdict,
            });
        }
    }
    scores
}

impl Comparison {
    /// Something got worse beyond noise.
    pub fn is_worse(&self) -> bool {
        let accuracy = self.scores.iter().any(|it| it.verdict.upper < 0.0);
        accuracy || self.changes.iter().any(Change::is_worse)
    }

    /// As a table that people read, what got worse first.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for difference in &self.differences {
            let _written = writeln!(out, "note: {difference}");
        }
        if self.unmatched > 0 {
            let _written = writeln!(
                out,
                "note: {} cells are in one folder alone",
                self.unmatched
            );
        }
        let mut list = |title: &str, wanted: &dyn Fn(&Change) -> bool| {
            let lines: Vec<&Change> = self.changes.iter().filter(|it| wanted(it)).collect();
            let _written = writeln!(out, "\n{title}: {}", lines.len());
            for it in lines {
                let ratio = match &it.ratio {
                    Some(ratio) => format!(
                        "x{} [{}, {}]",
                        number(ratio.value),
                        number(ratio.low),
                        number(ratio.high)
                    ),
                    None => format!("x{} (too few repeats to tell)", number(it.now / it.before)),
                };
                let _written = writeln!(
                    out,
                    "  {} {} {} {}  {}: {} -> {}  {ratio}",
                    it.cell.data,
                    it.cell.link,
                    it.cell.arrival,
                    it.cell.policy,
                    it.column,
                    number(it.before),
                    number(it.now)
                );
            }
        };
        list("worse", &Change::is_worse);
        list("better", &Change::is_better);
        list("no difference that can be told", &|it| {
            !it.is_worse() && !it.is_better()
        });
        let _written = writeln!(out, "\naccuracy, in points: {}", self.scores.len());
        for it in &self.scores {
            let verdict = &it.verdict;
            let told = if verdict.upper < 0.0 { "  WORSE" } else { "" };
            let _written = writeln!(
                out,
                "  {} {} {}  {:+.2} [{:+.2}, {:+.2}] over {} items{told}",
                it.data,
                it.link,
                it.policy,
                verdict.difference,
                verdict.lower,
                verdict.upper,
                verdict.items
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::{Simulated, go, spec};

    fn results(asker: &mut Simulated) -> Results {
        let folder = tempfile::tempdir().unwrap();
        go(&spec(), asker, folder.path()).unwrap();
        Results::read(folder.path()).unwrap()
    }

    #[test]
    fn what_got_worse_is_told() {
        let before = results(&mut Simulated::default());
        let same = compare(&before, &before, false).unwrap();
        assert!(!same.is_worse() && same.differences.is_empty() && same.unmatched == 0);
        // 6 columns of 24 timed cells: the simulated asker has no bytes that vary, but it has them.
        assert_eq!(same.changes.len(), 24 * 7);
        assert_eq!(same.scores.len(), 8);
        let mut slow = Simulated {
            takes: |turn, item| {
                f64::from(item.index % 7)
                    + if turn.policy.name == "msao" {
                        90.0
                    } else {
                        100.0
                    }
            },
            scores: |turn, item| match turn.policy.name.as_str() {
                "msao" => 0.0,
                _ => f64::from(u8::from(item.index % 5 != 0)),
            },
            ..Simulated::default()
        };
        slow.facts.commit = "def".to_owned();
        let now = results(&mut slow);
        let found = compare(&before, &now, false).unwrap();
        assert!(found.is_worse());
        let worse: Vec<&Change> = found
            .changes
            .iter()
            .filter(|it| it.is_worse() && it.column == "total_ms")
            .collect();
        assert!(
            worse.iter().any(|it| it.cell.policy == "msao")
                && worse.iter().all(|it| it.cell.policy != "cloud-only")
        );
        let text = found.text();
        assert!(
            text.contains("note: facts.commit was \"c0ffee\", is \"def\""),
            "{text}"
        );
        assert!(
            text.contains("demo-mixed 200 msao  -80.00") && text.contains("WORSE"),
            "{text}"
        );
    }

    #[test]
    fn other_machines_and_other_things_are_refused() {
        let before = results(&mut Simulated::default());
        let mut now = before.clone();
        now.manifest.machine.cpu = "another".to_owned();
        let told = compare(&before, &now, false).unwrap_err().to_string();
        assert!(
            told.contains("machine.cpu was ") && told.contains("--across-machines"),
            "{told}"
        );
        let found = compare(&before, &now, true).unwrap();
        assert!(found.text().contains("note: machine.cpu"));
        for row in &mut now.rows {
            row.key.link = "other".to_owned();
        }
        assert!(matches!(
            compare(&before, &now, true),
            Err(CompareError::Nothing)
        ));
    }
}
