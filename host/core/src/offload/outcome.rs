//! What became of a request.

use serde::{Deserialize, Serialize};

use super::PartPlan;

/// Bins of acceptance probability in [`Outcome::drafted`] and [`Outcome::accepted`].
pub const BINS: usize = 16;

/// Bits of [`Outcome::overrides`].
pub mod overrides {
    /// Another route than planned.
    pub const ROUTE: u32 = 1;
    /// Exact instead of confident.
    pub const EXACT: u32 = 2;
    /// Media kept at the edge.
    pub const MEDIA: u32 = 4;
    /// Another retention than planned, or media that were to be made smaller went as they came.
    pub const RETENTION: u32 = 8;
    /// Another peer than planned.
    pub const PEER: u32 = 16;
    /// An answer was refused, or a call failed, and a fallback ran.
    pub const FALLBACK: u32 = 32;
}

/// Numbers of [`Outcome::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Answered.
    Answered = 0,
    /// Answered without the peer, which was lost.
    Degraded = 1,
    /// Cancelled by the client.
    Cancelled = 2,
    /// Refused.
    Refused = 3,
    /// Failed.
    Failed = 4,
}

/// What became of a request. Units: `record outcome` in `wit/types.wit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Outcome {
    /// Where it ran in the end: the number of a [`super::Route`].
    pub route: u8,
    /// Row of the peer among the nodes; 0 for none.
    pub peer: u32,
    /// A [`Status`].
    pub status: u8,
    /// Bits of [`overrides`].
    pub overrides: u32,
    /// Time to the first token; -1 where there was none.
    pub ttft_ms: f64,
    /// Time to the last token; -1 where there was none.
    pub total_ms: f64,
    /// Of that, in the probe.
    pub probe_ms: f64,
    /// Of that, uploading.
    pub upload_ms: f64,
    /// Of that, waiting in queues.
    pub queue_ms: f64,
    /// Bytes to the peer.
    pub sent_bytes: f64,
    /// Bytes from the peer.
    pub received_bytes: f64,
    /// Floating-point operations here.
    pub edge_flops: f64,
    /// Floating-point operations there.
    pub cloud_flops: f64,
    /// In the operator's unit.
    pub cost: f64,
    /// Tokens of the answer.
    pub tokens: u32,
    /// Of them, committed unverified.
    pub unverified: u32,
    /// Rounds of drafts sent.
    pub rounds: u32,
    /// Drafts judged, by [`BINS`] of acceptance probability.
    pub drafted: Vec<u32>,
    /// Of them, accepted.
    pub accepted: Vec<u32>,
    /// Parts as run; empty where they ran as they came.
    pub parts: Vec<PartPlan>,
    /// The plan's memo.
    pub memo: Vec<u8>,
}
