//! The hostile corpus: each plug-in that misbehaves gets the right error, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // a test's helpers may panic

mod common;

use common::*;
use msao_core::offload::manifest::Manifest;
use msao_hostile::{Case, Expected, corpus};
use msao_sandbox::{FailureKind, Plugin, SandboxConfig, inspect};

fn check(sandbox: &msao_sandbox::Sandbox, case: &Case) -> Result<(), String> {
    let manifest = Manifest::parse(&case.manifest).map_err(|error| error.to_string())?;
    let loaded = sandbox.load(&case.file, &manifest);
    match (loaded, case.expected) {
        (Err(error), Expected::Refused(says)) => contains(&error.to_string(), says),
        (Ok(_), Expected::Refused(_)) => Err("was loaded".to_owned()),
        (Err(error), Expected::Fails { .. }) => Err(format!("was refused: {error}")),
        (Ok(plugin), Expected::Fails { export, kind, says }) => {
            // Twice: a failure must leave nothing behind, not even in the plug-in's own pool.
            for _ in 0..2 {
                let failure = call(&plugin, export)
                    .err()
                    .ok_or_else(|| format!("{export} was answered"))?;
                if failure.kind.name() != kind {
                    return Err(format!(
                        "{} instead of {kind}: {failure}",
                        failure.kind.name()
                    ));
                }
                contains(&failure.to_string(), says)?;
                contains(&failure.to_string(), "hostile 0.1.0")?;
                if plugin.usage().instances > 1 {
                    return Err(format!("{} instances are left", plugin.usage().instances));
                }
            }
            Ok(())
        }
    }
}

fn contains(text: &str, says: &str) -> Result<(), String> {
    if text.contains(says) {
        return Ok(());
    }
    Err(format!("\"{text}\" does not say \"{says}\""))
}

#[test]
fn each_case_gets_the_right_error_and_its_neighbour_goes_on() {
    let sandbox = sandbox(SandboxConfig::default());
    let neighbour = honest_policy(&sandbox);
    let before = plan(&neighbour).unwrap();
    let mut wrong = Vec::new();
    for case in corpus().unwrap() {
        if let Err(problem) = check(&sandbox, &case) {
            wrong.push(format!("{}: {problem}", case.name));
        }
        assert_eq!(plan(&neighbour).unwrap(), before, "after {}", case.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(neighbour.usage().instances, 1);
}

#[test]
fn counted_in_instructions_the_endless_end_too() {
    let sandbox = sandbox(SandboxConfig {
        deterministic: true,
        ..SandboxConfig::default()
    });
    for case in corpus().unwrap() {
        if let Expected::Fails {
            export,
            kind: "deadline",
            ..
        } = case.expected
        {
            let manifest = Manifest::parse(&case.manifest).unwrap();
            let plugin = sandbox.load(&case.file, &manifest).unwrap();
            let failure = call(&plugin, export).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Deadline, "{}", case.name);
        }
    }
}

#[test]
fn precompiled_code_is_never_taken_from_outside() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox(SandboxConfig {
        cache: Some(folder.path().to_owned()),
        ..SandboxConfig::default()
    });
    honest_policy(&sandbox);
    let code = cached(folder.path());
    let bytes = std::fs::read(code).unwrap();
    // It begins with what wasmtime itself would write.
    let error = inspect(&bytes).unwrap_err().to_string();
    assert!(error.contains("precompiled machine code"), "{error}");
    let refused = sandbox.load(&bytes, &policy_manifest());
    assert!(refused.is_err());
}

#[test]
fn a_failure_says_what_is_known() {
    let sandbox = sandbox(SandboxConfig::default());
    let case = corpus().unwrap();
    let case = case.iter().find(|case| case.name == "memory bomb").unwrap();
    let manifest = Manifest::parse(&case.manifest).unwrap();
    let plugin = sandbox.load(&case.file, &manifest).unwrap();
    let Plugin::Policy(policy) = &plugin else {
        panic!("no policy");
    };
    let failure = plan(policy).unwrap_err();
    assert!(failure.memory_peak > 15 << 20, "{}", failure.memory_peak);
    assert!(failure.memory_peak <= 16 << 20, "{}", failure.memory_peak);
    let backtrace = failure.backtrace.unwrap();
    assert!(backtrace.contains("plan"), "{backtrace}");
}
