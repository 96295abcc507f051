//! What a sandbox promises to those who call.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // a test's helpers may panic

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, SystemTime};

use msao_core::digest::Digest;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{Action, Calibration, Decision, Outcome, Plan, Route, StepInput};
use msao_hostile::build::{ANSWERS, Core, of_other_types};
use msao_hostile::{MANIFEST, SCORE_MANIFEST};
use msao_sandbox::{FailureKind, Limits, LoadError, Meter, Plugin, SandboxConfig};
use proptest::prelude::*;

use crate::common::{self, *};

#[test]
fn an_honest_policy_is_answered_for() {
    let sandbox = sandbox(SandboxConfig::default());
    let policy = honest_policy(&sandbox);
    let Decision::Run(planned) = plan(&policy).unwrap() else {
        panic!("no plan");
    };
    assert_eq!((planned.route, planned.gamma_max), (Route::Edge, 4));
    assert_eq!(
        policy.step(&StepInput::default(), b"memo").unwrap(),
        Action::Draft
    );
    let updates = policy.observe(&Outcome::default(), &[], &Calibration::default());
    assert_eq!(updates.unwrap(), []);
    let why = with_input(|input| policy.explain(input, &Plan::plain(Route::Edge, 0)));
    assert_eq!(why.unwrap().as_deref(), Some("because"));
    assert_eq!(
        *policy.digest(),
        Digest::of(&Core::policy().build().unwrap())
    );
    assert_eq!(*policy.limits(), Limits::default());

    let silent = Core {
        world: "offload-policy".to_owned(),
        ..Core::policy()
    };
    let silent = common::policy(&sandbox, &silent);
    assert!(!silent.explains());
    let why = with_input(|input| silent.explain(input, &Plan::plain(Route::Edge, 0)));
    assert_eq!(why.unwrap(), None);

    let scores = honest_postprocessor(&sandbox)
        .score(&report(), 1, &[], &Calibration::default())
        .unwrap();
    assert_eq!(scores.items[0].necessity, 1.0);
}

#[test]
fn a_later_patch_of_the_contract_is_spoken() {
    let sandbox = sandbox(SandboxConfig::default());
    let core = Core {
        version: "0.1.7".to_owned(),
        ..Core::policy()
    };
    assert!(plan(&policy(&sandbox, &core)).is_ok());
}

#[test]
fn all_exports_of_another_type_are_told_at_once() {
    let component = of_other_types().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sandbox = sandbox(SandboxConfig {
        cache: Some(folder.path().to_owned()),
        ..SandboxConfig::default()
    });
    let manifest = Manifest::parse(MANIFEST).unwrap();
    // The second time as well: what is kept as compiled code has been compared.
    for _ in 0..2 {
        let error = sandbox.load(&component, &manifest).err().unwrap();
        let LoadError::Types(types) = &error else {
            panic!("{error}");
        };
        let exports: Vec<&str> = types.iter().map(|it| it.export).collect();
        assert_eq!(exports, ["policy.plan", "policy.step", "policy.observe"]);
        assert!(types.iter().all(|it| !it.problem.is_empty()), "{error}");
        let mut files = std::fs::read_dir(folder.path()).unwrap();
        assert!(files.all(|file| file.unwrap().file_name() == "key"));
    }
}

/// The arguments arrive as they were given: what the policy answers is a number read from each list.
#[test]
fn arguments_arrive_whole() {
    let sandbox = sandbox(SandboxConfig::default());
    // The arguments' record: request 48 bytes, then parts, nodes, params, calibration, a pointer and a length each.
    let patience = |f64_at: &str| {
        let mut core = Core::policy();
        core.plan = format!(
            "(local $args i32) (local.set $args (local.get 0))
             (f64.store (i32.const {}) {f64_at}) (i32.const {ANSWERS})",
            ANSWERS + 32
        );
        let Decision::Run(plan) = plan(&policy(&sandbox, &core)).unwrap() else {
            panic!("no plan");
        };
        plan.patience_ms
    };
    let list = |offset: u32, element: u32| {
        format!("(f64.load offset={element} (i32.load offset={offset} (local.get $args)))")
    };
    let length =
        |offset: u32| format!("(f64.convert_i32_u (i32.load offset={offset} (local.get $args)))");
    assert_eq!(patience(&length(52)), 1.0, "parts");
    assert_eq!(patience(&length(60)), 1.0, "nodes");
    assert_eq!(patience(&list(64, 8)), 2.0, "params");
    assert_eq!(patience(&list(80, 8)), 0.25, "mean");
    assert_eq!(patience(&list(96, 0)), 3.0, "count");
}

#[test]
fn many_threads_share_a_policy() {
    let sandbox = sandbox(SandboxConfig::default());
    let policy = honest_policy(&sandbox);
    let expected = plan(&policy).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..500 {
                    assert_eq!(plan(&policy).unwrap(), expected);
                    assert_eq!(
                        policy.step(&StepInput::default(), &[]).unwrap(),
                        Action::Draft
                    );
                }
            });
        }
    });
    assert!(policy.usage().instances <= 8, "{:?}", policy.usage());
}

#[test]
fn a_pool_that_is_empty_is_said_to_be_overloaded() {
    let mut config = SandboxConfig {
        instances: 1,
        ..SandboxConfig::default()
    };
    config.limits.plan_ms = 30_000;
    let sandbox = sandbox(config);
    let mut core = Core::policy();
    // Long enough to be still running when the other thread calls.
    core.plan = format!(
        "(local $i i64)
         (loop $on (local.set $i (i64.add (local.get $i) (i64.const 1)))
             (br_if $on (i64.lt_u (local.get $i) (i64.const 400000000))))
         (i32.const {ANSWERS})"
    );
    let policy = policy(&sandbox, &core);
    let ready = Barrier::new(2);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            ready.wait();
            plan(&policy)
        });
        ready.wait();
        // The other thread may be the one that finds the pool empty: one of both does.
        thread::sleep(Duration::from_millis(10));
        let mine = plan(&policy);
        let results = [slow.join().unwrap(), mine];
        let overloaded = results.iter().filter_map(|it| it.as_ref().err());
        let kinds: Vec<_> = overloaded.map(|failure| &failure.kind).collect();
        assert_eq!(kinds, [&FailureKind::Overloaded]);
    });
    assert!(plan(&policy).is_ok(), "the instance came back");
}

/// A plug-in that is only kept warm makes room for one that is called.
#[test]
fn idle_instances_of_others_make_room() {
    let sandbox = sandbox(SandboxConfig {
        instances: 4,
        ..SandboxConfig::default()
    });
    let idle = honest_policy(&sandbox);
    let expected = plan(&idle).unwrap();
    let failing = Core {
        plan: "unreachable".to_owned(),
        ..Core::policy()
    };
    let busy = policy(&sandbox, &failing);
    for _ in 0..3 {
        let _ = plan(&busy).unwrap_err();
        idle.warm(4).unwrap();
        assert_eq!(idle.usage().instances, 4);
        // All room is taken, and the failed call's instance is gone.
        assert_eq!(plan(&busy).unwrap_err().kind, FailureKind::Trap);
        assert_eq!(plan(&idle).unwrap(), expected, "a new instance is made");
    }
    idle.warm(4).unwrap();
    let third = honest_policy(&sandbox);
    assert_eq!(plan(&third).unwrap(), expected, "loading makes room too");
}

#[test]
fn instances_can_be_made_ready() {
    let sandbox = sandbox(SandboxConfig::default());
    let policy = honest_policy(&sandbox);
    policy.warm(5).unwrap();
    assert_eq!(policy.usage().instances, 5);
    plan(&policy).unwrap();
    assert_eq!(policy.usage().instances, 5);
    assert_eq!(policy.usage().memory_peak, 65536);
}

#[test]
fn instructions_are_counted_alike_each_time() {
    let config = SandboxConfig {
        deterministic: true,
        ..SandboxConfig::default()
    };
    let measure = || {
        let policy = honest_policy(&sandbox(config.clone()));
        let mut meter = Meter::default();
        let mut fuel = Vec::new();
        for _ in 0..3 {
            with_input(|input| policy.plan_metered(input, Some(&mut meter))).unwrap();
            fuel.push(meter.fuel.unwrap());
        }
        assert_eq!(meter.memory_peak, 65536);
        fuel
    };
    let first = measure();
    assert!(first[0] > 0);
    assert_eq!(first, [first[0]; 3]);
    assert_eq!(measure(), first);
}

#[test]
fn compiled_code_is_kept_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let config = SandboxConfig {
        cache: Some(folder.path().join("plugins")),
        ..SandboxConfig::default()
    };
    let cache = folder.path().join("plugins");
    let expected = plan(&honest_policy(&sandbox(config.clone()))).unwrap();
    let file = cached(&cache);
    let written = std::fs::read(&file).unwrap();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cache.join("key")), 0o600);
    assert_eq!(mode(&file), 0o400);

    // Found again: the file is not written anew, only marked as used.
    let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
    let (first, long_ago) = (inode(&file), SystemTime::now() - Duration::from_secs(9999));
    set_modified(&file, long_ago);
    assert_eq!(
        plan(&honest_policy(&sandbox(config.clone()))).unwrap(),
        expected
    );
    assert_eq!(inode(&file), first);
    let used = std::fs::metadata(&file).unwrap().modified().unwrap();
    assert!(used > long_ago + Duration::from_secs(9000));

    // By its digest it is found without its bytes, which are not inspected again; it serves its own world and no other.
    let digest = Digest::of(&Core::policy().build().unwrap());
    let named = |manifest: &str| {
        let manifest = Manifest::parse(manifest).unwrap();
        let sandbox = sandbox(config.clone());
        sandbox.load_named(&[], &digest, &manifest).map(drop)
    };
    named(MANIFEST).unwrap();
    let error = named(SCORE_MANIFEST).unwrap_err().to_string();
    assert!(error.contains("world probe-postprocessor"), "{error}");
    assert_eq!(inode(&file), first);

    // Somebody else's code, or a damaged file, is compiled over: a bit of the code, of what follows it, of its authentication.
    let last = written.len() - 1;
    let mut places: Vec<usize> = (0..=last).step_by(last / 12).collect();
    places.extend([1, last - 31, last - 32, last - 36, last - 60, last]);
    for at in places {
        let mut bad = written.clone();
        bad[at] ^= 1 << (at % 8);
        replace(&file, &bad);
        assert_eq!(
            plan(&honest_policy(&sandbox(config.clone()))).unwrap(),
            expected
        );
        assert!(std::fs::read(&file).unwrap() == written, "byte {at}");
    }
    for length in [0, 31, 32, 36, written.len() / 2, last] {
        replace(&file, &written[..length]);
        honest_policy(&sandbox(config.clone()));
        assert!(std::fs::read(&file).unwrap() == written, "{length} bytes");
    }
    // One that others, or a mistake, may write to.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    honest_policy(&sandbox(config.clone()));
    assert_eq!(mode(&file), 0o400);
    // Another component's file under this one's name.
    let other = Core {
        step: "(i32.const 1)".to_owned(),
        ..Core::policy()
    };
    policy(&sandbox(config.clone()), &other);
    let files = std::fs::read_dir(&cache)
        .unwrap()
        .map(|it| it.unwrap().path());
    let mut code = files.filter(|path| path.extension().is_some_and(|it| it == "cwasm"));
    let others = code.find(|path| *path != file).unwrap();
    replace(&file, &std::fs::read(others).unwrap());
    let again = honest_policy(&sandbox(config.clone()));
    assert_eq!(
        again.step(&StepInput::default(), &[]).unwrap(),
        Action::Draft
    );

    let key = cache.join("key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = msao_sandbox::Sandbox::new(&config)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("others may read"), "{error}");
}

/// Another file of compiled code, as somebody else would put it there.
fn replace(path: &std::path::Path, bytes: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o400)).unwrap();
}

fn set_modified(path: &std::path::Path, to: SystemTime) {
    let file = std::fs::File::open(path).unwrap();
    file.set_modified(to).unwrap();
}

/// A process that is killed while it writes leaves half a file; another one may be writing right now.
#[test]
fn what_was_left_half_written_goes() {
    let folder = tempfile::tempdir().unwrap();
    let config = SandboxConfig {
        cache: Some(folder.path().to_owned()),
        ..SandboxConfig::default()
    };
    let file = |name: &str, age_s| {
        let path = folder.path().join(name);
        std::fs::write(&path, "half").unwrap();
        set_modified(&path, SystemTime::now() - Duration::from_secs(age_s));
        path
    };
    let (old, new, other) = (
        file(".tmpOLD123", 3600),
        file(".tmpNEW123", 1),
        file("notes", 3600),
    );
    sandbox(config);
    assert!(!old.exists());
    assert!(new.exists() && other.exists());
}

/// Time and randomness stand still, for a policy that insists on having them.
#[test]
fn wasi_tells_nothing() {
    let sandbox = sandbox(SandboxConfig::default());
    let mut core = Core::policy();
    core.world = "with-wasi".to_owned();
    core.wit = "
        package wasi:clocks@0.2.0 { interface monotonic-clock { now: func() -> u64; } }
        package wasi:random@0.2.0 { interface random { get-random-u64: func() -> u64; } }
        package wasi:cli@0.2.0 { interface environment { get-arguments: func() -> list<string>; } }
        world with-wasi {
            include offload-policy;
            import wasi:clocks/monotonic-clock@0.2.0;
            import wasi:random/random@0.2.0;
            import wasi:cli/environment@0.2.0;
        }
    "
    .to_owned();
    core.imports = "
        (import \"wasi:clocks/monotonic-clock@0.2.0\" \"now\" (func $now (result i64)))
        (import \"wasi:random/random@0.2.0\" \"get-random-u64\" (func $random (result i64)))
        (import \"wasi:cli/environment@0.2.0\" \"get-arguments\" (func $arguments (param i32)))
    "
    .to_owned();
    // patience-ms = 1 + now + random mod 1000 + 10000 * arguments
    core.plan = format!(
        "(call $arguments (i32.const 600))
         (f64.store (i32.const {})
             (f64.add (f64.const 1)
                 (f64.add (f64.convert_i64_u (call $now))
                     (f64.add (f64.convert_i64_u (i64.rem_u (call $random) (i64.const 1000)))
                         (f64.mul (f64.const 10000) (f64.convert_i32_u (i32.load (i32.const 604))))))))
         (i32.const {ANSWERS})",
        ANSWERS + 32
    );
    let policy = policy(&sandbox, &core);
    let first = plan(&policy).unwrap();
    let Decision::Run(decided) = &first else {
        panic!("no plan");
    };
    assert!((1.0..=1000.0).contains(&decided.patience_ms));
    assert_eq!(plan(&policy).unwrap(), first, "in the same instance");
    let again = common::policy(
        &msao_sandbox::Sandbox::new(&SandboxConfig::default()).unwrap(),
        &core,
    );
    assert_eq!(plan(&again).unwrap(), first, "in another one");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// However a component is damaged, loading and calling it ends in an answer or in an error.
    #[test]
    fn a_flipped_component_does_no_harm(flips in prop::collection::vec((0.0..1.0f64, 0u8..8), 1..6)) {
        thread_local! {
            static SANDBOX: msao_sandbox::Sandbox = sandbox(SandboxConfig::default());
        }
        let mut wasm = Core::policy().build().unwrap();
        for (at, bit) in flips {
            let at = (at * wasm.len() as f64) as usize;
            wasm[at] ^= 1 << bit;
        }
        SANDBOX.with(|sandbox| {
            if let Ok(plugin) = sandbox.load(&wasm, &policy_manifest()) {
                let Plugin::Policy(_) = &plugin else { panic!("no policy") };
                for export in ["plan", "step", "observe", "explain"] {
                    let _ = call(&plugin, export);
                }
            }
        });
    }
}

/// Slow post-processors delay each other and no plan; beyond those that may wait the next is told at once.
#[test]
fn who_finds_no_turn_is_told_at_once_and_plans_go_on() {
    let sandbox = sandbox(SandboxConfig {
        score_threads: 1,
        score_queue: 1,
        limits: Limits {
            score_ms: 500,
            ..Limits::default()
        },
        ..SandboxConfig::default()
    });
    let policy = honest_policy(&sandbox);
    let core = Core {
        score: "(loop $on (br $on)) unreachable".to_owned(),
        ..Core::postprocessor()
    };
    let manifest = Manifest::parse(SCORE_MANIFEST).unwrap();
    let plugin = sandbox.load(&core.build().unwrap(), &manifest).unwrap();
    let Plugin::PostProcessor(endless) = plugin else {
        panic!("a post-processor");
    };
    let score = || {
        let failed = endless.score(&report(), 1, &[], &Calibration::default());
        failed.unwrap_err().kind
    };
    // All three are there long before the first is stopped.
    let kinds = thread::scope(|scope| {
        let scoring = [(); 3].map(|()| scope.spawn(score));
        plan(&policy).unwrap();
        scoring.map(|thread| thread.join().unwrap())
    });
    let count = |kind: FailureKind| kinds.iter().filter(|it| **it == kind).count();
    assert_eq!(count(FailureKind::Deadline), 2, "{kinds:?}");
    assert_eq!(count(FailureKind::Overloaded), 1, "{kinds:?}");
    // The turn is free again.
    assert_eq!(score(), FailureKind::Deadline);
}
