//! The hostile corpus, pushed and activated like any other plug-in: its requests are answered, its failing inputs are kept,
//! and who comes after it notices nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::record::Called;
use msao_core::offload::{
    Decision, Item, Node, Outcome, Part, Report, Request, Route, StepInput, Update, capability,
    modality, overrides,
};
use msao_hostile::build::Core;
use msao_hostile::{Case, Expected, MANIFEST, SCORE_MANIFEST, corpus};
use msao_registry::deployment::NotNow;
use msao_registry::sandbox::{Sandbox, SandboxConfig};
use msao_registry::{
    Arrival, Bundle, CaseInput, Choice, Pick, Plugins, Refused, Release, SigningKeyFile,
    fallback_plan, fallback_scores, fallback_step,
};

use crate::common::{Bench, until};

/// This node drafts, a peer has the target: the fallback goes there, and the corpus's honest policy does not.
fn nodes() -> Vec<Node> {
    let node = |can| Node {
        up: true,
        can,
        ..Node::default()
    };
    vec![node(capability::DRAFT), node(capability::TARGET)]
}

/// What the corpus's answers are for.
fn input() -> (Vec<Part>, Report) {
    let report = Report {
        items: vec![Item {
            modality: modality::IMAGE,
            tokens: 4,
            frames: 1,
            relevance: 1.0,
        }],
        ..Report::default()
    };
    (vec![Part::default()], report)
}

/// A request through all exports, and where it went.
fn play(plugins: &Plugins, id: &str, export: &str) -> Route {
    let (parts, report) = input();
    let report = Arc::new(report);
    let (request, nodes) = (Request::default(), nodes());
    let mut ticket = plugins.admit(&Arrival::new(id, Digest::of(id.as_bytes())));
    let scores = ticket.score(&report, request.seed);
    assert_eq!(scores.items.len(), 1);
    let Decision::Run(plan) = ticket.plan(&request, &parts, &nodes) else {
        panic!("asked for the probe");
    };
    let step = StepInput::default();
    let action = ticket.step(&step);
    if export == "explain" {
        assert_eq!(ticket.explain(&request, &parts, &nodes), None);
    }
    match export {
        "score" => assert_eq!(scores, fallback_scores(&report)),
        "plan" => assert_eq!(plan, fallback_plan(&request, &parts, &nodes)),
        "step" => assert_eq!(action, fallback_step(plan.route, &step)),
        _ => {}
    }
    ticket.finish(Outcome::default());
    plan.route
}

fn bundle(file: Vec<u8>, manifest: &str) -> Bundle {
    Bundle::new(file, manifest.to_owned(), None).unwrap()
}

/// Makes it active, unless it is.
fn activate(plugins: &Plugins, policy: Release, postprocessor: Pick) {
    let choice = Choice {
        policy: Pick::Take(policy),
        postprocessor,
    };
    match plugins.activate(choice) {
        Ok(_) | Err(Refused::NotNow(NotNow::SameAsActive)) => {}
        Err(error) => panic!("{error}"),
    }
}

fn plugins(bench: &Bench) -> Plugins {
    let mut options = bench.options(&bench.registry());
    options.loader = Arc::new(Sandbox::new(&SandboxConfig::default()).unwrap());
    let opened = Plugins::open(options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(opened.warnings, Vec::<String>::new());
    opened.plugins
}

fn check(bench: &Bench, plugins: &Plugins, case: &Case, honest: Release, number: usize) {
    let Case { name, .. } = case;
    let pushed = plugins.push(&bundle(case.file.clone(), &case.manifest));
    let (export, kind) = match case.expected {
        Expected::Refused(says) => {
            let refused = pushed.err().unwrap_or_else(|| panic!("{name} was taken"));
            assert!(refused.to_string().contains(says), "{name}: {refused}");
            return;
        }
        Expected::Fails { export, kind, .. } => (export, kind),
    };
    let release = pushed.unwrap_or_else(|error| panic!("{name}: {error}"));
    if export == "score" {
        // A policy that wants scores has to be there, or nobody asks for them.
        activate(plugins, honest, Pick::Take(release));
    } else {
        activate(plugins, release, Pick::Nothing);
    }
    let id = format!("case-{number}");
    play(plugins, &id, export);
    // Some fail in every export: what each kept may come in any order.
    let kept = || {
        (plugins.failures().into_iter())
            .find(|kept| kept.artifact == release.artifact && kept.export == export)
    };
    until("the failing input is kept", || kept().is_some());
    let kept = kept().unwrap_or_else(|| panic!("{name}: no case"));
    assert_eq!(kept.kind, kind, "{name}");
    let whole = plugins.failure(&kept.id).unwrap().unwrap();
    let right = match whole.input {
        CaseInput::Score { .. } => "score",
        CaseInput::Plan { explained, .. } if explained.is_some() => "explain",
        CaseInput::Plan { .. } => "plan",
        CaseInput::Step { .. } => "step",
        CaseInput::Observe { .. } => "observe",
    };
    assert_eq!(right, export, "{name}");
    bench.records.settle().unwrap();
    let record = bench.records.get(&id).unwrap().unwrap();
    let outcome = record.outcome.unwrap();
    match export {
        "observe" => {
            assert_eq!(
                record.updates,
                Some(Called::<Vec<Update>>::Failed(kind.into())),
                "{name}"
            );
        }
        "explain" => assert_eq!(outcome.overrides, 0, "{name}"),
        _ => assert_eq!(outcome.overrides, overrides::FALLBACK, "{name}"),
    }
}

#[test]
fn every_case_is_refused_or_answered_for_and_leaves_nothing_behind() {
    let bench = Bench::new("");
    let plugins = plugins(&bench);
    let probing = MANIFEST.replace("state-schema", "probe = \"full\"\nstate-schema");
    let scorer = bundle(Core::postprocessor().build().unwrap(), SCORE_MANIFEST);
    let scorer = plugins.push(&scorer).unwrap();
    let honest = bundle(Core::policy().build().unwrap(), &probing);
    let honest = plugins.push(&honest).unwrap();
    for (number, case) in corpus().unwrap().iter().enumerate() {
        check(&bench, &plugins, case, honest, number);
        // The next generation, in the same sandbox.
        activate(&plugins, honest, Pick::Take(scorer));
        assert_eq!(
            play(&plugins, &format!("after-{number}"), ""),
            Route::Edge,
            "{}",
            case.name
        );
        let status = plugins.status();
        let failures: u64 = status.active.exports.values().map(|it| it.failures).sum();
        assert_eq!(failures, 0, "after {}", case.name);
    }
}

/// A signature that was good once, sent again when another one has been active.
#[test]
fn a_replayed_signature_of_an_older_serial_is_refused() {
    let key = SigningKeyFile::generate().unwrap();
    let bench = Bench::new(&format!("[keys]\nops = \"{}\"", key.public()));
    let plugins = plugins(&bench);
    let signed = |action: u32, serial| {
        let core = Core {
            step: format!("(i32.const {action})"),
            ..Core::policy()
        };
        let mut bundle = bundle(core.build().unwrap(), MANIFEST);
        bundle.signature = Some(key.sign(bundle.release(), serial));
        plugins.push(&bundle).unwrap()
    };
    let (older, newer) = (signed(0, 1), signed(1, 2));
    plugins.activate(Choice::policy(newer)).unwrap();
    let refused = plugins.activate(Choice::policy(older)).unwrap_err();
    assert!(refused.to_string().contains("has serial 1"), "{refused}");
    let mut forged = bundle(Core::policy().build().unwrap(), MANIFEST);
    let mut signature = key.sign(forged.release(), 3);
    signature.serial = 4;
    forged.signature = Some(signature);
    assert!(plugins.push(&forged).is_err());
}
