//! Decoding a sequence that arrives token by token.

use std::sync::Arc;

use crate::token_table::TokenTable;

/// Turns ids into text as they come. A character whose bytes come in several tokens is held back until it is whole.
///
/// Every split of a sequence gives the text that decoding it whole gives, in time linear in the tokens.
///
/// ```no_run
/// # fn main() -> Result<(), msao_processor::ProcessorError> {
/// let processor = msao_processor::Processor::load("models/qwen".as_ref())?;
/// let mut stream = processor.tokenizer().stream(true);
/// for id in [9707, 1879] {
///     if let Some(text) = stream.push(id) {
///         print!("{text}");
///     }
/// }
/// print!("{}", stream.finish());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DetokenStream {
    table: Arc<TokenTable>,
    skip_special: bool,
    /// Fewer than four bytes that begin a character.
    pending: Vec<u8>,
}

impl DetokenStream {
    pub(crate) fn new(table: Arc<TokenTable>, skip_special: bool) -> Self {
        Self {
            table,
            skip_special,
            pending: Vec::new(),
        }
    }

    /// Takes one id; returns the text that is now certain, if there is any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.pending
            .extend_from_slice(self.table.bytes(id, self.skip_special));
        self.certain()
    }

    /// The same for a token of another vocabulary, by its bytes.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> Option<String> {
        self.pending.extend_from_slice(bytes);
        self.certain()
    }

    fn certain(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            rest = rest.get(chunk.valid().len()..).unwrap_or_default();
            if invalid.is_empty() {
                continue;
            }
            // Only the last bytes can be a character's beginning rather than an error.
            let open = rest.len() == invalid.len()
                && std::str::from_utf8(invalid).is_err_and(|e| e.error_len().is_none());
            if open {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            rest = rest.get(invalid.len()..).unwrap_or_default();
        }
        let kept = rest.len();
        self.pending.drain(..self.pending.len() - kept);
        (!text.is_empty()).then_some(text)
    }

    /// The text of what is still held back: U+FFFD for a character that never became whole. The stream starts anew.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::tokenizer::tests::bytes_tokenizer;

    #[test]
    fn an_emoji_comes_out_whole() {
        let tokenizer = bytes_tokenizer();
        let mut stream = tokenizer.stream(true);
        let pieces: Vec<Option<String>> = "🎉a"
            .bytes()
            .map(|byte| stream.push(u32::from(byte)))
            .collect();
        assert_eq!(
            pieces,
            [
                None,
                None,
                None,
                Some("🎉".to_owned()),
                Some("a".to_owned())
            ]
        );
        assert_eq!(stream.push(257), None, "a special token is skipped");
        assert_eq!(stream.push(0xF0), None);
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.finish(), "");
    }

    proptest! {
        #[test]
        fn bytes_however_cut_give_their_text(text in ".{0,12}", cuts in prop::collection::vec(0usize..40, 0..5)) {
            let mut stream = bytes_tokenizer().stream(true);
            let mut streamed = String::new();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                streamed.extend(stream.push_bytes(&text.as_bytes()[pair[0]..pair[1]]));
            }
            prop_assert_eq!(streamed + &stream.finish(), text);
        }

        #[test]
        fn streaming_equals_decoding_whole(ids in prop::collection::vec(0u32..262, 0..60), text in ".{0,12}", skip: bool) {
            let tokenizer = bytes_tokenizer();
            let mut ids = ids;
            ids.extend(tokenizer.encode(&text).unwrap());
            for end in 0..=ids.len() {
                let mut stream = tokenizer.stream(skip);
                let mut streamed = String::new();
                for &id in &ids[..end] {
                    let piece = stream.push(id);
                    prop_assert!(piece.as_ref().is_none_or(|piece| !piece.is_empty()));
                    streamed.extend(piece);
                    prop_assert!(stream.pending.len() < 4);
                }
                streamed += &stream.finish();
                prop_assert_eq!(&streamed, &tokenizer.decode(&ids[..end], skip));
            }
        }
    }
}
