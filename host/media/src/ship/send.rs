//! From a decoded medium to the bytes of a shipment.

use std::ops::Range;

use super::flac;
use super::pixels::Pixels;
use super::region::{Region, covered_px};
use super::wire::{self, Head, MAX_SIDE};
use super::{SentAudio, SentFrame, SentImage, SentPicture, SentVideo};
use crate::audio::AudioClip;
use crate::error::MediaError;
use crate::image::RgbImage;
use crate::sniff::Format;
use crate::video::{VideoClip, VideoInfo};

/// Side in pixels of the blocks that the JPEG encoder codes each for itself. It leaves chroma at full resolution; with
/// half of it the blocks would be of 16.
const BLOCK_PX: u32 = 8;

/// What becomes of the pixels that need not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// They are sent with the others.
    Send,
    /// What lies outside the smallest rectangle around all kept regions is cut off.
    Crop {
        /// The rectangle is grown outward to multiples of so many pixels, or to the edge of the canvas. 0 is as 1.
        align_px: u32,
    },
    /// As `Crop`, and what is left is painted over in the mean colour of the picture, which compresses to nearly
    /// nothing. Kept regions are grown to the blocks in which JPEG codes, so that no edge of paint shows in them.
    Flatten,
}

/// How an image is sent.
#[derive(Clone, Copy, Debug)]
pub struct ImageWay<'a> {
    /// Width and height are multiplied by this, in (0, 1]: see [`scaled_size`].
    pub scale: f64,
    /// JPEG quality, 1 to 100.
    pub quality: u8,
    /// What becomes of pixels outside `kept`.
    pub rest: Rest,
    /// What must go over, in pixels of the picture after scaling. May overlap; what lies outside the picture is ignored.
    /// With `None`, or with nothing inside the picture, all of it is kept.
    pub kept: Option<&'a [Region]>,
}

/// How one frame of a clip is sent.
#[derive(Clone, Copy, Debug)]
pub struct FrameWay<'a> {
    /// Which of the decoded frames, from 0.
    pub position: usize,
    /// As [`ImageWay::kept`].
    pub kept: Option<&'a [Region]>,
}

/// How a clip is sent.
#[derive(Clone, Copy, Debug)]
pub struct VideoWay<'a> {
    /// As [`ImageWay::scale`].
    pub scale: f64,
    /// As [`ImageWay::quality`].
    pub quality: u8,
    /// As [`ImageWay::rest`], frame by frame.
    pub rest: Rest,
    /// The frames that are sent, by rising position; at least one.
    pub frames: &'a [FrameWay<'a>],
}

/// A shipment as it goes over, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipped<S> {
    /// What [`open_shipment`](super::open_shipment) reads.
    pub bytes: Vec<u8>,
    /// What it will say of them.
    pub sent: S,
}

/// Width and height in pixels of a picture after scaling: rounded, at least 1 and at most what they were.
pub fn scaled_size((width, height): (u32, u32), scale: f64) -> (u32, u32) {
    let scaled = |side: u32| ((f64::from(side) * scale).round() as u32).clamp(1, side.max(1));
    (scaled(width), scaled(height))
}

/// A picture at another size, in pixels across and down: the pixels that a shipment of that size would be made of. What is
/// not sent can be made smaller in the same way.
///
/// # Errors
/// [`MediaError::BadWay`] for a size that no shipment has, or a picture that does not hold the pixels that it should.
pub fn resized(image: &RgbImage, size: (u32, u32)) -> Result<RgbImage, MediaError> {
    let sides = 1..=MAX_SIDE;
    if !sides.contains(&size.0) || !sides.contains(&size.1) {
        let (width, height) = size;
        return Err(bad(format!(
            "{width} x {height} pixels, where each side has 1 to {MAX_SIDE}"
        )));
    }
    Ok(pixels_of(image)?.scaled(size).into_image())
}

/// A picture as a file of its own, coded as those in shipments are: baseline JPEG, with chroma at full resolution.
/// `quality`: as [`ImageWay::quality`].
///
/// # Errors
/// [`MediaError::BadWay`] for another quality, or a picture that does not hold the pixels that it should;
/// [`MediaError::Unsupported`] for a side of more than 65,535 pixels.
pub fn encode_jpeg(image: &RgbImage, quality: u8) -> Result<Vec<u8>, MediaError> {
    check_quality(quality)?;
    pixels_of(image)?.to_jpeg(quality)
}

/// Makes the shipment of a picture.
///
/// # Errors
/// [`MediaError::BadWay`] where `way` asks for what there is not; [`MediaError::Unsupported`] if the canvas has a side of
/// more than 65,535 pixels.
pub fn ship_image(image: &RgbImage, way: &ImageWay<'_>) -> Result<Shipped<SentImage>, MediaError> {
    let canvas = canvas_of((image.width, image.height), way.scale)?;
    let (picture, jpeg) = picture(image, canvas, way)?;
    let sent = SentImage { canvas, picture };
    let bytes = wire::write(&Head::Image(sent), &[jpeg])?;
    Ok(Shipped { bytes, sent })
}

/// Makes the shipment of a clip: of the frames that were decoded, those that `way` names.
///
/// # Errors
/// As [`ship_image`]; [`MediaError::BadWay`] also for frames of several sizes and for a clip whose indices are not of its
/// frames.
pub fn ship_video(clip: &VideoClip, way: &VideoWay<'_>) -> Result<Shipped<SentVideo>, MediaError> {
    check_timing(clip)?;
    let rising = way.frames.is_sorted_by(|a, b| a.position < b.position);
    if way.frames.is_empty() || !rising {
        return Err(bad("frames are sent by rising position, at least one"));
    }
    let mut size = None;
    let mut frames = Vec::with_capacity(way.frames.len());
    let mut parts = Vec::with_capacity(way.frames.len());
    for frame in way.frames {
        let image = clip.frames.get(frame.position).ok_or_else(|| {
            let (position, there) = (frame.position, clip.frames.len());
            bad(format!("frame {position} of {there} decoded ones"))
        })?;
        let own = (image.width, image.height);
        if *size.get_or_insert(own) != own {
            return Err(bad("frames of several sizes"));
        }
        let as_image = ImageWay {
            scale: way.scale,
            quality: way.quality,
            rest: way.rest,
            kept: frame.kept,
        };
        let (picture, jpeg) = picture(image, canvas_of(own, way.scale)?, &as_image)?;
        frames.push(SentFrame {
            position: frame.position,
            picture,
        });
        parts.push(jpeg);
    }
    let canvas = canvas_of(size.unwrap_or_default(), way.scale)?;
    let info = VideoInfo {
        width: canvas.0,
        height: canvas.1,
        ..clip.info
    };
    let sent = SentVideo {
        canvas,
        sampled: clip.frames.len(),
        frames,
    };
    let head = Head::Video {
        info,
        indices: clip.indices.clone(),
        sent: sent.clone(),
    };
    let bytes = wire::write(&head, &parts)?;
    Ok(Shipped { bytes, sent })
}

/// Makes the shipment of a sound: the samples in `segments`, which rise and do not overlap; at least one segment, none
/// empty. Those that touch become one. Samples are rounded to 16 bits.
///
/// # Errors
/// [`MediaError::BadWay`] for other segments, more than [`MAX_SEGMENTS`](super::MAX_SEGMENTS) of them, or samples that
/// there are not.
pub fn ship_audio(
    sound: &AudioClip,
    segments: &[Range<usize>],
) -> Result<Shipped<SentAudio>, MediaError> {
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(segments.len());
    let mut samples = Vec::new();
    let mut reached = 0;
    for segment in segments {
        let there = sound.samples.get(segment.clone()).unwrap_or_default();
        if segment.start < reached || there.is_empty() {
            let (Range { start, end }, all) = (segment, sound.samples.len());
            return Err(bad(format!(
                "samples {start} to {end} of {all}, where segments rise and none is empty"
            )));
        }
        samples.extend(there.iter().map(|&sample| to_16_bits(sample)));
        match joined.last_mut() {
            Some(last) if last.end == segment.start => last.end = segment.end,
            _ => joined.push(segment.clone()),
        }
        reached = segment.end;
    }
    if joined.is_empty() || joined.len() > wire::MAX_SEGMENTS {
        return Err(bad(format!(
            "{} segments, where 1 to {} can be",
            joined.len(),
            wire::MAX_SEGMENTS
        )));
    }
    let sent = SentAudio {
        samples: sound.samples.len(),
        segments: joined,
    };
    let bytes = wire::write(&Head::Audio(sent.clone()), &[flac::encode(&samples)])?;
    Ok(Shipped { bytes, sent })
}

/// The inverse of what decoding does: `value / 2^15`.
fn to_16_bits(sample: f32) -> i16 {
    // Casts of floats end at the borders of the integer, and what is not a number becomes 0.
    (sample * 32_768.0).round() as i16
}

/// One picture, scaled, cut and coded.
fn picture(
    image: &RgbImage,
    canvas: (u32, u32),
    way: &ImageWay<'_>,
) -> Result<(SentPicture, Vec<u8>), MediaError> {
    check_quality(way.quality)?;
    let pixels = pixels_of(image)?.scaled(canvas);
    let fill = pixels.mean();
    let whole = Region::whole(canvas);
    let kept: Vec<Region> = way
        .kept
        .unwrap_or_default()
        .iter()
        .filter_map(|region| region.within(canvas))
        .collect();
    let (region, painted, pixels) = match way.rest {
        Rest::Send => (whole, false, pixels),
        Rest::Crop { align_px } => {
            let around = Region::around(&kept).and_then(|around| around.aligned(align_px, canvas));
            let region = around.unwrap_or(whole);
            (region, false, pixels.cut(region))
        }
        Rest::Flatten => {
            let blocks: Vec<Region> = kept
                .iter()
                .filter_map(|region| region.aligned(BLOCK_PX, canvas))
                .collect();
            let region = Region::around(&blocks).unwrap_or(whole);
            if blocks.is_empty() || covered_px(&blocks, canvas) == region.area_px() {
                (region, false, pixels.cut(region))
            } else {
                let cut = pixels.cut_and_painted(region, &blocks, fill);
                (region, true, cut)
            }
        }
    };
    let sent = SentPicture {
        region,
        painted,
        fill,
    };
    Ok((sent, pixels.to_jpeg(way.quality)?))
}

fn check_quality(quality: u8) -> Result<(), MediaError> {
    if !(1..=100).contains(&quality) {
        return Err(bad(format!(
            "a JPEG quality of {quality}, where 1 to 100 can be"
        )));
    }
    Ok(())
}

fn pixels_of(image: &RgbImage) -> Result<Pixels<'_>, MediaError> {
    Pixels::of(image).ok_or_else(|| {
        let (width, height) = (image.width, image.height);
        bad(format!(
            "a picture of {width} x {height} pixels in {} bytes",
            image.data.len()
        ))
    })
}

fn canvas_of(size: (u32, u32), scale: f64) -> Result<(u32, u32), MediaError> {
    if !(scale > 0.0 && scale <= 1.0) {
        return Err(bad(format!(
            "a scale of {scale}, where above 0 and up to 1 can be"
        )));
    }
    let (width, height) = scaled_size(size, scale);
    if width.max(height) > MAX_SIDE {
        return Err(MediaError::unsupported(
            Format::Jpeg,
            format!("{width} x {height} pixels (a side of up to {MAX_SIDE} is)"),
        ));
    }
    Ok((width, height))
}

/// The receiver will lay out positions by these, so they have to fit each other.
fn check_timing(clip: &VideoClip) -> Result<(), MediaError> {
    let indices = &clip.indices;
    if indices.len() != clip.frames.len() || !wire::are_indices(indices, clip.info.frames) {
        return Err(bad(format!(
            "a clip of {} frames, {} of them with {} indices",
            clip.info.frames,
            clip.frames.len(),
            indices.len()
        )));
    }
    if !wire::is_rate(clip.info.fps) {
        return Err(bad(format!(
            "a clip of {} frames per second",
            clip.info.fps
        )));
    }
    Ok(())
}

fn bad(detail: impl Into<String>) -> MediaError {
    MediaError::BadWay {
        detail: detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_and_never_nothing() {
        assert_eq!(scaled_size((640, 481), 0.5), (320, 241));
        assert_eq!(scaled_size((640, 3), 0.1), (64, 1));
        assert_eq!(scaled_size((1, 1), 1e-9), (1, 1));
        assert_eq!(scaled_size((7, 9), 1.0), (7, 9));
        assert_eq!(scaled_size((7, 9), 5.0), (7, 9));
        assert_eq!(scaled_size((7, 9), f64::NAN), (1, 1));
    }

    #[test]
    fn a_picture_that_is_not_sent_is_made_smaller_alike() {
        let image = RgbImage {
            width: 4,
            height: 2,
            data: (0..24).map(|value| value * 9).collect(),
        };
        let half = resized(&image, (2, 1)).unwrap();
        let pixels = Pixels::of(&image).unwrap().scaled((2, 1));
        assert_eq!((half.width, half.height), (2, 1));
        assert_eq!(half.data, pixels.data.as_ref());
        assert_eq!(resized(&image, (4, 2)).unwrap(), image);
        for size in [(0, 1), (1, 0), (MAX_SIDE + 1, 1)] {
            let refused = resized(&image, size).unwrap_err().to_string();
            assert!(refused.contains("each side has 1 to 65535"), "{refused}");
        }
        let short = RgbImage { height: 3, ..image };
        assert!(resized(&short, (2, 1)).is_err());
    }

    #[test]
    fn samples_of_16_bits_survive() {
        for value in i16::MIN..=i16::MAX {
            assert_eq!(to_16_bits(f32::from(value) / 32_768.0), value);
        }
        assert_eq!(to_16_bits(1.0), i16::MAX);
        assert_eq!(to_16_bits(-7.0), i16::MIN);
        assert_eq!(to_16_bits(f32::NAN), 0);
    }
}
