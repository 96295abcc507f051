//! What audits have shown so far, and which thresholds that opens.

use serde::{Deserialize, Serialize};

use super::bets::log_wealth;
use super::grid::THRESHOLDS;

/// What is bet: ratio of odds to the budget's, and part of the stake. Little on no disagreement at all, which a single
/// one would lose; most on a tenth to a third of the budget, where thresholds lie that 5,000 audits can tell from the
/// budget.
///
/// Chosen by simulation (`examples/audits.rs`). What is opened in the end differs by one part in a hundred between
/// sensible choices, and any choice made beforehand keeps the guarantee.
pub(super) const BETS: [(f64, f64); 6] = [
    (0.0, 0.10),
    (0.05, 0.25),
    (0.15, 0.30),
    (0.30, 0.20),
    (0.50, 0.10),
    (0.70, 0.05),
];

/// Counts of audits, and how many thresholds they have opened.
///
/// Thresholds are tested in a fixed order, the highest first; each is tested only once those above it have passed, all
/// at the full `delta` and on the same audits. The chance that any that is over budget passes is still at most `delta`:
/// the first of them in that order would have to pass wrongly (W. Maurer, L. A. Hothorn, W. Lehmacher, 1995; for
/// calibrating a risk: A. Angelopoulos et al., "Learn then test", arXiv 2110.01052, section 2.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Evidence {
    pub(super) audits: u64,
    /// Audits by the highest threshold at which they disagreed. Who disagrees there disagrees at all below.
    pub(super) disagreed: Vec<u64>,
    /// Thresholds that are open, from the highest on. What is open stays so: the bound holds at any time.
    pub(super) open: usize,
}

impl Default for Evidence {
    fn default() -> Evidence {
        Evidence {
            audits: 0,
            disagreed: vec![0; THRESHOLDS],
            open: 0,
        }
    }
}

impl Evidence {
    /// An audit that disagreed at the thresholds from index `first` on. Opens what that opens.
    pub(super) fn count(&mut self, first: usize, budget: f64, delta: f64) {
        self.audits = self.audits.saturating_add(1);
        if let Some(disagreed) = self.disagreed.get_mut(first) {
            *disagreed = disagreed.saturating_add(1);
        }
        while self.open < THRESHOLDS && self.log_wealth(self.open, budget) >= -delta.ln() {
            self.open += 1;
        }
    }

    /// Audits that disagreed at a threshold.
    pub(super) fn disagreements(&self, index: usize) -> u64 {
        self.disagreed
            .iter()
            .take(index.saturating_add(1))
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// How much speaks against a threshold being over budget, in nats; it opens at `ln(1 / delta)`.
    pub(super) fn log_wealth(&self, index: usize, budget: f64) -> f64 {
        log_wealth(&BETS, budget, self.audits, self.disagreements(index))
    }

    /// Whether this can have come about.
    pub(super) fn is_sound(&self) -> bool {
        self.disagreed.len() == THRESHOLDS
            && self.open <= THRESHOLDS
            && self.disagreements(THRESHOLDS) <= self.audits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stakes_are_no_more_than_there_is() {
        let sum: f64 = BETS.iter().map(|(_, stake)| stake).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!(
            BETS.iter()
                .all(|(ratio, stake)| (0.0..1.0).contains(ratio) && *stake > 0.0)
        );
    }

    #[test]
    fn clean_audits_open_all_and_late_disagreements_open_no_more() {
        let mut evidence = Evidence::default();
        let mut needed = 0;
        while evidence.open == 0 {
            evidence.count(THRESHOLDS, 0.01, 0.05);
            needed += 1;
        }
        // All thresholds have seen the same.
        assert_eq!(evidence.open, THRESHOLDS);
        // ln(20) / 0.01 = 300 are the least that any bet would need.
        assert!((300..=400).contains(&needed), "{needed}");
        for _ in 0..1000 {
            evidence.count(0, 0.01, 0.05);
        }
        assert_eq!(
            (evidence.open, evidence.disagreements(0)),
            (THRESHOLDS, 1000)
        );
    }

    #[test]
    fn disagreement_stops_the_order_where_it_is() {
        let mut evidence = Evidence::default();
        for i in 0..20_000 {
            // 10% at thresholds from index 20 on.
            evidence.count(if i % 10 == 0 { 20 } else { THRESHOLDS }, 0.05, 0.05);
        }
        assert_eq!(evidence.open, 20);
        assert!(evidence.log_wealth(20, 0.05) < 0.0);
        assert!(evidence.is_sound());
    }
}
