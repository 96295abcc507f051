//! The hostile corpus: each plug-in that misbehaves gets the right error, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // a test's helpers may panic

use msao_core::offload::Decision;
use msao_core::offload::manifest::Manifest;
use msao_hostile::build::{ANSWERS, Core};
use msao_hostile::{Case, Expected, MANIFEST, corpus};
use msao_sandbox::{FailureKind, Plugin, SandboxConfig, inspect};

use crate::common::*;

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
                if failure.memory_peak > 16 << 20 {
                    return Err(format!("had {} bytes", failure.memory_peak));
                }
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
fn a_manifest_bounds_the_size_of_its_component() {
    let sandbox = sandbox(SandboxConfig::default());
    let bytes = vec![0; (1 << 20) + 1];
    let manifest = Manifest::parse(&format!("{MANIFEST}[limits]\nartifact-mib = 1\n")).unwrap();
    let refused = |bytes: &[u8]| sandbox.load(bytes, &manifest).err().unwrap().to_string();
    let error = refused(&bytes);
    assert!(
        error.contains("artifact-mib") && error.contains("1048576"),
        "{error}"
    );
    // Within it the file is looked at.
    let error = refused(&bytes[1..]);
    assert!(!error.contains("artifact-mib"), "{error}");
}

/// What a policy has at last that takes all it gets, told by itself: the host's own count is not asked.
#[test]
fn all_memories_and_all_tables_count_together() {
    const PAGE: u64 = 65_536;
    let sandbox = sandbox(SandboxConfig {
        deterministic: true,
        ..SandboxConfig::default()
    });
    let taken = |more_memory: &str, extra: &str, grow: &str, sizes: &str, limits: &str| {
        let mut core = Core::policy();
        core.memory += more_memory;
        core.extra = extra.to_owned();
        core.plan = format!(
            "(loop $on (br_if $on (i32.ne (i32.const -1) {grow})))
             (f64.store (i32.const {}) (f64.mul (f64.const 0.5) (f64.convert_i32_u {sizes})))
             (i32.const {ANSWERS})",
            ANSWERS + 32
        );
        let manifest = Manifest::parse(&format!("{MANIFEST}[limits]\n{limits}\n")).unwrap();
        let loaded = sandbox.load(&core.build().unwrap(), &manifest).unwrap();
        let Plugin::Policy(policy) = &loaded else {
            panic!("no policy");
        };
        match plan(policy).unwrap() {
            // Halved, because a plan's patience ends at 60,000.
            Decision::Run(plan) => (2.0 * plan.patience_ms) as u64,
            Decision::Probe => panic!("no plan"),
        }
    };
    // Three memories that grow by turns, in pages.
    let pages = taken(
        "(memory $b 1)(memory $c 1)",
        "",
        "(i32.or (memory.grow $b (i32.const 1)) (i32.or (memory.grow $c (i32.const 1)) (memory.grow $memory (i32.const 1))))",
        "(i32.add (memory.size $memory) (i32.add (memory.size $b) (memory.size $c)))",
        "",
    );
    assert!((250..=256).contains(&pages), "{pages} pages of 16 MiB");
    // Two tables, in elements: what the operator allows, and less where the manifest says so.
    for (limits, most) in [("", 65_536), ("table-elements = 9000", 9000)] {
        let elements = taken(
            "",
            "(table $t 1 funcref)(table $u 1 funcref)",
            "(i32.or (table.grow $t (ref.null func) (i32.const 700)) (table.grow $u (ref.null func) (i32.const 700)))",
            "(i32.add (table.size $t) (table.size $u))",
            limits,
        );
        assert!(
            (most - 1536..=most).contains(&elements),
            "{elements} elements of {most}"
        );
    }
    // A memory and a table in one mebibyte: 15 pages, and then a table of which eight bytes an element count.
    let elements = taken(
        "",
        "(table $t 1 funcref)",
        "(i32.or (memory.grow $memory (select (i32.const 14) (i32.const 0) (i32.eq (memory.size $memory) (i32.const 1))))
                 (table.grow $t (ref.null func) (i32.const 500)))",
        "(table.size $t)",
        "memory-mib = 1",
    );
    let room = ((1 << 20) - 15 * PAGE) / 8;
    assert!(
        (room - 500..=room).contains(&elements),
        "{elements} elements of {room}"
    );
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
