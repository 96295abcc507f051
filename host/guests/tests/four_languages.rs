//! The worked example in Rust, C, JavaScript and Python: real components, in the real sandbox, that must answer alike to
//! the last bit. `cargo xtask plugins` builds them; `cargo xtask test` does so by itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // a test's helpers may panic

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use msao_core::offload::manifest::Manifest;
use msao_core::offload::{
    Action, Calibration, Decision, Node, Outcome, Part, PlanInput, Request, StepInput, Update,
    capability, flag,
};
use msao_guests::Language;
use msao_sandbox::{LimitOverrides, Plugin, Policy, Sandbox, SandboxConfig};

const INPUTS: usize = 10_000;

/// SplitMix64: any generator will do, as long as it is the same tomorrow.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    /// In `[low, high)`, with all 53 bits in play.
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.roll() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// One in eight is not known.
    fn known(&mut self, low: f64, high: f64) -> f64 {
        if self.chance(8) {
            -1.0
        } else {
            self.between(low, high)
        }
    }
}

fn node(dice: &mut Dice, here: bool) -> Node {
    let all =
        capability::DRAFT | capability::TARGET | capability::VERIFY | capability::SAME_TOKENIZER;
    let can = if dice.chance(3) {
        dice.roll() as u32 & all
    } else {
        all
    };
    Node {
        up: here || !dice.chance(6),
        can: if here && !dice.chance(4) {
            can & !capability::TARGET
        } else {
            can
        },
        uplink_bps: dice.known(1e5, 1e9),
        uplink_sd_bps: dice.known(1e4, 1e8),
        downlink_bps: dice.known(1e5, 1e9),
        rtt_ms: dice.known(0.1, 300.0),
        jitter_ms: dice.known(0.0, 50.0),
        stalled: dice.known(0.0, 1.0),
        age_ms: dice.known(0.0, 1e5),
        queue_ms: dice.known(0.0, 500.0),
        planned_ms: dice.known(0.0, 500.0),
        kv_free: dice.known(0.0, 1e6),
        prefill_tok_per_s: dice.known(100.0, 1e5),
        draft_tok_per_s: dice.known(1.0, 400.0),
        target_tok_per_s: dice.known(1.0, 100.0),
        verify_ms: dice.known(5.0, 100.0),
        acceptance: dice.known(0.0, 1.0),
        price_per_mtok: dice.known(0.0, 10.0),
        cached_bytes: dice.known(0.0, 1e6),
        confidence_floor: dice.between(0.5, 2.0),
    }
}

struct Input {
    request: Request,
    parts: Vec<Part>,
    nodes: Vec<Node>,
    params: Vec<f64>,
    calibration: Calibration,
}

fn input(dice: &mut Dice) -> Input {
    let mut parts: Vec<Part> = (0..dice.below(4))
        .map(|_| Part {
            modality: 1 + dice.below(3) as u8,
            tokens: 1 + dice.below(2000) as u32,
            frames: 1,
            bytes: dice.between(1e3, 5e6),
            necessity: dice.known(0.0, 1.0),
            ..Part::default()
        })
        .collect();
    parts.push(Part {
        tokens: 1 + dice.below(500) as u32,
        necessity: 1.0,
        ..Part::default()
    });
    let mut nodes = vec![node(dice, true)];
    nodes.extend((0..dice.below(4)).map(|_| node(dice, false)));
    let keys: Vec<u32> = (0..6).filter(|_| dice.chance(2)).collect();
    let mut column = |low, high| {
        keys.iter()
            .map(|_| dice.between(low, high))
            .collect::<Vec<f64>>()
    };
    let calibration = Calibration {
        mean: column(0.2, 5.0),
        variance: column(0.0, 2.0),
        count: column(1.0, 1e4),
        keys: keys.clone(),
    };
    Input {
        request: Request {
            seed: dice.roll(),
            now_ms: 1.8e12,
            prompt_tokens: parts.iter().map(|part| part.tokens).sum(),
            max_tokens: 1 + dice.below(2000) as u32,
            flags: match dice.below(4) {
                0 => flag::MEDIA_AT_EDGE,
                1 | 2 => flag::EXACT,
                _ => flag::STREAMED,
            },
            ..Request::default()
        },
        parts,
        nodes,
        params: vec![
            dice.between(1.0, 3.0),
            1.0 + dice.below(16) as f64,
            dice.between(0.001, 1.0),
        ],
        calibration,
    }
}

fn policies() -> Vec<(Language, Arc<Policy>)> {
    // Target folders may be anywhere; cargo names one for tests in it.
    let folder: PathBuf = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("plugins");
    // How long an answer takes is not asked here, and the machine may be busy.
    let patient = LimitOverrides {
        memory_mib: Some(128),
        plan_ms: Some(10_000),
        step_ms: Some(10_000),
        observe_ms: Some(10_000),
        ..LimitOverrides::default()
    };
    let name = |language: Language| format!("quickest-{language}");
    let sandbox = Sandbox::new(&SandboxConfig {
        plugins: Language::ALL
            .map(|language| (name(language), patient))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        ..SandboxConfig::default()
    })
    .unwrap();
    Language::ALL
        .map(|language| {
            let read = |extension| {
                let path = folder.join(format!("{}.{extension}", name(language)));
                std::fs::read(&path)
                    .unwrap_or_else(|_| panic!("no {}: run `cargo xtask plugins`", path.display()))
            };
            let manifest = Manifest::parse(&String::from_utf8(read("toml")).unwrap()).unwrap();
            let Plugin::Policy(policy) = sandbox.load(&read("wasm"), &manifest).unwrap() else {
                panic!("{language} is a policy");
            };
            (language, policy)
        })
        .into_iter()
        .collect()
}

/// With the bits of every number: -0 is not 0 here.
fn exactly(decision: Decision) -> (String, Vec<u64>) {
    let Decision::Run(plan) = decision else {
        panic!("none of them asks for the probe");
    };
    let terms = plan.terms.iter().map(|term| term.to_bits()).collect();
    (format!("{plan:?}"), terms)
}

#[test]
fn all_give_the_same_plans_on_ten_thousand_inputs() {
    let policies = policies();
    let mut dice = Dice(1);
    let mut reasons = BTreeMap::new();
    for number in 0..INPUTS {
        let input = input(&mut dice);
        let answers = policies.iter().map(|(language, policy)| {
            let decision = policy.plan(PlanInput {
                request: &input.request,
                parts: &input.parts,
                nodes: &input.nodes,
                params: &input.params,
                calibration: &input.calibration,
            });
            (
                *language,
                decision.unwrap_or_else(|failure| panic!("{language}: {failure:?}")),
            )
        });
        let answers: Vec<_> = answers.collect();
        if let Decision::Run(plan) = &answers[0].1 {
            *reasons.entry(plan.reason).or_insert(0u32) += 1;
        }
        let expected = exactly(answers[0].1.clone());
        for (language, answer) in answers {
            assert_eq!(exactly(answer), expected, "input {number}, {language}");
        }
    }
    // Inputs that all led the same way would prove little.
    assert!(
        (0..5).all(|reason| reasons.get(&reason).is_some_and(|count| *count >= 50)),
        "{reasons:?}"
    );
}

#[test]
fn all_take_the_same_steps() {
    let policies = policies();
    let mut dice = Dice(2);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for number in 0..INPUTS {
        let mut memo = vec![dice.below(4) as u8];
        memo.extend((1 + dice.below(8) as u32).to_le_bytes());
        memo.extend(dice.between(1.0, 1e4).to_le_bytes());
        if dice.chance(10) {
            memo.clear();
        }
        let input = StepInput {
            kind: if dice.chance(2) {
                0
            } else {
                dice.below(8) as u32
            },
            p_accept: dice.between(0.0, 1.0),
            unsent: dice.below(8) as u32,
            in_flight: dice.below(8) as u32,
            ..StepInput::default()
        };
        let answers: Vec<Action> = (policies.iter())
            .map(|(_, policy)| policy.step(&input, &memo).unwrap())
            .collect();
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "step {number}: {answers:?}"
        );
        *seen.entry(format!("{:?}", answers[0])).or_default() += 1;
    }
    assert_eq!(seen.len(), 4, "draft, send, wait, finish: {seen:?}");
}

#[test]
fn all_learn_the_same() {
    let policies = policies();
    let mut dice = Dice(3);
    let mut learned = 0;
    for number in 0..INPUTS {
        let route = dice.below(4) as u8;
        let mut memo = vec![route];
        memo.extend(4u32.to_le_bytes());
        memo.extend(dice.known(0.0, 1e4).to_le_bytes());
        let outcome = Outcome {
            route: if dice.chance(4) {
                dice.below(4) as u8
            } else {
                route
            },
            status: if dice.chance(4) {
                dice.below(5) as u8
            } else {
                0
            },
            total_ms: dice.known(0.0, 1e4),
            drafted: vec![0; 16],
            accepted: vec![0; 16],
            memo,
            ..Outcome::default()
        };
        let params = [1.1, 4.0, dice.between(0.001, 1.0)];
        let answers: Vec<Vec<Update>> = (policies.iter())
            .map(|(_, policy)| {
                policy
                    .observe(&outcome, &params, &Calibration::default())
                    .unwrap()
            })
            .collect();
        assert!(
            answers.iter().all(|answer| *answer == answers[0]),
            "outcome {number}: {answers:?}"
        );
        learned += answers[0].len();
    }
    assert!(learned > INPUTS / 4, "{learned}");
}
