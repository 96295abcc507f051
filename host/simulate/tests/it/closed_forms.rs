//! Beside formulas: those of the design for the ways to run an answer, and a queue's.
//!
//! The formulas are held at the acceptance that the answer turned out to have, so that what is left of a difference is the
//! simulation's and not the coin's.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use msao_core::offload::{Action, Plan, PlanInput, Route, Status, StepInput};
use msao_link::shaper::LinkConfig;
use msao_simulate::traffic::{Medium, Question, Traffic};
use msao_simulate::{EngineCost, Plain, World};

use crate::common::{
    acceptance, answer, at_random, by, near, only, paced, pair, play, profile, round_trip, rounds,
    stream, tokens_per_s,
};

const DRAFT_MS: f64 = 2.5;
const TOKENS: u32 = 30_000;

#[test]
fn the_cloud_alone_gives_a_token_a_pass() {
    for rtt_ms in [0.0, 80.0] {
        let world = pair(DRAFT_MS, 30.0, round_trip(rtt_ms));
        let results = play(&world, &answer(2_000, 0.8), &mut by(Route::Cloud));
        let outcome = &only(&results).outcome;
        near(tokens_per_s(outcome), 1000.0 / 30.0, 0.03);
        assert_eq!(
            (outcome.tokens, outcome.unverified, outcome.rounds),
            (2_000, 0, 0)
        );
        // The prompt takes a pass, its own logits choose the first token, and that has to come here.
        assert!((outcome.ttft_ms - rtt_ms - 30.0).abs() < 0.1, "{outcome:?}");
    }
}

#[test]
fn the_edge_alone_gives_a_token_a_pass_of_its_own() {
    let world = pair(8.0, 30.0, round_trip(80.0));
    let results = play(&world, &answer(2_000, 0.8), &mut by(Route::Edge));
    let outcome = &only(&results).outcome;
    near(tokens_per_s(outcome), 1000.0 / 8.0, 0.03);
    assert_eq!(
        (outcome.unverified, outcome.sent_bytes, outcome.cost),
        (2_000, 0.0, 0.0)
    );
}

/// `E(gamma) = (1 - a^(gamma+1)) / (1 - a)` tokens in `gamma*t_d + L`.
#[test]
fn rounds_that_wait_are_as_fast_as_the_formula_says() {
    for (share, rtt_ms, gamma) in [
        (0.8, 20.0, 4),
        (0.8, 80.0, 8),
        (0.9, 20.0, 8),
        (0.5, 80.0, 2),
    ] {
        let world = pair(DRAFT_MS, 30.0, round_trip(rtt_ms));
        let results = play(&world, &answer(TOKENS, share), &mut rounds(gamma));
        let outcome = &only(&results).outcome;
        let a = acceptance(outcome);
        near(a, share, 0.03);
        let tokens = (1.0 - a.powi(gamma as i32 + 1)) / (1.0 - a);
        let round_ms = f64::from(gamma) * DRAFT_MS + rtt_ms + 30.0;
        near(tokens_per_s(outcome), 1000.0 * tokens / round_ms, 0.03);
        assert_eq!(results.contradictions, 0);
    }
}

/// `1/(1-a)` tokens in `(a/(1-a))*t_d + t_d + L`, with passes shorter than a draft, so that none waits for another.
#[test]
fn a_stream_is_as_fast_as_the_formula_says() {
    for (share, rtt_ms) in [
        (0.5, 80.0),
        (0.8, 80.0),
        (0.9, 80.0),
        (0.8, 20.0),
        (0.9, 20.0),
    ] {
        let verify_ms = 2.0;
        let world = pair(DRAFT_MS, verify_ms, round_trip(rtt_ms));
        let results = play(&world, &answer(TOKENS, share), &mut stream());
        let outcome = &only(&results).outcome;
        let a = acceptance(outcome);
        let cycle_ms = a / (1.0 - a) * DRAFT_MS + DRAFT_MS + rtt_ms + verify_ms;
        let formula = 1000.0 / (1.0 - a) / cycle_ms;
        // A pass over one draft chooses behind it too, so every second place is known a draft earlier than the formula has it:
        // a wrong guess at an even place, which it is with probability a / (1 + a), saves a draft's time.
        let sooner_ms = DRAFT_MS * a / (1.0 + a);
        let exact = 1000.0 / (1.0 - a) / (cycle_ms - sooner_ms);
        near(tokens_per_s(outcome), exact, 0.03);
        if rtt_ms == 80.0 {
            near(tokens_per_s(outcome), formula, 0.03);
        }
        assert_eq!(results.contradictions, 0);
    }
}

#[test]
fn a_draft_that_is_always_right_never_waits() {
    let world = pair(DRAFT_MS, 2.0, round_trip(80.0));
    let results = play(&world, &answer(5_000, 1.0), &mut stream());
    let outcome = &only(&results).outcome;
    near(tokens_per_s(outcome), 1000.0 / DRAFT_MS, 0.03);
    assert_eq!(acceptance(outcome), 1.0);
}

/// Field notes: (2.5, 30, any round trip): 88 tokens/s at 0.8 and 125 at 0.9, with the best number of drafts.
#[test]
fn both_models_in_the_cloud_find_the_best_number_of_drafts() {
    for (share, expected) in [(0.8, 87.8), (0.9, 125.0)] {
        let mut world = pair(DRAFT_MS, 30.0, round_trip(80.0));
        world.clouds[0].draft = Some("draft".to_owned());
        let results = play(&world, &answer(TOKENS, share), &mut by(Route::CloudDraft));
        let got = tokens_per_s(&only(&results).outcome);
        assert!(
            got > 0.93 * expected && got < 1.03 * expected,
            "{got} beside {expected}"
        );
    }
}

#[test]
fn both_models_in_the_cloud_tell_how_fast_each_of_them_is() {
    let mut world = pair(DRAFT_MS, 30.0, round_trip(20.0));
    world.clouds[0].draft = Some("draft".to_owned());
    let mut traffic = answer(300, 0.8);
    traffic.questions.push(Question {
        arrives_ms: 60_000.0,
        ..traffic.questions[0].clone()
    });
    let mut told = Vec::new();
    let mut decides = Plain::new(
        |input: PlanInput| {
            told.push(input.nodes[1].clone());
            Plan::plain(Route::CloudDraft, 1)
        },
        |_: &StepInput| Action::Finish,
    );
    play(&world, &traffic, &mut decides);
    let told = told.last().unwrap();
    near(told.draft_tok_per_s, 1000.0 / DRAFT_MS, 0.05);
    near(told.verify_ms, 30.0, 0.05);
    // Of rounds of eight drafts a half stands, and of those that are judged four fifths.
    near(told.acceptance, 0.8, 0.3);
    // It chooses alone at the answer's end at most; some 88 tokens a second are those of both.
    assert!(told.target_tok_per_s < 1.05 * 1000.0 / 30.0, "{told:?}");
}

#[test]
fn two_models_on_one_device_take_turns() {
    let lasted_ms = |answers: usize, one_device: bool| {
        let mut world = pair(DRAFT_MS, 30.0, round_trip(20.0));
        // Nothing is won by sharing a pass.
        for engine in world.profile.as_mut().unwrap().engines.values_mut() {
            engine.row_ms = engine.pass_ms;
        }
        world
            .profile
            .as_mut()
            .unwrap()
            .engines
            .insert("beside".to_owned(), {
                let mut beside = paced(15.0);
                beside.row_ms = 15.0;
                beside
            });
        world.clouds[0].draft = Some("beside".to_owned());
        world.clouds[0].one_device = one_device;
        let mut traffic = answer(200, 0.8);
        for number in 1..answers {
            let question = Question {
                // One begins while another is half way through a round.
                arrives_ms: 37.0 * number as f64,
                seed: number as u64 + 1,
                ..traffic.questions[0].clone()
            };
            traffic.questions.push(question);
        }
        let results = play(&world, &traffic, &mut by(Route::CloudDraft));
        assert_eq!(results.summary.answered as usize, answers);
        results.summary.lasted_ms
    };
    // One answer uses them by turns anyway, but for its prompt.
    let (alone, apart) = (lasted_ms(1, true), lasted_ms(1, false));
    assert!((alone - apart).abs() < 40.0, "{alone} and {apart}");
    // Several use both at once, if they may.
    let (shared, apart) = (lasted_ms(6, true), lasted_ms(6, false));
    assert!(shared > 1.02 * apart, "{shared} and {apart}");
}

#[test]
fn an_idle_target_makes_a_slow_edge_no_slower_than_the_cloud() {
    let mut world = pair(200.0, 30.0, round_trip(20.0));
    world.rules.spare = true;
    let results = play(&world, &answer(2_000, 0.8), &mut stream());
    let outcome = &only(&results).outcome;
    assert!(tokens_per_s(outcome) > 0.97 * 1000.0 / 30.0);
    world.rules.spare = false;
    let results = play(&world, &answer(200, 0.8), &mut stream());
    assert!(tokens_per_s(&only(&results).outcome) < 0.5 * 1000.0 / 30.0);
}

#[test]
fn uploads_take_bytes_by_bandwidth_and_are_learned_from() {
    let mut link = LinkConfig::default();
    link.up.bandwidth = Some("20 Mbit/s".parse().unwrap());
    link.up.delay_ms = 15.0;
    link.down.delay_ms = 5.0;
    let world = pair(1.0, 0.1, link);
    let medium = Medium {
        modality: 1,
        tokens: 100,
        frames: 1,
        width_px: 280,
        height_px: 280,
        duration_ms: 0.0,
        bytes: 250_000.0,
        cached: false,
        necessity: 1.0,
        mas: 0.0,
        unusual: 0.0,
    };
    let question = Question {
        media: vec![medium],
        ..Question::plain(0, 10, 2)
    };
    let traffic = Traffic {
        questions: vec![question.clone()],
        ..Traffic::default()
    };
    let results = play(&world, &traffic, &mut by(Route::Cloud));
    let outcome = &only(&results).outcome;
    // The cloud is asked whether it has it; then 2 Mbit at 20 Mbit/s, and once there and back.
    assert!(
        (outcome.upload_ms - 140.0).abs() < 0.01,
        "{}",
        outcome.upload_ms
    );
    // Then the question, and the answer to it.
    assert!((outcome.ttft_ms - 160.0).abs() < 1.0, "{}", outcome.ttft_ms);
    let with = |change: fn(&mut Medium)| {
        let mut question = question.clone();
        change(&mut question.media[0]);
        let traffic = Traffic {
            questions: vec![question],
            ..Traffic::default()
        };
        let results = play(&world, &traffic, &mut by(Route::Cloud));
        only(&results).outcome.clone()
    };
    // A small one goes without a question: 0.4 Mbit at 20 Mbit/s, and once there and back.
    let small = with(|medium| medium.bytes = 50_000.0);
    assert!((small.upload_ms - 40.0).abs() < 0.01, "{small:?}");
    // What is known to be there is not asked for.
    let known = with(|medium| medium.cached = true);
    assert_eq!(known.upload_ms, 0.0);
    assert!((known.ttft_ms - 20.0).abs() < 1.0, "{known:?}");
    assert!(known.sent_bytes < 2_000.0);
}

#[test]
fn what_nodes_do_beside_their_models_is_waited_for() {
    let took_ms = |edge_ms: f64, cloud_ms: f64, route: Route| {
        let mut world = pair(8.0, 30.0, round_trip(80.0));
        let nodes = &mut world.profile.as_mut().unwrap().nodes;
        (nodes.edge.request_ms, nodes.cloud.request_ms) = (edge_ms, cloud_ms);
        only(&play(&world, &answer(20, 0.8), &mut by(route)))
            .outcome
            .total_ms
    };
    for (route, more_ms) in [(Route::Edge, 5.0), (Route::Cloud, 12.0)] {
        let (plain_ms, all_ms) = (took_ms(0.0, 0.0, route), took_ms(5.0, 7.0, route));
        assert!(
            (all_ms - plain_ms - more_ms).abs() < 1e-6,
            "{route:?}: {plain_ms} and {all_ms}"
        );
    }
    // Drafts that come while a prompt is laid out wait behind its session's opening.
    let mut world = pair(2.0, 30.0, round_trip(20.0));
    world.profile.as_mut().unwrap().nodes.cloud.request_ms = 100.0;
    let results = play(&world, &answer(300, 0.8), &mut stream());
    assert_eq!(only(&results).outcome.tokens, 300);
    assert_eq!(results.contradictions, 0);
}

/// One prompt at a time, each as long as the others, at random moments: the mean wait of an M/D/1 queue is
/// `rho * D / (2 * (1 - rho))` (Pollaczek and Khinchine).
#[test]
fn a_queue_is_as_long_as_it_should_be() {
    let service_ms = 100.0;
    let target = EngineCost {
        prefill_tok_per_s: 1000.0,
        // Room for 100 tokens of a prompt and one of an answer, once.
        kv_bytes_per_token: 9_000.0,
        ..paced(1e-3)
    };
    let mut world = World::pair(
        profile(paced(1.0), target),
        "draft",
        "target",
        round_trip(0.0),
    );
    let limits = &mut world
        .profile
        .as_mut()
        .unwrap()
        .engines
        .get_mut("target")
        .unwrap()
        .limits;
    limits.waiting = 1_000_000;
    world.clouds[0].most_sessions = 1_000_000;
    for load in [0.3, 0.6] {
        let traffic = at_random(load * 1000.0 / service_ms);
        let results = play(&world, &traffic, &mut by(Route::Cloud));
        assert!(
            results
                .ended
                .iter()
                .all(|it| it.outcome.status == Status::Answered as u8)
        );
        let count = results.ended.len() as f64;
        let queue_ms = results
            .ended
            .iter()
            .map(|it| it.outcome.queue_ms)
            .sum::<f64>()
            / count;
        // Means of 30,000 waits that are like their neighbours: a few percent.
        near(queue_ms, load * service_ms / (2.0 * (1.0 - load)), 0.1);
        near(results.summary.ttft_ms.mean, queue_ms + service_ms, 0.01);
    }
}
