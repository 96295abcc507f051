//! How long one pick takes with the vocabulary of a real model. Not a pass or fail of every run: machines differ.
//!
//! `cargo test --release -p msao-core --test it sampling_speed -- --ignored --nocapture`
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::time::Instant;

use msao_core::sampling::{Noise, Sampler, SamplingParams, Scratch, TokenMask};

const VOCABULARY: u32 = 152_064;

/// Shaped like a language model's: a wide normal body and a few dozen ids far above it.
fn logits() -> Vec<f32> {
    let noise = Noise::at(3, 0, 0);
    (0..VOCABULARY)
        .map(|id| {
            let body: f64 = (0..6)
                .map(|part| Noise::at(part, 1, 1).bits(id) as f64 / (1_u64 << 53) as f64)
                .sum();
            let peak = if id % 3001 == 17 {
                12.0 + noise.gumbel(id)
            } else {
                0.0
            };
            ((body - 3.0) * 3.5 + peak) as f32
        })
        .collect()
}

#[test]
#[ignore = "a measurement: run it in a release build"]
fn time_of_a_pick() {
    let logits = logits();
    let flat: Vec<f32> = logits.iter().map(|logit| logit * 0.1).collect();
    let default = SamplingParams::default;
    let cases = [
        (
            "T 0",
            SamplingParams {
                temperature: 0.0,
                ..default()
            },
        ),
        (
            "T 0, all penalties, 4000 tokens seen",
            SamplingParams {
                temperature: 0.0,
                repetition_penalty: 1.1,
                presence_penalty: 0.1,
                frequency_penalty: 0.1,
                ..default()
            },
        ),
        ("T 1", default()),
        (
            "T 1, top-p 0.9",
            SamplingParams {
                top_p: 0.9,
                ..default()
            },
        ),
        (
            "T 1, top-k 50",
            SamplingParams {
                top_k: Some(50),
                ..default()
            },
        ),
        (
            "T 0.7, top-k 20, top-p 0.8",
            SamplingParams {
                temperature: 0.7,
                top_k: Some(20),
                top_p: 0.8,
                ..default()
            },
        ),
        (
            "T 2, top-p 0.95",
            SamplingParams {
                temperature: 2.0,
                top_p: 0.95,
                ..default()
            },
        ),
    ];
    let prompt: Vec<u32> = (0..4000).map(|i| i * 31).collect();
    let mask = vec![0xFFFF_7FFF; VOCABULARY as usize / 32];
    let mut scratch = Scratch::default();
    println!(
        "{:<40} {:>10} {:>10}   (best, median ms)",
        "", "peaked", "flat"
    );
    for (name, params) in cases {
        let sampler = Sampler::new(params, VOCABULARY, &prompt).unwrap();
        let mut line = format!("{name:<40}");
        for logits in [&logits, &flat] {
            line += &measure(|index| sampler.pick(logits, index, None, &mut scratch).unwrap().id);
        }
        println!("{line}");
    }
    let sampler = Sampler::new(
        SamplingParams {
            temperature: 0.0,
            ..default()
        },
        VOCABULARY,
        &[],
    )
    .unwrap();
    let masked = measure(|index| {
        sampler
            .pick(&logits, index, Some(TokenMask::new(&mask)), &mut scratch)
            .unwrap()
            .id
    });
    println!("{:<40}{masked}", "T 0, mask");
    println!(
        "{:<40}{}",
        "confidence",
        measure(|_| sampler.confidence(&logits).unwrap().top1.to_bits() as u32)
    );
    println!(
        "{:<40}{}",
        "top 5 logprobs",
        measure(|_| sampler.top_logprobs(&logits, 7, 5).unwrap().top[0].id)
    );
}

fn measure(mut run: impl FnMut(u32) -> u32) -> String {
    let mut times: Vec<f64> = (0..101)
        .map(|index| {
            let start = Instant::now();
            std::hint::black_box(run(index));
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    format!(" {:>6.3} {:>6.3}", times[0], times[50])
}
