//! A policy that ships, as a component in the sandbox.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::path::{Path, PathBuf};
use std::process::Command;

use msao_core::offload::Route;
use msao_registry::sandbox::{Sandbox, SandboxConfig};
use msao_simulate::traffic::{Generator, Pattern};
use msao_simulate::{Components, World};

use crate::common::{answer, near, only, pair, play, round_trip, rounds, tokens_per_s};

/// The component of a shipped policy: as `cargo xtask plugins` has put it beside what is built here, or built now.
fn shipped(name: &str) -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = std::env::var_os("MSAO_PLUGINS")
        .map_or_else(|| temporary.join("../plugins"), PathBuf::from);
    let component = folder.join(format!("{name}.wasm"));
    if component.is_file() && component.with_extension("toml").is_file() {
        return component;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = temporary.join("simulated-guests");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            name,
        ])
        .args(["--target", "wasm32-wasip2", "--manifest-path"])
        .arg(root.join("plugins/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .unwrap();
    assert!(built.success(), "{name} cannot be built");
    let file = format!("wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    let component = target.join(format!("{name}.wasm"));
    std::fs::copy(target.join(file), &component).unwrap();
    let manifest = root.join("policies").join(name).join("policy.toml");
    std::fs::copy(manifest, component.with_extension("toml")).unwrap();
    component
}

fn sandbox() -> Sandbox {
    Sandbox::new(&SandboxConfig {
        deterministic: true,
        ..SandboxConfig::default()
    })
    .unwrap()
}

#[test]
fn a_component_decides_as_the_same_policy_in_rust() {
    let sandbox = sandbox();
    let mut policy = Components::load(&sandbox, &shipped("fixed-speculate")).unwrap();
    assert_eq!(policy.params(), [4.0, 1.0, 1000.0]);
    let world = pair(2.5, 30.0, round_trip(20.0));
    let traffic = answer(3_000, 0.8);
    let theirs = play(&world, &traffic, &mut policy);
    let ours = play(&world, &traffic, &mut rounds(4));
    assert_eq!((theirs.failures, theirs.contradictions), (0, 0));
    assert!(theirs.steps > 3_000 / 4);
    let (theirs, ours) = (&only(&theirs).outcome, &only(&ours).outcome);
    assert_eq!(
        (theirs.rounds, &theirs.drafted),
        (ours.rounds, &ours.drafted)
    );
    near(tokens_per_s(theirs), tokens_per_s(ours), 1e-9);
}

#[test]
fn parameters_change_what_it_comes_to_and_are_held_against_the_manifest() {
    let sandbox = sandbox();
    let mut policy = Components::load(&sandbox, &shipped("fixed-speculate")).unwrap();
    let world = pair(2.5, 30.0, round_trip(80.0));
    let traffic = answer(2_000, 0.9);
    let slow = play(&world, &traffic, &mut policy);
    policy.set_params(vec![4.0, 8.0, 1000.0]).unwrap();
    let fast = play(&world, &traffic, &mut policy);
    let speeds = [&slow, &fast].map(|results| tokens_per_s(&only(results).outcome));
    assert!(speeds[1] > 1.1 * speeds[0], "{speeds:?}");
    for (params, named) in [
        (vec![4.0, 8.0], "params: has 2 entries; allowed: 3"),
        (
            vec![4.5, 1.0, 1000.0],
            "params.gamma: is 4.5; allowed: whole numbers 1 to 64",
        ),
        (vec![4.0, 65.0, 1000.0], "params.in-flight: is 65"),
        (vec![4.0, 1.0, f64::NAN], "params.patience-ms: is NaN"),
    ] {
        let error = policy.set_params(params).unwrap_err().to_string();
        assert!(
            error.starts_with(named),
            "{error}\nshould begin with {named}"
        );
    }
}

#[test]
fn shipped_policies_play_the_same_traffic_twice_alike() {
    let sandbox = sandbox();
    let world = World::parse(
        "
        [[clouds]]
        target = 'demo-target-zen3'
        draft = 'demo-draft-zen3'
        [[edges]]
        count = 5
        draft = 'demo-draft-zen3'
        [edges.link]
        up = { bandwidth = '20 Mbit/s', delay-ms = 20.0, jitter-ms = 5.0 }
        down = { delay-ms = 20.0, jitter-ms = 5.0 }
        ",
    )
    .unwrap();
    let generator = Generator {
        edges: 5,
        count: 60,
        pattern: Pattern::Poisson { per_s: 2.0 },
        ..Generator::default()
    };
    let traffic = generator.traffic().unwrap();
    for (name, route) in [
        ("cloud-only", Route::Cloud),
        ("cloud-draft", Route::CloudDraft),
        ("edge-only", Route::Edge),
        ("fixed-speculate", Route::Speculate),
    ] {
        let mut policy = Components::load(&sandbox, &shipped(name)).unwrap();
        let first = play(&world, &traffic, &mut policy);
        assert_eq!(first, play(&world, &traffic, &mut policy), "{name}");
        assert_eq!(first.failures, 0, "{name}");
        assert!(
            first.summary.routes[route as usize] > 30,
            "{name}: {:?}",
            first.summary
        );
    }
    // Those that learn go where they will; none of what they say breaks a rule.
    for name in ["msao", "perllm", "threshold-router"] {
        let mut policy = Components::load(&sandbox, &shipped(name)).unwrap();
        let first = play(&world, &traffic, &mut policy);
        assert_eq!(first, play(&world, &traffic, &mut policy), "{name}");
        assert_eq!((first.failures, first.contradictions), (0, 0), "{name}");
        assert!(first.summary.answered > 40, "{name}: {:?}", first.summary);
    }
}

#[test]
fn what_is_no_policy_is_named() {
    let sandbox = sandbox();
    let error = Components::load(&sandbox, Path::new("not/there"))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("policy.toml is missing"), "{error}");
}
