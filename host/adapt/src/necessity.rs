//! Fits a post-processor's necessity to measured harm.
//!
//! Necessity is to mean the probability that an answer suffers when the item is dropped. A post-processor's *plain* necessity
//! ranks items; how much is much it cannot know. Where harm was measured (the loss of the target's log-probability of the
//! reference answer without the item, in nats a token), [`fit`] gives the monotone map from one to the other, as the values of
//! nine knots in logits: the parameters `knot-0` to `knot-8` of `mas-joint`, between which its map is linear, and which are a
//! parameter revision like any other. The items must have been scored with the default knots, by which necessity is plain, on
//! other requests than those that the fit is judged by.
//!
//! At each knot stands the rate of harm of the items around it, each counting by how near it lies (1 at the knot, 0 at the
//! next); what little was seen is pulled towards the plain necessity; and neighbours out of order are pooled (M. Ayer et
//! al., 1955). A slight slope within pools keeps items in the order of their plain necessity, so that the fit changes no
//! ranking.
//!
//! ```
//! use msao_adapt::necessity::{KNOTS, Measured, calibrated, fit};
//!
//! // Half of what seems needed at 0.9 is not.
//! let measured: Vec<Measured> = (0..100)
//!     .map(|i| Measured { necessity: 0.9, harm: if i % 2 == 0 { 0.4 } else { 0.0 } })
//!     .collect();
//! let knots = fit(&measured, 0.1)?;
//! assert!(calibrated(0.9, &KNOTS) > 0.89);
//! assert!((calibrated(0.9, &knots) - 0.5).abs() < 0.05);
//! # Ok::<(), msao_adapt::necessity::FitError>(())
//! ```

use libm::{exp, floor, log};
use thiserror::Error;

use crate::acceptance::monotone;

/// Knots of the map.
pub const COUNT: usize = 9;
/// Where the knots lie, in logits of the plain necessity; as values, the map that leaves it as it is.
pub const KNOTS: [f64; COUNT] = [-8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0];
/// Items that a fit takes at least.
pub const LEAST: usize = 20;

const FIRST: f64 = -8.0;
const LAST: f64 = 8.0;
const APART: f64 = 2.0;
/// The largest value of a knot, and less than nothing the smallest.
const MOST: f64 = 16.0;
/// Items that each knot begins with, at the plain necessity's own word.
const PRIOR: f64 = 2.0;
/// Slope that is left within a pool.
const TILT: f64 = 0.01;

/// An item whose harm was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// What a post-processor with the default knots gave, in `[0, 1]`.
    pub necessity: f64,
    /// What was lost without it, nats a token; below 0 where the answer became more likely.
    pub harm: f64,
}

/// Why nothing was fitted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum FitError {
    /// Not enough to go by.
    #[error("harm was measured of {0} items; at least {LEAST} are needed: measure more questions")]
    TooFew(usize),
    /// A figure that cannot be.
    #[error("{field} is {value}; allowed: {allowed}")]
    Range {
        /// Which, with the item's number.
        field: String,
        /// What it is.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
}

/// The knots of the map from plain necessity to the probability that harm is above `threshold`, in nats a token.
///
/// They rise, and lie within -16 and 16.
///
/// # Errors
/// [`FitError`]: too few items, or one of them is not in its range.
pub fn fit(measured: &[Measured], threshold: f64) -> Result<[f64; COUNT], FitError> {
    let range = |field: String, value: f64, allowed: &'static str| FitError::Range {
        field,
        value,
        allowed,
    };
    if !threshold.is_finite() {
        return Err(range("threshold".into(), threshold, "a finite number"));
    }
    if measured.len() < LEAST {
        return Err(FitError::TooFew(measured.len()));
    }
    // Items, and items that did harm.
    let mut seen = [(0.0, 0.0); COUNT];
    for (number, item) in measured.iter().enumerate() {
        let Measured { necessity, harm } = *item;
        if !(0.0..=1.0).contains(&necessity) {
            let field = format!("item {number}'s necessity");
            return Err(range(field, necessity, "0 to 1"));
        }
        if harm.is_nan() {
            let field = format!("item {number}'s harm");
            return Err(range(field, harm, "a number"));
        }
        let (below, share) = place(logit(necessity));
        let did = f64::from(u8::from(harm > threshold));
        for ((items, harmful), number) in seen.iter_mut().zip(0_usize..) {
            let weight = if number == below {
                1.0 - share
            } else if number == below + 1 {
                share
            } else {
                continue;
            };
            *items += weight;
            *harmful += weight * did;
        }
    }
    let rates: Vec<(f64, f64)> = (seen.iter().zip(KNOTS))
        .map(|((items, harmful), knot)| {
            let weight = items + PRIOR;
            ((harmful + PRIOR * sigmoid(knot)) / weight, weight)
        })
        .collect();
    let mut knots = KNOTS;
    for (knot, rate) in knots.iter_mut().zip(monotone(&rates)) {
        // Held a little within the range, so that the slope is left to the outermost ones, too.
        *knot = logit(rate).clamp(0.1 - MOST, MOST - 0.1) + TILT * *knot;
    }
    Ok(knots)
}

/// What a post-processor with these knots says where the plain necessity is `necessity`, in `[0, 1]`: as `mas-joint` computes it.
pub fn calibrated(necessity: f64, knots: &[f64; COUNT]) -> f64 {
    let plain = log(necessity / (1.0 - necessity));
    let (below, _) = place(plain);
    let (Some(low), Some(high)) = (knots.get(below), knots.get(below + 1)) else {
        return necessity;
    };
    let from = FIRST + APART * below as f64;
    let mapped = if plain < FIRST {
        low + (plain - FIRST)
    } else if plain > LAST {
        high + (plain - LAST)
    } else {
        low + (high - low) * ((plain - from) / APART)
    };
    sigmoid(mapped)
}

/// The knot at or below a logit, the last but one at most, and how far on the way to the next the logit lies, in `[0, 1]`.
fn place(logit: f64) -> (usize, f64) {
    let along = (logit - FIRST) / APART;
    let along = along.clamp(0.0, (COUNT - 1) as f64);
    let below = floor(along).min((COUNT - 2) as f64);
    (below as usize, along - below)
}

fn sigmoid(logit: f64) -> f64 {
    1.0 / (1.0 + exp(-logit))
}

/// Within what a knot may be.
fn logit(probability: f64) -> f64 {
    log(probability / (1.0 - probability)).clamp(-MOST, MOST)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::{Stream, uniform_at};

    /// Items of plain logits from -6 to 8, which do harm as often as `rate` of the logit says.
    fn drawn(count: u64, seed: u64, rate: impl Fn(f64) -> f64) -> Vec<Measured> {
        let number = |place| uniform_at(seed, Stream::Traffic, place);
        let item = |i: u64| {
            let plain = 14.0 * number(2 * i) - 6.0;
            let harms = number(2 * i + 1) < rate(plain);
            Measured {
                necessity: sigmoid(plain),
                harm: if harms { 0.5 } else { 0.0 },
            }
        };
        (0..count).map(item).collect()
    }

    fn brier(measured: &[Measured], knots: &[f64; COUNT]) -> f64 {
        let squares = measured.iter().map(|item| {
            let harmed = f64::from(u8::from(item.harm > 0.1));
            (calibrated(item.necessity, knots) - harmed).powi(2)
        });
        squares.sum::<f64>() / measured.len() as f64
    }

    #[test]
    fn what_is_calibrated_stays() {
        let knots = fit(&drawn(40_000, 1, sigmoid), 0.1).unwrap();
        for (knot, at) in knots.iter().zip(KNOTS).skip(2).take(5) {
            assert!((knot - at).abs() < 0.6, "{knots:?}");
        }
        for necessity in [0.0, 1e-9, 0.3, 0.5, 0.999, 1.0] {
            assert!((calibrated(necessity, &KNOTS) - necessity).abs() < 1e-9);
        }
    }

    #[test]
    fn what_says_too_much_is_mended() {
        // Harm begins three logits later, and more gently.
        let rate = |plain: f64| sigmoid(0.7 * (plain - 3.0));
        let knots = fit(&drawn(40_000, 2, rate), 0.1).unwrap();
        for (knot, at) in knots.iter().zip(KNOTS).skip(2).take(6) {
            assert!((knot - 0.7 * (at - 3.0)).abs() < 0.6, "{at}: {knots:?}");
        }
        let others = drawn(5_000, 3, rate);
        let (before, after) = (brier(&others, &KNOTS), brier(&others, &knots));
        assert!(after < 0.8 * before, "{after} after, {before} before");
    }

    #[test]
    fn little_changes_little_and_what_was_not_seen_not_at_all() {
        let harmless = Measured {
            necessity: 0.5,
            harm: -0.1,
        };
        let knots = fit(&[harmless; 20], 0.1).unwrap();
        // Of 22 items two at the plain word of 1/2, in a pool with the two below.
        let pool = (1.0 + 2.0 * sigmoid(-2.0)) / 24.0;
        assert!((sigmoid(knots[4]) - pool).abs() < 1e-6, "{knots:?}");
        assert!((knots[6] - 4.0).abs() < 0.1 && (knots[8] - 8.0).abs() < 0.1);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let plain = Measured {
            necessity: 0.5,
            harm: 0.2,
        };
        let mut items = vec![plain; 30];
        assert_eq!(fit(&items[..19], 0.1), Err(FitError::TooFew(19)));
        let told = |items: &[Measured], threshold| fit(items, threshold).unwrap_err().to_string();
        assert!(told(&items, f64::NAN).contains("threshold is NaN"));
        items[7].necessity = 1.5;
        assert_eq!(
            told(&items, 0.1),
            "item 7's necessity is 1.5; allowed: 0 to 1"
        );
        items[7] = Measured {
            harm: f64::NAN,
            ..plain
        };
        assert!(told(&items, 0.1).contains("item 7's harm"));
    }

    proptest! {
        #[test]
        fn the_map_rises_whatever_was_measured(
            items in prop::collection::vec((0.0f64..=1.0, -1.0f64..1.0), 20..80),
            a in 0.0f64..=1.0,
            b in 0.0f64..=1.0,
        ) {
            let items: Vec<Measured> = items
                .into_iter()
                .map(|(necessity, harm)| Measured { necessity, harm })
                .collect();
            let knots = fit(&items, 0.1).unwrap();
            prop_assert!(knots.windows(2).all(|pair| pair[0] < pair[1]), "{knots:?}");
            prop_assert!(knots.iter().all(|knot| knot.abs() <= MOST));
            let (low, high) = (calibrated(a.min(b), &knots), calibrated(a.max(b), &knots));
            prop_assert!((0.0..=1.0).contains(&low) && low <= high + 1e-12);
        }
    }
}
