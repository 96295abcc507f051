//! The edge's machine: what it holds, its phases, time.

use std::collections::VecDeque;

use msao_core::offload::kind;

use super::tail::Tail;
use super::{Committed, Config, Counters, Drafted, Effect, Ending, Event, Judged, Start};
use crate::PrefixDigest;
use crate::frame::limits::MAX_PROPOSED;
use crate::frame::{Cancel, Close, Finish, Frame, Open, Wanted};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    Speculating,
    /// The rest is the target's.
    Escalated,
    Parted {
        since_ms: f64,
        escalated: bool,
    },
    /// While the policy is still asked, a draft is committed once it has been: until then it is the tail's only one.
    Alone {
        /// Whether the policy is still asked.
        may_escalate: bool,
    },
    Done,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Edge {
    pub(super) config: Config,
    pub(super) phase: Phase,
    /// What is asked of the peer once the rest is its own.
    pub(super) rest: Wanted,
    pub(super) committed: Vec<u32>,
    pub(super) prefix: PrefixDigest,
    pub(super) tail: Tail,
    /// Stamp of the draft under way.
    pub(super) drafting: Option<u64>,
    /// Committed tokens that the draft model has not read, because a draft for the first of their places is under
    /// way: it may well choose the same. The tail is empty while there are any.
    pub(super) ahead: VecDeque<u32>,
    pub(super) epoch: u32,
    /// Verdicts of older epochs are void: since then the edge has committed by itself, or opened the session again.
    pub(super) fence: u32,
    pub(super) round: u32,
    pub(super) stamp: u64,
    /// There is no draft model any more.
    pub(super) draftless: bool,
    /// Unsent drafts are to be sent as soon as the limits allow.
    pub(super) flush: bool,
    /// A question to the policy is open.
    pub(super) asked: bool,
    /// It was about a draft.
    pub(super) looked: bool,
    /// What happened since it was asked.
    pub(super) pending: Option<u32>,
    pub(super) last: Option<Drafted>,
    pub(super) rtt_ms: f64,
    pub(super) queue_ms: f64,
    /// Patience is counted from here.
    pub(super) news_ms: f64,
    /// The peer was heard of last, or something was first asked of it.
    pub(super) heard_ms: f64,
    /// The peer was lost, and has given no verdict since, be it back or not.
    pub(super) lost_ms: Option<f64>,
    pub(super) waiting_since: Option<f64>,
    pub(super) counters: Counters,
    /// Since it was taken last. No longer than an answer: a place is judged once.
    judged: Vec<Judged>,
}

impl Edge {
    /// A session that begins at `now_ms`, and what has to be done first.
    pub fn start(config: Config, now_ms: f64) -> (Edge, Vec<Effect>) {
        let mut config = config;
        config.gamma_max = config.gamma_max.clamp(1, MAX_PROPOSED as u32);
        config.in_flight_max = config.in_flight_max.max(1);
        config.in_flight_tokens_max = config.in_flight_tokens_max.max(1);
        let committed = std::mem::take(&mut config.open.committed);
        let (phase, rest) = match config.start {
            Start::Speculate => (Phase::Speculating, Wanted::Decode),
            Start::Alone => (Phase::Alone { may_escalate: true }, Wanted::Decode),
            Start::Cloud { with_draft: false } => (Phase::Escalated, Wanted::Decode),
            Start::Cloud { with_draft: true } => (Phase::Escalated, Wanted::DecodeWithDraft),
        };
        let mut edge = Edge {
            phase,
            rest,
            prefix: PrefixDigest::of(&committed),
            tail: Tail::default(),
            drafting: None,
            ahead: VecDeque::new(),
            epoch: config.open.epoch,
            fence: config.open.epoch,
            round: 0,
            stamp: 0,
            draftless: false,
            flush: false,
            asked: false,
            looked: false,
            pending: None,
            last: None,
            rtt_ms: -1.0,
            queue_ms: -1.0,
            news_ms: now_ms,
            heard_ms: now_ms,
            lost_ms: None,
            waiting_since: None,
            counters: Counters::default(),
            judged: Vec::new(),
            committed,
            config,
        };
        let mut out = Vec::new();
        match edge.phase {
            Phase::Speculating if edge.config.opened => {}
            Phase::Escalated if edge.config.opened => {
                // The peer has waited for drafts, of which there will be none. It may have chosen tokens meanwhile.
                let rest = edge.round(0, Vec::new(), Vec::new(), true);
                out.push(Effect::Send(Frame::Draft(rest)));
            }
            Phase::Speculating => out.push(Effect::Send(edge.open(Wanted::Verify))),
            Phase::Escalated => out.push(Effect::Send(edge.open(edge.rest))),
            _ => {}
        }
        if !edge.committed.is_empty() {
            out.push(Effect::Append {
                ids: edge.committed.clone(),
            });
        }
        if edge.phase != Phase::Escalated {
            edge.draft(&mut out);
        }
        (edge, out)
    }

    /// Takes in what happened at `now_ms` and says what has to be done, in this order. The clock is any that does not
    /// go back.
    pub fn advance(&mut self, now_ms: f64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.phase == Phase::Done {
            return out;
        }
        if let Some(since_ms) = self.waiting_since.take() {
            self.counters.waited_ms += (now_ms - since_ms).max(0.0);
        }
        match event {
            Event::Drafted(drafted) => self.drafted(now_ms, drafted, &mut out),
            Event::Verdict(verdict) => self.verdict(now_ms, verdict, &mut out),
            Event::Action(action) => self.act(now_ms, action, &mut out),
            Event::Tick => self.tick(now_ms, &mut out),
            Event::PeerLost => self.part(now_ms, kind::LINK_DOWN, &mut out),
            Event::PeerBack => self.back(now_ms, &mut out),
            Event::DraftLost => self.draft_lost(&mut out),
            Event::Shut => self.shut(),
            Event::Refused => self.part(now_ms, kind::REFUSED, &mut out),
            Event::Peer { rtt_ms, queue_ms } => {
                self.rtt_ms = rtt_ms;
                self.queue_ms = queue_ms;
            }
            Event::Stop => {
                self.cancel(&mut out);
                self.end(Ending::Stopped, &mut out);
            }
        }
        self.send(now_ms, &mut out);
        if self.linked() && self.drafting.is_none() && self.tail.in_flight() > 0 {
            self.waiting_since = Some(now_ms);
        }
        out
    }

    /// When [`Event::Tick`] is due next, if nothing else happens before.
    pub fn due_ms(&self) -> Option<f64> {
        let patience = self.news_ms + self.config.patience_ms;
        match self.phase {
            Phase::Speculating | Phase::Escalated => Some(patience),
            Phase::Parted { since_ms, .. } => {
                Some(patience.min(since_ms + self.config.parted_limit_ms))
            }
            Phase::Alone { .. } | Phase::Done => None,
        }
    }

    /// The answer so far.
    pub fn committed(&self) -> &[u32] {
        &self.committed
    }

    /// The counts so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The drafts that were held against the target's choice since this was asked last, in the order of their places.
    pub fn take_judged(&mut self) -> Vec<Judged> {
        std::mem::take(&mut self.judged)
    }

    /// A draft that was made behind so many unjudged ones was held against the target's choice.
    pub(super) fn judge(&mut self, behind: usize, drafted: Drafted, accepted: bool) {
        self.counters.judge(behind, drafted.p_accept, accepted);
        self.judged.push(Judged { drafted, accepted });
    }

    /// Whether it is over.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    pub(super) fn tick(&mut self, now_ms: f64, out: &mut Vec<Effect>) {
        if self.due_ms().is_none_or(|due_ms| now_ms < due_ms) {
            return;
        }
        self.news_ms = now_ms;
        if let Phase::Parted { since_ms, .. } = self.phase
            && self.is_too_long(since_ms, now_ms)
        {
            return self.finish_alone(out);
        }
        if self.drafting.is_some() && self.tail.in_flight() == 0 {
            // Nothing is overdue.
            return;
        }
        if self.tail.in_flight() == 0 && self.phase == Phase::Speculating && !self.asked {
            // A policy that waits for nothing would wait for ever.
            self.flush = true;
            self.draft(out);
        }
        self.ask(now_ms, kind::OVERDUE, out);
    }

    /// The peer is out of reach. What was in flight may be verified later: it is kept.
    pub(super) fn part(&mut self, now_ms: f64, kind: u32, out: &mut Vec<Effect>) {
        let escalated = match self.phase {
            Phase::Speculating => false,
            Phase::Escalated => true,
            Phase::Parted { .. } | Phase::Alone { may_escalate: true } => {
                return self.ask(now_ms, kind, out);
            }
            Phase::Alone { .. } | Phase::Done => return,
        };
        // One that comes back only to go again is waited for no longer than one that stays away.
        let since_ms = *self.lost_ms.get_or_insert(now_ms);
        self.phase = Phase::Parted {
            since_ms,
            escalated,
        };
        self.tail.unsend();
        self.flush = false;
        self.renew_epoch();
        self.news_ms = now_ms;
        if self.is_too_long(since_ms, now_ms) {
            return self.finish_alone(out);
        }
        self.ask(now_ms, kind, out);
    }

    /// Whether a peer that was last heard, or was lost, at `since_ms` has been waited for long enough. By the very sum that
    /// [`Edge::due_ms`] tells: the difference may be rounded to less, and on a clock that stands still until what is due has
    /// been done the tick would then come for ever.
    pub(super) fn is_too_long(&self, since_ms: f64, now_ms: f64) -> bool {
        now_ms >= since_ms + self.config.parted_limit_ms
    }

    pub(super) fn back(&mut self, now_ms: f64, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Parted { escalated, .. } => {
                let wanted = if escalated { self.rest } else { Wanted::Verify };
                out.push(Effect::Send(self.open(wanted)));
                self.news_ms = now_ms;
                self.heard_ms = now_ms;
                if escalated {
                    self.phase = Phase::Escalated;
                    self.stop_drafting(out);
                } else {
                    self.phase = Phase::Speculating;
                    // Drafts that were ready before the cut are not held back again.
                    self.flush = !self.tail.is_empty();
                }
                self.ask(now_ms, kind::LINK_UP, out);
            }
            Phase::Alone { may_escalate: true } => self.ask(now_ms, kind::LINK_UP, out),
            _ => {}
        }
    }

    /// The rest is the target's, or nobody's.
    fn draft_lost(&mut self, out: &mut Vec<Effect>) {
        self.draftless = true;
        // Nobody is left to finish alone.
        self.config.exact_only = true;
        self.drafting = None;
        self.ahead.clear();
        match self.phase {
            Phase::Alone { .. } => self.end(Ending::NoModel, out),
            Phase::Speculating => self.escalate(out),
            Phase::Parted { since_ms, .. } => {
                self.tail.clear();
                self.phase = Phase::Parted {
                    since_ms,
                    escalated: true,
                };
            }
            Phase::Escalated | Phase::Done => {}
        }
    }

    /// The draft model answers from here on. Its drafts are its answer.
    pub(super) fn finish_alone(&mut self, out: &mut Vec<Effect>) {
        self.cancel(out);
        if self.config.exact_only {
            return self.end(Ending::NotExact, out);
        }
        self.counters.degraded = true;
        // There is nobody to leave anything to.
        self.config.alone_floor = 0.0;
        self.phase = Phase::Alone {
            may_escalate: false,
        };
        self.flush = false;
        let ends = self.tail.ends();
        let ids = self.tail.first(self.tail.len() - usize::from(ends));
        self.tail.clear();
        self.commit_unverified(&ids, out);
        if ends {
            return self.end(Ending::Finished(Finish::EndOfSequence), out);
        }
        if !self.whole(out) {
            self.draft(out);
        }
    }

    /// Ends the session if the answer has all its tokens.
    pub(super) fn whole(&mut self, out: &mut Vec<Effect>) -> bool {
        let whole = self.committed.len() >= self.config.open.max_tokens as usize;
        if whole {
            self.end(Ending::Finished(Finish::Length), out);
        }
        whole
    }

    pub(super) fn end(&mut self, ending: Ending, out: &mut Vec<Effect>) {
        if self.linked() && matches!(ending, Ending::Finished(_)) {
            let session = self.config.open.session;
            out.push(Effect::Send(Frame::Close(Close { session })));
        }
        self.phase = Phase::Done;
        out.push(Effect::End(ending));
    }

    pub(super) fn cancel(&mut self, out: &mut Vec<Effect>) {
        if self.linked() {
            let session = self.config.open.session;
            out.push(Effect::Send(Frame::Cancel(Cancel { session })));
        }
    }

    /// Whether the peer has this session.
    pub(super) fn linked(&self) -> bool {
        matches!(self.phase, Phase::Speculating | Phase::Escalated)
    }

    pub(super) fn renew_epoch(&mut self) {
        self.epoch += 1;
        self.fence = self.epoch;
    }

    pub(super) fn open(&self, wanted: Wanted) -> Frame {
        Frame::Open(Box::new(Open {
            epoch: self.epoch,
            wanted,
            committed: self.committed.clone(),
            ..self.config.open.clone()
        }))
    }

    /// Makes a token part of the answer.
    pub(super) fn take(&mut self, id: u32) {
        self.committed.push(id);
        self.prefix.push(id);
        self.counters.tokens += 1;
    }

    pub(super) fn commit_unverified(&mut self, ids: &[u32], out: &mut Vec<Effect>) {
        if ids.is_empty() {
            return;
        }
        ids.iter().for_each(|&id| self.take(id));
        self.counters.unverified += ids.len() as u32;
        if self.counters.degraded {
            self.counters.unverified_parted += ids.len() as u32;
        }
        let committed = ids.iter().map(|&id| Committed {
            id,
            verified: false,
            logprobs: None,
        });
        out.push(Effect::Commit(committed.collect()));
    }
}
