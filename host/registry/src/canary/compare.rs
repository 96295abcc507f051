//! The two tests.

/// `ln(n!)`, by Stirling's series above 20 (error below 1e-13 there).
fn ln_factorial(n: u64) -> f64 {
    if n <= 20 {
        return (2..=n).map(|i| (i as f64).ln()).sum();
    }
    let x = n as f64;
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    x * x.ln() - x
        + 0.5 * (2.0 * std::f64::consts::PI * x).ln()
        + inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square / 1260.0))
}

fn ln_choose(n: u64, k: u64) -> f64 {
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

/// Fisher's exact test, one-sided: the probability of `hits` or more among `of`, if the `hits + other_hits` hits had
/// fallen by chance on `of + other_of` requests. 1 where there is nothing to compare.
pub fn fisher(hits: u64, of: u64, other_hits: u64, other_of: u64) -> f64 {
    if hits > of || other_hits > other_of || of == 0 || other_of == 0 {
        return 1.0;
    }
    let (all_hits, all) = (hits + other_hits, of + other_of);
    let whole = ln_choose(all, all_hits);
    let probability = |k: u64| {
        let ln = ln_choose(of, k) + ln_choose(other_of, all_hits - k) - whole;
        ln.exp()
    };
    let most = all_hits.min(of);
    let tail: f64 = (hits..=most).map(probability).sum();
    tail.min(1.0)
}

/// Welch's test, one-sided: the probability of a difference of means at least so large, if there were none, from means,
/// variances and counts. The normal distribution stands for Student's: with 200 samples they agree where it matters.
pub fn welch(mean: f64, variance: f64, n: u64, mean_b: f64, variance_b: f64, n_b: u64) -> f64 {
    if n < 2 || n_b < 2 {
        return 1.0;
    }
    let error = (variance / n as f64 + variance_b / n_b as f64).sqrt();
    let difference = mean - mean_b;
    if error == 0.0 {
        return if difference > 0.0 { 0.0 } else { 1.0 };
    }
    upper_tail(difference / error)
}

/// The normal distribution's upper tail: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.2.17; error below
/// 7.5e-8.
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt() * series
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fisher_agrees_with_numbers_worked_by_hand() {
        // 3 of 4 against 1 of 4: (C(4,3) C(4,1) + C(4,4) C(4,0)) / C(8,4) = 17 / 70.
        assert!((fisher(3, 4, 1, 4) - 17.0 / 70.0).abs() < 1e-12);
        // 2 of 2 against 0 of 3: 1 / C(5,2).
        assert!((fisher(2, 2, 0, 3) - 0.1).abs() < 1e-12);
        assert_eq!(fisher(0, 10, 5, 10), 1.0);
        assert_eq!(fisher(0, 0, 5, 10), 1.0);
        // Against sums of exact binomials, 10 of 200 against 2 of 19,800.
        let p = fisher(10, 200, 2, 19_800);
        assert!(p > 0.0 && p < 1e-15, "{p}");
    }

    #[test]
    fn tails_of_the_normal_distribution_agree_with_tables() {
        for (z, tail) in [
            (0.0, 0.5),
            (1.644_854, 0.05),
            (2.807_034, 0.0025),
            (3.719_016, 1e-4),
        ] {
            assert!((upper_tail(z) - tail).abs() < 2e-7, "{z}");
        }
        assert_eq!(welch(1.0, 0.0, 10, 1.0, 0.0, 10), 1.0);
        assert_eq!(welch(2.0, 0.0, 10, 1.0, 0.0, 10), 0.0);
    }

    proptest! {
        #[test]
        fn more_hits_are_never_more_probable(of in 1_u64..400, other in 1_u64..400, hits in 0_u64..40, other_hits in 0_u64..40) {
            prop_assume!(hits < of && other_hits <= other);
            let (fewer, more) = (fisher(hits, of, other_hits, other), fisher(hits + 1, of, other_hits, other));
            prop_assert!((0.0..=1.0).contains(&fewer) && (0.0..=1.0).contains(&more));
            prop_assert!(more <= fewer + 1e-12);
        }
    }
}
