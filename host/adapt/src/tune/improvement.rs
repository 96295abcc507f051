//! How much a trial may be worth: expected improvement times the probability that the constraint is kept.
//!
//! Sources: D. R. Jones, M. Schonlau, W. J. Welch, "Efficient global optimization of expensive black-box functions",
//! 1998, equation 15; J. R. Gardner et al., "Bayesian optimization with inequality constraints", ICML 2014, section 3.
//! Both in logarithms, which still differ where the figures themselves are all 0 (S. Ament et al., "Unexpected
//! improvements to expected improvement", 2023).

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// The logarithm of the standard normal density.
fn log_density(z: f64) -> f64 {
    -0.5 * (z * z + (2.0 * PI).ln())
}

/// The logarithm of the standard normal distribution function.
pub(super) fn log_probability(z: f64) -> f64 {
    if z > -30.0 {
        (0.5 * libm::erfc(-z * FRAC_1_SQRT_2)).ln()
    } else {
        // The first terms of the series in 1/z^2; the next one is below 10^-8.
        let z2 = z * z;
        log_density(z) - (-z).ln() + (1.0 - 1.0 / z2 + 3.0 / (z2 * z2)).ln()
    }
}

/// The logarithm of the expected improvement on `best` by a value of that mean and standard deviation: less is better.
pub(super) fn log_improvement(best: f64, mean: f64, deviation: f64) -> f64 {
    let z = (best - mean) / deviation;
    let log_gain = if z > -25.0 {
        // What is lost in the difference, some z^2 roundings, is little as far as this.
        let density = log_density(z).exp();
        (density + 0.5 * z * libm::erfc(-z * FRAC_1_SQRT_2)).ln()
    } else {
        let z2 = z * z;
        log_density(z) - z2.ln() + (1.0 - 3.0 / z2 + 15.0 / (z2 * z2)).ln()
    };
    log_gain + deviation.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert!((log_probability(0.0) - 0.5_f64.ln()).abs() < 1e-15);
        // Phi(-3), from tables.
        assert!((log_probability(-3.0).exp() - 0.001_349_898_031_63).abs() < 1e-12);
        assert_eq!(log_probability(40.0), 0.0);
        // At z = 0 the improvement is the deviation over the root of 2 pi; far below, it is what is between.
        let gain = log_improvement(1.0, 1.0, 2.0).exp();
        assert!((gain - 2.0 / (2.0 * PI).sqrt()).abs() < 1e-12);
        assert!((log_improvement(5.0, 1.0, 0.01).exp() - 4.0).abs() < 1e-12);
    }

    #[test]
    fn tails_join_and_go_on_falling() {
        for function in [log_probability as fn(f64) -> f64, |z| {
            log_improvement(z, 0.0, 1.0)
        }] {
            let mut last = f64::INFINITY;
            for step in 0..4_000 {
                let z = 5.0 - f64::from(step) / 50.0;
                let value = function(z);
                assert!(value.is_finite() && value <= last, "{z} {value} {last}");
                // No leap: the slope of both is about -z.
                assert!(
                    z > -1.0 || (last - value) < 0.02 * (-z + 1.0) * 1.2,
                    "{z} {value} {last}"
                );
                last = value;
            }
        }
    }
}
