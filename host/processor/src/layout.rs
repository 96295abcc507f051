//! The tokens that a medium has: how many steps, rows and columns of them. Its size alone decides that, so that who has a
//! medium and who has only a part of it come to the same.
//!
//! A *step* is what an encoder looks at by itself: of a clip the frames of one temporal patch, of a sound a chunk; an image
//! is one step. Whole steps can be left out without a change to the features of the others.

use std::ops::Range;

use msao_core::chat::Modality;
use msao_core::inputs::Grid;

use crate::error::ProcessorError;
use crate::patches::grid_of;
use crate::prepare::{Media, audio_tokens, target_size, whole_patches};
use crate::processor::Processor;
use crate::video;

/// A medium's size: all that the number and the places of its tokens depend on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Extent {
    /// A still picture.
    Image {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// A clip.
    Video {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// Frames that are looked at.
        sampled: usize,
        /// Frames that the clip has.
        frames: usize,
        /// Their rate, in frames per second.
        fps: f64,
    },
    /// A sound.
    Audio {
        /// Samples at 16 kHz.
        samples: usize,
    },
}

impl Extent {
    /// Of a medium. A clip without frames is none of any size.
    pub fn of(media: &Media) -> Extent {
        match media {
            Media::Image(image) => Extent::Image {
                width: image.width,
                height: image.height,
            },
            Media::Video(clip) => {
                let first = clip.frames.first();
                let (width, height) = first.map_or((0, 0), |frame| (frame.width, frame.height));
                Extent::Video {
                    width,
                    height,
                    sampled: clip.frames.len(),
                    frames: clip.info.frames,
                    fps: clip.info.fps,
                }
            }
            Media::Audio(sound) => Extent::Audio {
                samples: sound.samples.len(),
            },
        }
    }

    /// What it is the extent of.
    pub fn modality(self) -> Modality {
        match self {
            Extent::Image { .. } => Modality::Image,
            Extent::Video { .. } => Modality::Video,
            Extent::Audio { .. } => Modality::Audio,
        }
    }

    /// Pixels across and down; 0 and 0 for a sound.
    pub fn size_px(self) -> (u32, u32) {
        match self {
            Extent::Image { width, height } | Extent::Video { width, height, .. } => {
                (width, height)
            }
            Extent::Audio { .. } => (0, 0),
        }
    }

    /// The same at another size in pixels; of a sound the same.
    #[must_use]
    pub fn resized(self, (width, height): (u32, u32)) -> Extent {
        match self {
            Extent::Image { .. } => Extent::Image { width, height },
            Extent::Video {
                sampled,
                frames,
                fps,
                ..
            } => Extent::Video {
                width,
                height,
                sampled,
                frames,
                fps,
            },
            Extent::Audio { .. } => self,
        }
    }
}

/// The part of a medium that is laid out, in its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its steps by number, rising; at least one.
    pub steps: Vec<usize>,
    /// Rows of tokens in each; 0 to 1 for a sound.
    pub rows: Range<usize>,
    /// Columns of tokens in each; 0 to 1 for a sound.
    pub columns: Range<usize>,
}

/// How a medium is laid out.
pub(crate) struct Laid {
    /// `(height, width)` in pixels that frames are resized to; 0 and 0 for a sound.
    pub size: (usize, usize),
    /// Its extent in patches; of a sound as `tokens`.
    pub patches: Grid,
    /// Its extent in tokens; a sound is as long as it has tokens, and 1 x 1 otherwise.
    pub tokens: Grid,
    /// Seconds that a temporal patch of a clip spans, where the family's positions depend on it.
    pub seconds_per_grid: Option<f32>,
}

/// Where the centre of cell `of` of so many lies, among `among` cells of the same length. The same where there are as many.
pub fn centre(of: usize, cells: usize, among: usize) -> usize {
    // (of + 1/2) / cells * among, rounded down.
    let doubled = of.saturating_mul(2).saturating_add(1);
    let place = doubled.saturating_mul(among) / cells.saturating_mul(2).max(1);
    place.min(among.saturating_sub(1))
}

impl Processor {
    /// The extent in tokens of a medium of this size: steps (of a sound tokens), rows, columns. `index`: its number among the
    /// media, for the error.
    ///
    /// # Errors
    /// If a medium of this size cannot be processed.
    pub fn tokens_of(&self, index: usize, extent: Extent) -> Result<Grid, ProcessorError> {
        let laid = self.lay_out(extent);
        let laid = laid.map_err(|why| ProcessorError::media(index, extent.modality(), why))?;
        Ok(laid.tokens)
    }

    /// Steps of a medium of so many tokens.
    pub fn steps(&self, modality: Modality, tokens: Grid) -> usize {
        match modality {
            Modality::Text | Modality::Image => 1,
            Modality::Video => tokens.t,
            Modality::Audio => tokens.t.div_ceil(self.step_tokens(modality, tokens).max(1)),
        }
    }

    /// Tokens of a step of a medium of so many tokens; the last step of a sound may have fewer.
    pub fn step_tokens(&self, modality: Modality, tokens: Grid) -> usize {
        match modality {
            Modality::Text | Modality::Image | Modality::Video => tokens.h.saturating_mul(tokens.w),
            // Two mel frames a row of the encoder, two rows a token.
            Modality::Audio => self.sound_chunk.map_or(tokens.t, |frames| frames / 4),
        }
    }

    /// All of a medium of so many tokens.
    pub fn whole_window(&self, modality: Modality, tokens: Grid) -> Window {
        let (rows, columns) = match modality {
            Modality::Audio => (1, 1),
            _ => (tokens.h, tokens.w),
        };
        Window {
            steps: (0..self.steps(modality, tokens)).collect(),
            rows: 0..rows,
            columns: 0..columns,
        }
    }

    /// The tokens of a window by their numbers among all of a medium of so many tokens, rising. What lies outside is left
    /// out.
    pub fn numbers(&self, modality: Modality, tokens: Grid, window: &Window) -> Vec<u32> {
        let step = self.step_tokens(modality, tokens);
        let all = tokens.patches();
        let mut numbers = Vec::new();
        for first in window
            .steps
            .iter()
            .map(|number| number.saturating_mul(step))
        {
            if modality == Modality::Audio {
                let end = first.saturating_add(step).min(all);
                numbers.extend((first..end).map(|token| token as u32));
                continue;
            }
            for row in window.rows.start..window.rows.end.min(tokens.h) {
                let row = first.saturating_add(row.saturating_mul(tokens.w));
                let columns = window.columns.start..window.columns.end.min(tokens.w);
                let there = columns.map(|column| row.saturating_add(column));
                numbers.extend(there.filter(|&token| token < all).map(|token| token as u32));
            }
        }
        numbers
    }

    /// Pixels beyond a token's own, on each side, that the model's resize reads of a picture or clip of this size; none for a
    /// sound, and where nothing is resized. `index`: as for [`Processor::tokens_of`].
    ///
    /// # Errors
    /// If a medium of this size cannot be processed.
    pub fn reach_px(&self, index: usize, extent: Extent) -> Result<u32, ProcessorError> {
        let laid = self.lay_out(extent);
        let laid = laid.map_err(|why| ProcessorError::media(index, extent.modality(), why))?;
        let filter = match extent {
            Extent::Image { .. } => self.media.image.filter,
            Extent::Video { .. } => self.media.video.picture.filter,
            Extent::Audio { .. } => return Ok(0),
        };
        let (width, height) = extent.size_px();
        let (tall, wide) = laid.size;
        if (height as usize, width as usize) == (tall, wide) {
            return Ok(0);
        }
        let shrinks = |from: u32, to: usize| f64::from(from) / to.max(1) as f64;
        let by = shrinks(height, tall).max(shrinks(width, wide)).max(1.0);
        Ok((filter.support() * by).ceil() as u32 + 1)
    }

    /// The samples of a sound of so many that its tokens `tokens` are made of: those that they are about, and those on either
    /// side that their spectrogram reads.
    pub fn heard(&self, tokens: Range<usize>, samples: usize) -> Range<usize> {
        let Some(sound) = &self.media.audio else {
            return 0..0;
        };
        let reach = sound.n_fft / 2;
        let at = |frame: usize| frame.saturating_mul(sound.hop);
        // Mel frame f stands for the samples around f * hop; a token has four.
        let start = at(tokens.start.saturating_mul(4)).saturating_sub(reach);
        let last = tokens.end.saturating_mul(4).saturating_sub(1);
        let end = at(last).saturating_add(reach).min(samples);
        start.min(end)..end
    }

    /// How a medium of this size is laid out; or why it cannot be.
    pub(crate) fn lay_out(&self, extent: Extent) -> Result<Laid, String> {
        match extent {
            Extent::Image { width, height } => {
                let config = &self.media.image;
                let bounds = self.options.image_bounds.unwrap_or(config.bounds);
                let size = target_size((height as usize, width as usize), config, bounds)?;
                let patches = grid_of(1, size.0, size.1, config)
                    .ok_or_else(|| whole_patches(size, config))?;
                Ok(Laid {
                    size,
                    patches,
                    tokens: in_tokens(patches, config.merge),
                    seconds_per_grid: None,
                })
            }
            Extent::Video {
                width,
                height,
                sampled,
                frames,
                fps,
            } => {
                if sampled == 0 {
                    return Err("the clip has no frames".to_owned());
                }
                let config = &self.media.video;
                let family = self.family.rules();
                let bounds = self
                    .options
                    .frame_bounds
                    .or(family.frame_bounds())
                    .unwrap_or(config.picture.bounds);
                let bounds = video::frame_bounds(bounds, sampled, config);
                let size = target_size((height as usize, width as usize), &config.picture, bounds)?;
                let patches = grid_of(sampled, size.0, size.1, &config.picture)
                    .ok_or_else(|| whole_patches(size, &config.picture))?;
                let rate = video::sampled_fps(sampled, frames.max(sampled), fps);
                let asked = self.options.sampling.asked_fps();
                Ok(Laid {
                    size,
                    patches,
                    tokens: in_tokens(patches, config.picture.merge),
                    seconds_per_grid: family.seconds_per_grid(
                        config.picture.temporal_patch,
                        rate,
                        asked,
                    ),
                })
            }
            Extent::Audio { samples } => {
                let mel = self.mel.as_ref().ok_or_else(|| {
                    "preprocessor_config.json and processor_config.json have no settings for sounds"
                        .to_owned()
                })?;
                let tokens = audio_tokens(mel.valid_frames(samples));
                if tokens == 0 {
                    return Err(format!(
                        "{samples} samples at 16 kHz are too few for one token; it takes 321"
                    ));
                }
                let tokens = Grid {
                    t: tokens,
                    h: 1,
                    w: 1,
                };
                Ok(Laid {
                    size: (0, 0),
                    patches: tokens,
                    tokens,
                    seconds_per_grid: None,
                })
            }
        }
    }
}

fn in_tokens(patches: Grid, merge: usize) -> Grid {
    let merge = merge.max(1);
    Grid {
        t: patches.t,
        h: patches.h / merge,
        w: patches.w / merge,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cell_stands_where_its_centre_lies() {
        let of = |cells, among| -> Vec<usize> {
            (0..cells).map(|cell| centre(cell, cells, among)).collect()
        };
        assert_eq!(of(4, 8), [1, 3, 5, 7]);
        assert_eq!(of(3, 8), [1, 4, 6]);
        assert_eq!(of(1, 5), [2]);
        assert_eq!(of(5, 5), [0, 1, 2, 3, 4]);
        // More than there are: some share a place.
        assert_eq!(of(4, 2), [0, 0, 1, 1]);
        assert_eq!(centre(7, 2, 3), 2);
        assert_eq!(centre(0, 0, 0), 0);
    }

    proptest! {
        #[test]
        fn centres_rise_and_lie_within(cells in 1_usize..60, more in 0_usize..60) {
            let among = cells + more;
            let places: Vec<usize> = (0..cells).map(|cell| centre(cell, cells, among)).collect();
            prop_assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", places);
            prop_assert!(places.iter().all(|&place| place < among));
            // The other way round, a cell of many leads back to where it came from.
            for (cell, &place) in places.iter().enumerate() {
                prop_assert_eq!(centre(place, among, cells), cell);
            }
        }
    }
}
