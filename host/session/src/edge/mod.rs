//! The edge's side of a session: it drafts, and owns the committed prefix.
//!
//! While verdicts are in flight the edge goes on drafting, on the guess that all will be accepted. A verdict commits
//! tokens. Where they are the drafts that are in flight, nothing is taken back: the bonus token of a verdict is
//! skipped in the drafts if it equals the next of them. Where they differ, the drafts are rolled back and a new epoch
//! begins, which voids the rounds still in flight. What the target says is always right, so a verdict of an older
//! epoch counts too as long as the edge has committed nothing by itself since.
//!
//! ```text
//!              committed            in flight         unsent     being drafted
//!   | t0 t1 t2 t3 ... t(c-1) | d(c) d(c+1) | d(c+2) | d(c+3)  |      ?
//!                              round 7       round 8
//! ```
//!
//! The node feeds [`Edge::advance`] with what happens and does what comes out, in its order. All orders to the draft
//! model ([`Effect::Draft`], [`Effect::RollBack`], [`Effect::Append`]) go to one queue that keeps their order: a
//! rollback may follow a draft that has not come back yet, whose token is then dropped by its stamp.
//!
//! Phases:
//!
//! | phase | who chooses | leaves it |
//! |---|---|---|
//! | speculating | the target, the edge drafts | escalate, finish, peer lost or refusing |
//! | escalated | the target alone, on routes `cloud` and `cloud-draft` from the start; what is in flight is still judged | finish, peer lost or refusing |
//! | parted | nobody: drafts pile up until the peer is back | peer back, finish, too long |
//! | alone | the draft model | escalate, on route `edge` |
//!
//! Read first: [`Edge`], [`Event`], [`Effect`].

mod counters;
mod drafts;
mod machine;
mod policy;
mod tail;
#[cfg(test)]
mod tests;
mod verdict;

use msao_core::offload::{Action, StepInput};
use msao_core::sampling::TopLogprobs;

use crate::frame::{Finish, Frame, Open, Verdict};

pub use self::counters::{Counters, PLACES};
pub use self::machine::Edge;

/// Where a request starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Route `speculate`: the session is opened at once.
    Speculate,
    /// Route `edge`: the draft model answers, and a session is opened only if the policy escalates.
    Alone,
    /// Routes `cloud` and `cloud-draft`: the peer answers from the start. The draft model is told what is committed,
    /// in case the peer is lost; where there is none, leave out what is for it, and set [`Config::exact_only`].
    Cloud {
        /// Both models of the peer (`cloud-draft`).
        with_draft: bool,
    },
}

/// What a session is run with.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the session is opened with; `epoch`, `wanted` and `committed` are filled in. Its `committed` is what the
    /// answer begins with, most often nothing.
    pub open: Open,
    /// Where it starts.
    pub start: Start,
    /// The peer has been sent this very OPEN before, for drafts to be verified ([`crate::frame::Wanted::Verify`]): it is not sent again, and
    /// what the peer has said since counts. Of no meaning where the start is [`Start::Alone`]; not for `cloud-draft`, whose
    /// sessions have another seat from the beginning.
    pub opened: bool,
    /// Drafts a round at most, 1 to 64 (the plan's).
    pub gamma_max: u32,
    /// Rounds in flight at most (the plan's).
    pub in_flight_max: u32,
    /// Drafts in flight at most.
    pub in_flight_tokens_max: u32,
    /// After so long without news from the peer the policy is told, in ms (the plan's).
    pub patience_ms: f64,
    /// Drafts at least this probable ([`Drafted::sure`]) may be committed unverified where the policy says so; above 1
    /// none may.
    pub confidence_floor: f64,
    /// On route `edge`, what the draft model is less sure of than this is not its own to commit: the rest is left to the
    /// target, whatever the policy says. Held against [`Drafted::sure`]; at most 0: the draft model commits all.
    pub alone_floor: f64,
    /// The answer must be the target's: the edge never finishes alone.
    pub exact_only: bool,
    /// So long, in ms, the edge waits for a lost peer if the policy lets it; then it finishes alone. A peer that comes back
    /// is waited for anew once it has given a verdict. One that is there is left only once it has been silent for as long.
    pub parted_limit_ms: f64,
    /// When the request came, on the clock that [`Edge::advance`] is given.
    pub arrived_ms: f64,
}

impl Config {
    /// Exact speculation within the limits of [`msao_core::offload::Plan::plain`].
    pub fn exact(open: Open) -> Config {
        Config {
            open,
            start: Start::Speculate,
            opened: false,
            gamma_max: 4,
            in_flight_max: 1,
            in_flight_tokens_max: 256,
            patience_ms: 1000.0,
            confidence_floor: f64::INFINITY,
            alone_floor: 0.0,
            exact_only: false,
            parted_limit_ms: 5000.0,
            arrived_ms: 0.0,
        }
    }
}

/// A token that the draft model has chosen, with what a policy sees of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drafted {
    /// Of the [`Effect::Draft`] that asked for it.
    pub stamp: u64,
    /// The token; where `ends` is set, the id that ends the sequence.
    pub id: u32,
    /// Whether the draft model ends the answer here.
    pub ends: bool,
    /// Calibrated probability that the target accepts it, in `[0, 1]`: what the policy is told.
    pub p_accept: f64,
    /// The same by the map that audits hold to, in `[0, 1]`: what may be committed unverified is held against this.
    pub sure: f64,
    /// Its probability in the draft model.
    pub top1: f64,
    /// Entropy of the draft's distribution, in nats.
    pub entropy_nats: f64,
    /// Between the draft's two best, in logits.
    pub margin: f64,
}

/// A draft, and what the target said to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// The draft.
    pub drafted: Drafted,
    /// Whether the target chose the same.
    pub accepted: bool,
}

/// What happens to the edge.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The draft model has chosen a token.
    Drafted(Drafted),
    /// A verdict came.
    Verdict(Verdict),
    /// The policy answered [`Effect::Ask`].
    Action(Action),
    /// The time of [`Edge::due_ms`] has come.
    Tick,
    /// The session's stream broke, or the peer closed it.
    PeerLost,
    /// A new stream to the peer stands.
    PeerBack,
    /// The peer refused the session.
    Refused,
    /// The draft model is of no more use: it failed, or had no room.
    DraftLost,
    /// What let drafts be committed unverified holds no more: the rest is exact, drafts that are there already included. What
    /// is committed stays.
    Shut,
    /// What is known of the peer, in ms; -1 for what is not.
    Peer {
        /// Round trip.
        rtt_ms: f64,
        /// Wait before new work begins.
        queue_ms: f64,
    },
    /// The client wants no more, or has all that it wants (a stop string), or its time is up.
    Stop,
}

/// A token of the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The token.
    pub id: u32,
    /// Whether the target chose it.
    pub verified: bool,
    /// The target's log-probabilities, where asked for and verified.
    pub logprobs: Option<TopLogprobs>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer is whole.
    Finished(Finish),
    /// [`Event::Stop`] came.
    Stopped,
    /// The peer is gone, and the answer may not be finished without it.
    NotExact,
    /// The draft model is gone, and there is nobody else.
    NoModel,
}

/// What a peer said that cannot be: its stream is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A verdict of another session.
    #[error("a verdict belongs to another session than its stream")]
    Session,
    /// A verdict of an epoch that has not begun.
    #[error("a verdict is of epoch {found}, and the newest is {newest}")]
    Epoch {
        /// Its epoch.
        found: u32,
        /// The newest.
        newest: u32,
    },
    /// Verdicts with a gap or an overlap between them.
    #[error("a verdict starts at place {found}, and the one before ended at {expected}")]
    Start {
        /// Where it starts.
        found: u32,
        /// Where it should.
        expected: u32,
    },
    /// More drafts accepted than are in flight.
    #[error("a verdict accepts {accepted} drafts, and {in_flight} are in flight")]
    Accepted {
        /// Drafts accepted.
        accepted: u32,
        /// Drafts in flight.
        in_flight: u32,
    },
    /// Tokens past the answer's end.
    #[error("a verdict goes on to place {end}, and the answer may have {most} tokens")]
    TooLong {
        /// Where it ends.
        end: u32,
        /// Tokens of the answer at most.
        most: u32,
    },
}

/// What the node has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to the peer.
    Send(Frame),
    /// Have the draft model choose the token at this place of the answer, and come back with the stamp.
    Draft {
        /// Told apart by this.
        stamp: u64,
        /// Place in the answer.
        position: u32,
    },
    /// Take the draft model back to so many tokens of the answer.
    RollBack {
        /// Tokens that are left.
        to: u32,
    },
    /// Have the draft model read these as the next tokens of the answer.
    Append {
        /// The tokens.
        ids: Vec<u32>,
    },
    /// Hand these to the client.
    Commit(Vec<Committed>),
    /// Ask the policy's `step` and come back with [`Event::Action`]. At most one such question is open. On routes
    /// `cloud` and `cloud-draft`, which have no steps, the node answers itself: wait or finish.
    Ask(StepInput),
    /// Give the stream to the peer up: it contradicts itself. The session goes on as after [`Event::PeerLost`].
    GiveUpStream(Violation),
    /// It is over. Nothing follows.
    End(Ending),
}
