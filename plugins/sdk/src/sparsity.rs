//! How much of an item can go, by the reference formulas: what post-processors have in common, whatever order they keep.

use crate::ItemView;

/// How much of an item can go, in space and in time. All in `[0, 1]`, whatever the probe says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sparsity {
    /// `1 - (sum s)^2 / (N * sum s^2)` of the saliency `s`: [`spatial`].
    pub spatial: f64,
    /// Share of tokens that are like their predecessor: [`temporal`]. 0 for a still.
    pub temporal: f64,
}

impl Sparsity {
    /// Of one item. A token is taken for its predecessor where the cosine of the two is above `tau`.
    pub fn of(view: &ItemView, tau: f64) -> Sparsity {
        Sparsity {
            spatial: spatial(view.saliency),
            temporal: match view.item.frames {
                0 | 1 => 0.0,
                _ => temporal(view.similarity, tau),
            },
        }
    }

    /// Modality Activation Sparsity, `1 - (1 - spatial) * (1 - temporal)`.
    pub fn mas(&self) -> f64 {
        1.0 - (1.0 - self.spatial) * (1.0 - self.temporal)
    }
}

/// Spatial sparsity `1 - (sum s)^2 / (N * sum s^2)`: 0 where all tokens are equally salient, near 1 where a few stand out. 0
/// where saliency is zero or not a number.
pub fn spatial(saliency: &[f32]) -> f64 {
    let (sum, squares) = saliency.iter().fold((0.0, 0.0), |(sum, squares), &value| {
        let value = f64::from(value);
        (sum + value, squares + value * value)
    });
    let even = sum * sum / (saliency.len() as f64 * squares);
    // Rounding may leave a share just outside its range.
    if even.is_finite() {
        (1.0 - even).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// Temporal sparsity: the share of tokens with a predecessor in the same place whose cosine with it is above `tau`. 0
/// where none has one.
pub fn temporal(similarity: &[f32], tau: f64) -> f64 {
    // 2 stands for no predecessor. A cosine that is not a number is a pair that is not alike.
    let pairs = similarity.iter().filter(|cosine| **cosine != 2.0);
    let alike = pairs
        .clone()
        .filter(|cosine| f64::from(**cosine) > tau)
        .count();
    match pairs.count() {
        0 => 0.0,
        pairs => alike as f64 / pairs as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} and {b}");
    }

    #[test]
    fn spatial_sparsity_is_the_formula() {
        // (1 + 1 + 1 + 5)^2 / (4 * (1 + 1 + 1 + 25)) = 64 / 112.
        close(spatial(&[1.0, 1.0, 1.0, 5.0]), 48.0 / 112.0);
        close(spatial(&[2.0; 9]), 0.0);
        close(spatial(&[0.0, 0.0, 0.0, 7.0]), 0.75);
        close(spatial(&[3.0]), 0.0);
    }

    #[test]
    fn saliency_that_says_nothing_is_no_sparsity() {
        for saliency in [
            &[][..],
            &[0.0; 4],
            &[1.0, f32::NAN, 2.0],
            &[1.0, f32::INFINITY],
        ] {
            close(spatial(saliency), 0.0);
        }
    }

    #[test]
    fn temporal_sparsity_is_the_share_of_pairs_that_are_alike() {
        let similarity = [2.0, 2.0, 0.95, 0.5, 0.91, 0.9];
        // 0.9 as f32 is just below 0.9.
        close(temporal(&similarity, 0.9), 2.0 / 4.0);
        close(temporal(&[2.0, 2.0], 0.9), 0.0);
        close(temporal(&[f32::NAN, 0.99], 0.9), 0.5);
    }
}
