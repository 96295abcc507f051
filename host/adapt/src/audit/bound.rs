//! What a number of audits says of a share, where no budget was set beforehand.

use super::bets::log_wealth;
use super::evidence::BETS;

/// Halvings of the interval: beyond them a double has no more digits.
const HALVINGS: u32 = 60;

/// The share of disagreement that `disagreed` among `requests` show it to be below: the least budget that the audits' bets
/// would have been won against, at odds of `1 / delta`. In `[0, 1]`; 1 where nothing is known.
///
/// As with a threshold that opens, the chance that the true share of exchangeable requests is *ever* above, whenever one looks,
/// is at most `delta`. The wealth of each bet rises with the budget that it is held against, so that there is one such least
/// budget.
///
/// ```
/// use msao_adapt::audit::bound;
///
/// // None in 1,000: below 0.4%. Three in 1,000 are no proof of less than 0.9%.
/// assert!(bound(1_000, 0, 0.05) < 0.004);
/// assert!((0.009..0.013).contains(&bound(1_000, 3, 0.05)));
/// assert_eq!(bound(0, 0, 0.05), 1.0);
/// ```
pub fn bound(requests: u64, disagreed: u64, delta: f64) -> f64 {
    let odds = -delta.ln();
    let won = |budget: f64| log_wealth(&BETS, budget, requests, disagreed.min(requests)) >= odds;
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if won(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Audit, AuditConfig, Audited};
    use super::*;

    #[test]
    fn a_threshold_opens_at_a_budget_above_the_bound_and_not_below() {
        for disagreed in [0, 4, 30] {
            let bound = bound(2_000, disagreed, 0.05);
            assert!(bound > disagreed as f64 / 2_000.0, "{disagreed}: {bound}");
            for (budget, opens) in [(bound * 1.001, true), (bound * 0.999, false)] {
                let config = AuditConfig {
                    budget,
                    rate: 1.0,
                    ..AuditConfig::new(1)
                };
                let mut audit = Audit::new(config).unwrap();
                for request in 0..2_000 {
                    assert!(audit.admit(request));
                    // They come first, so that nothing has opened before: disagreed at all thresholds.
                    let audited = match request < disagreed {
                        true => Audited::Rejected { acceptance: 1.0 },
                        false => Audited::Agreed,
                    };
                    audit.finished(request, audited);
                }
                assert_eq!(audit.open_threshold().is_some(), opens, "{disagreed}");
            }
        }
    }

    proptest! {
        #[test]
        fn more_requests_lower_it_and_more_disagreement_raises_it(
            requests in 1_u64..100_000, share in 0.0..1.0_f64, delta in 0.001..0.5_f64,
        ) {
            let disagreed = (share * requests as f64) as u64;
            let here = bound(requests, disagreed, delta);
            prop_assert!(here <= 1.0 && here >= disagreed as f64 / requests as f64);
            prop_assert!(bound(requests, disagreed + 1, delta) >= here);
            prop_assert!(bound(requests + 1, disagreed, delta) <= here);
            prop_assert!(bound(requests, disagreed, delta / 2.0) >= here);
        }
    }
}
