//! A post-processor that ships, as a component, given reports that no probe of a small picture makes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::path::Path;
use std::sync::Arc;

use msao_core::offload::manifest::Manifest;
use msao_core::offload::{Calibration, Item, Report, Scores, modality};
use msao_hostile::shipped;
use msao_sandbox::{
    Failure, FailureKind, LimitOverrides, Limits, Plugin, PostProcessor, Sandbox, SandboxConfig,
};

use crate::common::sandbox;

const NAME: &str = "mas-joint";
/// Values of a token's feature.
const DIM: usize = 4;
const MILLION: u32 = 1_000_000;
/// Room and time for a million tokens.
const ROOM: LimitOverrides = LimitOverrides {
    memory_mib: Some(512),
    table_elements: None,
    artifact_mib: None,
    score_ms: Some(60_000),
    plan_ms: None,
    step_ms: None,
    observe_ms: None,
    explain_ms: None,
};

/// It, with what the sandbox allows but for `own`. Deadlines are in instructions: how busy the machine is is no matter.
fn loaded(own: LimitOverrides) -> (Sandbox, Arc<PostProcessor>) {
    let sandbox = sandbox(SandboxConfig {
        plugins: [(NAME.to_owned(), own)].into(),
        deterministic: true,
        ..SandboxConfig::default()
    });
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (component, manifest) = shipped(temporary, NAME).unwrap();
    let manifest = Manifest::parse(&manifest).unwrap();
    match sandbox.load(&component, &manifest).unwrap() {
        Plugin::PostProcessor(post) => (sandbox, post),
        Plugin::Policy(_) => panic!("{NAME} is a policy"),
    }
}

/// A picture, a clip or a sound beside what is there, of frames of `height` rows of `width` tokens.
fn with(mut report: Report, modality: u8, frames: u32, height: u32, width: u32) -> Report {
    report.dim = DIM as u32;
    report.items.push(Item {
        modality,
        tokens: frames * height * width,
        frames,
        relevance: 1.0,
    });
    for frame in 0..frames {
        for place in 0..height * width {
            report.frame.push(frame);
            report.y.push(place / width);
            report.x.push(place % width);
            report.saliency.push(1.0 + 0.1 * (place % 7) as f32);
            report.relevance.push(0.01);
            report.baseline.push(0.01);
            report.similarity.push(if frame == 0 { 2.0 } else { 0.0 });
            report.features.extend([1.0, 0.0, 0.5, -0.5]);
        }
    }
    report
}

fn picture(height: u32, width: u32) -> Report {
    with(Report::default(), modality::IMAGE, 1, height, width)
}

/// The same with one number everywhere.
fn filled(mut report: Report, value: f32) -> Report {
    for list in [
        &mut report.saliency,
        &mut report.relevance,
        &mut report.baseline,
        &mut report.similarity,
        &mut report.features,
    ] {
        list.fill(value);
    }
    for item in &mut report.items {
        item.relevance = f64::from(value);
    }
    report
}

/// An answer has been held against every rule of the contract.
fn score(post: &PostProcessor, report: &Report) -> Result<Scores, Failure> {
    let params = post.manifest().defaults();
    post.score(report, 7, &params, &Calibration::default())
}

/// What it makes of an ordinary picture, all of whose tokens have a place.
fn ordinary(post: &PostProcessor) -> Scores {
    let scores = score(post, &picture(8, 8)).unwrap();
    assert_eq!(scores.items[0].keep_order.len(), 64);
    scores
}

#[test]
fn reports_of_nothing_of_one_token_and_of_no_numbers_are_answered_within_the_usual_limits() {
    let (_sandbox, post) = loaded(LimitOverrides::default());
    let before = ordinary(&post);
    let both = || with(picture(3, 5), modality::VIDEO, 3, 2, 2);
    for (name, report) in [
        ("nothing", Report::default()),
        ("an item of no token", picture(0, 0)),
        (
            "an empty sound before a picture",
            with(
                with(Report::default(), modality::AUDIO, 0, 0, 0),
                modality::IMAGE,
                1,
                2,
                2,
            ),
        ),
        ("one token", picture(1, 1)),
        ("no numbers", filled(both(), f32::NAN)),
        ("infinite numbers", filled(both(), f32::INFINITY)),
        (
            "numbers of minus infinity",
            filled(both(), f32::NEG_INFINITY),
        ),
        ("the largest numbers", filled(both(), f32::MAX)),
        ("nothing but zeros", filled(both(), 0.0)),
    ] {
        let scores = score(&post, &report).unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert_eq!(scores.items.len(), report.items.len(), "{name}");
        for (score, item) in scores.items.iter().zip(&report.items) {
            assert_eq!(score.keep_order.len(), item.tokens as usize, "{name}");
        }
        if name == "no numbers" {
            // What nothing is known of is needed, and nothing of it can go.
            let mut all = scores.items.iter();
            assert!(
                all.all(|it| (it.necessity, it.mas) == (1.0, 0.0)),
                "{scores:?}"
            );
        }
        assert_eq!(ordinary(&post), before, "after {name}");
    }
    assert_eq!(post.usage().instances, 1);
}

#[test]
fn a_million_tokens_end_in_an_answer_or_at_a_limit_and_the_next_report_is_answered() {
    let vast = picture(1000, 1000);
    let usual = Limits::default();
    // With what every plug-in may use there is no room for such a report.
    let (_sandbox, post) = loaded(LimitOverrides::default());
    let before = ordinary(&post);
    // Twice: a failure must leave nothing behind.
    for _ in 0..2 {
        let failure = score(&post, &vast).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Memory, "{failure}");
        let words = failure.to_string();
        assert!(
            words.contains(&format!("its {} MiB", usual.memory_mib)),
            "{words}"
        );
        assert!(failure.memory_peak <= u64::from(usual.memory_mib) << 20);
        assert_eq!(post.usage().instances, 0);
        assert_eq!(ordinary(&post), before);
    }
    // With room and a deadline that is too short for it, it ends there.
    let (_sandbox, post) = loaded(LimitOverrides {
        score_ms: Some(5),
        ..ROOM
    });
    for _ in 0..2 {
        let failure = score(&post, &vast).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Deadline, "{failure}");
        assert!(
            failure.to_string().contains("deadline of 5 ms"),
            "{failure}"
        );
        assert_eq!(ordinary(&post), before);
    }
    // With both it is answered, and the same instance goes on.
    let (_sandbox, post) = loaded(ROOM);
    let scores = score(&post, &vast).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(scores.items[0].keep_order.len(), MILLION as usize);
    assert_eq!(ordinary(&post), before);
    assert_eq!(post.usage().instances, 1);
}
