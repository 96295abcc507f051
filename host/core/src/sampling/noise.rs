//! Gumbel noise as a function of (seed, choice, output index, token id).
//!
//! - Key: the low 32 bits of the seed, then the high 32 bits.
//! - Counter: (choice, output index, token id, 0).
//! - Of Philox's four output words the first two are used: `bits = word 0 + 2^32 * word 1` (word 0 is the low half).
//! - `k = bits >> 11` is the top 53 bits, `u = (k + 1/2) / 2^53`, `g = -ln(-ln u)`.
//!
//! `k + 1/2` does not fit an `f64` once `k` reaches 2^52: rounded, it would make `u = 1` and `g` infinite for the
//! largest `k`, and the upper tail decides which token wins. From there on `1 - u` fits instead, so `-ln u` is
//! computed as `-ln_1p(-(1 - u))`. The formula is met for all 2^53 values of `k`; `g` lies in [-3.63, 37.43].

use super::philox::{philox_second_words, philox4x32_10};

/// `1 - u` is at least 2^-54, so no noise is above `54 * ln 2 = 37.43`.
pub(super) const LEAST_COMPLEMENT: f64 = 1.0 / (1_u64 << 54) as f64;

const STEPS: u64 = 1 << 53;
const HALF: u64 = 1 << 52;
const STEP: f64 = 1.0 / STEPS as f64;

/// The noise of all token ids at one place of one answer.
///
/// ```
/// use msao_core::sampling::Noise;
/// let here = Noise::at(7, 0, 3);
/// assert_eq!(here.gumbel(42), Noise::at(7, 0, 3).gumbel(42));
/// assert_ne!(here.gumbel(42), here.gumbel(43));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    key: [u32; 2],
    choice: u32,
    output_index: u32,
}

impl Noise {
    /// The noise for output token `output_index` (0 is the first generated token) of choice `choice`.
    pub const fn at(seed: u64, choice: u32, output_index: u32) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            choice,
            output_index,
        }
    }

    /// Philox's four words for a token id.
    #[inline]
    pub const fn words(&self, id: u32) -> [u32; 4] {
        philox4x32_10([self.choice, self.output_index, id, 0], self.key)
    }

    /// The 53 random bits `k` of a token id, in `0..2^53`.
    #[inline]
    pub const fn bits(&self, id: u32) -> u64 {
        let [low, high, ..] = self.words(id);
        bits_of_words(low, high)
    }

    /// The upper 32 of the random bits of some ids: `bits >> 21`.
    #[inline]
    pub(super) fn upper_words<const N: usize>(&self, ids: &[u32], words: &mut [u32; N]) {
        philox_second_words(self.choice, self.output_index, ids, self.key, words);
    }

    /// The standard Gumbel noise of a token id.
    pub fn gumbel(&self, id: u32) -> f64 {
        gumbel(self.bits(id))
    }
}

const fn bits_of_words(low: u32, high: u32) -> u64 {
    (low as u64 | (high as u64) << 32) >> 11
}

/// `-ln(-ln u)` for `u = (k + 1/2) / 2^53`.
pub(super) fn gumbel(k: u64) -> f64 {
    let minus_ln_u = if k < HALF {
        -((k as f64 + 0.5) * STEP).ln()
    } else {
        -(-complement(k)).ln_1p()
    };
    -minus_ln_u.ln()
}

/// `1 - u`, exact for `k >= 2^52`, else to one rounding.
#[inline]
pub(super) fn complement(k: u64) -> f64 {
    ((STEPS - 1).saturating_sub(k) as f64 + 0.5) * STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_finite() {
        let least = gumbel(0);
        let most = gumbel(STEPS - 1);
        assert!(
            (least + (54.0 * std::f64::consts::LN_2).ln()).abs() < 1e-12,
            "{least}"
        );
        assert!(
            (most - 54.0 * std::f64::consts::LN_2).abs() < 1e-12,
            "{most}"
        );
        assert_eq!(complement(STEPS - 1), LEAST_COMPLEMENT);
    }

    #[test]
    fn both_halves_meet_in_the_middle() {
        let below = gumbel(HALF - 1);
        let above = gumbel(HALF);
        assert!(below < above && above - below < 1e-15, "{below} {above}");
        assert!((above + std::f64::consts::LN_2.ln()).abs() < 1e-15);
    }

    #[test]
    fn noise_grows_with_the_bits() {
        let mut last = f64::NEG_INFINITY;
        for k in (0..1000)
            .map(|i| i * (STEPS / 1000))
            .chain(STEPS - 20..STEPS)
        {
            let g = gumbel(k);
            assert!(g > last, "k = {k}");
            last = g;
        }
    }

    #[test]
    fn upper_words_are_the_upper_bits() {
        let here = Noise::at(0x1234_5678_9abc_def0, 3, 77);
        for length in [0, 1, 5, 32] {
            let ids: Vec<u32> = (0..length)
                .map(|id: u32| id.wrapping_mul(0x0101_4567))
                .collect();
            let mut words = [0; 32];
            here.upper_words(&ids, &mut words);
            for (id, word) in ids.iter().zip(words) {
                assert_eq!(u64::from(word), here.bits(*id) >> 21);
            }
        }
    }

    #[test]
    fn the_seed_has_two_halves() {
        assert_eq!(
            Noise::at(1 << 32, 0, 0).words(5),
            philox4x32_10([0, 0, 5, 0], [0, 1])
        );
        assert_eq!(
            Noise::at(9, 2, 3).words(5),
            philox4x32_10([2, 3, 5, 0], [9, 0])
        );
    }
}
