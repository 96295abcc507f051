//! The subject against the best ranked baseline, block by block, and what one would look at to see why.

use std::collections::BTreeMap;

use serde::Serialize;

use super::analysis::{Analysis, Block, timed};
use super::doc::{large, number, or_dash};
use crate::rows::{Row, word};
use crate::spec::Policy;
use crate::stats::Interval;

/// How the subject fares against the best ranked baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Faster, beyond noise.
    Won,
    /// No difference can be told.
    Even,
    /// Slower, beyond noise.
    Lost,
    /// The subject is not ranked there.
    Unranked,
    /// One of both was not measured.
    Unmeasured,
}

/// The subject against the best ranked baseline of a block.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Duel {
    /// Where.
    pub block: Block,
    /// The best ranked baseline's name.
    pub best: Option<String>,
    /// The subject's mean latency over the best's.
    pub ratio: Option<Interval>,
    /// What follows.
    pub outcome: Outcome,
    /// What one would look at.
    pub why: String,
}

/// What the time of an answer is made of; together it is all of it.
const PARTS: [&str; 4] = [
    "waiting to be sent",
    "sending at the link's rate",
    "the first token otherwise",
    "the tokens behind the first",
];

/// These, in ms. None where the answer's time is not known.
fn parts(row: &Row, up_mbit: Option<f64>) -> Option<[f64; PARTS.len()]> {
    let it = &row.measured;
    let total = it.total_ms.filter(|_| it.is_answered())?;
    // An answer without a word has no first token.
    let first = it.ttft_ms.unwrap_or(total).min(total);
    let waited = it.arrival_ms.zip(it.sent_ms);
    let waited = waited.map_or(0.0, |(due, sent)| (sent - due).max(0.0).min(first));
    // Drafts go up behind the first token, too: they are next to nothing beside media.
    let sent = it.bytes_up.zip(up_mbit);
    let sent = sent.map_or(0.0, |(bytes, mbit)| bytes as f64 * 8.0 / (mbit * 1e3));
    let sent = sent.min(first - waited);
    Some([waited, sent, first - waited - sent, total - first])
}

impl Analysis<'_> {
    /// The subject against the best ranked baseline, block by block. Empty where the subject takes no part.
    pub fn duels(&self) -> Vec<Duel> {
        let Some(subject) = self.subject() else {
            return Vec::new();
        };
        self.blocks()
            .into_iter()
            .map(|block| self.duel(block, subject))
            .collect()
    }

    fn duel(&self, block: Block, subject: &Policy) -> Duel {
        let mean = |policy: &Policy| self.figures(&block, &policy.name)?.mean("total_ms");
        let ranked = self
            .baselines()
            .filter(|it| self.standing(&block, it).is_ranked());
        let best =
            (ranked.filter_map(|it| Some((it, mean(it)?)))).min_by(|a, b| a.1.total_cmp(&b.1));
        let standing = self.standing(&block, subject);
        let ratio =
            best.and_then(|(best, _)| self.ratio(&block, &subject.name, &best.name, "total_ms"));
        let outcome = match ratio {
            None => Outcome::Unmeasured,
            Some(_) if !standing.is_ranked() => Outcome::Unranked,
            Some(it) if it.low > 1.0 => Outcome::Lost,
            Some(it) if it.high < 1.0 => Outcome::Won,
            Some(_) => Outcome::Even,
        };
        let why = match (outcome, best) {
            (Outcome::Unranked, _) => standing.told(),
            (Outcome::Unmeasured, _) => "not measured".to_owned(),
            (_, Some((best, _))) => self.why(&block, subject, best),
            (_, None) => String::new(),
        };
        Duel {
            best: best.map(|(best, _)| best.name.clone()),
            block,
            ratio,
            outcome,
            why,
        }
    }

    /// What both spent where: what is measured says most about why.
    fn why(&self, block: &Block, subject: &Policy, best: &Policy) -> String {
        let (Some(one), Some(other)) = (
            self.figures(block, &subject.name),
            self.figures(block, &best.name),
        ) else {
            return String::new();
        };
        let mut told = Vec::new();
        told.extend(self.made_of(block, &subject.name, &best.name));
        for (name, column, unit) in [
            ("first token", "ttft_ms", "ms"),
            ("probe", "probe_ms", "ms"),
            ("plug-ins", "plugin_ms", "ms"),
            ("edge busy", "busy_edge_ms", "ms"),
            ("cloud busy", "busy_cloud_ms", "ms"),
            ("sent up", "bytes_up", "B"),
            ("drafts accepted", "acceptance", ""),
        ] {
            if let Some(mine) = one.mean(column) {
                let theirs = or_dash(other.mean(column), large);
                let text = format!("{name} {} against {theirs} {unit}", large(mine));
                told.push(text.trim_end().to_owned());
            }
        }
        let routes = self.routes(block, &subject.name);
        if !routes.is_empty() {
            told.push(format!("ways {routes}"));
        }
        told.join("; ")
    }

    /// Which part of an answer's time makes most of the difference to another policy, over requests that both answered.
    fn made_of(&self, block: &Block, policy: &str, other: &str) -> Option<String> {
        let links = &self.spec().links;
        let link = links.iter().find(|it| it.name == block.link)?;
        let cell = |policy: &str| self.cells.get(&timed(block, policy));
        let (one, other) = (cell(policy)?, cell(other)?);
        let (mut sums, mut count) = ([0.0; PARTS.len()], 0_u32);
        for (repeat, rows) in one {
            let others = other.get(repeat).map_or(&[][..], Vec::as_slice);
            let others: BTreeMap<u32, &Row> = others.iter().map(|it| (it.key.index, *it)).collect();
            for row in rows {
                let other = others.get(&row.key.index);
                let other = other.and_then(|it| parts(it, link.up_mbit));
                let Some((mine, theirs)) = parts(row, link.up_mbit).zip(other) else {
                    continue;
                };
                for ((sum, mine), theirs) in sums.iter_mut().zip(mine).zip(theirs) {
                    *sum += mine - theirs;
                }
                count += 1;
            }
        }
        if count == 0 {
            return None;
        }
        let signed = |value: f64| {
            let sign = if value < 0.0 { "" } else { "+" };
            format!("{sign}{}", number(value))
        };
        let means = sums.map(|sum| sum / f64::from(count));
        let all: f64 = means.iter().sum();
        let mut parts: Vec<(&str, f64)> = PARTS.into_iter().zip(means).collect();
        // Most of it is what goes its way the furthest.
        parts.sort_by(|a, b| (b.1 * all.signum()).total_cmp(&(a.1 * all.signum())));
        let (most, rest) = parts.split_first()?;
        let rest = rest
            .iter()
            .map(|(name, ms)| format!("{name} {}", signed(*ms)));
        Some(format!(
            "mostly {}: {} of {} ms ({})",
            most.0,
            signed(most.1),
            signed(all),
            rest.collect::<Vec<_>>().join(", ")
        ))
    }

    /// Shares of the ways that were taken.
    pub(super) fn routes(&self, block: &Block, policy: &str) -> String {
        let mut counts = BTreeMap::new();
        let mut all = 0.0;
        let repeats = self.cells.get(&timed(block, policy));
        for row in repeats.into_iter().flat_map(|it| it.values().flatten()) {
            if let Some(route) = row.measured.route {
                *counts.entry(route).or_insert(0.0) += 1.0;
                all += 1.0;
            }
        }
        let shares = counts
            .iter()
            .map(|(route, count)| format!("{} {:.0}%", word(route), 100.0 * count / all));
        shares.collect::<Vec<_>>().join(", ")
    }
}
