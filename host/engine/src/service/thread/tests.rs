//! The loop turn by turn, so that what happens in which turn is certain.

use std::pin::pin;
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll, Waker};

use msao_core::inputs::{Array, Grid, ModelInputs, Patches};
use msao_core::sampling::{Sampler, SamplingParams};
use msao_golden::root;
use tokio::sync::mpsc;

use super::passes::FEWEST_ROWS;
use super::*;
use crate::device::Precision;
use crate::generate::{Step, Stop};
use crate::keep::Keep;
use crate::probe::ProbeOptions;
use crate::runner::{OpenOptions, RunnerOptions, Task};
use crate::service::{Event, Line, Load, Open, Service, Session, Tell};

const ANSWER: usize = 20;

/// A service whose thread is the test.
struct Driven {
    engine: Engine,
    inbox: Receiver<Command>,
    service: Service,
}

impl Driven {
    fn new(options: ServiceOptions) -> Self {
        crate::set_threads(1);
        let load = LoadOptions {
            precision: Precision::F32,
            ..Default::default()
        };
        let model = Model::load(&root().join("models/qwen25-vl-windows"), &load).unwrap();
        let runner = Runner::new(model, &options.runner).unwrap();
        let (commands, inbox) = sync_channel(COMMANDS);
        let shared = Arc::new(Shared::default());
        let engine = Engine::new(runner, &options, Arc::clone(&shared));
        let line = Line {
            commands: Some(commands),
            thread: None,
        };
        let service = Service::new(line, shared, engine.started(), &options);
        Driven {
            engine,
            inbox,
            service,
        }
    }

    fn step(&mut self) -> Turn {
        self.engine.step(&self.inbox).unwrap()
    }

    /// Steps until somebody who asks has the answer.
    fn ask<T>(&mut self, asked: impl Future<Output = T>) -> T {
        let mut asked = pin!(asked);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            if let Poll::Ready(answer) = asked.as_mut().poll(&mut context) {
                return answer;
            }
            self.step();
        }
        panic!("no answer came");
    }

    fn open(&mut self, inputs: &ModelInputs) -> Session {
        let service = self.service.clone();
        self.ask(service.open(open(inputs))).unwrap()
    }

    /// A session whose prompt has been read.
    fn read(&mut self, inputs: &ModelInputs) -> Session {
        let session = self.open(inputs);
        self.ask(session.read()).unwrap();
        session
    }

    /// The answer that a session gives when nobody else is there.
    fn alone(&mut self, inputs: &ModelInputs) -> Vec<u32> {
        let session = self.open(inputs);
        let mut events = session.generate(ANSWER).unwrap();
        self.tokens(&mut events)
    }

    /// Steps until an answer has come to its end.
    fn tokens(&mut self, events: &mut mpsc::Receiver<Event>) -> Vec<u32> {
        let mut tokens = Vec::new();
        loop {
            match self.ask(events.recv()).unwrap() {
                Event::Token(step) => tokens.push(step.pick.id),
                Event::End(stop) => {
                    assert_eq!(stop, Stop::Length);
                    return tokens;
                }
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }

    fn load(&self) -> Load {
        self.service.load()
    }

    fn assert_empty(&mut self) {
        self.step();
        assert_eq!(self.load().sessions, 0);
        self.engine.runner.clear_caches();
        assert_eq!(self.engine.runner.occupancy(), Default::default());
    }
}

/// Keeps nothing for later, and gives encoders one block a turn.
fn options() -> ServiceOptions {
    ServiceOptions {
        runner: RunnerOptions {
            cache_bytes: 32 << 20,
            media_cache_bytes: 0,
            prefixes: 0,
            ..Default::default()
        },
        encode_slice: Duration::ZERO,
        ..Default::default()
    }
}

fn text(tokens: usize, salt: u32) -> ModelInputs {
    ModelInputs {
        input_ids: (0..tokens as u32)
            .map(|n| 3 + (7 * n + salt) % 50)
            .collect(),
        ..Default::default()
    }
}

/// A picture of `side` x `side` patches between some text.
fn picture(driven: &Driven, side: usize) -> ModelInputs {
    let config = driven.service.config();
    let width = config.vision.patch_values();
    let merge = config.vision.merge_size * config.vision.merge_size;
    let data = (0..side * side * width).map(|n| (n % 251) as f32 / 251.0 - 0.5);
    let mut input_ids = vec![5];
    input_ids.extend(std::iter::repeat_n(config.image_token, side * side / merge));
    input_ids.extend([6, 7]);
    ModelInputs {
        input_ids,
        images: Some(Patches {
            values: Array {
                shape: vec![side * side, width],
                data: data.collect(),
            },
            grids: vec![Grid {
                t: 1,
                h: side,
                w: side,
            }],
        }),
        ..Default::default()
    }
}

fn sampler(inputs: &ModelInputs) -> Sampler {
    let params = SamplingParams {
        temperature: 0.0,
        ..Default::default()
    };
    Sampler::new(params, 320, &inputs.input_ids).unwrap()
}

fn open(inputs: &ModelInputs) -> Open {
    Open {
        inputs: Arc::new(inputs.clone()),
        sampler: sampler(inputs),
        reserve: 2 * ANSWER,
        options: OpenOptions::default(),
        end_of_sequence: Vec::new(),
        tell: Tell::default(),
    }
}

/// The events that are there already.
fn there(events: &mut mpsc::Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

fn token(event: &Event) -> Option<&Step> {
    match event {
        Event::Token(step) => Some(step),
        _ => None,
    }
}

fn sequence(driven: &Driven, session: &Session) -> SequenceId {
    driven.engine.clients[&session.ticket.id].sequence
}

#[test]
fn a_panic_in_a_pass_ends_its_sessions_and_no_other() {
    let mut driven = Driven::new(options());
    let (first, second, third) = (text(30, 0), text(40, 1), text(50, 2));
    let expected = driven.alone(&third);
    let (bad, beside, idle) = (
        driven.read(&first),
        driven.read(&second),
        driven.read(&third),
    );
    let mut ended = [
        bad.generate(ANSWER).unwrap(),
        beside.generate(ANSWER).unwrap(),
    ];
    // The first choices are there already; the first pass panics.
    driven.engine.runner.trip = Some(sequence(&driven, &bad));
    driven.step();
    for events in &mut ended {
        let events = there(events);
        match events.as_slice() {
            [Event::Token(_), Event::Failed(error)] => {
                assert!(
                    error.to_string().contains("panicked: on purpose"),
                    "{error}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(driven.load().sessions, 1);
    let gone = driven.ask(bad.output()).unwrap_err().to_string();
    assert!(gone.contains("over"), "{gone}");
    // Who was not in it, and who comes, are answered.
    let mut events = idle.generate(ANSWER).unwrap();
    assert_eq!(driven.tokens(&mut events), expected);
    assert_eq!(driven.alone(&third), expected);
    // What the lost sequences held has come free.
    drop((bad, beside, idle));
    driven.assert_empty();
}

#[test]
fn want_of_device_memory_ends_nobody_whom_another_try_serves() {
    let mut driven = Driven::new(options());
    let (first, second) = (text(30, 0), text(40, 1));
    let expected = [driven.alone(&first), driven.alone(&second)];
    let sessions = [driven.read(&first), driven.read(&second)];
    let mut answers = sessions
        .each_ref()
        .map(|session| session.generate(ANSWER).unwrap());
    // Both together, and once more when what is kept has been given up; then each alone.
    driven.engine.runner.full = (Task::Pass, [true; 2].into());
    let tokens = answers.each_mut().map(|events| driven.tokens(events));
    assert_eq!(tokens, expected);
    // Who finds none alone either is told so.
    let alone = driven.read(&first);
    let mut events = alone.generate(ANSWER).unwrap();
    driven.engine.runner.full = (Task::Pass, [true; 2].into());
    driven.step();
    match there(&mut events).as_slice() {
        [Event::Token(_), Event::Failed(error)] => {
            assert!(matches!(error, ServiceError::Engine(error) if error.is_want_of_room()));
        }
        other => panic!("{other:?}"),
    }
    drop((sessions, alone));
    driven.assert_empty();
}

#[test]
fn loading_ends_once_nobody_waits_for_it() {
    let dir = root().join("models/qwen25-vl-windows");
    let load = |stop: bool| {
        let stop = Arc::new(AtomicBool::new(stop));
        Model::load_until(&dir, &LoadOptions::default(), Some(stop))
    };
    assert!(load(false).is_ok());
    let error = load(true).unwrap_err().to_string();
    assert!(error.contains("given up"), "{error}");
}

#[test]
fn whatever_finds_no_device_memory_is_tried_once_more() {
    let mut driven = Driven::new(options());
    let seen = picture(&driven, 8);
    let expected = driven.alone(&seen);
    let probing = Open {
        options: OpenOptions {
            keep: None,
            probe: Some(ProbeOptions {
                // Several steps of a report.
                content_free: (0..150).map(|n| 3 + n % 50).collect(),
                seed: 1,
            }),
        },
        ..open(&seen)
    };
    let keep = || Keep { items: vec![None] };
    // All that is done for one who looks, keeps all and answers, as far as it goes.
    let answer = |driven: &mut Driven| -> Result<Vec<u32>, ServiceError> {
        let service = driven.service.clone();
        let session = driven.ask(service.open(probing.clone()))?;
        driven.ask(session.probed())?;
        driven.ask(session.keep(keep()))?;
        driven.ask(session.read())?;
        let mut events = session.generate(ANSWER)?;
        Ok(driven.tokens(&mut events))
    };
    let tries = [Task::Open, Task::Encode, Task::Report, Task::Pass];
    let often = tries.map(|task| (task, vec![true, true]));
    for task in tries {
        driven.engine.runner.full = (task, [true].into());
        assert_eq!(answer(&mut driven).unwrap(), expected, "{task:?}");
        assert!(driven.engine.runner.full.1.is_empty());
    }
    // What is begun anew may not fail for ever, however far it gets.
    let anew =
        [Task::Encode, Task::Report].map(|task| (task, vec![false, true, false, false, true]));
    for (task, fails) in often.into_iter().chain(anew) {
        driven.engine.runner.full = (task, fails.clone().into());
        let error = answer(&mut driven).unwrap_err();
        assert!(error.is_want_of_room(), "{task:?} {fails:?}: {error}");
    }
    driven.assert_empty();
}

#[test]
fn a_report_is_worked_out_between_passes_and_only_once() {
    let mut driven = Driven::new(options());
    // Read in several pieces.
    let mut seen = picture(&driven, 8);
    seen.input_ids.extend((0..400).map(|n| 3 + n % 50));
    let probing = Open {
        options: OpenOptions {
            keep: None,
            probe: Some(ProbeOptions {
                // More rows than are taken together.
                content_free: (0..150).map(|n| 3 + n % 50).collect(),
                seed: 1,
            }),
        },
        ..open(&seen)
    };
    let mut steady = Steady::begin(&mut driven);
    let service = driven.service.clone();
    let session = driven.ask(service.open(probing.clone())).unwrap();
    let id = sequence(&driven, &session);
    let mut pieces = 0;
    loop {
        let before = driven.engine.runner.needs(id).unwrap();
        if before == Needs::Keeping {
            break;
        }
        driven.step();
        let read = driven.engine.runner.needs(id).unwrap() != before;
        pieces += usize::from(read && matches!(before, Needs::Reading(_)));
    }
    assert!(pieces > 1, "{pieces}");
    there(&mut steady.events);
    let mut context = Context::from_waker(Waker::noop());
    let mut asked = Box::pin(session.probed());
    let mut turns = 0;
    let report = loop {
        match asked.as_mut().poll(&mut context) {
            Poll::Ready(report) => break report.unwrap(),
            Poll::Pending => driven.step(),
        };
        steady.got_one();
        turns += 1;
    };
    // The keys of the prompt's pieces, the content-free text, its blocks, and the turn in which the report is handed over.
    let blocks = 150usize.div_ceil(64);
    assert!(turns >= 2 + pieces + blocks, "{turns}");
    // Asking again gives the same and costs nothing.
    let flops = driven.engine.runner.meter(id).unwrap().flops();
    let again = driven.ask(session.probed()).unwrap();
    assert_eq!(again, report);
    assert_eq!(driven.engine.runner.meter(id).unwrap().flops(), flops);
    // Who gives up waiting for it does not hold up what comes behind.
    let other = driven.ask(service.open(probing)).unwrap();
    let mut given_up = Box::pin(other.probed());
    assert!(given_up.as_mut().poll(&mut context).is_pending());
    drop(given_up);
    let keep = Keep { items: vec![None] };
    driven.ask(other.keep(keep)).unwrap();
    driven.ask(other.read()).unwrap();
}

#[test]
fn a_verdict_tells_what_its_session_has_cost() {
    let mut driven = Driven::new(ServiceOptions {
        runner: RunnerOptions {
            prefixes: 4,
            ..options().runner
        },
        ..options()
    });
    let prompt = text(40, 0);
    let first = driven.read(&prompt);
    let read = driven.ask(first.meter()).unwrap().spent();
    assert_eq!(read.cached_tokens, 0);
    // The prompt's own logits choose the first token: nothing is computed for it.
    let verdict = driven.ask(first.verify(Vec::new())).unwrap();
    assert_eq!(verdict.spent.flops, read.flops);
    for drafts in [Vec::new(), vec![9; 3]] {
        let before = driven.ask(first.meter()).unwrap().spent();
        let verdict = driven.ask(first.verify(drafts)).unwrap();
        let asked = driven.ask(first.meter()).unwrap().spent();
        assert!(verdict.spent.flops > before.flops);
        assert_eq!(verdict.spent.flops, asked.flops);
        let held = verdict.spent.cache_byte_seconds;
        assert!(before.cache_byte_seconds < held && held < asked.cache_byte_seconds);
    }
    // Who has the same prompt reads its last token alone.
    let second = driven.read(&prompt);
    let verdict = driven.ask(second.verify(Vec::new())).unwrap();
    assert_eq!(verdict.spent.cached_tokens, 39);
    assert!(verdict.spent.flops < read.flops / 2);
    drop((first, second));
    driven.assert_empty();
}

#[test]
fn whoever_asks_a_session_that_failed_is_told_why() {
    let said = || "on purpose".to_owned();
    let mut driven = Driven::new(options());
    for (error, room) in [
        (EngineError::DeviceFull { said: said() }, true),
        (EngineError::Panicked(said()), false),
    ] {
        let session = driven.read(&text(30, 0));
        let expected = std::mem::discriminant(&error);
        driven.engine.fail(session.ticket.id, error);
        for _ in 0..2 {
            let told = driven.ask(session.output()).unwrap_err();
            assert_eq!(told.is_want_of_room(), room, "{told}");
            match told {
                ServiceError::Over(why) => assert_eq!(std::mem::discriminant(&why), expected),
                other => panic!("{other}"),
            }
        }
    }
    driven.assert_empty();
}

#[test]
fn a_panic_in_an_encoder_ends_its_session_and_no_other() {
    let mut driven = Driven::new(options());
    let good = text(30, 0);
    let expected = driven.alone(&good);
    let running = driven.read(&good);
    let mut events = running.generate(ANSWER).unwrap();
    let seen = picture(&driven, 8);
    let bad = driven.open(&seen);
    driven.engine.runner.trip = Some(sequence(&driven, &bad));
    let error = driven.ask(bad.read()).unwrap_err().to_string();
    assert!(error.contains("panicked: on purpose"), "{error}");
    assert_eq!(driven.tokens(&mut events), expected);
    drop((running, bad));
    driven.assert_empty();
}

#[test]
fn a_fork_has_room_for_what_its_answer_has_not_read_yet() {
    let prompt = text(32, 0);
    let config = Driven::new(options()).service.config().text.clone();
    let token_bytes = 2 * 4 * config.layers * config.kv_heads * config.head_dim;
    let reserve = 160;
    let capacity = |tokens: usize| {
        let mut options = options();
        options.runner.cache_bytes = (tokens * token_bytes) as u64;
        Driven::new(options)
    };
    // Room for the prompt, two answers and some blocks to spare: a copy and what is always left.
    for (tokens, fits) in [
        (32 + 2 * reserve + 48, true),
        (32 + 2 * reserve - 64, false),
    ] {
        let mut driven = capacity(tokens);
        let wide = Open {
            reserve,
            ..open(&prompt)
        };
        let service = driven.service.clone();
        let session = driven.ask(service.open(wide)).unwrap();
        driven.ask(session.read()).unwrap();
        // Of these the model has read nothing yet.
        driven.ask(session.append(vec![9; 150])).unwrap();
        let mut same = sampler(&prompt);
        for _ in 0..150 {
            same.commit(9);
        }
        match driven.ask(session.fork(same)) {
            Ok(fork) => {
                assert!(fits);
                // Both use all of their room.
                let mut events = [session.generate(10).unwrap(), fork.generate(10).unwrap()];
                for events in &mut events {
                    assert_eq!(driven.tokens(events).len(), 10);
                }
            }
            Err(error) => {
                assert!(
                    !fits && error.to_string().contains("cache_bytes"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn media_that_wait_are_bounded_by_their_bytes() {
    let mut driven = Driven::new(ServiceOptions {
        // One session at a time, so that the next must wait.
        logits_bytes: 0,
        ..options()
    });
    let (words, seen) = (text(30, 0), picture(&driven, 8));
    let one = 4 * seen.images.as_ref().unwrap().values.data.len() as u64;
    driven.service.waiting_bytes = 2 * one;
    let inside = driven.read(&words);
    let service = driven.service.clone();
    let mut context = Context::from_waker(Waker::noop());
    let mut opening: Vec<_> = (0..2)
        .map(|_| Box::pin(service.open(open(&seen))))
        .collect();
    for opening in &mut opening {
        assert!(opening.as_mut().poll(&mut context).is_pending());
    }
    driven.step();
    assert_eq!(
        (driven.load().waiting, driven.load().waiting_bytes),
        (2, 2 * one)
    );
    // A third picture is refused at once, words are not.
    let error = driven.ask(service.open(open(&seen))).unwrap_err();
    let told = error.to_string();
    assert!(matches!(error, ServiceError::Overloaded { .. }), "{error}");
    assert!(
        told.contains("waiting_bytes") && told.contains(&(2 * one).to_string()),
        "{told}"
    );
    let mut words_too = Box::pin(service.open(open(&words)));
    assert!(words_too.as_mut().poll(&mut context).is_pending());
    // Who gives up makes room, and so does who is let in.
    drop(opening.pop());
    driven.step();
    assert_eq!(driven.load().waiting_bytes, one);
    drop(inside);
    let first = driven.ask(opening.pop().unwrap()).unwrap();
    drop(first);
    drop(driven.ask(words_too).unwrap());
    driven.assert_empty();
    // One is always taken.
    driven.service.waiting_bytes = 0;
    drop(driven.open(&seen));
}

#[test]
fn media_count_until_they_have_been_encoded() {
    let mut driven = Driven::new(ServiceOptions {
        prompt_rows: 32,
        ..options()
    });
    let mut seen = picture(&driven, 8);
    seen.input_ids.extend((0..400).map(|n| 3 + n % 50));
    let bytes = 4 * seen.images.as_ref().unwrap().values.data.len() as u64;
    let _steady = Steady::begin(&mut driven);
    let opening = open(&seen);
    let pixels = Arc::downgrade(&opening.inputs);
    let service = driven.service.clone();
    let session = driven.ask(service.open(opening)).unwrap();
    let id = sequence(&driven, &session);
    while driven.engine.runner.needs(id).unwrap() == Needs::Encoding {
        assert_eq!(driven.load().waiting_bytes, bytes);
        assert!(pixels.strong_count() > 0);
        driven.step();
    }
    // Long before the prompt has been read they are let go.
    driven.step();
    assert!(matches!(
        driven.engine.runner.needs(id),
        Ok(Needs::Reading(_))
    ));
    assert_eq!(driven.load().waiting_bytes, 0);
    assert_eq!(pixels.strong_count(), 0);
}

/// Somebody who is answered all the while.
struct Steady {
    session: Session,
    events: mpsc::Receiver<Event>,
}

impl Steady {
    fn begin(driven: &mut Driven) -> Self {
        let session = driven.read(&text(20, 0));
        let mut events = session.generate(2 * ANSWER).unwrap();
        driven.step();
        there(&mut events);
        Steady { session, events }
    }

    /// That exactly one token more has come.
    fn got_one(&mut self) {
        let events = there(&mut self.events);
        assert!(matches!(events.as_slice(), [Event::Token(_)]), "{events:?}");
    }
}

#[test]
fn who_leaves_takes_part_in_no_further_pass() {
    /// Where somebody is when they leave.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum During {
        Encoding,
        Reading,
        Decoding,
        Verifying,
        /// Only the answer's reader goes; the session stays.
        Listening,
    }
    for during in [
        During::Encoding,
        During::Reading,
        During::Decoding,
        During::Verifying,
        During::Listening,
    ] {
        let mut driven = Driven::new(ServiceOptions {
            prompt_rows: 32,
            ..options()
        });
        let mut steady = Steady::begin(&mut driven);
        let prompt = match during {
            During::Encoding => picture(&driven, 8),
            During::Reading => text(400, 1),
            _ => text(20, 1),
        };
        let session = driven.open(&prompt);
        if !matches!(during, During::Encoding | During::Reading) {
            driven.ask(session.read()).unwrap();
        }
        let held = driven.load().held_blocks;
        let mut left = Some(session);
        match during {
            During::Encoding => {
                let needs = driven
                    .engine
                    .runner
                    .needs(sequence(&driven, left.as_ref().unwrap()));
                assert_eq!(needs.unwrap(), Needs::Encoding);
            }
            During::Reading => {
                driven.step();
                let needs = driven
                    .engine
                    .runner
                    .needs(sequence(&driven, left.as_ref().unwrap()));
                assert!(matches!(needs.unwrap(), Needs::Reading(_)));
            }
            During::Decoding | During::Listening => {
                let mut events = left.as_ref().unwrap().generate(ANSWER).unwrap();
                for _ in 0..3 {
                    driven.step();
                }
                assert!(
                    there(&mut events)
                        .iter()
                        .all(|event| token(event).is_some())
                );
                drop(events);
            }
            During::Verifying => {
                let mut context = Context::from_waker(Waker::noop());
                let session = left.as_ref().unwrap();
                let mut verdict = Box::pin(session.verify(vec![9; 8]));
                assert!(verdict.as_mut().poll(&mut context).is_pending());
            }
        }
        there(&mut steady.events);
        let before = driven.load();
        if during != During::Listening {
            drop(left.take());
        }
        driven.step();
        // One pass, with the row of who stayed and no other.
        let after = driven.load();
        assert_eq!(after.passes, before.passes + 1, "{during:?}");
        assert_eq!(after.rows, before.rows + 1, "{during:?}");
        steady.got_one();
        assert_eq!(
            after.sessions,
            1 + usize::from(left.is_some()),
            "{during:?}"
        );
        if let Some(stays) = left {
            let output = driven.ask(stays.output()).unwrap();
            assert_eq!(output.len(), 4);
        } else {
            assert!(after.held_blocks <= held, "{during:?}");
        }
        drop(steady.session);
        driven.assert_empty();
    }
}

#[test]
fn an_answer_goes_on_by_a_token_a_turn_while_a_long_prompt_is_read() {
    let (rows, prompt) = (32, text(600, 1));
    let mut driven = Driven::new(ServiceOptions {
        prompt_rows: rows,
        ..options()
    });
    let expected = driven.alone(&prompt);
    let mut steady = Steady::begin(&mut driven);
    let session = driven.open(&prompt);
    steady.got_one();
    let mut late = session.generate(ANSWER).unwrap();
    // The first chunk has gone already; the pass of the last gives the logits that the first token is chosen by.
    let chunks = prompt.input_ids.len().div_ceil(rows);
    for _ in 1..chunks {
        driven.step();
        steady.got_one();
        assert!(there(&mut late).is_empty());
    }
    driven.step();
    steady.got_one();
    let first = there(&mut late);
    let first: Vec<u32> = first
        .iter()
        .filter_map(token)
        .map(|step| step.pick.id)
        .collect();
    assert_eq!(first, expected[..first.len()]);
    assert!(!first.is_empty());
}

#[test]
fn an_answer_goes_on_by_a_token_a_turn_while_a_picture_is_encoded() {
    let mut driven = Driven::new(options());
    let seen = picture(&driven, 16);
    let expected = driven.alone(&seen);
    let mut steady = Steady::begin(&mut driven);
    let session = driven.open(&seen);
    steady.got_one();
    let mut late = session.generate(ANSWER).unwrap();
    let mut turns = 1;
    let id = sequence(&driven, &session);
    while driven.engine.runner.needs(id).unwrap() == Needs::Encoding {
        driven.step();
        steady.got_one();
        assert!(there(&mut late).is_empty());
        turns += 1;
    }
    // Each block of the encoder had a turn to itself.
    assert!(turns > driven.service.config().vision.depth, "{turns}");
    assert_eq!(driven.tokens(&mut late), expected);
}

#[test]
fn a_pass_reads_as_much_of_prompts_as_its_slice_has_time_for() {
    let mut driven = Driven::new(ServiceOptions {
        prompt_rows: 128,
        prompt_slice: Duration::from_millis(100),
        idle_prompt_rows: 512,
        idle_prompt_slice: Duration::from_millis(500),
        ..options()
    });
    // Rows beside answers, with nobody else there, and through an eighth of the layers.
    for (row_seconds, beside, idle, looked_at) in [
        (0.0, 128, 128, 128),
        (1e-9, 128, 512, 512),
        (0.001, 100, 500, 512),
        (0.007, FEWEST_ROWS, 71, 512),
        (0.01, FEWEST_ROWS, 50, 400),
        (f64::INFINITY, FEWEST_ROWS, FEWEST_ROWS, 8 * FEWEST_ROWS),
    ] {
        driven.engine.row_seconds = row_seconds;
        let (busy, quiet) = (
            driven.engine.allowance(false),
            driven.engine.allowance(true),
        );
        assert_eq!(busy.rows(1.0), beside, "{row_seconds}");
        assert_eq!(quiet.rows(1.0), idle, "{row_seconds}");
        assert_eq!(quiet.rows(0.125), looked_at, "{row_seconds}");
    }
}

#[test]
fn passes_through_some_of_the_layers_say_what_a_row_takes_through_all() {
    let mut driven = Driven::new(options());
    let layers = driven.service.config().text.layers;
    let looked_at = (layers / 8).max(1);
    assert!(looked_at < layers);
    let share = |layers_run: usize| layers_run as f64 / layers as f64;
    let prompt = text(64, 1);
    let probing = Open {
        options: OpenOptions {
            keep: None,
            probe: Some(ProbeOptions::default()),
        },
        ..open(&prompt)
    };
    let service = driven.service.clone();
    let session = driven.ask(service.open(probing)).unwrap();
    let learned = |driven: &Driven, layers_run: usize| {
        let expected = driven.engine.took.as_secs_f64() / (64.0 * share(layers_run));
        let known = driven.engine.row_seconds;
        assert!(expected > 0.0 && (known / expected - 1.0).abs() < 1e-9);
    };
    // The first layers have run over all of it.
    assert_eq!(
        driven
            .engine
            .runner
            .needs(sequence(&driven, &session))
            .unwrap(),
        Needs::Keeping
    );
    learned(&driven, looked_at);
    // And the others, of which nothing is known any more.
    driven.engine.row_seconds = 0.0;
    driven.ask(session.keep(Keep::default())).unwrap();
    driven.ask(session.read()).unwrap();
    learned(&driven, layers - looked_at);
    // A pass that fails says nothing.
    let known = driven.engine.row_seconds;
    driven.engine.runner.full = (Task::Pass, [true; 2].into());
    let failing = driven.open(&prompt);
    let error = driven.ask(failing.read()).unwrap_err();
    assert!(error.is_want_of_room(), "{error}");
    assert_eq!(driven.engine.row_seconds.to_bits(), known.to_bits());
}
