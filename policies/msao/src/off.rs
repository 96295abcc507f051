//! By what factors predictions were off before.
//!
//! A mean of `c` samples, last added to `s` requests ago, weighs `c / (c + 2) * 256 / (256 + s)`: one outcome proves
//! little, and what is not renewed fades. What is left of the weight goes to what firsts at that node by all of its
//! routes were off, for these have waits, upload and reading in common; of the rest behind the first token it goes to
//! nothing being off. No factor is above `correction-limit` or below its inverse: the figures that the host hands over
//! now are never overruled.

use crate::cells::ArmCells;
use crate::model::amount;
use crate::{Settings, larger, within};

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

/// How much a mean of so many samples weighs, in `[0, 1]`.
fn weight((_, count): (f64, f64), stale: f64) -> f64 {
    let count = amount(count, 0.0);
    count / (count + HALF_SURE) * FADES / (FADES + stale)
}

impl Off {
    /// Of one node by some routes. `requests`: how many were learned from.
    pub(crate) fn of<const ROUTES: usize>(
        known: [ArmCells; ROUTES],
        requests: f64,
        settings: &Settings,
    ) -> [Off; ROUTES] {
        let limit = larger(settings.correction_limit, 1.0);
        let least = 1.0 / limit;
        let stale = |arm: &ArmCells| amount(requests - arm.last.unwrap_or(0.0), 0.0);
        let (mut sum, mut all) = (0.0, 0.0);
        for arm in &known {
            if let Some(first) = arm.first {
                let weight = weight(first, stale(arm));
                sum += weight * first.0;
                all += weight;
            }
        }
        // A node of which little is known is thought to be off by little.
        let by_node = (sum + 1.0) / (all + 1.0);
        known.map(|arm| {
            let stale = stale(&arm);
            let mixed = |own: Option<(f64, f64)>, otherwise: f64| {
                let off = match own {
                    Some(own) => {
                        let weight = weight(own, stale);
                        weight * own.0 + (1.0 - weight) * otherwise
                    }
                    None => otherwise,
                };
                within(off, least, limit)
            };
            Off {
                first: mixed(arm.first, by_node),
                rest: mixed(arm.rest, 1.0),
                stale,
            }
        })
    }
}
