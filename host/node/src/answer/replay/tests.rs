use std::sync::Mutex;

use msao_core::meter::{Meter, Spent};
use msao_core::probe::ProbeReport;
use msao_engine::service::ServiceError;
use msao_engine::{EngineError, Keep};
use proptest::prelude::*;

use super::*;
use crate::models::{Awaited, Seat};

/// Ends an answer.
const END: u32 = 0;

/// A draft model whose choice is a function of what stands before it.
#[derive(Clone, Copy, Debug)]
struct Toy {
    key: u64,
    /// It dies after so many orders.
    orders: usize,
}

impl Toy {
    fn says(self, prefix: &[u32]) -> u32 {
        let mix = |hash: u64, id: &u32| (hash ^ u64::from(*id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = prefix.iter().rev().take(3).fold(self.key | 1, mix);
        let hash = mix(hash, &(prefix.len() as u32));
        ((hash >> 40) % 4) as u32
    }
}

/// Each place is told from the others by this.
fn sure_of(place: usize) -> f64 {
    1.0 / (1.0 + place as f64)
}

struct ToySeat {
    toy: Toy,
    most: usize,
    written: Mutex<Vec<u32>>,
    orders: Mutex<usize>,
}

impl ToySeat {
    fn order(&self) -> Result<(), ServiceError> {
        let mut orders = self.orders.lock().unwrap();
        *orders += 1;
        if *orders > self.toy.orders {
            return Err(ServiceError::Stopped);
        }
        Ok(())
    }

    fn judge(&self, drafts: &[u32]) -> Result<Verdict, ServiceError> {
        self.order()?;
        let mut written = self.written.lock().unwrap();
        if drafts.len() >= self.most - written.len() {
            let why = "the drafts and the choice behind them do not fit".to_owned();
            return Err(ServiceError::Engine(EngineError::Request(why)));
        }
        let mut verdict = Verdict {
            accepted: 0,
            picks: Vec::new(),
            logprobs: Vec::new(),
            confidence: Vec::new(),
            ended: false,
            spent: Spent::default(),
        };
        loop {
            let id = self.toy.says(&written);
            verdict.picks.push(Pick {
                id,
                logprob: 0.0,
                top1: 0.0,
                entropy: 0.0,
                margin: 0.0,
            });
            verdict.confidence.push(Confidence {
                top1: sure_of(written.len()),
                entropy: 0.5,
                margin: 1.0,
            });
            if id == END {
                verdict.ended = true;
                break;
            }
            written.push(id);
            if drafts.get(verdict.accepted) != Some(&id) {
                break;
            }
            verdict.accepted += 1;
        }
        Ok(verdict)
    }
}

impl Seat for ToySeat {
    fn read(&self) -> Awaited<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn verify(&self, drafts: Vec<u32>) -> Awaited<'_, Verdict> {
        Box::pin(async move { self.judge(&drafts) })
    }

    fn append(&self, tokens: Vec<u32>) -> Awaited<'_, ()> {
        Box::pin(async move {
            self.order()?;
            self.written.lock().unwrap().extend(tokens);
            Ok(())
        })
    }

    fn roll_back(&self, tokens: usize) -> Awaited<'_, ()> {
        Box::pin(async move {
            let mut written = self.written.lock().unwrap();
            assert!(tokens <= written.len(), "taken back to what was never read");
            written.truncate(tokens);
            Ok(())
        })
    }

    fn probed(&self) -> Awaited<'_, ProbeReport> {
        Box::pin(async { Ok(ProbeReport::default()) })
    }

    fn keep(&self, _keep: Keep) -> Awaited<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn meter(&self) -> Awaited<'_, Meter> {
        Box::pin(async { Ok(Meter::default()) })
    }
}

fn seat(toy: Toy, most: usize) -> Orders {
    let seat = ToySeat {
        toy,
        most,
        written: Mutex::default(),
        orders: Mutex::default(),
    };
    let seat = Box::new(seat) as Box<dyn Seat>;
    Orders::new(Box::pin(async move { Ok(seat) }), false)
}

fn run(replay: Replay) -> Option<Vec<Place>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(replay.run())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Each place of an answer is judged, behind the target's own tokens, whatever the draft model was at before.
    #[test]
    fn every_place_is_judged_behind_the_targets_own_tokens(
        key in any::<u64>(),
        likeness in 0.0..1.0_f64,
        length in 0_usize..120,
        spare in 0_usize..3,
        ended in any::<bool>(),
        before in prop::collection::vec(0_u8..3, 0..4),
    ) {
        let toy = Toy { key, orders: usize::MAX };
        let most = (length + spare).max(1);
        // An answer that is the draft model's own as often as is wanted.
        let mut tokens: Vec<u32> = Vec::new();
        while tokens.len() < length {
            let own = toy.says(&tokens);
            let draw = (key.wrapping_mul(31).wrapping_add(tokens.len() as u64 * 7919) % 1000) as f64;
            let alike = draw < likeness * 1000.0 && own != END;
            tokens.push(if alike { own } else { own % 3 + 1 });
        }
        let draft = seat(toy, most);
        // What it was at when the answer ended.
        for (stamp, what) in (0..).zip(before) {
            match what {
                0 if most > 4 => draft.give(Order::Verify { stamp, drafts: Vec::new() }),
                _ => draft.give(Order::RollBack(0)),
            }
        }
        let places = run(Replay::new(draft, tokens.clone(), ended, most)).unwrap();
        let all = (length + usize::from(ended)).min(most);
        prop_assert_eq!(places.len(), all);
        for (at, place) in places.iter().enumerate() {
            let own = toy.says(&tokens[..at]);
            let right = tokens.get(at).map_or(own == END, |token| *token == own);
            prop_assert_eq!(place.accepted, right, "place {}", at);
            prop_assert_eq!(place.confidence.top1, sure_of(at));
        }
    }
}

#[test]
fn a_draft_model_that_dies_brings_no_audit_to_its_end() {
    let toy = Toy { key: 5, orders: 3 };
    let tokens: Vec<u32> = (0..50).map(|place| 1 + place % 3).collect();
    assert_eq!(run(Replay::new(seat(toy, 60), tokens, true, 60)), None);
}

#[test]
fn an_answer_without_tokens_is_judged_at_its_end_alone() {
    let toy = Toy {
        key: 9,
        orders: usize::MAX,
    };
    let places = run(Replay::new(seat(toy, 5), Vec::new(), true, 5)).unwrap();
    assert_eq!(places.len(), 1);
    assert_eq!(places[0].accepted, toy.says(&[]) == END);
    let none = run(Replay::new(seat(toy, 5), Vec::new(), false, 5)).unwrap();
    assert_eq!(none, []);
}
