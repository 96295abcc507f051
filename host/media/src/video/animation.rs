//! GIF and WebP as clips.
//!
//! The list of frames and their delays is read off the container without decompressing anything; then the frames are
//! composed one after the other (disposal, blending) up to the last one that is wanted.
//!
//! A delay too short to be meant (below 20 ms for GIF, 0 for WebP) counts as 100 ms, as in browsers and in ffmpeg.
//! What no frame has painted yet is black.

use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::{AnimationDecoder, ImageDecoder};

use super::keeper::Keeper;
use super::{VideoInfo, info};
use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::image::{RgbImage, decode_image, library_limits, translate};
use crate::limits::Limits;
use crate::sniff::Format;
use crate::webp::WebP;

/// A clip whose frames have been counted.
pub(super) struct Animation {
    pub(super) info: VideoInfo,
    pub(super) format: Format,
}

/// What a container says.
#[derive(Debug, Default, PartialEq)]
struct List {
    size: (u32, u32),
    frames: u64,
    millis: u64,
}

impl Animation {
    pub(super) fn open(format: Format, bytes: &[u8], limits: &Limits) -> Result<Self, MediaError> {
        let list = if format == Format::Gif {
            list_gif(bytes)
                .ok_or_else(|| MediaError::corrupt(format, "it ends before its last frame does"))?
        } else {
            list_webp(&WebP::open(bytes)?)
        };
        let info = info(
            format,
            list.size,
            list.frames,
            list.millis as f64 / 1000.0,
            limits,
        )?;
        Ok(Self { info, format })
    }

    pub(super) fn decode(
        &self,
        bytes: &[u8],
        limits: &Limits,
        keeper: &mut Keeper,
    ) -> Result<(), MediaError> {
        if self.format == Format::Gif {
            return self.collect(gif_frames(bytes, limits)?, keeper);
        }
        let webp = WebP::open(bytes)?;
        if webp.frames.is_empty() {
            keeper.keep(0, decode_image(bytes, limits)?);
            return Ok(());
        }
        self.collect(webp.composed(), keeper)
    }

    fn collect(
        &self,
        frames: impl Iterator<Item = Result<RgbImage, MediaError>>,
        keeper: &mut Keeper,
    ) -> Result<(), MediaError> {
        for (index, frame) in frames.take(self.info.frames).enumerate() {
            let frame = frame?;
            if (frame.width, frame.height) != (self.info.width, self.info.height) {
                return Err(MediaError::corrupt(
                    self.format,
                    "its frames differ in size",
                ));
            }
            if keeper.wants(index) {
                keeper.keep(index, frame);
            }
            if keeper.done() {
                break;
            }
        }
        Ok(())
    }
}

fn gif_frames(
    bytes: &[u8],
    limits: &Limits,
) -> Result<impl Iterator<Item = Result<RgbImage, MediaError>>, MediaError> {
    let failed = |error| translate(Format::Gif, error);
    let mut decoder = GifDecoder::new(Cursor::new(bytes)).map_err(failed)?;
    decoder.set_limits(library_limits(limits)).map_err(failed)?;
    Ok(decoder.into_frames().map(move |frame| {
        let frame = frame.map_err(failed)?.into_buffer();
        let (width, height) = frame.dimensions();
        let data = frame
            .pixels()
            .flat_map(|&image::Rgba([r, g, b, _])| [r, g, b])
            .collect();
        Ok(RgbImage {
            width,
            height,
            data,
        })
    }))
}

/// A still picture is one frame without duration.
fn list_webp(webp: &WebP<'_>) -> List {
    let delays = webp
        .frames
        .iter()
        .map(|frame| u64::from(if frame.millis == 0 { 100 } else { frame.millis }));
    List {
        size: webp.size,
        frames: webp.frames.len().max(1) as u64,
        millis: delays.sum(),
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
