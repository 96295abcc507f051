//! The small control messages: HELLO, CANCEL, REFUSED, HEARTBEAT, CLOSE.

use std::fmt;

use msao_core::digest::Digest;
use serde::{Deserialize, Serialize};

use super::limits::MAX_TEXT_BYTES;
use super::wire::{at_most, must};
use super::{FrameError, Kind};

/// Names one request between two nodes. The edge draws it at random, so that nobody can guess at another's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What tells a model from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Weights, configuration and precision.
    pub model: Digest,
    /// Vocabulary and merges: ids mean the same text where it is equal.
    pub tokenizer: Digest,
    /// Template, sizes and means: a medium has the same tokens where it is equal.
    pub processor: Digest,
}

/// The first frame of either side: which versions it speaks and what it has. A node that has told its peers that it drains
/// sends the same one again when it drains no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version spoken.
    pub oldest: u8,
    /// The newest version spoken.
    pub newest: u8,
    /// Name and release of the program, for logs. At most 256 bytes.
    #[serde(default)]
    pub software: String,
    /// The draft model, if there is one.
    #[serde(default)]
    pub draft: Option<Identity>,
    /// The target model, if there is one.
    #[serde(default)]
    pub target: Option<Identity>,
    /// The newest version of shipments, and of what OPEN says of them ([`super::Made`]), that the node's target takes; it
    /// takes those before as well. 0, which a node of before them says by saying nothing: none, media go there as they
    /// came.
    #[serde(default, skip_serializing_if = "is_none")]
    pub shipments: u8,
}

fn is_none(version: &u8) -> bool {
    *version == 0
}

impl Hello {
    pub(super) fn check(&self) -> Result<(), FrameError> {
        let kind = Kind::Hello;
        let range = 1 <= self.oldest && self.oldest <= self.newest;
        must(kind, "oldest", "at least 1 and not above `newest`", range)?;
        at_most(kind, "software", MAX_TEXT_BYTES, self.software.len())
    }
}

/// The edge wants no more: work stops and everything is freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The session.
    pub session: SessionId,
}

/// The answer is whole on the side that says so; the session can be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The session.
    pub session: SessionId,
}

/// Why a node refuses, as programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusedCode {
    /// No room; see `retry_after_ms`.
    Overloaded,
    /// The node drains: it takes nothing new, for now or because it goes down.
    Draining,
    /// No common version.
    Version,
    /// The model that is asked for is not here.
    Model,
    /// The tokenizers differ: no drafts are taken.
    Tokenizer,
    /// A medium was not uploaded or is no longer here.
    MediaMissing,
    /// What was prepared here has another digest than the edge's target input.
    TargetInput,
    /// The committed prefix is another one here.
    Prefix,
    /// A frame contradicts those before it.
    Protocol,
    /// The request itself cannot be served: a parameter, a size.
    Request,
    /// The deadline budget is spent.
    Deadline,
    /// The engine failed.
    Failed,
    /// A code that this version does not know. Taken as [`RefusedCode::Failed`].
    #[serde(other)]
    Other,
}

/// The session will not be served, or not any longer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// The session.
    pub session: SessionId,
    /// Why, for programs.
    pub code: RefusedCode,
    /// After so long it is worth trying again, in ms; 0 where it is not.
    #[serde(default)]
    pub retry_after_ms: f64,
    /// Why, for people. At most 256 bytes.
    #[serde(default)]
    pub message: String,
}

impl Refused {
    pub(super) fn check(&self) -> Result<(), FrameError> {
        let kind = Kind::Refused;
        must(
            kind,
            "retry_after_ms",
            "finite and not negative",
            duration(self.retry_after_ms),
        )?;
        at_most(kind, "message", MAX_TEXT_BYTES, self.message.len())
    }
}

/// How a node is. Sent now and then by both; round trips are measured with it.
///
/// Clocks of two nodes are never compared: `echo_ms` gives the peer its own reading back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Heartbeat {
    /// The sender's monotonic clock when this was sent.
    pub sent_ms: f64,
    /// `sent_ms` of the last heartbeat that came from the peer; nothing before the first.
    pub echo_ms: Option<f64>,
    /// How long that one has lain here: the round trip is the time since `echo_ms` less this.
    pub held_ms: f64,
    /// Wait before new work begins.
    pub queue_ms: f64,
    /// Work taken on that has not begun.
    pub planned_ms: f64,
    /// Tokens for which the cache has room.
    pub kv_free: f64,
    /// Tokens that the larger model reads a second; 0 if unknown, as below.
    pub prefill_tok_per_s: f64,
    /// Tokens a second of one answer, draft model.
    pub draft_tok_per_s: f64,
    /// Tokens a second of one answer, target model.
    pub target_tok_per_s: f64,
    /// A pass that verifies eight drafts.
    pub verify_ms: f64,
}

impl Heartbeat {
    pub(super) fn check(&self) -> Result<(), FrameError> {
        let fields = [
            ("sent_ms", self.sent_ms),
            ("echo_ms", self.echo_ms.unwrap_or(0.0)),
            ("held_ms", self.held_ms),
            ("queue_ms", self.queue_ms),
            ("planned_ms", self.planned_ms),
            ("kv_free", self.kv_free),
            ("prefill_tok_per_s", self.prefill_tok_per_s),
            ("draft_tok_per_s", self.draft_tok_per_s),
            ("target_tok_per_s", self.target_tok_per_s),
            ("verify_ms", self.verify_ms),
        ];
        fields.iter().try_for_each(|&(field, value)| {
            must(
                Kind::Heartbeat,
                field,
                "finite and not negative",
                duration(value),
            )
        })
    }
}

/// Whether a number can be a time or a rate.
pub(super) fn duration(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}
