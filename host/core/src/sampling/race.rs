//! `argmax(log p + g)` over the candidates, without computing noise that cannot win.
//!
//! With `s` the second best score so far, a candidate matters only if `g > s - log p`. Since
//! `P(g > d) = 1 - exp(-exp(-d)) <= exp(-d)`, that needs `1 - u < p * exp(-s)`: one comparison with the weight that is
//! there already. So logarithms are taken for some tens of ids, and Philox is run only where `p * exp(-s)` exceeds
//! the least `1 - u` that there is. Winner and margin are those of the full computation.

use super::noise::{LEAST_COMPLEMENT, Noise, complement, gumbel};
use super::select::{Border, Candidate, Field, Scale};

/// Roundings of the bound stay far within this.
const SLACK: f64 = 1.0 + 1e-9;
/// More than any noise.
const NOISE_BOUND: f64 = 38.0;
/// Ids whose noise is computed side by side.
const LANES: usize = 4;

/// The candidate with the largest `log p + g`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Winner {
    pub id: u32,
    pub log_p: f64,
    /// How far the second best lies below; infinite where there is none.
    pub margin: f64,
}

/// `None` where the border admits nobody. The lowest id wins a tie. `total` is the sum of the admitted weights.
pub(super) fn race(
    field: Field<'_>,
    border: Border,
    scale: Scale,
    total: f64,
    noise: Noise,
) -> Option<Winner> {
    let mut standing = Standing {
        winner: None,
        best: f64::NEG_INFINITY,
        second: f64::NEG_INFINITY,
        reach: f64::INFINITY,
        scale,
        total,
        ln_total: total.ln(),
    };
    let mut waiting = [Candidate::default(); LANES];
    let mut count = 0;
    for candidate in field.each() {
        if !(border.admits(&candidate) && standing.possible(&candidate)) {
            continue;
        }
        if let Some(place) = waiting.get_mut(count) {
            *place = candidate;
            count += 1;
        }
        if count == LANES {
            standing.enter(&waiting, count, noise);
            count = 0;
        }
    }
    standing.enter(&waiting, count, noise);
    standing.winner.map(|(id, log_p)| {
        let margin = if standing.second > f64::NEG_INFINITY {
            standing.best - standing.second
        } else {
            f64::INFINITY
        };
        Winner { id, log_p, margin }
    })
}

struct Standing {
    winner: Option<(u32, f64)>,
    best: f64,
    second: f64,
    /// `weight * reach` is `p * exp(-second)`; infinite until there is a second.
    reach: f64,
    scale: Scale,
    total: f64,
    ln_total: f64,
}

impl Standing {
    fn log_p(&self, candidate: &Candidate) -> f64 {
        self.scale.exponent(candidate.logit) - self.ln_total
    }

    /// Whether any noise could make this best or second best.
    fn possible(&self, candidate: &Candidate) -> bool {
        if candidate.weight > 0.0 {
            self.needed(candidate) >= LEAST_COMPLEMENT
        } else {
            self.log_p(candidate) + NOISE_BOUND >= self.second
        }
    }

    /// An upper bound of `1 - u` for whatever can become best or second best.
    fn needed(&self, candidate: &Candidate) -> f64 {
        candidate.weight * self.reach * SLACK
    }

    fn enter(&mut self, waiting: &[Candidate; LANES], count: usize, noise: Noise) {
        let [a, b, c, d] = waiting;
        let bits = noise.bits_of_four([a.id, b.id, c.id, d.id]);
        for (candidate, bits) in waiting.iter().zip(bits).take(count) {
            if candidate.weight > 0.0 && complement(bits) > self.needed(candidate) {
                continue;
            }
            let log_p = self.log_p(candidate);
            let score = log_p + gumbel(bits);
            if score > self.best || self.winner.is_none() {
                self.second = self.best;
                self.best = score;
                self.winner = Some((candidate.id, log_p));
            } else if score > self.second {
                self.second = score;
            } else {
                continue;
            }
            self.reach = (-self.second).exp() / self.total;
        }
    }
}
