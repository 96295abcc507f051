//! How much a request may hold: one place for the numbers.

use serde::{Deserialize, Serialize};

/// How much a request may hold.
///
/// These bound what a request costs before anything is decoded; the sizes of decoded media have limits of their own
/// (`msao-media`), and the model's context has the last word on tokens. What is over a limit in bytes is refused with 413,
/// over any other with 400; the message names the field and the limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the body. Default 96 MiB: one medium of `max_medium_bytes` in base64, and text. Whoever reads the body
    /// from a socket should stop there.
    pub max_body_bytes: usize,
    /// Objects and arrays within each other, the body itself counted. Default 32; at most 120 takes effect, since
    /// the parser has a bound of its own.
    pub max_depth: usize,
    /// JSON values in the body. Default 100,000. A value takes up to some 80 bytes once parsed, and two as text: without
    /// this limit a body of zeros would grow fortyfold.
    pub max_values: usize,
    /// Messages. Default 1,024.
    pub max_messages: usize,
    /// Content parts of all messages together; a bare string counts as one. Default 2,048.
    pub max_parts: usize,
    /// Images, clips and sounds of all messages together. Default 64.
    pub max_media: usize,
    /// Bytes of all texts together, as UTF-8. Default 4 MiB.
    pub max_text_bytes: usize,
    /// Bytes of one medium that comes within the body, after base64. Default 64 MiB, as in `msao-media`.
    pub max_medium_bytes: usize,
    /// Bytes of a URL from which a medium is fetched. Default 8 KiB.
    pub max_url_bytes: usize,
    /// Bytes of `model`, `user` and `prompt_cache_key` each. Default 512.
    pub max_name_bytes: usize,
    /// Stop strings. Default 4, OpenAI's number.
    pub max_stops: usize,
    /// Bytes of one stop string: so much of an answer may have to be held back. Default 256.
    pub max_stop_bytes: usize,
    /// Entries of `logit_bias`. Default 1,024.
    pub max_logit_bias: usize,
    /// Answers to one request. Default 8: each has room in the cache set aside.
    pub max_n: u32,
    /// Most likely tokens told for each place. Default 20, OpenAI's number.
    pub max_top_logprobs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_body_bytes: 96 << 20,
            max_depth: 32,
            max_values: 100_000,
            max_messages: 1024,
            max_parts: 2048,
            max_media: 64,
            max_text_bytes: 4 << 20,
            max_medium_bytes: 64 << 20,
            max_url_bytes: 8 << 10,
            max_name_bytes: 512,
            max_stops: 4,
            max_stop_bytes: 256,
            max_logit_bias: 1024,
            max_n: 8,
            max_top_logprobs: 20,
        }
    }
}
