//! What holds of every simulation, whatever is played: the same seed gives the same, everything ends once, bytes add up.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

use msao_core::offload::manifest::Probe;
use msao_core::offload::{
    Action, Calibration, Decision, Mode, Operation, Outcome, Plan, PlanInput, Report, Route,
    Scores, Status, StepInput, Update, flag, kind, overrides,
};
use msao_simulate::traffic::{Generator, Mix, Pattern, Traffic};
use msao_simulate::{
    Decides, Failed, NodeCost, Options, Plain, Profile, Progress, Results, World, run,
};

use crate::common::{answer, by, only, pair, play, round_trip, stream};

/// Clouds with both models, edges with a draft, a link that jitters and stalls.
fn busy(edges: u32, clouds: u32) -> World {
    World::parse(&format!(
        "
        [[clouds]]
        count = {clouds}
        target = 'demo-target-zen3'
        draft = 'demo-draft-zen3'
        price-per-mtok = 0.8

        [[edges]]
        count = {edges}
        draft = 'demo-draft-zen3'
        peers = {}

        [edges.link]
        up = {{ bandwidth = '20 Mbit/s', delay-ms = 20.0, jitter-ms = 5.0 }}
        down = {{ bandwidth = '50 Mbit/s', delay-ms = 20.0, jitter-ms = 5.0 }}
        stalls = [{{ at-ms = 4000, for-ms = 700 }}]
        repeat-ms = 9000
        ",
        clouds.min(2)
    ))
    .unwrap()
}

fn traffic(edges: u32, count: u32, pattern: Pattern) -> Traffic {
    let generator = Generator {
        seed: 5,
        edges,
        count,
        pattern,
        mix: Mix {
            answer_tokens: [4, 60],
            ..Mix::default()
        },
    };
    generator.traffic().unwrap()
}

/// Every route by turns, every action that has sense, and something learned.
#[derive(Default)]
struct Varied {
    /// Plans for the edge alone name a peer.
    brings: bool,
    plans: u32,
    observed: u32,
}

impl Decides for Varied {
    fn probe(&self) -> Probe {
        Probe::Ask
    }

    fn plan(&mut self, input: PlanInput) -> Result<Decision, Failed> {
        self.plans += 1;
        let probed = input.request.flags & flag::PROBED != 0;
        assert_eq!(probed, input.parts.iter().all(|part| part.necessity >= 0.0));
        if !probed && self.plans.is_multiple_of(3) {
            return Ok(Decision::Probe);
        }
        let peers = input.nodes.len() as u32 - 1;
        let (route, peer) = match self.plans % 5 {
            0 => (Route::Edge, u32::from(self.brings)),
            1 => (Route::Cloud, 1 + self.plans % peers),
            2 => (Route::CloudDraft, 1),
            _ => (Route::Speculate, 1 + self.plans % peers),
        };
        Ok(Decision::Run(Plan {
            gamma_max: 3,
            in_flight_max: 3,
            mode: Mode::Confident,
            memo: vec![7],
            ..Plan::plain(route, peer)
        }))
    }

    fn step(&mut self, input: &StepInput, memo: &[u8]) -> Result<Action, Failed> {
        assert_eq!(memo, [7]);
        Ok(match input.kind {
            kind::OVERDUE => Action::Finish,
            kind::DRAFTED if input.committed > 40 => Action::Escalate,
            kind::DRAFTED if input.unsent >= 2 => Action::Send,
            _ if input.in_flight > 6 => Action::Wait,
            _ => Action::Draft,
        })
    }

    fn observe(
        &mut self,
        outcome: &Outcome,
        calibration: &Calibration,
    ) -> Result<Vec<Update>, Failed> {
        self.observed += 1;
        assert!(calibration.len() <= 1);
        let update = |operation, value| Update {
            operation,
            key: 3,
            value,
            weight: 1.0,
        };
        Ok(vec![update(Operation::Sample, outcome.total_ms)])
    }
}

fn check(results: &Results, traffic: &Traffic) {
    let mut seen: Vec<u32> = results.ended.iter().map(|it| it.question).collect();
    seen.sort_unstable();
    let all: Vec<u32> = (0..traffic.questions.len() as u32).collect();
    assert_eq!(seen, all, "every question ends once");
    let sum = |of: fn(&Outcome) -> f64| results.ended.iter().map(|it| of(&it.outcome)).sum::<f64>();
    assert_eq!(sum(|it| it.sent_bytes), results.link_sent_bytes as f64);
    let received = sum(|it| it.received_bytes) + results.late_bytes as f64;
    assert_eq!(received, results.link_received_bytes as f64);
    assert_eq!((results.contradictions, results.stopped), (0, false));
    for ended in &results.ended {
        let outcome = &ended.outcome;
        let question = &traffic.questions[ended.question as usize];
        assert!(outcome.tokens <= question.max_tokens);
        if outcome.status == Status::Answered as u8 {
            assert!(
                outcome.ttft_ms >= 0.0 && outcome.total_ms >= outcome.ttft_ms,
                "{outcome:?}"
            );
            let exact = outcome.unverified == 0 && outcome.route != Route::Edge as u8;
            if exact {
                assert_eq!((outcome.tokens, ended.wrong), (question.answer_tokens, 0));
            }
        }
        let judged: u32 = outcome.drafted.iter().sum();
        assert!(outcome.accepted.iter().sum::<u32>() <= judged);
        for value in [
            outcome.edge_flops,
            outcome.cloud_flops,
            outcome.queue_ms,
            outcome.cost,
        ] {
            assert!(value.is_finite() && value >= 0.0, "{outcome:?}");
        }
    }
}

#[test]
fn everything_ends_once_and_bytes_add_up() {
    for pattern in [
        Pattern::Poisson { per_s: 6.0 },
        Pattern::Bursts {
            per_s: 4.0,
            size: 10,
            within_ms: 50.0,
        },
        Pattern::InTurn {
            clients: 3,
            think_ms: 100.0,
        },
    ] {
        let traffic = traffic(8, 400, pattern);
        let mut varied = Varied::default();
        let results = play(&busy(8, 3), &traffic, &mut varied);
        check(&results, &traffic);
        let summary = &results.summary;
        assert!(summary.routes.iter().all(|count| *count > 0), "{summary:?}");
        assert!(summary.answered > 200, "{summary:?}");
        assert!(varied.observed > 300);
    }
}

#[test]
fn the_same_seed_gives_the_same_to_the_bit() {
    let traffic = traffic(6, 200, Pattern::Poisson { per_s: 6.0 });
    let world = busy(6, 2);
    let play = |seed| {
        let options = Options {
            seed,
            keep: true,
            ..Options::default()
        };
        run(&world, &traffic, &mut Varied::default(), options).unwrap()
    };
    let first = play(1);
    assert_eq!(first, play(1));
    assert_ne!(first, play(2));
    check(&first, &traffic);
}

#[test]
fn promises_hold_where_cores_are_shared_and_media_are_brought_ahead() {
    let traffic = traffic(6, 300, Pattern::Poisson { per_s: 6.0 });
    let mut world = busy(6, 2);
    let mut profile = Profile::measured().unwrap();
    profile.nodes.edge = NodeCost {
        request_ms: 2.0,
        picture_ms_per_token: 0.05,
        ..NodeCost::default()
    };
    profile.nodes.cloud = NodeCost {
        request_ms: 3.0,
        clip_ms_per_token: 0.02,
        ..NodeCost::default()
    };
    world.profile = Some(profile);
    let play = |world: &World| {
        let mut varied = Varied {
            brings: true,
            ..Varied::default()
        };
        play(world, &traffic, &mut varied)
    };
    // Answers of the edge alone for which something went up.
    let brought = |results: &Results| {
        let outcomes = results.ended.iter().map(|it| &it.outcome);
        let alone = outcomes.filter(|it| {
            let planned_once = it.overrides & overrides::PEER == 0;
            it.route == Route::Edge as u8 && it.status == Status::Answered as u8 && planned_once
        });
        alone.filter(|it| it.sent_bytes > 0.0).count()
    };
    let spare = play(&world);
    world.edges[0].cores = Some(1);
    world.clouds[0].cores = Some(2);
    let shared = play(&world);
    assert_ne!(shared, spare);
    world.rules.bring = true;
    let both = play(&world);
    for results in [&spare, &shared, &both] {
        check(results, &traffic);
        assert!(results.summary.routes.iter().all(|count| *count > 0));
    }
    assert_eq!((brought(&spare), brought(&shared)), (0, 0));
    assert!(brought(&both) > 3, "{}", brought(&both));
    assert_eq!(both, play(&world));
}

#[test]
fn overload_is_refused_and_everybody_hears_of_it() {
    let mut world = busy(4, 1);
    world.clouds[0].most_sessions = 5;
    // No media, which would have to pass the link first.
    let generator = Generator {
        edges: 4,
        count: 600,
        pattern: Pattern::Poisson { per_s: 200.0 },
        mix: Mix {
            images: 0.0,
            clips: 0.0,
            sounds: 0.0,
            ..Mix::default()
        },
        ..Generator::default()
    };
    let traffic = generator.traffic().unwrap();
    // Nobody but the cloud may answer.
    let mut exact = traffic.clone();
    for question in &mut exact.questions {
        question.flags |= flag::EXACT;
    }
    let results = play(&world, &exact, &mut by(Route::Cloud));
    check(&results, &exact);
    assert!(results.summary.refused > 100 && results.summary.answered > 10);
    // Who may also answer at the edge is planned again, without the cloud.
    let mut plain = traffic;
    for question in &mut plain.questions {
        question.flags = 0;
        question.deadline_ms = 0.0;
    }
    let results = play(&world, &plain, &mut by(Route::Cloud));
    check(&results, &plain);
    let moved = results
        .ended
        .iter()
        .filter(|it| it.outcome.overrides & overrides::PEER != 0);
    assert!(moved.count() > 100);
    assert!(results.summary.routes[0] > 100, "{:?}", results.summary);
}

#[test]
fn who_asks_too_late_gets_what_came_in_time() {
    let world = pair(8.0, 40.0, round_trip(50.0));
    let mut traffic = answer(500, 0.9);
    traffic.questions[0].deadline_ms = 2_000.0;
    let results = play(&world, &traffic, &mut by(Route::Cloud));
    let outcome = &only(&results).outcome;
    assert_eq!(outcome.status, Status::Failed as u8);
    assert!((40..60).contains(&outcome.tokens), "{outcome:?}");
    assert_eq!(results.summary.good_per_s, 0.0);
}

#[test]
fn a_policy_that_fails_is_stood_in_for() {
    struct Broken(Action);
    impl Decides for Broken {
        fn plan(&mut self, input: PlanInput) -> Result<Decision, Failed> {
            match input.request.seed % 3 {
                0 => Err(Failed("told to".to_owned())),
                // A row that nobody has.
                1 => Ok(Decision::Run(Plan::plain(Route::Cloud, 99))),
                _ => Ok(Decision::Run(Plan::plain(Route::Speculate, 1))),
            }
        }

        fn step(&mut self, input: &StepInput, _: &[u8]) -> Result<Action, Failed> {
            match input.committed {
                0 => Ok(self.0),
                _ => Err(Failed("told to".to_owned())),
            }
        }

        fn observe(&mut self, _: &Outcome, _: &Calibration) -> Result<Vec<Update>, Failed> {
            Err(Failed("told to".to_owned()))
        }
    }
    let traffic = traffic(4, 60, Pattern::Poisson { per_s: 2.0 });
    let results = play(&busy(4, 2), &traffic, &mut Broken(Action::Send));
    check(&results, &traffic);
    assert!(results.failures > 60);
    let fallback = |it: &&msao_simulate::Ended| it.outcome.overrides & overrides::FALLBACK != 0;
    assert!(results.ended.iter().filter(fallback).count() > 30);
}

#[test]
fn with_a_budget_the_edges_own_answers_are_held_to_what_is_open() {
    let outcome = |budget: bool, confidence_floor: f64| {
        let mut world = pair(8.0, 40.0, round_trip(50.0));
        world.rules.budget = budget;
        world.rules.confidence_floor = confidence_floor;
        let results = play(&world, &answer(50, 0.9), &mut by(Route::Edge));
        let outcome = only(&results).outcome.clone();
        assert_eq!((outcome.status, outcome.tokens), (0, 50));
        outcome
    };
    let told = |outcome: &Outcome| (outcome.route, outcome.unverified, outcome.overrides);
    let (edge, cloud) = (Route::Edge as u8, Route::Cloud as u8);
    assert_eq!(told(&outcome(false, 2.0)), (edge, 50, 0));
    // Nothing is open: the target says all of it.
    let exact = overrides::EXACT | overrides::ROUTE;
    assert_eq!(told(&outcome(true, 2.0)), (cloud, 0, exact));
    // Each draft is said to stand with 0.9.
    assert_eq!(told(&outcome(true, 0.8)), (edge, 50, 0));
    assert_eq!(told(&outcome(true, 0.95)), (cloud, 0, 0));
}

#[test]
fn a_policy_that_only_waits_comes_to_an_end() {
    let world = pair(8.0, 40.0, round_trip(50.0));
    let mut waits = Plain::new(
        |_: PlanInput| Plan::plain(Route::Speculate, 1),
        |_: &StepInput| Action::Wait,
    );
    let results = play(&world, &answer(10, 0.9), &mut waits);
    let ended = only(&results);
    assert!(ended.ended_ms <= 3_700_000.0, "{ended:?}");
}

#[test]
fn the_first_token_of_a_probed_request_waits_for_the_probe() {
    struct Probing(Cell<u32>);
    impl Decides for Probing {
        fn probe(&self) -> Probe {
            Probe::Full
        }

        fn plan(&mut self, input: PlanInput) -> Result<Decision, Failed> {
            assert!(input.parts.iter().all(|part| part.mas >= 0.0));
            Ok(Decision::Run(Plan::plain(Route::Edge, 0)))
        }

        fn step(&mut self, _: &StepInput, _: &[u8]) -> Result<Action, Failed> {
            Ok(Action::Finish)
        }

        fn score(
            &mut self,
            report: &Report,
            _: u64,
            _: &Calibration,
        ) -> Option<Result<Scores, Failed>> {
            self.0.set(self.0.get() + 1);
            Some(Ok(Scores {
                items: report.items.iter().map(|_| Default::default()).collect(),
                updates: Vec::new(),
            }))
        }
    }
    let traffic = traffic(2, 40, Pattern::Poisson { per_s: 1.0 });
    let mut probing = Probing(Cell::new(0));
    let results = play(&busy(2, 1), &traffic, &mut probing);
    check(&results, &traffic);
    // There are no reports: the truth scores.
    assert_eq!(probing.0.get(), 0);
    for ended in &results.ended {
        let media = !traffic.questions[ended.question as usize].media.is_empty();
        let outcome = &ended.outcome;
        if outcome.status == Status::Answered as u8 && outcome.route == Route::Edge as u8 {
            assert_eq!(media, outcome.probe_ms > 1.0, "{outcome:?}");
            assert!(outcome.ttft_ms > outcome.probe_ms);
        }
    }
}

#[test]
fn it_tells_how_far_it_is_and_can_be_stopped() {
    let traffic = traffic(4, 300, Pattern::Poisson { per_s: 10.0 });
    let stop = AtomicBool::new(false);
    let mut told = Vec::new();
    let mut progress = |progress: Progress| {
        told.push(progress);
        stop.store(progress.ended > 50, Ordering::Relaxed);
    };
    let options = Options {
        progress: Some(&mut progress),
        stop: Some(&stop),
        ..Options::default()
    };
    let results = run(&busy(4, 2), &traffic, &mut stream(), options).unwrap();
    assert!(results.stopped && results.summary.requests < 300);
    assert!(told.len() > 1 && told.iter().all(|it| it.questions == 300));
    assert!(told.is_sorted_by(|a, b| a.now_ms <= b.now_ms && a.ended <= b.ended));
}

#[test]
fn a_thousand_edges_stay_bounded() {
    let traffic = traffic(1_000, 2_000, Pattern::Poisson { per_s: 40.0 });
    let mut varied = Varied::default();
    let options = Options {
        keep: true,
        ..Options::default()
    };
    let results = run(&busy(1_000, 20), &traffic, &mut varied, options).unwrap();
    check(&results, &traffic);
    // A few things a token, a few a request, and figures of twenty clouds twice a second.
    let expected =
        40.0 * results.summary.tokens as f64 + 100.0 * 2_000.0 + results.now_ms / 500.0 * 21.0;
    assert!(
        (results.events as f64) < expected,
        "{} events",
        results.events
    );
}
