//! Worlds and deciders of a few lines.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::collections::BTreeMap;

use msao_core::offload::{Action, Outcome, Plan, PlanInput, Route, StepInput, kind};
use msao_link::shaper::LinkConfig;
use msao_simulate::traffic::{Drawn, Generator, Guessing, Mix, Pattern, Question, Traffic};
use msao_simulate::{
    Decides, Ended, EngineCost, NodeCosts, Options, Plain, PluginCost, Profile, Results, Rules,
    World, run,
};

/// An engine whose passes take a given time, whatever is in them, and which reads prompts in no time.
pub fn paced(pass_ms: f64) -> EngineCost {
    EngineCost {
        pass_ms,
        ..Profile::measured().unwrap().engines["paced-target"].clone()
    }
}

/// `draft` and `target`, and calls that cost nothing.
pub fn profile(draft: EngineCost, target: EngineCost) -> Profile {
    Profile {
        name: "test".to_owned(),
        plugins: PluginCost::default(),
        nodes: NodeCosts::default(),
        engines: BTreeMap::from([("draft".to_owned(), draft), ("target".to_owned(), target)]),
    }
}

/// A link of so many ms there and back, and nothing else to it.
pub fn round_trip(rtt_ms: f64) -> LinkConfig {
    let mut link = LinkConfig::default();
    link.up.delay_ms = rtt_ms / 2.0;
    link.down.delay_ms = rtt_ms / 2.0;
    link
}

/// An edge and a cloud of paced engines, whose target does nothing that nobody asked for.
pub fn pair(draft_ms: f64, verify_ms: f64, link: LinkConfig) -> World {
    let profile = profile(paced(draft_ms), paced(verify_ms));
    let mut world = World::pair(profile, "draft", "target", link);
    world.rules = Rules {
        spare: false,
        ..Rules::default()
    };
    world
}

/// One answer, guessed right with probability `acceptance` everywhere.
pub fn answer(tokens: u32, acceptance: f64) -> Traffic {
    let question = Question {
        guessing: Guessing::Drawn(Drawn::even(acceptance)),
        ..Question::plain(0, 10, tokens)
    };
    Traffic {
        questions: vec![question],
        ..Traffic::default()
    }
}

/// Plays, keeping every outcome.
pub fn play(world: &World, traffic: &Traffic, decides: &mut dyn Decides) -> Results {
    let options = Options {
        keep: true,
        ..Options::default()
    };
    run(world, traffic, decides, options).unwrap_or_else(|error| panic!("{error}"))
}

/// Everybody by one route.
pub fn by(route: Route) -> impl Decides {
    let peer = u32::from(route != Route::Edge);
    Plain::new(
        move |_: PlanInput| Plan::plain(route, peer),
        |_: &StepInput| Action::Finish,
    )
}

/// So many drafts, then their verdict.
pub fn rounds(gamma: u32) -> impl Decides {
    let plan = Plan {
        gamma_max: gamma,
        patience_ms: 60_000.0,
        ..Plan::plain(Route::Speculate, 1)
    };
    Plain::new(
        move |_: PlanInput| plan.clone(),
        move |input: &StepInput| match input {
            _ if input.in_flight > 0 => Action::Wait,
            _ if input.unsent >= gamma => Action::Send,
            _ => Action::Draft,
        },
    )
}

/// Each draft goes at once.
pub fn stream() -> impl Decides {
    let plan = Plan {
        gamma_max: 1,
        in_flight_max: 64,
        patience_ms: 60_000.0,
        ..Plan::plain(Route::Speculate, 1)
    };
    Plain::new(
        move |_: PlanInput| plan.clone(),
        |input: &StepInput| match input.kind {
            kind::DRAFTED => Action::Send,
            _ => Action::Draft,
        },
    )
}

/// The only request.
pub fn only(results: &Results) -> &Ended {
    assert_eq!(results.ended.len(), 1);
    &results.ended[0]
}

/// Tokens of an answer a second, from the request's arrival on.
pub fn tokens_per_s(outcome: &Outcome) -> f64 {
    1000.0 * f64::from(outcome.tokens) / outcome.total_ms
}

/// The share of drafts that stood.
pub fn acceptance(outcome: &Outcome) -> f64 {
    let drafted: u32 = outcome.drafted.iter().sum();
    let accepted: u32 = outcome.accepted.iter().sum();
    f64::from(accepted) / f64::from(drafted)
}

/// Within so much of what is expected.
pub fn near(got: f64, expected: f64, share: f64) {
    assert!(
        (got / expected - 1.0).abs() < share,
        "{got} beside {expected}"
    );
}

/// Short questions about nothing, answered by one token: 30,000 that come at random, so many a second.
pub fn at_random(per_s: f64) -> Traffic {
    let generator = Generator {
        seed: 11,
        count: 30_000,
        pattern: Pattern::Poisson { per_s },
        mix: Mix {
            text_tokens: [100, 100],
            answer_tokens: [1, 1],
            max_tokens: 1,
            images: 0.0,
            clips: 0.0,
            sounds: 0.0,
            deadlines: 0.0,
            exact: 0.0,
            media_at_edge: 0.0,
            ..Mix::default()
        },
        ..Generator::default()
    };
    generator.traffic().unwrap()
}
