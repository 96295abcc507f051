//! What figures are of late: mean and spread of what comes at any time, older samples counting less with the time that
//! passes.
//!
//! `msao-link` has estimators that forget by the sample, fit for what comes steadily while a link or a model works.
//! These forget by time, are stored, and are for what comes in bursts and is looked at long after: speeds, queues,
//! prices, shares of acceptance of one kind of request.
//!
//! All times are ms of one clock of the caller's that goes forward. A sample that cannot be (not finite, below 0, of a
//! time before the last one) is ignored and counted.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Largest value that is taken: far above any honest one, and sums of its square are finite.
const MOST: f64 = 1e100;

/// Why a half-life, or what was stored, was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum EstimateError {
    /// Not a time.
    #[error("a half-life of {0} ms; allowed: above 0, at most 10^15")]
    HalfLife(f64),
    /// Sums that samples cannot have given.
    #[error("a stored estimate does not fit together; begin it anew")]
    Stored,
}

/// The time that samples are told of, and how they fade with it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fading {
    half_life_ms: f64,
    /// Of the last sample; none before the first.
    last_ms: Option<f64>,
    ignored: u64,
}

impl Fading {
    fn new(half_life_ms: f64) -> Result<Fading, EstimateError> {
        if !(half_life_ms > 0.0 && half_life_ms <= 1e15) {
            return Err(EstimateError::HalfLife(half_life_ms));
        }
        Ok(Fading {
            half_life_ms,
            last_ms: None,
            ignored: 0,
        })
    }

    /// What earlier samples are still worth at the time of a new one, in `[0, 1]`. None where the sample is to be
    /// ignored.
    fn advance(&mut self, now_ms: f64, sound: bool) -> Option<f64> {
        let back = self.last_ms.is_some_and(|last_ms| now_ms < last_ms);
        if back || !sound || !now_ms.is_finite() {
            self.ignored = self.ignored.saturating_add(1);
            return None;
        }
        let keep = self.keep(now_ms);
        self.last_ms = Some(now_ms);
        Some(keep)
    }

    fn keep(&self, now_ms: f64) -> f64 {
        let passed_ms = self.last_ms.map_or(0.0, |last_ms| now_ms - last_ms);
        let keep = (-passed_ms / self.half_life_ms).exp2();
        if keep.is_nan() { 1.0 } else { keep.min(1.0) }
    }

    fn is_sound(&self) -> bool {
        Fading::new(self.half_life_ms).is_ok() && self.last_ms.is_none_or(f64::is_finite)
    }
}

/// Whether a sample can be.
fn amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// Mean and variance of samples, each counting half as much after each half-life.
///
/// With weights `w` and their sum `W`: `mean += w/W (x - mean)`, and the sum of squares grows by `w (x - old mean) (x -
/// new mean)` (D. H. D. West, "Updating mean and variance estimates", CACM 22, 1979).
///
/// ```
/// use msao_adapt::estimate::Average;
///
/// let mut queue_ms = Average::new(1_000.0)?;
/// queue_ms.sample(0.0, 40.0);
/// queue_ms.sample(0.0, 60.0);
/// assert_eq!((queue_ms.mean(), queue_ms.standard_deviation()), (Some(50.0), Some(10.0)));
/// // Two halves of 50 and one whole of 80.
/// queue_ms.sample(1_000.0, 80.0);
/// assert_eq!(queue_ms.mean(), Some(65.0));
/// # Ok::<(), msao_adapt::estimate::EstimateError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredAverage")]
pub struct Average {
    fading: Fading,
    weight: f64,
    mean: f64,
    squares: f64,
    count: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredAverage {
    fading: Fading,
    weight: f64,
    mean: f64,
    squares: f64,
    count: u64,
}

impl TryFrom<StoredAverage> for Average {
    type Error = EstimateError;

    fn try_from(stored: StoredAverage) -> Result<Average, EstimateError> {
        let StoredAverage {
            fading,
            weight,
            mean,
            squares,
            count,
        } = stored;
        let sound = fading.is_sound() && [weight, mean, squares].into_iter().all(amount);
        sound.then_some(()).ok_or(EstimateError::Stored)?;
        Ok(Average {
            fading,
            weight,
            mean,
            squares,
            count,
        })
    }
}

impl Average {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// The half-life is not above 0 and at most 10^15 ms.
    pub fn new(half_life_ms: f64) -> Result<Average, EstimateError> {
        Ok(Average {
            fading: Fading::new(half_life_ms)?,
            weight: 0.0,
            mean: 0.0,
            squares: 0.0,
            count: 0,
        })
    }

    /// Takes a sample in, of the time `now_ms`.
    pub fn sample(&mut self, now_ms: f64, value: f64) {
        let Some(keep) = self.fading.advance(now_ms, amount(value)) else {
            return;
        };
        let value = value.min(MOST);
        self.count = self.count.saturating_add(1);
        self.weight = self.weight * keep + 1.0;
        let old = value - self.mean;
        self.mean = (self.mean + old / self.weight).max(0.0);
        self.squares = (self.squares * keep + old * (value - self.mean)).max(0.0);
    }

    /// The mean, at least 0. None before the first sample.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The standard deviation, in the samples' unit. None before the second sample.
    pub fn standard_deviation(&self) -> Option<f64> {
        (self.count > 1).then(|| (self.squares / self.weight).sqrt())
    }

    /// How many samples of this moment would be worth as much: what the mean rests on.
    pub fn weight(&self, now_ms: f64) -> f64 {
        self.weight * self.fading.keep(now_ms)
    }

    /// Samples so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Samples that could not be.
    pub fn ignored(&self) -> u64 {
        self.fading.ignored
    }
}

/// Amount by time, or a share of a whole: the quotient of two sums that fade alike. Large samples count more, as they
/// should: of tokens per ms a long pass says more than a short one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StoredRate")]
pub struct Rate {
    fading: Fading,
    amount: f64,
    per: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRate {
    fading: Fading,
    amount: f64,
    per: f64,
}

impl TryFrom<StoredRate> for Rate {
    type Error = EstimateError;

    fn try_from(stored: StoredRate) -> Result<Rate, EstimateError> {
        let StoredRate {
            fading,
            amount: sum,
            per,
        } = stored;
        let sound = fading.is_sound() && amount(sum) && amount(per);
        sound.then_some(()).ok_or(EstimateError::Stored)?;
        Ok(Rate {
            fading,
            amount: sum,
            per,
        })
    }
}

impl Rate {
    /// Nothing seen yet.
    ///
    /// # Errors
    /// The half-life is not above 0 and at most 10^15 ms.
    pub fn new(half_life_ms: f64) -> Result<Rate, EstimateError> {
        Ok(Rate {
            fading: Fading::new(half_life_ms)?,
            amount: 0.0,
            per: 0.0,
        })
    }

    /// Takes `amount` in `per` in, for instance tokens in ms, or accepted drafts among those judged. `per` must be
    /// above 0.
    pub fn sample(&mut self, now_ms: f64, amount_now: f64, per: f64) {
        let sound = amount(amount_now) && amount(per) && per > 0.0;
        let Some(keep) = self.fading.advance(now_ms, sound) else {
            return;
        };
        self.amount = self.amount * keep + amount_now.min(MOST);
        self.per = self.per * keep + per.min(MOST);
    }

    /// Amount by `per`, at least 0. None before the first sample.
    pub fn rate(&self) -> Option<f64> {
        let rate = self.amount / self.per;
        amount(rate).then_some(rate)
    }

    /// What the rate rests on, in the unit of `per`, as worth at this moment.
    pub fn weight(&self, now_ms: f64) -> f64 {
        self.per * self.fading.keep(now_ms)
    }

    /// Samples that could not be.
    pub fn ignored(&self) -> u64 {
        self.fading.ignored
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_count_half_after_each_half_life() {
        let mut average = Average::new(100.0).unwrap();
        assert_eq!((average.mean(), average.standard_deviation()), (None, None));
        average.sample(0.0, 2.0);
        average.sample(200.0, 7.0);
        // A quarter of 2 and one 7: 7.5 / 1.25, and squares 0.25 * 16 + 1 = 5.
        assert_eq!(average.mean(), Some(6.0));
        assert_eq!(average.standard_deviation(), Some(2.0));
        assert_eq!(
            (average.weight(200.0), average.weight(300.0)),
            (1.25, 0.625)
        );
        let mut rate = Rate::new(100.0).unwrap();
        assert_eq!(rate.rate(), None);
        rate.sample(0.0, 10.0, 2.0);
        rate.sample(100.0, 1.0, 1.0);
        assert_eq!((rate.rate(), rate.weight(100.0)), (Some(3.0), 2.0));
    }

    #[test]
    fn what_cannot_be_is_ignored_and_counted() {
        for half_life in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Average::new(half_life).is_err() && Rate::new(half_life).is_err());
        }
        let mut average = Average::new(10.0).unwrap();
        let mut rate = Rate::new(10.0).unwrap();
        average.sample(5.0, 3.0);
        rate.sample(5.0, 3.0, 1.0);
        let (before, rate_before) = (average.clone(), rate.clone());
        let wrong = [
            (4.9, 1.0),
            (f64::NAN, 1.0),
            (6.0, -1.0),
            (6.0, f64::NAN),
            (6.0, f64::INFINITY),
        ];
        for (now_ms, value) in wrong {
            average.sample(now_ms, value);
            rate.sample(now_ms, value, 1.0);
        }
        rate.sample(6.0, 1.0, 0.0);
        assert_eq!((average.ignored(), rate.ignored()), (5, 6));
        assert_eq!(
            (average.mean(), average.weight(5.0)),
            (before.mean(), before.weight(5.0))
        );
        assert_eq!(
            (rate.rate(), rate.weight(5.0)),
            (rate_before.rate(), rate_before.weight(5.0))
        );
    }

    fn wild() -> impl Strategy<Value = f64> {
        prop_oneof![any::<f64>(), -10.0..1e4_f64, Just(f64::MAX)]
    }

    proptest! {
        #[test]
        fn figures_are_in_range_and_come_back_from_storage_to_the_bit(
            samples in prop::collection::vec((wild(), wild(), wild()), 0..60),
            half_life_ms in 1e-3..1e6_f64,
        ) {
            let mut average = Average::new(half_life_ms).unwrap();
            let mut rate = Rate::new(half_life_ms).unwrap();
            let mut now_ms = 0.0;
            for (step, value, per) in samples {
                now_ms += if step.abs() < 1e5 { step } else { 0.0 };
                average.sample(now_ms, value);
                rate.sample(now_ms, value, per);
                for figure in [average.mean(), average.standard_deviation(), rate.rate()].into_iter().flatten() {
                    prop_assert!(figure.is_finite() && figure >= 0.0, "{figure}");
                }
                let stored = serde_json::to_string(&(&average, &rate)).unwrap();
                let back: (Average, Rate) = serde_json::from_str(&stored).unwrap();
                prop_assert_eq!(&back, &(average.clone(), rate.clone()));
                prop_assert_eq!(serde_json::to_string(&back).unwrap(), stored);
            }
        }
    }
}
