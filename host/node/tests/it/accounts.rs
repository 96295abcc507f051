//! What a node tells of a decision: scores, what was kept of which medium, and why. Over sockets, on the demo's models.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use msao_core::digest::Digest;
use msao_core::offload::kept::TokenSet;
use msao_hostile::build::{Decision, PartPlan, Scores, Treatment};
use serde_json::{Value, json};

use crate::common::{Bench, about_picture, asking, picture, recorded};

const EDGE: u8 = 0;
const SPECULATE: u8 = 3;
/// The number of an action.
const SEND: u32 = 1;
/// Tokens of the demo's picture.
const TOKENS: u32 = 256;

fn keeping(draft: f64, target: f64) -> Vec<PartPlan> {
    let medium = PartPlan {
        draft: Treatment::keeping(draft),
        target: Treatment::keeping(target),
    };
    vec![medium, PartPlan::default()]
}

async fn account(bench: &Bench, record: &Value) -> Value {
    let id = record["id"].as_str().unwrap();
    let path = format!("/v1/decisions/{id}/account");
    let (status, account) = bench.operate(&path, None).await;
    assert_eq!(status, 200, "{account}");
    account
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_names_the_medium_and_the_tokens_that_each_model_read() {
    let bench = Bench::start("").await;
    let decision = Decision {
        route: SPECULATE,
        in_flight_max: 8,
        parts: keeping(0.25, 0.5),
        ..Decision::default()
    };
    // It wants the last tokens of the picture most.
    let scores = Scores {
        items: vec![(0.75, (0..TOKENS).rev().collect())],
        updates: Vec::new(),
    };
    bench.plan_probed(&decision, SEND, &scores);
    let body = about_picture("Describe the scene.", json!({ "max_tokens": 4 }));
    let (answer, record) = recorded(&bench, &body).await;
    assert_eq!(record["version"], 2);
    let [medium] = record["media"].as_array().unwrap().as_slice() else {
        panic!("{record}");
    };
    assert_eq!(medium["digest"], json!(Digest::of(&picture())));
    let extent = &medium["extent"];
    let lengths = ["frames", "rows", "columns"].map(|it| extent[it].as_u64().unwrap());
    assert_eq!(lengths.iter().product::<u64>(), u64::from(TOKENS));
    assert_eq!(lengths[0], 1);
    let last = |count: u32| {
        let kept: Vec<u32> = (TOKENS - count..TOKENS).collect();
        json!({ "kept": TokenSet::new(&kept, TOKENS) })
    };
    assert_eq!(medium["draft"], last(64), "{medium}");
    assert_eq!(medium["target"], last(128), "{medium}");

    let told = account(&bench, &record).await;
    let medium = &told["media"][0];
    assert_eq!(medium["modality"], "image");
    assert_eq!(medium["scores"]["necessity"], 0.75);
    assert_eq!(medium["scores"]["ranked"], TOKENS);
    assert_eq!(medium["scores"]["fallback"], Value::Null);
    for (side, tokens) in [("draft", 64), ("target", 128)] {
        for when in ["planned", "ran"] {
            let portion = &medium[side][when];
            assert_eq!(portion["tokens"], tokens, "{side} {when}: {told}");
            assert_eq!(portion["of"], TOKENS);
        }
        // The client was told the same.
        let retention = &answer["msao"]["items"][0]["retention"][side];
        assert_eq!(*retention, medium[side]["ran"]["share"]);
    }
    assert_eq!(told["decided"]["reason"]["number"], 0);
    // Words of the policy's own, or why there are none.
    let said = ["own-words", "no-own-words"].map(|it| told[it].is_string());
    assert_ne!(said[0], said[1], "{told}");

    let path = format!("/v1/decisions/{}/words", record["id"].as_str().unwrap());
    let (_, words) = bench.operate(&path, None).await;
    let words = words.as_str().unwrap();
    for line in [
        "necessity 0.750",
        "draft   planned 64 of 256 tokens (25.0%); read 64 of 256 tokens (25.0%)",
        "target  planned 128 of 256 tokens (50.0%); read 128 of 256 tokens (50.0%)",
    ] {
        assert!(words.contains(line), "no {line} in\n{words}");
    }
    bench.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_media_or_probe_has_an_account_too() {
    let bench = Bench::start("").await;
    let decision = Decision {
        route: EDGE,
        ..Decision::default()
    };
    bench.plan(&decision, 0);
    let hello = asking("Hello", json!({ "max_tokens": 2 }));
    let (_, record) = recorded(&bench, &hello).await;
    assert_eq!((&record["version"], record.get("media")), (&json!(1), None));
    assert_eq!(account(&bench, &record).await["media"], json!([]));

    let body = about_picture("Describe the scene.", json!({ "max_tokens": 2 }));
    let (_, record) = recorded(&bench, &body).await;
    // All of it, by the draft model alone.
    assert_eq!(record["media"][0]["draft"], json!({}));
    assert_eq!(record["media"][0].get("target"), None);
    let told = account(&bench, &record).await;
    assert_eq!(told["media"][0]["scores"], Value::Null);
    assert_eq!(told["media"][0]["draft"]["ran"]["tokens"], TOKENS);
    assert_eq!(told["media"][0]["target"]["ran"], Value::Null);
    bench.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_nothing_of_media_recorded_has_nothing_recorded() {
    let bench = Bench::start("[records]\nredact = [\"media\"]\n").await;
    let decision = Decision {
        route: EDGE,
        ..Decision::default()
    };
    bench.plan(&decision, 0);
    let body = about_picture("Describe the scene.", json!({ "max_tokens": 2 }));
    let (_, record) = recorded(&bench, &body).await;
    assert_eq!((&record["version"], record.get("media")), (&json!(1), None));
    let told = account(&bench, &record).await;
    let medium = &told["media"][0];
    assert_eq!(medium["digest"], Value::Null);
    assert_eq!(medium["draft"]["ran"], Value::Null);
}
