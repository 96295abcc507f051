//! int8 matrices: whatever computes with them, the model is the one whose weights were rounded by the same rule.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use msao_core::inputs::ModelInputs;
use msao_engine::{
    Kernels, LoadOptions, Model, Needs, OpenOptions, Place, Precision, Quantize, Runner,
    RunnerOptions, SequenceId, Work,
};
use msao_golden::{cases_of, models, root};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// What two ways of computing the same logits may differ by in f32.
const TOLERANCE: f32 = 1e-4;

fn dir(name: &str) -> PathBuf {
    root().join("models").join(name)
}

fn load(dir: &Path, kernels: Kernels, quantize: Option<Quantize>, precision: Precision) -> Model {
    msao_engine::set_threads(1);
    let options = LoadOptions {
        place: Place::Cpu,
        precision,
        quantize,
        kernels,
    };
    Model::load(dir, &options).unwrap()
}

fn one_case(name: &str) -> ModelInputs {
    let case = cases_of(name).into_iter().next().unwrap();
    case.prepared.inputs
}

/// Logits after a prompt and after each of some tokens behind it.
fn logits(model: &Model, inputs: &ModelInputs) -> Vec<f32> {
    let mut sequence = model.start().unwrap();
    let mut all = model.prefill(inputs, &mut sequence).unwrap();
    let vocabulary = model.config().text.vocab_size as u32;
    all.extend(model.extend(&[5 % vocabulary], &mut sequence).unwrap());
    let many: Vec<u32> = (0..12).map(|n| (7 * n + 3) % vocabulary).collect();
    all.extend(model.extend(&many, &mut sequence).unwrap());
    all
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Whether a tensor is a matrix of the language model.
fn is_language_matrix(name: &str, shape: &[usize]) -> bool {
    let outside = ["visual", "audio_tower", "talker", "token2wav"];
    shape.len() == 2 && outside.iter().all(|part| !name.contains(part))
}

/// The value of an IEEE half.
fn widened(half: u16) -> f32 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f32::from(half & 1023));
    let size = match exponent {
        0 => fraction * 2f32.powi(-24),
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    };
    if half >> 15 == 0 { size } else { -size }
}

/// A copy of a checkpoint in f32 in which every matrix of the language model has been quantised and widened again, by a
/// rule written down here a second time.
fn dequantised(from: &Path, to: &Path) -> usize {
    let mut tensors: HashMap<String, (Dtype, Vec<usize>, Vec<u8>)> = HashMap::new();
    let mut changed = 0;
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.contains("safetensors") {
            std::fs::copy(&path, to.join(&name)).unwrap();
        }
        if !name.ends_with(".safetensors") {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let mut data = view.data().to_vec();
            let mut dtype = view.dtype();
            if is_language_matrix(&name, view.shape()) {
                changed += 1;
                if dtype == Dtype::BF16 {
                    // The upper half of an f32.
                    data = data.chunks(2).flat_map(|b| [0, 0, b[0], b[1]]).collect();
                    dtype = Dtype::F32;
                }
                if dtype == Dtype::F16 {
                    let wide = data
                        .chunks(2)
                        .flat_map(|b| widened(u16::from_le_bytes([b[0], b[1]])).to_le_bytes());
                    data = wide.collect();
                    dtype = Dtype::F32;
                }
                assert_eq!(dtype, Dtype::F32, "{name}");
                for row in data.chunks_mut(4 * view.shape()[1]) {
                    let values: Vec<f32> = row
                        .chunks(4)
                        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
                        .collect();
                    let most = values.iter().fold(0f32, |most, x| most.max(x.abs()));
                    let scale = most / 127.0;
                    for (to, x) in row.chunks_mut(4).zip(values) {
                        let q = if scale > 0.0 {
                            (x / scale).round_ties_even().clamp(-127.0, 127.0)
                        } else {
                            0.0
                        };
                        to.copy_from_slice(&(q * scale).to_le_bytes());
                    }
                }
            }
            tensors.insert(name, (dtype, view.shape().to_vec(), data));
        }
    }
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
    changed
}

#[test]
fn logits_are_those_of_the_dequantised_model() {
    let mut compared = 0;
    for name in models() {
        let copy = tempfile::tempdir().unwrap();
        if dequantised(&dir(&name), copy.path()) == 0 {
            continue;
        }
        let inputs = one_case(&name);
        let plain = load(copy.path(), Kernels::Libtorch, None, Precision::F32);
        let expected = logits(&plain, &inputs);
        // On libtorch alone, and on our own kernels where the processor has the instructions.
        for kernels in [Kernels::Libtorch, Kernels::Best] {
            let model = load(&dir(&name), kernels, Some(Quantize::Int8), Precision::F32);
            let off = largest_difference(&logits(&model, &inputs), &expected);
            assert!(off <= TOLERANCE, "{name}, {kernels:?}: {off}");
        }
        let exact = load(&dir(&name), Kernels::Libtorch, None, Precision::F32);
        let off = largest_difference(&logits(&exact, &inputs), &expected);
        assert!(off > TOLERANCE, "{name}: quantising changes nothing: {off}");
        compared += 1;
    }
    assert!(compared > 8, "{compared}");
}

#[test]
fn coarser_activations_stay_near() {
    for name in models() {
        let inputs = one_case(&name);
        let exact = load(
            &dir(&name),
            Kernels::Libtorch,
            Some(Quantize::Int8),
            Precision::F32,
        );
        let expected = logits(&exact, &inputs);
        let size = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        for precision in [Precision::Bf16, Precision::F16] {
            let model = load(
                &dir(&name),
                Kernels::Libtorch,
                Some(Quantize::Int8),
                precision,
            );
            let plain = load(&dir(&name), Kernels::Libtorch, None, precision);
            let unquantised = load(&dir(&name), Kernels::Libtorch, None, Precision::F32);
            let off = largest_difference(&logits(&model, &inputs), &expected) / size;
            // The rounding of activations is the precision's own, and no more.
            let own = largest_difference(&logits(&plain, &inputs), &logits(&unquantised, &inputs));
            assert!(
                off <= 3.0 * own / size + 1e-3,
                "{name}, {precision:?}: {off} against {}",
                own / size
            );
        }
    }
}

/// The demo target is large enough that norms and encoders do not hide what a weight takes.
#[test]
fn a_weight_takes_a_byte() {
    let dir = root().join("../../models/demo-target");
    let held = |kernels, quantize| {
        let model = load(&dir, kernels, quantize, Precision::F32);
        model.language_bytes()
    };
    let plain = held(Kernels::Libtorch, None);
    for kernels in [Kernels::Libtorch, Kernels::Best] {
        let share = held(kernels, Some(Quantize::Int8)) as f64 / plain as f64;
        assert!((0.25..0.28).contains(&share), "{kernels:?}: {share}");
    }
}

/// Reads a prompt to its end.
fn read(runner: &mut Runner, id: SequenceId, piece: usize) -> Vec<f32> {
    loop {
        match runner.needs(id).unwrap() {
            Needs::Encoding => runner.encode(id).unwrap(),
            _ => {
                let logits = runner.run(&[(id, Work::Read(piece))]).unwrap();
                if !logits.of(0).is_empty() {
                    return logits.of(0).to_vec();
                }
            }
        }
    }
}

#[test]
fn batches_forks_and_kept_prefixes_change_nothing() {
    for name in models() {
        let model = load(
            &dir(&name),
            Kernels::Libtorch,
            Some(Quantize::Int8),
            Precision::F32,
        );
        let inputs = one_case(&name);
        let mut sequence = model.start().unwrap();
        let after_prompt = model.prefill(&inputs, &mut sequence).unwrap();
        let tokens = [3u32, 1, 4, 1, 5];
        let expected = model.extend(&tokens, &mut sequence).unwrap();
        let mut runner = Runner::new(
            model,
            &RunnerOptions {
                cache_bytes: 16 << 20,
                ..Default::default()
            },
        )
        .unwrap();
        let inputs = Arc::new(inputs);
        let open = |runner: &mut Runner, piece| {
            let id = runner.open(Arc::clone(&inputs), 16, &OpenOptions::default());
            let id = id.unwrap();
            let logits = read(runner, id, piece);
            assert!(largest_difference(&logits, &after_prompt) <= TOLERANCE);
            id
        };
        let first = open(&mut runner, 7);
        // Begins with the prefix that the first left behind.
        let second = open(&mut runner, 1000);
        let fork = runner.fork(first).unwrap();
        let batch: Vec<(SequenceId, Work)> = [first, second, fork]
            .map(|id| (id, Work::Extend(&tokens)))
            .to_vec();
        let logits = runner.run(&batch).unwrap();
        for rows in logits.iter() {
            assert!(largest_difference(rows, &expected) <= TOLERANCE, "{name}");
        }
    }
}
