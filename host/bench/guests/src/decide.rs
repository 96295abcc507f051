//! The arithmetic of the plug-ins that are measured: plain functions, compiled into the guests and into the prover, so that
//! both do the same work.

/// What a way costs, in ms: the wait, the upload, the prompt, the answer.
pub fn cost_ms(
    rtt_ms: f64,
    queue_ms: f64,
    uplink_bps: f64,
    prefill_tok_per_s: f64,
    target_tok_per_s: f64,
    bytes: f64,
    prompt_tokens: f64,
    max_tokens: f64,
) -> f64 {
    rtt_ms
        + queue_ms
        + 8000.0 * bytes / uplink_bps.max(1.0)
        + 1000.0 * prompt_tokens / prefill_tok_per_s.max(1.0)
        + 1000.0 * max_tokens / target_tok_per_s.max(1.0)
}

/// The share that is kept of a part.
pub fn keep(necessity: f64, mas: f64, least: f64) -> f64 {
    if necessity < 0.0 {
        return 1.0;
    }
    if necessity < 0.05 {
        return 0.0;
    }
    (least + (1.0 - mas) * (1.0 - least)).clamp(0.0, 1.0)
}

/// The mean of all cells, weighted by their counts.
pub fn learned(mean: &[f64], count: &[f64]) -> f64 {
    let weight: f64 = count.iter().sum();
    let sum: f64 = mean
        .iter()
        .zip(count)
        .map(|(mean, count)| mean * count)
        .sum();
    if weight > 0.0 { sum / weight } else { 0.0 }
}

/// What to do after a drafted token: 0 draft, 1 send.
pub fn act(p_accept: f64, unsent: u32, in_flight: u32) -> u32 {
    let worth = p_accept.powi(unsent.min(8) as i32 + 1);
    u32::from(worth < 0.4 || unsent + in_flight >= 16)
}

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
