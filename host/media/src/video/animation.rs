//! GIF and WebP as clips.
//!
//! The list of frames and their delays is read off the container without decompressing anything; then the frames are
//! composed one after the other (disposal, blending) up to the last one that is wanted.
//!
//! A delay too short to be meant (below 20 ms for GIF, 0 for WebP) counts as 100 ms, as in browsers and in ffmpeg.
//! What no frame has painted yet is black.

use std::io::Cursor;

use image::AnimationDecoder;
use image::codecs::{gif::GifDecoder, webp::WebPDecoder};
use image::{Frames, ImageDecoder};

use super::keeper::Keeper;
use super::{VideoInfo, info};
use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::image::{
    RgbImage, check_webp_frame, decode_image, library_limits, riff_chunk, translate,
};
use crate::limits::Limits;
use crate::sniff::Format;

/// A clip whose frames have been counted.
pub(super) struct Animation {
    pub(super) info: VideoInfo,
    pub(super) format: Format,
    /// Whether the file is a single picture that the animation reader of the library does not take.
    still: bool,
}

/// What the container says.
#[derive(Debug, Default, PartialEq)]
struct List {
    size: (u32, u32),
    frames: u64,
    millis: u64,
    still: bool,
}

impl Animation {
    pub(super) fn open(format: Format, bytes: &[u8], limits: &Limits) -> Result<Self, MediaError> {
        let list = if format == Format::Gif {
            list_gif(bytes)
        } else {
            list_webp(bytes).transpose()?
        };
        let list =
            list.ok_or_else(|| MediaError::corrupt(format, "it ends before its last frame does"))?;
        let seconds = list.millis as f64 / 1000.0;
        let info = info(format, list.size, list.frames, seconds, limits)?;
        Ok(Self {
            info,
            format,
            still: list.still,
        })
    }

    pub(super) fn decode(
        &self,
        bytes: &[u8],
        limits: &Limits,
        keeper: &mut Keeper,
    ) -> Result<(), MediaError> {
        if self.still {
            keeper.keep(0, decode_image(bytes, limits)?);
            return Ok(());
        }
        let failed = |error| translate(self.format, error);
        let frames = if self.format == Format::Gif {
            let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(failed)?;
            decoder.set_limits(library_limits(limits)).map_err(failed)?;
            decoder.into_frames()
        } else {
            WebPDecoder::new(Cursor::new(bytes))
                .map_err(failed)?
                .into_frames()
        };
        self.collect(frames, keeper)
    }

    fn collect(&self, frames: Frames<'_>, keeper: &mut Keeper) -> Result<(), MediaError> {
        let size = (self.info.width, self.info.height);
        for (index, frame) in frames.take(self.info.frames).enumerate() {
            let frame = frame
                .map_err(|error| translate(self.format, error))?
                .into_buffer();
            if frame.dimensions() != size {
                return Err(MediaError::corrupt(
                    self.format,
                    "its frames differ in size",
                ));
            }
            if keeper.wants(index) {
                let data = frame
                    .pixels()
                    .flat_map(|&image::Rgba([r, g, b, _])| [r, g, b])
                    .collect();
                keeper.keep(
                    index,
                    RgbImage {
                        width: size.0,
                        height: size.1,
                        data,
                    },
                );
            }
            if keeper.done() {
                break;
            }
        }
        Ok(())
    }
}

/// Walks the blocks of a GIF (GIF89a, sections 17 to 27). `None` where the file ends before its trailer does, but a
/// missing trailer alone is forgiven, as everybody does.
fn list_gif(bytes: &[u8]) -> Option<List> {
    const EXTENSION: u8 = 0x21;
    const GRAPHIC_CONTROL: u8 = 0xf9;
    const IMAGE: u8 = 0x2c;
    let mut reader = Bytes::new(bytes);
    reader.take(6)?;
    let mut list = List {
        size: (reader.le16()?.into(), reader.le16()?.into()),
        ..List::default()
    };
    let flags = reader.u8()?;
    reader.take(2)?;
    reader.take(colour_table(flags))?;
    let mut delay = 0;
    loop {
        match reader.u8() {
            Some(EXTENSION) => {
                let label = reader.u8()?;
                if label == GRAPHIC_CONTROL {
                    let mut control = reader;
                    control.take(2)?;
                    delay = u64::from(control.le16()?) * 10;
                }
                skip_blocks(&mut reader)?;
            }
            Some(IMAGE) => {
                reader.take(8)?;
                let flags = reader.u8()?;
                reader.take(colour_table(flags))?;
                reader.u8()?;
                skip_blocks(&mut reader)?;
                list.frames += 1;
                list.millis += if delay < 20 { 100 } else { delay };
                delay = 0;
            }
            // The trailer, or something after the last frame that is no block.
            _ => return Some(list),
        }
    }
}

fn colour_table(flags: u8) -> usize {
    if flags & 0x80 != 0 {
        3 << ((flags & 7) + 1)
    } else {
        0
    }
}

fn skip_blocks(reader: &mut Bytes<'_>) -> Option<()> {
    loop {
        match reader.u8()? {
            0 => return Some(()),
            size => reader.take(usize::from(size))?,
        };
    }
}

/// Walks the chunks of a WebP.
fn list_webp(bytes: &[u8]) -> Option<Result<List, MediaError>> {
    const ANIMATED: u8 = 0x02;
    let mut reader = Bytes::new(bytes);
    reader.take(4)?;
    let size = usize::try_from(reader.le32()?).ok()?;
    let mut chunks = Bytes::new(reader.take(size)?);
    chunks.take(4)?;
    let mut list = List::default();
    while chunks.rest().len() >= 8 {
        let (name, body) = riff_chunk(&mut chunks)?;
        let mut reader = Bytes::new(body);
        match &name {
            b"VP8X" => {
                list.still = reader.u8()? & ANIMATED == 0;
                reader.take(3)?;
                list.size = (reader.le24()? + 1, reader.le24()? + 1);
            }
            b"VP8 " if list.frames == 0 => {
                reader.take(6)?;
                let size = (
                    u32::from(reader.le16()? & 0x3fff),
                    u32::from(reader.le16()? & 0x3fff),
                );
                list = List {
                    size,
                    frames: 1,
                    millis: 0,
                    still: true,
                };
            }
            b"VP8L" if list.frames == 0 => {
                reader.u8()?;
                let word = reader.le32()?;
                let size = ((word & 0x3fff) + 1, (word >> 14 & 0x3fff) + 1);
                list = List {
                    size,
                    frames: 1,
                    millis: 0,
                    still: true,
                };
            }
            b"ANMF" if !list.still => {
                reader.take(12)?;
                let delay = u64::from(reader.le24()?);
                list.frames += 1;
                list.millis += if delay == 0 { 100 } else { delay };
                reader.u8()?;
                if let Err(error) = check_frame(reader, list.size) {
                    return Some(Err(error));
                }
            }
            _ => {}
        }
    }
    Some(Ok(list))
}

/// The lossy picture inside a frame must fit the canvas.
fn check_frame(mut chunks: Bytes<'_>, canvas: (u32, u32)) -> Result<(), MediaError> {
    while let Some((name, body)) = riff_chunk(&mut chunks) {
        if &name == b"VP8 " {
            check_webp_frame(body, canvas)?;
        }
    }
    Ok(())
}
