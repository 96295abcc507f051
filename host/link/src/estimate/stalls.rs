//! The share of the last minute in which a link stood still.

use std::collections::VecDeque;

use super::config::EstimateConfig;
use super::{Latest, UNKNOWN};

/// What `stalled` of a node looks back on.
const WINDOW_MS: f64 = 60_000.0;

/// Finds stalls: times in which nothing came although heartbeats were due.
///
/// News are expected every heartbeat. Of a gap longer than two of them all but the first counts as stalled; shorter gaps
/// are late heartbeats, not stalls.
#[derive(Clone, Debug, PartialEq)]
pub struct StallEstimator {
    heartbeat_ms: f64,
    now: Latest,
    begun_ms: f64,
    /// When something came last; at first, when the link was opened.
    news_ms: f64,
    /// Begin and end of the stalls that are over. Each is at least a heartbeat long, so the window holds few.
    stalls: VecDeque<(f64, f64)>,
}

impl StallEstimator {
    /// From `now_ms` on, news are expected.
    pub fn new(config: &EstimateConfig, now_ms: f64) -> StallEstimator {
        let mut now = Latest::default();
        let now_ms = now.at(now_ms);
        StallEstimator {
            heartbeat_ms: f64::from(config.heartbeat_ms.max(1)),
            now,
            begun_ms: now_ms,
            news_ms: now_ms,
            stalls: VecDeque::new(),
        }
    }

    /// Something came over the link.
    pub fn news(&mut self, now_ms: f64) {
        let now_ms = self.now.at(now_ms);
        if let Some(stall) = self.stall_at(now_ms) {
            self.stalls.push_back(stall);
        }
        self.news_ms = now_ms;
        let begin = now_ms - WINDOW_MS;
        while self.stalls.pop_front_if(|(_, end)| *end <= begin).is_some() {}
    }

    /// The stall that lasts at `now_ms`, if one does.
    fn stall_at(&self, now_ms: f64) -> Option<(f64, f64)> {
        let stalled = now_ms - self.news_ms > 2.0 * self.heartbeat_ms;
        stalled.then_some((self.news_ms + self.heartbeat_ms, now_ms))
    }

    /// Share of the last minute, or of the time since the beginning, in which the link stood still, in `[0, 1]`;
    /// [`UNKNOWN`] before the first heartbeat is due.
    pub fn stalled(&self, now_ms: f64) -> f64 {
        let now_ms = self.now.peek(now_ms);
        let begin = self.begun_ms.max(now_ms - WINDOW_MS);
        let seen_ms = now_ms - begin;
        if seen_ms < self.heartbeat_ms {
            return UNKNOWN;
        }
        let stalls = self.stalls.iter().copied().chain(self.stall_at(now_ms));
        let stalled_ms: f64 = stalls
            .map(|(from, to)| (to - from.max(begin)).max(0.0))
            .sum();
        (stalled_ms / seen_ms).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_count_from_the_heartbeat_that_did_not_come() {
        // A heartbeat every 500 ms.
        let mut estimator = StallEstimator::new(&EstimateConfig::default(), 0.0);
        assert_eq!(estimator.stalled(499.0), UNKNOWN);
        assert_eq!(estimator.stalled(1_000.0), 0.0);
        for step in 1..=20 {
            estimator.news(f64::from(step) * 500.0);
        }
        // A late heartbeat is none.
        estimator.news(11_000.0);
        assert_eq!(estimator.stalled(11_000.0), 0.0);
        // 4 s of silence, of which 3.5 are a stall; it is seen while it lasts.
        assert_eq!(estimator.stalled(15_000.0), 3_500.0 / 15_000.0);
        estimator.news(15_000.0);
        assert_eq!(estimator.stalled(15_000.0), 3_500.0 / 15_000.0);
        // It leaves the window bit by bit.
        let mut at_ms = 15_000.0;
        while at_ms < 73_000.0 {
            at_ms += 500.0;
            estimator.news(at_ms);
        }
        assert_eq!(estimator.stalled(73_000.0), 2_000.0 / 60_000.0);
        assert_eq!(estimator.stalled(75_000.0 + 10_000_000.0), 1.0);
    }
}
