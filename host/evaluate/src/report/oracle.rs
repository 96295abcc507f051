//! What choosing between whole answers could come to at best.
//!
//! Each question by which accuracy is told, and that the edge alone and the baseline were both asked, is given to the edge where its
//! answer is at least as good, and to the baseline elsewhere, as if that were known beforehand: nothing is looked at, and nothing is
//! tried in vain. No policy can choose so. One that gives whole answers of these two, and loses on no question, leaves no more of them to
//! the edge; one that is ranked may lose a little, and so leave some more.

use std::collections::BTreeMap;

use serde::Serialize;

use super::analysis::Analysis;
use super::figures::column;
use crate::rows::Row;
use crate::spec::Policy;

/// The policy whose answers are the draft model's alone, by its component's name.
const ALONE: &str = "edge-only";

/// See the module. What is over the baseline's is of the same questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Oracle {
    /// The data set.
    pub data: String,
    /// Over which links.
    pub link: String,
    /// Who answers at the edge.
    pub policy: String,
    /// Questions that both have answered, and that somebody scored.
    pub asked: usize,
    /// Of these, left to the edge.
    pub at_edge: usize,
    /// By how much accuracy would be above the baseline's, in points of 100.
    pub points: f64,
    /// FLOPs of both nodes over the baseline's. None, here and below: not measured.
    pub flops: Option<f64>,
    /// Of the cloud.
    pub flops_cloud: Option<f64>,
    /// Cache byte-seconds of the cloud.
    pub cache_cloud: Option<f64>,
}

impl Oracle {
    /// Of each data set and link that accuracy was judged over. Empty on twins, and without a policy of the edge alone.
    pub(super) fn all(analysis: &Analysis) -> Vec<Oracle> {
        let spec = analysis.spec();
        let alone = spec.policies.iter().find(|it| it.policy == ALONE);
        let is_other = |it: &&Policy| it.name != spec.baseline;
        let Some(alone) = alone.filter(|_| !spec.pair.is_twin()).filter(is_other) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for data in &spec.data {
            for (links, link) in analysis.judged_over() {
                let of = |policy: &str| analysis.scored(&data.name, link, policy);
                let (edge, baseline) = (of(&alone.name), of(&spec.baseline));
                all.extend(Oracle::of(&edge, &baseline).map(|found| Oracle {
                    data: data.name.clone(),
                    link: links,
                    policy: alone.name.clone(),
                    ..found
                }));
            }
        }
        all
    }

    fn of(edge: &[&Row], baseline: &[&Row]) -> Option<Oracle> {
        let key = |row: &Row| (row.key.arrival.clone(), row.key.repeat, row.key.index);
        let others: BTreeMap<_, &Row> = baseline.iter().map(|row| (key(row), *row)).collect();
        let both = edge.iter().filter_map(|row| {
            let other = *others.get(&key(row))?;
            // What was not answered was not measured either, or not to its end.
            let answered = row.measured.is_answered() && other.measured.is_answered();
            let scores = (row.measured.score?, other.measured.score?);
            answered.then_some((*row, other, scores.0, scores.1))
        });
        let both: Vec<(&Row, &Row, f64, f64)> = both.collect();
        let asked = both.len();
        let is_left = |it: &&(&Row, &Row, f64, f64)| it.2 >= it.3;
        let points: f64 = both.iter().filter(is_left).map(|it| it.2 - it.3).sum();
        // Over the baseline's sum; None where one that counts was not measured.
        let over = |name: &str| {
            let column = column(name);
            let (mut chosen, mut whole) = (0.0, 0.0);
            for it in &both {
                let taken = if is_left(&it) { it.0 } else { it.1 };
                chosen += column(&taken.measured)?;
                whole += column(&it.1.measured)?;
            }
            (whole > 0.0).then_some(chosen / whole)
        };
        (asked > 0).then(|| Oracle {
            data: String::new(),
            link: String::new(),
            policy: String::new(),
            asked,
            at_edge: both.iter().filter(is_left).count(),
            points: 100.0 * points / asked as f64,
            flops: over("flops"),
            flops_cloud: over("flops_cloud"),
            cache_cloud: over("cache_byte_seconds_cloud"),
        })
    }

    /// In words.
    pub(super) fn told(&self, baseline: &str) -> String {
        let times = |what: &str, over: Option<f64>| {
            over.map(|over| format!("; {what} would be {over:.2} of {baseline}'s"))
        };
        let figures = [
            times("FLOPs of both nodes", self.flops),
            times("of the cloud", self.flops_cloud),
            times("cache byte-seconds of the cloud", self.cache_cloud),
        ];
        let figures: String = figures.into_iter().flatten().collect();
        format!(
            "On {} ({}) {} of {} answers by {} are at least as good as {baseline}'s. Were these left to it, as if that were known \
             beforehand and nothing tried in vain, accuracy would be {:+.2} points beside {baseline}'s{figures}. Whoever chooses between \
             whole answers of the two leaves no more to the edge without losing on some question.",
            self.data, self.link, self.at_edge, self.asked, self.policy, self.points
        )
    }
}
