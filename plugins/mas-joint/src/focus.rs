//! How much of an item can go while the answer stays as it is: the share of all attention that its strongest tokens draw.
//!
//! `MAS = sum of the k largest w_i - k / N * sum of all w_i`, with `w_i` the share of its attention that the answer's beginning
//! pays to token `i` and `k = ceil(N / 50)`: what the strongest tokens draw beyond what they would if all were alike.
//! Where a few tokens draw much of it, the answer hangs on these, and the others can go. Where attention is spread, or
//! goes elsewhere, nothing says which tokens could, so that they are kept.
//!
//! The reference formula, `1 - (1 - S_sp) * (1 - S_tmp)` of how unevenly saliency lies and how much frames repeat, knows nothing of
//! the question: on held-out questions it fell where more could go (docs/adaptive.md). Both are told beside it all the same.

use alloc::vec::Vec;

/// One of so many tokens counts as strong.
const ONE_OF: usize = 50;

/// MAS of an item whose tokens draw this much attention, in [0, 1]. What is no share counts as nothing.
pub(crate) fn mas(attention: &[f32]) -> f64 {
    let strong = attention.len().div_ceil(ONE_OF);
    let shares = attention.iter().copied();
    let mut shares: Vec<f32> = shares
        .filter(|share| share.is_finite() && *share > 0.0)
        .collect();
    shares.sort_unstable_by(|a, b| b.total_cmp(a));
    let sum = |shares: &[f32]| shares.iter().map(|share| f64::from(*share)).sum::<f64>();
    let (all, strongest) = (sum(&shares), sum(shares.get(..strong).unwrap_or(&shares)));
    let alike = strong as f64 / attention.len().max(1) as f64 * all;
    (strongest - alike).clamp(0.0, 1.0)
}
