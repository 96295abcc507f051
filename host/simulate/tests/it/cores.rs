//! Nodes with few cores: whatever one does takes its time from all else that it does, and nothing is lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use msao_core::offload::{Action, Outcome, Plan, PlanInput, Route, Status, StepInput};
use msao_link::shaper::LinkConfig;
use msao_simulate::traffic::{Medium, Question, Traffic};
use msao_simulate::{NodeCost, NodeCosts, Plain, World};

use crate::common::{answer, at_random, by, near, only, paced, pair, play, round_trip, stream};

/// A picture of a hundred tokens.
fn picture(bytes: f64) -> Medium {
    Medium {
        modality: 1,
        tokens: 100,
        frames: 1,
        width_px: 280,
        height_px: 280,
        duration_ms: 0.0,
        bytes,
        cached: false,
        necessity: 1.0,
        mas: 0.0,
        unusual: 0.0,
    }
}

fn with_costs(mut world: World, nodes: NodeCosts) -> World {
    world.profile.as_mut().unwrap().nodes = nodes;
    world
}

/// Outcomes, in the order of the questions.
fn outcomes(world: &World, questions: Vec<Question>, route: Route) -> Vec<Outcome> {
    let traffic = Traffic {
        questions,
        ..Traffic::default()
    };
    let mut ended = play(world, &traffic, &mut by(route)).ended;
    ended.sort_by_key(|ended| ended.question);
    let outcomes = ended.into_iter().map(|ended| ended.outcome);
    outcomes
        .inspect(|it| assert_eq!(it.status, Status::Answered as u8))
        .collect()
}

#[test]
fn on_one_core_a_prompt_that_is_laid_out_takes_its_time_from_another_answer() {
    let total_ms = |cores: Option<u32>| {
        let mut world = with_costs(
            pair(8.0, 30.0, round_trip(80.0)),
            NodeCosts {
                edge: NodeCost {
                    request_ms: 30.0,
                    ..NodeCost::default()
                },
                ..NodeCosts::default()
            },
        );
        world.edges[0].cores = cores;
        let later = Question {
            arrives_ms: 60.0,
            ..Question::plain(0, 10, 1)
        };
        let questions = vec![Question::plain(0, 10, 20), later];
        let outcomes = outcomes(&world, questions, Route::Edge);
        [outcomes[0].total_ms, outcomes[1].total_ms]
    };
    // Laid out, read in a pass, and nineteen passes more; reading the other's prompt beside one of them takes next to nothing.
    let spare = total_ms(None);
    assert!((spare[0] - 190.0).abs() < 1e-3, "{spare:?}");
    // While the second is laid out, which takes twice as long, the first goes on half as fast.
    let shared = total_ms(Some(1));
    assert!((shared[0] - spare[0] - 30.0).abs() < 1e-3, "{shared:?}");
    assert!((shared[1] - spare[1] - 30.0).abs() < 8.0, "{shared:?}");
    // There are never more than two things to do.
    let two = total_ms(Some(2));
    for (two, spare) in two.iter().zip(spare) {
        assert!((two - spare).abs() < 1e-6, "{two} and {spare}");
    }
}

#[test]
fn on_one_core_a_session_that_is_opened_takes_its_time_from_the_targets_passes() {
    let total_ms = |cores: Option<u32>| {
        let mut world = with_costs(
            pair(8.0, 30.0, round_trip(20.0)),
            NodeCosts {
                cloud: NodeCost {
                    request_ms: 100.0,
                    ..NodeCost::default()
                },
                ..NodeCosts::default()
            },
        );
        world.clouds[0].cores = cores;
        let later = Question {
            arrives_ms: 300.0,
            ..Question::plain(0, 10, 1)
        };
        let questions = vec![Question::plain(0, 10, 40), later];
        outcomes(&world, questions, Route::Cloud)[0].total_ms
    };
    let (spare_ms, shared_ms) = (total_ms(None), total_ms(Some(1)));
    // There and back, laid out, read in a pass, and thirty-nine more.
    assert!((spare_ms - 1320.0).abs() < 1e-2, "{spare_ms}");
    assert!((shared_ms - spare_ms - 100.0).abs() < 1e-2, "{shared_ms}");
    // Drafts that come while a prompt is laid out wait behind its session's opening.
    let mut world = pair(2.0, 30.0, round_trip(20.0));
    world.profile.as_mut().unwrap().nodes.cloud.request_ms = 100.0;
    world.clouds[0].cores = Some(1);
    let results = play(&world, &answer(300, 0.8), &mut stream());
    assert_eq!(only(&results).outcome.tokens, 300);
    assert_eq!(results.contradictions, 0);
}

#[test]
fn who_comes_together_is_done_when_all_work_is_and_media_are_decoded_by_turns() {
    let first_ms = |media: Vec<Medium>| {
        let costs = NodeCost {
            request_ms: if media.is_empty() { 10.0 } else { 0.0 },
            picture_ms_per_token: 0.1,
            ..NodeCost::default()
        };
        let mut world = with_costs(
            pair(1e-3, 30.0, round_trip(80.0)),
            NodeCosts {
                edge: costs,
                ..NodeCosts::default()
            },
        );
        world.edges[0].cores = Some(1);
        let question = Question {
            media,
            ..Question::plain(0, 10, 1)
        };
        let outcomes = outcomes(&world, vec![question; 6], Route::Edge);
        outcomes.iter().map(|it| it.ttft_ms).collect::<Vec<f64>>()
    };
    // Six times 10 ms, in equal shares.
    let words = first_ms(Vec::new());
    assert!(words.iter().all(|ms| (ms - 60.0).abs() < 0.1), "{words:?}");
    // As much of decoding, which one request does at a time.
    let pictures = first_ms(vec![picture(1000.0)]);
    for (ms, turn) in pictures.iter().zip(1..) {
        assert!((ms - 10.0 * f64::from(turn)).abs() < 0.1, "{pictures:?}");
    }
}

/// Whatever service takes, what comes at random is there for `S / (1 - rho)` in the mean where a core is shared equally: M/G/1-PS
/// (Kleinrock, Queueing Systems II, 4.4).
#[test]
fn a_shared_core_is_as_slow_as_it_should_be() {
    let service_ms = 20.0;
    let mut world = with_costs(
        pair(1e-3, 30.0, round_trip(0.0)),
        NodeCosts {
            edge: NodeCost {
                request_ms: service_ms,
                ..NodeCost::default()
            },
            ..NodeCosts::default()
        },
    );
    world.edges[0].cores = Some(1);
    for load in [0.3, 0.6] {
        let traffic = at_random(load * 1000.0 / service_ms);
        let results = play(&world, &traffic, &mut by(Route::Edge));
        // One after the other they would be there for 24.3 and 35 ms; means of 30,000 that are like their neighbours: a few percent.
        near(
            results.summary.latency_ms.mean,
            service_ms / (1.0 - load),
            0.07,
        );
    }
}

#[test]
fn two_models_on_one_core_are_as_slow_together_as_by_turns() {
    let lasted_ms = |cores: Option<u32>, one_device: bool| {
        let mut world = pair(2.5, 30.0, round_trip(20.0));
        let beside = paced(15.0);
        let profile = world.profile.as_mut().unwrap();
        profile.engines.insert("beside".to_owned(), beside);
        world.clouds[0].draft = Some("beside".to_owned());
        world.clouds[0].one_device = one_device;
        world.clouds[0].cores = cores;
        let results = play(&world, &answer(200, 0.8), &mut by(Route::CloudDraft));
        results.summary.lasted_ms
    };
    // One answer uses them by turns anyway, but for its prompt.
    let (turns_ms, shared_ms) = (lasted_ms(None, true), lasted_ms(Some(1), false));
    assert!(
        (turns_ms - shared_ms).abs() < 40.0,
        "{turns_ms} and {shared_ms}"
    );
}

#[test]
fn media_that_are_brought_ahead_are_not_waited_for_when_the_answer_is_left_to_the_peer() {
    let mut link = LinkConfig::default();
    link.up.bandwidth = Some("20 Mbit/s".parse().unwrap());
    link.up.delay_ms = 15.0;
    link.down.delay_ms = 5.0;
    let outcome = |bring: bool, peer: u32, tokens: u32, own: u32| {
        let mut world = pair(8.0, 30.0, link.clone());
        world.rules.bring = bring;
        let question = Question {
            media: vec![picture(250_000.0)],
            ..Question::plain(0, 10, tokens)
        };
        let traffic = Traffic {
            questions: vec![question],
            ..Traffic::default()
        };
        let mut decides = Plain::new(
            move |_: PlanInput| Plan::plain(Route::Edge, peer),
            move |input: &StepInput| match input.committed < own {
                true => Action::Draft,
                false => Action::Escalate,
            },
        );
        let results = play(&world, &traffic, &mut decides);
        let outcome = only(&results).outcome.clone();
        assert_eq!(outcome.status, Status::Answered as u8);
        assert_eq!(outcome.tokens, tokens);
        assert_eq!(outcome.sent_bytes, results.link_sent_bytes as f64);
        outcome
    };
    // The edge has ten tokens of its own by 80 ms and then asks for the eleventh; media take 140 ms, of which it waits for the rest.
    let (brought, later) = (outcome(true, 1, 30, 10), outcome(false, 1, 30, 10));
    let saved_ms = later.total_ms - brought.total_ms;
    assert!((70.0..100.0).contains(&saved_ms), "{saved_ms}");
    assert_eq!(brought.sent_bytes, later.sent_bytes);
    // Without a peer in the plan they are not brought.
    assert_eq!(outcome(true, 0, 30, 10), later);
    // An answer that ends before they are there has sent what had gone by then, and no more goes.
    let ended = outcome(true, 1, 8, 8);
    assert!(
        ended.sent_bytes > 0.0 && ended.sent_bytes < 250_000.0,
        "{ended:?}"
    );
    assert_eq!(outcome(false, 1, 8, 8).sent_bytes, 0.0);
}
