//! The coupled sampler against the softmax that it must follow.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use msao_core::sampling::check::chi_square_rows;
use msao_core::sampling::{Noise, Sampler, SamplingParams, Scratch};

use crate::report::Row;

/// Draws a row.
const DRAWS: u64 = 1_000_000;
/// Chance that any one of the rows would be refused although all are right.
const FAMILY_ERROR: f64 = 1e-3;

/// Chi-square tests over 10^6 draws each, and the same tokens from two processes. `prover` is this program, which is
/// started again with [`TOKENS_COMMAND`].
pub fn rows(prover: &Path) -> Result<Vec<Row>> {
    let tests = chi_square_rows(DRAWS);
    // Bonferroni: with so many rows one p-value below 1/rows is to be expected.
    let least = FAMILY_ERROR / tests.len().max(1) as f64;
    let mut rows: Vec<Row> = tests
        .iter()
        .map(|test| {
            let name = format!("{} ({} draws): p", test.name, test.draws);
            Row::at_least(name, test.p_value, least, "")
        })
        .collect();
    let run = || -> Result<String> {
        let output = Command::new(prover)
            .arg(TOKENS_COMMAND)
            .output()
            .context("starting the prover again")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let (first, second, here) = (run()?, run()?, tokens()?);
    let mut different = Vec::new();
    for (name, other) in [("a second process", &second), ("this process", &here)] {
        if *other != first || first.is_empty() {
            different.push(format!(
                "{name} picked other tokens: {other} instead of {first}"
            ));
        }
    }
    rows.push(golden_noise()?);
    rows.push(Row::all(
        "same seed, same tokens across processes",
        2,
        different,
    ));
    Ok(rows)
}

/// The noise against values that an independent script computed (`host/core/tests/golden/make_noise.py`).
fn golden_noise() -> Result<Row> {
    #[derive(serde::Deserialize)]
    struct File {
        noise: Vec<Value>,
    }
    #[derive(serde::Deserialize)]
    struct Value {
        seed: String,
        choice: u32,
        output_index: u32,
        id: u32,
        bits: String,
        gumbel: f64,
    }
    let path = msao_golden::root().join("../../host/core/tests/golden/noise.json");
    let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let file: File = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    let mut different = Vec::new();
    for value in &file.noise {
        let noise = Noise::at(value.seed.parse()?, value.choice, value.output_index);
        // Python's logarithm and ours may differ in the last place.
        let near =
            (noise.gumbel(value.id) - value.gumbel).abs() <= 1e-14 * value.gumbel.abs().max(1.0);
        if noise.bits(value.id).to_string() != value.bits || !near {
            different.push(format!("seed {} id {}", value.seed, value.id));
        }
    }
    Ok(Row::all(
        "golden values of the noise",
        file.noise.len(),
        different,
    ))
}

/// The hidden command that prints [`tokens`].
pub const TOKENS_COMMAND: &str = "sampler-tokens";

/// A fixed run of 256 sampled tokens with all transforms on, as text.
pub fn tokens() -> Result<String> {
    let params = SamplingParams {
        temperature: 0.8,
        top_k: Some(40),
        top_p: 0.95,
        repetition_penalty: 1.1,
        presence_penalty: 0.2,
        frequency_penalty: 0.1,
        seed: 0x6d73_616f_2026,
        ..Default::default()
    };
    let mut sampler = Sampler::new(params, 1000, &[1, 2, 3])?;
    let mut scratch = Scratch::default();
    let mut picked = Vec::new();
    for index in 0..256u32 {
        // Any fixed logits will do; these vary with the place and the last token.
        let last = picked.last().copied().unwrap_or(0u32);
        let logits: Vec<f32> = (0..1024u32)
            .map(|id| ((id * 37 + index * 11 + last * 5) % 101) as f32 / 12.0)
            .collect();
        let pick = sampler.pick(&logits, index, None, &mut scratch)?;
        sampler.commit(pick.id);
        picked.push(pick.id);
    }
    Ok(picked
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" "))
}
