//! A generation's error budget: how many different inputs it may fail on before the last good generation takes over.
//!
//! Failures are counted by input, not by call: one bad request sent a thousand times is one failure, and does not bring down
//! a policy that serves everyone else. The budget is a number of inputs or a share of the requests in the window,
//! whichever is larger, so that neither a quiet nor a busy node is judged by a handful.
//!
//! Pure: time comes as an argument.

use std::collections::{HashSet, VecDeque};

use msao_core::digest::Digest;

use crate::config::BudgetConfig;

/// Inputs that are remembered; so many are more than any budget.
const MAX_INPUTS: usize = 1 << 16;
/// Points in a window at which requests are counted.
const POINTS: u64 = 60;

/// What a generation has left.
#[derive(Clone, Debug, Default)]
pub struct Budget {
    failing: VecDeque<(u64, Digest)>,
    known: HashSet<Digest>,
    /// When, and how many requests there had been.
    requests: VecDeque<(u64, u64)>,
}

impl Budget {
    /// Notes that `total` requests have come until now. Cheap to call often.
    pub fn tick(&mut self, now_ms: u64, total: u64, config: &BudgetConfig) {
        let apart = config.window_ms() / POINTS;
        let due = (self.requests.back()).is_none_or(|&(at, _)| now_ms.saturating_sub(at) >= apart);
        if due {
            self.requests.push_back((now_ms, total));
        }
        let start = now_ms.saturating_sub(config.window_ms());
        // The newest point before the window stays: requests are counted from there.
        while self.requests.get(1).is_some_and(|&(at, _)| at <= start) {
            self.requests.pop_front();
        }
    }

    /// Notes that a call failed on `input`; `total` requests have come until now. Returns whether the budget is spent.
    pub fn failed(
        &mut self,
        input: Digest,
        now_ms: u64,
        total: u64,
        config: &BudgetConfig,
    ) -> bool {
        self.tick(now_ms, total, config);
        let start = now_ms.saturating_sub(config.window_ms());
        while let Some(&(at, oldest)) = self.failing.front() {
            if at >= start && self.failing.len() < MAX_INPUTS {
                break;
            }
            self.failing.pop_front();
            self.known.remove(&oldest);
        }
        if self.known.insert(input) {
            self.failing.push_back((now_ms, input));
        }
        self.failing.len() as u64 >= self.allowed(total, config)
    }

    /// Inputs on which the generation may not fail.
    pub fn allowed(&self, total: u64, config: &BudgetConfig) -> u64 {
        let before = self.requests.front().map_or(0, |&(_, count)| count);
        let share = config.share * total.saturating_sub(before) as f64;
        u64::from(config.inputs).max(share.ceil() as u64)
    }

    /// Different inputs in the window that failed.
    pub fn spent(&self) -> u64 {
        self.failing.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONFIG: BudgetConfig = BudgetConfig {
        inputs: 4,
        share: 0.01,
        window_s: 60,
    };

    fn input(number: u32) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    #[test]
    fn one_bad_request_sent_a_thousand_times_spends_one() {
        let mut budget = Budget::default();
        for i in 0..1000 {
            assert!(!budget.failed(input(0), i, i, &CONFIG));
        }
        assert_eq!(budget.spent(), 1);
        assert!(!budget.failed(input(1), 1000, 1000, &CONFIG));
        assert!(!budget.failed(input(2), 1000, 1000, &CONFIG));
    }

    #[test]
    fn different_inputs_spend_it_and_time_restores_it() {
        let mut budget = Budget::default();
        let spent: Vec<bool> = (0..4)
            .map(|i| budget.failed(input(i), 0, 10, &CONFIG))
            .collect();
        assert_eq!(spent, [false, false, false, true]);
        assert!(!budget.failed(input(9), 60_001, 20, &CONFIG));
        assert_eq!(budget.spent(), 1);
    }

    #[test]
    fn a_busy_node_may_fail_on_a_share() {
        let mut budget = Budget::default();
        budget.tick(0, 0, &CONFIG);
        // 10,000 requests in the window: a hundred different failures.
        for i in 0..99 {
            assert!(!budget.failed(input(i), 1000, 10_000, &CONFIG), "{i}");
        }
        assert!(budget.failed(input(99), 1000, 10_000, &CONFIG));
    }

    proptest! {
        #[test]
        fn it_counts_the_different_inputs_of_the_window(
            calls in prop::collection::vec((0_u32..12, 0_u64..20_000), 1..120),
        ) {
            let config = BudgetConfig { inputs: u32::MAX, ..CONFIG };
            let mut budget = Budget::default();
            let mut now = 0;
            // Input, and when it was first counted: it counts again once that has left the window.
            let mut counted: Vec<(u32, u64)> = Vec::new();
            for (number, later) in calls {
                now += later;
                counted.retain(|(_, at)| at + 60_000 >= now);
                if !counted.iter().any(|(known, _)| *known == number) {
                    counted.push((number, now));
                }
                budget.failed(input(number), now, 0, &config);
                prop_assert_eq!(budget.spent(), counted.len() as u64);
            }
        }
    }
}
