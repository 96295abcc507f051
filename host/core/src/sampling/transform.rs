//! The dense steps over a whole vocabulary: copy and check, bias, mask, and the largest logits.
//!
//! These touch every id of every token, so they are written as plain passes over `f32` that the compiler turns into
//! vector instructions; `f64` begins with the survivors.

use super::SampleError;
use super::params::SamplingParams;
use super::penalty::{Penalties, to_logit};

const LANES: usize = 16;
const CHUNK: usize = 256;

/// The ids that a grammar allows next: bit `id % 32`, counted from the lowest, of word `id / 32`. Ids past the last
/// word are not allowed. (The layout of llguidance and XGrammar.)
///
/// ```
/// use msao_core::sampling::TokenMask;
/// let mask = TokenMask::new(&[0b101]);
/// assert!(mask.allows(0) && !mask.allows(1) && mask.allows(2) && !mask.allows(32));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct TokenMask<'a> {
    words: &'a [u32],
}

impl<'a> TokenMask<'a> {
    /// A mask over these words.
    pub const fn new(words: &'a [u32]) -> Self {
        Self { words }
    }

    /// Whether the id may come next.
    pub fn allows(&self, id: u32) -> bool {
        self.words
            .get((id / 32) as usize)
            .is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    fn apply(&self, logits: &mut [f32]) {
        let words = self.words.iter().copied().chain(std::iter::repeat(0));
        for (chunk, word) in logits.chunks_mut(32).zip(words) {
            if word == u32::MAX {
                continue;
            }
            for (bit, logit) in chunk.iter_mut().enumerate() {
                if word >> bit & 1 == 0 {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
    }
}

/// Fills `out` with the logits after bias, penalties and mask. Its length is that of `logits` or the vocabulary,
/// whichever is less: ids past the tokenizer's end do not exist from here on.
pub(super) fn adjust(
    params: &SamplingParams,
    penalties: &Penalties,
    vocabulary: u32,
    allowed: Option<TokenMask<'_>>,
    logits: &[f32],
    out: &mut Vec<f32>,
) -> Result<(), SampleError> {
    let known = known(logits, vocabulary)?;
    out.clear();
    out.extend_from_slice(known);
    for (&id, &bias) in &params.logit_bias {
        if let Some(logit) = out.get_mut(id as usize) {
            *logit = to_logit(f64::from(*logit) + f64::from(bias));
        }
    }
    penalties.apply(params, out);
    if let Some(mask) = allowed {
        mask.apply(out);
    }
    Ok(())
}

/// The logits of the tokenizer's ids, all checked to be numbers or minus infinity.
pub(super) fn known(logits: &[f32], vocabulary: u32) -> Result<&[f32], SampleError> {
    let known = logits.get(..vocabulary as usize).unwrap_or(logits);
    // Without a branch: one early exit a value would cost more than the whole pass.
    let unsound = known.iter().fold(0, |unsound, logit| {
        unsound | u32::from(logit.is_nan() | (*logit == f32::INFINITY))
    });
    if unsound == 0 {
        return Ok(known);
    }
    match (0..)
        .zip(known)
        .find(|(_, logit)| logit.is_nan() || **logit == f32::INFINITY)
    {
        Some((id, &value)) => Err(SampleError::NotALogit { id, value }),
        None => Ok(known),
    }
}

/// The largest logit and the lowest id that has it; `None` where every logit is minus infinity.
pub(super) fn largest(logits: &[f32]) -> Option<(u32, f32)> {
    let best = maximum(logits);
    if best == f32::NEG_INFINITY {
        return None;
    }
    // By the chunk first: a loop that may stop at any value is not vectorised.
    let has_best = |chunk: &[f32]| {
        chunk
            .iter()
            .fold(false, |found, logit| found | (*logit == best))
    };
    let chunk = logits.chunks(CHUNK).position(has_best)?;
    let within = logits
        .chunks(CHUNK)
        .nth(chunk)?
        .iter()
        .position(|logit| *logit == best)?;
    u32::try_from(chunk * CHUNK + within)
        .ok()
        .map(|id| (id, best))
}

/// The largest logit of all ids but this one; minus infinity where there is none.
pub(super) fn second_largest(logits: &[f32], best: u32) -> f32 {
    let (before, from) = logits
        .split_at_checked(best as usize)
        .unwrap_or((logits, &[]));
    let (_, after) = from.split_first().unwrap_or((&0.0, &[]));
    maximum(before).max(maximum(after))
}

fn maximum(logits: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let (chunks, rest) = logits.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, &logit) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, logit);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, larger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_at_every_place_and_length() {
        for len in (1..70_u32).chain([600]) {
            for place in 0..len {
                let mut logits: Vec<f32> = (0..len).map(|id| -(id as f32) - 1.0).collect();
                logits[place as usize] = 5.0;
                let second = match (len, place) {
                    (1, _) => f32::NEG_INFINITY,
                    (_, 0) => -2.0,
                    _ => -1.0,
                };
                assert_eq!(largest(&logits), Some((place, 5.0)));
                assert_eq!(second_largest(&logits, place), second);
            }
        }
        assert_eq!(largest(&[]), None);
        assert_eq!(largest(&[f32::NEG_INFINITY; 20]), None);
    }

    #[test]
    fn equal_logits_go_to_the_lowest_id() {
        let mut logits = [0.0; 40];
        logits[17] = 1.0;
        logits[9] = 1.0;
        assert_eq!(largest(&logits), Some((9, 1.0)));
        assert_eq!(second_largest(&logits, 9), 1.0);
        assert_eq!(largest(&[-0.0, 0.0]), Some((0, 0.0)));
    }

    #[test]
    fn a_mask_may_end_early() {
        let mut logits = [0.0; 70];
        TokenMask::new(&[u32::MAX, 1 << 3]).apply(&mut logits);
        let left: Vec<usize> = (0..70).filter(|&id| logits[id] == 0.0).collect();
        assert_eq!(left, (0..32).chain([35]).collect::<Vec<_>>());
        for id in 0..70 {
            assert_eq!(
                TokenMask::new(&[u32::MAX, 1 << 3]).allows(id),
                left.contains(&(id as usize))
            );
        }
    }

    #[test]
    fn what_is_no_logit_is_named() {
        let nan = known(&[0.0, f32::NAN], 2).unwrap_err();
        assert!(matches!(nan, SampleError::NotALogit { id: 1, .. }), "{nan}");
        assert!(known(&[f32::INFINITY], 1).is_err());
        assert_eq!(known(&[0.0, f32::NAN], 1), Ok(&[0.0_f32][..]));
        assert_eq!(known(&[f32::NEG_INFINITY], 5), Ok(&[f32::NEG_INFINITY][..]));
    }
}
