//! From a medium and what is read of it to the shipment that another node gets instead.

use std::ops::Range;

use msao_core::offload::{Rest, Treatment};
use msao_media::ship::{
    self, FrameWay, ImageWay, Region, VideoWay, regions, ship_audio, ship_image, ship_video,
};
use msao_media::{Limits, MediaError};
use msao_processor::{DecodeError, Media, Processor, ProcessorError};

use super::prepare::Medium;
use super::view::{View, is_tight};

/// Rectangles are cut to multiples of so many pixels: the blocks of a JPEG, whose borders then are no edges in them.
const ALIGN_PX: u32 = 8;

/// Why there is no shipment of a medium.
#[derive(Debug, thiserror::Error)]
pub enum Unshipped {
    /// It cannot be decoded any more.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It has a size of which there are no shipments.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The model's processor does not take it at that size.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
}

/// The bytes of a medium's shipment, of which no more need be right than `view` reads. Slow: decodes it once more, since the
/// pixels of most media are not needed twice and would wait in memory for a plan.
///
/// # Errors
/// [`Unshipped`].
pub fn ship(
    medium: &Medium,
    view: &View,
    how: &Treatment,
    processor: &Processor,
    limits: &Limits,
) -> Result<Vec<u8>, Unshipped> {
    let decoded = processor.decode(medium.modality, &medium.bytes, limits)?;
    // Of all values that the contract allows, those that are not a byte are above 100.
    let quality = u8::try_from(how.quality).unwrap_or(100);
    let rest = match how.rest {
        Rest::Send => ship::Rest::Send,
        Rest::Crop => ship::Rest::Crop { align_px: ALIGN_PX },
        Rest::Flatten => ship::Rest::Flatten,
    };
    match &decoded {
        Media::Image(image) => {
            let kept = pixels(view, processor, how.rest, |_| true)?;
            let way = ImageWay {
                scale: how.scale,
                quality,
                rest,
                kept: kept.as_deref(),
            };
            Ok(ship_image(image, &way)?.bytes)
        }
        Media::Video(clip) => {
            let deep = processor.media_config().video.picture.temporal_patch.max(1);
            let mut kept = Vec::new();
            for step in view.steps(processor) {
                // A crop is the same in all frames, as what is laid out of them is.
                let all = how.rest == Rest::Crop;
                let own = pixels(view, processor, how.rest, |of| all || of == step)?;
                let positions = step * deep..((step + 1) * deep).min(clip.frames.len());
                kept.push((positions, own));
            }
            let frames = kept.iter().flat_map(|(positions, kept)| {
                positions.clone().map(move |position| FrameWay {
                    position,
                    kept: kept.as_deref(),
                })
            });
            let frames: Vec<FrameWay> = frames.collect();
            let way = VideoWay {
                scale: how.scale,
                quality,
                rest,
                frames: &frames,
            };
            Ok(ship_video(clip, &way)?.bytes)
        }
        Media::Audio(sound) => {
            let segments = samples(view, processor, how.rest, sound.samples.len());
            Ok(ship_audio(sound, &segments)?.bytes)
        }
    }
}

/// The pixels of the canvas that make the tokens that are read in the steps that are `of` interest; nothing for all of it.
fn pixels(
    view: &View,
    processor: &Processor,
    rest: Rest,
    of: impl Fn(usize) -> bool,
) -> Result<Option<Vec<Region>>, ProcessorError> {
    if !is_tight(rest) {
        return Ok(None);
    }
    let places = view.read.iter().map(|&token| view.place(token));
    let cells = places
        .filter(|(step, _, _)| of(*step))
        .map(|(_, row, column)| (row as u32, column as u32));
    let cells: Vec<(u32, u32)> = cells.collect();
    let reach_px = processor.reach_px(0, view.whole.resized(view.canvas))?;
    let found = regions(&cells, cell_px(view), view.canvas).into_iter();
    Ok(Some(found.map(|region| region.grown(reach_px)).collect()))
}

/// Width and height of a token in pixels of the canvas.
fn cell_px(view: &View) -> (f64, f64) {
    let side = |pixels: u32, tokens: usize| f64::from(pixels) / tokens.max(1) as f64;
    (
        side(view.canvas.0, view.scaled.w),
        side(view.canvas.1, view.scaled.h),
    )
}

/// The samples of a sound of so many that make its tokens: those in the segments that stay, or of them only what is read and,
/// for a crop, what lies between.
fn samples(view: &View, processor: &Processor, rest: Rest, all: usize) -> Vec<Range<usize>> {
    let tokens = match rest {
        Rest::Send => &view.stay,
        Rest::Crop | Rest::Flatten => &view.read,
    };
    let mut segments: Vec<Range<usize>> = Vec::new();
    for run in tokens.chunk_by(|a, b| rest == Rest::Crop || a + 1 == *b) {
        let (Some(&first), Some(&last)) = (run.first(), run.last()) else {
            continue;
        };
        let heard = processor.heard(first as usize..last as usize + 1, all);
        match segments.last_mut() {
            Some(before) if before.end >= heard.start => before.end = heard.end.max(before.end),
            _ => segments.push(heard),
        }
    }
    segments
}
