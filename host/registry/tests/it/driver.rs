//! The seeded driver: the same bytes from the same seed, and traffic that shows what there is to show.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::fs;
use std::sync::Arc;

use msao_core::offload::record::Called;
use msao_core::offload::{Decision, PlanInput, Route, Status, check, kind};
use msao_registry::driver::{Driver, record_set};
use msao_registry::state::read_jsonl;
use msao_registry::{Loaded, Loader};

use crate::common::plain;

fn write(folder: &std::path::Path, bundle: &msao_registry::Bundle) {
    fs::create_dir_all(folder.join("target")).unwrap();
    fs::write(folder.join("policy.toml"), &bundle.manifest_text).unwrap();
    let name = format!("target/{}.wasm", bundle.manifest.name);
    fs::write(folder.join(name), &bundle.wasm).unwrap();
}

#[test]
fn a_seed_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (policy, scorer) = (folder.path().join("policy"), folder.path().join("scorer"));
    write(&policy, &plain::policy("ask"));
    write(&scorer, &plain::postprocessor(""));
    let record = |seed| {
        let mut out = Vec::new();
        let loader = Arc::new(plain::PlainLoader);
        let exported = record_set(
            loader,
            &policy,
            Some(&scorer),
            (Driver::new(seed), 60),
            0.2,
            &mut out,
        )
        .unwrap();
        assert_eq!(exported.decisions, 60);
        out
    };
    let first = record(1);
    assert_eq!(first, record(1));
    assert_ne!(first, record(2));
    let read = read_jsonl(first.as_slice()).unwrap();
    assert_eq!(read.decisions.len(), 60);
    // Each request was given what those before it taught.
    assert!(read.snapshots.len() > 50);
    for record in &read.decisions {
        let Some(Decision::Run(plan)) = record.planned.as_ref().and_then(|it| it.answer()) else {
            panic!("no plan in {}", record.id);
        };
        assert_eq!(
            check::plan(plan, &record.parts, &record.nodes, 0, 0),
            Ok(())
        );
    }
}

#[test]
fn traffic_has_every_kind_of_thing_in_it() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &plain::policy(""));
    let mut out = Vec::new();
    let loader = Arc::new(plain::PlainLoader);
    record_set(
        loader,
        folder.path(),
        None,
        (Driver::new(3), 400),
        0.0,
        &mut out,
    )
    .unwrap();
    let records = read_jsonl(out.as_slice()).unwrap().decisions;
    let outcomes = || records.iter().map(|it| it.outcome.as_ref().unwrap());
    let steps = || records.iter().flat_map(|it| &it.steps);
    for wanted in [kind::DRAFTED, kind::VERDICT, kind::LINK_DOWN] {
        assert!(
            steps().any(|step| step.input.kind == wanted),
            "no event {wanted}"
        );
    }
    assert!(outcomes().any(|it| it.status == Status::Degraded as u8));
    assert!(records.iter().any(|it| it.ran.route == Route::Edge));
    for modality in 0..4 {
        assert!(
            records
                .iter()
                .any(|it| it.parts.iter().any(|part| part.modality == modality))
        );
    }
    for outcome in outcomes() {
        assert!(outcome.ttft_ms > 0.0 && outcome.total_ms >= outcome.ttft_ms);
        let pairs = outcome.drafted.iter().zip(&outcome.accepted);
        assert!(pairs.clone().all(|(drafted, accepted)| accepted <= drafted));
    }
}

/// A record holds one plan, and what came under it: else its steps would be held against a memo that they never saw.
#[test]
fn what_a_peer_refused_is_recorded_as_it_was_planned_last() {
    for (words, scores) in [("", false), ("full", true), ("ask", true)] {
        let folder = tempfile::tempdir().unwrap();
        let (policy, scorer) = (folder.path().join("policy"), folder.path().join("scorer"));
        let bundle = plain::policy(words);
        write(&policy, &bundle);
        write(&scorer, &plain::postprocessor(""));
        let mut out = Vec::new();
        let traffic = Driver::new(9).refusing(0.5);
        let loader = Arc::new(plain::PlainLoader);
        let scorer = scores.then_some(scorer.as_path());
        record_set(loader, &policy, scorer, (traffic, 120), 0.0, &mut out).unwrap();
        let read = read_jsonl(out.as_slice()).unwrap();
        let digest = bundle.release().artifact;
        let loaded = plain::PlainLoader.load(&bundle.wasm, &digest, &bundle.manifest);
        let Ok(Loaded::Policy(policy)) = loaded else {
            panic!("no policy");
        };
        let (mut replanned, mut steps) = (0, 0);
        for record in &read.decisions {
            assert!(!record.replanned || record.asked.is_none(), "{}", record.id);
            let calibration = read.snapshots[&record.given.calibration].calibration();
            let decision = policy.plan(PlanInput {
                request: &record.request,
                parts: &record.parts,
                nodes: &record.nodes,
                params: &record.given.params,
                calibration,
            });
            let decision = decision.unwrap();
            let last = record.planned.as_ref().or(record.asked.as_ref());
            assert_eq!(last, Some(&Called::Answered(decision.clone())));
            let Decision::Run(plan) = decision else {
                panic!("no plan in {}", record.id);
            };
            for step in &record.steps {
                let action = policy.step(&step.input, &plan.memo).unwrap();
                assert_eq!(step.action, Called::Answered(action), "{}", record.id);
                // What was drafted under the plan that the peer refused is not in it.
                assert_ne!(step.input.kind, kind::REFUSED, "{}", record.id);
            }
            if record.replanned {
                replanned += 1;
                steps += record.steps.len();
                assert!(record.nodes.iter().skip(1).any(|node| !node.up));
            }
        }
        assert!(
            replanned > 20 && steps > 100,
            "{words}: {replanned}, {steps}"
        );
    }
}

#[test]
fn a_report_has_what_the_contract_asks_for() {
    let mut seen = 0;
    for scenario in Driver::new(5).take(100) {
        let Some(report) = scenario.report() else {
            continue;
        };
        seen += 1;
        let tokens: u32 = report.items.iter().map(|item| item.tokens).sum();
        let tokens = tokens as usize;
        for length in [
            report.saliency.len(),
            report.relevance.len(),
            report.baseline.len(),
            report.frame.len(),
            report.y.len(),
            report.x.len(),
            report.similarity.len(),
            report.features.len() / report.dim as usize,
        ] {
            assert_eq!(length, tokens);
        }
        assert_eq!(scenario.report(), Some(report), "the same each time");
    }
    assert!(seen > 50);
}
