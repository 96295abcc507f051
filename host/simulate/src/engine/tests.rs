//! What goes into passes, and what comes of them.

use super::*;
use crate::profile::Profile;
use crate::traffic::{Drawn, Guessing, Question};

fn cost() -> EngineCost {
    EngineCost {
        pass_ms: 10.0,
        row_ms: 1.0,
        draft_ms: 0.5,
        prefill_tok_per_s: 1000.0,
        encoder_ms_per_token: 2.0,
        probe_share: 0.25,
        probe_ms: 3.0,
        kv_bytes_per_token: 1024.0,
        kv_mib: 1.0,
        ..Profile::measured().unwrap().engines["twin-zen4"].clone()
    }
}

fn script(acceptance: f64, answer: u32, most: u32) -> Rc<Script> {
    let question = Question {
        max_tokens: most,
        guessing: Guessing::Drawn(Drawn::even(acceptance)),
        ..Question::plain(0, 10, answer)
    };
    Rc::new(Script::write(&question, 0.0))
}

/// An engine, its time, and what it has done.
struct Bench {
    engine: Engine,
    now_ms: f64,
    run: Key,
}

impl Bench {
    fn new(cost: &EngineCost) -> Bench {
        let mut keys = Slab::new();
        Bench {
            engine: Engine::new(cost),
            now_ms: 0.0,
            run: keys.insert(()),
        }
    }

    fn opening(&self, seat: Seat, prompt_tokens: u32) -> Opening {
        Opening {
            run: self.run,
            seat,
            script: script(1.0, 50, 50),
            prompt_tokens,
            media: MediaTokens::default(),
            reserve: 50,
            probe: false,
        }
    }

    fn open(&mut self, seat: Seat, prompt_tokens: u32) -> Key {
        let opening = self.opening(seat, prompt_tokens);
        self.engine.open(self.now_ms, opening).unwrap()
    }

    fn verify(&mut self, key: Key, stamp: u64, drafts: &[u32]) {
        let order = Order::Verify {
            stamp,
            drafts: drafts.to_vec(),
            given_ms: self.now_ms,
        };
        self.engine.order(key, order);
    }

    /// Goes on until something is done; none where nothing is to be done.
    fn next(&mut self) -> Vec<What> {
        let mut done = Vec::new();
        while done.is_empty() {
            match self.engine.turn(self.now_ms, true, &mut done) {
                Some(end_ms) => {
                    self.now_ms = end_ms;
                    self.engine.passed(end_ms, &mut done);
                }
                None if done.is_empty() => break,
                None => {}
            }
        }
        done.into_iter().map(|done| done.what).collect()
    }
}

fn verified(what: &What) -> (u64, u32, u32, u32, bool) {
    match what {
        What::Verified {
            stamp,
            first,
            choices,
            accepted,
            ended,
            ..
        } => (*stamp, *first, *choices, *accepted, *ended),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_first_token_is_free_and_the_others_take_a_pass_each() {
    let mut bench = Bench::new(&cost());
    let key = bench.open(Seat::Target, 100);
    // 100 rows at 1 ms each.
    let ready = What::Ready {
        waited_ms: 0.0,
        took_ms: 100.0,
    };
    assert_eq!(bench.next(), [ready]);
    for (stamp, at_ms) in [(1, 100.0), (2, 110.0), (3, 120.0)] {
        bench.verify(key, stamp, &[]);
        let done = bench.next();
        assert_eq!(verified(&done[0]), (stamp, stamp as u32 - 1, 1, 0, false));
        assert_eq!(bench.now_ms, at_ms);
    }
    assert!(bench.next().is_empty());
    // 1.03 GFLOP a row and something for attention; the prompt without the vocabulary.
    let flops = bench.engine.flops(key);
    assert!((flops - 100.0 * 7.6e8 - 2.0 * 1.03e9).abs() < 0.02 * flops);
}

#[test]
fn drafts_stand_as_far_as_they_are_right() {
    let mut bench = Bench::new(&cost());
    let key = bench.open(Seat::Target, 10);
    bench.next();
    bench.verify(key, 1, &[]);
    bench.next();
    let began_ms = bench.now_ms;
    // Places 1 and 2 are right, 3 is not: its own choice takes its place.
    bench.verify(key, 2, &[2, 4, 7, 8]);
    let done = bench.next();
    assert_eq!(verified(&done[0]), (2, 1, 3, 2, false));
    // One row for the last token, four for drafts.
    assert_eq!(bench.now_ms - began_ms, 10.0 + 4.0 * 0.5);
    // All of them, and one more; then back to the middle and on.
    bench.verify(key, 3, &[8, 10]);
    assert_eq!(verified(&bench.next()[0]), (3, 4, 3, 2, false));
    bench.engine.order(key, Order::RollBack(5));
    bench.engine.order(key, Order::Append(2));
    bench.verify(key, 4, &[]);
    let began_ms = bench.now_ms;
    assert_eq!(verified(&bench.next()[0]), (4, 7, 1, 0, false));
    // The token before is read again, and two that others chose.
    assert_eq!(bench.now_ms - began_ms, 10.0 + 2.0 * 0.5);
    // Back to the prompt: the first token is free again.
    bench.engine.order(key, Order::RollBack(0));
    bench.verify(key, 5, &[1]);
    let began_ms = bench.now_ms;
    assert_eq!(verified(&bench.next()[0]), (5, 0, 1, 0, false));
    assert_eq!(bench.now_ms, began_ms);
}

#[test]
fn an_answer_ends_where_the_model_ends_it() {
    let mut bench = Bench::new(&cost());
    let mut opening = bench.opening(Seat::Target, 10);
    opening.script = script(1.0, 2, 50);
    let key = bench.engine.open(0.0, opening).unwrap();
    bench.next();
    bench.verify(key, 1, &[0, 2, 4]);
    assert_eq!(verified(&bench.next()[0]), (1, 0, 2, 2, true));
    // Whoever asks again is told again, and nothing is read for it.
    let began_ms = bench.now_ms;
    bench.verify(key, 2, &[]);
    assert_eq!(verified(&bench.next()[0]), (2, 2, 0, 0, true));
    assert_eq!(bench.now_ms, began_ms);
}

#[test]
fn a_pass_serves_all_who_are_ready_and_prompts_go_beside() {
    let mut bench = Bench::new(&cost());
    let keys = [(); 3].map(|()| bench.open(Seat::Target, 10));
    let ready = bench.next();
    assert_eq!((ready.len(), bench.now_ms), (3, 30.0));
    for (stamp, key) in (1..).zip(keys) {
        bench.verify(key, stamp, &[]);
    }
    assert_eq!(bench.next().len(), 3);
    assert_eq!(bench.now_ms, 30.0);
    // A prompt of 300 rows comes: 100 of them go with each pass, as long as somebody decodes.
    let long = bench.open(Seat::Target, 300);
    let mut stamp = 10;
    for end_ms in [142.0, 254.0] {
        for key in keys {
            stamp += 1;
            bench.verify(key, stamp, &[]);
        }
        assert_eq!(bench.next().len(), 3);
        assert_eq!(bench.now_ms, end_ms);
    }
    assert_eq!(bench.next().len(), 1);
    assert_eq!(bench.now_ms, 354.0);
    bench.verify(long, 99, &[]);
    assert_eq!(verified(&bench.next()[0]), (99, 0, 1, 0, false));
}

#[test]
fn who_finds_no_room_waits_and_then_is_refused() {
    // 1,024 tokens: each takes 400 + 50, rounded up to blocks of 16.
    let mut small = cost();
    small.limits.waiting = 2;
    let mut bench = Bench::new(&small);
    let huge = bench.opening(Seat::Target, 980);
    assert!(bench.engine.open(0.0, huge).is_none());
    let first = bench.open(Seat::Target, 400);
    bench.open(Seat::Target, 400);
    assert_eq!(bench.next().len(), 1);
    let third = bench.open(Seat::Target, 400);
    bench.open(Seat::Target, 400);
    let one_too_many = bench.opening(Seat::Target, 400);
    assert!(bench.engine.open(0.0, one_too_many).is_none());
    assert_eq!(bench.next().len(), 1);
    bench.now_ms += 50.0;
    assert!(bench.engine.oldest_ms(bench.now_ms) >= 50.0);
    assert_eq!(bench.engine.waiting_tokens(), 800);
    bench.engine.close(first);
    let waited_ms = bench.engine.oldest_ms(bench.now_ms);
    match bench.next()[0] {
        What::Ready {
            waited_ms: told_ms, ..
        } => assert_eq!(told_ms, waited_ms),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.engine.waiting_tokens(), 400);
    bench.engine.close(third);
    assert!(bench.engine.kv_free() < 1024.0);
}

#[test]
fn the_probe_comes_first_and_the_rest_goes_on_from_it() {
    let mut bench = Bench::new(&cost());
    let opening = Opening {
        media: MediaTokens {
            pictures: 60,
            ..MediaTokens::default()
        },
        probe: true,
        ..bench.opening(Seat::Edge, 100)
    };
    let key = bench.engine.open(0.0, opening).unwrap();
    // 120 ms of encoding, a quarter of 100 ms, 3 ms for the report.
    assert_eq!(bench.next(), [What::Probed]);
    assert_eq!(bench.now_ms, 148.0);
    assert!(bench.next().is_empty());
    // Half of it is kept: three quarters of 50 rows.
    bench
        .engine
        .keep(bench.now_ms, key, 50, script(1.0, 50, 50));
    let ready = bench.next();
    assert!(matches!(ready[0], What::Ready { took_ms, .. } if took_ms == 37.5));
    bench.verify(key, 1, &[]);
    assert_eq!(verified(&bench.next()[0]), (1, 0, 1, 0, false));
}
