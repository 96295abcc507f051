//! A model on its own thread, used as the asynchronous side uses it: answers side by side, drafts, forks, clients that
//! leave, stall or ask for too much.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::service::{Event, Open, Service, ServiceError, ServiceOptions, Session, Tell};
use msao_engine::{
    GenerateOptions, Keep, LoadOptions, Model, OpenOptions, Precision, ProbeOptions, RunnerOptions,
    Stop, generate, items,
};
use msao_golden::{Case, cases_of, models, root};
use tokio::sync::mpsc::Receiver;

const LENGTH: usize = 24;

fn dir(name: &str) -> PathBuf {
    root().join("models").join(name)
}

fn f32_options() -> LoadOptions {
    msao_engine::set_threads(1);
    LoadOptions {
        precision: Precision::F32,
        ..Default::default()
    }
}

/// The checkpoint with most cases, and these.
fn chosen() -> (String, Vec<Case>) {
    let mut all: Vec<(String, Vec<Case>)> = models()
        .into_iter()
        .map(|name| (name.clone(), cases_of(&name).into_iter().collect()))
        .collect();
    all.sort_by_key(|(name, cases)| (std::cmp::Reverse(cases.len()), name.clone()));
    all.swap_remove(0)
}

fn sampler(case: &Case, vocabulary: usize, seed: u64, choice: u32) -> Sampler {
    let params = SamplingParams {
        temperature: 0.8,
        seed,
        choice,
        ..Default::default()
    };
    Sampler::new(params, vocabulary as u32, &case.prepared.inputs.input_ids).unwrap()
}

fn open(case: &Case, sampler: Sampler) -> Open {
    Open {
        inputs: Arc::new(case.prepared.inputs.clone()),
        sampler,
        reserve: 3 * LENGTH,
        options: OpenOptions::default(),
        end_of_sequence: Vec::new(),
        tell: Tell::default(),
    }
}

/// What one sequence alone answers.
fn alone(model: &Model, case: &Case, mut sampler: Sampler) -> Vec<u32> {
    let options = GenerateOptions {
        max_new_tokens: LENGTH,
        ..Default::default()
    };
    let inputs = &case.prepared.inputs;
    generate(model, inputs, &mut sampler, &options, &mut |_| {
        ControlFlow::Continue(())
    })
    .unwrap()
    .tokens
}

async fn collect(mut events: Receiver<Event>) -> Vec<u32> {
    let mut tokens = Vec::new();
    loop {
        match events.recv().await.unwrap() {
            Event::Token(step) => tokens.push(step.pick.id),
            Event::End(stop) => {
                assert_eq!(stop, Stop::Length);
                return tokens;
            }
            Event::Failed(error) => panic!("{error}"),
        }
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// Waits until nothing is open and only kept prefixes hold cache.
async fn assert_empty(service: &Service) {
    for _ in 0..2000 {
        let load = service.load();
        if load.sessions == 0 && load.held_blocks == load.prefix_blocks {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{:?}", service.load());
}

#[test]
fn answers_side_by_side_are_the_answers_of_each_alone() {
    let (name, cases) = chosen();
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    block_on(async {
        let options = ServiceOptions {
            prompt_rows: 13,
            idle_prompt_rows: 29,
            ..Default::default()
        };
        let service = Service::start(dir(&name), f32_options(), options)
            .await
            .unwrap();
        let mut sessions: Vec<(Session, Receiver<Event>, Vec<u32>)> = Vec::new();
        for (seed, case) in cases.iter().enumerate() {
            let sampler = sampler(case, vocabulary, seed as u64, 0);
            let expected = alone(&model, case, sampler.clone());
            let session = service.open(open(case, sampler)).await.unwrap();
            let events = session.generate(LENGTH).unwrap();
            sessions.push((session, events, expected));
        }
        for (session, events, expected) in sessions {
            assert_eq!(collect(events).await, expected);
            assert_eq!(session.output().await.unwrap(), expected);
            assert!(session.meter().await.unwrap().flops() > 0);
        }
        assert_empty(&service).await;
    });
}

#[test]
fn whatever_is_drafted_the_answer_is_the_same() {
    let (name, cases) = chosen();
    let case = &cases[0];
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    let right = alone(&model, case, sampler(case, vocabulary, 7, 0));
    block_on(async {
        let service = Service::start(dir(&name), f32_options(), ServiceOptions::default())
            .await
            .unwrap();
        // Drafts that are right up to some place: of every length, at once.
        for good in 0..6 {
            let session = service
                .open(open(case, sampler(case, vocabulary, 7, 0)))
                .await
                .unwrap();
            let mut answer: Vec<u32> = Vec::new();
            while answer.len() + 7 < right.len() {
                let at = answer.len();
                let mut drafts = right[at..at + good].to_vec();
                // Wrong from here on.
                drafts.extend([(right[at + good] + 1) % 50, 3]);
                let verdict = session.verify(drafts).await.unwrap();
                assert_eq!(verdict.accepted, good);
                assert!(!verdict.ended);
                answer.extend(verdict.picks.iter().map(|pick| pick.id));
                assert_eq!(answer, right[..at + good + 1]);
            }
            // No draft at all is a plain step; and generating goes on from a verdict.
            let verdict = session.verify(Vec::new()).await.unwrap();
            answer.extend(verdict.picks.iter().map(|pick| pick.id));
            let left = LENGTH - answer.len();
            answer.extend(collect(session.generate(left).unwrap()).await);
            assert_eq!(answer, right);
        }
        assert_empty(&service).await;
    });
}

#[test]
fn drafts_and_the_choice_behind_them_stay_within_the_reserve() {
    let (name, cases) = chosen();
    let case = &cases[0];
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    let right = alone(&model, case, sampler(case, vocabulary, 7, 0));
    block_on(async {
        let service = Service::start(dir(&name), f32_options(), ServiceOptions::default())
            .await
            .unwrap();
        for (reserve, drafts) in [(0, 0), (6, 6), (6, 7), (1, 1)] {
            let narrow = Open {
                reserve,
                ..open(case, sampler(case, vocabulary, 7, 0))
            };
            let session = service.open(narrow).await.unwrap();
            let error = session.verify(right[..drafts].to_vec()).await.unwrap_err();
            assert!(error.to_string().contains("reserve"), "{error}");
            // Nothing was chosen, and the session goes on to the last token of its room.
            assert!(session.output().await.unwrap().is_empty());
            if let Some(fit) = reserve.checked_sub(1) {
                let verdict = session.verify(right[..fit].to_vec()).await.unwrap();
                assert_eq!(verdict.accepted, fit);
            }
            assert_eq!(session.output().await.unwrap(), right[..reserve]);
            let error = session.verify(Vec::new()).await.unwrap_err();
            assert!(error.to_string().contains("reserve"), "{error}");
            assert!(collect(session.generate(1).unwrap()).await.is_empty());
            session.roll_back(0).await.unwrap();
            let again = collect(session.generate(LENGTH).unwrap()).await;
            assert_eq!(again, right[..reserve]);
        }
        assert_empty(&service).await;
    });
}

#[test]
fn an_end_of_sequence_ends_a_verdict_and_an_answer() {
    let (name, cases) = chosen();
    let case = &cases[0];
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    let right = alone(&model, case, sampler(case, vocabulary, 7, 0));
    let end = right[5];
    let first = right.iter().position(|&id| id == end).unwrap();
    block_on(async {
        let service = Service::start(dir(&name), f32_options(), ServiceOptions::default())
            .await
            .unwrap();
        let ending = || Open {
            end_of_sequence: vec![end],
            ..open(case, sampler(case, vocabulary, 7, 0))
        };
        let session = service.open(ending()).await.unwrap();
        let verdict = session.verify(right[..8].to_vec()).await.unwrap();
        assert!(verdict.ended);
        assert_eq!(verdict.accepted, first);
        assert_eq!(session.output().await.unwrap(), right[..first]);
        let session = service.open(ending()).await.unwrap();
        let mut events = session.generate(LENGTH).unwrap();
        for token in &right[..first] {
            match events.recv().await.unwrap() {
                Event::Token(step) => assert_eq!(step.pick.id, *token),
                other => panic!("{other:?}"),
            }
        }
        let end = events.recv().await.unwrap();
        assert!(matches!(end, Event::End(Stop::EndOfSequence)), "{end:?}");
    });
}

#[test]
fn a_verdict_tells_what_an_answer_tells() {
    let (name, cases) = chosen();
    let case = &cases[0];
    let vocabulary = (Model::load(&dir(&name), &f32_options())
        .unwrap()
        .config()
        .text)
        .vocab_size;
    block_on(async {
        let service = Service::start(dir(&name), f32_options(), ServiceOptions::default())
            .await
            .unwrap();
        let telling = |confidence| Open {
            tell: Tell {
                top_logprobs: Some(3),
                confidence,
            },
            ..open(case, sampler(case, vocabulary, 7, 0))
        };
        let session = service.open(telling(false)).await.unwrap();
        let mut events = session.generate(8).unwrap();
        let (mut right, mut told) = (Vec::new(), Vec::new());
        while let Some(Event::Token(step)) = events.recv().await {
            let (chosen, top) = step.logprobs.unwrap();
            assert_eq!((chosen.id, top.len()), (step.pick.id, 3));
            right.push(step.pick.id);
            told.push((chosen, top));
        }
        let session = service.open(telling(true)).await.unwrap();
        let verdict = session.verify(right[..7].to_vec()).await.unwrap();
        assert_eq!((verdict.accepted, verdict.picks.len()), (7, 8));
        assert_eq!(verdict.confidence.len(), 8);
        for ((verified, answered), sure) in (verdict.logprobs.iter())
            .zip(&told)
            .zip(&verdict.confidence)
        {
            assert_eq!(verified.chosen.id, answered.0.id);
            let apart = |a: f64, b: f64| (a - b).abs() > 1e-4;
            assert!(!apart(verified.chosen.logprob, answered.0.logprob));
            // The same distribution, seen in two ways.
            assert!(!apart(sure.top1.ln(), verified.top[0].logprob));
            let margin = verified.top[0].logprob - verified.top[1].logprob;
            assert!(!apart(sure.margin, margin));
        }
    });
}

#[test]
fn choices_share_a_prompt_and_answers_can_be_taken_back() {
    let (name, cases) = chosen();
    let case = &cases[cases.len() / 2];
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    block_on(async {
        let service = Service::start(dir(&name), f32_options(), ServiceOptions::default())
            .await
            .unwrap();
        let session = service
            .open(open(case, sampler(case, vocabulary, 3, 0)))
            .await
            .unwrap();
        session.read().await.unwrap();
        let mut forks = Vec::new();
        for choice in 1..4 {
            let fork = session
                .fork(sampler(case, vocabulary, 3, choice))
                .await
                .unwrap();
            let events = fork.generate(LENGTH).unwrap();
            forks.push((choice, fork, events));
        }
        let right = alone(&model, case, sampler(case, vocabulary, 3, 0));
        assert_eq!(collect(session.generate(LENGTH).unwrap()).await, right);
        for (choice, fork, events) in forks {
            let expected = alone(&model, case, sampler(case, vocabulary, 3, choice));
            assert_eq!(collect(events).await, expected);
            use msao_core::meter::Phase;
            let meter = fork.meter().await.unwrap();
            assert_eq!(meter.cost(Phase::Prefill).flops, 0);
        }
        // Back to any length, then the same again; forced tokens change what follows and are taken back as well.
        for keep in [LENGTH - 1, 9, 1, 0] {
            session.roll_back(keep).await.unwrap();
            let rest = collect(session.generate(LENGTH - keep).unwrap()).await;
            assert_eq!(rest, right[keep..]);
        }
        session.roll_back(4).await.unwrap();
        session.append(vec![9, 8, 7]).await.unwrap();
        collect(session.generate(5).unwrap()).await;
        session.append(vec![5; 40]).await.unwrap();
        session.roll_back(4).await.unwrap();
        let rest = collect(session.generate(LENGTH - 4).unwrap()).await;
        assert_eq!(rest, right[4..]);
        let error = session.roll_back(LENGTH + 1).await.unwrap_err();
        assert!(error.to_string().contains("cannot roll back"), "{error}");
        let wrong = session.fork(sampler(case, vocabulary, 3, 1)).await;
        assert!(wrong.unwrap_err().to_string().contains("output"));
        drop(session);
        assert_empty(&service).await;
    });
}

#[test]
fn a_probe_reports_and_what_is_kept_is_read() {
    let (name, cases) = chosen();
    let case = cases
        .iter()
        .find(|case| case.prepared.inputs.images.is_some())
        .unwrap();
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    block_on(async {
        let service = Service::start(dir(&name), f32_options(), ServiceOptions::default())
            .await
            .unwrap();
        let probing = Open {
            options: OpenOptions {
                keep: None,
                probe: Some(ProbeOptions {
                    content_free: vec![4, 5],
                    seed: 1,
                }),
            },
            ..open(case, sampler(case, vocabulary, 3, 0))
        };
        let session = service.open(probing).await.unwrap();
        let report = session.probed().await.unwrap();
        assert!(!report.items.is_empty() && report.extra_flops > 0);
        let wrong = session.keep(Keep::default()).await.unwrap_err();
        assert!(wrong.to_string().contains("keep list"), "{wrong}");
        // The session is still there.
        let keep = Keep {
            items: vec![None; report.items.len()],
        };
        session.keep(keep).await.unwrap();
        let tokens = collect(session.generate(LENGTH).unwrap()).await;
        let expected = alone(&model, case, sampler(case, vocabulary, 3, 0));
        assert_eq!(tokens, expected);
        // Nothing was dropped, so the next answer to the same prompt goes on from it.
        let before = service.load().rows;
        let next = sampler(case, vocabulary, 3, 1);
        let expected = alone(&model, case, next.clone());
        let other = service.open(open(case, next)).await.unwrap();
        assert_eq!(collect(other.generate(LENGTH).unwrap()).await, expected);
        assert!(service.load().rows - before <= 1 + LENGTH as u64);
    });
}

#[test]
fn a_prompt_that_many_ask_at_once_is_read_once() {
    let (name, cases) = chosen();
    let longest = |case: &&Case| case.prepared.inputs.input_ids.len();
    let case = cases.iter().max_by_key(longest).unwrap();
    let tokens = longest(&case);
    assert!(tokens > 100, "{tokens}: too few to be worth waiting for");
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    block_on(async {
        let options = ServiceOptions {
            // Room for all prompts in one pass.
            idle_prompt_rows: 5 * tokens,
            prompt_rows: 5 * tokens,
            ..Default::default()
        };
        let service = Service::start(dir(&name), f32_options(), options);
        let service = service.await.unwrap();
        let mut sessions = Vec::new();
        for choice in 0..4 {
            let opening = service.open(open(case, sampler(case, vocabulary, 3, choice)));
            let session = opening.await.unwrap();
            let events = session.generate(LENGTH).unwrap();
            sessions.push((choice, session, events));
        }
        for (choice, session, events) in sessions {
            let expected = alone(&model, case, sampler(case, vocabulary, 3, choice));
            assert_eq!(collect(events).await, expected);
            drop(session);
        }
        assert_empty(&service).await;
        // Each reads the last token of its prompt for itself.
        let most = tokens + 4 * (1 + LENGTH);
        assert!(service.load().rows <= most as u64, "{:?}", service.load());
        // Who was waited for leaves: the next goes on without.
        let left = service.open(open(case, sampler(case, vocabulary, 4, 0)));
        drop(left.await.unwrap());
        let opening = service.open(open(case, sampler(case, vocabulary, 4, 1)));
        let session = opening.await.unwrap();
        let expected = alone(&model, case, sampler(case, vocabulary, 4, 1));
        assert_eq!(collect(session.generate(LENGTH).unwrap()).await, expected);
    });
}

#[test]
fn what_is_not_read_of_a_prompt_takes_no_room() {
    let (name, cases) = chosen();
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let config = model.config().text.clone();
    let of = |case: &Case| items(model.config(), &case.prepared.inputs).unwrap();
    // The case with most tokens of media.
    let media = |case: &Case| of(case).iter().map(|item| item.places.len()).sum::<usize>();
    let case = cases.iter().max_by_key(|case| media(case)).unwrap();
    let (read, dropped) = (
        case.prepared.inputs.input_ids.len() - media(case),
        media(case),
    );
    let reserve = 8;
    // Room for what is read, with less to spare than what is not; a block is always left.
    let room = (read + reserve).next_multiple_of(16) + 32;
    assert!(room < read + reserve + dropped, "{read} and {dropped}");
    let token_bytes = 2 * 4 * config.layers * config.kv_heads * config.head_dim;
    block_on(async {
        let options = ServiceOptions {
            runner: RunnerOptions {
                cache_bytes: (token_bytes * room) as u64,
                media_cache_bytes: 0,
                prefixes: 0,
                ..Default::default()
            },
            ..Default::default()
        };
        let service = Service::start(dir(&name), f32_options(), options);
        let service = service.await.unwrap();
        let whole = Open {
            reserve,
            ..open(case, sampler(case, config.vocab_size, 1, 0))
        };
        let mut pruned = whole.clone();
        pruned.options.keep = Some(Keep {
            items: vec![Some(Vec::new()); of(case).len()],
        });
        let error = service.open(whole).await.unwrap_err();
        assert!(matches!(error, ServiceError::TooLarge { .. }), "{error}");
        let session = service.open(pruned).await.unwrap();
        assert_eq!(collect(session.generate(4).unwrap()).await.len(), 4);
    });
}

#[test]
fn clients_that_leave_stall_or_ask_for_too_much_harm_nobody() {
    let (name, cases) = chosen();
    let case = &cases[0];
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let config = model.config().text.clone();
    let vocabulary = config.vocab_size;
    let tokens = case.prepared.inputs.input_ids.len() + 3 * LENGTH;
    let token_bytes = 2 * 4 * config.layers * config.kv_heads * config.head_dim;
    block_on(async {
        // Room for two and a bit; one more may wait.
        let options = ServiceOptions {
            runner: RunnerOptions {
                cache_bytes: (token_bytes * (2 * tokens + 96)) as u64,
                media_cache_bytes: 0,
                prefixes: 0,
                ..Default::default()
            },
            waiting: 1,
            ..Default::default()
        };
        let service = Service::start(dir(&name), f32_options(), options)
            .await
            .unwrap();
        let make = |seed| open(case, sampler(case, vocabulary, seed, 0));
        let huge = Open {
            reserve: 10 * tokens,
            ..make(0)
        };
        let error = service.open(huge).await.unwrap_err();
        assert!(matches!(error, ServiceError::TooLarge { .. }), "{error}");
        let mut begun = make(0);
        begun.sampler.commit(3);
        let error = service.open(begun).await.unwrap_err();
        assert!(error.to_string().contains("must be empty"), "{error}");
        let first = service.open(make(1)).await.unwrap();
        // A reader that never reads.
        let stalled = service.open(make(2)).await.unwrap();
        let _unread = stalled.generate(3 * LENGTH).unwrap();
        // One waits for room, the next is refused at once.
        let waiting = tokio::spawn({
            let (service, open) = (service.clone(), make(3));
            async move { service.open(open).await }
        });
        let third = waiting;
        while service.load().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let error = service.open(make(4)).await.unwrap_err();
        assert!(matches!(error, ServiceError::Overloaded { .. }), "{error}");
        // Others go on.
        let right = alone(&model, case, sampler(case, vocabulary, 1, 0));
        assert_eq!(collect(first.generate(LENGTH).unwrap()).await, right);
        // A wrong draft costs the order, not the session.
        let error = first.verify(vec![u32::MAX]).await.unwrap_err();
        assert!(error.to_string().contains("token id"), "{error}");
        assert_eq!(first.output().await.unwrap(), right);
        // Leaving in the middle makes room.
        let events = first.generate(LENGTH).unwrap();
        drop(first);
        drop(events);
        let third = third.await.unwrap().unwrap();
        let right = alone(&model, case, sampler(case, vocabulary, 3, 0));
        assert_eq!(collect(third.generate(LENGTH).unwrap()).await, right);
        drop((third, stalled));
        assert_empty(&service).await;
    });
}

#[test]
fn encoding_in_pieces_changes_no_answer_and_lets_others_go_on() {
    let (name, cases) = chosen();
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    let with_media: Vec<&Case> = cases
        .iter()
        .filter(|case| case.prepared.inputs.images.is_some())
        .collect();
    assert!(!with_media.is_empty());
    block_on(async {
        let options = ServiceOptions {
            // One block of an encoder between two passes.
            encode_slice: Duration::ZERO,
            ..Default::default()
        };
        let service = Service::start(dir(&name), f32_options(), options)
            .await
            .unwrap();
        let running = service
            .open(open(&cases[0], sampler(&cases[0], vocabulary, 1, 0)))
            .await
            .unwrap();
        running.read().await.unwrap();
        let running_events = running.generate(LENGTH).unwrap();
        let mut sessions = Vec::new();
        for (seed, case) in with_media.iter().enumerate() {
            let sampler = sampler(case, vocabulary, seed as u64, 0);
            let expected = alone(&model, case, sampler.clone());
            let session = service.open(open(case, sampler)).await.unwrap();
            let events = session.generate(LENGTH).unwrap();
            sessions.push((session, events, expected));
        }
        let right = alone(&model, &cases[0], sampler(&cases[0], vocabulary, 1, 0));
        assert_eq!(collect(running_events).await, right);
        for (_session, events, expected) in sessions {
            assert_eq!(collect(events).await, expected);
        }
        drop(running);
        assert_empty(&service).await;
    });
}

#[test]
fn kept_logits_are_bounded() {
    let (name, cases) = chosen();
    let case = &cases[0];
    let model = Model::load(&dir(&name), &f32_options()).unwrap();
    let vocabulary = model.config().text.vocab_size;
    let one = 2 * 4 * vocabulary as u64;
    block_on(async {
        let options = ServiceOptions {
            logits_bytes: 2 * one,
            ..Default::default()
        };
        let service = Service::start(dir(&name), f32_options(), options)
            .await
            .unwrap();
        let make = |seed| open(case, sampler(case, vocabulary, seed, 0));
        let first = service.open(make(1)).await.unwrap();
        let second = service.open(make(2)).await.unwrap();
        second.read().await.unwrap();
        while service.load().logits_bytes != 2 * one {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // No room for a third, whichever way it comes.
        let fork = second.fork(sampler(case, vocabulary, 2, 1)).await;
        let error = fork.unwrap_err();
        assert!(matches!(error, ServiceError::Overloaded { .. }), "{error}");
        let third = tokio::spawn({
            let (service, open) = (service.clone(), make(3));
            async move { service.open(open).await }
        });
        while service.load().waiting == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        drop(first);
        let third = third.await.unwrap().unwrap();
        let right = alone(&model, case, sampler(case, vocabulary, 3, 0));
        assert_eq!(collect(third.generate(LENGTH).unwrap()).await, right);
        drop((second, third));
        assert_empty(&service).await;
        while service.load().logits_bytes != 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
}

#[test]
fn a_directory_without_a_model_is_an_error_and_no_service() {
    block_on(async {
        let error = Service::start(
            root().join("no-such-model"),
            f32_options(),
            ServiceOptions::default(),
        )
        .await
        .unwrap_err();
        assert!(error.to_string().contains("no-such-model"), "{error}");
    });
}

#[test]
fn closing_waits_for_all_that_still_use_the_model() {
    let (name, cases) = chosen();
    let case = &cases[0];
    block_on(async {
        let service = Service::start(dir(&name), f32_options(), ServiceOptions::default());
        let service = service.await.unwrap();
        let vocabulary = service.config().text.vocab_size;
        let opening = service.open(open(case, sampler(case, vocabulary, 1, 0)));
        let session = opening.await.unwrap();
        let closing = tokio::spawn(service.clone().close());
        drop(service);
        session.read().await.unwrap();
        assert!(!closing.is_finished());
        // Letting go of the last comes back while the thread is still there.
        drop(session);
        closing.await.unwrap();
    });
}
