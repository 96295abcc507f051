//! Equality with Hugging Face transformers on tiny random checkpoints of the three families.

use std::ops::ControlFlow;

use anyhow::Result;
use msao_core::inputs::Patches;
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::{GenerateOptions, LoadOptions, Model, Precision, generate};
use msao_golden::{
    Case, Tensors, cases, cases_of, json, media, messages, models, processor_for, root,
};

use crate::report::Row;

/// Compares everything from the chat to 64 greedy tokens, on all golden cases.
pub fn rows() -> Result<Vec<Row>> {
    let mut rows = processing();
    rows.extend(computing()?);
    Ok(rows)
}

/// Templates, ids, grids, pixels and mel features.
fn processing() -> Vec<Row> {
    let (mut prompts, mut ids, mut grids) = (Vec::new(), Vec::new(), Vec::new());
    let (mut pixel_worst, mut pixel_sum, mut pixel_count) = (0f64, 0f64, 0u64);
    let (mut mel_worst, mut mel_count) = (0f64, 0u32);
    let mel_file = Tensors::read("preprocess/mel.safetensors");
    let all = cases();
    for (path, case) in &all {
        let processor = processor_for(case);
        let expected = Tensors::read(&format!("{path}.safetensors"));
        let messages = messages(case);
        let media = media(case, &messages, &processor);
        let prepared = match processor.prepare(&messages, &media) {
            Ok(prepared) => prepared,
            Err(error) => {
                prompts.push(format!("{path}: {error}"));
                continue;
            }
        };
        if Some(prepared.text.as_str()) != case.get("prompt").and_then(|prompt| prompt.as_str()) {
            prompts.push(path.clone());
        }
        let our_ids = prepared
            .inputs
            .input_ids
            .iter()
            .map(|&id| i64::from(id))
            .collect();
        if expected.i64("input_ids") != Some(our_ids) {
            ids.push(path.clone());
        }
        let config = processor.media_config();
        let pairs = [
            (
                &prepared.inputs.images,
                &config.image,
                "image_grid_thw",
                "pixel_values_u8",
            ),
            (
                &prepared.inputs.videos,
                &config.video.picture,
                "video_grid_thw",
                "pixel_values_videos_u8",
            ),
        ];
        for (ours, picture, grid_name, pixel_name) in pairs {
            if ours.as_ref().map(|patches| patches.grids.clone()) != expected.grids(grid_name) {
                grids.push(format!("{path}: {grid_name}"));
            }
            if let (Some(ours), Some((shape, bytes)), Some((mean, std))) =
                (ours, expected.u8(pixel_name), picture.normalize)
            {
                if shape.iter().product::<usize>() != bytes.len()
                    || bytes.is_empty()
                    || ours.values.data.len() % bytes.len() != 0
                {
                    grids.push(format!("{path}: {pixel_name} has another length"));
                }
                for difference in pixel_differences(ours, (&shape, &bytes), (&mean, &std)) {
                    pixel_worst = worse(pixel_worst, difference);
                    pixel_sum += difference;
                    pixel_count += 1;
                }
            }
        }
        if let Some(mels) = &prepared.inputs.audio {
            mel_count += 1;
            mel_worst = worse(mel_worst, mel_difference(mels, case, &mel_file));
        }
    }
    let table = json("preprocess/smart_resize.json");
    let sizes = table.as_array().map_or(0, Vec::len);
    vec![
        Row::all("prompts equal", all.len(), prompts),
        Row::all("input ids equal", all.len(), ids),
        Row::all("grids equal", all.len(), grids),
        // Rows that compared nothing would show nothing.
        Row::at_least("pixel values compared", pixel_count as f64, 1e5, ""),
        Row::at_most(
            "largest pixel difference (0 to 1)",
            pixel_worst,
            2.0 / 255.0,
            "",
        ),
        Row::at_most(
            "mean pixel difference (0 to 1)",
            pixel_sum / pixel_count as f64,
            1e-3,
            "",
        ),
        Row::at_least("sounds compared", f64::from(mel_count), 5.0, ""),
        Row::at_most("largest mel difference", mel_worst, 1e-3, ""),
        Row::all("picture sizes equal", sizes, wrong_sizes(&table)),
    ]
}

/// The larger of two differences, where NaN is the largest of all and stays.
fn worse(a: f64, b: f64) -> f64 {
    if !a.is_nan() && (b > a || b.is_nan()) {
        b
    } else {
        a
    }
}

/// Differences of pixel values before normalisation, 0 to 1.
fn pixel_differences<'a>(
    ours: &'a Patches,
    (shape, bytes): (&'a [usize], &'a [u8]),
    (mean, std): (&'a [f64; 3], &'a [f64; 3]),
) -> impl Iterator<Item = f64> + 'a {
    // The stored patches are [n, 3, t, p, p]; t is 1 where the second frame repeats the first.
    let plane: usize = shape.iter().skip(3).product();
    let frames = shape.get(2).copied().unwrap_or(1).max(1);
    let repeats = ours.values.data.len() / bytes.len().max(1);
    let expected = bytes
        .chunks_exact((plane * frames).max(1))
        .enumerate()
        .flat_map(move |(n, channel)| std::iter::repeat_n((n % 3, channel), repeats))
        .flat_map(|(n, channel)| {
            channel
                .iter()
                .map(move |&byte| (n, f64::from(byte) / 255.0))
        });
    ours.values
        .data
        .iter()
        .zip(expected)
        .map(move |(&value, (channel, wanted))| {
            let (mean, std) = (mean.get(channel), std.get(channel));
            let colour =
                f64::from(value) * std.copied().unwrap_or(1.0) + mean.copied().unwrap_or(0.0);
            (colour - wanted).abs()
        })
}

fn mel_difference(mels: &msao_core::inputs::Mels, case: &serde_json::Value, file: &Tensors) -> f64 {
    let frames = mels.features.shape.last().copied().unwrap_or(1).max(1);
    let bins = mels.features.shape.get(1).copied().unwrap_or(1).max(1);
    let sounds = case
        .get("audios")
        .and_then(|audios| audios.as_array())
        .into_iter()
        .flatten();
    let mut worst = 0f64;
    for (sound, ours) in sounds.zip(mels.features.data.chunks_exact(frames * bins)) {
        let path = sound
            .get("path")
            .and_then(|path| path.as_str())
            .unwrap_or_default();
        let stem = std::path::Path::new(path)
            .file_stem()
            .and_then(|stem| stem.to_str());
        let (shape, expected) = file.f32(stem.unwrap_or_default());
        let length = shape.last().copied().unwrap_or(1).max(1);
        for (ours, expected) in ours.chunks_exact(frames).zip(expected.chunks_exact(length)) {
            for (a, b) in ours.iter().zip(expected) {
                worst = worse(worst, f64::from((a - b).abs()));
            }
        }
    }
    worst
}

/// Rows of the table of sizes that we answer otherwise.
fn wrong_sizes(table: &serde_json::Value) -> Vec<String> {
    let rows = table.as_array().into_iter().flatten();
    rows.filter(|row| {
        let number = |key: &str| row.get(key).and_then(|n| n.as_u64()).unwrap_or(0) as usize;
        let bounds = msao_processor::PixelBounds {
            min: number("min_pixels"),
            max: number("max_pixels"),
        };
        let ours = msao_processor::smart_resize(
            number("height"),
            number("width"),
            number("factor"),
            bounds,
        );
        match (ours, row.get("out")) {
            (Ok((h, w)), Some(out)) => *out != serde_json::json!([h, w]),
            (Err(_), None) => false,
            _ => true,
        }
    })
    .map(ToString::to_string)
    .collect()
}

/// Positions, logits and greedy tokens.
fn computing() -> Result<Vec<Row>> {
    let options = LoadOptions {
        precision: Precision::F32,
        ..Default::default()
    };
    let (mut positions, mut tokens) = (Vec::new(), Vec::new());
    let (mut worst, mut worst_case) = (0f64, String::new());
    let mut checked = 0;
    let names = models();
    for name in &names {
        let model = Model::load(&root().join("models").join(name), &options)?;
        for case in cases_of(name) {
            checked += 1;
            let ours = model.positions(&case.prepared.inputs)?;
            if ours.axes != case.position_ids || ours.delta() != case.rope_delta {
                positions.push(case.name.clone());
            }
            let difference = logit_difference(&model, &case)?;
            if difference > worst || difference.is_nan() {
                (worst, worst_case) = (difference, case.name.clone());
            }
            if case.greedy_tokens.len() != 64 || greedy(&model, &case)? != case.greedy_tokens {
                tokens.push(case.name.clone());
            }
        }
    }
    Ok(vec![
        Row::told("checkpoints of three families", names.len() as f64, ""),
        Row::all("position ids equal", checked, positions),
        Row::at_most("largest logit difference, f32", worst, 2e-4, "")
            .with_details(vec![format!("in {worst_case}")]),
        Row::all("64 greedy tokens equal", checked, tokens),
    ])
}

fn logit_difference(model: &Model, case: &Case) -> Result<f64> {
    let vocabulary = model.config().text.vocab_size;
    let logits = model.forward(&case.prepared.inputs)?;
    let rows: Vec<&[f32]> = logits.data.chunks_exact(vocabulary).collect();
    let mut worst = 0f64;
    for (expected, &position) in case
        .logits
        .chunks_exact(vocabulary)
        .zip(&case.logits_positions)
    {
        let Some(ours) = rows.get(position) else {
            return Ok(f64::NAN);
        };
        for (a, b) in ours.iter().zip(expected) {
            worst = worse(worst, f64::from((a - b).abs()));
        }
    }
    Ok(worst)
}

fn greedy(model: &Model, case: &Case) -> Result<Vec<u32>> {
    let params = SamplingParams {
        temperature: 0.0,
        ..Default::default()
    };
    let inputs = &case.prepared.inputs;
    let mut sampler = Sampler::new(
        params,
        model.config().text.vocab_size as u32,
        &inputs.input_ids,
    )?;
    let options = GenerateOptions {
        max_new_tokens: case.greedy_tokens.len(),
        ..Default::default()
    };
    Ok(generate(model, inputs, &mut sampler, &options, &mut |_| {
        ControlFlow::Continue(())
    })?
    .tokens)
}
