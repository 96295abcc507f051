//! What a client is answered, as a whole or in chunks.

mod chunk;
mod logprobs;
mod report;
mod usage;

use msao_core::digest::Digest;
use serde::{Deserialize, Serialize};

pub use self::chunk::{Chunk, ChunkChoice, ChunkStream, Delta, Piece};
pub use self::logprobs::{Logprobs, TokenLogprob, TopLogprob};
pub use self::report::{Cost, ItemReport, NodeCost, Report, Retention};
pub use self::usage::{PromptTokens, PromptTokensDetails, Usage};

/// What all of an answer's chunks, or the whole answer, begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// See [`completion_id`].
    pub id: String,
    /// When the request came, in seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// See [`system_fingerprint`].
    pub system_fingerprint: String,
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "object", rename = "chat.completion")]
pub struct ChatCompletion {
    /// The answer's name.
    pub id: String,
    /// When the request came, in seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// As many as the request asked for, by index.
    pub choices: Vec<Choice>,
    /// What it took.
    pub usage: Usage,
    /// Names what computed it.
    pub system_fingerprint: String,
    /// How it came about.
    pub msao: Report,
}

impl ChatCompletion {
    /// A whole answer.
    pub fn new(head: Head, choices: Vec<Choice>, usage: Usage, msao: Report) -> Self {
        ChatCompletion {
            id: head.id,
            created: head.created,
            model: head.model,
            choices,
            usage,
            system_fingerprint: head.system_fingerprint,
            msao,
        }
    }
}

/// One of a request's `n` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Which, from 0 on.
    pub index: u32,
    /// The answer.
    pub message: AnswerMessage,
    /// Where the request asked for them.
    pub logprobs: Option<Logprobs>,
    /// Why it ends.
    pub finish_reason: FinishReason,
}

impl Choice {
    /// A choice that says `content`.
    pub fn new(
        index: u32,
        content: String,
        logprobs: Option<Logprobs>,
        finish_reason: FinishReason,
    ) -> Self {
        Choice {
            index,
            message: AnswerMessage {
                role: Role::Assistant,
                content,
                refusal: None,
            },
            logprobs,
            finish_reason,
        }
    }
}

/// What the assistant says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerMessage {
    /// Always the assistant.
    pub role: Role,
    /// The text.
    pub content: String,
    /// Always null; typed clients read it.
    pub refusal: Option<String>,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The model.
    Assistant,
}

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended it, or a stop string came.
    Stop,
    /// It has as many tokens as were asked for, or as fit.
    Length,
}

/// An answer's `id`, out of 128 bits that no other answer has.
pub fn completion_id(unique: u128) -> String {
    format!("chatcmpl-{unique:032x}")
}

/// Names all that the tokens of an answer depend on besides the request, so that a client sees when an equal seed need not
/// give an equal answer any more: the weights' digest, the precision that they are computed in (such as `bf16 on cuda`), and the digest of how
/// the target's input is encoded (sizes, quality, what is kept).
pub fn system_fingerprint(weights: &Digest, precision: &str, encoding: &Digest) -> String {
    // The two digests have one length, so no two triples give the same text.
    let all = Digest::of(format!("{weights}{encoding}{precision}").as_bytes());
    format!("fp_{}", all.short())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_depends_on_all_of_it() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let one = system_fingerprint(&a, "f32", &b);
        assert_eq!(one.len(), 15);
        assert_eq!(one, system_fingerprint(&a, "f32", &b));
        for other in [
            system_fingerprint(&b, "f32", &b),
            system_fingerprint(&a, "bf16", &b),
            system_fingerprint(&a, "f32", &a),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(completion_id(10), format!("chatcmpl-{}a", "0".repeat(31)));
    }
}
