//! From what a client sent to what a model reads. Decoding and resizing take milliseconds to seconds: not for the threads
//! that serve sockets.

use std::sync::Arc;

use bytes::Bytes;
use msao_api::{ApiError, ChatRequest, Detail, Source};
use msao_core::chat::{Message, Modality};
use msao_core::digest::Digest;
use msao_core::inputs::{Grid, ModelInputs, Patches};
use msao_media::{Limits, MediaError};
use msao_processor::{DecodeError, Extent, Media, Prepared, Processor, ProcessorError};
use msao_session::frame::{self, Identity};
use tokio_util::sync::CancellationToken;

use super::detail::low;
use super::retain::Kept;
use crate::models::Model;

/// A medium as the client sent it, or a picture as it is read in low detail; and what it turned out to be.
#[derive(Clone, Debug)]
pub struct Medium {
    /// What it is.
    pub modality: Modality,
    /// The encoded bytes.
    pub bytes: Bytes,
    /// Of the bytes.
    pub digest: Digest,
    /// Pixels across and down; 0 for sounds.
    pub size_px: (u32, u32),
    /// Frames that the model looks at; 1 for an image, for a sound its segments of a token each.
    pub frames: u32,
    /// Of a clip, the numbers of its frames that the model looks at; empty otherwise.
    pub sampled: Vec<u32>,
    /// Length of a clip or a sound, in ms; 0 for an image.
    pub duration_ms: f64,
    /// Tokens in the prompt.
    pub tokens: u32,
    /// Their extent: frames, rows and columns of tokens. A sound is as long as it has tokens, and 1 x 1 otherwise.
    pub grid: Grid,
    /// What its layout depends on.
    pub extent: Extent,
}

/// A chat, laid out for one model.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// The chat.
    pub messages: Vec<Message>,
    /// Its media in reading order.
    pub media: Vec<Medium>,
    /// What the model reads.
    pub inputs: Arc<ModelInputs>,
    /// The model that it was laid out for: others read the same where tokenizer and processor are equal.
    pub identity: Identity,
    /// What was done to media that the client may want to know.
    pub notes: Vec<String>,
    /// Of chat and media, without ids, times and seeds.
    pub content: Digest,
}

impl Prompt {
    /// Tokens in all.
    pub fn tokens(&self) -> usize {
        self.inputs.input_ids.len()
    }

    /// The same as a peer is told it that gets media as they came: by digest, and what the target reads of them.
    pub fn for_peer(&self, kept: &Kept) -> frame::Prompt {
        let media = self.media.iter().enumerate();
        let media = media.map(|(number, medium)| frame::Medium {
            digest: medium.digest,
            modality: medium.modality,
            keep: (kept.of(number)).map(|kept| frame::keep_bits(kept, medium.tokens as usize)),
            made: None,
        });
        frame::Prompt {
            messages: self.messages.clone(),
            media: media.collect(),
        }
    }
}

/// Decodes a request's media, which have been fetched, and lays its prompt out. Slow: see the module. Looks now and then whether the client has
/// `gone`.
///
/// # Errors
/// 400, 413 or 415, with the field that it is about.
pub fn prepare(
    request: &mut ChatRequest,
    model: &Model,
    limits: &Limits,
    gone: &CancellationToken,
) -> Result<Prompt, ApiError> {
    let processor = &model.processor;
    // Those that were decoded count against what the next may be.
    let mut limits = limits.clone();
    let most = limits.max_decoded_bytes;
    let mut media = Vec::with_capacity(request.media.len());
    let mut decoded = Vec::with_capacity(request.media.len());
    for medium in &mut request.media {
        if gone.is_cancelled() {
            // Nobody hears it.
            return Err(ApiError::internal());
        }
        let bytes = match std::mem::replace(&mut medium.source, Source::Bytes(Vec::new())) {
            Source::Bytes(bytes) => Bytes::from(bytes),
            Source::Url(_) => {
                tracing::error!("a medium is to be decoded that was not fetched");
                return Err(ApiError::internal());
            }
        };
        let one = processor.decode(medium.modality, &bytes, &limits);
        let one = one.map_err(|error| refused(&error, &medium.field))?;
        let (bytes, one) = match medium.detail {
            Detail::Low => in_low_detail(processor, bytes, one, &limits, &medium.field)?,
            Detail::Auto | Detail::High | Detail::Original => (bytes, one),
        };
        let left = limits.max_decoded_bytes.checked_sub(decoded_bytes(&one));
        limits.max_decoded_bytes = left.ok_or_else(|| {
            let field = &medium.field;
            let why = format!(
                "{field}: with those before it, it takes more than {most} bytes once it is decoded (media.decoded-mib)."
            );
            ApiError::too_large(Some(field.clone()), why)
        })?;
        media.push(described(medium.modality, bytes, &one));
        decoded.push(one);
    }
    let fields: Vec<&str> = request.media.iter().map(|it| it.field.as_str()).collect();
    let prepared = processor
        .prepare(&request.messages, &decoded)
        .map_err(|error| unprepared(&error, &fields))?;
    let grids = grids(processor, &prepared);
    for ((medium, span), grid) in media.iter_mut().zip(&prepared.spans).zip(grids) {
        medium.tokens = span.tokens.len() as u32;
        medium.grid = grid;
        if medium.modality == Modality::Audio {
            medium.frames = grid.t as u32;
        }
    }
    let mut prompt = Prompt {
        messages: request.messages.clone(),
        media,
        inputs: Arc::new(prepared.inputs),
        identity: model.identity,
        notes: prepared.notes,
        content: Digest([0; 32]),
    };
    prompt.content = prompt.for_peer(&Kept::default()).digest();
    Ok(prompt)
}

/// A medium of which its client wants no more than low detail. That has a meaning for pictures alone.
fn in_low_detail(
    processor: &Processor,
    bytes: Bytes,
    media: Media,
    limits: &Limits,
    field: &str,
) -> Result<(Bytes, Media), ApiError> {
    let Media::Image(image) = &media else {
        return Ok((bytes, media));
    };
    let smaller = low(image, processor).map_err(|why| ApiError::invalid_media(field, &why))?;
    let Some(smaller) = smaller else {
        return Ok((bytes, media));
    };
    // What is read here is what another node would decode.
    let smaller = Bytes::from(smaller);
    let read = processor.decode(Modality::Image, &smaller, limits);
    let read = read.map_err(|error| refused(&error, field))?;
    tracing::debug!(
        field,
        bytes = smaller.len(),
        of = bytes.len(),
        "a picture is read in low detail"
    );
    Ok((smaller, read))
}

/// The extents of a prompt's media in tokens, in their order.
fn grids(processor: &Processor, prepared: &Prepared) -> Vec<Grid> {
    let (config, inputs) = (processor.media_config(), &prepared.inputs);
    let mut images = in_tokens(inputs.images.as_ref(), config.image.merge);
    let mut clips = in_tokens(inputs.videos.as_ref(), config.video.picture.merge);
    let spans = prepared.spans.iter().map(|span| {
        let tokens = span.tokens.len();
        let grid = match span.modality {
            Modality::Image => images.next(),
            Modality::Video => clips.next(),
            Modality::Text | Modality::Audio => None,
        };
        let in_a_row = Grid {
            t: tokens,
            h: 1,
            w: 1,
        };
        grid.filter(|grid| grid.patches() == tokens)
            .unwrap_or(in_a_row)
    });
    spans.collect()
}

/// Extents in tokens, each of which a square of patches with sides of `merge` has become.
fn in_tokens(patches: Option<&Patches>, merge: usize) -> impl Iterator<Item = Grid> {
    let grids = patches.map_or(&[][..], |patches| patches.grids.as_slice());
    let merge = merge.max(1);
    grids.iter().map(move |grid| Grid {
        t: grid.t,
        h: grid.h / merge,
        w: grid.w / merge,
    })
}

/// Memory that a decoded medium takes.
pub(super) fn decoded_bytes(media: &Media) -> u64 {
    let pixels = |width: u32, height: u32| u64::from(width) * u64::from(height);
    match media {
        Media::Image(image) => 3 * pixels(image.width, image.height),
        Media::Video(clip) => {
            let frames = clip.frames.iter();
            3 * frames
                .map(|frame| pixels(frame.width, frame.height))
                .sum::<u64>()
        }
        Media::Audio(sound) => (size_of::<f32>() * sound.samples.len()) as u64,
    }
}

fn described(modality: Modality, bytes: Bytes, media: &Media) -> Medium {
    let (size_px, frames, duration_ms) = match media {
        Media::Image(image) => ((image.width, image.height), 1, 0.0),
        Media::Video(clip) => {
            let first = clip.frames.first();
            let size = first.map_or((0, 0), |frame| (frame.width, frame.height));
            // Never zero, the rate.
            let length_ms = clip.info.frames as f64 / clip.info.fps * 1000.0;
            (size, clip.frames.len() as u32, length_ms)
        }
        Media::Audio(sound) => {
            let per_ms = f64::from(msao_media::SAMPLE_RATE) / 1000.0;
            ((0, 0), 0, sound.samples.len() as f64 / per_ms)
        }
    };
    let sampled = match media {
        Media::Video(clip) => clip.indices.iter().map(|&it| it as u32).collect(),
        Media::Image(_) | Media::Audio(_) => Vec::new(),
    };
    Medium {
        modality,
        digest: Digest::of(&bytes),
        bytes,
        size_px,
        frames,
        sampled,
        duration_ms,
        tokens: 0,
        grid: Grid { t: 0, h: 0, w: 0 },
        extent: Extent::of(media),
    }
}

/// A medium that cannot be decoded.
pub(crate) fn refused(error: &DecodeError, field: &str) -> ApiError {
    let why = error.to_string();
    match error {
        DecodeError::Media(
            MediaError::TooManyBytes { .. }
            | MediaError::TooManyPixels { .. }
            | MediaError::TooLong { .. }
            | MediaError::TooManyFrames { .. }
            | MediaError::TooManyStoredFrames { .. }
            | MediaError::TooManyDecodedBytes { .. },
        ) => ApiError::too_large(Some(field.to_owned()), format!("{field}: {why}.")),
        DecodeError::Media(MediaError::UnknownFormat { .. }) => {
            ApiError::unsupported_media_type(Some(field.to_owned()), format!("{field}: {why}."))
        }
        _ => ApiError::invalid_media(field, &why),
    }
}

/// A chat that cannot be laid out.
fn unprepared(error: &ProcessorError, fields: &[&str]) -> ApiError {
    let of_medium = |index: &usize| fields.get(*index).copied().unwrap_or("messages");
    match error {
        ProcessorError::Media { index, .. }
        | ProcessorError::Modality { index, .. }
        | ProcessorError::MediaOrder { index, .. } => {
            ApiError::invalid_media(of_medium(index), &error.to_string())
        }
        ProcessorError::PromptTooLong { tokens, limit, .. } => {
            ApiError::context_length_exceeded(*tokens, 1, *limit)
        }
        ProcessorError::MediaTooLarge { .. } => {
            ApiError::too_large(Some("messages".into()), format!("{error}."))
        }
        // What is wrong with the node's own files is not the client's to know.
        ProcessorError::Read { .. }
        | ProcessorError::MissingFile { .. }
        | ProcessorError::Config { .. } => {
            tracing::error!(%error, "the model's files cannot be used");
            ApiError::internal()
        }
        _ => ApiError::invalid_value("messages", &format!("{error}.")),
    }
}
