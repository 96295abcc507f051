//! What repeats itself in clips and sounds is encoded once, and changes no answer; near duplicates are passed over where
//! that is allowed, and nowhere else.
//!
//! What it is held against is the same medium with every segment a millionth away from the others, so that each is encoded.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use msao_core::chat::Modality;
use msao_core::inputs::{Array, Mels, ModelInputs};
use msao_core::meter::{Meter, Phase};
use msao_core::probe::FEATURE_WIDTH;
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::service::{Event, Open, Service, ServiceOptions, Tell};
use msao_engine::{
    GenerateOptions, Keep, Kernels, LoadOptions, Model, NearDuplicates, Needs, OpenOptions,
    Precision, ProbeOptions, Runner, RunnerOptions, SequenceId, Work, generate, items,
};
use msao_golden::{cases_of, models, root};

/// What two ways of computing the same logits may differ by in f32, and what a millionth in the values adds.
const TOLERANCE: f32 = 1e-4;
/// A grey level of 255 in preprocessed values.
const LEVEL: f32 = 1.0 / (255.0 * 0.27);

fn dir(name: &str) -> PathBuf {
    root().join("models").join(name)
}

fn options(kernels: Kernels) -> LoadOptions {
    msao_engine::set_threads(1);
    LoadOptions {
        precision: Precision::F32,
        kernels,
        ..Default::default()
    }
}

fn load(name: &str, kernels: Kernels) -> Model {
    Model::load(&dir(name), &options(kernels)).unwrap()
}

/// A runner that keeps no prompts.
fn runner(name: &str, near: Option<NearDuplicates>, media_cache_bytes: u64) -> Runner {
    let options = RunnerOptions {
        cache_bytes: 64 << 20,
        media_cache_bytes,
        prefixes: 0,
        near_duplicates: near,
        ..Default::default()
    };
    Runner::new(load(name, Kernels::Best), &options).unwrap()
}

/// Each golden prompt with a clip of several temporal patches: the checkpoint's name and the inputs.
fn clips() -> Vec<(String, ModelInputs)> {
    let mut found = Vec::new();
    for name in models() {
        for case in cases_of(&name) {
            let inputs = case.prepared.inputs;
            let videos = inputs.videos.as_ref();
            if videos.is_some_and(|videos| videos.grids.iter().all(|grid| grid.t > 1)) {
                found.push((name.clone(), inputs));
            }
        }
    }
    assert!(found.len() >= 8);
    found
}

/// Changes each temporal patch of each clip, given the clip's number, the temporal patch's and its values.
fn changed(inputs: &ModelInputs, mut change: impl FnMut(usize, usize, &mut [f32])) -> ModelInputs {
    let mut inputs = inputs.clone();
    let videos = inputs.videos.as_mut().unwrap();
    let width = videos.values.shape[1];
    let mut start = 0;
    for (clip, grid) in videos.grids.iter().enumerate() {
        let size = grid.h * grid.w * width;
        for t in 0..grid.t {
            change(clip, t, &mut videos.values.data[start..start + size]);
            start += size;
        }
    }
    inputs
}

/// Clips whose temporal patches are all their first.
fn repeated(inputs: &ModelInputs) -> ModelInputs {
    let mut first = Vec::new();
    changed(inputs, |_, t, values| match t {
        0 => first = values.to_vec(),
        _ => values.copy_from_slice(&first),
    })
}

/// The same, but for a millionth.
fn apart(inputs: &ModelInputs) -> ModelInputs {
    changed(inputs, |_, t, values| values[0] += 1e-6 * t as f32)
}

/// The same, but for noise below a grey level.
fn noisy(inputs: &ModelInputs) -> ModelInputs {
    let mut state = 1u32;
    changed(inputs, |_, t, values| {
        for value in values {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5;
            *value += if t > 0 { noise * LEVEL } else { 0.0 };
        }
    })
}

/// Logits and account of a prompt on a sequence of its own.
fn prefill(model: &Model, inputs: &ModelInputs) -> (Vec<f32>, Meter) {
    let mut sequence = model.start().unwrap();
    let logits = model.prefill(inputs, &mut sequence).unwrap();
    (logits, sequence.meter().clone())
}

fn vision(meter: &Meter) -> u64 {
    meter.cost(Phase::Vision).flops
}

fn assert_close(ours: &[f32], expected: &[f32], what: &str) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    for (a, b) in ours.iter().zip(expected) {
        assert!((a - b).abs() <= TOLERANCE, "{what}: {a} instead of {b}");
    }
}

#[test]
fn of_the_alike_frames_of_a_picture_one_is_multiplied() {
    let mut seen = 0;
    for name in models() {
        let model = load(&name, Kernels::Best);
        let vision_of = |inputs: &ModelInputs| {
            let (logits, meter) = prefill(&model, inputs);
            (logits, vision(&meter))
        };
        for case in cases_of(&name) {
            let inputs = case.prepared.inputs;
            let Some(images) = inputs.images.clone() else {
                continue;
            };
            let mut apart = inputs.clone();
            let [rows, width] = images.values.shape[..] else {
                panic!("{:?}", images.values.shape)
            };
            // Each patch's last value, which is of its last frame.
            let values = &mut apart.images.as_mut().unwrap().values.data;
            for patch in values.chunks_exact_mut(width) {
                *patch.last_mut().unwrap() += 1e-6;
            }
            let ((expected, all), (logits, spent)) = (vision_of(&apart), vision_of(&inputs));
            assert_close(&logits, &expected, &name);
            let tower = &model.config().vision;
            let frames = tower.temporal_patch_size;
            let spared = 2 * rows * tower.hidden_size * (width - width / frames);
            assert_eq!(all - spent, spared as u64, "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen} prompts with pictures");
}

/// Reads a prompt until its logits are there or the probe waits for a keep list.
fn read(runner: &mut Runner, id: SequenceId) -> Vec<f32> {
    loop {
        match runner.needs(id).unwrap() {
            Needs::Encoding => runner.encode(id).unwrap(),
            Needs::Reading(_) => {
                let rows = runner.run(&[(id, Work::Read(29))]).unwrap();
                if !rows.of(0).is_empty() {
                    return rows.of(0).to_vec();
                }
            }
            Needs::Keeping | Needs::Nothing => return Vec::new(),
        }
    }
}

fn probing() -> OpenOptions {
    OpenOptions {
        probe: Some(ProbeOptions::default()),
        ..Default::default()
    }
}

/// Features of each temporal patch of the first clip, and its account, as a probe sees them.
fn looked(runner: &mut Runner, inputs: &ModelInputs) -> (Vec<Vec<f32>>, Meter) {
    let inputs = Arc::new(inputs.clone());
    let id = runner.open(inputs, 8, &probing()).unwrap();
    read(runner, id);
    let report = runner.probed(id).unwrap();
    let mut found = report.items.iter();
    let clip = found.find(|item| item.modality == Modality::Video);
    let clip = clip.unwrap();
    let size = clip.grid.h * clip.grid.w * FEATURE_WIDTH;
    let features = clip.features.chunks(size).map(<[f32]>::to_vec).collect();
    (features, runner.close(id).unwrap())
}

#[test]
fn equal_temporal_patches_are_encoded_once_and_change_no_logit() {
    for kernels in [Kernels::Best, Kernels::Libtorch] {
        for (name, inputs) in clips() {
            let model = load(&name, kernels);
            let once = repeated(&inputs);
            let (expected, all) = prefill(&model, &apart(&once));
            let (logits, meter) = prefill(&model, &once);
            assert_close(&logits, &expected, &name);
            assert!(vision(&meter) < vision(&all), "{name}");
            let grids = &inputs.videos.as_ref().unwrap().grids;
            if let ([grid], None) = (grids.as_slice(), &inputs.images) {
                assert_eq!(vision(&meter) * grid.t as u64, vision(&all), "{name}");
            }
            let bytes = |meter: &Meter| meter.cost(Phase::Vision).activation_bytes;
            assert!(bytes(&meter) <= bytes(&all), "{name}");
        }
    }
}

#[test]
fn a_repeat_has_the_features_of_its_original_to_the_bit() {
    for (name, inputs) in clips() {
        let mut runner = runner(&name, None, 0);
        let (features, _) = looked(&mut runner, &repeated(&inputs));
        assert!(features.len() > 1);
        assert!(features.iter().all(|patch| *patch == features[0]), "{name}");
        let (features, _) = looked(&mut runner, &inputs);
        assert!(features[1] != features[0], "{name}");
    }
}

#[test]
fn near_duplicates_are_passed_over_where_that_is_allowed_alone() {
    for (name, inputs) in clips() {
        let mut strict = runner(&name, None, 0);
        let mut lenient = runner(&name, Some(NearDuplicates::default()), 0);
        let once = repeated(&inputs);
        let noisy = noisy(&once);
        let (apart, all) = looked(&mut strict, &noisy);
        assert!(apart[1] != apart[0], "{name}");
        let (equal, few) = looked(&mut lenient, &noisy);
        assert!(equal.iter().all(|patch| *patch == equal[0]), "{name}");
        let (_, least) = looked(&mut strict, &once);
        assert!(vision(&few) < vision(&all), "{name}");
        assert_eq!(vision(&few), vision(&least), "{name}");
        // The clip as it is moves: nothing of it is passed over.
        let (moving, all) = looked(&mut lenient, &inputs);
        let (expected, exact) = looked(&mut strict, &inputs);
        assert_eq!((moving, vision(&all)), (expected, vision(&exact)), "{name}");
        // A single patch of the picture that changes is seen.
        let spot = changed(&once, |_, t, values| {
            let width = inputs.videos.as_ref().unwrap().values.shape[1];
            let patch = values.chunks_mut(width).last().unwrap();
            for value in patch {
                *value += 6.0 * LEVEL * t as f32;
            }
        });
        let (features, _) = looked(&mut lenient, &spot);
        assert!(features[1] != features[0], "{name}");
    }
}

#[test]
fn tokens_and_places_are_the_same_whatever_is_passed_over() {
    for (name, inputs) in clips() {
        let noisy = noisy(&repeated(&inputs));
        let mut strict = runner(&name, None, 0);
        let mut lenient = runner(&name, Some(NearDuplicates::default()), 0);
        let mut shapes = Vec::new();
        for runner in [&mut strict, &mut lenient] {
            let id = (runner.open(Arc::new(noisy.clone()), 8, &probing())).unwrap();
            let found = runner.items(id).unwrap().to_vec();
            read(runner, id);
            let report = runner.probed(id).unwrap();
            let sizes: Vec<_> = (report.items.iter())
                .map(|item| (item.grid, item.saliency.len(), item.relevance.len()))
                .collect();
            let keep = Keep {
                items: vec![None; found.len()],
            };
            runner.keep(id, &keep).unwrap();
            let logits = read(runner, id);
            assert!(logits.iter().all(|logit| logit.is_finite()), "{name}");
            let tokens = runner.tokens(id).unwrap();
            runner.close(id).unwrap();
            shapes.push((found, sizes, tokens, logits.len()));
        }
        assert_eq!(shapes[0], shapes[1], "{name}");
        assert_eq!(shapes[0].0, items(strict.model().config(), &noisy).unwrap());
    }
}

#[test]
fn what_was_kept_of_a_clip_with_near_duplicates_serves_that_clip_alone() {
    let (name, inputs) = clips().swap_remove(0);
    let near = Some(NearDuplicates::default());
    let mut runner = runner(&name, near, 1 << 20);
    let once = repeated(&inputs);
    let noisy = noisy(&once);
    let (first, meter) = looked(&mut runner, &noisy);
    assert!(vision(&meter) > 0);
    let (again, meter) = looked(&mut runner, &noisy);
    assert_eq!(again, first);
    assert_eq!(vision(&meter), 0);
    let (other, meter) = looked(&mut runner, &once);
    assert!(vision(&meter) > 0);
    assert!(other[0] == other[1]);
}

/// A prompt of a checkpoint that hears, with one sound of these chunks and a rest; `nudge` sets chunks apart.
fn sound(model: &Model, prompt: &ModelInputs, labels: &[usize], nudge: f32) -> ModelInputs {
    let config = model.config();
    let audio = config.audio.as_ref().unwrap();
    let chunk = 2 * audio.half_chunk;
    let frames = labels.len() * chunk + chunk / 2 + 1;
    let value = |bin: usize, frame: usize| {
        let (number, place) = (frame / chunk, frame % chunk);
        let label = labels.get(number).copied().unwrap_or(9);
        let wave = ((bin * 7 + place * (3 + label)) as f32 / 5.0).sin();
        let first = place == 0 && bin == 0;
        wave + if first { nudge * number as f32 } else { 0.0 }
    };
    let bins = 0..audio.mel_bins;
    let data = bins.flat_map(|bin| (0..frames).map(move |frame| value(bin, frame)));
    let mels = Mels {
        features: Array {
            shape: vec![1, audio.mel_bins, frames],
            data: data.collect(),
        },
        valid_frames: vec![frames],
    };
    let tokens = frames.div_ceil(2) / 2;
    let run = placeholders(&prompt.input_ids, config.audio_token.unwrap());
    let ids = &prompt.input_ids;
    let input_ids = [
        &ids[..run.start],
        &vec![config.audio_token.unwrap(); tokens],
        &ids[run.end..],
    ];
    ModelInputs {
        input_ids: input_ids.concat(),
        audio: Some(mels),
        ..Default::default()
    }
}

/// Where the placeholders of the only sound are.
fn placeholders(ids: &[u32], id: u32) -> Range<usize> {
    let first = ids.iter().position(|other| *other == id).unwrap();
    let last = ids.iter().rposition(|other| *other == id).unwrap();
    assert!(ids[first..=last].iter().all(|other| *other == id));
    first..last + 1
}

#[test]
fn equal_chunks_of_a_sound_are_encoded_once_and_change_no_logit() {
    let mut odd = 0;
    for name in models() {
        let mut model = load(&name, Kernels::Best);
        let alone = cases_of(&name).into_iter().find(|case| {
            let inputs = &case.prepared.inputs;
            let one = (inputs.audio.as_ref()).is_some_and(|mels| mels.valid_frames.len() == 1);
            one && inputs.images.is_none() && inputs.videos.is_none()
        });
        let Some(case) = alone else { continue };
        odd += model.config().audio.as_ref().unwrap().half_chunk % 2;
        for kernels in [Kernels::Best, Kernels::Libtorch] {
            model = load(&name, kernels);
            for labels in [&[0, 0][..], &[0, 1, 0, 0], &[2, 2, 2, 1, 1, 2]] {
                let of =
                    |nudge| prefill(&model, &sound(&model, &case.prepared.inputs, labels, nudge));
                let (expected, all) = of(1e-6);
                let (logits, meter) = of(0.0);
                assert_close(&logits, &expected, &format!("{name} {labels:?}"));
                let flops = |meter: &Meter| meter.cost(Phase::Audio).flops;
                assert!(flops(&meter) < flops(&all), "{name} {labels:?}");
            }
            // No two alike: nothing is left out.
            let of = |nudge| {
                prefill(
                    &model,
                    &sound(&model, &case.prepared.inputs, &[0, 1, 2], nudge),
                )
            };
            let (expected, all) = of(1e-6);
            let (logits, meter) = of(0.0);
            assert_close(&logits, &expected, &name);
            assert_eq!(meter.cost(Phase::Audio).flops, all.cost(Phase::Audio).flops);
        }
    }
    // Where a chunk makes an odd number of rows a token's two rows lie in two chunks.
    assert!(odd > 0);
}

#[test]
fn a_service_encodes_repeats_once_between_the_passes_of_others() {
    const LENGTH: usize = 12;
    let (name, moving) = clips().swap_remove(0);
    let inputs = repeated(&moving);
    let model = load(&name, Kernels::Best);
    let vocabulary = model.config().text.vocab_size as u32;
    let sampler = |seed| {
        let params = SamplingParams {
            temperature: 0.8,
            seed,
            ..Default::default()
        };
        Sampler::new(params, vocabulary, &inputs.input_ids).unwrap()
    };
    let most = GenerateOptions {
        max_new_tokens: LENGTH,
        ..Default::default()
    };
    let mut alone = sampler(5);
    let expected = generate(&model, &inputs, &mut alone, &most, &mut |_| {
        ControlFlow::Continue(())
    });
    let expected = expected.unwrap().tokens;
    let open = |inputs: &ModelInputs, seed| Open {
        inputs: Arc::new(inputs.clone()),
        sampler: sampler(seed),
        reserve: 3 * LENGTH,
        options: OpenOptions::default(),
        end_of_sequence: Vec::new(),
        tell: Tell::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        let options_of_service = ServiceOptions {
            // One block of the encoder between two passes.
            encode_slice: Duration::ZERO,
            runner: RunnerOptions {
                near_duplicates: Some(NearDuplicates::default()),
                ..Default::default()
            },
            ..Default::default()
        };
        let service = Service::start(dir(&name), options(Kernels::Best), options_of_service);
        let service = service.await.unwrap();
        let busy = service.open(open(&moving, 1)).await.unwrap();
        let mut others = busy.generate(3 * LENGTH).unwrap();
        others.recv().await.unwrap();
        let asked = service.open(open(&inputs, 5)).await.unwrap();
        let mut events = asked.generate(LENGTH).unwrap();
        let mut tokens = Vec::new();
        while let Some(Event::Token(step)) = events.recv().await {
            tokens.push(step.pick.id);
        }
        assert_eq!(tokens, expected);
        let fresh = noisy(&inputs);
        let asked = service.open(open(&fresh, 5)).await.unwrap();
        asked.read().await.unwrap();
        let few = asked.meter().await.unwrap();
        let all = prefill(&model, &fresh).1;
        assert!(vision(&few) > 0 && vision(&few) < vision(&all));
    });
}
