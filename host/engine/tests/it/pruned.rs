//! Prompts that lose media tokens, and what the probe reports, against Hugging Face transformers and plain PyTorch.
//!
//! The expected values were made by `tests/golden/oracle/pruned.py`; see `tests/golden/README.md` for the files.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;

use msao_core::probe::{FEATURE_WIDTH, ItemReport};
use msao_engine::{
    Keep, Kernels, LoadOptions, Model, Needs, OpenOptions, Precision, ProbeOptions, Runner,
    RunnerOptions, SequenceId, Work, items,
};
use msao_golden::{Case, Pruned, cases_of, pruned, root};

/// What the reference and we may differ by in f32, in logits and in values of features. Rounding alone moves the
/// reference by up to a fifth of it (`f64_difference` in the files); the least mistake that the files were drawn to show
/// moves logits by twenty times as much.
const TOLERANCE: f32 = 2e-4;
/// The same for shares of attention; of one row's, rounding alone moves up to two fifths of it.
const RELEVANCE_TOLERANCE: f32 = 1e-6;
/// Read in pieces that end in the middle of items.
const PIECE: usize = 13;

fn for_all(check: impl Fn(&mut Runner, &Case, &Pruned)) {
    // The matrices are tiny: more threads would only wait for each other.
    msao_engine::set_threads(1);
    let all = pruned();
    assert!(all.len() >= 10, "pruned cases are missing");
    for expected in &all {
        let case = cases_of(&expected.model)
            .into_iter()
            .find(|case| case.name == expected.name)
            .unwrap();
        for kernels in [Kernels::Best, Kernels::Libtorch] {
            let options = LoadOptions {
                precision: Precision::F32,
                kernels,
                ..Default::default()
            };
            let dir = root().join("models").join(&expected.model);
            let options_of_runner = RunnerOptions {
                cache_bytes: 64 << 20,
                media_cache_bytes: 0,
                prefixes: 0,
                ..Default::default()
            };
            let model = Model::load(&dir, &options).unwrap();
            let mut runner = Runner::new(model, &options_of_runner).unwrap();
            check(&mut runner, &case, expected);
            assert_eq!(runner.occupancy(), Default::default());
        }
    }
}

fn open(runner: &mut Runner, case: &Case, options: &OpenOptions) -> SequenceId {
    let inputs = Arc::new(case.prepared.inputs.clone());
    runner.open(inputs, 16, options).unwrap()
}

/// Encodes and reads until the prompt's logits are there, or the probe waits for a keep list.
fn read(runner: &mut Runner, id: SequenceId) -> Vec<f32> {
    loop {
        match runner.needs(id).unwrap() {
            Needs::Encoding => runner.encode(id).unwrap(),
            Needs::Reading(_) => {
                let rows = runner.run(&[(id, Work::Read(PIECE))]).unwrap();
                if !rows.of(0).is_empty() {
                    return rows.of(0).to_vec();
                }
            }
            Needs::Keeping => return Vec::new(),
            Needs::Nothing => panic!("the prompt has been read"),
        }
    }
}

fn extend(runner: &mut Runner, id: SequenceId, tokens: &[u32]) -> Vec<f32> {
    let rows = runner.run(&[(id, Work::Extend(tokens))]).unwrap();
    rows.of(0).to_vec()
}

fn assert_close(ours: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    for (number, (a, b)) in ours.iter().zip(expected).enumerate() {
        let off = (a - b).abs();
        assert!(
            off <= tolerance,
            "{what}, value {number}: {a} instead of {b}"
        );
    }
}

/// Goes on behind the prompt, all tokens at once and one by one, and holds every row of logits against the reference.
fn go_on(
    runner: &mut Runner,
    id: SequenceId,
    after_prompt: Vec<f32>,
    tokens: &[u32],
    (expected, step): (&[f32], usize),
    what: &str,
) {
    let vocabulary = runner.model().config().text.vocab_size;
    let columns = |rows: &[f32]| -> Vec<f32> {
        let rows = rows.chunks(vocabulary);
        rows.flat_map(|row| row.iter().step_by(step))
            .copied()
            .collect()
    };
    let mut at_once = after_prompt.clone();
    at_once.extend(extend(runner, id, tokens));
    assert_close(&columns(&at_once), expected, TOLERANCE, what);
    runner.roll_back(id, tokens.len()).unwrap();
    let mut one_by_one = after_prompt;
    for &token in tokens {
        one_by_one.extend(extend(runner, id, &[token]));
    }
    assert_close(&columns(&one_by_one), expected, TOLERANCE, what);
}

#[test]
fn tokens_dropped_before_the_first_layer_leave_the_references_logits() {
    for_all(|runner, case, expected| {
        for pattern in &expected.patterns {
            let options = OpenOptions {
                keep: Some(Keep {
                    items: pattern.keep.clone(),
                }),
                probe: None,
            };
            let id = open(runner, case, &options);
            let logits = read(runner, id);
            let what = format!("{}, {} before", case.name, pattern.name);
            let rows = (pattern.before.as_slice(), expected.column_step);
            go_on(runner, id, logits, &pattern.tokens, rows, &what);
            runner.close(id).unwrap();
        }
    });
}

#[test]
fn tokens_dropped_behind_the_probe_leave_the_references_logits() {
    for_all(|runner, case, expected| {
        for pattern in &expected.patterns {
            let options = OpenOptions {
                keep: None,
                probe: Some(ProbeOptions::default()),
            };
            let id = open(runner, case, &options);
            assert!(read(runner, id).is_empty());
            let keep = Keep {
                items: pattern.keep.clone(),
            };
            runner.keep(id, &keep).unwrap();
            let logits = read(runner, id);
            let what = format!("{}, {} behind", case.name, pattern.name);
            let rows = (pattern.behind.as_slice(), expected.column_step);
            go_on(runner, id, logits, &pattern.tokens, rows, &what);
            runner.close(id).unwrap();
        }
    });
}

#[test]
fn the_probe_reports_what_its_definition_gives() {
    for_all(|runner, case, expected| {
        let found = items(runner.model().config(), &case.prepared.inputs).unwrap();
        let places: Vec<_> = found.iter().map(|item| item.places.clone()).collect();
        assert_eq!(places, expected.items, "{}", case.name);
        let options = OpenOptions {
            keep: None,
            probe: Some(ProbeOptions {
                content_free: expected.content_free.clone(),
                seed: expected.seed,
            }),
        };
        let id = open(runner, case, &options);
        assert!(read(runner, id).is_empty());
        let report = runner.probed(id).unwrap();
        assert_eq!(report.layers, expected.probe_layers, "{}", case.name);
        assert_eq!(report.items.len(), expected.reports.len());
        for (number, (ours, theirs)) in report.items.iter().zip(&expected.reports).enumerate() {
            let what = |value: &str| format!("{}, item {number}, {value}", case.name);
            let ItemReport {
                modality,
                grid,
                saliency,
                features,
                relevance,
                relevance_of_nothing,
            } = ours;
            assert_eq!(*modality, found[number].modality);
            assert_eq!(grid.patches(), places[number].len());
            assert_eq!(features.len(), FEATURE_WIDTH * places[number].len());
            assert_close(saliency, &theirs.saliency, TOLERANCE, &what("saliency"));
            assert_close(features, &theirs.features, TOLERANCE, &what("features"));
            for (ours, theirs, value) in [
                (relevance, &theirs.relevance, "relevance"),
                (
                    relevance_of_nothing,
                    &theirs.nothing,
                    "relevance of nothing",
                ),
            ] {
                assert_close(ours, theirs, RELEVANCE_TOLERANCE, &what(value));
            }
        }
        runner.close(id).unwrap();
    });
}
