//! Clips to sampled RGB frames.
//!
//! A clip is read in two steps: its frame list, without decoding ([`VideoInfo`]), then only as many frames as the
//! caller chose from that list. Memory is bounded by the frames that are kept, time by the last one of them.
//!
//! - **MP4** ([`mp4`], [`h264`]): the first video track; sound and edit lists are ignored, a rotation stored in the
//!   track header is not applied. Frames are in order of their composition times.
//! - **GIF and WebP** ([`animation`]): frames are composed as they are shown. A still picture is a clip of one frame.

mod animation;
mod colour;
mod h264;
mod keeper;
mod mp4;

use self::keeper::Keeper;
use crate::error::MediaError;
use crate::guard::shielded;
use crate::image::RgbImage;
use crate::limits::Limits;
use crate::sniff::{Format, MediaKind, expect};

/// What a clip is like as stored, before any frame is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoInfo {
    /// Width of a frame in pixels, after cropping.
    pub width: u32,
    /// Height of a frame in pixels, after cropping.
    pub height: u32,
    /// Number of frames; at least 1.
    pub frames: usize,
    /// Frames per second on average: frames over duration, as ffmpeg's `avg_frame_rate`. 1 where no duration is
    /// stored, as in a still picture; never zero.
    pub fps: f64,
}

/// The frames that were chosen.
#[derive(Clone, Debug)]
pub struct VideoClip {
    /// The clip as stored.
    pub info: VideoInfo,
    /// One frame for every entry of `indices`.
    pub frames: Vec<RgbImage>,
    /// Which frames of the clip these are, in order of display, from 0.
    pub indices: Vec<usize>,
}

/// Reads what a clip is like, without decoding a frame.
///
/// # Errors
/// As [`decode_video`], but damage inside the frames is not seen.
pub fn probe_video(bytes: &[u8], limits: &Limits) -> Result<VideoInfo, MediaError> {
    Ok(open(bytes, limits)?.info())
}

/// Decodes the frames that `choose` names: their indices in ascending order, where an index may be repeated.
///
/// `choose` is called once, after the clip was held against `limits`. What it names is held against them too, before
/// anything is decoded: [`MediaError::TooManyFrames`], [`MediaError::TooManyDecodedBytes`].
///
/// # Errors
/// Any [`MediaError`]; [`MediaError::BadChoice`] where `choose` names a frame that there is not.
pub fn decode_video(
    bytes: &[u8],
    limits: &Limits,
    choose: &mut dyn FnMut(&VideoInfo) -> Vec<usize>,
) -> Result<VideoClip, MediaError> {
    let clip = open(bytes, limits)?;
    let info = clip.info();
    let mut keeper = Keeper::new(&info, choose(&info), limits)?;
    let format = clip.format();
    let frames = shielded(format, || {
        if !keeper.done() {
            match &clip {
                Clip::Movie(movie) => h264::decode(bytes, movie, &mut keeper)?,
                Clip::Animation(animation) => animation.decode(bytes, limits, &mut keeper)?,
            }
        }
        keeper.finish(format)
    });
    let (frames, indices) = frames?;
    Ok(VideoClip {
        info,
        frames,
        indices,
    })
}

/// A clip whose frame list has been read and found within the limits.
enum Clip {
    Movie(h264::Movie),
    Animation(animation::Animation),
}

impl Clip {
    fn info(&self) -> VideoInfo {
        match self {
            Self::Movie(movie) => movie.info,
            Self::Animation(animation) => animation.info,
        }
    }

    fn format(&self) -> Format {
        match self {
            Self::Movie(_) => Format::Mp4,
            Self::Animation(animation) => animation.format,
        }
    }
}

fn open(bytes: &[u8], limits: &Limits) -> Result<Clip, MediaError> {
    limits.check_bytes(bytes.len() as u64)?;
    match expect(bytes, MediaKind::Video)? {
        Format::Mp4 => h264::Movie::open(bytes, limits).map(Clip::Movie),
        format => animation::Animation::open(format, bytes, limits).map(Clip::Animation),
    }
}

/// Checked frame list to [`VideoInfo`].
fn info(
    format: Format,
    (width, height): (u32, u32),
    frames: u64,
    seconds: f64,
    limits: &Limits,
) -> Result<VideoInfo, MediaError> {
    if width == 0 || height == 0 || frames == 0 {
        return Err(MediaError::corrupt(
            format,
            format!("it has {frames} frames of {width} x {height}"),
        ));
    }
    limits.check_stored(width, height, frames, seconds)?;
    let fps = if seconds > 0.0 {
        frames as f64 / seconds
    } else {
        1.0
    };
    Ok(VideoInfo {
        width,
        height,
        frames: frames as usize,
        fps,
    })
}
