//! Both models on one node: where the target would choose a single token, the draft model drafts first.
//!
//! How many tokens it drafts follows what was measured of this very answer ([`Pace`]).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use msao_core::meter::{Meter, Spent};
use msao_core::probe::ProbeReport;
use msao_engine::Keep;
use msao_engine::service::{ServiceError, Verdict};
use msao_session::depth::Pace;

use super::account::Beside;
use crate::models::{Awaited, Seat};

/// Drafts a round at most.
const MOST: usize = 16;

/// What a round of the two took of each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// Tokens that the draft model made.
    pub drafted: u32,
    /// In so long, in ms.
    pub draft_ms: f64,
    /// The target's pass over them, in ms.
    pub verify_ms: f64,
}

/// The last round, until somebody takes it.
pub type Rounds = Arc<Mutex<Option<Round>>>;

/// What is known of the two.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    pace: Pace,
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
    /// What the draft model has cost.
    beside: Beside,
    rounds: Rounds,
}

impl Pair {
    /// Both at the beginning of the same answer, which has so many tokens at most. What the draft model costs is written to
    /// `beside`, and what each round takes, before its verdict comes, to `rounds`.
    pub fn new(
        target: Box<dyn Seat>,
        draft: Box<dyn Seat>,
        reserve: usize,
        beside: Beside,
        rounds: Rounds,
    ) -> Pair {
        Pair {
            reserve,
            beside,
            rounds,
            target,
            draft,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn charge(&self, draft: Spent) {
        *self.beside.lock().unwrap_or_else(PoisonError::into_inner) = draft;
    }

    async fn speculate(&self) -> Result<Verdict, ServiceError> {
        let known = *self.known();
        // The target's choice behind the drafts needs a place too.
        let room = self.reserve.saturating_sub(known.written + 1);
        // The prompt's own logits choose the first token: it need not wait for drafts.
        let first = known.written == 0;
        let count = if first {
            0
        } else {
            known.pace.drafts(MOST).min(room)
        };
        let began = Instant::now();
        let mut drafts = Vec::with_capacity(count);
        while drafts.len() < count {
            let drafted = self.draft.verify(Vec::new()).await?;
            self.charge(drafted.spent);
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
        if !first {
            let mut known = self.known();
            (known.pace).saw(drafted, draft_ms, verdict.accepted, verify_ms);
            let round = Round {
                drafted: drafted as u32,
                draft_ms,
                verify_ms,
            };
            *self.rounds.lock().unwrap_or_else(PoisonError::into_inner) = Some(round);
        }
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
            // Asked behind the reading, and not after it: the answer comes with the reading's own. Whatever else the draft
            // model costs comes with its verdicts, of which there may be none.
            let (read, meter) = tokio::join!(biased; self.draft.read(), self.draft.meter());
            read?;
            if let Ok(meter) = meter {
                self.charge(meter.spent());
            }
            Ok(())
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
