//! From chat and media to logits and greedy tokens, against Hugging Face, on every golden checkpoint and case.
//!
//! The expected values were made by `tests/golden/make_golden.py`; see `tests/golden/README.md` for the files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use std::ops::ControlFlow;

use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::{GenerateOptions, Kernels, LoadOptions, Model, Precision, Stop, generate};
use msao_golden::{Case, cases_of, models, root};

/// What the reference and we may differ by in f32.
const LOGIT_TOLERANCE: f32 = 2e-4;
/// What two ways of computing the same logits may differ by in f32.
const OWN_TOLERANCE: f32 = 1e-4;

/// Runs `check` on every case in f32, on our own kernels (where the processor can run them) and on libtorch's.
fn for_all_cases(check: impl Fn(&Model, &Case) -> Result<(), String>) {
    for kernels in [Kernels::Best, Kernels::Libtorch] {
        for_all_cases_in(Precision::F32, kernels, &check);
    }
}

/// Runs `check` on every case, each model loaded once, and reports all failures together.
fn for_all_cases_in(
    precision: Precision,
    kernels: Kernels,
    check: impl Fn(&Model, &Case) -> Result<(), String>,
) {
    // The matrices are tiny: more threads would only wait for each other.
    msao_engine::set_threads(1);
    let options = LoadOptions {
        precision,
        kernels,
        ..Default::default()
    };
    let mut failures = Vec::new();
    let mut checked = 0;
    for name in models() {
        let model = Model::load(&root().join("models").join(&name), &options).unwrap();
        for case in cases_of(&name) {
            checked += 1;
            if let Err(problem) = check(&model, &case) {
                failures.push(format!("{}: {problem}", case.name));
            }
        }
    }
    assert!(checked > 30, "only {checked} golden cases were found");
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// The larger of two differences, where NaN is the largest of all.
fn worse(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// The largest difference.
fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, difference| {
        if worst.is_nan() {
            worst
        } else {
            worse(worst, difference)
        }
    })
}

#[test]
fn positions_equal_the_reference() {
    for_all_cases(|model, case| {
        let positions = model
            .positions(&case.prepared.inputs)
            .map_err(|e| e.to_string())?;
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
        let logits = model
            .forward(&case.prepared.inputs)
            .map_err(|e| e.to_string())?;
        let vocabulary = model.config().text.vocab_size;
        let mut worst = 0f32;
        for (row, &position) in case.logits.chunks(vocabulary).zip(&case.logits_positions) {
            let ours = &logits.data[position * vocabulary..(position + 1) * vocabulary];
            worst = worse(worst, largest_difference(row, ours));
        }
        if worst > LOGIT_TOLERANCE || worst.is_nan() {
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
        let inputs = &case.prepared.inputs;
        let mut sampler =
            Sampler::new(params, vocabulary, &inputs.input_ids).map_err(|e| e.to_string())?;
        let options = GenerateOptions {
            max_new_tokens: case.greedy_tokens.len(),
            ..Default::default()
        };
        let answer = generate(model, inputs, &mut sampler, &options, &mut |_| {
            ControlFlow::Continue(())
        })
        .map_err(|e| e.to_string())?;
        if answer.tokens != case.greedy_tokens {
            return Err(format!(
                "tokens   {:?}\nexpected {:?}",
                answer.tokens, case.greedy_tokens
            ));
        }
        if answer.stop != Stop::Length {
            return Err(format!("stopped by {:?}", answer.stop));
        }
        Ok(())
    });
}

#[test]
fn tokens_read_at_once_equal_tokens_read_one_by_one() {
    for_all_cases(|model, case| {
        let vocabulary = model.config().text.vocab_size;
        let draft = &case.greedy_tokens[..8];
        let mut sequence = model.start().map_err(|e| e.to_string())?;
        model
            .prefill(&case.prepared.inputs, &mut sequence)
            .map_err(|e| e.to_string())?;
        let rows = model
            .extend(draft, &mut sequence)
            .map_err(|e| e.to_string())?;
        // Roll all of it back and read it again, one by one: the cache must have forgotten.
        model
            .roll_back(draft.len(), &mut sequence)
            .map_err(|e| e.to_string())?;
        for (token, row) in draft.iter().zip(rows.chunks(vocabulary)) {
            let alone = model
                .extend(&[*token], &mut sequence)
                .map_err(|e| e.to_string())?;
            let worst = largest_difference(&alone, row);
            if worst > OWN_TOLERANCE || worst.is_nan() {
                return Err(format!("a pass over eight tokens differs by {worst}"));
            }
        }
        Ok(())
    });
}

#[test]
fn sixteen_bits_stay_close_to_thirty_two() {
    // Random weights of large gain magnify rounding, so closeness is that of directions: bf16 keeps 8 bits of
    // mantissa, f16 11.
    for (precision, kernels, least) in [
        (Precision::Bf16, Kernels::Best, 0.98),
        (Precision::Bf16, Kernels::Libtorch, 0.98),
        (Precision::F16, Kernels::Libtorch, 0.999),
    ] {
        for_all_cases_in(precision, kernels, |model, case| {
            let logits = model
                .forward(&case.prepared.inputs)
                .map_err(|e| e.to_string())?;
            let vocabulary = model.config().text.vocab_size;
            let last = *case.logits_positions.last().unwrap();
            let row = case.logits.chunks(vocabulary).next_back().unwrap();
            let ours = &logits.data[last * vocabulary..(last + 1) * vocabulary];
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| f64::from(*a) * f64::from(*b))
                    .sum()
            };
            let cosine = dot(row, ours) / (dot(row, row) * dot(ours, ours)).sqrt();
            if cosine > least {
                Ok(())
            } else {
                Err(format!("{}: cosine {cosine}", model.precision()))
            }
        });
    }
}

#[test]
fn part_of_a_draft_is_forgotten_and_the_prompt_is_not() {
    for_all_cases(|model, case| {
        let vocabulary = model.config().text.vocab_size;
        let draft = &case.greedy_tokens[..6];
        let read = |sequence: &mut _| {
            model
                .prefill(&case.prepared.inputs, sequence)
                .map_err(|e| e.to_string())
        };
        let mut straight = model.start().map_err(|e| e.to_string())?;
        read(&mut straight)?;
        let expected = model
            .extend(draft, &mut straight)
            .map_err(|e| e.to_string())?;
        let mut sequence = model.start().map_err(|e| e.to_string())?;
        read(&mut sequence)?;
        // Two right tokens, four wrong ones, back, and the right ones in two passes.
        let wrong = [draft[0], draft[1], 0, 1, 2, 3];
        model
            .extend(&wrong, &mut sequence)
            .map_err(|e| e.to_string())?;
        model
            .roll_back(4, &mut sequence)
            .map_err(|e| e.to_string())?;
        let mut rows = model
            .extend(&draft[2..5], &mut sequence)
            .map_err(|e| e.to_string())?;
        rows.extend(
            model
                .extend(&draft[5..], &mut sequence)
                .map_err(|e| e.to_string())?,
        );
        let worst = largest_difference(&rows, &expected[2 * vocabulary..]);
        if worst > OWN_TOLERANCE || worst.is_nan() {
            return Err(format!("after a rollback logits differ by {worst}"));
        }
        match model.roll_back(draft.len() + 1, &mut sequence) {
            Ok(()) => Err("a token of the prompt was forgotten".to_owned()),
            Err(_) => Ok(()),
        }
    });
}

#[test]
fn the_meter_counts_what_ran() {
    for_all_cases(|model, case| {
        let mut sequence = model.start().map_err(|e| e.to_string())?;
        model
            .prefill(&case.prepared.inputs, &mut sequence)
            .map_err(|e| e.to_string())?;
        let text = &model.config().text;
        if text.windows.iter().any(Option::is_some) {
            return Ok(());
        }
        // By hand: each matrix costs 2 a weight and token, attention 4 a head's width for each visible pair, and the
        // output matrix runs once.
        let tokens = case.prepared.inputs.input_ids.len();
        let (heads, kv) = (text.heads * text.head_dim, text.kv_heads * text.head_dim);
        let layer = text.hidden_size * (2 * heads + 2 * kv + 3 * text.intermediate_size);
        let pairs = tokens * (tokens + 1) / 2;
        let by_hand = text.layers * (2 * layer * tokens + 4 * heads * pairs)
            + 2 * text.hidden_size * text.vocab_size;
        let counted = sequence
            .meter()
            .cost(msao_core::meter::Phase::Prefill)
            .flops;
        if counted != by_hand as u64 {
            return Err(format!("{counted} FLOPs counted, {by_hand} by hand"));
        }
        let cache = 2 * 4 * kv * text.layers * tokens;
        if sequence.meter().cache_bytes != cache as u64 {
            return Err(format!(
                "cache of {} bytes, {cache} by hand",
                sequence.meter().cache_bytes
            ));
        }
        Ok(())
    });
}
