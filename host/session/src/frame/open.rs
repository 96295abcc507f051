//! OPEN: begins a session, or takes one up again.

use msao_core::chat::{Content, Message, Modality, Part};
use msao_core::digest::Digest;
use msao_core::sampling::SamplingParams;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::control::duration;
use super::limits::{MAX_ANSWER, MAX_MEDIA, MAX_PROMPT_BYTES, MAX_TEXT_BYTES, MAX_TOP_LOGPROBS};
use super::made::Made;
use super::wire::{at_most, must};
use super::{FrameError, Kind, SessionId, cbor};

/// What the edge wants of the cloud. An unknown one is refused: it could not be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wanted {
    /// Verdicts on drafts that are going to come.
    Verify,
    /// The answer, by the target alone: no drafts come.
    Decode,
    /// The answer, by both models of the cloud: no drafts come.
    DecodeWithDraft,
}

/// One medium of the prompt. Its bytes travel apart, once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Medium {
    /// Of the bytes as the target is to read them: re-encoded, if the plan says so. Of a medium that is dropped by its
    /// `made`, of those that its sender has.
    pub digest: Digest,
    /// What it is.
    pub modality: Modality,
    /// A bit for each of its tokens, the first in the lowest bit of the first byte; set ones are kept. Nothing keeps
    /// all. Bits past the last token are 0. Tokens are counted as the target's own processor makes them: a list for
    /// another number of tokens is refused. It holds for all models of the cloud that read the prompt. See
    /// [`keep_bits`](super::keep_bits) and [`kept_tokens`](super::kept_tokens). Where `made` has a window, it is of the
    /// tokens in that.
    #[serde(default, with = "cbor::bitmap")]
    pub keep: Option<Vec<u8>>,
    /// How it was made smaller, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
}

impl Medium {
    /// Whether its bytes are needed: those of a medium that is dropped by its `made` are not uploaded.
    pub fn is_uploaded(&self) -> bool {
        self.made.as_ref().is_none_or(|made| made.window.is_some())
    }

    fn check(&self) -> Result<(), FrameError> {
        let Some(made) = &self.made else {
            return Ok(());
        };
        made.check()?;
        let kind = Kind::Open;
        let nothing = "nothing where `made` drops the medium";
        let keeps = self.keep.is_none() || made.window.is_some();
        must(kind, "prompt.media.keep", nothing, keeps)
    }
}

/// What the target reads before the answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// The chat. Parts that are media refer to `media` by their order; what their reference says is of no account.
    pub messages: Vec<Message>,
    /// The media in reading order.
    #[serde(default)]
    pub media: Vec<Medium>,
}

impl Prompt {
    /// Names what the target reads: SHA-256 over roles, texts, media by digest, keep lists and how media were made smaller,
    /// each behind its kind and its length, so that no two prompts give the same bytes.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        let mut put = |kind: u8, bytes: &[u8]| {
            hash.update([kind]);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for message in &self.messages {
            put(0, message.role.as_bytes());
            match &message.content {
                Content::Text(text) => put(1, text.as_bytes()),
                Content::Parts(parts) => {
                    // Templates may tell a bare string from a list of one text.
                    put(2, &(parts.len() as u64).to_le_bytes());
                    for part in parts {
                        match part {
                            Part::Text { text } => put(1, text.as_bytes()),
                            Part::Image { .. } => put(3, &[]),
                            Part::Video { .. } => put(4, &[]),
                            Part::Audio { .. } => put(5, &[]),
                        }
                    }
                }
            }
        }
        for medium in &self.media {
            put(6, medium.modality.name().as_bytes());
            put(7, &medium.digest.0);
            match &medium.keep {
                Some(keep) => put(8, keep),
                None => put(9, &[]),
            }
            if let Some(made) = &medium.made {
                put(10, &made.bytes());
            }
        }
        Digest(hash.finalize().into())
    }

    /// Bytes of texts, keep lists and bits of steps.
    fn bytes(&self) -> usize {
        let part = |part: &Part| match part {
            Part::Text { text } => text.len(),
            Part::Image { image: name }
            | Part::Video { video: name }
            | Part::Audio { audio: name } => name.len(),
        };
        let message = |message: &Message| {
            let content = match &message.content {
                Content::Text(text) => text.len(),
                Content::Parts(parts) => parts.iter().map(part).sum(),
            };
            message.role.len() + content
        };
        let texts: usize = self.messages.iter().map(message).sum();
        let bits = |medium: &Medium| {
            let window = medium.made.as_ref().and_then(|made| made.window.as_ref());
            medium.keep.as_ref().map_or(0, Vec::len) + window.map_or(0, |it| it.steps.len())
        };
        texts + self.media.iter().map(bits).sum::<usize>()
    }
}

/// Begins a session, or takes one up again with what the edge has committed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Open {
    /// The session. A known one is taken up again.
    pub session: SessionId,
    /// Which of the edge's epochs begins with this.
    #[serde(default)]
    pub epoch: u32,
    /// What is wanted.
    pub wanted: Wanted,
    /// How the target chooses, the noise's seed included. Unlike elsewhere an unknown field is refused: a choice that
    /// leaves a parameter out is another choice.
    pub sampling: SamplingParams,
    /// Most likely tokens to report at each place, 0 to 20; nothing reports no log-probabilities.
    #[serde(default)]
    pub top_logprobs: Option<u32>,
    /// Most tokens of the answer, the committed ones included.
    pub max_tokens: u32,
    /// Of the target's input: what is read of the prompt, after re-encoding and pruning. The cloud holds what it
    /// prepared against this.
    pub target_input: Digest,
    /// The prompt.
    pub prompt: Prompt,
    /// Time left for the whole answer, in ms from when this is received; 0 where there is no deadline.
    #[serde(default)]
    pub deadline_ms: f64,
    /// The tokenizer by which the edge reads. Where the target's is another, WORDS come before the verdicts that name ids
    /// for the first time, and drafts are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Digest>,
    /// What the edge calls the request in its log. At most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Whether the edge wants to be told what the session costs: COST then comes ahead of some verdicts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cost: bool,
    /// The answer so far, as the edge owns it: the target goes on behind it, whatever it would have chosen itself.
    #[serde(default, with = "cbor::ids")]
    pub committed: Vec<u32>,
}

impl Open {
    /// Whether a session that was opened with `self` can be taken up again with `other`: everything that decides what
    /// the target chooses is equal.
    pub fn same_request(&self, other: &Open) -> bool {
        self.session == other.session
            && self.sampling == other.sampling
            && self.top_logprobs == other.top_logprobs
            && self.max_tokens == other.max_tokens
            && self.target_input == other.target_input
            && self.prompt == other.prompt
    }

    pub(super) fn check(&self) -> Result<(), FrameError> {
        let kind = Kind::Open;
        let top = self.top_logprobs.unwrap_or(0) as usize;
        at_most(kind, "top_logprobs", MAX_TOP_LOGPROBS, top)?;
        must(kind, "max_tokens", "at least 1", self.max_tokens > 0)?;
        at_most(kind, "max_tokens", MAX_ANSWER, self.max_tokens as usize)?;
        at_most(
            kind,
            "committed",
            self.max_tokens as usize,
            self.committed.len(),
        )?;
        let name = self.request.as_ref().map_or(0, String::len);
        at_most(kind, "request", MAX_TEXT_BYTES, name)?;
        at_most(kind, "prompt.media", MAX_MEDIA, self.prompt.media.len())?;
        at_most(kind, "prompt", MAX_PROMPT_BYTES, self.prompt.bytes())?;
        self.prompt.media.iter().try_for_each(Medium::check)?;
        let deadline = duration(self.deadline_ms);
        must(kind, "deadline_ms", "finite and not negative", deadline)?;
        let ranges = "within the ranges of the sampler's parameters";
        must(kind, "sampling", ranges, self.sampling.validate().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(parts: Vec<Part>, media: Vec<Medium>) -> Prompt {
        Prompt {
            messages: vec![Message {
                role: "user".into(),
                content: Content::Parts(parts),
            }],
            media,
        }
    }

    #[test]
    fn a_prompts_digest_depends_on_all_that_is_read_and_on_nothing_else() {
        let text = |text: &str| Part::Text { text: text.into() };
        let image = |image: &str| Part::Image {
            image: image.into(),
        };
        let medium = |byte: u8, keep: Option<Vec<u8>>| Medium {
            digest: Digest([byte; 32]),
            modality: Modality::Image,
            keep,
            made: None,
        };
        let dropped = Medium {
            made: Some(Made {
                shipped: false,
                size: (64, 64),
                length: 1,
                frames: 0,
                fps: 0.0,
                whole: (1, 2, 2),
                canvas: (64, 64),
                scaled: (2, 2),
                window: None,
            }),
            ..medium(1, None)
        };
        assert!(medium(1, None).is_uploaded() && !dropped.is_uploaded());
        let first = chat(vec![image("a"), text("x")], vec![medium(1, None)]);
        let renamed = chat(vec![image("b"), text("x")], vec![medium(1, None)]);
        assert_eq!(first.digest(), renamed.digest());
        let others = [
            chat(vec![text("x"), image("a")], vec![medium(1, None)]),
            chat(vec![image("a"), text("x")], vec![medium(2, None)]),
            chat(vec![image("a"), text("x")], vec![dropped]),
            chat(vec![image("a"), text("x")], vec![medium(1, Some(vec![]))]),
            chat(vec![image("a"), text("x")], vec![medium(1, Some(vec![1]))]),
            chat(vec![image("a"), text("x"), text("")], vec![medium(1, None)]),
            chat(vec![image("a"), text("")], vec![medium(1, None)]),
            Prompt::default(),
        ];
        let mut digests: Vec<_> = others.iter().map(Prompt::digest).collect();
        digests.push(first.digest());
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), others.len() + 1);
        let bare = Prompt {
            messages: vec![Message {
                role: "user".into(),
                content: Content::Text("x".into()),
            }],
            media: Vec::new(),
        };
        assert_ne!(bare.digest(), chat(vec![text("x")], Vec::new()).digest());
    }
}
