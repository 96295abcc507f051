//! The arithmetic of the post-processor that is measured: plain functions, compiled into the guest and into the prover, so that
//! both do the same work.

/// Spatial sparsity: 1 - (sum s)^2 / (n * sum s^2).
pub fn sparsity(saliency: &[f32]) -> f64 {
    let (mut sum, mut squares) = (0.0f64, 0.0f64);
    for &s in saliency {
        let s = f64::from(s);
        sum += s;
        squares += s * s;
    }
    if squares > 0.0 {
        1.0 - sum * sum / (saliency.len() as f64 * squares)
    } else {
        0.0
    }
}

/// Share of tokens that are alike those one frame before.
pub fn repeated(similarity: &[f32], threshold: f32) -> f64 {
    let pairs = similarity.iter().filter(|s| **s <= 1.0).count();
    let alike = similarity
        .iter()
        .filter(|s| **s <= 1.0 && **s > threshold)
        .count();
    if pairs > 0 {
        alike as f64 / pairs as f64
    } else {
        0.0
    }
}

/// How far the features lie from their mean, a number a token.
pub fn spread(features: &[f32], dim: usize) -> Vec<f32> {
    let rows = features.chunks_exact(dim.max(1));
    let n = rows.len().max(1) as f32;
    let mut mean = vec![0.0f32; dim];
    for row in rows.clone() {
        for (mean, value) in mean.iter_mut().zip(row) {
            *mean += value / n;
        }
    }
    rows.map(|row| {
        let squares = row
            .iter()
            .zip(&mean)
            .map(|(value, mean)| (value - mean) * (value - mean));
        squares.sum()
    })
    .collect()
}

/// Tokens by relevance, what content-free text pays taken off, the farther from the mean the better.
pub fn order(relevance: &[f32], baseline: &[f32], spread: &[f32]) -> Vec<u32> {
    let worth: Vec<f32> = relevance
        .iter()
        .zip(baseline)
        .zip(spread)
        .map(|((relevance, baseline), spread)| relevance - baseline + 0.1 * spread)
        .collect();
    let mut order: Vec<u32> = (0..worth.len() as u32).collect();
    order.sort_unstable_by(|&a, &b| {
        worth[b as usize]
            .total_cmp(&worth[a as usize])
            .then(a.cmp(&b))
    });
    order
}
