//! The arithmetic of the policy that is measured: plain functions, compiled into the guest and into the prover, so that both
//! do the same work.

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
