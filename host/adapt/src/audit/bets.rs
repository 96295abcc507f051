//! Bets against a share: how much money a gambler would have made who holds that the share of ones is not what it is
//! said to be.
//!
//! Whoever bets at fair odds on zeros and ones whose mean is `b` multiplies the stake by `1 + l (b - x)` with each `x`,
//! for some `l` fixed beforehand. If the mean is at least `b`, the wealth is a supermartingale for every `l >= 0`, and
//! by Ville's inequality (J. Ville, 1939) the chance that it *ever* reaches `1/delta` is at most `delta`; so is that of
//! a mixture of such gamblers. Source: I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by
//! betting", JRSS B 86 (2024), section 4.
//!
//! For zeros and ones a bet is a likelihood ratio: `l = (b - q) / (b (1 - b))` is the best if the mean is `q`. With
//! `q`'s odds being `r` times those of `b`, the factor is `r^x / (1 - b (1 - r))`. With `r < 1` it is a bet on fewer
//! ones, with `r > 1` a bet on more, which is the same with the inequality the other way.

/// The logarithm of the factor that a one brings, and of that which a zero brings, for odds that are `ratio` times
/// those of `share`.
pub(super) fn log_factors(ratio: f64, share: f64) -> (f64, f64) {
    let zero = -(-share * (1.0 - ratio)).ln_1p();
    (ratio.ln() + zero, zero)
}

/// The logarithm of the wealth of gamblers who bet on fewer ones than a share of `budget`, after `ones` among `count`.
/// Each of `bets` is a ratio of odds, in `[0, 1)`, and the part of the stake that is put on it.
///
/// The mixture needs no more than the two numbers, in whatever order they came: the bets are fixed. Wealth falls with
/// each one.
pub(super) fn log_wealth(bets: &[(f64, f64)], budget: f64, count: u64, ones: u64) -> f64 {
    let zeros = count.saturating_sub(ones) as f64;
    let each = bets.iter().map(|(ratio, stake)| {
        let (one, zero) = log_factors(*ratio, budget);
        // A ratio of 0 loses all with the first one, but 0 * -inf is not a number.
        let lost = if ones == 0 { 0.0 } else { ones as f64 * one };
        stake.ln() + lost + zeros * zero
    });
    let most = each.clone().fold(f64::NEG_INFINITY, f64::max);
    if most == f64::NEG_INFINITY {
        return most;
    }
    most + each.map(|one| (one - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bet_gains_where_the_share_is_the_budget_or_more() {
        for budget in [0.004, 0.05, 0.5] {
            for ratio in [0.0, 0.1, 0.9] {
                let (one, zero) = log_factors(ratio, budget);
                let mean = |share: f64| share * one.exp() + (1.0 - share) * zero.exp();
                assert!((mean(budget) - 1.0).abs() < 1e-12, "{ratio} {budget}");
                assert!(mean(budget * 1.5) < 1.0 && mean(budget * 0.5) > 1.0);
            }
            let (one, zero) = log_factors(3.0, budget);
            let mean = |share: f64| share * one.exp() + (1.0 - share) * zero.exp();
            assert!((mean(budget) - 1.0).abs() < 1e-12);
            assert!(mean(budget * 1.5) > 1.0 && mean(budget * 0.5) < 1.0);
        }
    }

    #[test]
    fn wealth_is_the_product_of_the_factors() {
        let bets = [(0.0, 0.5), (0.3, 0.5)];
        let budget = 0.1;
        // 1 + l (b - x) with l as in the module's text.
        let product = |ratio: f64| {
            let odds = ratio * budget / (1.0 - budget);
            let q = odds / (1.0 + odds);
            let l = (budget - q) / (budget * (1.0 - budget));
            let factor = |x: f64| 1.0 + l * (budget - x);
            factor(0.0) * factor(1.0) * factor(0.0) * factor(0.0)
        };
        let expected = 0.5 * product(0.0) + 0.5 * product(0.3);
        let wealth = log_wealth(&bets, budget, 4, 1).exp();
        assert!((wealth - expected).abs() < 1e-12, "{wealth} {expected}");
        assert_eq!(log_wealth(&[(0.0, 1.0)], budget, 4, 1), f64::NEG_INFINITY);
    }
}
