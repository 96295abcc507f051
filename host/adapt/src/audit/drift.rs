//! Whether what was opened is still within budget.

use serde::{Deserialize, Serialize};

use super::bets::log_factors;

/// Odds of disagreement, as multiples of the budget's, that the detector looks out for.
const ALTERNATIVES: [f64; 6] = [1.5, 2.0, 4.0, 8.0, 20.0, 60.0];

/// A detector of change: the mean of Shiryaev-Roberts e-detectors, one for each of some shares above the budget.
///
/// Each is `m <- (1 + m) f`, `f` being the factor of a bet on more disagreements: the sum of the wealth of gamblers of
/// whom one begins with each audit. As long as the share is at most the budget, `mean(m) - audits` is a
/// supermartingale, so that audits until `mean(m)` reaches `a` are `a` or more on average, whatever the share does
/// below the budget. Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors: a nonparametric framework for sequential
/// change detection", NEJSDS 2 (2024), section 2.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Detector {
    sums: [f64; ALTERNATIVES.len()],
}

impl Detector {
    /// Takes an audit in. Whether the mean has reached `alarm_at`.
    pub(super) fn watch(&mut self, disagreed: bool, budget: f64, alarm_at: f64) -> bool {
        for (sum, ratio) in self.sums.iter_mut().zip(ALTERNATIVES) {
            let (one, zero) = log_factors(ratio, budget);
            *sum = (1.0 + *sum) * if disagreed { one } else { zero }.exp();
        }
        self.level() >= alarm_at
    }

    /// The mean; compared with the level of the alarm.
    pub(super) fn level(&self) -> f64 {
        self.sums.iter().sum::<f64>() / ALTERNATIVES.len() as f64
    }

    /// Whether this can have come about.
    pub(super) fn is_sound(&self) -> bool {
        self.sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Stream};

    /// Audits until the alarm, at most `most`.
    fn run(seed: u64, share: f64, budget: f64, alarm_at: f64, most: u32) -> u32 {
        let mut random = Random::new(seed, Stream::Simulation);
        let mut detector = Detector::default();
        (1..most)
            .find(|_| detector.watch(random.uniform() < share, budget, alarm_at))
            .unwrap_or(most)
    }

    #[test]
    fn false_alarms_are_rare_and_true_ones_come() {
        let mean = |share: f64, most: u32| {
            let runs = 60;
            (0..runs)
                .map(|seed| f64::from(run(seed, share, 0.02, 2_000.0, most)))
                .sum::<f64>()
                / runs as f64
        };
        // At the budget itself the mean is at least 2,000; runs are cut at 20,000, which can only lower it.
        assert!(mean(0.02, 20_000) >= 2_000.0);
        // Half of it never comes near the alarm: with odds of 4 the first bet loses 4 nats in 1,000 audits.
        assert!(mean(0.01, 20_000) > 15_000.0);
        // ln(2000) / KL(0.2 || 0.02) = 7.6 / 0.30 = 26 audits, and what the mixture costs.
        assert!(mean(0.2, 20_000) < 60.0);
    }
}
