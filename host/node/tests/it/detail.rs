//! A picture in low detail: both models read it at 512 pixels, wherever they are and whatever is planned.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use base64::Engine as _;
use msao_hostile::build::{Decision, PartPlan, Scores, Treatment};
use msao_media::ship::resized;
use msao_media::{Limits, RgbImage, decode_image, encode_png};
use msao_node::request::low;
use msao_processor::Processor;
use serde_json::{Value, json};

use crate::common::{about_picture_at, models, picture, recorded, tokens, two};

const EDGE: u8 = 0;
const CLOUD: u8 = 1;
const CLOUD_DRAFT: u8 = 2;
const SPECULATE: u8 = 3;

/// Numbers of actions.
const DRAFT: u32 = 0;
const SEND: u32 = 1;

/// Tokens of 1,024 x 768 pixels, which the demo's processor makes smaller itself, and of 512 x 384: 18 x 14 of 28 pixels.
const LARGE: u32 = 494;
const LOW: u32 = 252;

fn image(width: u32, height: u32) -> RgbImage {
    let image = decode_image(&picture(), &Limits::default()).unwrap();
    resized(&image, (width, height)).unwrap()
}

/// The demo's picture in 1,024 x 768 pixels.
fn large() -> Vec<u8> {
    encode_png(&image(1024, 768)).unwrap()
}

/// A question about a picture that is to be looked at so closely.
fn asking(bytes: &[u8], detail: &str) -> Value {
    let data = base64::engine::general_purpose::STANDARD.encode(bytes);
    let more = json!({
        "temperature": 0.8, "seed": 11, "max_tokens": 12, "logprobs": true, "logit_bias": { "602": -100 },
    });
    let url = format!("data:image/png;base64,{data}");
    let mut body = about_picture_at(&url, "Describe the scene.", more);
    body["messages"][0]["content"][0]["image_url"]["detail"] = json!(detail);
    body
}

/// A plan of which both models get the picture so.
fn plan(route: u8, how: Treatment) -> Decision {
    let picture = PartPlan {
        draft: how,
        target: how,
    };
    Decision {
        route,
        peer: u32::from(route != EDGE),
        in_flight_max: 8,
        parts: vec![picture, PartPlan::default()],
        ..Decision::default()
    }
}

fn sent(answer: &Value) -> u64 {
    answer["msao"]["bytes_up"].as_u64().unwrap()
}

fn image_tokens(answer: &Value) -> Value {
    answer["usage"]["prompt_tokens_details"]["image_tokens"].clone()
}

fn overrides(record: &Value) -> u64 {
    record["outcome"]["overrides"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn low_is_read_at_512_pixels_by_whoever_answers() {
    let whole = Treatment::default();
    let original = large();
    let (cloud, edge) = two("").await;
    edge.plan(&plan(CLOUD, whole), DRAFT);
    let (auto, record) = recorded(&edge, &asking(&original, "auto")).await;
    assert_eq!(image_tokens(&auto), LARGE, "{auto}");
    assert_eq!(record["parts"][0]["width-px"], 1024, "{record}");
    assert!(sent(&auto) > original.len() as u64, "{auto}");
    for detail in ["high", "original"] {
        let (as_auto, _) = recorded(&edge, &asking(&original, detail)).await;
        assert_eq!(image_tokens(&as_auto), LARGE, "{as_auto}");
        assert_eq!(tokens(&as_auto), tokens(&auto), "{detail}");
    }
    let body = asking(&original, "low");
    let (answer, record) = recorded(&edge, &body).await;
    // What is billed, what policies see, and what goes over, are of the picture that is read.
    assert_eq!(image_tokens(&answer), LOW, "{answer}");
    assert_eq!(answer["msao"]["items"][0]["tokens"], LOW, "{answer}");
    assert_eq!(overrides(&record), 0, "{record}");
    let part = &record["parts"][0];
    assert_eq!(
        (&part["tokens"], &part["width-px"], &part["height-px"]),
        (&json!(LOW), &json!(512), &json!(384)),
        "{record}"
    );
    let bytes = part["bytes"].as_f64().unwrap();
    assert!(bytes < 0.5 * original.len() as f64, "{record}");
    assert!(sent(&answer) as f64 > bytes, "{answer}");
    assert!(2 * sent(&answer) < sent(&auto), "{answer}");
    let right = tokens(&answer);
    for (route, step) in [(CLOUD_DRAFT, DRAFT), (SPECULATE, DRAFT), (SPECULATE, SEND)] {
        edge.plan(&plan(route, whole), step);
        let (answer, record) = recorded(&edge, &body).await;
        assert_eq!(tokens(&answer), right, "{route}");
        assert_eq!(image_tokens(&answer), LOW, "{answer}");
        assert_eq!(overrides(&record), 0, "{record}");
        // The target has it.
        assert!((sent(&answer) as f64) < bytes, "{answer}");
    }
    // A target that need not be sent anything reads the same.
    let mut here = plan(CLOUD, whole);
    here.peer = 0;
    cloud.plan(&here, DRAFT);
    let (answer, _) = recorded(&cloud, &body).await;
    assert_eq!(tokens(&answer), right);
    assert_eq!(image_tokens(&answer), LOW, "{answer}");
    // The draft model alone, too.
    edge.plan(&plan(EDGE, whole), DRAFT);
    let (answer, _) = recorded(&edge, &body).await;
    assert_eq!(answer["msao"]["route"], "edge", "{answer}");
    assert_eq!(image_tokens(&answer), LOW, "{answer}");
    edge.rest().await;
    cloud.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_may_make_it_smaller_still_behind_a_probe_too() {
    let body = asking(&large(), "low");
    let (cloud, edge) = two("").await;
    let half = Treatment {
        scale: 0.5,
        quality: 80,
        ..Treatment::default()
    };
    let planned = |route| {
        let mut planned = plan(route, Treatment::default());
        planned.parts[0].target = half;
        planned
    };
    // The probe looks at what low detail has left.
    let scores = Scores {
        items: vec![(0.75, (0..LOW).rev().collect())],
        updates: Vec::new(),
    };
    let mut right = None;
    for (route, step) in [(CLOUD, DRAFT), (CLOUD_DRAFT, DRAFT), (SPECULATE, SEND)] {
        edge.plan_probed(&planned(route), step, &scores);
        let (answer, record) = recorded(&edge, &body).await;
        assert_eq!(overrides(&record), 0, "{record}");
        // Scores of more tokens than the probe saw would have been refused.
        assert_eq!(record["parts"][0]["tokens"], LOW, "{record}");
        // 256 x 192 pixels are 9 x 7 tokens; the policy does not change the bill.
        let kept = &answer["msao"]["items"][0]["retention"]["target"];
        assert_eq!(*kept, json!(63.0 / f64::from(LOW)), "{answer}");
        assert_eq!(image_tokens(&answer), LOW, "{answer}");
        let right = right.get_or_insert_with(|| tokens(&answer));
        assert_eq!(tokens(&answer), *right, "{route}");
    }
    edge.rest().await;
    cloud.rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_picture_is_read_as_it_came() {
    let original = picture();
    let (cloud, edge) = two("").await;
    edge.plan(&plan(CLOUD, Treatment::default()), DRAFT);
    let (auto, _) = recorded(&edge, &asking(&original, "auto")).await;
    let (low, _) = recorded(&edge, &asking(&original, "low")).await;
    assert_eq!(image_tokens(&low), 256, "{low}");
    assert_eq!(tokens(&low), tokens(&auto));
    // It is the very same medium: the target has it.
    assert!(sent(&auto) > original.len() as u64, "{auto}");
    assert!(sent(&low) < original.len() as u64 / 2, "{low}");
    edge.rest().await;
    cloud.rest().await;
}

/// Where the model resizes nothing, no size but its own multiples can be read.
#[test]
fn a_model_that_resizes_nothing_refuses_low_detail_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(models().join("demo-draft")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.extension().is_none_or(|it| it != "safetensors") {
            std::fs::copy(&path, folder.path().join(name)).unwrap();
        }
    }
    let file = folder.path().join("preprocessor_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["do_resize"] = json!(false);
    std::fs::write(&file, config.to_string()).unwrap();
    let rigid = Processor::load(folder.path()).unwrap();
    let why = low(&image(1120, 560), &rigid).unwrap_err();
    for words in ["detail 'low'", "512 x 256", "do_resize", "detail 'auto'"] {
        assert!(why.contains(words), "{why}");
    }
    // What is small enough is left to it.
    assert_eq!(low(&image(448, 448), &rigid), Ok(None));
    let demo = Processor::load(&models().join("demo-draft")).unwrap();
    let file = low(&image(1120, 560), &demo).unwrap().unwrap();
    let read = decode_image(&file, &Limits::default()).unwrap();
    assert_eq!((read.width, read.height), (512, 256));
}
