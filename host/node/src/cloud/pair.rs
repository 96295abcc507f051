//! Both models on one node: where the target would choose a single token, the draft model drafts first.
//!
//! How many tokens it drafts follows what was measured of this very answer: with the draft's time `t_d`, the target's
//! `t_v` and acceptance `a`, a round of `k` drafts gives `(1 - a^(k+1)) / (1 - a)` tokens in `k * t_d + t_v` (Leviathan et al.
//! 2023, arXiv 2211.17192). The best `k` may be 0: then the target goes on alone, and tries a draft now and then.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use msao_core::meter::Meter;
use msao_core::probe::ProbeReport;
use msao_engine::Keep;
use msao_engine::service::{ServiceError, Verdict};

use crate::models::{Awaited, Seat};

/// Drafts a round at most.
const MOST: usize = 16;
/// Weight of a new round in what is known.
const WEIGHT: f64 = 0.1;
/// A target that does without drafts tries one again after so many tokens.
const TRY_AGAIN: u32 = 32;

/// What is known of the two.
#[derive(Clone, Copy, Debug)]
struct Known {
    draft_ms: f64,
    verify_ms: f64,
    acceptance: f64,
    /// Tokens since the last draft.
    without: u32,
    /// Tokens of the draft model's answer.
    written: usize,
}

/// Two seats that give one answer, the target's.
pub struct Pair {
    target: Box<dyn Seat>,
    draft: Box<dyn Seat>,
    known: Mutex<Known>,
    /// Tokens of the answer at most.
    reserve: usize,
}

impl Pair {
    /// Both at the beginning of the same answer, which has so many tokens at most.
    pub fn new(target: Box<dyn Seat>, draft: Box<dyn Seat>, reserve: usize) -> Pair {
        Pair {
            reserve,
            target,
            draft,
            known: Mutex::new(Known {
                draft_ms: 1.0,
                verify_ms: 4.0,
                acceptance: 0.7,
                without: 0,
                written: 0,
            }),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, drafts: usize, draft_ms: f64, accepted: usize, verify_ms: f64) {
        let mut known = self.known();
        let toward = |value: &mut f64, new: f64| *value += WEIGHT * (new - *value);
        toward(&mut known.verify_ms, verify_ms);
        if drafts == 0 {
            known.without += 1;
            return;
        }
        known.without = 0;
        toward(&mut known.draft_ms, draft_ms / drafts as f64);
        // Places at which both chose: the accepted ones, and the one that was not.
        let judged = drafts.min(accepted + 1);
        for place in 0..judged {
            toward(
                &mut known.acceptance,
                if place < accepted { 1.0 } else { 0.0 },
            );
        }
    }

    async fn speculate(&self) -> Result<Verdict, ServiceError> {
        let known = *self.known();
        // The target's choice behind the drafts needs a place too.
        let room = self.reserve.saturating_sub(known.written + 1);
        let count = count(known).min(room);
        let began = Instant::now();
        let mut drafts = Vec::with_capacity(count);
        while drafts.len() < count {
            let drafted = self.draft.verify(Vec::new()).await?;
            match drafted.picks.first() {
                Some(pick) if !drafted.ended => drafts.push(pick.id),
                // What ends the sequence is no token of it.
                _ => break,
            }
        }
        let draft_ms = began.elapsed().as_secs_f64() * 1000.0;
        let began = Instant::now();
        let drafted = drafts.len();
        self.known().written += drafted;
        let verdict = self.target.verify(drafts).await?;
        let verify_ms = began.elapsed().as_secs_f64() * 1000.0;
        self.learn(drafted, draft_ms, verdict.accepted, verify_ms);
        if !verdict.ended {
            self.follow(drafted, &verdict).await?;
        }
        Ok(verdict)
    }

    /// Takes the draft model to where the target is.
    async fn follow(&self, drafted: usize, verdict: &Verdict) -> Result<(), ServiceError> {
        let back = drafted.saturating_sub(verdict.accepted);
        if back > 0 {
            let to = self.known().written.saturating_sub(back);
            self.draft.roll_back(to).await?;
            self.known().written = to;
        }
        let unread = verdict.picks.iter().skip(verdict.accepted);
        let unread: Vec<u32> = unread.map(|pick| pick.id).collect();
        self.known().written += unread.len();
        self.draft.append(unread).await
    }
}

impl Seat for Pair {
    fn read(&self) -> Awaited<'_, ()> {
        Box::pin(async {
            self.target.read().await?;
            self.draft.read().await
        })
    }

    fn verify(&self, drafts: Vec<u32>) -> Awaited<'_, Verdict> {
        Box::pin(async move {
            if drafts.is_empty() {
                return self.speculate().await;
            }
            let verdict = self.target.verify(drafts).await?;
            self.follow(
                0,
                &Verdict {
                    accepted: 0,
                    ..verdict.clone()
                },
            )
            .await?;
            Ok(verdict)
        })
    }

    fn append(&self, tokens: Vec<u32>) -> Awaited<'_, ()> {
        Box::pin(async move {
            self.target.append(tokens.clone()).await?;
            self.known().written += tokens.len();
            self.draft.append(tokens).await
        })
    }

    fn roll_back(&self, tokens: usize) -> Awaited<'_, ()> {
        Box::pin(async move {
            self.target.roll_back(tokens).await?;
            self.draft.roll_back(tokens).await?;
            self.known().written = tokens;
            Ok(())
        })
    }

    fn probed(&self) -> Awaited<'_, ProbeReport> {
        self.target.probed()
    }

    fn keep(&self, keep: Keep) -> Awaited<'_, ()> {
        self.target.keep(keep)
    }

    fn meter(&self) -> Awaited<'_, Meter> {
        self.target.meter()
    }
}

/// The best number of drafts.
fn count(known: Known) -> usize {
    let a = known.acceptance.clamp(0.0, 0.999);
    let rate = |k: usize| {
        let tokens = (1.0 - a.powi(k as i32 + 1)) / (1.0 - a);
        tokens / (k as f64 * known.draft_ms + known.verify_ms).max(1e-6)
    };
    let best = (0..=MOST).max_by(|&x, &y| rate(x).total_cmp(&rate(y)));
    match best.unwrap_or(0) {
        0 if known.without >= TRY_AGAIN => 1,
        best => best,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(draft_ms: f64, verify_ms: f64, acceptance: f64) -> Known {
        Known {
            draft_ms,
            verify_ms,
            acceptance,
            without: 0,
            written: 0,
        }
    }

    #[test]
    fn the_number_of_drafts_follows_what_they_are_worth() {
        // A draft that is never right, or as dear as the target, is not asked.
        assert_eq!(count(known(1.0, 10.0, 0.0)), 0);
        assert_eq!(count(known(10.0, 10.0, 0.8)), 0);
        assert_eq!(count(known(0.0, 10.0, 0.9)), MOST);
        // (1 - 0.8^(k+1)) / 0.2 in k + 10: 0.2857 at 7, 0.2857 at 8, less at 6 and 9.
        assert!((6..=9).contains(&count(known(1.0, 10.0, 0.8))));
        let again = Known {
            without: TRY_AGAIN,
            ..known(10.0, 10.0, 0.1)
        };
        assert_eq!(count(again), 1);
    }
}
