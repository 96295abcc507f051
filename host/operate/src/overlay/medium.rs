//! A medium of a record, with the file that an operator has of it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use msao_core::digest::Digest;
use msao_core::offload::kept::{Extent, MediumKept, Reading};
use msao_core::offload::modality;
use msao_media::{Limits, RgbImage};
use serde_json::Value;

/// Tokens of a medium at most: far more than a context holds.
const MAX_TOKENS: u32 = 1 << 20;

/// A medium: what was read of it, and what is there to look at.
pub struct Medium {
    /// The contract's number.
    pub modality: u8,
    /// What was read.
    pub kept: MediumKept,
    /// What the operator's file shows.
    pub seen: Seen,
}

/// What there is to look at.
pub enum Seen {
    /// Nothing: no file was given.
    Nothing,
    /// A picture.
    Image(RgbImage),
    /// Frames of a clip by the numbers that the model has for them: those of which anything was kept.
    Frames(BTreeMap<u32, RgbImage>),
    /// Samples in [-1, 1].
    Sound(Vec<f32>),
}

/// The media of a record.
///
/// # Errors
/// The record tells nothing of media, or what cannot be.
pub fn media_of(record: &Value) -> anyhow::Result<Vec<Medium>> {
    let parts = record.get("parts").and_then(Value::as_array);
    let modalities = parts.into_iter().flatten().filter_map(|part| {
        let number = part.get("modality")?.as_u64()?;
        u8::try_from(number).ok().filter(|it| *it != modality::TEXT)
    });
    let modalities: Vec<u8> = modalities.collect();
    if modalities.is_empty() {
        bail!("the request had no media: there is nothing to draw");
    }
    let Some(told) = record.get("media") else {
        bail!(
            "the record does not say which media these were and what was read of them: the node is older than this program, \
             or its operator has it left out ([records] redact = [\"media\"])"
        );
    };
    let told: Vec<MediumKept> = serde_json::from_value(told.clone()).context(
        "what the record says of media is not understood; use the `msao` of that node's version",
    )?;
    if told.len() != modalities.len() {
        bail!(
            "the record tells of {} media, and the request had {}",
            told.len(),
            modalities.len()
        );
    }
    let media = modalities.into_iter().zip(told).enumerate();
    media
        .map(|(number, (modality, kept))| {
            for reading in [&kept.draft, &kept.target].into_iter().flatten() {
                check(&kept.extent, reading)
                    .with_context(|| format!("medium {} of the record", number + 1))?;
            }
            Ok(Medium {
                modality,
                kept,
                seen: Seen::Nothing,
            })
        })
        .collect()
}

/// Holds a reading against itself.
fn check(own: &Extent, reading: &Reading) -> anyhow::Result<()> {
    let extent = reading.extent.unwrap_or(*own);
    let tokens = extent.tokens();
    if !(1..=MAX_TOKENS).contains(&tokens) {
        bail!("has {tokens} tokens; 1 to {MAX_TOKENS} can be drawn");
    }
    if let Some(kept) = reading.kept.as_ref().filter(|it| it.tokens() != tokens) {
        bail!(
            "has {tokens} tokens, and those read are told of {}",
            kept.tokens()
        );
    }
    Ok(())
}

/// The frames of which anything was read, rising.
pub fn kept_frames(extent: &Extent, reading: &Reading) -> Vec<u32> {
    let Some(kept) = &reading.kept else {
        return (0..extent.frames).collect();
    };
    let per_frame = extent.per_frame().max(1);
    let tokens = (0..kept.tokens()).filter(|token| kept.contains(*token));
    let mut frames: Vec<u32> = tokens.map(|token| token / per_frame).collect();
    frames.dedup();
    frames
}

/// Reads the files that an operator has of the media, in prompt order; the media for which there is none stay unseen. Nothing
/// is read of a file that is not the medium, to the byte.
///
/// # Errors
/// There are more files than media, a file is another one, or it cannot be decoded.
pub fn look(media: &mut [Medium], files: &[impl AsRef<Path>]) -> anyhow::Result<()> {
    if files.len() > media.len() {
        bail!(
            "{} files are given with --media, and the request had {} media",
            files.len(),
            media.len()
        );
    }
    let digests: Vec<Digest> = media.iter().map(|medium| medium.kept.digest).collect();
    for (number, (medium, file)) in media.iter_mut().zip(files).enumerate() {
        let file = file.as_ref();
        let limits = Limits::default();
        let bytes = msao_media::read_file(file, &limits)?;
        let (found, wanted) = (Digest::of(&bytes), medium.kept.digest);
        if found != wanted {
            let other = digests.iter().position(|it| *it == found);
            let place = other.map_or_else(String::new, |other| {
                format!(
                    " It is medium {} of the request: give the files in its order.",
                    other + 1
                )
            });
            bail!(
                "{} is not medium {} of the request: its SHA-256 is {found}, and {wanted} is wanted.{place}",
                file.display(),
                number + 1,
            );
        }
        medium.seen = seen(medium, &bytes, &limits)
            .with_context(|| format!("cannot show {}", file.display()))?;
    }
    Ok(())
}

fn seen(medium: &Medium, bytes: &[u8], limits: &Limits) -> anyhow::Result<Seen> {
    Ok(match medium.modality {
        modality::AUDIO => Seen::Sound(msao_media::decode_audio(bytes, limits)?.samples),
        modality::VIDEO => Seen::Frames(frames(&medium.kept, bytes, limits)?),
        _ => Seen::Image(msao_media::decode_image(bytes, limits)?),
    })
}

/// Of each of the model's frames of which anything was kept, the first frame of the clip that is part of it.
fn frames(
    kept: &MediumKept,
    bytes: &[u8],
    limits: &Limits,
) -> anyhow::Result<BTreeMap<u32, RgbImage>> {
    if kept.sampled.is_empty() {
        bail!("the record does not say which of its frames were looked at");
    }
    let readings = [&kept.draft, &kept.target].into_iter().flatten();
    let mut wanted: Vec<u32> = readings
        .flat_map(|reading| kept_frames(&reading.extent.unwrap_or(kept.extent), reading))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let all = kept.sampled.len() as u64;
    let first = |frame: &u32| {
        let place = u64::from(*frame) * all / u64::from(kept.extent.frames.max(1));
        let place = usize::try_from(place.min(all - 1)).unwrap_or(usize::MAX);
        kept.sampled.get(place).map_or(0, |number| *number as usize)
    };
    let choice: Vec<usize> = wanted.iter().map(first).collect();
    if choice.is_empty() {
        return Ok(BTreeMap::new());
    }
    let clip = msao_media::decode_video(bytes, limits, &mut |_| choice.clone())?;
    Ok(wanted.into_iter().zip(clip.frames).collect())
}

#[cfg(test)]
mod tests;
