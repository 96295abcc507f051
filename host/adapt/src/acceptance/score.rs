//! One number of the four scalars of a draft.

use msao_core::sampling::Confidence;
use serde::{Deserialize, Serialize};

use crate::linear::{Cholesky, dot};

/// Signals, and weights: a constant, top-1, entropy, margin, MAS.
pub(super) const SIGNALS: usize = 5;

/// Weights beyond this are no honest ones; with signals of at most [`MOST`] scores stay finite.
const MOST_WEIGHT: f64 = 8.0;
/// Largest size of a signal. `1 / (1 + e^-14)` is a doubt of 10^-6, the least that can be learned.
const MOST: f64 = 14.0;
/// How firmly the first weights are held to, signal by signal: as if some hundred drafts had spoken for them. So the
/// largest step that a single draft can bring, where nothing is known yet, is one and a half log-odds.
const RIDGE: [f64; SIGNALS] = [20.0, 400.0, 400.0, 400.0, 20.0];
/// Rounds of the projection; it settles in a few, for the signals are few.
const ROUNDS: usize = 16;

/// What a draft model says of one token, and the request's MAS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// The largest probability of the draft's distribution, in `[0, 1]`.
    pub top1: f64,
    /// That distribution's entropy, at least 0.
    pub entropy_nats: f64,
    /// Between its two best, in logits, at least 0; may be infinite.
    pub margin: f64,
    /// Modality Activation Sparsity of the request, in `[0, 1]`; 0 where it is not known.
    pub mas: f64,
}

impl Draft {
    /// What the draft model says, and the request's MAS. What lies beyond its range by a rounding, or is -1 for not
    /// known, is taken for the range's end.
    pub fn of(confidence: &Confidence, mas: f64) -> Draft {
        Draft {
            top1: confidence.top1.clamp(0.0, 1.0),
            entropy_nats: confidence.entropy.clamp(0.0, f64::INFINITY),
            margin: confidence.margin.clamp(0.0, f64::INFINITY),
            mas: mas.clamp(0.0, 1.0),
        }
    }

    /// The signals: each but the first grows with what speaks for the draft. None where a scalar cannot be.
    pub(super) fn signals(&self) -> Option<[f64; SIGNALS]> {
        let Draft {
            top1,
            entropy_nats,
            margin,
            mas,
        } = *self;
        let fits = (0.0..=1.0).contains(&top1)
            && entropy_nats >= 0.0
            && margin >= 0.0
            && (0.0..=1.0).contains(&mas);
        fits.then(|| {
            [
                1.0,
                // Odds: a model that is twice as often right where it says so has a weight of 1.
                (top1 / (1.0 - top1)).ln().clamp(-MOST, MOST),
                // Of small entropies the order of magnitude counts, as with odds.
                -entropy_nats.ln().clamp(-MOST, MOST),
                margin.min(MOST),
                1.0 - mas,
            ]
        })
    }
}

/// Of a score, the probability whose log-odds it is.
pub(super) fn sigmoid(score: f64) -> f64 {
    1.0 / (1.0 + (-score).exp())
}

/// A logistic regression that goes on learning, with weights that are not negative.
///
/// Each draft moves the weights by a step of Newton's method on what was seen so far, older drafts counting less, and
/// the result is brought back to where no weight is negative in the metric of that method (E. Hazan, A. Agarwal, S.
/// Kale, "Logarithmic regret algorithms for online convex optimization", 2007, section 3.2). The signals say much the
/// same thing, so that a step for each weight alone would take many thousand drafts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Score {
    pub(super) weights: [f64; SIGNALS],
    /// Sum of `p (1 - p) s s^T` over drafts, decayed.
    information: [[f64; SIGNALS]; SIGNALS],
}

impl Default for Score {
    /// The draft model's own word: the odds of its top-1 probability.
    fn default() -> Score {
        Score {
            weights: [0.0, 1.0, 0.0, 0.0, 0.0],
            information: [[0.0; SIGNALS]; SIGNALS],
        }
    }
}

impl Score {
    pub(super) fn of(&self, signals: &[f64; SIGNALS]) -> f64 {
        dot(&self.weights, signals)
    }

    /// Takes a draft in; what was known before counts `keep` times as much, in `[0, 1)`.
    pub(super) fn learn(&mut self, signals: &[f64; SIGNALS], accepted: bool, keep: f64) {
        let p = sigmoid(self.of(signals));
        let error = f64::from(u8::from(accepted)) - p;
        for (row, a) in self.information.iter_mut().zip(signals) {
            for (entry, b) in row.iter_mut().zip(signals) {
                *entry = *entry * keep + p * (1.0 - p) * a * b;
            }
        }
        let mut metric: Vec<Vec<f64>> = self.information.iter().map(|row| row.to_vec()).collect();
        for ((i, row), ridge) in metric.iter_mut().enumerate().zip(RIDGE) {
            if let Some(entry) = row.get_mut(i) {
                *entry += ridge;
            }
        }
        let gradient = signals.map(|signal| signal * error);
        let Some(factor) = Cholesky::of(&metric) else {
            return;
        };
        let mut weights = self.weights;
        for (weight, step) in weights.iter_mut().zip(factor.solve(&gradient)) {
            *weight += step;
        }
        self.weights = project(&weights, &metric);
    }

    /// Whether this can have been learned.
    pub(super) fn is_sound(&self) -> bool {
        are_weights(&self.weights) && self.information.iter().flatten().all(|x| x.is_finite())
    }
}

/// Whether a score by these weights is monotone and finite.
pub(super) fn are_weights(weights: &[f64; SIGNALS]) -> bool {
    let [constant, rest @ ..] = weights;
    constant.abs() <= lowest(0).abs()
        && rest
            .iter()
            .all(|weight| (0.0..=MOST_WEIGHT).contains(weight))
}

/// The least that a weight may be.
fn lowest(index: usize) -> f64 {
    if index == 0 { -4.0 * MOST } else { 0.0 }
}

/// The allowed weights nearest to `wanted` in a metric, by coordinate descent.
fn project(wanted: &[f64; SIGNALS], metric: &[Vec<f64>]) -> [f64; SIGNALS] {
    let most = |index: usize| if index == 0 { 4.0 * MOST } else { MOST_WEIGHT };
    let mut index = 0;
    let mut weights = wanted.map(|weight| {
        let inside = weight.clamp(lowest(index), most(index));
        index += 1;
        inside
    });
    if weights == *wanted {
        return weights;
    }
    for _ in 0..ROUNDS {
        for (i, row) in metric.iter().enumerate() {
            let off: f64 = (weights.iter().zip(wanted).zip(row))
                .map(|((weight, wanted), entry)| (weight - wanted) * entry)
                .sum();
            if let (Some(weight), Some(entry)) = (weights.get_mut(i), row.get(i)) {
                *weight = (*weight - off / entry).clamp(lowest(i), most(i));
            }
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Stream};

    #[test]
    fn scalars_that_cannot_be_have_no_signals() {
        let draft = Draft {
            top1: 0.5,
            entropy_nats: 1.0,
            margin: f64::INFINITY,
            mas: 0.0,
        };
        assert_eq!(draft.signals(), Some([1.0, 0.0, 0.0, 14.0, 1.0]));
        let sure = Draft {
            top1: 1.0,
            entropy_nats: 0.0,
            ..draft
        };
        assert_eq!(sure.signals(), Some([1.0, 14.0, 14.0, 14.0, 1.0]));
        for wrong in [
            Draft { top1: 1.1, ..draft },
            Draft {
                top1: f64::NAN,
                ..draft
            },
            Draft {
                entropy_nats: -0.1,
                ..draft
            },
            Draft {
                margin: f64::NAN,
                ..draft
            },
            Draft { mas: -1.0, ..draft },
        ] {
            assert_eq!(wrong.signals(), None, "{wrong:?}");
        }
        // A rounding is forgiven, what is no number is not.
        let rounded = |entropy| Confidence {
            top1: 1.0,
            entropy,
            margin: 30.0,
        };
        assert_eq!(
            Draft::of(&rounded(-1e-17), -1.0),
            Draft {
                margin: 30.0,
                ..sure
            }
        );
        assert_eq!(Draft::of(&rounded(f64::NAN), 0.0).signals(), None);
    }

    #[test]
    fn weights_are_found_though_signals_go_together() {
        let truth = [-0.5, 0.6, 0.0, 0.3, 0.8];
        let mut random = Random::new(2, Stream::Simulation);
        let mut score = Score::default();
        for _ in 0..60_000 {
            let odds = 2.0 + 2.0 * random.normal();
            let signals = [
                1.0,
                odds,
                0.8 * odds + 0.5 * random.normal(),
                (odds + random.normal()).max(0.0),
                random.uniform(),
            ];
            let accepted = random.uniform() < sigmoid(dot(&truth, &signals));
            score.learn(&signals, accepted, 1.0 - 1.0 / 30_000.0);
        }
        for (weight, truth) in score.weights.iter().zip(truth) {
            // Standard errors are some 0.06 with 30,000 drafts of which one in eight is rejected.
            assert!((weight - truth).abs() < 0.2, "{:?}", score.weights);
        }
    }

    #[test]
    fn what_would_want_a_negative_weight_gets_none_and_the_others_are_the_best_without() {
        // The second signal speaks against the draft once the first is known.
        let mut random = Random::new(4, Stream::Simulation);
        let (mut both, mut alone) = (Score::default(), Score::default());
        for _ in 0..40_000 {
            let odds = 1.5 + 2.0 * random.normal();
            let entropy = odds + random.normal();
            let accepted = random.uniform() < sigmoid(1.5 * odds - 0.7 * entropy);
            both.learn(&[1.0, odds, entropy, 0.0, 0.0], accepted, 0.9999);
            alone.learn(&[1.0, odds, 0.0, 0.0, 0.0], accepted, 0.9999);
        }
        assert!(both.weights[2] < 0.02, "{:?}", both.weights);
        assert!(
            (both.weights[1] - alone.weights[1]).abs() < 0.05,
            "{both:?} {alone:?}"
        );
    }
}
