//! Drafts: having them made, sending them, taking them back.

use msao_core::offload::kind;

use super::machine::{Edge, Phase};
use super::tail::Token;
use super::{Drafted, Effect, Ending};
use crate::frame::{Draft, Finish, Frame};

impl Edge {
    pub(super) fn drafted(&mut self, now_ms: f64, drafted: Drafted, out: &mut Vec<Effect>) {
        if self.drafting != Some(drafted.stamp) {
            // Taken back while it was under way.
            return;
        }
        self.drafting = None;
        self.last = Some(drafted);
        if let Some(&due) = self.ahead.front() {
            // The target was first; an id that ends the sequence is never one of its tokens.
            let equal = due == drafted.id && !drafted.ends;
            self.judge(0, drafted, equal);
            let read = self.committed.len() - self.ahead.len();
            if equal {
                self.ahead.pop_front();
            } else {
                self.counters.rollbacks += 1;
                self.counters.wasted += 1;
                out.push(Effect::RollBack { to: read as u32 });
            }
            self.catch_up(out);
        } else if let Phase::Alone { may_escalate } = self.phase {
            if may_escalate && self.is_own(&drafted) {
                // The policy says first whether it is.
                self.tail.push(Token { drafted, behind: 0 });
            } else if !self.commit_own(now_ms, drafted, out) {
                return;
            }
        } else {
            let behind = self.tail.len();
            self.tail.push(Token { drafted, behind });
        }
        match self.phase {
            Phase::Alone {
                may_escalate: false,
            } => self.draft(out),
            // What it drafts is for the case that the peer is lost; nobody decides by it.
            Phase::Escalated => {}
            _ => self.ask(now_ms, kind::DRAFTED, out),
        }
    }

    /// Whether the draft model may answer with it, on route `edge`.
    fn is_own(&self, drafted: &Drafted) -> bool {
        let floor = self.config.alone_floor;
        floor <= 0.0 || drafted.sure >= floor
    }

    /// Makes what the draft model chose part of its own answer, or leaves it and the rest to the target, which judges it
    /// then. Gives whether the draft model goes on.
    pub(super) fn commit_own(
        &mut self,
        now_ms: f64,
        drafted: Drafted,
        out: &mut Vec<Effect>,
    ) -> bool {
        if !self.is_own(&drafted) {
            self.tail.push(Token { drafted, behind: 0 });
            self.leave_to_target(now_ms, out);
            return false;
        }
        if drafted.ends {
            self.end(Ending::Finished(Finish::EndOfSequence), out);
            return false;
        }
        self.commit_unverified(&[drafted.id], out);
        !self.whole(out)
    }

    /// Has the next token drafted if there is a place for it.
    pub(super) fn draft(&mut self, out: &mut Vec<Effect>) {
        let position = self.committed.len() + self.tail.len();
        let full = position >= self.config.open.max_tokens as usize || self.tail.ends();
        if self.drafting.is_some() || self.draftless || self.phase == Phase::Done {
            return;
        }
        if full {
            // Nothing is left to draft: only a verdict leads on.
            self.flush = true;
            return;
        }
        let gamma = self.config.gamma_max as usize;
        let most = match self.phase {
            // A full round that cannot be sent waits for a verdict.
            Phase::Speculating => gamma,
            // That one is not committed yet.
            Phase::Alone { .. } => 1,
            _ => gamma.max(self.config.in_flight_tokens_max as usize),
        };
        if self.tail.unsent() >= most {
            return;
        }
        self.stamp += 1;
        self.drafting = Some(self.stamp);
        out.push(Effect::Draft {
            stamp: self.stamp,
            position: position as u32,
        });
    }

    /// Sends unsent drafts as far as the limits allow, if they are to be sent.
    pub(super) fn send(&mut self, now_ms: f64, out: &mut Vec<Effect>) {
        while self.flush && self.phase == Phase::Speculating {
            let room =
                (self.config.in_flight_tokens_max as usize).saturating_sub(self.tail.in_flight());
            let count = (self.config.gamma_max as usize).min(room);
            let may = self.tail.rounds() < self.config.in_flight_max as usize;
            if self.tail.unsent() == 0 {
                self.flush = false;
            } else if may && count > 0 {
                self.send_round(now_ms, count, Vec::new(), out);
            } else {
                return;
            }
        }
    }

    /// Sends a round: ids that were just committed here, then up to `count` unsent drafts.
    pub(super) fn send_round(
        &mut self,
        now_ms: f64,
        count: usize,
        forced: Vec<u32>,
        out: &mut Vec<Effect>,
    ) {
        let start = self.committed.len() + self.tail.in_flight() - forced.len();
        let proposed = self.tail.send(count, now_ms);
        if !proposed.is_empty() {
            self.counters.rounds += 1;
        }
        if self.tail.rounds() <= 1 {
            // Nothing else was waited for.
            self.news_ms = now_ms;
            self.heard_ms = now_ms;
        }
        let round = self.round(start, forced, proposed, false);
        out.push(Effect::Send(Frame::Draft(round)));
    }

    pub(super) fn round(
        &mut self,
        start: usize,
        forced: Vec<u32>,
        proposed: Vec<u32>,
        last: bool,
    ) -> Draft {
        self.round += 1;
        let committed = self.committed.len();
        Draft {
            session: self.config.open.session,
            epoch: self.epoch,
            round: self.round,
            committed: committed as u32,
            prefix: self.prefix.digest(),
            start: start as u32,
            forced,
            proposed,
            last,
        }
    }

    /// Drops what was not sent, and what is being drafted.
    pub(super) fn stop_drafting(&mut self, out: &mut Vec<Effect>) {
        let dropped = self.tail.drop_unsent();
        self.counters.wasted += dropped as u32;
        self.flush = false;
        if self.drafting.is_some() {
            self.abandon_draft(out);
        } else if dropped > 0 {
            let to = (self.committed.len() + self.tail.len()) as u32;
            out.push(Effect::RollBack { to });
        }
    }

    /// Takes the draft under way back, if there is one.
    pub(super) fn abandon_draft(&mut self, out: &mut Vec<Effect>) {
        if self.drafting.take().is_some() {
            let to = self.committed.len() - self.ahead.len() + self.tail.len();
            out.push(Effect::RollBack { to: to as u32 });
            self.catch_up(out);
        }
    }

    /// Has the draft model read what was committed ahead of it.
    pub(super) fn catch_up(&mut self, out: &mut Vec<Effect>) {
        let ids: Vec<u32> = self.ahead.drain(..).collect();
        if !ids.is_empty() {
            out.push(Effect::Append { ids });
        }
    }
}
