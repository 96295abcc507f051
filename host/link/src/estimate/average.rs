//! Mean and variance of what was seen, the latest counting most.

/// Largest value that is taken: far above any honest one, and its square is finite.
const MOST: f64 = 1e100;

/// Exponentially weighted mean and variance.
///
/// With weight `w` and difference `d = x - mean`: `mean += w * d`, `variance = (1 - w) * (variance + w * d^2)` (T. Finch,
/// "Incremental calculation of weighted mean and variance", 2009, section 9). The n-th sample has at least weight `1 / n`,
/// so that the first ones are averaged evenly instead of the very first one counting for long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Average {
    weight: f64,
    mean: f64,
    variance: f64,
    count: u64,
}

impl Average {
    /// `weight` of a new sample, in `(0, 1]`; what is outside counts as 1.
    pub fn new(weight: f64) -> Average {
        let allowed = weight > 0.0 && weight <= 1.0;
        Average {
            weight: if allowed { weight } else { 1.0 },
            ..Average::default()
        }
    }

    /// Takes a sample in; a negative one, or one that is not finite, is ignored.
    pub fn sample(&mut self, value: f64) {
        if !super::amount(value) {
            return;
        }
        let value = value.min(MOST);
        self.count += 1;
        let weight = self.weight.max(1.0 / self.count as f64).min(1.0);
        let difference = value - self.mean;
        // Between two values that are not negative, up to a rounding.
        self.mean = (self.mean + weight * difference).max(0.0);
        let variance = (1.0 - weight) * (self.variance + weight * difference * difference);
        self.variance = variance.max(0.0);
    }

    /// The mean. None before the first sample.
    pub fn mean(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// The standard deviation, in the samples' unit. None before the second sample.
    pub fn standard_deviation(&self) -> Option<f64> {
        (self.count > 1).then(|| self.variance.sqrt())
    }

    /// Samples so far.
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_samples_count_alike_and_later_ones_by_the_weight() {
        let mut average = Average::new(0.25);
        assert_eq!((average.mean(), average.standard_deviation()), (None, None));
        for value in [2.0, 4.0, 6.0, 8.0] {
            average.sample(value);
        }
        assert_eq!(average.mean(), Some(5.0));
        assert!((average.standard_deviation().unwrap() - 5_f64.sqrt()).abs() < 1e-12);
        average.sample(9.0);
        assert_eq!(average.mean(), Some(6.0));
        average.sample(f64::NAN);
        average.sample(-1.0);
        assert_eq!((average.mean(), average.count()), (Some(6.0), 5));
    }
}
