//! Our forward pass and greedy decoding against Hugging Face's, on every golden checkpoint and case.
//!
//! The expected values were made by `tests/golden/make_golden.py`; see `tests/golden/README.md` for the files.

mod golden;

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use golden::{Case, cases, checkpoint};
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::{GenerateOptions, LoadOptions, Model, Precision, Stop, generate};

/// What the reference and we may differ by in f32.
const LOGIT_TOLERANCE: f32 = 2e-4;

fn load(name: &str) -> Model {
    Model::load(
        &checkpoint(name),
        &LoadOptions {
            precision: Precision::F32,
            ..Default::default()
        },
    )
    .unwrap()
}

/// Runs `check` on every case, each model loaded once, and reports all failures together.
fn for_all_cases(check: impl Fn(&Model, &Case) -> Result<(), String>) {
    let mut by_model: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in cases() {
        by_model.entry(case.model.clone()).or_default().push(case);
    }
    assert!(
        by_model.len() >= 10,
        "only {} golden models were found",
        by_model.len()
    );
    let mut failures = Vec::new();
    for (name, cases) in &by_model {
        let model = load(name);
        for case in cases {
            if let Err(problem) = check(&model, case) {
                failures.push(format!("{}/{}: {problem}", case.model, case.name));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn positions_equal_the_reference() {
    for_all_cases(|model, case| {
        let positions = model.positions(&case.inputs).map_err(|e| e.to_string())?;
        if positions.axes != case.position_ids {
            return Err(format!(
                "positions {:?}\nexpected  {:?}",
                positions.axes, case.position_ids
            ));
        }
        if positions.delta() != case.rope_delta {
            return Err(format!(
                "rope delta {} instead of {}",
                positions.delta(),
                case.rope_delta
            ));
        }
        Ok(())
    });
}

#[test]
fn logits_equal_the_reference() {
    for_all_cases(|model, case| {
        let logits = model.forward(&case.inputs).map_err(|e| e.to_string())?;
        let vocabulary = model.config().text.vocab_size;
        let mut worst = 0f32;
        for (row, &position) in case.logits.chunks(vocabulary).zip(&case.logits_positions) {
            let ours = &logits.data[position * vocabulary..(position + 1) * vocabulary];
            worst = row
                .iter()
                .zip(ours)
                .map(|(a, b)| (a - b).abs())
                .fold(worst, f32::max);
        }
        if worst.is_nan() || worst > LOGIT_TOLERANCE {
            return Err(format!("logits differ by {worst}"));
        }
        Ok(())
    });
}

#[test]
fn greedy_tokens_equal_the_reference() {
    for_all_cases(|model, case| {
        let params = SamplingParams {
            temperature: 0.0,
            ..Default::default()
        };
        let vocabulary = model.config().text.vocab_size as u32;
        let mut sampler =
            Sampler::new(params, vocabulary, &case.inputs.input_ids).map_err(|e| e.to_string())?;
        let options = GenerateOptions {
            max_new_tokens: case.greedy_tokens.len(),
            ..Default::default()
        };
        let answer = generate(model, &case.inputs, &mut sampler, &options, &mut |_| {
            ControlFlow::Continue(())
        })
        .map_err(|e| e.to_string())?;
        if answer.tokens != case.greedy_tokens {
            return Err(format!(
                "tokens {:?}\nexpected {:?}",
                answer.tokens, case.greedy_tokens
            ));
        }
        if answer.stop != Stop::Length || answer.meter.flops() == 0 {
            return Err(format!(
                "stopped by {:?} after {} flops",
                answer.stop,
                answer.meter.flops()
            ));
        }
        Ok(())
    });
}

#[test]
fn tokens_read_at_once_equal_tokens_read_one_by_one() {
    for_all_cases(|model, case| {
        let vocabulary = model.config().text.vocab_size;
        let draft = &case.greedy_tokens[..8];
        let mut at_once = model.start().map_err(|e| e.to_string())?;
        model
            .prefill(&case.inputs, &mut at_once)
            .map_err(|e| e.to_string())?;
        let rows = model
            .extend(draft, &mut at_once)
            .map_err(|e| e.to_string())?;
        // Roll all of it back and read it again, one by one: the cache must have forgotten.
        model.roll_back(draft.len(), &mut at_once);
        for (token, row) in draft.iter().zip(rows.chunks(vocabulary)) {
            let alone = model
                .extend(&[*token], &mut at_once)
                .map_err(|e| e.to_string())?;
            let worst = alone
                .iter()
                .zip(row)
                .map(|(a, b)| (a - b).abs())
                .fold(0f32, f32::max);
            if worst.is_nan() || worst > 1e-4 {
                return Err(format!("a pass over eight tokens differs by {worst}"));
            }
        }
        Ok(())
    });
}
