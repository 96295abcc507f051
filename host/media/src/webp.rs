//! The frames of an animated WebP, composed as they are shown.
//!
//! The chunks are taken apart here and every picture inside is given to the library as a still one. The library's own
//! way through an animation blends opaque pixels one level off and clears the wrong bytes when a frame is disposed.
//! The arithmetic here is that of libwebp's `WebPAnimDecoder`, which Pillow uses: canvas and disposed frames are
//! transparent black, whatever background colour the file proposes.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::{DynamicImage, RgbaImage};

use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::image::{RgbImage, translate};
use crate::sniff::Format;

/// Size, frames and delays, read off the chunks without decoding.
#[derive(Debug)]
pub(crate) struct WebP<'a> {
    pub(crate) size: (u32, u32),
    /// Empty where the file is a still picture.
    pub(crate) frames: Vec<Frame<'a>>,
}

/// One `ANMF` chunk.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) millis: u32,
    at: (u32, u32),
    size: (u32, u32),
    blend: bool,
    dispose: bool,
    /// The picture: `VP8L`, or `VP8 ` with or without `ALPH`.
    chunks: &'a [u8],
}

fn damaged(detail: impl Into<String>) -> MediaError {
    MediaError::corrupt(Format::WebP, detail)
}

impl<'a> WebP<'a> {
    /// Walks the chunks. A file has to hold as many bytes as its header says, and no picture inside may be larger
    /// than what it is in: the library believes the picture first.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, MediaError> {
        Self::walk(bytes).unwrap_or_else(|| Err(damaged("it ends before its pixels do")))
    }

    fn walk(bytes: &'a [u8]) -> Option<Result<Self, MediaError>> {
        const ANIMATED: u8 = 0x02;
        let mut reader = Bytes::new(bytes);
        reader.take(4)?;
        let size = usize::try_from(reader.le32()?).ok()?;
        let mut chunks = Bytes::new(reader.take(size)?);
        chunks.take(4)?;
        let mut found = Self {
            size: (0, 0),
            frames: Vec::new(),
        };
        let mut animated = false;
        while chunks.rest().len() >= 8 {
            let (name, body) = riff_chunk(&mut chunks)?;
            let mut reader = Bytes::new(body);
            match &name {
                b"VP8X" => {
                    animated = reader.u8()? & ANIMATED != 0;
                    reader.take(3)?;
                    found.size = (reader.le24()? + 1, reader.le24()? + 1);
                }
                b"VP8 " if found.size == (0, 0) => found.size = lossy_size(body)?,
                b"VP8 " => {
                    if let Err(error) = check_lossy(body, found.size) {
                        return Some(Err(error));
                    }
                }
                b"VP8L" if found.size == (0, 0) => found.size = lossless_size(body)?,
                b"ANMF" if animated => match Frame::parse(reader)?.inside(found.size) {
                    Ok(frame) => found.frames.push(frame),
                    Err(error) => return Some(Err(error)),
                },
                _ => {}
            }
        }
        if found.size == (0, 0) || (animated && found.frames.is_empty()) {
            return Some(Err(damaged("it holds no picture")));
        }
        Some(Ok(found))
    }

    /// The frames one after the other.
    pub(crate) fn composed(&self) -> impl Iterator<Item = Result<RgbImage, MediaError>> {
        let (width, height) = self.size;
        let mut canvas = RgbaImage::new(width, height);
        let mut clear: Option<&Frame<'_>> = None;
        self.frames.iter().map(move |frame| {
            if let Some(gone) = clear.take() {
                gone.paint(
                    &mut canvas,
                    &RgbaImage::new(gone.size.0, gone.size.1),
                    false,
                );
            }
            frame.paint(&mut canvas, &frame.decode()?, frame.blend);
            clear = Some(frame).filter(|frame| frame.dispose);
            let data = canvas
                .pixels()
                .flat_map(|&image::Rgba([r, g, b, _])| [r, g, b])
                .collect();
            Ok(RgbImage {
                width,
                height,
                data,
            })
        })
    }
}

impl<'a> Frame<'a> {
    fn parse(mut reader: Bytes<'a>) -> Option<Self> {
        const DO_NOT_BLEND: u8 = 0x02;
        const DISPOSE: u8 = 0x01;
        let at = (reader.le24()? * 2, reader.le24()? * 2);
        let size = (reader.le24()? + 1, reader.le24()? + 1);
        let millis = reader.le24()?;
        let flags = reader.u8()?;
        Some(Self {
            millis,
            at,
            size,
            blend: flags & DO_NOT_BLEND == 0,
            dispose: flags & DISPOSE != 0,
            chunks: reader.rest(),
        })
    }

    fn inside(self, canvas: (u32, u32)) -> Result<Self, MediaError> {
        if self.at.0 + self.size.0 > canvas.0 || self.at.1 + self.size.1 > canvas.1 {
            return Err(damaged("a frame reaches out of its canvas"));
        }
        let mut chunks = Bytes::new(self.chunks);
        while let Some((name, body)) = riff_chunk(&mut chunks) {
            if &name == b"VP8 " {
                check_lossy(body, self.size)?;
            }
        }
        Ok(self)
    }

    /// The frame's picture as a file of its own.
    fn decode(&self) -> Result<RgbaImage, MediaError> {
        const HAS_ALPHA: u8 = 0x10;
        let mut alpha = false;
        let mut body = Vec::with_capacity(self.chunks.len() + 32);
        let mut chunks = Bytes::new(self.chunks);
        while let Some((name, chunk)) = riff_chunk(&mut chunks) {
            if matches!(&name, b"ALPH" | b"VP8 " | b"VP8L") {
                alpha |= &name == b"ALPH";
                push_chunk(&mut body, &name, chunk);
            }
        }
        let mut file = b"RIFF\0\0\0\0WEBP".to_vec();
        if alpha {
            let [w0, w1, w2, _] = (self.size.0 - 1).to_le_bytes();
            let [h0, h1, h2, _] = (self.size.1 - 1).to_le_bytes();
            push_chunk(
                &mut file,
                b"VP8X",
                &[HAS_ALPHA, 0, 0, 0, w0, w1, w2, h0, h1, h2],
            );
        }
        file.extend_from_slice(&body);
        let size = u32::try_from(file.len() - 8).unwrap_or(u32::MAX);
        if let Some(field) = file.get_mut(4..8) {
            field.copy_from_slice(&size.to_le_bytes());
        }
        let failed = |error| translate(Format::WebP, error);
        let decoder = WebPDecoder::new(Cursor::new(file)).map_err(failed)?;
        if image::ImageDecoder::dimensions(&decoder) != self.size {
            return Err(damaged("a frame and its picture differ in size"));
        }
        Ok(DynamicImage::from_decoder(decoder)
            .map_err(failed)?
            .into_rgba8())
    }

    /// Puts a picture of the frame's size where the frame is.
    fn paint(&self, canvas: &mut RgbaImage, picture: &RgbaImage, blend: bool) {
        for (x, y, pixel) in picture.enumerate_pixels() {
            if let Some(below) = canvas.get_pixel_mut_checked(self.at.0 + x, self.at.1 + y) {
                below.0 = if blend {
                    over(pixel.0, below.0)
                } else {
                    pixel.0
                };
            }
        }
    }
}

/// libwebp's `BlendPixelNonPremult`.
fn over(above: [u8; 4], below: [u8; 4]) -> [u8; 4] {
    let [.., alpha] = above;
    match alpha {
        255 => above,
        0 => below,
        _ => {
            let [.., below_alpha] = below;
            let rest = (u32::from(below_alpha) * (256 - u32::from(alpha))) >> 8;
            let sum = u32::from(alpha) + rest;
            let scale = (1 << 24) / sum;
            let mut out = [0; 4];
            for ((out, above), below) in out.iter_mut().zip(above).zip(below) {
                let weighted = u32::from(above) * u32::from(alpha) + u32::from(below) * rest;
                *out = ((u64::from(weighted) * u64::from(scale)) >> 24) as u8;
            }
            let [r, g, b, _] = out;
            [r, g, b, sum as u8]
        }
    }
}

fn push_chunk(out: &mut Vec<u8>, name: &[u8], body: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(body);
    if body.len() % 2 == 1 {
        out.push(0);
    }
}

/// The name and body of the next RIFF chunk; bodies are padded to an even length.
pub(crate) fn riff_chunk<'a>(reader: &mut Bytes<'a>) -> Option<([u8; 4], &'a [u8])> {
    let name = reader.array()?;
    let size = usize::try_from(reader.le32()?).ok()?;
    let body = reader.take(size)?;
    if size % 2 == 1 {
        // The last chunk of a file often lacks its padding.
        reader.take(1);
    }
    Some((name, body))
}

/// The size in the header of a lossy picture (RFC 6386, 9.1).
fn lossy_size(vp8: &[u8]) -> Option<(u32, u32)> {
    let mut header = Bytes::new(vp8);
    header.take(6)?;
    Some((
        u32::from(header.le16()? & 0x3fff),
        u32::from(header.le16()? & 0x3fff),
    ))
}

fn lossless_size(vp8l: &[u8]) -> Option<(u32, u32)> {
    let mut header = Bytes::new(vp8l);
    header.take(1)?;
    let word = header.le32()?;
    Some(((word & 0x3fff) + 1, (word >> 14 & 0x3fff) + 1))
}

fn check_lossy(vp8: &[u8], (width, height): (u32, u32)) -> Result<(), MediaError> {
    match lossy_size(vp8) {
        Some((w, h)) if w <= width && h <= height => Ok(()),
        Some((w, h)) => Err(damaged(format!(
            "a picture of {w} x {h} is inside one of {width} x {height}"
        ))),
        None => Err(damaged("it ends before its pixels do")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blending_keeps_what_is_opaque() {
        assert_eq!(
            over([200, 100, 50, 255], [1, 2, 3, 255]),
            [200, 100, 50, 255]
        );
        assert_eq!(over([200, 100, 50, 0], [1, 2, 3, 77]), [1, 2, 3, 77]);
        let half = over([200, 100, 50, 128], [0, 0, 0, 255]);
        assert!(half[0].abs_diff(100) <= 1 && half[3] >= 254, "{half:?}");
        assert_eq!(over([9, 9, 9, 128], [0, 0, 0, 0])[3], 128);
    }

    #[test]
    fn a_picture_larger_than_its_canvas_is_refused() {
        let lossy = |w: u16, h: u16| {
            [
                &[0; 3][..],
                &[0x9d, 1, 0x2a],
                &w.to_le_bytes(),
                &h.to_le_bytes(),
            ]
            .concat()
        };
        let mut body = b"WEBP".to_vec();
        push_chunk(&mut body, b"VP8X", &[0, 0, 0, 0, 9, 0, 0, 9, 0, 0]);
        push_chunk(&mut body, b"VP8 ", &lossy(16_000, 16_000));
        let mut file = Vec::new();
        push_chunk(&mut file, b"RIFF", &body);
        assert!(matches!(WebP::open(&file), Err(MediaError::Corrupt { .. })));
        assert_eq!(lossy_size(&lossy(10, 7)), Some((10, 7)));
        for end in 8..file.len() {
            assert!(WebP::open(&file[..end]).is_err());
        }
    }
}
