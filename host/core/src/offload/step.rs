//! What happens while a request is drafted, and what the policy says to it.

use serde::{Deserialize, Serialize};

/// Numbers of [`StepInput::kind`].
pub mod kind {
    /// A token was drafted.
    pub const DRAFTED: u32 = 0;
    /// A verdict came.
    pub const VERDICT: u32 = 1;
    /// A verdict is overdue.
    pub const OVERDUE: u32 = 2;
    /// The link went down.
    pub const LINK_DOWN: u32 = 3;
    /// The link came up.
    pub const LINK_UP: u32 = 4;
    /// The peer refused.
    pub const REFUSED: u32 = 5;
}

/// The arguments of `step` but for the memo. Units: `policy.step` in `wit/worlds.wit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StepInput {
    /// One of [`kind`].
    pub kind: u32,
    /// Calibrated probability that the target accepts the last drafted token.
    pub p_accept: f64,
    /// That token's probability in the draft model.
    pub top1: f64,
    /// Entropy of the draft's distribution.
    pub entropy_nats: f64,
    /// Between the draft's two best, in logits.
    pub margin: f64,
    /// Drafts judged so far.
    pub judged: u32,
    /// Of them, accepted.
    pub accepted: u32,
    /// Drafts not sent yet.
    pub unsent: u32,
    /// Drafts sent and not judged.
    pub in_flight: u32,
    /// Tokens of the answer so far.
    pub committed: u32,
    /// Since the oldest unanswered round was sent; 0 for none.
    pub waited_ms: f64,
    /// Since the request came.
    pub elapsed_ms: f64,
    /// Round trip to the peer; -1 if unknown.
    pub rtt_ms: f64,
    /// Wait at the peer; -1 if unknown.
    pub queue_ms: f64,
}

/// What `step` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Draft one more token.
    Draft,
    /// Send the unsent drafts and go on drafting.
    Send,
    /// Commit the unsent drafts unverified, as far as the host allows.
    Commit,
    /// Wait for what comes.
    Wait,
    /// Leave the rest to the target.
    Escalate,
    /// Finish with the draft model alone.
    Finish,
}
