//! Rates of acceptance by score.

use serde::{Deserialize, Serialize};

use super::score::sigmoid;

/// Scores are log-odds; bins of half a unit go from here...
const LOWEST: f64 = -8.0;
/// ... to here, a doubt of 10^-7. What lies outside is in the first or last.
const HIGHEST: f64 = 16.0;
const WIDTH: f64 = 0.5;
pub(super) const BINS: usize = ((HIGHEST - LOWEST) / WIDTH) as usize;

/// Drafts that a bin begins with, at the score's own word: three lucky ones must not carry a bin over a threshold, and the score, which has
/// learned from all drafts, knows more than a few of its own.
const PRIOR_DRAFTS: f64 = 8.0;
/// That word is never believed beyond this without drafts: what is surer has to be seen.
const PRIOR_DOUBT: f64 = 0.02;

/// Drafts of about the same score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bin {
    drafts: f64,
    accepted: f64,
    /// Sum of scores less the bin's middle.
    off_middle: f64,
}

fn middle(index: usize) -> f64 {
    LOWEST + (index as f64 + 0.5) * WIDTH
}

/// All bins, the lowest score first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Bins(Vec<Bin>);

impl Default for Bins {
    fn default() -> Bins {
        Bins(vec![Bin::default(); BINS])
    }
}

impl Bins {
    /// Takes a draft in; the bin's earlier ones count `keep` times as much, in `[0, 1)`. Others keep theirs: confident
    /// mode sends few sure drafts to be judged, and unsure ones should not drive them out.
    pub(super) fn learn(&mut self, score: f64, accepted: bool, keep: f64) {
        let place = ((score - LOWEST) / WIDTH).clamp(0.0, (BINS - 1) as f64) as usize;
        let Some(bin) = self.0.get_mut(place) else {
            return;
        };
        let off = (score - middle(place)).clamp(-0.5 * WIDTH, 0.5 * WIDTH);
        bin.drafts = bin.drafts * keep + 1.0;
        bin.accepted = bin.accepted * keep + f64::from(u8::from(accepted));
        bin.off_middle = bin.off_middle * keep + off;
    }

    /// The rate of acceptance by score: knots of score and rate, scores rising, rates falling nowhere, in `[0, 1]`.
    pub(super) fn knots(&self) -> Vec<(f64, f64)> {
        let smoothed = self.0.iter().enumerate().map(|(index, bin)| {
            let prior = sigmoid(middle(index)).clamp(PRIOR_DOUBT, 1.0 - PRIOR_DOUBT);
            let weight = bin.drafts + PRIOR_DRAFTS;
            let rate = (bin.accepted + PRIOR_DRAFTS * prior) / weight;
            (middle(index) + bin.off_middle / weight, rate, weight)
        });
        let (scores, rates): (Vec<f64>, Vec<(f64, f64)>) = smoothed
            .map(|(score, rate, weight)| (score, (rate, weight)))
            .unzip();
        scores.into_iter().zip(monotone(&rates)).collect()
    }

    /// Whether this can have been learned.
    pub(super) fn is_sound(&self) -> bool {
        self.0.len() == BINS
            && self.0.iter().all(|bin| {
                let most = bin.drafts * (1.0 + 1e-9);
                bin.drafts.is_finite()
                    && bin.drafts >= 0.0
                    && (0.0..=most).contains(&bin.accepted)
                    && bin.off_middle.abs() <= most
            })
    }
}

/// The rates that fall nowhere and are nearest to those given, by weighted squares: pools neighbours that are out of
/// order (M. Ayer et al., 1955). Each is a rate and its weight, above 0.
pub(crate) fn monotone(rates: &[(f64, f64)]) -> Vec<f64> {
    // Rate, weight and number of each pool.
    let mut pools: Vec<(f64, f64, usize)> = Vec::with_capacity(rates.len());
    for (rate, weight) in rates {
        let mut last = (*rate, *weight, 1);
        while let Some(before) = pools.pop_if(|before| before.0 >= last.0) {
            let weight = before.1 + last.1;
            // Between the two, so that a rounding does not leave [0, 1].
            let rate = before.0 + (last.0 - before.0) * (last.1 / weight);
            last = (rate, weight, before.2 + last.2);
        }
        pools.push(last);
    }
    let spread =
        |(rate, _, count): (f64, f64, usize)| std::iter::repeat_n(rate.clamp(0.0, 1.0), count);
    pools.into_iter().flat_map(spread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_out_of_order_are_pooled() {
        let pooled = monotone(&[
            (0.1, 1.0),
            (0.5, 1.0),
            (0.3, 3.0),
            (0.9, 1.0),
            (0.6, 1.0),
            (0.7, 2.0),
        ]);
        let expected = [0.1, 0.35, 0.35, 0.725, 0.725, 0.725];
        for (rate, expected) in pooled.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-12, "{pooled:?}");
        }
        assert_eq!(monotone(&[(0.9, 1.0), (0.1, 1.0)]), [0.5, 0.5]);
    }

    #[test]
    fn a_few_lucky_drafts_do_not_make_a_doubtful_score_sure() {
        let mut bins = Bins::default();
        let at = |bins: &Bins, score: f64| {
            let knots = bins.knots();
            knots.iter().find(|(knot, _)| *knot >= score).unwrap().1
        };
        // Even odds, of which four in a row stood.
        for _ in 0..4 {
            bins.learn(0.25, true, 1.0 - 1.0 / 20_000.0);
        }
        assert!(at(&bins, 0.2) < 0.75, "{}", at(&bins, 0.2));
        for _ in 0..400 {
            bins.learn(0.25, true, 1.0 - 1.0 / 20_000.0);
        }
        assert!(at(&bins, 0.2) > 0.9);
    }

    #[test]
    fn what_was_not_seen_is_not_believed_and_what_was_is() {
        let mut bins = Bins::default();
        let last = |bins: &Bins| bins.knots().last().unwrap().1;
        assert_eq!(last(&bins), 1.0 - PRIOR_DOUBT);
        for _ in 0..100_000 {
            bins.learn(20.0, true, 1.0 - 1.0 / 20_000.0);
        }
        // 8 * 0.02 of 20,000.
        assert!(last(&bins) > 1.0 - 1e-5 && last(&bins) < 1.0);
        assert!(bins.is_sound());
    }
}
