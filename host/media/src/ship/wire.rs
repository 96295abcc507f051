//! The header of a shipment as bytes: written, and read without trusting it. The layout is in [`super`].

use std::ops::Range;

use super::region::Region;
use super::{SentAudio, SentFrame, SentImage, SentPicture, SentVideo};
use crate::audio::SAMPLE_RATE;
use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::limits::Limits;
use crate::sniff::{Format, MediaKind};
use crate::video::VideoInfo;

/// The most segments of a sound. More than one each 150 ms of the longest sound that is taken by default would not be a
/// choice that anybody makes.
pub const MAX_SEGMENTS: usize = 4096;

/// The longest side of a canvas in pixels, which is JPEG's.
pub(super) const MAX_SIDE: u32 = 65_535;

/// Not UTF-8, and a line end that a transfer as text would change, as in PNG's.
const MAGIC: [u8; 8] = *b"\xd3MSHIP\r\n";

const VERSION: u8 = 1;

/// Bytes of the part of a header that is common to all kinds.
const COMMON: usize = 16;

/// All that a header says but the lengths of the parts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Head {
    Image(SentImage),
    Video {
        /// The clip as its client sent it, but of the canvas's size.
        info: VideoInfo,
        indices: Vec<usize>,
        sent: SentVideo,
    },
    Audio(SentAudio),
}

impl Head {
    fn kind(&self) -> MediaKind {
        match self {
            Self::Image(_) => MediaKind::Image,
            Self::Video { .. } => MediaKind::Video,
            Self::Audio(_) => MediaKind::Audio,
        }
    }
}

fn number_of(kind: MediaKind) -> u8 {
    match kind {
        MediaKind::Image => 1,
        MediaKind::Video => 2,
        MediaKind::Audio => 3,
    }
}

/// What a shipment is of, by its first bytes; `None` where it is none.
pub(crate) fn kind_of(bytes: &[u8]) -> Option<MediaKind> {
    let number = *bytes.strip_prefix(&MAGIC)?.first()?;
    [MediaKind::Image, MediaKind::Video, MediaKind::Audio]
        .into_iter()
        .find(|&kind| number_of(kind) == number)
}

/// Whether these can be the sampled frames of a clip of so many: at least one, never falling.
pub(super) fn are_indices(indices: &[usize], frames: usize) -> bool {
    indices.is_sorted() && indices.last().is_some_and(|&last| last < frames)
}

pub(super) fn is_rate(fps: f64) -> bool {
    fps.is_finite() && fps > 0.0
}

/// Header and parts. There are as many parts as the header describes, each of at least one byte.
pub(super) fn write(head: &Head, parts: &[Vec<u8>]) -> Result<Vec<u8>, MediaError> {
    body(head, parts).ok_or_else(|| MediaError::BadWay {
        detail: "a size or a number beyond 32 bits".to_owned(),
    })
}

fn body(head: &Head, parts: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(COMMON + parts.iter().map(Vec::len).sum::<usize>());
    let mut lengths = parts.iter().map(Vec::len);
    match head {
        Head::Image(sent) => {
            put_size(&mut out, sent.canvas)?;
            put_record(&mut out, &sent.picture, lengths.next()?)?;
        }
        Head::Video {
            info,
            indices,
            sent,
        } => {
            put_size(&mut out, sent.canvas)?;
            put(&mut out, info.frames)?;
            out.extend(info.fps.to_le_bytes());
            put(&mut out, indices.len())?;
            put(&mut out, sent.frames.len())?;
            for &index in indices {
                put(&mut out, index)?;
            }
            for frame in &sent.frames {
                put(&mut out, frame.position)?;
                put_record(&mut out, &frame.picture, lengths.next()?)?;
            }
        }
        Head::Audio(sent) => {
            put(&mut out, sent.samples)?;
            put(&mut out, sent.segments.len())?;
            put(&mut out, lengths.next()?)?;
            for segment in &sent.segments {
                put(&mut out, segment.start)?;
                put(&mut out, segment.end)?;
            }
        }
    }
    let mut all = MAGIC.to_vec();
    all.extend([number_of(head.kind()), VERSION, 0, 0]);
    put(&mut all, COMMON + out.len())?;
    all.append(&mut out);
    parts.iter().for_each(|part| all.extend(part));
    Some(all)
}

fn put(out: &mut Vec<u8>, value: usize) -> Option<()> {
    out.extend(u32::try_from(value).ok()?.to_le_bytes());
    Some(())
}

fn put_size(out: &mut Vec<u8>, (a, b): (u32, u32)) -> Option<()> {
    out.extend(u16::try_from(a).ok()?.to_le_bytes());
    out.extend(u16::try_from(b).ok()?.to_le_bytes());
    Some(())
}

fn put_record(out: &mut Vec<u8>, picture: &SentPicture, length: usize) -> Option<()> {
    let region = picture.region;
    put_size(out, (region.x, region.y))?;
    put_size(out, (region.width, region.height))?;
    out.extend(picture.fill);
    out.push(u8::from(picture.painted));
    put(out, length)
}

/// A header that has been held against the limits and against the bytes there are, and the parts that follow it.
pub(super) fn read<'a>(
    kind: MediaKind,
    bytes: &'a [u8],
    limits: &Limits,
) -> Result<(Head, Vec<&'a [u8]>), MediaError> {
    let mut reader = Reader {
        bytes: Bytes::new(bytes),
        kind,
        lengths: Vec::new(),
    };
    reader.take(MAGIC.len() + 1)?;
    let [version, reserved @ ..] = reader.array::<3>()?;
    if version != VERSION {
        return Err(MediaError::unsupported(
            Format::Shipment(kind),
            format!("version {version} of its format; run the same release on both nodes"),
        ));
    }
    let length = reader.count()?;
    let head = match kind {
        MediaKind::Image => reader.image(limits)?,
        MediaKind::Video => reader.video(limits)?,
        MediaKind::Audio => reader.audio(limits)?,
    };
    if reserved != [0; 2] || bytes.len() - reader.bytes.rest().len() != length {
        return Err(reader.damaged("its header does not add up"));
    }
    let lengths = std::mem::take(&mut reader.lengths);
    let parts: Result<Vec<&[u8]>, _> = lengths.into_iter().map(|n| reader.take(n)).collect();
    let parts = parts?;
    if parts.iter().any(|part| part.is_empty()) || !reader.bytes.rest().is_empty() {
        return Err(reader.damaged("its parts are not of the lengths that its header says"));
    }
    Ok((head, parts))
}

struct Reader<'a> {
    bytes: Bytes<'a>,
    kind: MediaKind,
    /// Of the parts, as the header names them.
    lengths: Vec<usize>,
}

impl<'a> Reader<'a> {
    fn image(&mut self, limits: &Limits) -> Result<Head, MediaError> {
        let canvas = self.canvas()?;
        limits.check_pixels(canvas.0, canvas.1)?;
        let picture = self.record(canvas)?;
        Ok(Head::Image(SentImage { canvas, picture }))
    }

    fn video(&mut self, limits: &Limits) -> Result<Head, MediaError> {
        let canvas = self.canvas()?;
        let frames = self.count()?;
        // The clip's own frames are not decoded from this, so that its length is only a number here.
        limits.check_stored(canvas.0, canvas.1, frames as u64, 0.0)?;
        let fps = f64::from_le_bytes(self.array()?);
        if !is_rate(fps) {
            return Err(self.damaged(format!("it gives its rate as {fps}")));
        }
        let (sampled, sent) = (self.count()?, self.count()?);
        limits.check_kept(canvas.0, canvas.1, sampled)?;
        if !(1..=sampled).contains(&sent) {
            return Err(self.damaged(format!("{sent} of {sampled} frames were sent")));
        }
        let indices = self.many(sampled, Self::count)?;
        if !are_indices(&indices, frames) {
            return Err(self.damaged("its indices are not of its frames"));
        }
        let frames_sent = self.many(sent, |reader| {
            Ok(SentFrame {
                position: reader.count()?,
                picture: reader.record(canvas)?,
            })
        })?;
        let rising = frames_sent.is_sorted_by(|a, b| a.position < b.position);
        if !rising
            || frames_sent
                .last()
                .is_none_or(|last| last.position >= sampled)
        {
            return Err(self.damaged("its frames are not in order"));
        }
        Ok(Head::Video {
            info: VideoInfo {
                width: canvas.0,
                height: canvas.1,
                frames,
                fps,
            },
            indices,
            sent: SentVideo {
                canvas,
                sampled,
                frames: frames_sent,
            },
        })
    }

    fn audio(&mut self, limits: &Limits) -> Result<Head, MediaError> {
        let (samples, count) = (self.count()?, self.count()?);
        limits.check_audio_seconds(samples as f64 / f64::from(SAMPLE_RATE))?;
        if !(1..=MAX_SEGMENTS).contains(&count) {
            return Err(self.damaged(format!("it has {count} segments")));
        }
        let length = self.count()?;
        self.lengths.push(length);
        let segments: Vec<Range<usize>> =
            self.many(count, |reader| Ok(reader.count()?..reader.count()?))?;
        let mut reached = 0;
        for segment in &segments {
            if segment.start < reached || segment.is_empty() || segment.end > samples {
                return Err(self.damaged("its segments are not in order"));
            }
            reached = segment.end;
        }
        Ok(Head::Audio(SentAudio { samples, segments }))
    }

    fn canvas(&mut self) -> Result<(u32, u32), MediaError> {
        let (width, height) = (self.short()?, self.short()?);
        if width == 0 || height == 0 {
            return Err(self.damaged(format!("it gives its size as {width} x {height}")));
        }
        Ok((width, height))
    }

    fn record(&mut self, canvas: (u32, u32)) -> Result<SentPicture, MediaError> {
        let (x, y, width, height) = (self.short()?, self.short()?, self.short()?, self.short()?);
        let region = Region {
            y,
            x,
            width,
            height,
        };
        let fill = self.array()?;
        let [flags] = self.array()?;
        let length = self.count()?;
        self.lengths.push(length);
        if region.within(canvas) != Some(region) || flags > 1 {
            return Err(self.damaged("a picture in it does not lie on its canvas"));
        }
        Ok(SentPicture {
            region,
            painted: flags == 1,
            fill,
        })
    }

    /// So many of one thing; room is made as they turn out to be there, since the number is only a claim.
    fn many<T>(
        &mut self,
        count: usize,
        one: impl Fn(&mut Self) -> Result<T, MediaError>,
    ) -> Result<Vec<T>, MediaError> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn count(&mut self) -> Result<usize, MediaError> {
        self.array().map(|bytes| u32::from_le_bytes(bytes) as usize)
    }

    fn short(&mut self) -> Result<u32, MediaError> {
        self.array().map(|bytes| u16::from_le_bytes(bytes).into())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MediaError> {
        self.bytes.array().ok_or_else(|| self.cut_off())
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], MediaError> {
        self.bytes.take(n).ok_or_else(|| self.cut_off())
    }

    fn cut_off(&self) -> MediaError {
        self.damaged("it ends before all of it is there")
    }

    fn damaged(&self, detail: impl Into<String>) -> MediaError {
        MediaError::corrupt(Format::Shipment(self.kind), detail)
    }
}
