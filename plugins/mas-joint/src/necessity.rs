//! How much an item is needed: `1 / (1 + e^-g(k * ln r))`, where `r = a / (b^c * (1/2)^(1 - c))` is the share of attention `a`
//! that the answer's beginning pays to the item, beside the share `b` that it would draw anyway.
//!
//! **What it would draw anyway** is what a content-free text pays. That is one reading of one text, which scatters, so it
//! is drawn towards one half, as if by a prior: `c`, the parameter
//! `content-free`, is how far it is believed.
//!
//! **The scale** is learned: `k = sharpness / spread`. Models differ in how far attention departs from 1 at all; `spread` is the
//! root mean square of `ln r` over the traffic, and 1 where nothing was learned.
//!
//! **The shape** `g` is a parameter: nine knots, at -8, -6 .. 8 logits, between which it is linear; beyond them it goes on with
//! slope 1. Wherever the knots are, it falls nowhere: a knot below an earlier one counts as that one. By default it is the
//! identity, so that necessity is `r^k / (1 + r^k)`: 1/2 where `r` is 1.
//!
//! What necessity is to mean is the probability that the answer suffers without the item. Whoever can measure that (the loss of the
//! target's log-probability of a reference answer when the item is dropped) fits the knots to it: score with the default knots,
//! pair each necessity with the measured harm, and let `msao_adapt::necessity::fit` give the nine values, which become a
//! revision of the parameters `knot-0` to `knot-8`. A monotone map changes no ranking, only what a necessity says.

use msao_plugin::{Calibration, Cell, math};

use crate::Settings;
use crate::traits::{RELEVANCE, Traits};

/// Least root mean square of `ln r`: below it differences are noise.
const MIN_SPREAD: f64 = 0.05;
/// Where the knots lie: from here, and how far apart, in logits.
const FIRST: f64 = -8.0;
const APART: f64 = 2.0;
const KNOTS: usize = 9;

/// An item's necessity, in [0, 1]. What cannot be measured is kept.
pub(crate) fn of(traits: &Traits, calibration: &Calibration, settings: &Settings) -> f64 {
    let log_relevance = traits.log_relevance();
    let seen = calibration.get(traits.key(RELEVANCE)).unwrap_or(Cell {
        mean: 0.0,
        variance: 0.0,
        count: 0.0,
    });
    let mean_square = seen.mean * seen.mean + seen.variance;
    let blended = (settings.prior + seen.count * mean_square) / (settings.prior + seen.count);
    let spread = math::sqrt(blended).max(MIN_SPREAD);
    let logit = settings.sharpness / spread * log_relevance;
    let necessity = math::logistic(mapped(logit, settings.knots()));
    if necessity.is_nan() { 1.0 } else { necessity }
}

/// `g` of a logit.
pub(crate) fn mapped(logit: f64, knots: [f64; KNOTS]) -> f64 {
    let mut before: Option<(f64, f64)> = None;
    let mut least = f64::NEG_INFINITY;
    for (number, knot) in (0_u8..).zip(knots) {
        let at = FIRST + APART * f64::from(number);
        least = knot.max(least);
        if logit < at {
            return match before {
                None => least + (logit - at),
                // A rounding must not lead beyond the next knot.
                Some((x, y)) => (y + (least - y) * ((logit - x) / (at - x))).min(least),
            };
        }
        before = Some((at, least));
    }
    match before {
        Some((x, y)) => y + (logit - x),
        None => logit,
    }
}

impl Settings {
    fn knots(&self) -> [f64; KNOTS] {
        [
            self.knot_0,
            self.knot_1,
            self.knot_2,
            self.knot_3,
            self.knot_4,
            self.knot_5,
            self.knot_6,
            self.knot_7,
            self.knot_8,
        ]
    }
}
