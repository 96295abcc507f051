//! From messages and decoded media to a model's inputs.
//!
//! Sizes come first: every grid and token count is known, and held against the limits, before a pixel is touched.

use std::borrow::Cow;
use std::ops::Range;

use msao_core::chat::{Message, Modality};
use msao_core::inputs::{Array, Grid, Mels, ModelInputs, Patches};
use msao_media::{AudioClip, RgbImage, VideoClip};

use crate::config::{PictureConfig, PixelBounds};
use crate::error::ProcessorError;
use crate::layout::{Extent, Window};
use crate::mel::MelExtractor;
use crate::patches::{ColourTable, append_patches, append_squares};
use crate::placeholders::{self, MediaSpan};
use crate::processor::Processor;
use crate::resize::resize_rgb;
use crate::smart_resize::{MAX_SIDE, smart_resize};

/// A decoded medium.
#[derive(Clone, Debug)]
pub enum Media {
    /// A still picture.
    Image(RgbImage),
    /// A clip: the frames that [`Processor::frames_to_sample`] asked for.
    Video(VideoClip),
    /// A sound: mono at 16 kHz.
    Audio(AudioClip),
}

impl Media {
    /// What it is.
    pub fn modality(&self) -> Modality {
        match self {
            Media::Image(_) => Modality::Image,
            Media::Video(_) => Modality::Video,
            Media::Audio(_) => Modality::Audio,
        }
    }
}

/// A chat, ready for the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// The rendered chat; each medium is one placeholder still.
    pub text: String,
    /// What the model reads.
    pub inputs: ModelInputs,
    /// Where each medium is in `inputs.input_ids`, in the order of the media.
    pub spans: Vec<MediaSpan>,
    /// What was done to a medium that its sender may want to know, such as the end of a long sound left out.
    pub notes: Vec<String>,
}

/// What will become of one medium.
pub(crate) enum Plan<'a> {
    Image(PicturePlan<'a>),
    Clip(PicturePlan<'a>),
    Sound(SoundPlan<'a>),
}

/// A picture or clip, the size that its frames are resized to, and its grid.
pub(crate) struct PicturePlan<'a> {
    frames: &'a [RgbImage],
    size: (usize, usize),
    grid: Grid,
    seconds_per_grid: Option<f32>,
    /// What of it is laid out, if not all.
    window: Option<&'a Window>,
}

/// A sound.
pub(crate) struct SoundPlan<'a> {
    clip: &'a AudioClip,
    /// What of it is laid out, if not all.
    window: Option<&'a Window>,
}

impl<'a> Plan<'a> {
    /// The same, of which only a part is laid out.
    pub(crate) fn within(mut self, part: &'a Window) -> Plan<'a> {
        match &mut self {
            Plan::Image(PicturePlan { window, .. })
            | Plan::Clip(PicturePlan { window, .. })
            | Plan::Sound(SoundPlan { window, .. }) => *window = Some(part),
        }
        self
    }
}

impl PicturePlan<'_> {
    /// The grid of what is laid out.
    fn laid_out(&self, merge: usize) -> Grid {
        self.window.map_or(self.grid, |window| Grid {
            t: window.steps.len(),
            h: window.rows.len() * merge,
            w: window.columns.len() * merge,
        })
    }
}

impl Processor {
    /// Renders the chat, turns it into ids and the media into what the model reads.
    ///
    /// `media` holds one medium for each image, video and audio part of the messages, in their order.
    ///
    /// # Errors
    /// If media and parts do not match, a medium cannot be processed, a text smuggles placeholders, or the prompt
    /// exceeds the model's context or the options' limits.
    pub fn prepare(
        &self,
        messages: &[Message],
        media: &[Media],
    ) -> Result<Prepared, ProcessorError> {
        let given: Vec<Modality> = media.iter().map(Media::modality).collect();
        let modalities = self.check_media(messages, &given)?;
        let text = self.render(messages, true)?;
        let ids = self.tokenizer.encode(&text)?;
        placeholders::check_counts(&ids, &self.placeholders, &modalities)?;

        let mut notes = Vec::new();
        let mut plans = Vec::with_capacity(media.len());
        for (index, medium) in media.iter().enumerate() {
            plans.push(self.plan(index, medium, &mut notes)?);
        }
        let tokens: Vec<usize> = plans.iter().map(|plan| self.tokens(plan)).collect();
        self.check_limits(&ids, &plans, &tokens)?;

        let (input_ids, spans) =
            placeholders::expand(&ids, &self.placeholders, &modalities, &tokens);
        let inputs = ModelInputs {
            input_ids,
            ..self.process(&plans)
        };
        Ok(Prepared {
            text,
            inputs,
            spans,
            notes,
        })
    }

    /// Holds the media against the parts that name them; returns their kinds.
    pub(crate) fn check_media(
        &self,
        messages: &[Message],
        media: &[Modality],
    ) -> Result<Vec<Modality>, ProcessorError> {
        let parts = messages
            .iter()
            .flat_map(Message::parts)
            .map(|part| part.modality().0);
        let named: Vec<Modality> = parts
            .filter(|&modality| modality != Modality::Text)
            .collect();
        if named.len() != media.len() {
            return Err(ProcessorError::MediaCount {
                named: named.len(),
                given: media.len(),
            });
        }
        for (index, (&named, &given)) in named.iter().zip(media).enumerate() {
            if named != given {
                return Err(ProcessorError::MediaOrder {
                    index,
                    named,
                    given,
                });
            }
            if !self
                .placeholders
                .iter()
                .any(|placeholder| placeholder.modality == given)
            {
                let family = self.family.rules().name();
                return Err(ProcessorError::Modality {
                    index,
                    family,
                    modality: given,
                });
            }
        }
        Ok(named)
    }

    pub(crate) fn plan<'a>(
        &self,
        index: usize,
        medium: &'a Media,
        notes: &mut Vec<String>,
    ) -> Result<Plan<'a>, ProcessorError> {
        let fail = |message: String| ProcessorError::media(index, medium.modality(), message);
        match medium {
            Media::Image(image) => {
                check_pixels(image).map_err(fail)?;
                let frames = std::slice::from_ref(image);
                let plan = self.plan_picture(frames, Extent::of(medium));
                plan.map(Plan::Image).map_err(fail)
            }
            Media::Video(clip) => {
                check_frames(clip).map_err(fail)?;
                let plan = self.plan_picture(&clip.frames, Extent::of(medium));
                plan.map(Plan::Clip).map_err(fail)
            }
            Media::Audio(clip) => {
                self.lay_out(Extent::of(medium)).map_err(fail)?;
                let samples = clip.samples.len();
                if let Some(mel) = &self.mel
                    && samples > mel.max_samples()
                {
                    notes.push(format!(
                        "media item {index} (Audio): cut after {} of {:.1} seconds, the chunk_length of the model",
                        mel.max_samples() / 16_000,
                        samples as f64 / 16_000.0
                    ));
                }
                Ok(Plan::Sound(SoundPlan { clip, window: None }))
            }
        }
    }

    fn plan_picture<'a>(
        &self,
        frames: &'a [RgbImage],
        extent: Extent,
    ) -> Result<PicturePlan<'a>, String> {
        let laid = self.lay_out(extent)?;
        Ok(PicturePlan {
            frames,
            size: laid.size,
            grid: laid.patches,
            seconds_per_grid: laid.seconds_per_grid,
            window: None,
        })
    }

    fn tokens(&self, plan: &Plan) -> usize {
        match plan {
            Plan::Image(plan) => plan.grid.patches() / self.media.image.merge.pow(2),
            Plan::Clip(plan) => plan.grid.patches() / self.media.video.picture.merge.pow(2),
            Plan::Sound(plan) => self.mel.as_ref().map_or(0, |mel| {
                audio_tokens(mel.valid_frames(plan.clip.samples.len()))
            }),
        }
    }

    pub(crate) fn check_limits(
        &self,
        ids: &[u32],
        plans: &[Plan],
        tokens: &[usize],
    ) -> Result<(), ProcessorError> {
        // Each medium's one placeholder is among the ids already. Saturating: a medium of which nothing is there may
        // claim any size.
        let media = tokens
            .iter()
            .fold(0, |sum: usize, &n| sum.saturating_add(n));
        let total = (ids.len() - tokens.len()).saturating_add(media);
        let limit = self.token_limit();
        if total > limit {
            return Err(ProcessorError::PromptTooLong {
                tokens: total,
                limit,
                source_of_limit: self.source_of_token_limit(),
            });
        }
        let values = plans.iter().map(|plan| match plan {
            Plan::Image(plan) => {
                let config = &self.media.image;
                plan.laid_out(config.merge).patches() * config.patch_values()
            }
            Plan::Clip(plan) => {
                let config = &self.media.video.picture;
                plan.laid_out(config.merge).patches() * config.patch_values()
            }
            Plan::Sound(_) => self.mel.as_ref().map_or(0, |mel| mel.mels() * mel.frames()),
        });
        let bytes = values.sum::<usize>().saturating_mul(size_of::<f32>());
        let limit = self.options.max_media_bytes;
        if bytes > limit {
            Err(ProcessorError::MediaTooLarge { bytes, limit })
        } else {
            Ok(())
        }
    }

    /// Everything but the ids.
    pub(crate) fn process(&self, plans: &[Plan]) -> ModelInputs {
        let (mut images, mut clips, mut sounds) = (Vec::new(), Vec::new(), Vec::new());
        for plan in plans {
            match plan {
                Plan::Image(plan) => images.push(plan),
                Plan::Clip(plan) => clips.push(plan),
                Plan::Sound(plan) => sounds.push(plan),
            }
        }
        ModelInputs {
            input_ids: Vec::new(),
            images: patches_of(&images, &self.media.image, &self.image_colours),
            videos: patches_of(&clips, &self.media.video.picture, &self.frame_colours),
            second_per_grid_ts: clips
                .iter()
                .filter_map(|plan| plan.seconds_per_grid)
                .collect(),
            audio: (self.mel.as_ref()).and_then(|mel| mels_of(&sounds, mel, self.sound_chunk)),
            whole: None,
        }
    }
}

/// Tokens of a sound of so many mel frames: halved by a convolution (rounding up), then by a pool (rounding down).
///
/// Formula: `((frames - 1) // 2 + 1 - 2) // 2 + 1` of `Qwen2_5OmniProcessor`.
pub(crate) fn audio_tokens(frames: usize) -> usize {
    frames.div_ceil(2) / 2
}

pub(crate) fn whole_patches((height, width): (usize, usize), config: &PictureConfig) -> String {
    let factor = config.factor();
    format!(
        "{width}x{height} pixels, and without a resize (do_resize) both sides must be multiples of {factor}"
    )
}

/// A clip's frames are of one size and hold the pixels that they should.
fn check_frames(clip: &VideoClip) -> Result<(), String> {
    let first = clip.frames.first().ok_or("the clip has no frames")?;
    if let Some(other) = clip
        .frames
        .iter()
        .find(|frame| (frame.width, frame.height) != (first.width, first.height))
    {
        return Err(format!(
            "its frames have several sizes, {}x{} and {}x{}",
            first.width, first.height, other.width, other.height
        ));
    }
    clip.frames.iter().try_for_each(check_pixels)
}

fn check_pixels(image: &RgbImage) -> Result<(), String> {
    let (height, width) = (image.height as usize, image.width as usize);
    check_sides(height, width)?;
    if image.data.len() != height * width * 3 {
        return Err(format!(
            "{width}x{height} pixels need {} bytes and it has {}",
            height * width * 3,
            image.data.len()
        ));
    }
    Ok(())
}

fn check_sides(height: usize, width: usize) -> Result<(), String> {
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(format!(
            "{width}x{height} pixels: each side must be from 1 to {MAX_SIDE}"
        ));
    }
    Ok(())
}

/// The `(height, width)` that a picture of this `(height, width)` is resized to.
pub(crate) fn target_size(
    (height, width): (usize, usize),
    config: &PictureConfig,
    bounds: PixelBounds,
) -> Result<(usize, usize), String> {
    check_sides(height, width)?;
    if !config.resize {
        return Ok((height, width));
    }
    smart_resize(height, width, config.factor(), bounds).map_err(|error| error.to_string())
}

/// The patches of all items of one kind; `None` if there are none.
fn patches_of(
    plans: &[&PicturePlan],
    config: &PictureConfig,
    colours: &ColourTable,
) -> Option<Patches> {
    if plans.is_empty() {
        return None;
    }
    let grids: Vec<Grid> = plans.iter().map(|it| it.laid_out(config.merge)).collect();
    let rows: usize = grids.iter().map(Grid::patches).sum();
    let mut data = Vec::with_capacity(rows * config.patch_values());
    for plan in plans {
        let groups = plan.frames.chunks(config.temporal_patch).enumerate();
        let is_there = |step: usize| {
            let window = plan.window;
            window.is_none_or(|window| window.steps.binary_search(&step).is_ok())
        };
        for (_, group) in groups.filter(|(step, _)| is_there(*step)) {
            let resized: Vec<Cow<[u8]>> = group
                .iter()
                .map(|frame| {
                    let (height, width) = (frame.height as usize, frame.width as usize);
                    resize_rgb(&frame.data, height, width, plan.size, config.filter)
                })
                .collect();
            let frames: Vec<&[u8]> = resized.iter().map(AsRef::as_ref).collect();
            match plan.window {
                None => append_patches(&frames, plan.grid, config, colours, &mut data),
                Some(window) => {
                    let squares = (window.rows.clone(), window.columns.clone());
                    append_squares(&frames, plan.grid, squares, config, colours, &mut data);
                }
            }
        }
    }
    let values = Array {
        shape: vec![rows, config.patch_values()],
        data,
    };
    Some(Patches { values, grids })
}

/// The features of all sounds; `None` if there are none. `chunk`: mel frames that the encoder looks at by themselves.
fn mels_of(sounds: &[&SoundPlan], mel: &MelExtractor, chunk: Option<usize>) -> Option<Mels> {
    if sounds.is_empty() {
        return None;
    }
    let mut data = Vec::with_capacity(sounds.len() * mel.mels() * mel.frames());
    let mut valid_frames = Vec::with_capacity(sounds.len());
    for sound in sounds {
        let spectrogram = mel.extract(&sound.clip.samples);
        let Some(window) = sound.window else {
            data.extend(spectrogram.features);
            valid_frames.push(spectrogram.valid);
            continue;
        };
        let valid = spectrogram.valid;
        let chunk = chunk.unwrap_or(valid);
        let chunks = window.steps.iter().map(|&step| {
            let first = step.saturating_mul(chunk).min(valid);
            first..first.saturating_add(chunk).min(valid)
        });
        let chunks: Vec<Range<usize>> = chunks.collect();
        for row in spectrogram.features.chunks_exact(mel.frames()) {
            let end = data.len() + mel.frames();
            for chunk in &chunks {
                data.extend_from_slice(row.get(chunk.clone()).unwrap_or_default());
            }
            // Padding, which nobody looks at.
            data.resize(end, row.last().copied().unwrap_or_default());
        }
        valid_frames.push(chunks.iter().map(ExactSizeIterator::len).sum());
    }
    Some(Mels {
        features: Array {
            shape: vec![sounds.len(), mel.mels(), mel.frames()],
            data,
        },
        valid_frames,
    })
}
