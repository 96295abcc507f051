//! What a policy implements, and what it is given.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{Action, Calibration, Decision, Node, Outcome, Part, Plan, Request, Update};

/// Everything that `plan` may read.
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
    /// What this plug-in has learned.
    pub calibration: &'a Calibration,
}

impl<'a> PlanInput<'a> {
    /// This node.
    pub fn here(&self) -> &'a Node {
        // The contract says that there is one; a host that breaks it gets plans for a node that can do nothing.
        self.nodes.first().unwrap_or(&Node::UNKNOWN)
    }

    /// Every other node with its row, which is what a plan calls its peer.
    pub fn peers(&self) -> impl Iterator<Item = (u32, &'a Node)> + use<'a> {
        (0u32..).zip(self.nodes).skip(1)
    }

    /// The peer with all of these capabilities ([`crate::capability`]) that is up, has room for prompt and answer, and
    /// would begin soonest: round trip and waits; the first of equals, and those whose round trip is unknown last.
    pub fn nearest(&self, capabilities: u32) -> Option<(u32, &'a Node)> {
        let begins_ms = |node: &Node| match node.rtt_ms {
            rtt_ms if rtt_ms >= 0.0 => rtt_ms + node.queue_ms.max(0.0) + node.planned_ms.max(0.0),
            _ => f64::INFINITY,
        };
        self.peers()
            .filter(|(_, node)| node.up && node.is(capabilities) && self.has_room(node))
            .min_by(|(_, a), (_, b)| begins_ms(a).total_cmp(&begins_ms(b)))
    }

    /// Whether prompt and answer fit into the node's cache, as far as is known.
    pub fn has_room(&self, node: &Node) -> bool {
        let tokens = f64::from(self.request.prompt_tokens) + f64::from(self.request.max_tokens);
        node.kv_free < 0.0 || node.kv_free >= tokens
    }

    /// Media, without the text.
    pub fn media(&self) -> impl Iterator<Item = &'a Part> + use<'a> {
        self.parts.iter().filter(|part| part.is_media())
    }

    /// Whether there are media that must not leave this node.
    pub fn bound_here(&self) -> bool {
        self.request.has(crate::flag::MEDIA_AT_EDGE) && self.media().next().is_some()
    }

    /// Bytes of media that `node` does not have yet.
    pub fn bytes_to_send(&self, node: &Node) -> f64 {
        let bytes: f64 = self.media().map(|part| part.bytes).sum();
        (bytes - node.cached_bytes.max(0.0)).max(0.0)
    }
}

/// What happened before a `step`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// A token was drafted.
    #[default]
    Drafted,
    /// A verdict came.
    Verdict,
    /// A verdict is overdue.
    Overdue,
    /// The link went down.
    LinkDown,
    /// The link came up.
    LinkUp,
    /// The peer refused.
    Refused,
}

impl Event {
    /// The event with the contract's number. Those of later versions are taken for [`Event::Drafted`], as it says.
    pub fn of(kind: u32) -> Event {
        match kind {
            1 => Event::Verdict,
            2 => Event::Overdue,
            3 => Event::LinkDown,
            4 => Event::LinkUp,
            5 => Event::Refused,
            _ => Event::Drafted,
        }
    }
}

/// Everything that `step` may read, but for the memo. Units: `policy.step` in `wit/worlds.wit`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepInput {
    /// What happened.
    pub event: Event,
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

/// Decides how requests run. Pure: what a function may read is in its arguments, what it may change is its result.
pub trait Policy {
    /// How to run this request. Called once, or twice with `probe = "ask"` in the manifest.
    fn plan(input: &PlanInput) -> Decision;

    /// What to do now. Called on routes `edge` and `speculate` whenever something happened. `memo` is the plan's; a
    /// plan of the host's own (a fallback) has an empty one.
    fn step(input: &StepInput, memo: &[u8]) -> Action;

    /// What is learned from how it went. At most 256 updates; none by default.
    fn observe(outcome: &Outcome, params: &[f64], calibration: &Calibration) -> Vec<Update> {
        let _ = (outcome, params, calibration);
        Vec::new()
    }
}

/// A policy that says in words why a plan is as it is.
pub trait Explain: Policy {
    /// At most 4 KiB of plain text.
    fn explain(input: &PlanInput, plan: &Plan) -> String;
}
