//! What figures are made of: means and quantiles, their intervals, ratios of paired means.
//!
//! **What is a sample.** Requests of one turn are not independent: they share queues, caches and the mood of the machine. Repeats
//! are: each is a turn of its own, minutes apart, with other items. So with three repeats or more, intervals are Student's, over
//! repeats; policies of one block are compared within each repeat, by the logarithm of the ratio of their means, so that drift
//! cancels out. With fewer repeats they are of a bootstrap over requests (B. Efron, 1979; percentiles of 2,000 draws, paired by
//! item), which knows nothing of what differs from turn to turn; tables mark those. All intervals but the accuracy's are two-sided
//! of 95%.

mod accuracy;
mod goodput;
mod student;

use serde::Serialize;

pub use self::accuracy::{Decided, Scores, Verdict, level_of, qualify, qualify_in_rounds};
pub use self::goodput::{Goodput, Rung, goodput};
pub use self::student::quantile as student_quantile;
use crate::random::Random;

/// Draws of a bootstrap.
const DRAWS: usize = 2_000;
/// Repeats from which on they are the sample.
const ENOUGH_REPEATS: usize = 3;

/// What an interval is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sample {
    /// Student's, over repeats.
    Repeats,
    /// A bootstrap over requests: too narrow where turns differ.
    Requests,
}

/// A figure and the 95% interval around it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The figure.
    pub value: f64,
    /// The interval's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// What it is made of.
    pub sample: Sample,
}

/// The mean; None of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The standard deviation of a sample (n - 1); None of fewer than two.
pub fn deviation(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt())
}

/// The value below which a share of the values lies, linear between neighbours (type 7 of R. J. Hyndman, Y. Fan, 1996); None of
/// nothing.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, share)
}

/// The same of values that are in order already.
pub fn quantile_of_sorted(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share.clamp(0.0, 1.0) * sorted.len().checked_sub(1)? as f64;
    let low = *sorted.get(place.floor() as usize)?;
    let high = *sorted.get(place.ceil() as usize)?;
    // Not `low + part * (high - low)`: that may leave the two.
    let part = place.fract();
    Some((low * (1.0 - part) + high * part).clamp(low, high))
}

/// The mean of what several repeats measured, with its interval; each repeat counts the same. None of nothing.
pub fn mean_of_repeats(repeats: &[Vec<f64>]) -> Option<Interval> {
    let means: Vec<f64> = repeats.iter().filter_map(|values| mean(values)).collect();
    if means.len() >= ENOUGH_REPEATS {
        return student(&means);
    }
    let all: Vec<f64> = repeats.iter().flatten().copied().collect();
    bootstrap(&all, mean)
}

/// How many times as large one mean is as another, from pairs `(one, other)` of each repeat. None where nothing is paired, or a mean
/// is not above 0.
pub fn ratio_of_means(repeats: &[Vec<(f64, f64)>]) -> Option<Interval> {
    let all: Vec<(f64, f64)> = repeats.iter().flatten().copied().collect();
    let used = repeats.iter().filter(|pairs| !pairs.is_empty());
    let ratios: Vec<f64> = (used.clone())
        .filter_map(|pairs| ratio_of_sums(pairs))
        .collect();
    if ratios.len() >= ENOUGH_REPEATS && ratios.len() == used.count() {
        let logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).collect();
        return student(&logs).map(|it| it.exp());
    }
    bootstrap(&all, ratio_of_sums)
}

/// The same of all pairs at once, without an interval. Where few pairs make most of a sum this is what is wanted of the whole: most
/// repeats have less of these than their share, so that the mean of the repeats' logarithms is lower.
pub fn ratio_of_sums(pairs: &[(f64, f64)]) -> Option<f64> {
    let one: f64 = pairs.iter().map(|pair| pair.0).sum();
    let other: f64 = pairs.iter().map(|pair| pair.1).sum();
    (one > 0.0 && other > 0.0).then(|| one / other)
}

/// How many times as large one mean is as another where nothing is paired: two folders, each with its repeats. Welch's interval of
/// the logarithms of the repeats' means (B. L. Welch, 1947). None with fewer than two repeats on either side, or a mean that is not
/// above 0.
pub fn ratio_of_unpaired(one: &[Vec<f64>], other: &[Vec<f64>]) -> Option<Interval> {
    let logs = |repeats: &[Vec<f64>]| -> Option<Vec<f64>> {
        let means = repeats.iter().filter_map(|values| mean(values));
        means.map(|mean| (mean > 0.0).then(|| mean.ln())).collect()
    };
    let (one, other) = (logs(one)?, logs(other)?);
    let part = |logs: &[f64]| Some(deviation(logs)?.powi(2) / logs.len() as f64);
    let (a, b) = (part(&one)?, part(&other)?);
    let value = mean(&one)? - mean(&other)?;
    let rest = a.powi(2) / (one.len() - 1) as f64 + b.powi(2) / (other.len() - 1) as f64;
    let freedom = if rest > 0.0 {
        (a + b).powi(2) / rest
    } else {
        1.0
    };
    let half = student::quantile(0.975, freedom.floor().max(1.0) as u32) * (a + b).sqrt();
    let interval = Interval {
        value,
        low: value - half,
        high: value + half,
        sample: Sample::Repeats,
    };
    Some(interval.exp())
}

impl Interval {
    fn exp(self) -> Interval {
        Interval {
            value: self.value.exp(),
            low: self.low.exp(),
            high: self.high.exp(),
            ..self
        }
    }
}

fn student(values: &[f64]) -> Option<Interval> {
    let value = mean(values)?;
    let error = deviation(values)? / (values.len() as f64).sqrt();
    let half = student::quantile(0.975, (values.len() - 1) as u32) * error;
    Some(Interval {
        value,
        low: value - half,
        high: value + half,
        sample: Sample::Repeats,
    })
}

/// The percentiles of a figure over samples drawn with replacement. The seed is always the same: so is the report.
fn bootstrap<T: Copy>(all: &[T], figure: impl Fn(&[T]) -> Option<f64>) -> Option<Interval> {
    let value = figure(all)?;
    let mut random = Random::new(all.len() as u64);
    let mut drawn = Vec::with_capacity(all.len());
    let mut figures = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        drawn.clear();
        drawn.extend((0..all.len()).filter_map(|_| all.get(random.below(all.len())).copied()));
        figures.extend(figure(&drawn));
    }
    figures.sort_by(f64::total_cmp);
    Some(Interval {
        value,
        low: quantile_of_sorted(&figures, 0.025)?.min(value),
        high: quantile_of_sorted(&figures, 0.975)?.max(value),
        sample: Sample::Requests,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{a} and {b}");
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(&values, 0.5), Some(2.5));
        // Place 2.85: 15% of the third and 85% of the fourth.
        close(quantile(&values, 0.95).unwrap(), 3.85);
        assert_eq!(quantile(&values, 0.0), Some(1.0));
        assert_eq!(quantile(&values, 1.0), Some(4.0));
        assert_eq!(quantile(&[7.0], 0.95), Some(7.0));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn intervals_of_repeats_are_student_s() {
        // Means 10, 12, 14: deviation 2, error 2 / sqrt(3), t(2) = 4.302653.
        let repeats = vec![vec![9.0, 11.0], vec![12.0], vec![14.0, 14.0]];
        let it = mean_of_repeats(&repeats).unwrap();
        close(it.value, 12.0);
        assert!((it.high - 12.0 - 4.302_653 * 2.0 / 3.0_f64.sqrt()).abs() < 1e-5);
        assert_eq!(it.sample, Sample::Repeats);
        let few = mean_of_repeats(&repeats[..2]).unwrap();
        assert_eq!(few.sample, Sample::Requests);
        assert!(few.low >= 9.0 && few.high <= 12.0 && few.low < few.high);
        assert_eq!(mean_of_repeats(&[vec![]]), None);
    }

    #[test]
    fn drift_cancels_out_of_ratios() {
        // Half as long in each repeat, though the second took ten times as long.
        let repeats = vec![
            vec![(5.0, 10.0), (10.0, 20.0)],
            vec![(50.0, 100.0)],
            vec![(2.0, 4.0)],
        ];
        let it = ratio_of_means(&repeats).unwrap();
        close(it.value, 0.5);
        close(it.low, 0.5);
        close(it.high, 0.5);
        // Ratios 1/2, 1, 2: the geometric mean is 1, the logarithms' error ln 2 / sqrt(3).
        let repeats = vec![vec![(1.0, 2.0)], vec![(3.0, 3.0)], vec![(8.0, 4.0)]];
        let it = ratio_of_means(&repeats).unwrap();
        close(it.value, 1.0);
        assert!((it.high.ln() - 4.302_653 * 2.0_f64.ln() / 3.0_f64.sqrt()).abs() < 1e-5);
        // Of two repeats it is one of sums: 6 / 12.
        let it = ratio_of_means(&[vec![(1.0, 4.0), (2.0, 4.0)], vec![(3.0, 4.0)]]).unwrap();
        close(it.value, 0.5);
        assert!(it.low < 0.5 && it.high > 0.5 && it.sample == Sample::Requests);
        assert_eq!(ratio_of_means(&[vec![]]), None);
        assert_eq!(ratio_of_means(&[vec![(0.0, 1.0)]]), None);
    }

    #[test]
    fn unpaired_ratios_are_welch_s() {
        let one = vec![vec![1.0_f64.exp()], vec![3.0_f64.exp()]];
        let other = vec![vec![1.0], vec![1.0]];
        // Logarithms 1 and 3 against 0 and 0: difference 2, error 1, one degree of freedom.
        let it = ratio_of_unpaired(&one, &other).unwrap();
        close(it.value, 2.0_f64.exp());
        assert!((it.high.ln() - 2.0 - 12.706_205).abs() < 1e-4);
        assert_eq!(ratio_of_unpaired(&one[..1], &other), None);
        assert_eq!(ratio_of_unpaired(&one, &[vec![0.0], vec![1.0]]), None);
    }

    #[test]
    fn student_s_intervals_hold_as_often_as_they_say() {
        let mut random = Random::new(5);
        let mut normal = || (0..12).map(|_| random.uniform()).sum::<f64>() - 6.0;
        let held = (0..4_000).filter(|_| {
            let repeats: Vec<Vec<f64>> = (0..4).map(|_| vec![normal(), normal()]).collect();
            let it = mean_of_repeats(&repeats).unwrap();
            it.low <= 0.0 && 0.0 <= it.high
        });
        // 3,800 are expected, give or take 14.
        let held = held.count();
        assert!((3_740..3_860).contains(&held), "{held}");
    }

    proptest! {
        #[test]
        fn figures_lie_within_their_intervals(repeats in prop::collection::vec(prop::collection::vec((0.1..1e3_f64, 0.1..1e3_f64), 1..8), 1..6)) {
            let it = ratio_of_means(&repeats).unwrap();
            prop_assert!(it.low <= it.value && it.value <= it.high && it.low > 0.0);
            let one: Vec<Vec<f64>> = repeats.iter().map(|all| all.iter().map(|it| it.0).collect()).collect();
            let it = mean_of_repeats(&one).unwrap();
            prop_assert!(it.low <= it.value && it.value <= it.high);
            let flat: Vec<f64> = one.concat();
            let (low, high) = (quantile(&flat, 0.3).unwrap(), quantile(&flat, 0.7).unwrap());
            prop_assert!(low <= high);
        }
    }
}
