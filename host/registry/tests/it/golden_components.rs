//! Components that were built when the contract was frozen, and are never built again: they load, and each export gives the
//! answer that it gave then, to the bit. `tests/golden/components/README.md` says what they are.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::manifest::{Manifest, World};
use msao_core::offload::{Action, Decision, PlanInput, Scores, Update};
use msao_registry::CaseInput;
use msao_sandbox::{Export, LimitOverrides, Plugin, Sandbox, SandboxConfig, inspect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A frozen component: its folder, the digest of its bytes, its language and the world that it was built for.
struct Golden {
    name: &'static str,
    sha256: &'static str,
    language: &'static str,
    world: &'static str,
}

/// A later version of the contract adds rows. None is ever changed or taken away.
static FROZEN: [Golden; 5] = [
    Golden {
        name: "mas-joint",
        sha256: "2920890139fbc4b4ee370abfe70db527ebf40ed9d865a33a9cad947dda4bda73",
        language: "Rust",
        world: "probe-postprocessor",
    },
    Golden {
        name: "perllm",
        sha256: "1808a7b5b5f5ee7bed2f460dba94fc12cb06a7d3d8507a1624067dcc38515642",
        language: "Rust",
        world: "explaining-policy",
    },
    Golden {
        name: "quickest-c",
        sha256: "afa1f9dc4b35f69e1546c5babd37461a5241d512dd8a5c2ed585c0cf852bbadd",
        language: "C",
        world: "offload-policy",
    },
    Golden {
        name: "quickest-javascript",
        sha256: "6d82a5612d905e48d0834034b6d64a2784aee066160d514850d6f4b528855c76",
        language: "JavaScript",
        world: "offload-policy",
    },
    Golden {
        name: "quickest-rust",
        sha256: "60b128ef3e9062d3201e9fd880052d674b1aca3d270a39553aa327aa9169de8e",
        language: "Rust",
        world: "offload-policy",
    },
];

/// An entry of `calls.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    input: CaseInput,
    answer: Value,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/components")
}

fn read(name: &str, file: &str) -> Vec<u8> {
    let path = folder().join(name).join(file);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn unpacked(name: &str, file: &str) -> Vec<u8> {
    zstd::decode_all(read(name, file).as_slice()).unwrap()
}

fn component(name: &str) -> Vec<u8> {
    unpacked(name, "component.wasm.zst")
}

fn manifest(name: &str) -> Manifest {
    Manifest::parse(&String::from_utf8(read(name, "policy.toml")).unwrap()).unwrap()
}

fn calls(name: &str) -> Vec<Call> {
    serde_json::from_slice(&unpacked(name, "calls.json.zst")).unwrap()
}

/// A sandbox in which time is no matter: how long an answer takes is not asked here, and the machine may be busy.
fn sandbox() -> Sandbox {
    let patient = LimitOverrides {
        memory_mib: Some(128),
        score_ms: Some(20_000),
        plan_ms: Some(20_000),
        step_ms: Some(20_000),
        observe_ms: Some(20_000),
        explain_ms: Some(20_000),
        ..LimitOverrides::default()
    };
    let names = FROZEN.iter().map(|golden| manifest(golden.name).name);
    Sandbox::new(&SandboxConfig {
        plugins: names
            .map(|name| (name, patient))
            .collect::<BTreeMap<_, _>>(),
        ..SandboxConfig::default()
    })
    .unwrap()
}

/// An answer and the golden one as text, in which numbers are told apart to the bit.
fn both<T: Serialize + DeserializeOwned>(answer: &T, golden: &Value) -> [String; 2] {
    let golden: T = serde_json::from_value(golden.clone()).unwrap();
    [answer, &golden].map(|it| serde_json::to_string(it).unwrap())
}

/// Which export a call is of, what was answered and what is golden.
fn called(plugin: &Plugin, call: Call) -> (Export, [String; 2]) {
    let golden = &call.answer;
    match (plugin, call.input) {
        (
            Plugin::Policy(policy),
            CaseInput::Plan {
                request,
                parts,
                nodes,
                params,
                calibration,
                explained,
            },
        ) => {
            let input = PlanInput {
                request: &request,
                parts: &parts,
                nodes: &nodes,
                params: &params,
                calibration: &calibration,
            };
            match explained {
                None => {
                    let decision = policy.plan(input).unwrap();
                    (Export::Plan, both::<Decision>(&decision, golden))
                }
                Some(plan) => {
                    let words = policy.explain(input, &plan).unwrap().unwrap();
                    (Export::Explain, both::<String>(&words, golden))
                }
            }
        }
        (Plugin::Policy(policy), CaseInput::Step { input, memo }) => {
            let action = policy.step(&input, &memo).unwrap();
            (Export::Step, both::<Action>(&action, golden))
        }
        (
            Plugin::Policy(policy),
            CaseInput::Observe {
                outcome,
                params,
                calibration,
            },
        ) => {
            let updates = policy.observe(&outcome, &params, &calibration).unwrap();
            (Export::Observe, both::<Vec<Update>>(&updates, golden))
        }
        (
            Plugin::PostProcessor(scorer),
            CaseInput::Score {
                report,
                seed,
                params,
                calibration,
            },
        ) => {
            let (report, calibration) = (Arc::new(report), Arc::new(calibration));
            let scores = scorer.score(&report, seed, &params, &calibration).unwrap();
            (Export::Score, both::<Scores>(&scores, golden))
        }
        (plugin, input) => panic!("{:?} is not of {:?}", input, plugin.manifest().world),
    }
}

#[test]
fn what_was_built_at_the_freeze_loads_and_answers_as_it_did() {
    let sandbox = sandbox();
    for golden in &FROZEN {
        let name = golden.name;
        let wasm = component(name);
        assert_eq!(
            Digest::of(&wasm).to_string(),
            golden.sha256,
            "{name}: a golden component is never built again; another one is added beside it (docs/wit-evolution.md)"
        );
        let plugin = sandbox.load(&wasm, &manifest(name));
        let plugin = plugin.unwrap_or_else(|error| {
            panic!("{name} does not load any more: {error}\nsee docs/wit-evolution.md")
        });
        let mut exports = BTreeSet::new();
        for (number, call) in calls(name).into_iter().enumerate() {
            let (export, [answer, expected]) = called(&plugin, call);
            assert_eq!(
                answer, expected,
                "{name}, call {number} ({export}): a meaning of the frozen contract has changed, see docs/wit-evolution.md"
            );
            exports.insert(export.to_string());
        }
        // Every export of its world was called.
        let wanted: &[Export] = match golden.world {
            "probe-postprocessor" => &[Export::Score],
            "explaining-policy" => &[Export::Plan, Export::Step, Export::Observe, Export::Explain],
            _ => &[Export::Plan, Export::Step, Export::Observe],
        };
        let wanted: BTreeSet<String> = wanted.iter().map(Export::to_string).collect();
        assert_eq!(exports, wanted, "{name}");
    }
}

#[test]
fn the_frozen_ones_are_of_every_world_and_are_what_the_table_says() {
    for golden in &FROZEN {
        let found = inspect(&component(golden.name)).unwrap();
        let (world, explains) = match golden.world {
            "probe-postprocessor" => (World::ProbePostprocessor, false),
            "offload-policy" => (World::OffloadPolicy, false),
            _ => (World::OffloadPolicy, true),
        };
        assert_eq!(
            (found.worlds.as_slice(), found.explains),
            (&[world][..], explains),
            "{}",
            golden.name
        );
        assert_eq!(manifest(golden.name).world, world, "{}", golden.name);
        assert!(
            found.contract.values().all(|it| it.to_string() == "0.1.0"),
            "{}: {:?}",
            golden.name,
            found.contract
        );
    }
    let all = |of: fn(&Golden) -> &'static str| FROZEN.iter().map(of).collect::<BTreeSet<_>>();
    assert_eq!(
        all(|it| it.world),
        BTreeSet::from(["explaining-policy", "offload-policy", "probe-postprocessor"])
    );
    // Python's stands in `tests/golden/components/README.md`: it is too large for this repository.
    assert_eq!(
        all(|it| it.language),
        BTreeSet::from(["C", "JavaScript", "Rust"])
    );
    // And nothing lies there that is not tested.
    let there = fs::read_dir(folder()).unwrap().flatten();
    let there = there.filter(|entry| entry.path().is_dir());
    let there: BTreeSet<String> = there
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    let named: BTreeSet<String> = FROZEN.iter().map(|it| it.name.to_owned()).collect();
    assert_eq!(there, named);
}

#[test]
fn the_same_policy_in_three_languages_has_the_same_golden_answers() {
    let text = |name: &str| String::from_utf8(unpacked(name, "calls.json.zst")).unwrap();
    let rust = text("quickest-rust");
    for name in ["quickest-c", "quickest-javascript"] {
        assert!(text(name) == rust, "{name}");
    }
    // All reasons of it, and all that a step of it can be.
    let answers: Vec<Value> = calls("quickest-rust")
        .into_iter()
        .map(|it| it.answer)
        .collect();
    let reasons: BTreeSet<u64> = answers
        .iter()
        .filter_map(|answer| answer.pointer("/run/reason")?.as_u64())
        .collect();
    assert_eq!(reasons, BTreeSet::from([0, 1, 2, 3, 4]));
    let actions: BTreeSet<&str> = answers.iter().filter_map(Value::as_str).collect();
    assert_eq!(actions, BTreeSet::from(["draft", "finish", "send", "wait"]));
}
