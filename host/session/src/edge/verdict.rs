//! What a verdict does to the edge.

use msao_core::offload::kind;

use super::machine::{Edge, Phase};
use super::{Committed, Effect, Ending, Violation};
use crate::frame::{Finish, Verdict};

impl Edge {
    pub(super) fn verdict(&mut self, now_ms: f64, verdict: Verdict, out: &mut Vec<Effect>) {
        if !self.linked() {
            self.counters.stale += 1;
            return;
        }
        self.heard_ms = now_ms;
        if let Err(violation) = self.possible(&verdict) {
            self.cancel(out);
            out.push(Effect::GiveUpStream(violation));
            return self.part(now_ms, kind::LINK_DOWN, out);
        }
        if verdict.epoch < self.fence {
            self.counters.stale += 1;
            return;
        }
        self.news_ms = now_ms;
        self.lost_ms = None;
        if verdict.idle {
            self.counters.idle_tokens += verdict.tokens() as u32;
        }
        let finish = verdict.finish;
        self.follow(verdict, out);
        if let Some(finish) = finish {
            self.judge_end(finish);
            return self.end(Ending::Finished(finish), out);
        }
        // An escalated answer is the target's: there is nothing to decide for each of its tokens.
        if self.phase == Phase::Speculating {
            self.ask(now_ms, kind::VERDICT, out);
        }
    }

    /// Holds a verdict against what it can say.
    fn possible(&self, verdict: &Verdict) -> Result<(), Violation> {
        if verdict.session != self.config.open.session {
            return Err(Violation::Session);
        }
        if verdict.epoch > self.epoch {
            return Err(Violation::Epoch {
                found: verdict.epoch,
                newest: self.epoch,
            });
        }
        if verdict.epoch < self.fence {
            // It speaks of a way that was left: its places mean nothing here.
            return Ok(());
        }
        let expected = self.committed.len() as u32;
        if verdict.start != expected {
            return Err(Violation::Start {
                found: verdict.start,
                expected,
            });
        }
        let current = verdict.epoch == self.epoch;
        let in_flight = if current { self.tail.in_flight() } else { 0 } as u32;
        if verdict.accepted > in_flight {
            return Err(Violation::Accepted {
                accepted: verdict.accepted,
                in_flight,
            });
        }
        let end = expected.saturating_add(verdict.tokens() as u32);
        let most = self.config.open.max_tokens;
        if end > most {
            return Err(Violation::TooLong { end, most });
        }
        Ok(())
    }

    /// Commits a verdict's tokens. Drafts that agree stay where they are; from the first that does not, all are taken
    /// back.
    fn follow(&mut self, verdict: Verdict, out: &mut Vec<Effect>) {
        let mut ids = self.tail.first(verdict.accepted as usize);
        ids.extend(verdict.next);
        let mut logprobs = verdict.logprobs.unwrap_or_default().into_iter();
        let mut committed = Vec::with_capacity(ids.len());
        let mut back_to = None;
        let mut unread = Vec::new();
        for id in ids {
            if let Some(&draft) = self.tail.front() {
                // An id that ends the sequence is never among a verdict's tokens.
                let equal = draft.drafted.id == id && !draft.drafted.ends;
                self.judge(draft.behind, draft.drafted, equal);
                if equal {
                    self.tail.pop();
                } else {
                    if self.tail.in_flight() > 0 {
                        // Rounds that build on the lost draft are still on their way, or will be passed over there.
                        self.epoch += 1;
                    }
                    self.counters.rollbacks += 1;
                    self.counters.wasted += self.tail.clear() as u32;
                    self.drafting = None;
                    self.flush = false;
                    back_to = Some(self.committed.len() as u32);
                    unread.push(id);
                }
            } else if self.drafting.is_some() {
                self.ahead.push_back(id);
            } else {
                unread.push(id);
            }
            self.take(id);
            committed.push(Committed {
                id,
                verified: true,
                logprobs: logprobs.next(),
            });
        }
        if !committed.is_empty() {
            // First of all: the client waits for it.
            out.push(Effect::Commit(committed));
        }
        if let Some(to) = back_to {
            out.push(Effect::RollBack { to });
        }
        if !unread.is_empty() {
            out.push(Effect::Append { ids: unread });
        }
    }

    /// The place behind the last token is judged too where the target ends the answer.
    fn judge_end(&mut self, finish: Finish) {
        if finish == Finish::EndOfSequence
            && let Some(draft) = self.tail.pop()
        {
            let ends = draft.drafted.ends;
            self.judge(draft.behind, draft.drafted, ends);
            self.counters.wasted += u32::from(!ends);
        }
        self.counters.wasted += self.tail.clear() as u32;
    }
}
