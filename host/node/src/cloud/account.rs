//! What a session costs here, as the edge is told.

use std::sync::{Arc, Mutex, PoisonError};

use msao_core::meter::Spent;
use msao_session::frame::{Cost, Verdict};

/// Verdicts from one COST to the next.
const EVERY: u32 = 16;

/// What a draft model beside the target has cost: written by whoever has it draft, read here.
pub type Beside = Arc<Mutex<Spent>>;

/// What the seats of a session have cost.
///
/// Nobody asks the models for it: every verdict brings along what its session has cost, so that telling it delays nothing.
pub struct Account {
    name: u64,
    target: Spent,
    beside: Beside,
    /// Verdicts since it was told last; `None` before that on a stream.
    since: Option<u32>,
}

impl Account {
    /// Of nothing yet.
    pub fn new(beside: Beside) -> Account {
        Account {
            // Without randomness two accounts may have one name, and then the dearer of them counts.
            name: getrandom::u64().unwrap_or_default(),
            target: Spent::default(),
            beside,
            since: None,
        }
    }

    /// The target has told what it has cost so far.
    pub fn charge(&mut self, target: Spent) {
        self.target = target;
    }

    /// What was told last may not have come through.
    pub fn begin_anew(&mut self) {
        self.since = None;
    }

    /// What has to be told before this: ahead of a stream's first verdict and of the answer's last, and now and then between,
    /// so that an edge that wants no more knows nearly all.
    pub fn tell(&mut self, verdict: &Verdict) -> Option<Cost> {
        let verdicts = self.since.map(|since| since + 1);
        if verdict.finish.is_none() && verdicts.is_some_and(|verdicts| verdicts < EVERY) {
            self.since = verdicts;
            return None;
        }
        self.since = Some(0);
        let draft = *self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Cost {
            session: verdict.session,
            account: self.name,
            target_flops: self.target.flops,
            draft_flops: draft.flops,
            cached_tokens: u32::try_from(self.target.cached_tokens).unwrap_or(u32::MAX),
            cache_byte_seconds: self.target.cache_byte_seconds + draft.cache_byte_seconds,
            busy_ms: self.target.busy_ms + draft.busy_ms,
            activation_bytes: self.target.activation_bytes.max(draft.activation_bytes),
        })
    }
}

#[cfg(test)]
mod tests {
    use msao_session::frame::{Finish, SessionId};

    use super::*;

    fn verdict(finish: Option<Finish>) -> Verdict {
        Verdict {
            session: SessionId([1; 16]),
            epoch: 0,
            round: 0,
            start: 0,
            accepted: 0,
            next: vec![5],
            idle: true,
            finish,
            logprobs: None,
        }
    }

    #[test]
    fn the_first_verdict_the_last_and_every_16th_bring_the_cost_along() {
        let mut account = Account::new(Beside::default());
        let mut told = |finish| account.tell(&verdict(finish)).is_some();
        let tells: Vec<usize> = (0..40).filter(|_| told(None)).collect();
        assert_eq!(tells, [0, 16, 32]);
        assert!(told(Some(Finish::Length)));
        account.begin_anew();
        assert!(account.tell(&verdict(None)).is_some());
        assert!(account.tell(&verdict(None)).is_none());
    }

    #[test]
    fn both_models_are_told_of() {
        let beside = Beside::default();
        let mut account = Account::new(Arc::clone(&beside));
        *beside.lock().unwrap() = Spent {
            flops: 7,
            busy_ms: 0.25,
            activation_bytes: 60,
            cached_tokens: 900,
            cache_byte_seconds: 0.5,
            ..Spent::default()
        };
        account.charge(Spent {
            flops: 100,
            busy_ms: 2.0,
            activation_bytes: 50,
            cached_tokens: 30,
            cache_byte_seconds: 1.0,
            ..Spent::default()
        });
        let cost = account.tell(&verdict(None)).unwrap();
        assert_eq!((cost.target_flops, cost.draft_flops), (100, 7));
        // The answer is the target's, and so is what was read before.
        assert_eq!(cost.cached_tokens, 30);
        assert_eq!((cost.cache_byte_seconds, cost.busy_ms), (1.5, 2.25));
        // Each computes by itself: what they hold at once need not meet.
        assert_eq!(cost.activation_bytes, 60);
    }
}
