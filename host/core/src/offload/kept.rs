//! What was read of a request's media, as a record keeps it: which medium it was, how far it extends in tokens, and which of
//! them each model has read.

use serde::{Deserialize, Serialize};

use super::Treatment;
use crate::digest::Digest;

/// Frames, rows and columns of tokens. A still has one frame; a sound has as many as it has tokens, and one row and column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Extent {
    /// Frames of a clip as the model sees them, segments of a sound.
    pub frames: u32,
    /// Rows of tokens in a frame.
    pub rows: u32,
    /// Tokens in a row.
    pub columns: u32,
}

impl Extent {
    /// Tokens of a frame. Saturates: an extent that was read from a file may claim anything.
    pub fn per_frame(&self) -> u32 {
        self.rows.saturating_mul(self.columns)
    }

    /// Tokens in all; saturates.
    pub fn tokens(&self) -> u32 {
        self.frames.saturating_mul(self.per_frame())
    }
}

/// Some of a medium's tokens.
///
/// Written as the medium's number of tokens and a bit for each in hexadecimal digits: token `n` is the bit of value `1 <<
/// (n % 8)` in byte `n / 8`, and bits behind the last token are 0.
///
/// ```
/// use msao_core::offload::kept::TokenSet;
///
/// let kept = TokenSet::new(&[0, 9], 10);
/// assert_eq!((kept.count(), kept.contains(9), kept.contains(1)), (2, true, false));
/// assert_eq!(kept.digits(), "0102");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct TokenSet {
    tokens: u32,
    bits: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Written {
    tokens: u32,
    bits: String,
}

/// A text that names no tokens of a medium.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTokenSet {
    /// Too many digits, or too few.
    #[error("has {digits} digits, and {tokens} tokens take {wanted}")]
    Length {
        /// What there is.
        digits: usize,
        /// Tokens of the medium.
        tokens: u32,
        /// Digits that they take.
        wanted: usize,
    },
    /// Something that is no hexadecimal digit.
    #[error("has a character that is no hexadecimal digit")]
    Digit,
    /// A bit that stands for no token.
    #[error("has bits behind the last of its {0} tokens")]
    Behind(u32),
}

impl TokenSet {
    /// Those of a medium of so many tokens whose numbers are in `kept`. Numbers of no token are left out.
    pub fn new(kept: &[u32], tokens: u32) -> TokenSet {
        let mut bits = vec![0; (tokens as usize).div_ceil(8)];
        for &token in kept.iter().filter(|token| **token < tokens) {
            if let Some(byte) = bits.get_mut(token as usize / 8) {
                *byte |= 1 << (token % 8);
            }
        }
        TokenSet { tokens, bits }
    }

    /// Tokens of the medium, in the set or not.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// Tokens in the set.
    pub fn count(&self) -> u32 {
        self.bits.iter().map(|byte| byte.count_ones()).sum()
    }

    /// Whether the token with this number is in the set.
    pub fn contains(&self, token: u32) -> bool {
        let byte = self.bits.get(token as usize / 8);
        byte.is_some_and(|byte| (byte >> (token % 8)) & 1 == 1)
    }

    /// The bits as they are written.
    pub fn digits(&self) -> String {
        self.bits.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<TokenSet> for Written {
    fn from(set: TokenSet) -> Written {
        Written {
            tokens: set.tokens,
            bits: set.digits(),
        }
    }
}

impl TryFrom<Written> for TokenSet {
    type Error = NoTokenSet;

    fn try_from(written: Written) -> Result<TokenSet, NoTokenSet> {
        let Written { tokens, bits: text } = written;
        let wanted = 2 * (tokens as usize).div_ceil(8);
        if text.len() != wanted {
            return Err(NoTokenSet::Length {
                digits: text.len(),
                tokens,
                wanted,
            });
        }
        let value = |digit: u8| char::from(digit).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from((value(*high)? << 4) | value(*low)?).ok(),
            _ => None,
        };
        let bits: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        let bits = bits.ok_or(NoTokenSet::Digit)?;
        let used = tokens % 8;
        let behind = bits
            .last()
            .is_some_and(|last| used > 0 && last >> used != 0);
        if behind {
            return Err(NoTokenSet::Behind(tokens));
        }
        Ok(TokenSet { tokens, bits })
    }
}

/// What one model has read of a medium.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reading {
    /// The medium's extent as this model got it; None: the medium's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extent: Option<Extent>,
    /// The tokens that it has read; None: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<TokenSet>,
}

/// One medium of a request, and what was read of it. The medium itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MediumKept {
    /// SHA-256 of the bytes that the client sent.
    pub digest: Digest,
    /// Its extent as it came, by this node's own processor.
    pub extent: Extent,
    /// Of a clip: the numbers of its frames that were looked at, in their order. `extent.frames` of them, or of equal runs of
    /// them, are what the model calls a frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sampled: Vec<u32>,
    /// What the draft model has read, wherever it ran; None where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<Reading>,
    /// What the target has read; None where it did not take part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Reading>,
}

/// How many a share is of so many: `ceil(share * all)`, none only where the share is 0.
pub fn count_of(share: f64, all: usize) -> usize {
    /// More than rounding adds to a product: 0.07 of 100 is 7, though it is 7.000000000000001 in f64.
    const ROUNDING: f64 = 1e-9;
    // A share that is no number keeps nothing, as one below 0 does.
    if share.is_nan() || share <= 0.0 || all == 0 {
        return 0;
    }
    let count = (share * all as f64 - ROUNDING).ceil();
    (count as usize).clamp(1, all)
}

/// How many tokens of a medium a treatment keeps: its share of all of them, and no more than the frames kept have.
pub fn tokens_of(how: &Treatment, extent: &Extent) -> u32 {
    let frames = count_of(how.frames, extent.frames as usize).max(1) as u32;
    let most = frames.saturating_mul(extent.per_frame());
    (count_of(how.keep, extent.tokens() as usize) as u32).min(most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<TokenSet, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn bits_are_written_as_digits_and_what_is_wrong_with_them_is_told() {
        let set = TokenSet::new(&[0, 9, 3, 10, 400], 10);
        assert_eq!(
            serde_json::to_string(&set).unwrap(),
            r#"{"tokens":10,"bits":"0902"}"#
        );
        assert_eq!((set.tokens(), set.count()), (10, 3));
        assert!(!set.contains(10) && !set.contains(u32::MAX));
        for (text, told) in [
            (
                r#"{"tokens":10,"bits":"09"}"#,
                "has 2 digits, and 10 tokens take 4",
            ),
            (r#"{"tokens":4294967295,"bits":"09"}"#, "digits"),
            (r#"{"tokens":10,"bits":"0g02"}"#, "no hexadecimal digit"),
            (r#"{"tokens":8,"bits":"+1"}"#, "no hexadecimal digit"),
            (r#"{"tokens":8,"bits":"é"}"#, "no hexadecimal digit"),
            (
                r#"{"tokens":10,"bits":"0904"}"#,
                "behind the last of its 10",
            ),
            (r#"{"tokens":10,"bits":"0902","more":1}"#, "more"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert_eq!(read(r#"{"tokens":0,"bits":""}"#), Ok(TokenSet::new(&[], 0)));
    }

    #[test]
    fn a_treatment_keeps_its_share_and_no_more_than_its_frames_have() {
        let extent = Extent {
            frames: 4,
            rows: 2,
            columns: 5,
        };
        let of = |keep, frames| {
            let how = Treatment {
                keep,
                frames,
                ..Treatment::WHOLE
            };
            tokens_of(&how, &extent)
        };
        assert_eq!(of(1.0, 1.0), 40);
        assert_eq!((of(0.5, 1.0), of(0.51, 1.0), of(1e-6, 1.0)), (20, 21, 1));
        assert_eq!((of(1.0, 0.5), of(0.9, 0.25), of(0.0, 0.25)), (20, 10, 0));
        assert_eq!((of(f64::NAN, 1.0), count_of(0.07, 100)), (0, 7));
        let endless = Extent {
            frames: u32::MAX,
            rows: 7,
            columns: u32::MAX,
        };
        assert_eq!(endless.tokens(), u32::MAX);
    }

    proptest! {
        #[test]
        fn a_set_is_read_as_it_was_written(
            (tokens, kept) in (0_u32..200).prop_flat_map(|tokens| {
                (Just(tokens), prop::collection::vec(0..tokens.max(1), 0..50))
            }),
        ) {
            let set = TokenSet::new(&kept, tokens);
            let text = serde_json::to_string(&set).unwrap();
            prop_assert_eq!(read(&text), Ok(set.clone()));
            for token in 0..tokens + 9 {
                prop_assert_eq!(set.contains(token), token < tokens && kept.contains(&token));
            }
            let counted = (0..tokens).filter(|token| set.contains(*token)).count();
            prop_assert_eq!(set.count() as usize, counted);
        }

        #[test]
        fn any_text_is_a_set_or_an_error(tokens in any::<u32>(), bits in ".{0,40}") {
            let text = serde_json::json!({ "tokens": tokens, "bits": bits }).to_string();
            if let Ok(set) = read(&text) {
                prop_assert_eq!(set.digits(), bits.to_lowercase());
            }
        }
    }
}
