//! The cloud's side of a session: it holds drafts against the target's own choices.
//!
//! It keeps what the target has chosen (`chosen`) and the drafts that follow it (`pending`). One order to the target is
//! under way at a time ([`Effect::Verify`]); drafts that come meanwhile join the next. What the target chooses is laid
//! over the drafts: as far as they agree they are accepted, from the first that does not they are void, and so is all
//! that still comes of that epoch. The edge sees the same from the verdict, so nothing needs to be said about it.
//!
//! Where the target has no draft for its next place and the node has capacity to spare ([`Event::Spare`]), or the
//! edge has left it the rest, it decodes on: a verify order without drafts. So a slow edge never makes an answer
//! slower than the target alone.
//!
//! Forced ids, and the committed ids of an OPEN, take the target to exactly the edge's committed prefix, whatever it
//! had chosen itself.
//!
//! | phase | holds | leaves it |
//! |---|---|---|
//! | serving | the cache, a place in the batch | finished, stream lost, cancel, deadline |
//! | finished | the cache, in case the edge never saw the end | close, lease over |
//! | leased | the cache | taken up again, lease over |
//! | freed | nothing | |
//!
//! Read first: [`Cloud`], [`Event`], [`Effect`].

mod drafts;
mod machine;
#[cfg(test)]
mod tests;

use msao_core::sampling::TopLogprobs;

use crate::frame::{Draft, Frame, Open, RefusedCode};

pub use self::machine::Cloud;

/// What a session is served with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How long everything is kept for an edge that is gone, in ms.
    pub lease_ms: f64,
    /// Drafts in one order at most, up to 256.
    pub batch_max: usize,
    /// Drafts that may wait at most; more are a violation of the protocol.
    pub pending_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            lease_ms: 2000.0,
            batch_max: 64,
            pending_max: 4096,
        }
    }
}

/// A token that the target chose.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The token.
    pub id: u32,
    /// Log-probabilities, where the session was opened with them.
    pub logprobs: Option<TopLogprobs>,
}

/// What happens to the cloud.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The target has read the prompt.
    Ready,
    /// Drafts came.
    Draft(Draft),
    /// The target has done what [`Effect::Verify`] asked for.
    Verified {
        /// Of the order.
        stamp: u64,
        /// Its choices from the order's place on, the first that differs from its draft included, or one more than all
        /// drafts. An id that ends the sequence is left out.
        choices: Vec<Choice>,
        /// Whether such an id came.
        ended: bool,
    },
    /// The target, or what leads to it, failed.
    Failed {
        /// What the edge is told.
        code: RefusedCode,
        /// When it is worth trying again, in ms; 0 for never.
        retry_after_ms: f64,
        /// Why, in words.
        message: String,
    },
    /// Whether the node has capacity that nobody waits for.
    Spare(bool),
    /// The stream to the edge broke.
    Lost,
    /// The edge opened the session again, on another stream.
    Reopened(Box<Open>),
    /// The edge wants no more, or has all of it.
    Done,
    /// The time of [`Cloud::due_ms`] has come.
    Tick,
}

/// What the node has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Have the target hold these drafts against its own choices from this place of the answer on; without drafts it
    /// makes one choice. Come back with the stamp.
    Verify {
        /// Told apart by this.
        stamp: u64,
        /// Place of the first choice.
        position: u32,
        /// The drafts.
        drafts: Vec<u32>,
    },
    /// Take the target back to so many tokens of the answer. It follows orders that are still under way, which may have
    /// made the answer longer.
    RollBack {
        /// Tokens that are left.
        to: u32,
    },
    /// Have the target take these as the next tokens of the answer.
    Append {
        /// The tokens.
        ids: Vec<u32>,
    },
    /// Send this to the edge.
    Send(Frame),
    /// It is over: give the cache and all else back. Nothing follows.
    Free,
}

/// Counts of one session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Orders done.
    pub passes: u32,
    /// Of them, without drafts.
    pub idle_passes: u32,
    /// Drafts that came in time.
    pub drafts: u32,
    /// Drafts accepted.
    pub accepted: u32,
    /// Rounds of void epochs, and rounds that came twice.
    pub stale_rounds: u32,
    /// Times that the session was taken up again.
    pub reopened: u32,
}
