//! A prompt on its way into the model: text embedded, media encoded one item at a time, then read in chunks.

use std::ops::Range;

use msao_core::chat::Modality;
use msao_core::inputs::{Array, Grid, Mels, ModelInputs, patch_count};
use tch::Tensor;

use crate::audio::token_count;
use crate::config::ModelConfig;
use crate::error::{EngineError, Result};
use crate::positions::{Positions, positions};

/// One picture, clip or sound of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub modality: Modality,
    /// Its number among the items of its modality.
    pub number: usize,
    /// Its tokens' places in the prompt.
    pub places: Range<usize>,
    /// Its extent in patches; a sound has none.
    pub grid: Option<Grid>,
}

/// Finds the media items of a prompt, in the order in which they stand there, checking that each has its placeholders.
pub fn items(config: &ModelConfig, inputs: &ModelInputs) -> Result<Vec<Item>> {
    let unit = config.vision.merge_size * config.vision.merge_size;
    let mut items = Vec::new();
    for (patches, placeholder, modality) in [
        (&inputs.images, config.image_token, Modality::Image),
        (&inputs.videos, config.video_token, Modality::Video),
    ] {
        let grids = patches.as_ref().map_or(&[][..], |patches| &patches.grids);
        if let Some(patches) = patches {
            let wanted = [patch_count(grids), config.vision.patch_values()];
            let values = wanted.iter().fold(1usize, |n, &m| n.saturating_mul(m));
            if patches.values.shape != wanted || patches.values.data.len() != values {
                return Err(EngineError::request(format!(
                    "pixel values have shape {:?}; the grids and the model ask for {wanted:?}",
                    patches.values.shape
                )));
            }
        }
        let lengths: Vec<usize> = grids.iter().map(|grid| grid.patches() / unit).collect();
        let places = place(inputs, placeholder, &lengths, modality)?;
        items.extend(
            places
                .into_iter()
                .zip(grids)
                .enumerate()
                .map(|(number, (places, &grid))| Item {
                    modality,
                    number,
                    places,
                    grid: Some(grid),
                }),
        );
    }
    match (config.audio_token, &inputs.audio) {
        (None, None) => {}
        (None, Some(_)) => {
            return Err(EngineError::request(format!(
                "{} does not hear: send no audio",
                config.family.name()
            )));
        }
        (Some(placeholder), mels) => {
            let frames = mels.as_ref().map_or(&[][..], |mels| &mels.valid_frames);
            let lengths: Vec<usize> = frames.iter().map(|&frames| token_count(frames)).collect();
            let places = place(inputs, placeholder, &lengths, Modality::Audio)?;
            items.extend(places.into_iter().enumerate().map(|(number, places)| Item {
                modality: Modality::Audio,
                number,
                places,
                grid: None,
            }));
        }
    }
    items.sort_by_key(|item| item.places.start);
    Ok(items)
}

/// Where items of the given lengths lie: runs of one placeholder, all of which must be used.
fn place(
    inputs: &ModelInputs,
    placeholder: u32,
    lengths: &[usize],
    modality: Modality,
) -> Result<Vec<Range<usize>>> {
    let mut places = inputs
        .input_ids
        .iter()
        .enumerate()
        .filter(|(_, id)| **id == placeholder)
        .map(|(place, _)| place);
    let found = inputs.input_ids.iter().filter(|&&id| id == placeholder);
    let found = found.count();
    // Saturating: grids read from a file may claim anything.
    let wanted = lengths
        .iter()
        .fold(0usize, |sum, &length| sum.saturating_add(length));
    if found != wanted {
        return Err(EngineError::request(format!(
            "the prompt has {found} {} placeholder tokens (id {placeholder}); its media make {wanted}",
            modality.name()
        )));
    }
    lengths
        .iter()
        .enumerate()
        .map(|(number, &length)| {
            let mut run = places.by_ref().take(length);
            let Some(start) = run.next() else {
                return Ok(0..0);
            };
            let last = run.last().unwrap_or(start);
            if last + 1 - start != length {
                return Err(EngineError::request(format!(
                    "the placeholders of {} {number} are not in a row: each item's {length} tokens stand together",
                    modality.name()
                )));
            }
            Ok(start..start + length)
        })
        .collect()
}

/// The patches of one picture or clip: `[patches * patch values]`.
pub(crate) fn patch_values<'a>(inputs: &'a ModelInputs, item: &Item) -> Result<(&'a [f32], Grid)> {
    let patches = match item.modality {
        Modality::Image => inputs.images.as_ref(),
        _ => inputs.videos.as_ref(),
    };
    let missing = || {
        EngineError::request(format!(
            "{} {} is missing",
            item.modality.name(),
            item.number
        ))
    };
    let patches = patches.ok_or_else(missing)?;
    let grid = patches
        .grids
        .get(item.number)
        .copied()
        .ok_or_else(missing)?;
    let width = patches.values.shape.last().copied().unwrap_or(0);
    let before: usize = patches
        .grids
        .iter()
        .take(item.number)
        .fold(0, |sum: usize, grid| sum.saturating_add(grid.patches()));
    let start = before.saturating_mul(width);
    let end = start.saturating_add(grid.patches().saturating_mul(width));
    let values = patches.values.data.get(start..end).ok_or_else(|| {
        EngineError::request(format!(
            "pixel values have shape {:?}, too few for a grid of {}x{}x{}",
            patches.values.shape, grid.t, grid.h, grid.w
        ))
    })?;
    Ok((values, grid))
}

/// The spectrogram of one sound, cut to what is sound in it.
pub(crate) fn mel_values(inputs: &ModelInputs, item: &Item) -> Result<Mels> {
    let missing = || EngineError::request(format!("audio {} is missing", item.number));
    let mels = inputs.audio.as_ref().ok_or_else(missing)?;
    let valid = mels
        .valid_frames
        .get(item.number)
        .copied()
        .ok_or_else(missing)?;
    let wrong = || {
        EngineError::request(format!(
            "input features have shape {:?}; [sounds, mel bins, frames] with at least {valid} frames is needed",
            mels.features.shape
        ))
    };
    let &[_, bins, frames] = mels.features.shape.as_slice() else {
        return Err(wrong());
    };
    if valid > frames {
        return Err(wrong());
    }
    let start = item.number.saturating_mul(bins).saturating_mul(frames);
    let end = start.saturating_add(bins.saturating_mul(frames));
    let whole = mels.features.data.get(start..end).ok_or_else(wrong)?;
    let data = whole
        .chunks(frames.max(1))
        .flat_map(|row| row.iter().take(valid))
        .copied()
        .collect();
    Ok(Mels {
        features: Array {
            shape: vec![1, bins, valid],
            data,
        },
        valid_frames: vec![valid],
    })
}

/// A prompt that is being read.
#[derive(Debug)]
pub(crate) struct Prompt {
    /// `[L, hidden]`: token embeddings; the rows of media hold features once they are encoded.
    pub x: Tensor,
    pub positions: Positions,
    pub items: Vec<Item>,
    /// Items encoded so far.
    pub encoded: usize,
    /// Which tokens are read, in order.
    pub keep: Vec<usize>,
}

impl Prompt {
    /// `x`: the embeddings of the ids, placeholders included.
    pub fn new(config: &ModelConfig, inputs: &ModelInputs, x: Tensor) -> Result<Self> {
        Ok(Prompt {
            x,
            positions: positions(config, inputs)?,
            items: items(config, inputs)?,
            encoded: 0,
            keep: (0..inputs.input_ids.len()).collect(),
        })
    }

    /// The item to be encoded next.
    pub fn next_item(&self) -> Option<&Item> {
        self.items.get(self.encoded)
    }

    /// Puts the features of the next item, `[tokens, hidden]`, in their rows.
    pub fn put(&mut self, features: &Tensor) -> Result<()> {
        if let Some(item) = self.items.get(self.encoded) {
            let rows = item.places.len() as i64;
            if rows > 0 {
                self.x
                    .f_narrow(0, item.places.start as i64, rows)?
                    .f_copy_(features)?;
            }
            self.encoded += 1;
        }
        Ok(())
    }
}
