//! Student's distribution, for whole degrees of freedom.

/// Beyond these the distribution is the normal one to four digits.
const MOST_FREEDOM: u32 = 2_000;
/// Halvings of an interval of quantiles: to the last digits.
const HALVINGS: u32 = 80;

/// The share of Student's distribution between `-t` and `t`, in closed form (M. Abramowitz, I. A. Stegun, 1964, 26.7.3 and
/// 26.7.4).
fn within(t: f64, freedom: u32) -> f64 {
    let angle = (t / f64::from(freedom).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let odd = freedom % 2 == 1;
    // cos + 2/3 cos^3 + 2*4/(3*5) cos^5 ..., or 1 + 1/2 cos^2 + 1*3/(2*4) cos^4 ...
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = if freedom == 1 { 0.0 } else { term };
    let mut power = if odd { 3 } else { 2 };
    while power <= freedom.saturating_sub(2) {
        term *= cosine * cosine * f64::from(power - 1) / f64::from(power);
        sum += term;
        power += 2;
    }
    if odd {
        (angle + sine * sum) * std::f64::consts::FRAC_2_PI
    } else {
        sine * sum
    }
}

/// The value below which a share of Student's distribution lies. `share` is above 1/2 and below 1, `freedom` 1 or more.
///
/// ```
/// use msao_evaluate::stats::student_quantile;
///
/// assert!((student_quantile(0.975, 4) - 2.776445).abs() < 1e-6);
/// assert!((student_quantile(0.95, 100_000) - 1.6449).abs() < 1e-2);
/// ```
pub fn quantile(share: f64, freedom: u32) -> f64 {
    let freedom = freedom.clamp(1, MOST_FREEDOM);
    let wanted = 2.0 * share.clamp(0.5, 0.999_999) - 1.0;
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if within(middle, freedom) < wanted {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_the_tables() {
        for (share, freedom, wanted) in [
            (0.975, 1, 12.706_205),
            (0.975, 2, 4.302_653),
            (0.975, 3, 3.182_446),
            (0.975, 10, 2.228_139),
            (0.975, 30, 2.042_272),
            (0.95, 1, 6.313_752),
            (0.95, 5, 2.015_048),
            (0.95, 1_000, 1.646_379),
        ] {
            let found = quantile(share, freedom);
            assert!((found - wanted).abs() < 2e-6, "{share} {freedom}: {found}");
        }
    }
}
