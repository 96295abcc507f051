//! Philox4x32-10: a random function of a counter and a key, with no state to carry.
//!
//! Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
//! SC 2011, section 3.3. Word order is that of the authors' library Random123, whose known-answer vectors the
//! tests below hold.
//!
//! A counter-based generator is what coupled sampling needs: the draft and the target reach the same noise for
//! the same token whatever else each of them drew before, and rolling back needs no generator to be rewound.

const MULTIPLIER_0: u32 = 0xD251_1F53;
const MULTIPLIER_1: u32 = 0xCD9E_8D57;
/// The golden ratio and the square root of 3 less 1, as fractions of 2^32: the steps of the key.
const WEYL_0: u32 = 0x9E37_79B9;
const WEYL_1: u32 = 0xBB67_AE85;
const ROUNDS: u32 = 10;

/// The four output words for one counter under one key.
///
/// ```
/// use msao_core::sampling::philox4x32_10;
/// assert_eq!(philox4x32_10([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
#[inline]
pub const fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut words, mut key) = (counter, key);
    let mut done = 0;
    while done < ROUNDS {
        words = round(words, key);
        key = next_key(key);
        done += 1;
    }
    words
}

/// The second word of [`philox4x32_10`] for the counters `(first, second, id, 0)` of some ids, under one key.
///
/// The four words of all ids lie in arrays of their own, so that a round becomes a few vector instructions, and of the
/// last round only that one word is computed.
#[inline]
pub(super) fn philox_second_words<const N: usize>(
    first: u32,
    second: u32,
    ids: &[u32],
    key: [u32; 2],
    words: &mut [u32; N],
) {
    let (mut a, mut b, mut c, mut d) = ([first; N], [second; N], [0; N], [0; N]);
    for (c, id) in c.iter_mut().zip(ids) {
        *c = *id;
    }
    let mut key = key;
    for _ in 1..ROUNDS {
        let counters = a.iter_mut().zip(&mut b).zip(c.iter_mut().zip(&mut d));
        for ((a, b), (c, d)) in counters {
            [*a, *b, *c, *d] = round([*a, *b, *c, *d], key);
        }
        key = next_key(key);
    }
    for (word, c) in words.iter_mut().zip(c) {
        *word = MULTIPLIER_1.wrapping_mul(c);
    }
}

#[inline]
const fn round([c0, c1, c2, c3]: [u32; 4], [k0, k1]: [u32; 2]) -> [u32; 4] {
    let product_0 = MULTIPLIER_0 as u64 * c0 as u64;
    let product_1 = MULTIPLIER_1 as u64 * c2 as u64;
    let (high_0, high_1) = ((product_0 >> 32) as u32, (product_1 >> 32) as u32);
    [
        high_1 ^ c1 ^ k0,
        product_1 as u32,
        high_0 ^ c3 ^ k1,
        product_0 as u32,
    ]
}

#[inline]
const fn next_key([k0, k1]: [u32; 2]) -> [u32; 2] {
    [k0.wrapping_add(WEYL_0), k1.wrapping_add(WEYL_1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines `philox4x32 10` of `tests/kat_vectors` in Random123 1.14.0.
    #[test]
    fn known_answers_of_random123() {
        assert_eq!(
            philox4x32_10([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32_10([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        // The first hexadecimal digits of pi.
        assert_eq!(
            philox4x32_10(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn side_by_side_as_one_by_one() {
        let ids = [3, 7, u32::MAX, 0, 9];
        let mut words = [0; 5];
        philox_second_words(1, 2, &ids, [11, 12], &mut words);
        let expected = ids.map(|id| {
            let [_, word, ..] = philox4x32_10([1, 2, id, 0], [11, 12]);
            word
        });
        assert_eq!(words, expected);
    }
}
