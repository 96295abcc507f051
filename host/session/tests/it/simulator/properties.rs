//! What holds whatever drafts, whatever the link does and whatever the policy says.

use msao_core::offload::Action;
use msao_core::sampling::SamplingParams;
use msao_session::edge::{Ending, Start};
use msao_session::frame::Finish;
use proptest::prelude::*;

use super::policy::Policy;
use super::rng::{Rng, cases};
use super::scenario::{Report, Scenario};
use super::toy::{Drafter, Target, Toy};
use super::world::{logprobs, run};

const EXACT: [Action; 4] = [Action::Draft, Action::Draft, Action::Send, Action::Wait];

fn any_toy(rng: &mut Rng) -> Toy {
    let drafter = match rng.below(4) {
        0 => Drafter::Perfect,
        1 => Drafter::Noisy(rng.within(0.1, 1.0)),
        2 => Drafter::Coin(rng.unit()),
        _ => Drafter::Unrelated,
    };
    let params = SamplingParams {
        temperature: if rng.chance(0.3) { 0.0 } else { 0.8 },
        frequency_penalty: if rng.chance(0.3) { 0.7 } else { 0.0 },
        top_k: rng.chance(0.3).then_some(4),
        seed: rng.next(),
        ..SamplingParams::default()
    };
    Toy {
        key: rng.next(),
        target: Target::Sampled(params),
        drafter,
    }
}

fn pick<const N: usize>(rng: &mut Rng, from: [f64; N]) -> f64 {
    from[rng.below(N as u64) as usize]
}

/// Anything, with an exact policy on an unbroken link.
fn any_scenario(seed: u64) -> Scenario {
    let rng = &mut Rng(seed);
    let mut scenario = Scenario::plain(any_toy(rng), 1 + rng.below(60) as u32);
    scenario.seed = seed;
    scenario.edge.open.top_logprobs = rng.chance(0.3).then_some(1);
    scenario.policy = match rng.below(4) {
        0 => Policy::Stream,
        1 => Policy::Rounds(1 + rng.below(6) as u32),
        _ => Policy::Any(Rng(rng.next()), EXACT.to_vec()),
    };
    scenario.edge.gamma_max = 1 + rng.below(9) as u32;
    scenario.edge.in_flight_max = 1 + rng.below(9) as u32;
    scenario.edge.in_flight_tokens_max = 1 + rng.below(40) as u32;
    scenario.edge.patience_ms = pick(rng, [20.0, 200.0, 1000.0]);
    scenario.edge.parted_limit_ms = f64::INFINITY;
    scenario.cloud.batch_max = 1 + rng.below(12) as usize;
    scenario.draft_ms = pick(rng, [0.5, 5.0, 40.0]);
    scenario.verify_ms = pick(rng, [1.0, 10.0, 30.0]);
    scenario.prefill_ms = pick(rng, [0.0, 50.0]);
    scenario.one_way_ms = pick(rng, [0.0, 5.0, 40.0]);
    scenario.bandwidth_bps = pick(rng, [1e5, 2e7, f64::INFINITY]);
    scenario.jitter_ms = pick(rng, [0.0, 1.0, 10.0]);
    scenario.step_ms = pick(rng, [0.0, 0.5, 5.0]);
    scenario.spare = [None, Some(true), Some(false)][rng.below(3) as usize];
    scenario
}

/// Streams that mostly last long enough for a verdict to come; some are cut within the first frame.
fn cut_now_and_then(scenario: &mut Scenario, rng: &mut Rng) {
    let way_ms = 2.0 * (scenario.one_way_ms + scenario.jitter_ms);
    let verdict_ms = way_ms + scenario.prefill_ms + scenario.verify_ms + 60.0;
    let mean_ms = verdict_ms * rng.within(1.0, 5.0);
    // Longer than the lease at times.
    scenario.cuts_ms = Some((mean_ms, pick(rng, [10.0, 500.0, 5000.0])));
}

fn ids(report: &Report) -> Vec<u32> {
    report.committed.iter().map(|token| token.id).collect()
}

/// Holds an exact answer against the target's own.
fn is_the_targets(scenario: &Scenario, report: &Report) -> Result<(), TestCaseError> {
    let most = scenario.edge.open.max_tokens as usize;
    let (answer, ended) = scenario.toy.answer(&[], most);
    prop_assert_eq!(ids(report), answer);
    let finish = if ended {
        Finish::EndOfSequence
    } else {
        Finish::Length
    };
    prop_assert_eq!(report.ending, Some(Ending::Finished(finish)));
    prop_assert!(report.committed.iter().all(|token| token.verified));
    prop_assert_eq!(report.counters.unverified, 0);
    let told = scenario.edge.open.top_logprobs.is_some();
    for token in &report.committed {
        prop_assert_eq!(&token.logprobs, &told.then(|| logprobs(token.id)));
    }
    prop_assert!(report.counters.accepted() <= report.counters.judged());
    Ok(())
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn the_answer_is_the_targets_own_whatever_drafts(seed in any::<u64>()) {
        let scenario = any_scenario(seed);
        let report = run(scenario.clone());
        is_the_targets(&scenario, &report)?;
    }

    #[test]
    fn cuts_lose_nothing_and_repeat_nothing(seed in any::<u64>(), with_draft in any::<bool>()) {
        let mut scenario = any_scenario(seed);
        if seed % 4 == 0 {
            scenario.edge.start = Start::Cloud { with_draft };
        }
        cut_now_and_then(&mut scenario, &mut Rng(!seed));
        let report = run(scenario.clone());
        is_the_targets(&scenario, &report)?;
    }

    #[test]
    fn what_is_escalated_is_the_targets_own(seed in any::<u64>(), cut in any::<bool>()) {
        let mut scenario = any_scenario(seed);
        let actions = [&EXACT[..], &[Action::Escalate]].concat();
        scenario.policy = Policy::Any(Rng(seed), actions);
        if cut {
            cut_now_and_then(&mut scenario, &mut Rng(!seed));
        }
        let report = run(scenario.clone());
        is_the_targets(&scenario, &report)?;
    }

    #[test]
    fn every_token_is_its_makers_choice_behind_those_before(seed in any::<u64>()) {
        let rng = &mut Rng(!seed);
        let mut scenario = any_scenario(seed);
        let actions = [&EXACT[..], &EXACT[..], &[Action::Commit, Action::Escalate, Action::Finish]];
        scenario.policy = Policy::Any(Rng(seed), actions.concat());
        scenario.edge.confidence_floor = pick(rng, [0.0, 0.7, 2.0]);
        scenario.edge.parted_limit_ms = pick(rng, [10.0, 1000.0]);
        scenario.edge.start = [Start::Alone, Start::Speculate][rng.below(2) as usize];
        cut_now_and_then(&mut scenario, rng);
        let report = run(scenario.clone());
        let ids = ids(&report);
        for (place, token) in report.committed.iter().enumerate() {
            let before = &ids[..place];
            let own = if token.verified {
                scenario.toy.target(before)
            } else {
                scenario.toy.draft(before)
            };
            prop_assert_eq!(token.id, own, "place {}", place);
        }
        prop_assert!(matches!(report.ending, Some(Ending::Finished(_))));
    }

    #[test]
    fn a_perfect_drafter_is_never_rolled_back(seed in any::<u64>(), cut in any::<bool>()) {
        let mut scenario = any_scenario(seed);
        scenario.toy.drafter = Drafter::Perfect;
        if cut {
            cut_now_and_then(&mut scenario, &mut Rng(!seed));
        }
        let report = run(scenario.clone());
        is_the_targets(&scenario, &report)?;
        prop_assert_eq!(report.counters.rollbacks, 0);
        prop_assert_eq!(report.counters.accepted(), report.counters.judged());
    }

    #[test]
    fn who_leaves_or_dies_leaves_nothing_behind(seed in any::<u64>(), dies in any::<bool>()) {
        let rng = &mut Rng(!seed);
        let mut scenario = any_scenario(seed);
        scenario.jitter_ms = 0.0;
        scenario.bandwidth_bps = f64::INFINITY;
        let at_ms = rng.within(0.0, 400.0);
        if dies {
            scenario.kill_ms = Some(at_ms);
        } else {
            scenario.stop_ms = Some(at_ms);
            if rng.chance(0.5) {
                cut_now_and_then(&mut scenario, rng);
            }
        }
        let report = run(scenario.clone());
        // A cut is noticed within 100 ms; then the lease runs.
        let most_ms = scenario.one_way_ms + 100.0 + scenario.cloud.lease_ms;
        prop_assert!(report.freed_ms <= report.ended_ms + most_ms + 1e-6);
        if !dies && report.cuts == 0 && report.ending == Some(Ending::Stopped) {
            prop_assert!(report.freed_ms <= report.ended_ms + scenario.one_way_ms + 1e-6);
        }
        let most = scenario.edge.open.max_tokens as usize;
        let (answer, _) = scenario.toy.answer(&[], most);
        prop_assert!(answer.starts_with(&ids(&report)));
    }
}

/// The scenarios reach what they are about.
#[test]
fn the_seeds_play_everything() {
    let (mut rollbacks, mut stale, mut idle, mut reopened, mut cuts, mut waited) =
        (0, 0, 0, 0, 0, 0.0);
    let (mut drafts_late, mut unverified, mut escalated, mut degraded, mut mixed) = (0, 0, 0, 0, 0);
    for seed in 0..300 {
        let mut scenario = any_scenario(seed);
        cut_now_and_then(&mut scenario, &mut Rng(!seed));
        let report = run(scenario.clone());
        rollbacks += report.counters.rollbacks;
        stale += report.cloud.stale_rounds;
        idle += report.counters.idle_tokens;
        reopened += report.cloud.reopened;
        cuts += report.cuts;
        waited += report.counters.waited_ms;
        let actions = [
            &EXACT[..],
            &EXACT[..],
            &[Action::Commit, Action::Escalate, Action::Finish],
        ];
        scenario.policy = Policy::Any(Rng(seed), actions.concat());
        scenario.edge.confidence_floor = 0.5;
        scenario.edge.parted_limit_ms = 100.0;
        let report = run(scenario);
        drafts_late += report.counters.stale;
        unverified += report.counters.unverified;
        escalated += u32::from(report.counters.escalated);
        degraded += u32::from(report.counters.degraded);
        let verified = report.counters.tokens - report.counters.unverified;
        mixed += u32::from(verified > 0 && report.counters.unverified > 0);
    }
    for (what, count) in [
        ("rollbacks", rollbacks),
        ("rounds of void epochs", stale),
        ("tokens of the idle target", idle),
        ("sessions taken up again", reopened),
        ("cuts", cuts),
        ("verdicts fenced off", drafts_late),
        ("tokens committed unverified", unverified),
        ("answers escalated", escalated),
        ("answers finished after a loss", degraded),
        ("answers of both", mixed),
    ] {
        println!("{what}: {count}");
        assert!(count > 20, "{what}: {count}");
    }
    assert!(waited > 0.0);
}
