//! Prompts of whose media not everything is laid out, from the processor to the engine, on golden checkpoints: what is left
//! stands where it stood, and is read as if the rest had been dropped by a list.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use msao_core::chat::{Content, Message, Modality, Part};
use msao_core::inputs::{Grid, ModelInputs};
use msao_core::meter::Phase;
use msao_engine::{
    Keep, LoadOptions, Model, ModelConfig, Needs, OpenOptions, Precision, Runner, RunnerOptions,
    Work, positions,
};
use msao_media::{AudioClip, RgbImage, VideoClip, VideoInfo};
use msao_processor::{
    Extent, Media, Options, PixelBounds, Prepared, Processor, Shown, Window, centre,
};
use proptest::prelude::*;
use proptest::sample::Index;

/// What two ways of computing the same logits may differ by in f32.
const TOLERANCE: f32 = 2e-4;

fn folder(model: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    tests.join("golden/models").join(model)
}

/// A family's processor, and what of the model positions depend on.
struct Family {
    processor: Processor,
    config: ModelConfig,
    hears: bool,
}

fn family(model: &str) -> Family {
    let processor = Processor::load(&folder(model)).unwrap();
    // Omni's own would enlarge clips far beyond what these models are for.
    let options = Options {
        frame_bounds: Some(PixelBounds {
            min: 800,
            max: 3200,
        }),
        ..processor.options().clone()
    };
    Family {
        processor: processor.with_options(options),
        config: ModelConfig::load(&folder(model)).unwrap(),
        hears: model.starts_with("omni"),
    }
}

fn families() -> &'static [Family] {
    static ALL: OnceLock<Vec<Family>> = OnceLock::new();
    ALL.get_or_init(|| {
        ["qwen2-vl-flat", "qwen25-vl-windows", "omni-thinker"]
            .map(family)
            .into()
    })
}

fn picture(width: u32, height: u32, salt: u32) -> RgbImage {
    let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let colour = |(x, y): (u32, u32)| [x * 7 + salt * 31, y * 5 + salt, x * y + salt * 17];
    RgbImage {
        width,
        height,
        data: places.flat_map(colour).map(|value| value as u8).collect(),
    }
}

fn image(width: u32, height: u32) -> Media {
    Media::Image(picture(width, height, 3))
}

fn clip(width: u32, height: u32, frames: usize) -> Media {
    let stored = 2 * frames + 1;
    Media::Video(VideoClip {
        info: VideoInfo {
            width,
            height,
            frames: stored,
            fps: 5.0,
        },
        frames: (0..frames as u32)
            .map(|it| picture(width, height, it))
            .collect(),
        indices: (0..frames).map(|it| 2 * it).collect(),
    })
}

fn sound(samples: usize) -> Media {
    let wave = |place: usize| (place as f32 * 0.05).sin() * (place as f32 * 0.0007).cos();
    Media::Audio(AudioClip {
        samples: (0..samples).map(wave).collect(),
    })
}

/// A chat with so many media, each behind some words.
fn chat(media: &[Media]) -> Vec<Message> {
    let text = |text: &str| Part::Text { text: text.into() };
    let mut parts = Vec::new();
    for medium in media {
        parts.push(text("look: "));
        parts.push(match medium {
            Media::Image(_) => Part::Image { image: "".into() },
            Media::Video(_) => Part::Video { video: "".into() },
            Media::Audio(_) => Part::Audio { audio: "".into() },
        });
    }
    parts.push(text("What is it?"));
    vec![Message {
        role: "user".into(),
        content: Content::Parts(parts),
    }]
}

/// What is drawn of one medium: whether it is there, and where its window begins and ends.
type Drawn = (bool, Vec<bool>, [Index; 4]);

fn drawn() -> impl Strategy<Value = Drawn> {
    let steps = prop::collection::vec(any::<bool>(), 8);
    (prop::bool::weighted(0.8), steps, any::<[Index; 4]>())
}

fn range(all: usize, from: Index, count: Index) -> std::ops::Range<usize> {
    let start = from.index(all);
    start..start + 1 + count.index(all - start)
}

/// A part of a medium of so many tokens.
fn window(processor: &Processor, modality: Modality, tokens: Grid, drawn: &Drawn) -> Window {
    let whole = processor.whole_window(modality, tokens);
    let (_, picks, [top, rows, left, columns]) = drawn;
    let picked = whole.steps.iter().filter(|step| picks[*step % picks.len()]);
    let picked: Vec<usize> = picked.copied().collect();
    Window {
        steps: if picked.is_empty() {
            whole.steps.clone()
        } else {
            picked
        },
        rows: range(whole.rows.end, *top, *rows),
        columns: range(whole.columns.end, *left, *columns),
    }
}

/// The places of a prompt's tokens that lie in no medium.
fn text(prepared: &Prepared) -> Vec<usize> {
    let in_media = |place: &usize| prepared.spans.iter().any(|it| it.tokens.contains(place));
    let all = 0..prepared.inputs.input_ids.len();
    all.filter(|place| !in_media(place)).collect()
}

/// Media of a family, of drawn sizes.
fn media(family: &Family, size: (u32, u32), frames: usize, samples: usize) -> Vec<Media> {
    let mut media = vec![image(size.0, size.1), clip(size.1, size.0, frames)];
    if family.hears {
        media.push(sound(samples));
    }
    media
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_laid_out_of_media_stands_where_it_stood_and_is_what_it_was(
        which in 0_usize..3,
        size in (40_u32..170, 40_u32..170),
        frames in 1_usize..9,
        samples in 9_000_usize..90_000,
        picks in prop::array::uniform3(drawn()),
    ) {
        let family = &families()[which];
        let processor = &family.processor;
        let media = media(family, size, frames, samples);
        let messages = chat(&media);
        let whole = processor.prepare(&messages, &media).unwrap();
        let windows: Vec<Option<Window>> = (media.iter().zip(&picks).enumerate())
            .map(|(number, (medium, drawn))| {
                let extent = Extent::of(medium);
                let tokens = processor.tokens_of(number, extent).unwrap();
                let window = window(processor, extent.modality(), tokens, drawn);
                drawn.0.then_some(window)
            })
            .collect();
        let shown: Vec<Shown> = (media.iter().zip(&windows))
            .map(|(medium, window)| Shown {
                whole: Extent::of(medium),
                there: window.as_ref().map(|window| (medium, window)),
            })
            .collect();
        let part = processor.prepare_shown(&messages, &shown).unwrap();

        // Where each token of the part is in the whole.
        let mut there = text(&whole);
        for (number, (medium, window)) in media.iter().zip(&windows).enumerate() {
            let extent = Extent::of(medium);
            let tokens = processor.tokens_of(number, extent).unwrap();
            let span = &whole.spans[number].tokens;
            prop_assert_eq!(tokens.patches(), span.len());
            let numbers = window.iter().flat_map(|window| {
                processor.numbers(extent.modality(), tokens, window)
            });
            there.extend(numbers.map(|number| span.start + number as usize));
        }
        there.sort_unstable();
        let ids = &whole.inputs.input_ids;
        let expected: Vec<u32> = there.iter().map(|&place| ids[place]).collect();
        prop_assert_eq!(&part.inputs.input_ids, &expected);
        let all = positions(&family.config, &whole.inputs).unwrap();
        let ours = positions(&family.config, &part.inputs).unwrap();
        for (ours, all) in ours.axes.iter().zip(&all.axes) {
            let expected: Vec<i64> = there.iter().map(|&place| all[place]).collect();
            prop_assert_eq!(ours, &expected);
        }
        prop_assert_eq!(ours.next, all.next);

        // What the encoders get are the same values.
        let rows = |inputs: &ModelInputs, video: bool| {
            let patches = if video { &inputs.videos } else { &inputs.images };
            patches.as_ref().map(|patches| {
                let merged = 4 * patches.values.shape[1];
                let tokens = patches.values.data.chunks(merged);
                tokens.map(<[f32]>::to_vec).collect::<Vec<_>>()
            })
        };
        for (number, video) in [(0, false), (1, true)] {
            let Some(window) = &windows[number] else {
                prop_assert!(rows(&part.inputs, video).is_none());
                continue;
            };
            let extent = Extent::of(&media[number]);
            let tokens = processor.tokens_of(number, extent).unwrap();
            let numbers = processor.numbers(extent.modality(), tokens, window);
            let all = rows(&whole.inputs, video).unwrap();
            let expected = numbers.iter().map(|&number| all[number as usize].clone());
            prop_assert_eq!(rows(&part.inputs, video).unwrap(), expected.collect::<Vec<_>>());
        }
        if let Some(Some(window)) = windows.get(2) {
            let (all, ours) = (whole.inputs.audio.unwrap(), part.inputs.audio.unwrap());
            let chunk = processor.sound_chunk().unwrap();
            let frames = |step: usize| step * chunk..((step + 1) * chunk).min(all.valid_frames[0]);
            let frames: Vec<usize> = window.steps.iter().flat_map(|&step| frames(step)).collect();
            prop_assert_eq!(&ours.valid_frames, &[frames.len()]);
            let width = all.features.shape[2];
            let rows = all.features.data.chunks(width).zip(ours.features.data.chunks(width));
            for (all, ours) in rows {
                let expected: Vec<f32> = frames.iter().map(|&frame| all[frame]).collect();
                prop_assert_eq!(&ours[..frames.len()], &expected[..]);
            }
        }
    }

    #[test]
    fn a_smaller_medium_stands_in_the_grid_of_the_whole_and_moves_nothing(
        which in 0_usize..3,
        size in (60_u32..170, 60_u32..170),
        scale in 0.2_f64..1.0,
        frames in 1_usize..7,
        picks in prop::array::uniform2(drawn()),
    ) {
        let family = &families()[which];
        let processor = &family.processor;
        let (width, height) = size;
        let small = msao_media::ship::scaled_size(size, scale);
        let whole = [image(width, height), clip(width, height, frames)];
        let there = [image(small.0, small.1), clip(small.0, small.1, frames)];
        let messages = chat(&whole);
        let windows: Vec<Window> = (there.iter().zip(&picks).enumerate())
            .map(|(number, (medium, drawn))| {
                let extent = Extent::of(medium);
                let tokens = processor.tokens_of(number, extent).unwrap();
                window(processor, extent.modality(), tokens, drawn)
            })
            .collect();
        let shown: Vec<Shown> = (whole.iter().zip(&there).zip(&windows))
            .map(|((whole, there), window)| Shown {
                whole: Extent::of(whole),
                there: Some((there, window)),
            })
            .collect();
        let part = processor.prepare_shown(&messages, &shown).unwrap();
        let all = processor.prepare(&messages, &whole).unwrap();
        let ours = positions(&family.config, &part.inputs).unwrap();
        let known = positions(&family.config, &all.inputs).unwrap();
        prop_assert_eq!(ours.next, known.next);
        for (own, place) in text(&part).into_iter().zip(text(&all)) {
            for (ours, known) in ours.axes.iter().zip(&known.axes) {
                prop_assert_eq!(ours[own], known[place]);
            }
        }
        for (number, window) in windows.iter().enumerate() {
            let of = |media: &Media| processor.tokens_of(number, Extent::of(media)).unwrap();
            let (grid, scaled) = (of(&whole[number]), of(&there[number]));
            let span = &all.spans[number].tokens;
            let mut own = part.spans[number].tokens.clone();
            for &step in &window.steps {
                for row in window.rows.clone() {
                    for column in window.columns.clone() {
                        let (y, x) = (centre(row, scaled.h, grid.h), centre(column, scaled.w, grid.w));
                        let place = span.start + (step * grid.h + y) * grid.w + x;
                        let own = own.next().unwrap();
                        for (ours, known) in ours.axes.iter().zip(&known.axes) {
                            prop_assert_eq!(ours[own], known[place]);
                        }
                    }
                }
            }
            prop_assert!(own.next().is_none());
        }
    }
}

#[test]
fn what_is_no_part_of_a_medium_is_refused() {
    let processor = &families()[1].processor;
    let media = [image(96, 96)];
    let messages = chat(&media);
    let refused = |whole: Extent, window: Window| {
        let shown = Shown {
            whole,
            there: Some((&media[0], &window)),
        };
        let refused = processor.prepare_shown(&messages, &[shown]);
        refused.unwrap_err().to_string()
    };
    let extent = Extent::of(&media[0]);
    let all = processor.whole_window(Modality::Image, processor.tokens_of(0, extent).unwrap());
    let end = all.rows.end;
    for window in [
        Window {
            steps: Vec::new(),
            ..all.clone()
        },
        Window {
            steps: vec![0, 0],
            ..all.clone()
        },
        Window {
            steps: vec![1],
            ..all.clone()
        },
        Window {
            rows: 1..1,
            ..all.clone()
        },
        Window {
            columns: 0..end + 1,
            ..all.clone()
        },
    ] {
        let message = refused(extent, window);
        assert!(message.contains("is no part of 1 steps"), "{message}");
    }
    let clip = Extent::Video {
        width: 96,
        height: 96,
        sampled: 2,
        frames: 2,
        fps: 1.0,
    };
    let message = refused(clip, all);
    assert!(
        message.contains("the messages have Image there"),
        "{message}"
    );
    // A medium of which nothing is there may claim what it likes, as far as the context goes.
    let vast = Extent::Video {
        width: 1 << 20,
        height: 1 << 20,
        sampled: usize::MAX,
        frames: usize::MAX,
        fps: f64::NAN,
    };
    let shown = Shown {
        whole: vast,
        there: None,
    };
    let message = processor.prepare_shown(&chat(&[clip_of_one()]), &[shown]);
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("the model's context holds 4096"),
        "{message}"
    );
}

fn clip_of_one() -> Media {
    clip(64, 64, 1)
}

/// The logits behind a prompt, and what encoding and reading it have taken: operations in the encoders, operations in the
/// layers, bytes of cache.
fn read(model: &str, inputs: ModelInputs, keep: Option<Keep>) -> (Vec<f32>, [u64; 3]) {
    msao_engine::set_threads(1);
    let options = LoadOptions {
        precision: Precision::F32,
        ..Default::default()
    };
    let model = Model::load(&folder(model), &options).unwrap();
    let options = RunnerOptions {
        cache_bytes: 64 << 20,
        media_cache_bytes: 0,
        prefixes: 0,
        ..Default::default()
    };
    let mut runner = Runner::new(model, &options).unwrap();
    let options = OpenOptions { keep, probe: None };
    let id = runner.open(Arc::new(inputs), 4, &options).unwrap();
    let logits = loop {
        match runner.needs(id).unwrap() {
            Needs::Encoding => runner.encode(id).unwrap(),
            Needs::Reading(left) => {
                let rows = runner.run(&[(id, Work::Read(left))]).unwrap();
                break rows.of(0).to_vec();
            }
            other => panic!("{other:?}"),
        }
    };
    let tokens = runner.tokens(id).unwrap() as u64;
    let meter = runner.meter(id).unwrap();
    let encoded = meter.cost(Phase::Vision).flops + meter.cost(Phase::Audio).flops;
    (logits, [encoded, meter.cost(Phase::Prefill).flops, tokens])
}

/// An encoder looks at each step by itself: whether it sees the others makes no difference but in what that costs.
#[test]
fn steps_that_are_left_out_are_as_if_they_were_dropped_behind_the_encoder_and_cost_less() {
    for (model, number, medium, steps) in [
        ("qwen25-vl-windows", 1, clip(96, 64, 6), vec![0, 2]),
        ("qwen2-vl-flat", 0, clip(112, 84, 5), vec![1, 2]),
        ("omni-thinker", 2, sound(39_200), vec![1]),
        ("omni-thinker", 2, clip(60, 80, 4), vec![1]),
    ] {
        let processor = &families()[number].processor;
        let extent = Extent::of(&medium);
        let tokens = processor.tokens_of(0, extent).unwrap();
        let window = Window {
            steps,
            ..processor.whole_window(extent.modality(), tokens)
        };
        let media = [medium];
        let messages = chat(&media);
        let whole = processor.prepare(&messages, &media).unwrap();
        let shown = Shown {
            whole: extent,
            there: Some((&media[0], &window)),
        };
        let part = processor.prepare_shown(&messages, &[shown]).unwrap();
        let numbers = processor.numbers(extent.modality(), tokens, &window);
        assert!(numbers.len() < tokens.patches(), "{model}");
        let keep = Keep {
            items: vec![Some(numbers)],
        };
        let (expected, costs) = read(model, whole.inputs, Some(keep));
        let (logits, less) = read(model, part.inputs, None);
        assert_eq!(logits.len(), expected.len());
        for (a, b) in logits.iter().zip(&expected) {
            assert!((a - b).abs() <= TOLERANCE, "{model}: {a} instead of {b}");
        }
        // The layers read the same tokens.
        assert_eq!(less[1..], costs[1..], "{model}");
        assert!(less[0] < costs[0], "{model}: {less:?} {costs:?}");
    }
}
