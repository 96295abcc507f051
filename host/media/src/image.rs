//! Pictures to RGB, with the semantics of Pillow's `convert("RGB")` after `exif_transpose`.
//!
//! That is how Hugging Face loads a picture, and parity with it is what the rest of the platform is measured
//! against:
//!
//! - Alpha is dropped, not blended: a transparent pixel shows the colour stored under it.
//! - Palettes are expanded; grey is repeated in the three channels. Colour profiles and gamma are not applied.
//! - 16-bit colour, and 16-bit grey with alpha, keep the high byte. 16-bit grey without alpha is *clipped* at 255,
//!   as Pillow does with its mode `I;16`: a picture that uses the whole range comes out nearly white, there and here.
//! - The orientation of EXIF is applied (JPEG, WebP, PNG).
//! - Of an animation the first frame is taken.
//!
//! PNG, GIF and WebP are exact. JPEG differs from libjpeg-turbo by rounding (up to 3 levels) and by how subsampled chroma
//! is scaled up at edges of colour (up to 8; with 4:2:2 more in the last column).

use std::io::Cursor;

use image::codecs::{gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder};
use image::{DynamicImage, ImageDecoder, ImageError};

use crate::bytes::Bytes;
use crate::error::MediaError;
use crate::guard::shielded;
use crate::limits::Limits;
use crate::sniff::{Format, MediaKind, expect};
use crate::webp::WebP;

mod jpeg_end;

/// Rows of red, green and blue bytes, top row first.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `height * width * 3` bytes.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({} x {})", self.width, self.height)
    }
}

/// Decodes one picture: PNG, JPEG, WebP or GIF.
///
/// The size is read from the header and held against `limits` before any pixel is decoded.
///
/// # Errors
/// Any [`MediaError`] but those about frames and seconds.
pub fn decode_image(bytes: &[u8], limits: &Limits) -> Result<RgbImage, MediaError> {
    limits.check_bytes(bytes.len() as u64)?;
    let format = expect(bytes, MediaKind::Image)?;
    shielded(format, || match format {
        Format::Png => {
            // Before the library sees it: for a size beyond its memory it would not say which size that is.
            if let Some((width, height)) = png_size(bytes) {
                limits.check_pixels(width, height)?;
            }
            let allowed = library_limits(limits);
            let decoder = PngDecoder::with_limits(Cursor::new(bytes), allowed);
            decode(
                decoder.map_err(|error| translate(format, error))?,
                format,
                limits,
            )
        }
        Format::Jpeg => {
            let decoder =
                JpegDecoder::new(Cursor::new(bytes)).map_err(|error| translate(format, error))?;
            check_size(&decoder, format, limits)?;
            jpeg_end::check(bytes)?;
            decode(decoder, format, limits)
        }
        Format::WebP => {
            let webp = WebP::open(bytes)?;
            limits.check_pixels(webp.size.0, webp.size.1)?;
            if let Some(first) = webp.composed().next() {
                return first;
            }
            let decoder =
                WebPDecoder::new(Cursor::new(bytes)).map_err(|error| translate(format, error))?;
            decode(decoder, format, limits)
        }
        _ => {
            let decoder =
                GifDecoder::new(Cursor::new(bytes)).map_err(|error| translate(format, error))?;
            decode(decoder, format, limits)
        }
    })
}

/// Width and height of the header chunk, which always comes first.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut reader = Bytes::new(bytes);
    reader.take(16)?;
    reader.be32().zip(reader.be32())
}

fn decode<D: ImageDecoder>(
    mut decoder: D,
    format: Format,
    limits: &Limits,
) -> Result<RgbImage, MediaError> {
    check_size(&decoder, format, limits)?;
    decoder
        .set_limits(library_limits(limits))
        .map_err(|error| translate(format, error))?;
    // Damaged metadata is no reason to refuse a picture that can be shown.
    let orientation = decoder
        .orientation()
        .unwrap_or(image::metadata::Orientation::NoTransforms);
    let picture = DynamicImage::from_decoder(decoder).map_err(|error| translate(format, error))?;
    let mut picture = DynamicImage::ImageRgb8(to_rgb(picture));
    picture.apply_orientation(orientation);
    let picture = picture.into_rgb8();
    let (width, height) = picture.dimensions();
    Ok(RgbImage {
        width,
        height,
        data: picture.into_raw(),
    })
}

fn check_size(
    decoder: &impl ImageDecoder,
    format: Format,
    limits: &Limits,
) -> Result<(), MediaError> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(MediaError::corrupt(
            format,
            format!("it gives its size as {width} x {height}"),
        ));
    }
    limits.check_pixels(width, height)
}

/// What the library may allocate by itself: a picture of four 16-bit channels, once to hold and once to convert,
/// and as much again as the file for its metadata.
pub(crate) fn library_limits(limits: &Limits) -> image::Limits {
    let mut allowed = image::Limits::default();
    allowed.max_alloc = Some(
        limits
            .max_pixels
            .saturating_mul(16)
            .saturating_add(limits.max_bytes),
    );
    allowed
}

fn to_rgb(picture: DynamicImage) -> image::RgbImage {
    use image::{Rgb, buffer::ConvertBuffer};
    let (width, height) = (picture.width(), picture.height());
    let high = |value: u16| (value >> 8) as u8;
    let clipped = |value: u16| value.min(255) as u8;
    let map = |pixels: &mut dyn Iterator<Item = [u8; 3]>| {
        let mut rgb = image::RgbImage::new(width, height);
        rgb.pixels_mut()
            .zip(pixels)
            .for_each(|(pixel, value)| *pixel = Rgb(value));
        rgb
    };
    match picture {
        DynamicImage::ImageRgb8(picture) => picture,
        DynamicImage::ImageRgba8(picture) => {
            map(&mut picture.pixels().map(|&image::Rgba([r, g, b, _])| [r, g, b]))
        }
        DynamicImage::ImageLuma8(picture) => picture.convert(),
        DynamicImage::ImageLumaA8(picture) => {
            map(&mut picture.pixels().map(|&image::LumaA([l, _])| [l; 3]))
        }
        DynamicImage::ImageLuma16(picture) => {
            map(&mut picture.pixels().map(|&image::Luma([l])| [clipped(l); 3]))
        }
        DynamicImage::ImageLumaA16(picture) => {
            map(&mut picture.pixels().map(|&image::LumaA([l, _])| [high(l); 3]))
        }
        DynamicImage::ImageRgb16(picture) => {
            map(&mut picture.pixels().map(|&Rgb(rgb)| rgb.map(high)))
        }
        DynamicImage::ImageRgba16(picture) => map(&mut picture
            .pixels()
            .map(|&image::Rgba([r, g, b, _])| [high(r), high(g), high(b)])),
        other => other.into_rgb8(),
    }
}

/// The library's error in this crate's words.
pub(crate) fn translate(format: Format, error: ImageError) -> MediaError {
    match error {
        ImageError::Unsupported(error) => MediaError::unsupported(format, error.to_string()),
        ImageError::Limits(error) => MediaError::unsupported(
            format,
            format!("more memory than its pixels account for ({error})"),
        ),
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            MediaError::corrupt(format, "it ends before its pixels do")
        }
        error => MediaError::corrupt(format, error.to_string()),
    }
}
