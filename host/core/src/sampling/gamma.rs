//! The upper tail of the chi-square distribution.
//!
//! Source: W. H. Press, S. A. Teukolsky, W. T. Vetterling, B. P. Flannery, "Numerical Recipes", 3rd edition,
//! sections 6.1 (Lanczos's approximation of ln Gamma) and 6.2 (incomplete gamma: series, and continued fraction by
//! the modified Lentz method); Lanczos's coefficients for g = 7, n = 9 are P. Godfrey's.

const PRECISION: f64 = 1e-15;
const MOST_TERMS: u32 = 100_000;

/// The probability that a chi-square variable with this many degrees of freedom is at least `statistic`.
pub(super) fn chi_square_p_value(statistic: f64, degrees_of_freedom: u64) -> f64 {
    if statistic <= 0.0 {
        return 1.0;
    }
    if !statistic.is_finite() {
        return 0.0;
    }
    upper(degrees_of_freedom as f64 / 2.0, statistic / 2.0).clamp(0.0, 1.0)
}

/// Q(a, x) for a, x > 0.
fn upper(a: f64, x: f64) -> f64 {
    let factor = (a * x.ln() - x - ln_gamma(a)).exp();
    if x < a + 1.0 {
        1.0 - factor * series(a, x)
    } else {
        factor * continued_fraction(a, x)
    }
}

fn series(a: f64, x: f64) -> f64 {
    let mut term = 1.0 / a;
    let mut sum = term;
    for n in 1..MOST_TERMS {
        term *= x / (a + f64::from(n));
        sum += term;
        if term < sum * PRECISION {
            break;
        }
    }
    sum
}

fn continued_fraction(a: f64, x: f64) -> f64 {
    let nonzero = |value: f64| {
        if value.abs() < f64::MIN_POSITIVE {
            f64::MIN_POSITIVE
        } else {
            value
        }
    };
    let mut b = x + 1.0 - a;
    let mut c = 1.0 / f64::MIN_POSITIVE;
    let mut d = 1.0 / nonzero(b);
    let mut fraction = d;
    for n in 1..MOST_TERMS {
        let n = f64::from(n);
        let an = -n * (n - a);
        b += 2.0;
        d = 1.0 / nonzero(an * d + b);
        c = nonzero(b + an / c);
        let step = d * c;
        fraction *= step;
        if (step - 1.0).abs() < PRECISION {
            break;
        }
    }
    fraction
}

/// ln Gamma(x) for x >= 1/2.
fn ln_gamma(x: f64) -> f64 {
    const G: f64 = 7.0;
    const FIRST: f64 = 0.999_999_999_999_809_9;
    const COEFFICIENTS: [f64; 8] = [
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let sum = (1..)
        .zip(COEFFICIENTS)
        .fold(FIRST, |sum, (n, coefficient)| {
            sum + coefficient / (x + f64::from(n))
        });
    let t = x + G + 0.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-13);
        assert!((ln_gamma(11.0) - 3_628_800.0_f64.ln()).abs() < 1e-12);
        // With two degrees of freedom the tail is exp(-x/2), with four (1 + x/2) exp(-x/2).
        for x in [0.01, 0.5, 2.0, 5.0, 30.0] {
            let half: f64 = x / 2.0;
            assert!(
                (chi_square_p_value(x, 2) / (-half).exp() - 1.0).abs() < 1e-12,
                "{x}"
            );
            assert!(
                (chi_square_p_value(x, 4) / ((1.0 + half) * (-half).exp()) - 1.0).abs() < 1e-12,
                "{x}"
            );
        }
        // Tables of critical values.
        for (df, critical, p) in [
            (1, 3.841_458_820_694_124, 0.05),
            (10, 18.307_038_053_275_146, 0.05),
            (100, 135.806_723_238_498_9, 0.01),
        ] {
            let got = chi_square_p_value(critical, df);
            assert!((got - p).abs() < 1e-6, "{df} {got}");
        }
    }

    #[test]
    fn ends() {
        assert_eq!(chi_square_p_value(0.0, 3), 1.0);
        assert_eq!(chi_square_p_value(f64::INFINITY, 3), 0.0);
        assert!(chi_square_p_value(1e4, 3) < 1e-300);
    }
}
