//! Tokens into text: what is held back because a character or a stop string may be coming, and log-probabilities.

use std::collections::HashMap;
use std::sync::Arc;

use msao_api::{Logprobs, Piece, TokenLogprob, TopLogprob};
use msao_core::sampling::TopLogprobs;
use msao_processor::{DetokenStream, Processor, StopStrings};
use msao_session::frame::Word;

/// What is remembered of another vocabulary at most, in bytes: far more than an answer can name.
const MOST_WORDS: usize = 64 << 20;

/// Writes one answer.
pub struct Writer {
    processor: Arc<Processor>,
    stream: DetokenStream,
    stops: StopStrings,
    /// Log-probabilities of tokens whose text has not come out yet; `None` where nobody asked.
    held: Option<Vec<TokenLogprob>>,
    /// What the target's ids say, where they are of another vocabulary.
    words: Option<HashMap<u32, Word>>,
    /// Bytes that they take.
    learned: usize,
}

impl Writer {
    /// Before the first token.
    pub fn new(processor: &Arc<Processor>, stops: &[String], logprobs: bool) -> Writer {
        Writer {
            stream: processor.tokenizer().stream(true),
            processor: Arc::clone(processor),
            stops: StopStrings::new(stops.iter().cloned()),
            held: logprobs.then(Vec::new),
            words: None,
            learned: 0,
        }
    }

    /// From here on ids are of another vocabulary, of which these are a part.
    pub fn learn(&mut self, words: Vec<Word>) {
        let known = self.words.get_or_insert_default();
        for word in words {
            // Each id counts as often as it comes: a peer that says one again and again gets no further.
            self.learned += size_of::<Word>() + word.bytes.len();
            if self.learned <= MOST_WORDS {
                known.insert(word.id, word);
            }
        }
    }

    /// Takes a token in; gives the text that is certain now.
    pub fn push(&mut self, id: u32, logprobs: Option<&TopLogprobs>) -> Option<Piece> {
        if let (Some(told), Some(_)) = (logprobs, &self.held) {
            let entry = self.entry(told);
            if let Some(held) = &mut self.held {
                held.push(entry);
            }
        }
        let text = match &self.words {
            None => self.stream.push(id)?,
            Some(words) => {
                let word = words.get(&id).filter(|word| !word.special);
                self.stream
                    .push_bytes(word.map_or(&[], |word| &word.bytes))?
            }
        };
        let text = self.stops.push(&text).text;
        self.piece(text)
    }

    /// Whether a stop string has come.
    pub fn stopped(&self) -> bool {
        self.stops.stopped()
    }

    /// The answer has ended; gives what was held back.
    pub fn finish(&mut self) -> Option<Piece> {
        let mut text = String::new();
        if !self.stops.stopped() {
            let rest = self.stream.finish();
            text.push_str(&self.stops.push(&rest).text);
        }
        text.push_str(&self.stops.finish().text);
        let told = self.held.as_ref().is_some_and(|held| !held.is_empty());
        if text.is_empty() && told {
            return Some(Piece::Text(text, self.take()));
        }
        self.piece(text)
    }

    fn piece(&mut self, text: String) -> Option<Piece> {
        if text.is_empty() {
            return None;
        }
        let logprobs = self.take();
        Some(Piece::Text(text, logprobs))
    }

    fn take(&mut self) -> Option<Logprobs> {
        (self.held.as_mut()).map(|held| Logprobs::new(std::mem::take(held)))
    }

    fn entry(&self, told: &TopLogprobs) -> TokenLogprob {
        let named = |token: &msao_core::sampling::TokenLogprob| {
            let bytes = match &self.words {
                None => self.processor.tokenizer().token_bytes(token.id),
                Some(words) => words.get(&token.id).map(|word| word.bytes.as_slice()),
            };
            TopLogprob::new(bytes.unwrap_or_default(), token.logprob)
        };
        named(&told.chosen).chosen(told.top.iter().map(named).collect())
    }
}
