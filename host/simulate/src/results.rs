//! What a simulation comes to.

use msao_core::offload::{Outcome, Route, Status};
use serde::{Deserialize, Serialize};

/// A request that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Number of the question.
    pub question: u32,
    /// The edge that it came to.
    pub edge: u32,
    /// When it came, and when it ended, in ms since the beginning.
    pub arrived_ms: f64,
    /// Likewise.
    pub ended_ms: f64,
    /// Time that the client left for it; 0 for none.
    pub deadline_ms: f64,
    /// Tokens that are not the target's.
    pub wrong: u32,
    /// Share of what the answer needed of the media that whoever answered did not get.
    pub lost: f64,
    /// What the policy was told.
    pub outcome: Outcome,
}

impl Ended {
    /// Answered, with the peer or without, within the time that the client left.
    pub fn is_good(&self) -> bool {
        let answered = self.outcome.status <= Status::Degraded as u8;
        answered && (self.deadline_ms == 0.0 || self.outcome.total_ms <= self.deadline_ms)
    }
}

/// How a figure is spread over requests. All 0 where there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Spread {
    /// Arithmetic mean.
    pub mean: f64,
    /// The value that half of all do not exceed.
    pub p50: f64,
    /// Likewise, 95 of 100.
    pub p95: f64,
    /// Likewise, 99 of 100.
    pub p99: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    fn of(values: &mut [f64]) -> Spread {
        let Some(last) = values.len().checked_sub(1) else {
            return Spread::default();
        };
        values.sort_unstable_by(f64::total_cmp);
        // The nearest rank: always a value that was there.
        let at = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            let place = rank.saturating_sub(1).min(last);
            values.get(place).copied().unwrap_or(0.0)
        };
        Spread {
            mean: values.iter().sum::<f64>() / values.len() as f64,
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            most: at(1.0),
        }
    }
}

/// Sums and spreads over all requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Requests that have ended.
    pub requests: u32,
    /// Of them: answered.
    pub answered: u32,
    /// Answered without the peer, which was lost or refused.
    pub degraded: u32,
    /// Refused.
    pub refused: u32,
    /// Failed, most of them because their time was up.
    pub failed: u32,
    /// By where they ran in the end: edge, cloud, cloud-draft, speculate.
    pub routes: [u32; 4],
    /// From the first arrival to the last end, in ms.
    pub lasted_ms: f64,
    /// Time to the last token of those that were answered, in ms.
    pub latency_ms: Spread,
    /// Time to their first token, in ms.
    pub ttft_ms: Spread,
    /// Requests that ended a second, whatever became of them.
    pub requests_per_s: f64,
    /// Those a second that were answered in time.
    pub good_per_s: f64,
    /// Tokens of all answers.
    pub tokens: u64,
    /// Of them a second.
    pub tokens_per_s: f64,
    /// Share of tokens that were committed unverified.
    pub unverified: f64,
    /// Share of tokens that are not the target's.
    pub wrong: f64,
    /// Share of what answers needed of media that was dropped, in the mean.
    pub lost: f64,
    /// Drafts that were held against the target, and of them those that stood.
    pub drafted: u64,
    /// Likewise.
    pub accepted: u64,
    /// Rounds of drafts.
    pub rounds: u64,
    /// Floating-point operations at the edges.
    pub edge_flops: f64,
    /// In the clouds.
    pub cloud_flops: f64,
    /// Bytes to the clouds, as requests tell it.
    pub sent_bytes: f64,
    /// From the clouds.
    pub received_bytes: f64,
    /// In the operator's unit.
    pub cost: f64,
}

/// What a simulation comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Sums and spreads.
    pub summary: Summary,
    /// Each request by itself, in the order of their ends; empty unless they were to be kept.
    pub ended: Vec<Ended>,
    /// Calls of the policy or the post-processor that failed, or whose answers broke a rule: a fallback took their place.
    pub failures: u64,
    /// Calls of `step`.
    pub steps: u64,
    /// Verdicts that contradicted their session; there are none, unless the protocol's two sides differ.
    pub contradictions: u64,
    /// Bytes that went over links to the clouds, as the links count them.
    pub link_sent_bytes: u64,
    /// From the clouds. Of them `late_bytes` came for requests that had ended.
    pub link_received_bytes: u64,
    /// See `link_received_bytes`.
    pub late_bytes: u64,
    /// Things that happened.
    pub events: u64,
    /// Virtual time at the end, in ms.
    pub now_ms: f64,
    /// It was stopped before everything had ended.
    pub stopped: bool,
}

/// Sums up while it goes on.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    keep: bool,
    kept: Vec<Ended>,
    sums: Summary,
    latency_ms: Vec<f64>,
    ttft_ms: Vec<f64>,
    first_ms: Option<f64>,
    last_ms: f64,
    good: u32,
    unverified: u64,
    wrong: u64,
    lost: f64,
    pub failures: u64,
    pub steps: u64,
    pub contradictions: u64,
    pub late_bytes: u64,
    pub events: u64,
}

impl Tally {
    pub fn new(keep: bool) -> Tally {
        Tally {
            keep,
            ..Tally::default()
        }
    }

    /// A request came.
    pub fn came(&mut self, now_ms: f64) {
        self.first_ms.get_or_insert(now_ms);
    }

    pub fn ended(&mut self, ended: Ended) {
        let outcome = &ended.outcome;
        let sums = &mut self.sums;
        sums.requests += 1;
        let answered = outcome.status <= Status::Degraded as u8;
        let counter = match outcome.status {
            0 => &mut sums.answered,
            1 => &mut sums.degraded,
            2 | 3 => &mut sums.refused,
            _ => &mut sums.failed,
        };
        *counter += 1;
        if answered {
            if let Some(count) = sums.routes.get_mut(usize::from(outcome.route)) {
                *count += 1;
            }
            self.latency_ms.push(outcome.total_ms.max(0.0));
            self.ttft_ms.push(outcome.ttft_ms.max(0.0));
        }
        sums.tokens += u64::from(outcome.tokens);
        sums.drafted += outcome.drafted.iter().map(|it| u64::from(*it)).sum::<u64>();
        sums.accepted += outcome
            .accepted
            .iter()
            .map(|it| u64::from(*it))
            .sum::<u64>();
        sums.rounds += u64::from(outcome.rounds);
        sums.edge_flops += outcome.edge_flops;
        sums.cloud_flops += outcome.cloud_flops;
        sums.sent_bytes += outcome.sent_bytes;
        sums.received_bytes += outcome.received_bytes;
        sums.cost += outcome.cost;
        // What the draft model gives by itself is its answer, and no commitment in the target's name.
        if outcome.route != Route::Edge as u8 {
            self.unverified += u64::from(outcome.unverified);
        }
        self.wrong += u64::from(ended.wrong);
        self.lost += ended.lost;
        self.good += u32::from(ended.is_good());
        self.last_ms = self.last_ms.max(ended.ended_ms);
        if self.keep {
            self.kept.push(ended);
        }
    }

    /// All of it; the links' bytes and the time are the caller's.
    pub fn results(mut self) -> Results {
        let mut summary = self.sums;
        let lasted_ms = (self.last_ms - self.first_ms.unwrap_or(0.0)).max(0.0);
        let per_s = |count: f64| match lasted_ms > 0.0 {
            true => count * 1000.0 / lasted_ms,
            false => 0.0,
        };
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let tokens = summary.tokens as f64;
        summary.lasted_ms = lasted_ms;
        summary.latency_ms = Spread::of(&mut self.latency_ms);
        summary.ttft_ms = Spread::of(&mut self.ttft_ms);
        summary.requests_per_s = per_s(f64::from(summary.requests));
        summary.good_per_s = per_s(f64::from(self.good));
        summary.tokens_per_s = per_s(tokens);
        summary.unverified = share(self.unverified as f64, tokens);
        summary.wrong = share(self.wrong as f64, tokens);
        summary.lost = share(self.lost, f64::from(summary.requests));
        Results {
            summary,
            ended: self.kept,
            failures: self.failures,
            steps: self.steps,
            contradictions: self.contradictions,
            late_bytes: self.late_bytes,
            events: self.events,
            ..Results::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_made_of_values_that_were_there() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let spread = Spread::of(&mut values);
        let expected = Spread {
            mean: 100.5,
            p50: 100.0,
            p95: 190.0,
            p99: 198.0,
            most: 200.0,
        };
        assert_eq!(spread, expected);
        assert_eq!(Spread::of(&mut []), Spread::default());
        assert_eq!(Spread::of(&mut [3.0]).p50, 3.0);
    }

    #[test]
    fn what_comes_too_late_is_not_good() {
        let ended = |status: Status, total_ms: f64, deadline_ms: f64| Ended {
            question: 0,
            edge: 0,
            arrived_ms: 10.0,
            ended_ms: 10.0 + total_ms,
            deadline_ms,
            wrong: 0,
            lost: 0.0,
            outcome: Outcome {
                status: status as u8,
                total_ms,
                ttft_ms: 1.0,
                tokens: 4,
                ..Outcome::default()
            },
        };
        let mut tally = Tally::new(false);
        tally.came(10.0);
        tally.ended(ended(Status::Answered, 50.0, 0.0));
        tally.ended(ended(Status::Degraded, 50.0, 60.0));
        tally.ended(ended(Status::Answered, 100.0, 60.0));
        tally.ended(ended(Status::Refused, -1.0, 0.0));
        tally.ended(ended(Status::Failed, 20.0, 0.0));
        let summary = tally.results().summary;
        assert_eq!((summary.answered, summary.degraded), (2, 1));
        assert_eq!((summary.refused, summary.failed), (1, 1));
        assert_eq!((summary.lasted_ms, summary.latency_ms.most), (100.0, 100.0));
        assert_eq!((summary.requests_per_s, summary.good_per_s), (50.0, 20.0));
        assert_eq!(summary.tokens_per_s, 200.0);
    }
}
