//! How much of an item can go.

/// Spatial sparsity `1 - (sum s)^2 / (N * sum s^2)`: 0 where all tokens are equally salient, near 1 where a few stand out. 0
/// where saliency is zero or not a number.
pub(crate) fn spatial(saliency: &[f32]) -> f64 {
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
pub(crate) fn temporal(similarity: &[f32], tau: f64) -> f64 {
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
