//! Noise and picks against golden values of an independent implementation (`golden/make_noise.py`), in this process
//! and in a fresh one.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::process::Command;

use msao_core::sampling::{Noise, Sampler, SamplingParams, Scratch};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/noise.json")).unwrap()
}

fn u32_of(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

fn u64_in_words(value: &Value) -> u64 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn noise_is_golden() {
    let golden = golden();
    let cases = golden["noise"].as_array().unwrap();
    assert!(cases.len() >= 49);
    for case in cases {
        let noise = Noise::at(
            u64_in_words(&case["seed"]),
            u32_of(&case["choice"]),
            u32_of(&case["output_index"]),
        );
        let id = u32_of(&case["id"]);
        let words: Vec<u32> = case["words"]
            .as_array()
            .unwrap()
            .iter()
            .map(u32_of)
            .collect();
        assert_eq!(noise.words(id).as_slice(), words, "{case}");
        assert_eq!(noise.bits(id), u64_in_words(&case["bits"]), "{case}");
        // The logarithm is the C library's: equal to a few units in the last place.
        let (got, wanted) = (noise.gumbel(id), case["gumbel"].as_f64().unwrap());
        assert!(
            (got - wanted).abs() <= 1e-14 * wanted.abs().max(1.0),
            "{case}: {got}"
        );
    }
}

/// The ids of every golden case, one line a case.
fn picks() -> Vec<String> {
    let golden = golden();
    let logits: Vec<f32> = golden["logits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|logit| logit.as_f64().unwrap() as f32)
        .collect();
    let mut scratch = Scratch::default();
    let mut lines = Vec::new();
    for case in golden["picks"].as_array().unwrap() {
        let params = SamplingParams {
            seed: u64_in_words(&case["seed"]),
            choice: u32_of(&case["choice"]),
            temperature: case["temperature"].as_f64().unwrap(),
            ..SamplingParams::default()
        };
        let sampler = Sampler::new(params, logits.len() as u32, &[]).unwrap();
        let count = case["ids"].as_array().unwrap().len() as u32;
        let ids: Vec<u32> = (0..count)
            .map(|index| sampler.pick(&logits, index, None, &mut scratch).unwrap().id)
            .collect();
        lines.push(format!("picked {ids:?}"));
    }
    lines
}

#[test]
fn picks_are_golden() {
    let golden = golden();
    let wanted: Vec<String> = golden["picks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| {
            format!(
                "picked {:?}",
                case["ids"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(u32_of)
                    .collect::<Vec<_>>()
            )
        })
        .collect();
    let got = picks();
    got.iter().for_each(|line| println!("{line}"));
    assert_eq!(got, wanted);
}

#[test]
fn a_fresh_process_picks_the_same() {
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "sampling_golden::picks_are_golden",
            "--nocapture",
            "--test-threads=1",
        ])
        .output()
        .unwrap();
    assert!(child.status.success());
    let printed = String::from_utf8(child.stdout).unwrap();
    let there: Vec<&str> = printed
        .lines()
        .filter_map(|line| line.find("picked").map(|at| &line[at..]))
        .collect();
    assert_eq!(there, picks());
}
