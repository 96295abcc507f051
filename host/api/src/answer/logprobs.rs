//! Log-probabilities in OpenAI's form.

use serde::{Deserialize, Serialize};

/// Stands for what is less likely than this, minus infinity above all, which JSON cannot write. OpenAI's number.
const LEAST: f64 = -9999.0;

/// A choice's log-probabilities, or those of a piece of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Logprobs {
    /// One for each token, in order.
    pub content: Vec<TokenLogprob>,
    /// Always null; typed clients read it.
    pub refusal: Option<Vec<TokenLogprob>>,
}

impl Logprobs {
    /// Those of a text.
    pub fn new(content: Vec<TokenLogprob>) -> Self {
        Logprobs {
            content,
            refusal: None,
        }
    }
}

/// A token of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// Its text; what is no whole character is U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability, at least -9999.
    pub logprob: f64,
    /// Its bytes. Those of all tokens one after the other are the text.
    pub bytes: Vec<u8>,
    /// The most likely tokens in its place, best first, as many as the request asked for.
    pub top_logprobs: Vec<TopLogprob>,
}

/// A token that would have been possible.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopLogprob {
    /// Its text; what is no whole character is U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability, at least -9999.
    pub logprob: f64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl TopLogprob {
    /// A token by its bytes.
    pub fn new(bytes: &[u8], logprob: f64) -> Self {
        TopLogprob {
            token: String::from_utf8_lossy(bytes).into_owned(),
            // Not-a-number too.
            logprob: logprob.max(LEAST),
            bytes: bytes.to_vec(),
        }
    }

    /// The same as a token of the answer.
    pub fn chosen(self, top_logprobs: Vec<TopLogprob>) -> TokenLogprob {
        TokenLogprob {
            token: self.token,
            logprob: self.logprob,
            bytes: self.bytes,
            top_logprobs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_cannot_write_is_very_unlikely() {
        for (logprob, written) in [
            (f64::NEG_INFINITY, LEAST),
            (f64::NAN, LEAST),
            (-1e5, LEAST),
            (-0.25, -0.25),
        ] {
            assert_eq!(TopLogprob::new(b"a", logprob).logprob, written);
        }
        assert_eq!(TopLogprob::new(&[0xe2, 0x82], 0.0).token, "\u{fffd}");
    }
}
