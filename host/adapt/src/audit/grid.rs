//! The thresholds that are tested, from the highest to the lowest.
//!
//! They are fixed, or the bound would not hold; and even in the logarithm of what is left to 1, since an answer of 100
//! tokens that keeps within 0.4% needs tokens that are wrong once in 25,000 times.

use std::sync::LazyLock;

/// How many thresholds there are.
pub const THRESHOLDS: usize = 46;

/// `1 - 10^-6` is the highest.
const FIRST_DECADE: f64 = -6.0;
const PER_DECADE: f64 = 8.0;

static TABLE: LazyLock<[f64; THRESHOLDS]> = LazyLock::new(|| {
    std::array::from_fn(|index| 1.0 - 10_f64.powf(FIRST_DECADE + index as f64 / PER_DECADE))
});

/// The threshold of an index, 0 being the highest; None from [`THRESHOLDS`] on. The lowest is 0.578.
pub fn threshold(index: usize) -> Option<f64> {
    TABLE.get(index).copied()
}

/// The index of the highest threshold that `acceptance` meets; [`THRESHOLDS`] where it meets none. What is not a
/// number meets all: nothing is known of it.
pub(super) fn first_met(acceptance: f64) -> usize {
    if acceptance.is_nan() {
        return 0;
    }
    TABLE.partition_point(|threshold| acceptance < *threshold)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_fall_and_each_meets_itself() {
        let all: Vec<f64> = (0..).map_while(threshold).collect();
        assert_eq!(all.len(), THRESHOLDS);
        assert!(all.windows(2).all(|pair| pair[0] > pair[1]));
        assert_eq!(all[0], 1.0 - 1e-6);
        assert!(all[THRESHOLDS - 1] > 0.5 && all[THRESHOLDS - 1] < 0.6);
        for (index, threshold) in all.iter().enumerate() {
            assert_eq!(first_met(*threshold), index);
            assert_eq!(first_met(threshold.next_down()), index + 1);
        }
        assert_eq!(
            (first_met(1.0), first_met(2.0), first_met(f64::NAN)),
            (0, 0, 0)
        );
        assert_eq!(first_met(-1.0), THRESHOLDS);
    }
}
