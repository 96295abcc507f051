//! Media that say nothing: noise, silence, sounds of no sample or of one. With a probe and the post-processor that ships.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::path::Path;

use base64::Engine as _;
use msao_hostile::build::{Core, Decision, PartPlan, Treatment};
use msao_hostile::{MANIFEST, shipped};
use msao_media::{RgbImage, encode_png};
use msao_registry::{Bundle, Choice, Pick};
use serde_json::{Value, json};

use crate::common::{Bench, about_picture, about_picture_at, text};

const EDGE: u8 = 0;
const CLOUD: u8 = 1;
const SPECULATE: u8 = 3;
const DRAFT: u32 = 0;
const SEND: u32 = 1;

/// Pixels of the noise across and down.
const SIDE: u32 = 224;

fn in_base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A picture without anything in it: every byte by Knuth's MMIX generator.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let data = (0..3 * SIDE * SIDE).map(|_| next()).collect();
    encode_png(&RgbImage {
        width: SIDE,
        height: SIDE,
        data,
    })
    .unwrap()
}

/// A WAV of mono samples at 16 kHz. `kind`: 1 for whole numbers, 3 for floats, of `bits`.
fn wav(kind: u16, bits: u16, samples: &[u8]) -> Vec<u8> {
    let (rate, frame) = (16_000_u32, bits / 8);
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + samples.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    bytes.extend([kind, 1].map(u16::to_le_bytes).concat());
    bytes.extend(
        [rate, rate * u32::from(frame)]
            .map(u32::to_le_bytes)
            .concat(),
    );
    bytes.extend([frame, bits].map(u16::to_le_bytes).concat());
    bytes.extend(b"data");
    bytes.extend((samples.len() as u32).to_le_bytes());
    bytes.extend(samples);
    bytes
}

fn about_sound(bytes: &[u8]) -> Value {
    json!({
        "model": "msao", "temperature": 0, "max_tokens": 8,
        "messages": [{ "role": "user", "content": [
            { "type": "input_audio", "input_audio": { "data": in_base64(bytes), "format": "wav" } },
            { "type": "text", "text": "How many beeps are there?" },
        ]}],
    })
}

/// Has a policy that keeps half of a medium plan by this route, behind a probe that `mas-joint` scores.
fn plan(bench: &Bench, route: u8) {
    let half = PartPlan {
        draft: Treatment::keeping(0.5),
        target: Treatment::keeping(0.5),
    };
    let decision = Decision {
        route,
        in_flight_max: 8,
        parts: vec![half, PartPlan::default()],
        ..Decision::default()
    };
    let step = if route == SPECULATE { SEND } else { DRAFT };
    let policy = Core {
        step: format!("(i32.const {step})"),
        ..Core::deciding(&decision)
    };
    let manifest = format!("{MANIFEST}probe = \"full\"\n");
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (scorer, of_scorer) = shipped(temporary, "mas-joint").unwrap();
    let push = |wasm: Vec<u8>, manifest: String| {
        let bundle = Bundle::new(wasm, manifest, None).unwrap();
        Pick::Take(bench.node.plugins.push(&bundle).unwrap())
    };
    let choice = Choice {
        policy: push(policy.build().unwrap(), manifest),
        postprocessor: push(scorer, of_scorer),
    };
    bench.node.plugins.activate(choice).unwrap();
}

/// A refusal that says what of the request is wrong.
fn is_clear(status: u16, answer: &Value) -> bool {
    let error = &answer["error"];
    let says = |field: &str| error[field].as_str().unwrap_or_default();
    (400..500).contains(&status)
        && !says("code").is_empty()
        && !says("message").is_empty()
        && says("param").starts_with("messages[0].content[0]")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_silence_and_sounds_of_nothing_are_answered_or_refused_by_their_field() {
    // How fast this machine is today is no matter.
    let bench = Bench::start("[sandbox.limits]\nscore-ms = 20000\nplan-ms = 2000\n").await;
    let more = json!({ "temperature": 0, "max_tokens": 8 });
    let ordinary = about_picture("What digit is on the card?", more.clone());
    let url = format!("data:image/png;base64,{}", in_base64(&noise()));
    let noise = about_picture_at(&url, "How many circles are there?", more);
    let one = wav(1, 16, &1_i16.to_le_bytes());
    let silence = wav(1, 16, &[0; 32_000]);
    let no_numbers = wav(3, 32, &f32::NAN.to_le_bytes().repeat(16_000));
    for route in [EDGE, CLOUD, SPECULATE] {
        plan(&bench, route);
        let right = text(&bench.answer(&ordinary).await).to_owned();
        for (name, body, status) in [
            ("a noise", &noise, Some(200)),
            ("silence", &about_sound(&silence), Some(200)),
            (
                "samples that are no numbers",
                &about_sound(&no_numbers),
                Some(200),
            ),
            // Nobody promises that so little is a sound.
            ("one sample", &about_sound(&one), None),
            ("no sample", &about_sound(&wav(1, 16, &[])), Some(400)),
            ("an empty file", &about_sound(&[]), Some(400)),
        ] {
            let (got, _, answer) = bench.chat(body).await;
            assert!(
                status.is_none_or(|status| status == got),
                "{name} on route {route}: {got} {answer}"
            );
            if got == 200 {
                let item = &answer["msao"]["items"][0];
                let necessity = item["necessity"].as_f64();
                assert!(
                    necessity.is_some_and(|it| (0.0..=1.0).contains(&it)),
                    "{name} on route {route}: {answer}"
                );
            } else {
                assert!(is_clear(got, &answer), "{name}: {got} {answer}");
            }
            let after = bench.answer(&ordinary).await;
            assert_eq!(text(&after), right, "after {name} on route {route}");
        }
        bench.rest().await;
        // Nothing of that was a fallback's work.
        for (name, export) in bench.node.plugins.status().active.exports {
            assert_eq!(export.failures, 0, "{name} on route {route}: {export:?}");
        }
    }
}
