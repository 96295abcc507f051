//! Where each prompt token stands in time, height and width (M-RoPE; Qwen2-VL, arXiv 2409.12191, and TMRoPE;
//! Qwen2.5-Omni, arXiv 2503.20215), as Hugging Face transformers 5.17 computes it.

use msao_core::inputs::{Grid, ModelInputs, Patches, Whole};

use crate::config::{Family, ModelConfig};
use crate::error::{EngineError, Result};

/// The positions of a prompt's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Time, height and width: `[3, L]`. Text tokens have all three equal.
    pub axes: [Vec<i64>; 3],
    /// Where the first generated token stands. The reference's `generate` counts on from the last prompt token, which
    /// is not always behind the largest position: a long Qwen2.5-VL clip reaches further than the text after it.
    pub next: [i64; 3],
}

impl Positions {
    /// Hugging Face's `rope_delta`: the largest position and one, less the number of tokens.
    pub fn delta(&self) -> i64 {
        let [time, _, _] = &self.axes;
        self.largest() + 1 - time.len() as i64
    }

    fn push(&mut self, time: i64, height: i64, width: i64) {
        let [t, h, w] = &mut self.axes;
        t.push(time);
        h.push(height);
        w.push(width);
    }

    fn largest(&self) -> i64 {
        self.axes
            .iter()
            .filter_map(|axis| axis.iter().max())
            .copied()
            .max()
            .unwrap_or(-1)
    }
}

/// Computes the positions of a prompt, checking that its placeholders match its media. Where only a part of a prompt is laid
/// out, its tokens stand where they would in the whole.
pub fn positions(config: &ModelConfig, inputs: &ModelInputs) -> Result<Positions> {
    let Some(whole) = &inputs.whole else {
        return lay_out(
            config,
            &inputs.input_ids,
            grids(inputs.images.as_ref()),
            grids(inputs.videos.as_ref()),
            &inputs.second_per_grid_ts,
        );
    };
    let all = lay_out(
        config,
        &whole.input_ids,
        &whole.images,
        &whole.videos,
        &whole.second_per_grid_ts,
    )?;
    pick(&all, whole, &inputs.input_ids)
}

/// Of the positions of a whole prompt, those of the tokens that there are.
fn pick(all: &Positions, whole: &Whole, ids: &[u32]) -> Result<Positions> {
    let fits = |(id, place): (&u32, &u32)| whole.input_ids.get(*place as usize) == Some(id);
    if whole.places.len() != ids.len() || !ids.iter().zip(&whole.places).all(fits) {
        return Err(EngineError::request(format!(
            "the {} places of a prompt of {} tokens are not those of its ids in the whole prompt, which has {}",
            whole.places.len(),
            ids.len(),
            whole.input_ids.len()
        )));
    }
    let axes = all.axes.each_ref().map(|axis| {
        let places = whole.places.iter();
        let there = places.filter_map(|&place| axis.get(place as usize).copied());
        there.collect::<Vec<i64>>()
    });
    Ok(Positions {
        axes,
        next: all.next,
    })
}

fn lay_out(
    config: &ModelConfig,
    input_ids: &[u32],
    images: &[Grid],
    videos: &[Grid],
    seconds: &[f32],
) -> Result<Positions> {
    let mut images = images.iter().copied();
    let mut videos = videos.iter().copied();
    let mut seconds = seconds.iter().copied();
    let mut positions = Positions::default();
    let mut next = 0i64;
    let mut ids = input_ids.iter().copied().peekable();
    while let Some(&id) = ids.peek() {
        let (grid, step) = if id == config.image_token {
            (images.next().ok_or_else(|| too_many("image"))?, 0.0)
        } else if id == config.video_token {
            let grid = videos.next().ok_or_else(|| too_many("video"))?;
            (grid, seconds_step(config, seconds.next().unwrap_or(1.0))?)
        } else {
            // Text and sounds: one step a token.
            positions.push(next, next, next);
            next += 1;
            ids.next();
            continue;
        };
        let merge = config.vision.merge_size;
        let (rows, columns) = (grid.h / merge, grid.w / merge);
        let whole = grid.h.is_multiple_of(merge) && grid.w.is_multiple_of(merge);
        let nothing = grid.t == 0 && grid.h == 0 && grid.w == 0;
        if !whole || (grid.patches() == 0 && !nothing) {
            return Err(EngineError::request(format!(
                "a grid is {}x{}x{}; height and width must be multiples of {merge}, and none 0 unless all are",
                grid.t, grid.h, grid.w
            )));
        }
        // Ends with the ids, whatever the grid claims.
        for _ in 0..grid.patches() / (merge * merge) {
            if ids.next() != Some(id) {
                return Err(too_few(
                    if id == config.image_token {
                        "image"
                    } else {
                        "video"
                    },
                    grid,
                    merge,
                ));
            }
        }
        for t in 0..grid.t {
            // f32 as in the reference, so that truncation falls on the same side.
            let time = (t as f32 * step) as i64;
            for h in 0..rows as i64 {
                for w in 0..columns as i64 {
                    positions.push(next + time, next + h, next + w);
                }
            }
        }
        next = match config.family {
            // The text after a clip goes on behind its largest position.
            Family::Qwen2_5Omni => positions.largest() + 1,
            // The text after a clip goes on behind its larger side, however long the clip is.
            Family::Qwen2Vl | Family::Qwen2_5Vl => next + rows.max(columns) as i64,
        };
    }
    if images.next().is_some() || videos.next().is_some() {
        return Err(EngineError::request(
            "the prompt has fewer placeholders than there are images or clips",
        ));
    }
    positions.next = positions
        .axes
        .each_ref()
        .map(|axis| axis.last().map_or(0, |last| last + 1));
    Ok(positions)
}

/// Most seconds that one temporal patch of a clip can span.
const MAX_SECONDS: f32 = 1e5;

/// Temporal positions from one frame pair to the next.
fn seconds_step(config: &ModelConfig, seconds: f32) -> Result<f32> {
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(EngineError::request(format!(
            "second_per_grid_ts is {seconds}; it must be from 0 to {MAX_SECONDS}"
        )));
    }
    let per_second = config.positions.per_second as f32;
    Ok(match config.family {
        Family::Qwen2Vl => 1.0,
        // The reference drops the fraction of the seconds here.
        Family::Qwen2_5Vl => per_second * seconds.trunc(),
        Family::Qwen2_5Omni => seconds * per_second,
    })
}

fn grids(patches: Option<&Patches>) -> &[Grid] {
    patches.map_or(&[][..], |patches| &patches.grids)
}

fn too_many(what: &str) -> EngineError {
    EngineError::request(format!(
        "the prompt has placeholders for more {what}s than were given"
    ))
}

fn too_few(what: &str, grid: Grid, merge: usize) -> EngineError {
    EngineError::request(format!(
        "a {what} of grid {}x{}x{} needs {} placeholder tokens in a row; the prompt has fewer",
        grid.t,
        grid.h,
        grid.w,
        grid.patches() / (merge * merge)
    ))
}
