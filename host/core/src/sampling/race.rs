//! `argmax(log p + g)` over the candidates, without computing noise that cannot win.
//!
//! With `s` the second best score so far, a candidate matters only if `g > s - log p`. Since
//! `P(g > d) = 1 - exp(-exp(-d)) <= exp(-d)`, that needs `1 - u < p * exp(-s)`: one comparison with the weight that is
//! there already. So logarithms are taken for some tens of ids. Ids go in blocks: where the block's largest `p * exp(-s)`
//! is below the least `1 - u` that there is, nothing is computed; else the upper word of `u` is, for all of them side by
//! side, and the rest only for ids that it leaves in the running. Winner and margin are those of the full computation.

use super::noise::{LEAST_COMPLEMENT, Noise, complement, gumbel};
use super::select::{Border, Candidate, Field, NO_WEIGHT, Scale};

/// Roundings of the bound stay far within this.
const SLACK: f64 = 1.0 + 1e-9;
/// Values of the upper word.
const UPPER_STEPS: f64 = (1_u64 << 32) as f64;
/// More than any noise.
const NOISE_BOUND: f64 = 38.0;
/// Ids whose noise is looked at side by side.
const BLOCK: usize = 32;

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
    for block in field.blocks(BLOCK) {
        let heaviest = block.weights.iter().fold(0.0, |a: f64, &b| a.max(b));
        if standing.weightless_possible() {
            for candidate in block.each() {
                standing.enter(&candidate, border, noise);
            }
            continue;
        }
        let most = standing.needed(heaviest);
        if most < LEAST_COMPLEMENT {
            continue;
        }
        // `1 - u` is at least the complement of the upper word, as a fraction.
        let limit = (most * UPPER_STEPS) as u32;
        let mut upper = [0; BLOCK];
        noise.upper_words(block.ids, &mut upper);
        if upper.iter().all(|word| !word > limit) {
            continue;
        }
        for (candidate, upper) in block.each().zip(upper) {
            if !upper <= limit {
                standing.enter(&candidate, border, noise);
            }
        }
    }
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

    /// Whether any noise could make an id best or second best whose weight is 0.
    fn weightless_possible(&self) -> bool {
        NO_WEIGHT - self.ln_total + NOISE_BOUND >= self.second
    }

    /// Whether any noise could make this best or second best.
    fn possible(&self, candidate: &Candidate) -> bool {
        if candidate.weight > 0.0 {
            self.needed(candidate.weight) >= LEAST_COMPLEMENT
        } else {
            self.log_p(candidate) + NOISE_BOUND >= self.second
        }
    }

    /// An upper bound of `1 - u` for whatever of this weight can become best or second best.
    fn needed(&self, weight: f64) -> f64 {
        weight * self.reach * SLACK
    }

    fn enter(&mut self, candidate: &Candidate, border: Border, noise: Noise) {
        if !(border.admits(candidate) && self.possible(candidate)) {
            return;
        }
        let bits = noise.bits(candidate.id);
        if candidate.weight > 0.0 && complement(bits) > self.needed(candidate.weight) {
            return;
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
            return;
        }
        self.reach = (-self.second).exp() / self.total;
    }
}
