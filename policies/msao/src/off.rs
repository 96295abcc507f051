//! By what factors predictions were off before.
//!
//! A mean of `c` samples, last added to `s` requests ago, weighs `c / (c + 2) * 256 / (256 + s)`: one outcome proves
//! little, and what is not renewed fades. What is left of the weight goes to what firsts at that node by its other routes
//! were off, for these have waits, upload and reading in common: a route that was never taken is not thought to be better
//! predicted than those that were. Of the rest behind the first token it goes to nothing being off.
//!
//! What a node's routes were off in common is corrected by no more than `correction-limit` and no less than its inverse,
//! and what each of them was off beside that by no more and no less again: the figures that the host hands over now are
//! never overruled, and of two routes that are both off by more than the limit the slower one is still seen to be slower.

use crate::cells::ArmCells;
use crate::model::amount;
use crate::{Settings, larger, within};

/// A time that was further off than by this factor says no more than that.
pub(crate) const FAR_OFF: f64 = 8.0;

/// Samples after which what was learned weighs half.
const HALF_SURE: f64 = 2.0;
/// Requests after which what was learned and not renewed weighs half.
const FADES: f64 = 256.0;

/// How far off the times of a node by one route were.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Off {
    /// Of the first token.
    pub(crate) first: f64,
    /// Of what comes behind it.
    pub(crate) rest: f64,
    /// Requests since it was last taken.
    pub(crate) stale: f64,
}

/// What is known of how far off something was.
#[derive(Clone, Copy, Debug)]
struct Known {
    mean: f64,
    /// How much it weighs, in `[0, 1]`.
    weight: f64,
}

impl Known {
    fn of((mean, count): (f64, f64), stale: f64) -> Known {
        let count = amount(count, 0.0);
        Known {
            mean: within(mean, 1.0 / FAR_OFF, FAR_OFF),
            weight: count / (count + HALF_SURE) * FADES / (FADES + stale),
        }
    }

    /// The mean, drawn towards `otherwise` by the weight that is left.
    fn beside(self, otherwise: f64) -> f64 {
        self.weight * self.mean + (1.0 - self.weight) * otherwise
    }

    /// What some are off in common: their weighted mean, as sure as the surest of them.
    fn common(all: impl Iterator<Item = Known>) -> f64 {
        let (mut sum, mut weights, mut surest) = (0.0, 0.0, 0.0);
        for known in all {
            sum += known.weight * known.mean;
            weights += known.weight;
            surest = larger(known.weight, surest);
        }
        if weights > 0.0 {
            let mean = sum / weights;
            let weight = surest;
            Known { mean, weight }.beside(1.0)
        } else {
            1.0
        }
    }
}

impl Off {
    /// Of one node by some routes. `requests`: how many were learned from.
    pub(crate) fn of<const ROUTES: usize>(
        arms: [ArmCells; ROUTES],
        requests: f64,
        settings: &Settings,
    ) -> [Off; ROUTES] {
        let limit = larger(settings.correction_limit, 1.0);
        let limited = |off: f64| within(off, 1.0 / limit, limit);
        let stale = |arm: &ArmCells| amount(requests - arm.last.unwrap_or(0.0), 0.0);
        let firsts = arms.map(|arm| arm.first.map(|first| Known::of(first, stale(&arm))));
        let rests = arms.map(|arm| arm.rest.map(|rest| Known::of(rest, stale(&arm))));
        let first = Known::common(firsts.iter().flatten().copied());
        let rest = Known::common(rests.iter().flatten().copied());
        let mut found = arms.map(|arm| Off {
            first: limited(first),
            rest: limited(rest),
            stale: stale(&arm),
        });
        let own = firsts.into_iter().zip(rests);
        for (place, (off, (own_first, own_rest))) in found.iter_mut().zip(own).enumerate() {
            let others = firsts.iter().enumerate();
            let others = others.filter(|(other, _)| *other != place);
            let otherwise = Known::common(others.filter_map(|(_, other)| *other));
            let own_first = own_first.map_or(otherwise, |own| own.beside(otherwise));
            off.first *= limited(own_first / first);
            let own_rest = own_rest.map_or(1.0, |own| own.beside(1.0));
            off.rest *= limited(own_rest / rest);
        }
        found
    }
}
