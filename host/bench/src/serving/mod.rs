//! The engine for serving: that batching, drafting, pruning and caching change nothing, what they cost, and that nothing
//! leaks.

pub mod cost;
pub mod equality;
pub mod probe;
pub mod soak;
pub mod through;

use std::path::Path;

use anyhow::{Context, Result};
use msao_core::inputs::{Grid, ModelInputs, Patches};
use msao_engine::ModelConfig;
use msao_media::Limits;
use msao_processor::{Prepared, Processor};

use crate::vqa::Question;

/// Reads a question from its files on.
pub(crate) fn prepare(processor: &Processor, question: &Question) -> Result<Prepared> {
    let (messages, files) = question.ask(&[]);
    let limits = Limits::default();
    let mut media = Vec::with_capacity(files.len());
    for (modality, path) in files {
        let bytes = msao_media::read_file(path, &limits)?;
        let medium = processor.decode(modality, &bytes, &limits);
        media.push(medium.with_context(|| path.display().to_string())?);
    }
    Ok(processor.prepare(&messages, &media)?)
}

/// A prompt about one picture (`grid.t` 1) or clip, for what only costs: pixels are noise, text ids are small.
fn noise_prompt(config: &ModelConfig, grid: Grid, text: usize) -> ModelInputs {
    let merge = config.vision.merge_size * config.vision.merge_size;
    let placeholder = if grid.t == 1 {
        config.image_token
    } else {
        config.video_token
    };
    let width = config.vision.patch_values();
    let mut noise = 0x2545_f491u32;
    let data = (0..grid.patches() * width)
        .map(|_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let patches = Patches {
        values: msao_core::inputs::Array {
            shape: vec![grid.patches(), width],
            data,
        },
        grids: vec![grid],
    };
    let mut input_ids = vec![5, 6, 7];
    input_ids.extend(std::iter::repeat_n(placeholder, grid.patches() / merge));
    input_ids.extend((0..text).map(|place| 20 + (place as u32 * 7) % 50));
    let (images, videos) = if grid.t == 1 {
        (Some(patches), None)
    } else {
        (None, Some(patches))
    };
    ModelInputs {
        input_ids,
        images,
        second_per_grid_ts: if grid.t == 1 { Vec::new() } else { vec![1.0] },
        videos,
        audio: None,
        whole: None,
    }
}

/// The held-out questions beside the models.
fn questions(models: &Path) -> Result<Vec<Question>> {
    crate::vqa::read(&models.join("heldout"))
}
