//! The cloud's machine: phases, orders to the target, verdicts.

use super::drafts::Pending;
use super::{Choice, Config, Counters, Effect, Event};
use crate::PrefixDigest;
use crate::frame::limits::{MAX_TEXT_BYTES, MAX_VERDICT_IDS};
use crate::frame::{Finish, Frame, Open, Refused, RefusedCode, Verdict, Wanted};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Phase {
    Serving,
    /// The end was told.
    Finished {
        until_ms: f64,
    },
    /// The edge is out of reach.
    Leased {
        until_ms: f64,
    },
    Freed,
}

/// The order that is under way.
#[derive(Clone, Copy, Debug)]
struct Order {
    stamp: u64,
    /// Whether it had no drafts.
    idle: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Cloud {
    config: Config,
    /// What it was opened with; `committed` is empty.
    pub(super) request: Open,
    pub(super) phase: Phase,
    deadline_ms: Option<f64>,
    /// The prompt has been read.
    ready: bool,
    spare: bool,
    /// The target decodes on, spare capacity or not.
    pub(super) decode_on: bool,
    /// The answer as the target has it.
    pub(super) chosen: Vec<u32>,
    /// Of the part of it that the edge was last seen to have committed.
    pub(super) prefix: PrefixDigest,
    pub(super) pending: Pending,
    order: Option<Order>,
    stamp: u64,
    pub(super) counters: Counters,
}

impl Cloud {
    /// A session that is opened at `now_ms`, and what has to be done first. Send [`Event::Ready`] when the prompt has
    /// been read.
    pub fn open(open: Open, config: Config, now_ms: f64) -> (Cloud, Vec<Effect>) {
        let mut request = open;
        let chosen = std::mem::take(&mut request.committed);
        let config = Config {
            batch_max: config.batch_max.clamp(1, MAX_VERDICT_IDS / 2),
            ..config
        };
        let cloud = Cloud {
            phase: Phase::Serving,
            deadline_ms: deadline(&request, now_ms),
            ready: false,
            spare: false,
            decode_on: request.wanted != Wanted::Verify,
            prefix: PrefixDigest::of(&chosen),
            pending: Pending::new(request.epoch, config.pending_max),
            order: None,
            stamp: 0,
            counters: Counters::default(),
            chosen,
            config,
            request,
        };
        let ids = cloud.chosen.clone();
        let append = (!ids.is_empty()).then_some(Effect::Append { ids });
        (cloud, append.into_iter().collect())
    }

    /// Takes in what happened at `now_ms` and says what has to be done, in this order. The clock is any that does not
    /// go back.
    pub fn advance(&mut self, now_ms: f64, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        if self.phase == Phase::Freed {
            return out;
        }
        match event {
            Event::Ready => self.ready = true,
            Event::Draft(draft) if self.phase == Phase::Serving => self.drafted(draft, &mut out),
            // The answer has its end, or comes from a stream that is no more.
            Event::Draft(_) => self.counters.stale_rounds += 1,
            Event::Verified {
                stamp,
                choices,
                ended,
            } => self.verified(now_ms, stamp, choices, ended, &mut out),
            Event::Failed {
                code,
                retry_after_ms,
                message,
            } => self.refuse(code, retry_after_ms, &message, &mut out),
            Event::Spare(spare) => self.spare = spare,
            Event::Lost => self.lost(now_ms),
            Event::Reopened(open) => self.reopened(now_ms, *open, &mut out),
            Event::Done => self.free(&mut out),
            Event::Tick => self.tick(now_ms, &mut out),
        }
        self.work(now_ms, &mut out);
        out
    }

    /// From here on at most so many drafts go into one order; what waits behind them comes with the next.
    pub fn limit_batch(&mut self, drafts: usize) {
        self.config.batch_max = drafts.clamp(1, MAX_VERDICT_IDS / 2);
    }

    /// When [`Event::Tick`] is due next, if nothing else happens before.
    pub fn due_ms(&self) -> Option<f64> {
        let own = match self.phase {
            Phase::Serving => None,
            Phase::Finished { until_ms } | Phase::Leased { until_ms } => Some(until_ms),
            Phase::Freed => return None,
        };
        match (own, self.deadline_ms) {
            (Some(own), Some(deadline)) => Some(own.min(deadline)),
            (one, other) => one.or(other),
        }
    }

    /// The answer as the target has it.
    pub fn chosen(&self) -> &[u32] {
        &self.chosen
    }

    /// The counts so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether it is over and nothing is held.
    pub fn is_freed(&self) -> bool {
        self.phase == Phase::Freed
    }

    /// Whether the target has something to do for this session, capacity to spare or not.
    pub fn is_waiting(&self) -> bool {
        let drafts = self.decode_on || !self.pending.is_empty();
        self.phase == Phase::Serving && self.ready && self.order.is_none() && drafts
    }

    /// Gives the target its next order.
    fn work(&mut self, now_ms: f64, out: &mut Vec<Effect>) {
        if self.phase != Phase::Serving || !self.ready || self.order.is_some() {
            return;
        }
        let room = (self.request.max_tokens as usize).saturating_sub(self.chosen.len());
        let Some(before_last) = room.checked_sub(1) else {
            // Opened with a whole answer.
            return self.tell(now_ms, Vec::new(), 0, false, Some(Finish::Length), out);
        };
        if self.pending.is_empty() && !self.decode_on && !self.spare {
            return;
        }
        let most = match self.chosen.is_empty() {
            // The prompt's own logits choose the first token: it need not wait for a pass over drafts.
            true => 0,
            false => self.config.batch_max,
        };
        // The target chooses one place more than it is given drafts for, and the last place has no place behind it.
        let drafts = self.pending.first(most.min(before_last));
        self.stamp += 1;
        self.order = Some(Order {
            stamp: self.stamp,
            idle: drafts.is_empty(),
        });
        out.push(Effect::Verify {
            stamp: self.stamp,
            position: self.chosen.len() as u32,
            drafts,
        });
    }

    fn verified(
        &mut self,
        now_ms: f64,
        stamp: u64,
        choices: Vec<Choice>,
        ended: bool,
        out: &mut Vec<Effect>,
    ) {
        let Some(order) = self.order.filter(|order| order.stamp == stamp) else {
            // The answer was taken elsewhere while it was under way.
            return;
        };
        self.order = None;
        self.counters.passes += 1;
        self.counters.idle_passes += u32::from(order.idle);
        let room = (self.request.max_tokens as usize).saturating_sub(self.chosen.len());
        let choices: Vec<Choice> = choices
            .into_iter()
            .take(room.min(MAX_VERDICT_IDS))
            .collect();
        let mut accepted = 0;
        for choice in &choices {
            accepted += usize::from(self.pending.meet(choice.id));
            self.chosen.push(choice.id);
        }
        self.counters.accepted += accepted as u32;
        let finish = if ended {
            Some(Finish::EndOfSequence)
        } else if choices.len() == room {
            Some(Finish::Length)
        } else {
            None
        };
        if choices.is_empty() && finish.is_none() {
            let why = "the target made no choice";
            return self.refuse(RefusedCode::Failed, 0.0, why, out);
        }
        if self.phase == Phase::Serving {
            self.tell(now_ms, choices, accepted, order.idle, finish, out);
        }
    }

    /// Sends a verdict on the last tokens of the answer.
    fn tell(
        &mut self,
        now_ms: f64,
        choices: Vec<Choice>,
        accepted: usize,
        idle: bool,
        finish: Option<Finish>,
        out: &mut Vec<Effect>,
    ) {
        let start = self.chosen.len().saturating_sub(choices.len());
        let next = choices.iter().skip(accepted).map(|c| c.id).collect();
        let logprobs = choices.into_iter().map(|c| c.logprobs);
        let logprobs = match self.request.top_logprobs {
            // All or none: a place without them would shift the others.
            Some(_) => logprobs.collect(),
            None => None,
        };
        out.push(Effect::Send(Frame::Verdict(Verdict {
            session: self.request.session,
            epoch: self.pending.epoch(),
            round: self.pending.round(),
            start: start as u32,
            accepted: accepted as u32,
            next,
            idle,
            finish,
            logprobs,
        })));
        if finish.is_some() {
            self.pending.clear();
            let until_ms = now_ms + self.config.lease_ms;
            self.phase = Phase::Finished { until_ms };
        }
    }

    fn lost(&mut self, now_ms: f64) {
        if let Phase::Serving | Phase::Finished { .. } = self.phase {
            let until_ms = now_ms + self.config.lease_ms;
            self.phase = Phase::Leased { until_ms };
        }
    }

    fn reopened(&mut self, now_ms: f64, open: Open, out: &mut Vec<Effect>) {
        if !self.request.same_request(&open) {
            let why = "the session was opened before with another request";
            return self.refuse(RefusedCode::Protocol, 0.0, why, out);
        }
        if open.epoch < self.pending.epoch() {
            let why = "the session was opened before with a later epoch";
            return self.refuse(RefusedCode::Protocol, 0.0, why, out);
        }
        self.phase = Phase::Serving;
        self.deadline_ms = deadline(&open, now_ms);
        self.decode_on = open.wanted != Wanted::Verify;
        self.counters.reopened += 1;
        self.pending.begin(open.epoch);
        // What was chosen beyond is chosen again: the same, since nothing else decides it.
        self.take_to(0, &open.committed, out);
        self.prefix = PrefixDigest::of(&open.committed);
    }

    /// Makes the answer what it is before `start`, then `ids`, whatever the target chose.
    pub(super) fn take_to(&mut self, start: usize, ids: &[u32], out: &mut Vec<Effect>) {
        let have = self.chosen.get(start..).unwrap_or_default();
        let equal = have.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let keep = start + equal;
        // The order under way goes on from here, or from what is dropped here: either way it leaves tokens behind.
        if self.order.take().is_some() || self.chosen.len() > keep {
            self.chosen.truncate(keep);
            out.push(Effect::RollBack { to: keep as u32 });
        }
        let ids = ids.get(equal..).unwrap_or_default().to_vec();
        self.chosen.extend_from_slice(&ids);
        if !ids.is_empty() {
            out.push(Effect::Append { ids });
        }
    }

    fn tick(&mut self, now_ms: f64, out: &mut Vec<Effect>) {
        if self.due_ms().is_none_or(|due_ms| now_ms < due_ms) {
            return;
        }
        if self.phase == Phase::Serving {
            let why = "the deadline budget is spent";
            return self.refuse(RefusedCode::Deadline, 0.0, why, out);
        }
        self.free(out);
    }

    pub(super) fn refuse(
        &mut self,
        code: RefusedCode,
        retry_after_ms: f64,
        why: &str,
        out: &mut Vec<Effect>,
    ) {
        let mut message = why.to_owned();
        let end = message.floor_char_boundary(MAX_TEXT_BYTES);
        message.truncate(end);
        if !matches!(self.phase, Phase::Leased { .. }) {
            out.push(Effect::Send(Frame::Refused(Refused {
                session: self.request.session,
                code,
                retry_after_ms,
                message,
            })));
        }
        self.free(out);
    }

    fn free(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Freed;
        self.order = None;
        self.pending.clear();
        out.push(Effect::Free);
    }
}

fn deadline(open: &Open, now_ms: f64) -> Option<f64> {
    (open.deadline_ms > 0.0).then_some(now_ms + open.deadline_ms)
}
