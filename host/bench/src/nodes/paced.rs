//! An engine of given speed, for proofs: its passes take a given time, and its drafts are right as often as is wanted. Nothing is
//! computed, so that nodes in one process share no core.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use msao_core::meter::{Meter, Spent};
use msao_core::probe::ProbeReport;
use msao_core::sampling::{Confidence, Pick};
use msao_engine::service::{Load, Open, ServiceError, Verdict};
use msao_engine::{EngineError, Keep};
use msao_node::models::{Awaited, Engine, Seat};

/// Of it there are as many as there are models.
pub struct Paced {
    /// What the target says, again and again.
    pub script: Arc<[u32]>,
    /// How long a pass takes, whoever is in it.
    pub pass: Duration,
    /// How often it says what the script says: 1 for a target.
    pub agreement: f64,
    /// Answers so far, so that no two have the same drafts.
    pub answers: AtomicU64,
}

impl Paced {
    /// A model that follows the script in passes of so long.
    pub fn new(script: Arc<[u32]>, pass: Duration, agreement: f64) -> Arc<Paced> {
        Arc::new(Paced {
            script,
            pass,
            agreement,
            answers: AtomicU64::new(0),
        })
    }
}

impl Engine for Paced {
    fn open(&self, open: Open) -> Awaited<'_, Box<dyn Seat>> {
        let answer = self.answers.fetch_add(1, Ordering::Relaxed);
        let seat = PacedSeat {
            script: Arc::clone(&self.script),
            pass: self.pass,
            agreement: self.agreement,
            answer,
            most: open.reserve,
            written: Mutex::default(),
        };
        Box::pin(async move { Ok(Box::new(seat) as Box<dyn Seat>) })
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn capacity(&self) -> usize {
        1 << 20
    }
}

struct PacedSeat {
    script: Arc<[u32]>,
    pass: Duration,
    agreement: f64,
    answer: u64,
    most: usize,
    written: Mutex<Vec<u32>>,
}

impl PacedSeat {
    /// What the target says at a place.
    fn right(&self, place: usize) -> u32 {
        let at = place % self.script.len().max(1);
        self.script.get(at).copied().unwrap_or(0)
    }

    /// What this model says there: the same, or something else.
    fn says(&self, place: usize) -> u32 {
        if draw(self.answer, place as u64) < self.agreement {
            self.right(place)
        } else {
            self.right(place + 1)
        }
    }

    fn pass(&self, drafts: &[u32]) -> Verdict {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut picks = Vec::new();
        let mut accepted = 0;
        loop {
            let id = self.says(written.len());
            written.push(id);
            picks.push(Pick {
                id,
                logprob: 0.0,
                top1: self.agreement,
                entropy: 0.0,
                margin: 1.0,
            });
            let room = written.len() < self.most;
            match drafts.get(accepted) {
                Some(&draft) if draft == id && room => accepted += 1,
                _ => break,
            }
        }
        let sure = Confidence {
            top1: self.agreement,
            entropy: 0.0,
            margin: 1.0,
        };
        Verdict {
            accepted,
            confidence: vec![sure; picks.len()],
            picks,
            logprobs: Vec::new(),
            ended: false,
            spent: Spent::default(),
        }
    }
}

impl Seat for PacedSeat {
    fn read(&self) -> Awaited<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn verify(&self, drafts: Vec<u32>) -> Awaited<'_, Verdict> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        // As an engine does: the prompt's own logits choose the first token.
        let free = written.is_empty() && drafts.is_empty();
        drop(written);
        let due = Instant::now() + if free { Duration::ZERO } else { self.pass };
        Box::pin(async move {
            wait(due).await;
            Ok(self.pass(&drafts))
        })
    }

    fn append(&self, tokens: Vec<u32>) -> Awaited<'_, ()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.extend(tokens);
        Box::pin(async { Ok(()) })
    }

    fn roll_back(&self, tokens: usize) -> Awaited<'_, ()> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.truncate(tokens);
        Box::pin(async { Ok(()) })
    }

    fn probed(&self) -> Awaited<'_, ProbeReport> {
        Box::pin(async { Err(no_probe()) })
    }

    fn keep(&self, _keep: Keep) -> Awaited<'_, ()> {
        Box::pin(async { Err(no_probe()) })
    }

    fn meter(&self) -> Awaited<'_, Meter> {
        Box::pin(async { Ok(Meter::default()) })
    }
}

fn no_probe() -> ServiceError {
    EngineError::Request("an engine that computes nothing has no probe".into()).into()
}

/// Until then, to less than the runtime's clock can tell apart.
async fn wait(due: Instant) {
    const COARSE: Duration = Duration::from_millis(2);
    if let Some(early) = due.checked_duration_since(Instant::now() + COARSE) {
        tokio::time::sleep(early).await;
    }
    while Instant::now() < due {
        tokio::task::yield_now().await;
    }
}

/// From 0 to 1, evenly, always the same for the same place (SplitMix64's finish).
fn draw(answer: u64, place: u64) -> f64 {
    let mut x = answer.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.wrapping_add(0x1234_5678);
    for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        x = (x ^ (x >> 30)).wrapping_mul(multiplier);
    }
    ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_right_as_often_as_wanted() {
        let right = (0..20_000).filter(|&place| draw(place / 100, place) < 0.8);
        let share = right.count() as f64 / 20_000.0;
        assert!((share - 0.8).abs() < 0.01, "{share}");
    }
}
