//! What readers ask.

use serde::{Deserialize, Serialize};

use super::score::{Draft, SIGNALS, are_weights};
use crate::linear::dot;

/// The calibrated map from a draft's scalars to its acceptance probability, as it was when it was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Map {
    weights: [f64; SIGNALS],
    knots: Vec<(f64, f64)>,
}

impl Map {
    pub(super) fn new(weights: [f64; SIGNALS], knots: Vec<(f64, f64)>) -> Map {
        Map { weights, knots }
    }

    /// The probability that the target accepts a draft, in `[0, 1]`. 0 where a scalar cannot be: a probability above 1,
    /// an entropy below 0, NaN.
    ///
    /// Monotone: rises nowhere with entropy and MAS, falls nowhere with top-1 and margin.
    pub fn acceptance(&self, draft: &Draft) -> f64 {
        self.score(draft).map_or(0.0, |score| self.at(score))
    }

    /// A draft's score, in log-odds before calibration. None where a scalar cannot be.
    pub fn score(&self, draft: &Draft) -> Option<f64> {
        draft.signals().map(|signals| dot(&self.weights, &signals))
    }

    /// The acceptance probability of a score: linear between knots, and as at the nearest outside.
    pub fn at(&self, score: f64) -> f64 {
        let above = self.knots.partition_point(|(knot, _)| *knot <= score);
        let before = above.checked_sub(1).and_then(|index| self.knots.get(index));
        let between = match (before, self.knots.get(above)) {
            (Some((x0, y0)), Some((x1, y1))) => {
                // Not by the slope alone: a rounding must not lead beyond the next knot.
                (y0 + (y1 - y0) * ((score - x0) / (x1 - x0))).clamp(*y0, y1.max(*y0))
            }
            (Some((_, rate)), None) | (None, Some((_, rate))) => *rate,
            (None, None) => 0.0,
        };
        if between.is_nan() {
            0.0
        } else {
            between.clamp(0.0, 1.0)
        }
    }

    /// Scores and acceptance probabilities between which the map is linear, both rising.
    pub fn knots(&self) -> &[(f64, f64)] {
        &self.knots
    }

    /// Weights of the score: a constant, the log-odds of top-1, minus the logarithm of the entropy, the margin, 1 less
    /// MAS. All but the first are at least 0.
    pub fn weights(&self) -> &[f64; SIGNALS] {
        &self.weights
    }

    /// Whether this is a map as [`super::Learner`] makes them: for what comes from outside.
    pub fn is_sound(&self) -> bool {
        let rates = self
            .knots
            .iter()
            .all(|(score, rate)| score.is_finite() && (0.0..=1.0).contains(rate));
        let rising = (self.knots.iter().zip(self.knots.iter().skip(1)))
            .all(|((x0, y0), (x1, y1))| x0 <= x1 && y0 <= y1);
        are_weights(&self.weights) && rates && rising
    }
}
