//! What the policy is asked, and what becomes of its answers.

use msao_core::offload::{Action, StepInput, kind};

use super::machine::{Edge, Phase};
use super::{Drafted, Effect};
use crate::frame::Frame;

impl Edge {
    pub(super) fn act(&mut self, now_ms: f64, action: Action, out: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.asked) {
            return;
        }
        let action = match (self.phase, action) {
            // A target that is there is not left for the draft model's word: only the floors allow what it has not seen.
            (Phase::Speculating | Phase::Escalated, Action::Finish) if !self.is_silent(now_ms) => {
                Action::Draft
            }
            _ => action,
        };
        match (self.phase, action) {
            (Phase::Speculating | Phase::Escalated | Phase::Parted { .. }, Action::Finish) => {
                self.finish_alone(out);
            }
            (Phase::Speculating, Action::Draft) => {
                // A round is full: it goes, as the plan's limit says.
                self.flush |= self.tail.unsent() >= self.config.gamma_max as usize;
                self.send(now_ms, out);
                self.draft(out);
            }
            (Phase::Speculating, Action::Send) => {
                self.flush = true;
                self.send(now_ms, out);
                self.draft(out);
            }
            (Phase::Speculating, Action::Commit) => {
                self.commit_confident(now_ms, out);
                self.draft(out);
            }
            (Phase::Speculating, Action::Escalate) => self.escalate(out),
            (Phase::Parted { .. }, Action::Draft | Action::Send | Action::Commit) => {
                self.draft(out);
            }
            (Phase::Parted { since_ms, .. }, Action::Escalate) => {
                self.counters.escalated = true;
                self.phase = Phase::Parted {
                    since_ms,
                    escalated: true,
                };
            }
            (Phase::Speculating | Phase::Parted { .. }, Action::Wait) => {}
            // The target goes on by itself.
            (Phase::Escalated, _) => {}
            (Phase::Alone { may_escalate: true }, action) => {
                let looked = std::mem::take(&mut self.looked);
                self.act_alone(now_ms, action, looked, out);
            }
            (Phase::Alone { .. }, _) => self.draft(out),
            (Phase::Done, _) => {}
        }
        if let Some(kind) = self.pending.take() {
            self.ask(now_ms, kind, out);
        }
    }

    /// On route `edge`. `looked`: the policy was asked about the draft that is there.
    fn act_alone(&mut self, now_ms: f64, action: Action, looked: bool, out: &mut Vec<Effect>) {
        if action == Action::Escalate {
            self.abandon_draft(out);
            // The target judges what is there: it stays in the tail.
            return self.leave_to_target(now_ms, out);
        }
        let settled = action == Action::Finish;
        if settled {
            // There is nothing to wait for.
            self.phase = Phase::Alone {
                may_escalate: false,
            };
        }
        if (looked || settled)
            && let Some(token) = self.tail.pop()
            && !self.commit_own(now_ms, token.drafted, out)
        {
            return;
        }
        if !self.tail.is_empty() && self.pending.is_none() {
            // What was asked was not about it.
            self.pending = Some(kind::DRAFTED);
        }
        self.draft(out);
    }

    /// Whether nothing has come from the peer for as long as a lost one is waited for.
    fn is_silent(&self, now_ms: f64) -> bool {
        self.is_too_long(self.heard_ms, now_ms)
    }

    /// From route `edge`: a session is opened, and the rest is the target's.
    pub(super) fn leave_to_target(&mut self, now_ms: f64, out: &mut Vec<Effect>) {
        self.phase = Phase::Escalated;
        self.counters.escalated = true;
        self.news_ms = now_ms;
        self.heard_ms = now_ms;
        self.renew_epoch();
        out.push(Effect::Send(self.open(self.rest)));
    }

    pub(super) fn escalate(&mut self, out: &mut Vec<Effect>) {
        self.stop_drafting(out);
        self.phase = Phase::Escalated;
        self.counters.escalated = true;
        let start = self.committed.len() + self.tail.len();
        let rest = self.round(start, Vec::new(), Vec::new(), true);
        out.push(Effect::Send(Frame::Draft(rest)));
    }

    /// From here on no draft is sure enough to be committed unverified.
    pub(super) fn shut(&mut self) {
        self.config.confidence_floor = f64::INFINITY;
        // Without such a floor the draft model is free to answer, whatever audits have shown.
        if self.config.alone_floor > 0.0 {
            self.config.alone_floor = f64::INFINITY;
        }
    }

    /// Commits what is probable enough and sends the rest.
    pub(super) fn commit_confident(&mut self, now_ms: f64, out: &mut Vec<Effect>) {
        let floor = self.config.confidence_floor;
        let mut ids = Vec::new();
        // What is in flight comes first: behind it nothing can be committed.
        while self.tail.in_flight() == 0
            && let Some(token) = self.tail.front()
            && token.drafted.sure >= floor
            && !token.drafted.ends
        {
            ids.push(token.drafted.id);
            self.tail.pop();
        }
        self.flush = true;
        if ids.is_empty() {
            return self.send(now_ms, out);
        }
        self.commit_unverified(&ids, out);
        // The target may have gone another way in the meantime: what it says of that way is void.
        self.renew_epoch();
        self.send_round(now_ms, self.config.gamma_max as usize, ids, out);
        if self.whole(out) {
            return;
        }
        self.send(now_ms, out);
    }

    /// Asks the policy, or notes what happened while it is being asked. A draft is the least of news.
    pub(super) fn ask(&mut self, now_ms: f64, news: u32, out: &mut Vec<Effect>) {
        let settled = Phase::Alone {
            may_escalate: false,
        };
        if self.phase == Phase::Done || self.phase == settled {
            return;
        }
        if self.asked {
            if self.pending.is_none() || news != kind::DRAFTED {
                self.pending = Some(news);
            }
            return;
        }
        self.asked = true;
        self.looked = news == kind::DRAFTED;
        let last = self.last;
        let scalar = |of: fn(&Drafted) -> f64| last.as_ref().map_or(0.0, of);
        out.push(Effect::Ask(StepInput {
            kind: news,
            p_accept: scalar(|last| last.p_accept),
            top1: scalar(|last| last.top1),
            entropy_nats: scalar(|last| last.entropy_nats),
            margin: scalar(|last| last.margin),
            judged: self.counters.judged(),
            accepted: self.counters.accepted(),
            unsent: self.tail.unsent() as u32,
            in_flight: self.tail.in_flight() as u32,
            committed: self.committed.len() as u32,
            waited_ms: self.tail.oldest_ms().map_or(0.0, |sent| now_ms - sent),
            elapsed_ms: now_ms - self.config.arrived_ms,
            rtt_ms: self.rtt_ms,
            queue_ms: self.queue_ms,
        }));
    }
}
