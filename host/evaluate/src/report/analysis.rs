//! Who is ranked, and who is ahead.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::doc::number;
use super::figures::{Figures, Repeats, column};
use crate::plan::{Cell, Plan, Purpose};
use crate::rounds::{self, Wanted};
use crate::rows::{Results, Row};
use crate::spec::{Arrival, Link, Policy, Spec};
use crate::stats::{
    Decided, Goodput, Interval, Rung, Verdict, goodput, mean, qualify, quantile, ratio_of_means,
    ratio_of_sums,
};

/// What policies are compared within.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Block {
    /// Of the data set.
    pub data: String,
    /// Of the link.
    pub link: String,
    /// Of the arrivals.
    pub arrival: String,
}

/// Whether a policy is ranked, and why not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It is.
    Ranked,
    /// It is less accurate than the baseline.
    Worse(Verdict),
    /// Nobody knows yet whether it is as accurate.
    Undecided(Verdict),
    /// There are no scores to tell by.
    Unscored,
    /// It is not exact, and a twin has no accuracy.
    NotExact,
    /// It left more requests without an answer than the baseline.
    Unanswered,
}

impl Standing {
    /// It is.
    pub fn is_ranked(&self) -> bool {
        *self == Standing::Ranked
    }

    /// In words.
    pub fn told(&self) -> String {
        match self {
            Standing::Ranked => "ranked".to_owned(),
            Standing::Worse(it) => format!(
                "less accurate: {:+.2} points, at most {:+.2}",
                it.difference, it.upper
            ),
            Standing::Undecided(it) => match it.decided {
                Decided::Undecided { more: Some(more) } => format!(
                    "accuracy undecided: {:+.2} points, at least {:+.2}; some {more} more items would tell",
                    it.difference, it.lower
                ),
                _ => format!(
                    "accuracy undecided: {:+.2} points, at least {:+.2}; more items would not qualify it as it is",
                    it.difference, it.lower
                ),
            },
            Standing::Unscored => "no scores".to_owned(),
            Standing::NotExact => "not exact".to_owned(),
            Standing::Unanswered => "more unanswered than the baseline".to_owned(),
        }
    }
}

/// Within how many ms an answer is in time, by what was asked: see [`crate::spec::Goal`].
#[derive(Clone, Debug, PartialEq)]
pub enum Goals {
    /// By the media of the request (as in `kind` of the rows), and by whether its answer is long.
    Kind(BTreeMap<(String, bool), f64>),
    /// One for all.
    One(f64),
}

impl Goals {
    /// Of what was asked, in ms. None: the unloaded baseline answered none like it.
    pub fn of(&self, kind: &str, long: bool) -> Option<f64> {
        match self {
            Goals::Kind(of) => of.get(&(kind.to_owned(), long)).copied(),
            Goals::One(ms) => Some(*ms),
        }
    }
}

impl fmt::Display for Goals {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        let of = match self {
            Goals::Kind(of) => of,
            Goals::One(ms) => return write!(to, "{} ms", number(*ms)),
        };
        for (nth, ((kind, long), ms)) in of.iter().enumerate() {
            let then = if nth > 0 { ", " } else { "" };
            let length = if *long { "long" } else { "short" };
            write!(to, "{then}{} ms ({kind}, {length})", number(*ms))?;
        }
        Ok(())
    }
}

/// How accurate a policy is beside the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Accurate {
    /// Of the data set.
    pub data: String,
    /// Of the link; of all whose items are judged together.
    pub link: String,
    /// Of the policy.
    pub policy: String,
    /// In words: ranked, or why not.
    pub standing: String,
    /// None: there are no scores.
    pub verdict: Option<Verdict>,
}

/// Results, sorted into cells.
pub struct Analysis<'a> {
    results: &'a Results,
    pub(super) cells: BTreeMap<Cell, Repeats<'a>>,
    figures: BTreeMap<Cell, Figures>,
    verdicts: BTreeMap<(String, String, String), Option<Verdict>>,
}

impl<'a> Analysis<'a> {
    /// Sorts results.
    pub fn of(results: &'a Results) -> Analysis<'a> {
        let mut cells: BTreeMap<Cell, Repeats> = BTreeMap::new();
        for row in &results.rows {
            let repeats = cells.entry(row.key.cell()).or_default();
            repeats.entry(row.key.repeat).or_default().push(row);
        }
        let prices = results.manifest.spec.prices.as_ref();
        let energy_j = |turn: &str| results.finished.get(turn)?.energy_j;
        let figures = (cells.iter())
            .map(|(cell, repeats)| (cell.clone(), Figures::of(repeats, prices, &energy_j)));
        let mut analysis = Analysis {
            results,
            figures: figures.collect(),
            cells,
            verdicts: BTreeMap::new(),
        };
        let spec = analysis.spec();
        for data in &spec.data {
            for link in &spec.links {
                for policy in &spec.policies {
                    let verdict = analysis.judge(&data.name, &link.name, &policy.name);
                    let key = (data.name.clone(), link.name.clone(), policy.name.clone());
                    analysis.verdicts.insert(key, verdict);
                }
            }
        }
        analysis
    }

    /// What was to be evaluated.
    pub fn spec(&self) -> &'a Spec {
        &self.results.manifest.spec
    }

    /// What is analysed.
    pub fn results(&self) -> &'a Results {
        self.results
    }

    /// Turns that are wanted of the specification, by the rows that are there; what is finished, if it cannot be told.
    pub fn turns(&self) -> usize {
        // Recordings may be elsewhere now: only their number matters here.
        let mut spec = self.spec().clone();
        for arrival in &mut spec.arrivals {
            *arrival = Arrival::Closed {
                name: arrival.name().to_owned(),
                concurrency: 1,
            };
        }
        let plan = Plan::new(&spec, std::path::Path::new(""));
        let wanted = Wanted::of(&spec, &self.results.rows);
        plan.map_or(self.results.finished.len(), |plan| {
            plan.turns().iter().filter(|it| wanted.wants(it)).count()
        })
    }

    /// Blocks in the order of the specification.
    pub fn blocks(&self) -> Vec<Block> {
        let spec = self.spec();
        let mut blocks = Vec::new();
        for data in &spec.data {
            for link in &spec.links {
                for arrival in &spec.arrivals {
                    blocks.push(Block {
                        data: data.name.clone(),
                        link: link.name.clone(),
                        arrival: arrival.name().to_owned(),
                    });
                }
            }
        }
        blocks
    }

    /// The figures of a timed cell; None: no turn of it is finished.
    pub fn figures(&self, block: &Block, policy: &str) -> Option<&Figures> {
        self.figures.get(&timed(block, policy))
    }

    /// The verdict on a policy's accuracy on some data over a link; None: no scores.
    pub fn verdict(&self, data: &str, link: &str, policy: &str) -> Option<&Verdict> {
        let key = (data.to_owned(), link.to_owned(), policy.to_owned());
        self.verdicts.get(&key)?.as_ref()
    }

    /// Whether a policy is ranked on some data over a link, whatever the arrivals.
    pub fn qualified(&self, data: &str, link: &str, policy: &Policy) -> Standing {
        let spec = self.spec();
        if policy.name == spec.baseline {
            return Standing::Ranked;
        }
        if spec.pair.is_twin() {
            return if policy.exact {
                Standing::Ranked
            } else {
                Standing::NotExact
            };
        }
        match self.verdict(data, link, &policy.name) {
            None => Standing::Unscored,
            Some(it) => match it.decided {
                Decided::Qualified => Standing::Ranked,
                Decided::Worse => Standing::Worse(*it),
                Decided::Undecided { .. } => Standing::Undecided(*it),
            },
        }
    }

    /// Whether a policy is ranked in a block.
    pub fn standing(&self, block: &Block, policy: &Policy) -> Standing {
        let standing = self.qualified(&block.data, &block.link, policy);
        let share = |policy: &str| {
            let figures = self.figures(block, policy)?;
            Some(figures.unanswered() as f64 / figures.asked.max(1) as f64)
        };
        match (share(&policy.name), share(&self.spec().baseline)) {
            // Those that were answered are the easy ones.
            (Some(one), Some(other)) if standing.is_ranked() && one > other => Standing::Unanswered,
            _ => standing,
        }
    }

    /// Pairs `(one, other)` of a column, repeat by repeat, of requests that both answered.
    pub fn pairs(&self, one: &Cell, other: &Cell, name: &str) -> Vec<Vec<(f64, f64)>> {
        let (Some(one), Some(other)) = (self.cells.get(one), self.cells.get(other)) else {
            return Vec::new();
        };
        let column = column(name);
        let known = |rows: &[&Row]| -> BTreeMap<u32, f64> {
            let answered = rows.iter().filter(|row| row.measured.is_answered());
            answered
                .filter_map(|row| Some((row.key.index, column(&row.measured)?)))
                .collect()
        };
        let mut pairs = Vec::new();
        for (repeat, rows) in one {
            let (one, other) = (
                known(rows),
                known(other.get(repeat).map_or(&[], Vec::as_slice)),
            );
            let both = one
                .iter()
                .filter_map(|(item, value)| Some((*value, *other.get(item)?)));
            let both: Vec<(f64, f64)> = both.collect();
            if !both.is_empty() {
                pairs.push(both);
            }
        }
        pairs
    }

    /// A policy's mean of a column over another's, in a block.
    pub fn ratio(
        &self,
        block: &Block,
        policy: &str,
        other: &str,
        column: &str,
    ) -> Option<Interval> {
        ratio_of_means(&self.pairs(&timed(block, policy), &timed(block, other), column))
    }

    /// The same of all requests at once, without an interval ([`ratio_of_sums`]).
    pub fn ratio_of_all(
        &self,
        block: &Block,
        policy: &str,
        other: &str,
        column: &str,
    ) -> Option<f64> {
        let pairs = self.pairs(&timed(block, policy), &timed(block, other), column);
        ratio_of_sums(&pairs.concat())
    }

    /// The subject, if it takes part.
    pub fn subject(&self) -> Option<&'a Policy> {
        let spec = self.spec();
        spec.policies.iter().find(|it| it.name == spec.subject)
    }

    /// All but the subject and its ablations.
    pub fn baselines(&self) -> impl Iterator<Item = &'a Policy> {
        let spec = self.spec();
        let others = spec.policies.iter().filter(|it| it.name != spec.subject);
        others.filter(|it| it.ablation.is_none())
    }

    /// The rows that tell the accuracy of a policy: those that are about it alone, over any link where links are pooled, or else the
    /// timed ones.
    pub(super) fn scored(&self, data: &str, link: &str, policy: &str) -> Vec<&'a Row> {
        let pooled = self.spec().is_pooled();
        let of = |purpose: Purpose| -> Vec<&'a Row> {
            let any_link = pooled && purpose == Purpose::Accuracy;
            let cells = self.cells.iter().filter(|(cell, _)| {
                cell.purpose == purpose
                    && cell.data == data
                    && (any_link || cell.link == link)
                    && cell.policy == policy
            });
            cells
                .flat_map(|(_, repeats)| repeats.values().flatten().copied())
                .collect()
        };
        let accuracy = of(Purpose::Accuracy);
        if accuracy.is_empty() {
            of(Purpose::Timed)
        } else {
            accuracy
        }
    }

    /// The links that have verdicts on accuracy of their own: what tables call them, and one whose verdict it is. Where they are
    /// pooled, it is one verdict.
    pub(super) fn judged_over(&self) -> Vec<(String, &'a str)> {
        let spec = self.spec();
        let names = |links: Vec<&'a Link>| -> Vec<&'a str> {
            links.into_iter().map(|it| it.name.as_str()).collect()
        };
        if !spec.is_pooled() {
            let all = names(spec.links.iter().collect());
            return all.into_iter().map(|it| (it.to_owned(), it)).collect();
        }
        let asked = names(spec.accuracy_links());
        let first = asked.first().copied();
        first
            .map(|first| (asked.join(" and "), first))
            .into_iter()
            .collect()
    }

    /// Which policies are as accurate as the baseline. Empty on twins.
    pub fn accurate(&self) -> Vec<Accurate> {
        let spec = self.spec();
        let mut all = Vec::new();
        if spec.pair.is_twin() {
            return all;
        }
        for data in &spec.data {
            for (links, link) in self.judged_over() {
                for policy in spec.policies.iter().filter(|it| it.name != spec.baseline) {
                    all.push(Accurate {
                        data: data.name.clone(),
                        link: links.clone(),
                        policy: policy.name.clone(),
                        standing: self.qualified(&data.name, link, policy).told(),
                        verdict: self.verdict(&data.name, link, &policy.name).copied(),
                    });
                }
            }
        }
        all
    }

    /// The accuracy of a policy, 0 to 1; beside others that were asked more or less it is the baseline's plus the difference over
    /// what both were asked.
    pub(super) fn accuracy(&self, data: &str, link: &str, policy: &str) -> Option<f64> {
        let baseline = self.scored(data, link, &self.spec().baseline);
        let own = self.scored(data, link, policy);
        let of = |rows: &[&Row]| {
            let known = rows.iter().any(|it| it.measured.score.is_some());
            let scores = rows.iter().filter(|_| known).filter_map(|it| it.score());
            mean(&scores.collect::<Vec<f64>>())
        };
        let beside = of(&baseline).zip(difference(&own, &baseline));
        let beside = beside.map(|(all, (difference, _))| all + difference);
        beside.or_else(|| of(&own))
    }

    fn judge(&self, data: &str, link: &str, policy: &str) -> Option<Verdict> {
        let spec = self.spec();
        if spec.pair.is_twin() || policy == spec.baseline {
            return None;
        }
        let (one, other) = (
            self.scored(data, link, policy),
            self.scored(data, link, &spec.baseline),
        );
        let both = rounds::both(&one, &other);
        let apart = one
            .first()
            .is_some_and(|it| it.key.purpose == Purpose::Accuracy);
        let accuracy = spec.accuracy.as_ref();
        let in_rounds = accuracy.filter(|it| apart && !it.rounds.is_empty());
        let of = spec.data.iter().find(|it| it.name == data);
        match in_rounds.zip(of) {
            Some((accuracy, data)) => rounds::judge(spec, accuracy, data, &both).verdict,
            None => qualify(&rounds::scores(&both), spec.margin_points()),
        }
    }

    /// Within how many ms answers are in time, each kind by its own median. None: the unloaded baseline was not measured.
    pub fn goals(&self, data: &str, link: &str) -> Option<Goals> {
        let mut times: BTreeMap<(String, bool), Vec<f64>> = BTreeMap::new();
        for (row, total_ms) in self.unloaded(data, link)? {
            let kind = (row.measured.kind.clone(), row.measured.long);
            times.entry(kind).or_default().push(total_ms);
        }
        let goal_ms = |times: &[f64]| Some(self.spec().goal.times * quantile(times, 0.5)?);
        let of = (times.into_iter()).filter_map(|(kind, times)| Some((kind, goal_ms(&times)?)));
        let of: BTreeMap<_, _> = of.collect();
        (!of.is_empty()).then_some(Goals::Kind(of))
    }

    /// The same by one median, whatever was asked.
    pub fn single_goal(&self, data: &str, link: &str) -> Option<Goals> {
        let times: Vec<f64> = self.unloaded(data, link)?.map(|it| it.1).collect();
        Some(Goals::One(self.spec().goal.times * quantile(&times, 0.5)?))
    }

    /// What the baseline answered without load, and in how many ms.
    fn unloaded(&self, data: &str, link: &str) -> Option<impl Iterator<Item = (&Row, f64)>> {
        let spec = self.spec();
        let unloaded = spec.arrivals.iter().find(|it| it.is_unloaded())?;
        let block = Block {
            data: data.to_owned(),
            link: link.to_owned(),
            arrival: unloaded.name().to_owned(),
        };
        let repeats = self.cells.get(&timed(&block, &spec.baseline))?;
        let answered = (repeats.values().flatten()).filter(|row| row.measured.is_answered());
        Some(answered.filter_map(|row| Some((*row, row.measured.total_ms?))))
    }

    /// The rates that a policy carries, of the Poisson ones that were tried. None: none was, or it answered requests of a kind that
    /// has no goal.
    pub fn goodput(&self, data: &str, link: &str, policy: &str, goals: &Goals) -> Option<Goodput> {
        let spec = self.spec();
        let mut rungs = Vec::new();
        for arrival in &spec.arrivals {
            let Arrival::Poisson { name, rate_per_s } = arrival else {
                continue;
            };
            let cell = Cell {
                purpose: Purpose::Timed,
                data: data.to_owned(),
                link: link.to_owned(),
                arrival: name.clone(),
                policy: policy.to_owned(),
            };
            let Some(repeats) = self.cells.get(&cell) else {
                continue;
            };
            let (mut asked, mut in_time) = (0, 0);
            for row in repeats.values().flatten() {
                asked += 1;
                // Without a whole answer it is late by any goal.
                if let Some(total_ms) = row.measured.total_ms.filter(|_| row.measured.is_answered())
                {
                    in_time +=
                        usize::from(total_ms <= goals.of(&row.measured.kind, row.measured.long)?);
                }
            }
            rungs.push(Rung {
                rate_per_s: *rate_per_s,
                asked,
                in_time,
            });
        }
        goodput(rungs, spec.goal.share)
    }
}

/// By how much one policy scored better than another, over what both were asked, in 0 to 1, and over how many items. None: nothing.
pub(super) fn difference(one: &[&Row], other: &[&Row]) -> Option<(f64, usize)> {
    // Of answers that nobody scored only those that did not come are known.
    let known = |rows: &[&Row]| rows.iter().any(|it| it.measured.score.is_some());
    if !known(one) || !known(other) {
        return None;
    }
    let both = rounds::both(one, other);
    let pairs = rounds::scores(&both).pairs;
    let differences: Vec<f64> = pairs.iter().map(|(_, one, other)| one - other).collect();
    Some((mean(&differences)?, differences.len()))
}

/// A timed cell.
pub(super) fn timed(block: &Block, policy: &str) -> Cell {
    Cell {
        purpose: Purpose::Timed,
        data: block.data.clone(),
        link: block.link.clone(),
        arrival: block.arrival.clone(),
        policy: policy.to_owned(),
    }
}
