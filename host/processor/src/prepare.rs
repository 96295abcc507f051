//! From messages and decoded media to a model's inputs.
//!
//! Sizes come first: every grid and token count is known, and held against the limits, before a pixel is touched.

use std::borrow::Cow;

use msao_core::chat::{Message, Modality};
use msao_core::inputs::{Array, Grid, Mels, ModelInputs, Patches};
use msao_media::{AudioClip, RgbImage, VideoClip};

use crate::config::{PictureConfig, PixelBounds};
use crate::error::ProcessorError;
use crate::mel::MelExtractor;
use crate::patches::{ColourTable, append_patches, grid_of};
use crate::placeholders::{self, MediaSpan};
use crate::processor::Processor;
use crate::resize::resize_rgb;
use crate::smart_resize::{MAX_SIDE, smart_resize};
use crate::video;

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
enum Plan<'a> {
    Image(PicturePlan<'a>),
    Clip(PicturePlan<'a>),
    Sound(&'a AudioClip),
}

/// A picture or clip, the size that its frames are resized to, and its grid.
struct PicturePlan<'a> {
    frames: &'a [RgbImage],
    size: (usize, usize),
    grid: Grid,
    seconds_per_grid: Option<f32>,
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
        let modalities = self.check_media(messages, media)?;
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
    fn check_media(
        &self,
        messages: &[Message],
        media: &[Media],
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
        for (index, (&named, medium)) in named.iter().zip(media).enumerate() {
            let given = medium.modality();
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

    fn plan<'a>(
        &self,
        index: usize,
        medium: &'a Media,
        notes: &mut Vec<String>,
    ) -> Result<Plan<'a>, ProcessorError> {
        let fail = |message: String| ProcessorError::media(index, medium.modality(), message);
        match medium {
            Media::Image(image) => {
                let config = &self.media.image;
                let bounds = self.options.image_bounds.unwrap_or(config.bounds);
                let size = target_size(image, config, bounds).map_err(fail)?;
                let grid = grid_of(1, size.0, size.1, config)
                    .ok_or_else(|| fail(whole_patches(size, config)))?;
                let frames = std::slice::from_ref(image);
                Ok(Plan::Image(PicturePlan {
                    frames,
                    size,
                    grid,
                    seconds_per_grid: None,
                }))
            }
            Media::Video(clip) => self.plan_clip(clip).map(Plan::Clip).map_err(fail),
            Media::Audio(clip) => {
                let mel = self.mel.as_ref().ok_or_else(|| {
                    fail("preprocessor_config.json and processor_config.json have no settings for sounds".to_owned())
                })?;
                let samples = clip.samples.len();
                if audio_tokens(mel.valid_frames(samples)) == 0 {
                    return Err(fail(format!(
                        "{samples} samples at 16 kHz are too few for one token; it takes 321"
                    )));
                }
                if samples > mel.max_samples() {
                    notes.push(format!(
                        "media item {index} (Audio): cut after {} of {:.1} seconds, the chunk_length of the model",
                        mel.max_samples() / 16_000,
                        samples as f64 / 16_000.0
                    ));
                }
                Ok(Plan::Sound(clip))
            }
        }
    }

    fn plan_clip<'a>(&self, clip: &'a VideoClip) -> Result<PicturePlan<'a>, String> {
        let config = &self.media.video;
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
        let kept = clip.frames.len();
        let family = self.family.rules();
        let bounds = self
            .options
            .frame_bounds
            .or(family.frame_bounds())
            .unwrap_or(config.picture.bounds);
        let bounds = video::frame_bounds(bounds, kept, config);
        for frame in &clip.frames {
            check_pixels(frame)?;
        }
        let size = target_size(first, &config.picture, bounds)?;
        let grid = grid_of(kept, size.0, size.1, &config.picture)
            .ok_or_else(|| whole_patches(size, &config.picture))?;
        let rate = video::sampled_fps(kept, clip.info.frames.max(kept), clip.info.fps);
        let asked = self.options.sampling.asked_fps();
        let seconds_per_grid = family.seconds_per_grid(config.picture.temporal_patch, rate, asked);
        Ok(PicturePlan {
            frames: &clip.frames,
            size,
            grid,
            seconds_per_grid,
        })
    }

    fn tokens(&self, plan: &Plan) -> usize {
        match plan {
            Plan::Image(plan) => plan.grid.patches() / self.media.image.merge.pow(2),
            Plan::Clip(plan) => plan.grid.patches() / self.media.video.picture.merge.pow(2),
            Plan::Sound(clip) => self
                .mel
                .as_ref()
                .map_or(0, |mel| audio_tokens(mel.valid_frames(clip.samples.len()))),
        }
    }

    fn check_limits(
        &self,
        ids: &[u32],
        plans: &[Plan],
        tokens: &[usize],
    ) -> Result<(), ProcessorError> {
        // Each medium's one placeholder is among the ids already.
        let total = ids.len() - tokens.len() + tokens.iter().sum::<usize>();
        let (limit, source_of_limit) = self.token_limit();
        if total > limit {
            return Err(ProcessorError::PromptTooLong {
                tokens: total,
                limit,
                source_of_limit,
            });
        }
        let values = plans.iter().map(|plan| match plan {
            Plan::Image(plan) => plan.grid.patches() * self.media.image.patch_values(),
            Plan::Clip(plan) => plan.grid.patches() * self.media.video.picture.patch_values(),
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
    fn process(&self, plans: &[Plan]) -> ModelInputs {
        let (mut images, mut clips, mut sounds) = (Vec::new(), Vec::new(), Vec::new());
        for plan in plans {
            match plan {
                Plan::Image(plan) => images.push(plan),
                Plan::Clip(plan) => clips.push(plan),
                Plan::Sound(clip) => sounds.push(*clip),
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
            audio: self.mel.as_ref().and_then(|mel| mels_of(&sounds, mel)),
        }
    }
}

/// Tokens of a sound of so many mel frames: halved by a convolution (rounding up), then by a pool (rounding down).
///
/// Formula: `((frames - 1) // 2 + 1 - 2) // 2 + 1` of `Qwen2_5OmniProcessor`.
fn audio_tokens(frames: usize) -> usize {
    frames.div_ceil(2) / 2
}

fn whole_patches((height, width): (usize, usize), config: &PictureConfig) -> String {
    let factor = config.factor();
    format!(
        "{width}x{height} pixels, and without a resize (do_resize) both sides must be multiples of {factor}"
    )
}

fn check_pixels(image: &RgbImage) -> Result<(usize, usize), String> {
    let (height, width) = (image.height as usize, image.width as usize);
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(format!(
            "{width}x{height} pixels: each side must be from 1 to {MAX_SIDE}"
        ));
    }
    if image.data.len() != height * width * 3 {
        return Err(format!(
            "{width}x{height} pixels need {} bytes and it has {}",
            height * width * 3,
            image.data.len()
        ));
    }
    Ok((height, width))
}

/// The `(height, width)` that a picture is resized to.
fn target_size(
    image: &RgbImage,
    config: &PictureConfig,
    bounds: PixelBounds,
) -> Result<(usize, usize), String> {
    let (height, width) = check_pixels(image)?;
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
    let rows: usize = plans.iter().map(|plan| plan.grid.patches()).sum();
    let mut data = Vec::with_capacity(rows * config.patch_values());
    for plan in plans {
        for group in plan.frames.chunks(config.temporal_patch) {
            let resized: Vec<Cow<[u8]>> = group
                .iter()
                .map(|frame| {
                    let (height, width) = (frame.height as usize, frame.width as usize);
                    resize_rgb(&frame.data, height, width, plan.size, config.filter)
                })
                .collect();
            let frames: Vec<&[u8]> = resized.iter().map(AsRef::as_ref).collect();
            append_patches(&frames, plan.grid, config, colours, &mut data);
        }
    }
    let values = Array {
        shape: vec![rows, config.patch_values()],
        data,
    };
    Some(Patches {
        values,
        grids: plans.iter().map(|plan| plan.grid).collect(),
    })
}

/// The features of all sounds; `None` if there are none.
fn mels_of(sounds: &[&AudioClip], mel: &MelExtractor) -> Option<Mels> {
    if sounds.is_empty() {
        return None;
    }
    let mut data = Vec::with_capacity(sounds.len() * mel.mels() * mel.frames());
    let mut valid_frames = Vec::with_capacity(sounds.len());
    for sound in sounds {
        let spectrogram = mel.extract(&sound.samples);
        data.extend(spectrogram.features);
        valid_frames.push(spectrogram.valid);
    }
    Some(Mels {
        features: Array {
            shape: vec![sounds.len(), mel.mels(), mel.frames()],
            data,
        },
        valid_frames,
    })
}
