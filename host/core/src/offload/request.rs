//! What a policy sees of a request and of the nodes.

use serde::{Deserialize, Serialize};

use super::Calibration;

/// Numbers of [`Part::modality`] and [`super::Item::modality`].
pub mod modality {
    /// All text of a request together.
    pub const TEXT: u8 = 0;
    /// A picture.
    pub const IMAGE: u8 = 1;
    /// A clip.
    pub const VIDEO: u8 = 2;
    /// A sound.
    pub const AUDIO: u8 = 3;
}

/// Bits of [`Request::flags`].
pub mod flag {
    /// Only exact answers.
    pub const EXACT: u32 = 1;
    /// Media must not leave the edge.
    pub const MEDIA_AT_EDGE: u32 = 2;
    /// Log-probabilities are asked for.
    pub const LOGPROBS: u32 = 4;
    /// The answer is streamed.
    pub const STREAMED: u32 = 8;
    /// The probe has run.
    pub const PROBED: u32 = 16;
}

/// Bits of [`Node::can`].
pub mod capability {
    /// Has the draft model.
    pub const DRAFT: u32 = 1;
    /// Has the target model.
    pub const TARGET: u32 = 2;
    /// Verifies drafts.
    pub const VERIFY: u32 = 4;
    /// Shares this node's tokenizer.
    pub const SAME_TOKENIZER: u32 = 8;
}

/// What a request asks for, without its content. Units and ranges: `record request` in `wit/types.wit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Request {
    /// The request's own randomness.
    pub seed: u64,
    /// Wall clock, ms since 1970.
    pub now_ms: f64,
    /// Tokens of the prompt before anything is dropped.
    pub prompt_tokens: u32,
    /// Tokens that the answer may have at most.
    pub max_tokens: u32,
    /// Time for the whole answer, from now on; 0 where the client named none.
    pub deadline_ms: f64,
    /// Sampling temperature.
    pub temperature: f64,
    /// The operator's number for the client; 0 for none.
    pub tenant: u32,
    /// Bits of [`flag`].
    pub flags: u32,
}

/// One medium of a request, or all of its text. Units and ranges: `record part` in `wit/types.wit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Part {
    /// One of [`modality`].
    pub modality: u8,
    /// Tokens in the prompt.
    pub tokens: u32,
    /// Frames or segments; 1 for an image, 0 for text.
    pub frames: u32,
    /// Pixels across; 0 where there are none.
    pub width_px: u32,
    /// Pixels down; 0 where there are none.
    pub height_px: u32,
    /// Length of a clip or a sound; 0 otherwise.
    pub duration_ms: f64,
    /// Bytes as the client sent them.
    pub bytes: f64,
    /// How much the answer needs it, in `[0, 1]`; -1 without a probe.
    pub necessity: f64,
    /// The share of it that can go, in `[0, 1]`; -1 without a probe.
    pub mas: f64,
    /// How far it is from what calibration has seen, in `[0, 1]`; -1 without a probe.
    pub unusual: f64,
}

/// A node as it is known here and now. Units and ranges: `record node` in `wit/types.wit`; -1 for what is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Node {
    /// Whether it answers.
    pub up: bool,
    /// Bits of [`capability`].
    pub can: u32,
    /// Bits per second from here to there.
    pub uplink_bps: f64,
    /// Standard deviation of `uplink_bps`.
    pub uplink_sd_bps: f64,
    /// Bits per second from there to here.
    pub downlink_bps: f64,
    /// Round trip without queueing.
    pub rtt_ms: f64,
    /// Mean deviation of the round trip.
    pub jitter_ms: f64,
    /// Share of the last minute in which the link stood still.
    pub stalled: f64,
    /// Age of the estimates.
    pub age_ms: f64,
    /// Wait before new work begins there.
    pub queue_ms: f64,
    /// Work planned onto it from here that has not begun.
    pub planned_ms: f64,
    /// Tokens for which its cache has room.
    pub kv_free: f64,
    /// Tokens that its larger model reads a second.
    pub prefill_tok_per_s: f64,
    /// Tokens a second of one answer, draft model.
    pub draft_tok_per_s: f64,
    /// Tokens a second of one answer, target model.
    pub target_tok_per_s: f64,
    /// A pass that verifies eight drafts.
    pub verify_ms: f64,
    /// Share of drafts accepted there of late.
    pub acceptance: f64,
    /// Price of a million tokens.
    pub price_per_mtok: f64,
    /// Bytes of this request's media that it already has.
    pub cached_bytes: f64,
    /// The lowest acceptance probability that may be committed unverified; above 1: none may.
    pub confidence_floor: f64,
}

/// All arguments of `plan`, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// What is asked.
    pub request: &'a Request,
    /// Media in prompt order, then all text.
    pub parts: &'a [Part],
    /// This node, then each peer.
    pub nodes: &'a [Node],
    /// Values of the manifest's parameters, in its order.
    pub params: &'a [f64],
    /// What the plug-in has learned.
    pub calibration: &'a Calibration,
}
