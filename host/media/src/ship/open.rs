//! From the bytes of a shipment to a medium of the full size.

use super::pixels::Pixels;
use super::region::Region;
use super::wire::{self, Head};
use super::{SentAudio, SentPicture, SentVideo, Shipment, flac};
use crate::audio::{AudioClip, SAMPLE_RATE, decode_audio};
use crate::error::MediaError;
use crate::image::{RgbImage, decode_image};
use crate::limits::Limits;
use crate::sniff::{Format, MediaKind, expect_shipment, sniff};
use crate::video::{VideoClip, VideoInfo};

/// Opens what another node shipped.
///
/// The header is held against `limits` as a file's is, before anything is decoded: bytes in all, pixels of the canvas,
/// frames of the clip and sampled ones, bytes of all sampled frames, seconds of sound. The length of a clip in seconds
/// is not: the node that read the clip has seen to it, and nothing here takes longer for it.
///
/// # Errors
/// Any [`MediaError`] but [`MediaError::BadChoice`] and [`MediaError::BadWay`].
pub fn open_shipment(bytes: &[u8], limits: &Limits) -> Result<Shipment, MediaError> {
    limits.check_bytes(bytes.len() as u64)?;
    let kind = expect_shipment(bytes)?;
    let (head, parts) = wire::read(kind, bytes, limits)?;
    let mut parts = parts.into_iter();
    match head {
        Head::Image(sent) => {
            let part = parts.next().unwrap_or_default();
            let image = picture(kind, part, sent.canvas, &sent.picture, limits)?;
            Ok(Shipment::Image { image, sent })
        }
        Head::Video {
            info,
            indices,
            sent,
        } => {
            let clip = clip(info, indices, parts, &sent, limits)?;
            Ok(Shipment::Video { clip, sent })
        }
        Head::Audio(sent) => {
            let sound = sound(parts.next().unwrap_or_default(), &sent, limits)?;
            Ok(Shipment::Audio { sound, sent })
        }
    }
}

fn clip<'a>(
    info: VideoInfo,
    indices: Vec<usize>,
    parts: impl Iterator<Item = &'a [u8]>,
    sent: &SentVideo,
    limits: &Limits,
) -> Result<VideoClip, MediaError> {
    let mut frames: Vec<RgbImage> = Vec::with_capacity(sent.sampled);
    let repeat = |frames: &mut Vec<RgbImage>, until: usize| {
        if let Some(last) = frames.last().cloned() {
            frames.resize(until, last);
        }
    };
    for (frame, part) in sent.frames.iter().zip(parts) {
        let image = picture(MediaKind::Video, part, sent.canvas, &frame.picture, limits)?;
        if frames.is_empty() {
            frames.resize(frame.position, image.clone());
        }
        repeat(&mut frames, frame.position);
        frames.push(image);
    }
    repeat(&mut frames, sent.sampled);
    Ok(VideoClip {
        info,
        frames,
        indices,
    })
}

/// A picture of the canvas's size. `limits` are the caller's, of which the size has been checked.
fn picture(
    kind: MediaKind,
    part: &[u8],
    canvas: (u32, u32),
    sent: &SentPicture,
    limits: &Limits,
) -> Result<RgbImage, MediaError> {
    let damaged = |detail: &str| MediaError::corrupt(Format::Shipment(kind), detail);
    let region = sent.region;
    if sniff(part) != Some(Format::Jpeg) {
        return Err(damaged("a picture in it is no JPEG"));
    }
    // A part is not decoded at a size that the header has not accounted for.
    let as_said = Limits {
        max_pixels: region.area_px(),
        ..limits.clone()
    };
    let other_size = || damaged("a picture in it has another size than its header says");
    let image = decode_image(part, &as_said).map_err(|error| match error {
        MediaError::TooManyPixels { .. } => other_size(),
        error => error,
    })?;
    if (image.width, image.height) != (region.width, region.height) {
        return Err(other_size());
    }
    if region == Region::whole(canvas) {
        return Ok(image);
    }
    let real = Pixels::of(&image).ok_or_else(other_size)?;
    let mut all = Pixels::filled(canvas, sent.fill);
    all.paste(&real, Region::whole(real.size), (region.x, region.y));
    Ok(all.into_image())
}

fn sound(part: &[u8], sent: &SentAudio, limits: &Limits) -> Result<AudioClip, MediaError> {
    let damaged = |detail: &str| MediaError::corrupt(Format::Shipment(MediaKind::Audio), detail);
    if flac::rate(part) != Some(SAMPLE_RATE) {
        return Err(damaged("its sound is no FLAC at 16 kHz"));
    }
    let count: usize = sent.segments.iter().map(ExactSizeIterator::len).sum();
    let as_said = Limits {
        max_audio_seconds: count as f64 / f64::from(SAMPLE_RATE),
        ..limits.clone()
    };
    let other_length = || damaged("its sound has another length than its header says");
    let real = decode_audio(part, &as_said).map_err(|error| match error {
        MediaError::TooLong { .. } => other_length(),
        error => error,
    })?;
    if real.samples.len() != count {
        return Err(other_length());
    }
    let mut samples = vec![0.0; sent.samples];
    let mut rest = real.samples.as_slice();
    for segment in &sent.segments {
        let Some((own, after)) = rest.split_at_checked(segment.len()) else {
            return Err(other_length());
        };
        if let Some(place) = samples.get_mut(segment.clone()) {
            place.copy_from_slice(own);
        }
        rest = after;
    }
    Ok(AudioClip { samples })
}
