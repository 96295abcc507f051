//! A medium that was made smaller, as the side with the target gets it: its bytes opened and held against what OPEN says.
//!
//! Nothing that is said is taken on trust. Sizes and numbers of frames are those of the bytes, extents in tokens those that
//! this side's own processor makes of them, and what is to be read must have gone over. What lies is refused, and the error
//! names the field. Of a medium that is dropped there is nothing but its word, which moves what stands behind it and no more.

use std::fmt::Display;
use std::ops::Range;

use bytes::Bytes;
use msao_core::chat::Modality;
use msao_core::inputs::Grid;
use msao_media::ship::{
    Region, SentAudio, SentPicture, SentVideo, Shipment, open_shipment, regions, resized,
};
use msao_media::{Limits, VideoClip};
use msao_processor::{Extent, Media, Processor, Window};
use msao_session::frame::{Made, Medium, kept_tokens};

/// A medium, and what of it is laid out.
pub struct Opened {
    /// As its client sent it.
    pub whole: Extent,
    /// What there is of it, and the part of that which is laid out, if not all; nothing if it is dropped.
    pub there: Option<(Media, Option<Window>)>,
}

/// What went over of a medium, if not all of it.
enum Sent {
    All,
    Picture(SentPicture),
    Clip(SentVideo),
    Sound(SentAudio),
}

/// Names the field of a medium's `made` that is wrong.
struct Field(usize);

impl Field {
    fn wrong(&self, field: &str, why: impl Display) -> String {
        format!("prompt.media[{}].made.{field} {why}", self.0)
    }
}

/// Opens a medium that was made smaller. `number`: its place in the prompt, for errors. `bytes`: where it was not dropped.
///
/// # Errors
/// What is wrong, with the field.
pub fn open_made(
    processor: &Processor,
    number: usize,
    medium: &Medium,
    made: &Made,
    bytes: Option<&Bytes>,
    limits: &Limits,
) -> Result<Opened, String> {
    let field = Field(number);
    let whole = extent(&field, medium.modality, made)?;
    let tokens_of = |extent: Extent| {
        let tokens = processor.tokens_of(number, extent);
        tokens.map_err(|error| error.to_string())
    };
    let grid = tokens_of(whole)?;
    let (deep, down, across) = made.whole;
    if sides(grid) != [deep, down, across].map(u64::from) {
        let [t, h, w] = sides(grid);
        let why = format!(
            "is {deep} x {down} x {across}, and the target's processor makes {t} x {h} x {w} of a medium of that size"
        );
        return Err(field.wrong("whole", why));
    }
    let canvas = whole.resized(made.canvas);
    let scaled = tokens_of(canvas)?;
    let (down, across) = made.scaled;
    let [_, h, w] = sides(scaled);
    if [h, w] != [down, across].map(u64::from) {
        let (right, below) = made.canvas;
        let why = format!(
            "is {down} x {across}, and the target's processor makes {h} x {w} of {right} x {below} pixels"
        );
        return Err(field.wrong("scaled", why));
    }
    let Some(window) = &made.window else {
        return Ok(Opened { whole, there: None });
    };
    let bytes = bytes.ok_or_else(|| field.wrong("window", "is there, and the medium is not"))?;
    let (media, sent) = if made.shipped {
        unpacked(&field, bytes, made, whole, limits)?
    } else {
        let media = decoded(&field, processor, bytes, made, whole, limits)?;
        (media, Sent::All)
    };
    let steps = kept_tokens(&window.steps, processor.steps(medium.modality, scaled));
    let steps = steps.map_err(|error| {
        let why = format!("{error}, where each stands for a step");
        field.wrong("window.steps", why)
    })?;
    let range = |from: u32, count: u32| from as usize..from.saturating_add(count) as usize;
    let window = Window {
        steps: steps.into_iter().map(|step| step as usize).collect(),
        rows: range(window.top, window.rows),
        columns: range(window.left, window.columns),
    };
    let there = processor.numbers(medium.modality, scaled, &window);
    let read = read(number, medium, &there)?;
    let real = Real {
        processor,
        canvas: made.canvas,
        scaled,
        samples: made.length as usize,
    };
    real.check(&sent, &read)
        .map_err(|why| field.wrong("window", why))?;
    Ok(Opened {
        whole,
        there: Some((media, Some(window))),
    })
}

/// The tokens that are read, of those that are laid out: by their numbers at this size.
fn read(number: usize, medium: &Medium, there: &[u32]) -> Result<Vec<u32>, String> {
    let Some(bits) = &medium.keep else {
        return Ok(there.to_vec());
    };
    let kept = kept_tokens(bits, there.len());
    let kept = kept.map_err(|error| format!("prompt.media[{number}].keep {error}"))?;
    let kept = kept.iter();
    Ok(kept
        .filter_map(|&own| there.get(own as usize).copied())
        .collect())
}

fn sides(grid: Grid) -> [u64; 3] {
    [grid.t, grid.h, grid.w].map(|side| side as u64)
}

/// The medium as its client sent it, by what OPEN says.
fn extent(field: &Field, modality: Modality, made: &Made) -> Result<Extent, String> {
    let (width, height) = made.size;
    let name = modality.name();
    if (width > 0) != (modality != Modality::Audio) {
        let why = format!("is {width} x {height} pixels of a medium of the kind {name}");
        return Err(field.wrong("size", why));
    }
    if modality != Modality::Video && (made.frames, made.fps) != (0, 0.0) {
        return Err(field.wrong("frames", format!("are told of a medium of the kind {name}")));
    }
    let length = made.length as usize;
    match modality {
        Modality::Image if length != 1 => {
            Err(field.wrong("length", format!("is {length}, and 1 of an image")))
        }
        Modality::Image => Ok(Extent::Image { width, height }),
        Modality::Video => Ok(Extent::Video {
            width,
            height,
            sampled: length,
            frames: made.frames as usize,
            fps: made.fps,
        }),
        Modality::Audio => Ok(Extent::Audio { samples: length }),
        Modality::Text => Err(field.wrong("size", "is of text, of which nothing is left out")),
    }
}

/// Holds a number that OPEN says against the one that the bytes have.
fn same<T: PartialEq + Display>(field: &Field, name: &str, said: T, is: T) -> Result<(), String> {
    if said == is {
        return Ok(());
    }
    Err(field.wrong(name, format!("is {said}, and {is} of the medium itself")))
}

fn same_size(field: &Field, name: &str, said: (u32, u32), is: (u32, u32)) -> Result<(), String> {
    let words = |(width, height)| format!("{width} x {height}");
    same(field, name, words(said), words(is))
}

/// What another node shipped.
fn unpacked(
    field: &Field,
    bytes: &[u8],
    made: &Made,
    whole: Extent,
    limits: &Limits,
) -> Result<(Media, Sent), String> {
    let opened = open_shipment(bytes, limits);
    let opened = opened.map_err(|error| field.wrong("shipped", format!("is true: {error}")))?;
    match (opened, whole) {
        (Shipment::Image { image, sent }, Extent::Image { .. }) => {
            same_size(field, "canvas", made.canvas, sent.canvas)?;
            Ok((Media::Image(image), Sent::Picture(sent.picture)))
        }
        (Shipment::Video { clip, sent }, Extent::Video { .. }) => {
            same_size(field, "canvas", made.canvas, sent.canvas)?;
            same_clip(field, made, &clip)?;
            Ok((Media::Video(clip), Sent::Clip(sent)))
        }
        (Shipment::Audio { sound, sent }, Extent::Audio { .. }) => {
            same(field, "length", made.length as usize, sound.samples.len())?;
            Ok((Media::Audio(sound), Sent::Sound(sent)))
        }
        _ => Err(field.wrong("shipped", "is true of a medium of another kind")),
    }
}

fn same_clip(field: &Field, made: &Made, clip: &VideoClip) -> Result<(), String> {
    same(field, "length", made.length as usize, clip.frames.len())?;
    same(field, "frames", made.frames as usize, clip.info.frames)?;
    same(field, "fps", made.fps, clip.info.fps)
}

/// A medium as its client sent it, at the size at which it is laid out.
fn decoded(
    field: &Field,
    processor: &Processor,
    bytes: &[u8],
    made: &Made,
    whole: Extent,
    limits: &Limits,
) -> Result<Media, String> {
    let media = processor.decode(whole.modality(), bytes, limits);
    let mut media = media.map_err(|error| error.to_string())?;
    same_size(field, "size", made.size, Extent::of(&media).size_px())?;
    match &mut media {
        Media::Image(image) => scale(std::slice::from_mut(image), made)?,
        Media::Video(clip) => {
            same_clip(field, made, clip)?;
            scale(&mut clip.frames, made)?;
        }
        Media::Audio(sound) => {
            same(field, "length", made.length as usize, sound.samples.len())?;
        }
    }
    Ok(media)
}

fn scale(frames: &mut [msao_media::RgbImage], made: &Made) -> Result<(), String> {
    if made.canvas == made.size {
        return Ok(());
    }
    for frame in frames {
        *frame = resized(frame, made.canvas).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Holds what is read against what went over.
struct Real<'a> {
    processor: &'a Processor,
    canvas: (u32, u32),
    scaled: Grid,
    /// Of a sound.
    samples: usize,
}

impl Real<'_> {
    fn check(&self, sent: &Sent, read: &[u32]) -> Result<(), String> {
        match sent {
            Sent::All => Ok(()),
            Sent::Picture(picture) => {
                let has = self
                    .pixels(read)
                    .iter()
                    .all(|it| picture.has(*it, self.canvas));
                missing(has, "pixels")
            }
            Sent::Clip(clip) => {
                let deep = self.processor.media_config().video.picture.temporal_patch;
                let a_step = self.scaled.h.saturating_mul(self.scaled.w).max(1);
                let step_of = |token: &u32| *token as usize / a_step;
                for tokens in read.chunk_by(|a, b| step_of(a) == step_of(b)) {
                    let step = tokens.first().map_or(0, step_of);
                    let pixels = self.pixels(tokens);
                    let end = (step + 1).saturating_mul(deep).min(clip.sampled);
                    for position in step.saturating_mul(deep)..end {
                        let found = clip
                            .frames
                            .binary_search_by_key(&position, |frame| frame.position);
                        let frame = found.ok().and_then(|place| clip.frames.get(place));
                        let frame = frame.ok_or_else(|| {
                            format!("has step {step}, of which frame {position} did not go over")
                        })?;
                        let picture = &frame.picture;
                        let has = pixels.iter().all(|it| picture.has(*it, self.canvas));
                        missing(has, "pixels")?;
                    }
                }
                Ok(())
            }
            Sent::Sound(sound) => {
                let runs = read.chunk_by(|a, b| a + 1 == *b);
                let ends = runs.filter_map(|run| Some((*run.first()?, *run.last()?)));
                for (first, last) in ends {
                    let tokens = first as usize..last as usize + 1;
                    let heard = self.processor.heard(tokens, self.samples);
                    missing(has_samples(&sound.segments, &heard), "samples")?;
                }
                Ok(())
            }
        }
    }

    /// The pixels of the canvas of which tokens are made, wherever in time those are.
    fn pixels(&self, tokens: &[u32]) -> Vec<Region> {
        let (down, across) = (self.scaled.h.max(1), self.scaled.w.max(1));
        let place = |token: &u32| {
            let within = *token as usize % (down * across);
            ((within / across) as u32, (within % across) as u32)
        };
        let cells: Vec<(u32, u32)> = tokens.iter().map(place).collect();
        let (width, height) = self.canvas;
        let cell_px = (
            f64::from(width) / across as f64,
            f64::from(height) / down as f64,
        );
        regions(&cells, cell_px, self.canvas)
    }
}

fn missing(has: bool, what: &str) -> Result<(), String> {
    if has {
        return Ok(());
    }
    Err(format!(
        "has tokens that are read and whose {what} did not go over"
    ))
}

/// Whether rising segments have all samples of a range.
fn has_samples(segments: &[Range<usize>], range: &Range<usize>) -> bool {
    let place = segments.partition_point(|segment| segment.end < range.end);
    let segment = segments.get(place);
    range.is_empty() || segment.is_some_and(|it| it.start <= range.start && range.end <= it.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_there_where_one_segment_has_them_all() {
        let segments = [10..20, 30..40];
        for (range, there) in [
            (10..20, true),
            (12..18, true),
            (9..12, false),
            (15..21, false),
            (15..35, false),
            (30..40, true),
            (40..41, false),
            (25..25, true),
        ] {
            assert_eq!(has_samples(&segments, &range), there, "{range:?}");
        }
    }
}
