//! Keep lists on their way: which tokens of a medium are read, as bits.

/// Bits that are no keep list of a medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// There are too few bytes or too many.
    #[error("has {bytes} bytes, and its {tokens} tokens take {wanted}")]
    Length {
        /// What there is.
        bytes: usize,
        /// Tokens of the medium.
        tokens: usize,
        /// Bytes that they take.
        wanted: usize,
    },
    /// A bit is set that stands for no token.
    #[error("has bits behind the last of its {tokens} tokens")]
    Behind {
        /// Tokens of the medium.
        tokens: usize,
    },
}

/// [`Medium::keep`](super::Medium::keep) of a medium of so many tokens, of which those in `kept` are read. Numbers of no
/// token are left out.
pub fn keep_bits(kept: &[u32], tokens: usize) -> Vec<u8> {
    let mut bits = vec![0; tokens.div_ceil(8)];
    for token in kept.iter().map(|&token| token as usize) {
        if token < tokens
            && let Some(byte) = bits.get_mut(token / 8)
        {
            *byte |= 1 << (token % 8);
        }
    }
    bits
}

/// The tokens that are read of a medium of so many, rising: what [`keep_bits`] made its bits of.
///
/// # Errors
/// The bits are of a medium of another size.
pub fn kept_tokens(bits: &[u8], tokens: usize) -> Result<Vec<u32>, KeepError> {
    let wanted = tokens.div_ceil(8);
    if bits.len() != wanted {
        return Err(KeepError::Length {
            bytes: bits.len(),
            tokens,
            wanted,
        });
    }
    let mut kept = Vec::new();
    for (first, byte) in (0_u32..).step_by(8).zip(bits) {
        let set = (0_u32..8).filter(|&bit| (byte >> bit) & 1 == 1);
        kept.extend(set.map(|bit| first + bit));
    }
    match kept.last() {
        Some(&last) if last as usize >= tokens => Err(KeepError::Behind { tokens }),
        _ => Ok(kept),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_token_is_the_lowest_bit_of_the_first_byte() {
        assert_eq!(keep_bits(&[0, 9], 10), [0b1, 0b10]);
        assert_eq!(kept_tokens(&[0b1, 0b10], 10), Ok(vec![0, 9]));
        // Dropped whole is not the same as kept whole.
        assert_eq!(keep_bits(&[], 10), [0, 0]);
        assert_eq!(kept_tokens(&[0, 0], 10), Ok(Vec::new()));
        assert_eq!(kept_tokens(&[], 0), Ok(Vec::new()));
    }

    #[test]
    fn bits_of_another_medium_are_told_by_their_number() {
        let length = |bytes, tokens, wanted| {
            Err(KeepError::Length {
                bytes,
                tokens,
                wanted,
            })
        };
        assert_eq!(kept_tokens(&[], 10), length(0, 10, 2));
        assert_eq!(kept_tokens(&[0; 3], 10), length(3, 10, 2));
        assert_eq!(kept_tokens(&[1], 0), length(1, 0, 0));
        let behind = Err(KeepError::Behind { tokens: 10 });
        assert_eq!(kept_tokens(&[0, 0b100], 10), behind);
        assert_eq!(kept_tokens(&[0xff, 0xff], 16).unwrap().len(), 16);
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(kept in prop::collection::btree_set(0_u32..200, 0..60), more in 0_usize..20) {
            let kept: Vec<u32> = kept.into_iter().collect();
            let tokens = kept.last().map_or(0, |&last| last as usize + 1) + more;
            prop_assert_eq!(kept_tokens(&keep_bits(&kept, tokens), tokens), Ok(kept));
        }

        #[test]
        fn whatever_the_bits_nothing_beyond_the_medium_is_kept(bits in prop::collection::vec(any::<u8>(), 0..3), tokens in 0_usize..20) {
            if let Ok(kept) = kept_tokens(&bits, tokens) {
                prop_assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(kept.iter().all(|&token| (token as usize) < tokens));
                prop_assert_eq!(keep_bits(&kept, tokens), bits);
            }
        }
    }
}
