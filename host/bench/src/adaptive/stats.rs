//! What the figures are made of: rank correlation, areas under curves, errors of differences that are paired.

use std::collections::BTreeMap;

/// The rank of each value, from 1; equal values share the average of their ranks. Values that are no numbers rank by
/// [`f64::total_cmp`].
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = values.iter().copied().enumerate().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| a.1 == b.1) {
        // Ranks before + 1 to before + n.
        let rank = before as f64 + (equal.len() as f64 + 1.0) / 2.0;
        for (place, _) in equal {
            if let Some(slot) = ranks.get_mut(*place) {
                *slot = rank;
            }
        }
        before += equal.len();
    }
    ranks
}

/// Spearman's rank correlation of pairs, ties by average ranks: Pearson's correlation of the ranks (C. Spearman, 1904).
/// None where one side never differs, or there are fewer than two pairs.
pub fn spearman(pairs: &[(f64, f64)]) -> Option<f64> {
    let (one, other): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (one, other) = (ranks(&one), ranks(&other));
    // The mean of ranks 1 to n, however they are shared.
    let mean = (pairs.len() as f64 + 1.0) / 2.0;
    let (mut joint, mut squares, mut other_squares) = (0.0, 0.0, 0.0);
    for (a, b) in one.iter().zip(&other) {
        joint += (a - mean) * (b - mean);
        squares += (a - mean) * (a - mean);
        other_squares += (b - mean) * (b - mean);
    }
    let scale = f64::sqrt(squares * other_squares);
    (scale > 0.0).then(|| joint / scale)
}

/// The area under the receiver operating characteristic: how likely a positive one scores above a negative one, an equal
/// score counting half (J. A. Hanley, B. J. McNeil, 1982). None where all are of one kind.
pub fn area(scored: &[(f64, bool)]) -> Option<f64> {
    let scores: Vec<f64> = scored.iter().map(|(score, _)| *score).collect();
    let positives = scored.iter().filter(|(_, positive)| *positive).count() as f64;
    let negatives = scored.len() as f64 - positives;
    let of_positives = ranks(&scores)
        .into_iter()
        .zip(scored)
        .filter(|(_, (_, positive))| *positive);
    let sum: f64 = of_positives.map(|(rank, _)| rank).sum();
    let above = sum - positives * (positives + 1.0) / 2.0;
    (positives > 0.0 && negatives > 0.0).then(|| above / (positives * negatives))
}

/// A mean of differences, and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// Mean difference.
    pub mean: f64,
    /// Its standard error.
    pub error: f64,
    /// How many differences.
    pub count: usize,
}

/// The mean of differences that are paired, and its standard error where those of a group depend on each other, such as
/// questions about one picture: `error^2 = G / (G - 1) * sum over groups of (sum of deviations)^2 / n^2` (K.-Y. Liang,
/// S. L. Zeger, 1986). With one to a group that is the usual `s / sqrt(n)`. None with fewer than two groups.
pub fn paired(differences: &[(&str, f64)]) -> Option<Paired> {
    let count = differences.len() as f64;
    let mean = differences.iter().map(|(_, it)| it).sum::<f64>() / count;
    let mut groups: BTreeMap<&str, f64> = BTreeMap::new();
    for (group, difference) in differences {
        *groups.entry(*group).or_default() += difference - mean;
    }
    let all = groups.len() as f64;
    let squares: f64 = groups.values().map(|sum| sum * sum).sum();
    (groups.len() >= 2).then(|| Paired {
        mean,
        error: f64::sqrt(all / (all - 1.0) * squares) / count,
        count: differences.len(),
    })
}

/// The mean; None of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: Option<f64>, b: f64) {
        let a = a.unwrap();
        assert!((a - b).abs() < 1e-12, "{a} and {b}");
    }

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(ranks(&[10.0, 30.0, 20.0]), [1.0, 3.0, 2.0]);
        // Ranks 2, 3 and 4 are shared by three.
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 5.0, 9.0]), [3.0, 1.0, 3.0, 3.0, 5.0]);
        assert_eq!(ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
        assert!(ranks(&[]).is_empty());
    }

    #[test]
    fn spearman_is_pearson_of_the_ranks() {
        // Ranks 1, 2.5, 2.5, 4 and 1, 3, 2, 4: 4.5 / sqrt(4.5 * 5).
        let pairs = [(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (3.0, 4.0)];
        close(spearman(&pairs), 4.5 / 22.5_f64.sqrt());
        // Without ties 1 - 6 * sum d^2 / (n (n^2 - 1)), d being 0, -2, 1, -1, 2.
        let pairs = [
            (1.0, 10.0),
            (2.0, 300.0),
            (3.0, 20.0),
            (4.0, 9999.0),
            (5.0, 30.0),
        ];
        close(spearman(&pairs), 1.0 - 6.0 * 10.0 / 120.0);
        let rising = [(1.0, 2.0), (7.0, 2.5), (8.0, 90.0)];
        close(spearman(&rising), 1.0);
        close(spearman(&rising.map(|(a, b)| (a, -b))), -1.0);
    }

    #[test]
    fn what_never_differs_correlates_with_nothing() {
        assert_eq!(spearman(&[(1.0, 0.5), (1.0, 0.7)]), None);
        assert_eq!(spearman(&[(1.0, 0.5)]), None);
        assert_eq!(spearman(&[]), None);
    }

    #[test]
    fn the_area_counts_pairs_and_equal_ones_half() {
        // 0.8 is above both, 0.5 above one and equal to the other: 3.5 of 4.
        let scored = [(0.8, true), (0.5, true), (0.5, false), (0.2, false)];
        close(area(&scored), 3.5 / 4.0);
        close(area(&scored.map(|(score, kind)| (score, !kind))), 0.5 / 4.0);
        close(area(&[(1.0, true), (1.0, false), (1.0, true)]), 0.5);
        assert_eq!(area(&[(0.3, true), (0.9, true)]), None);
        assert_eq!(area(&[]), None);
    }

    #[test]
    fn paired_errors_know_that_questions_share_a_picture() {
        // Mean 1/6; deviations sum to 2/3, -1/3, -1/3: sqrt(3/2 * 6/9) / 6.
        let differences = [
            ("a", 1.0),
            ("a", 0.0),
            ("b", 0.0),
            ("b", 0.0),
            ("c", -1.0),
            ("c", 1.0),
        ];
        let both = paired(&differences).unwrap();
        close(Some(both.mean), 1.0 / 6.0);
        close(Some(both.error), 1.0 / 6.0);
        assert_eq!(both.count, 6);
        // One to a group: s = sqrt(1/2), over sqrt(2).
        let alone = paired(&[("a", 1.0), ("b", 0.0)]).unwrap();
        close(Some(alone.error), 0.5);
        // Two questions that always go together are one.
        let twice = paired(&[("a", 1.0), ("a", 1.0), ("b", 0.0), ("b", 0.0)]).unwrap();
        close(Some(twice.error), 0.5);
        assert_eq!(paired(&[("a", 1.0), ("a", 0.0)]), None);
        assert_eq!(paired(&[]), None);
    }

    #[test]
    fn a_mean_of_nothing_is_none() {
        close(mean([1.0, 2.0, 6.0]), 3.0);
        assert_eq!(mean([]), None);
    }
}
