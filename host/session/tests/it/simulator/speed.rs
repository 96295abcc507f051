//! How fast a stream of drafts is, beside the design's formulas.

use proptest::prelude::*;

use super::policy::Policy;
use super::rng::{Rng, cases};
use super::scenario::Scenario;
use super::toy::{Drafter, Target, Toy};
use super::world::run;

const TOKENS: u32 = 6000;

fn coin(a: f64) -> Toy {
    Toy {
        key: 4711,
        target: Target::Hashed,
        drafter: Drafter::Coin(a),
    }
}

fn stream(a: f64, draft_ms: f64, verify_ms: f64, rtt_ms: f64) -> Scenario {
    let mut scenario = Scenario::plain(coin(a), TOKENS);
    scenario.edge.gamma_max = 1;
    scenario.edge.in_flight_tokens_max = 64;
    scenario.draft_ms = draft_ms;
    scenario.verify_ms = verify_ms;
    scenario.one_way_ms = rtt_ms / 2.0;
    scenario
}

fn tokens_per_s(scenario: Scenario) -> f64 {
    let report = run(scenario);
    1000.0 * f64::from(TOKENS) / report.at_ms.last().unwrap()
}

/// `1/(1-a)` tokens per `(a/(1-a))*t_d + t_d + L`.
fn formula(a: f64, draft_ms: f64, l_ms: f64) -> f64 {
    let cycle_ms = a / (1.0 - a) * draft_ms + draft_ms + l_ms;
    1000.0 / (1.0 - a) / cycle_ms
}

#[test]
fn a_stream_is_as_fast_as_the_formula_says() {
    for a in [0.5, 0.8, 0.9] {
        for rtt_ms in [20.0, 80.0] {
            // Passes shorter than a draft, so that none waits for another: w = 0.
            let got = tokens_per_s(stream(a, 2.5, 2.0, rtt_ms));
            let expected = formula(a, 2.5, rtt_ms + 2.0);
            println!("a {a} RTT {rtt_ms} t_v 2: {got:.1} tokens/s, formula {expected:.1}");
            assert!(
                (got / expected - 1.0).abs() < 0.05,
                "{got} beside {expected}"
            );
            // Long passes: a draft waits for the one that is running, up to half of it in the mean.
            let got = tokens_per_s(stream(a, 2.5, 30.0, rtt_ms));
            let most = formula(a, 2.5, rtt_ms + 30.0);
            let least = formula(a, 2.5, rtt_ms + 30.0 + 15.0);
            println!(
                "a {a} RTT {rtt_ms} t_v 30: {got:.1} tokens/s, formula {least:.1} to {most:.1}"
            );
            assert!(
                got < 1.03 * most && got > 0.97 * least,
                "{got} beside {least} to {most}"
            );
        }
    }
}

#[test]
fn a_stream_is_never_slower_than_rounds_that_wait() {
    for a in [0.5, 0.8, 0.9] {
        for rtt_ms in [20.0, 80.0] {
            let ours = tokens_per_s(stream(a, 2.5, 30.0, rtt_ms));
            for gamma in [2, 4, 8] {
                let mut rounds = stream(a, 2.5, 30.0, rtt_ms);
                rounds.edge.gamma_max = gamma;
                rounds.policy = Policy::Rounds(gamma);
                let theirs = tokens_per_s(rounds);
                println!("a {a} RTT {rtt_ms}: stream {ours:.1}, rounds of {gamma} {theirs:.1}");
                assert!(ours >= theirs, "{ours} beside {theirs}");
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(300))]

    /// Every token is there no later than if the target had answered alone, which chooses one a pass.
    #[test]
    fn with_an_idle_target_nothing_is_slower_than_the_cloud_alone(seed in any::<u64>()) {
        let rng = &mut Rng(seed);
        let mut scenario = Scenario::plain(coin(rng.unit()), 200);
        scenario.policy = match rng.below(3) {
            0 => Policy::Stream,
            _ => Policy::Rounds(1 + rng.below(8) as u32),
        };
        scenario.spare = Some(true);
        scenario.edge.gamma_max = 8;
        scenario.draft_ms = rng.within(0.5, 80.0);
        scenario.verify_ms = rng.within(1.0, 40.0);
        scenario.prefill_ms = rng.within(0.0, 100.0);
        scenario.one_way_ms = rng.within(0.0, 60.0);
        let report = run(scenario.clone());
        let first_ms = 2.0 * scenario.one_way_ms + scenario.prefill_ms;
        for (place, at_ms) in report.at_ms.iter().enumerate() {
            let alone_ms = first_ms + (place + 1) as f64 * scenario.verify_ms;
            prop_assert!(*at_ms <= alone_ms + 1e-6, "place {}: {} beside {}", place, at_ms, alone_ms);
        }
    }
}
