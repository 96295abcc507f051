//! What is done to rows of pixels on the way: scaling, painting over, cutting out, putting back.

use std::borrow::Cow;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageBuffer, Rgb};

use super::region::Region;
use crate::error::MediaError;
use crate::image::{RgbImage, translate};
use crate::sniff::Format;

/// Bytes of a pixel.
const RGB: usize = 3;

/// Rows of RGB of this width and height; `data` holds `height * width * 3` bytes.
pub(super) struct Pixels<'a> {
    pub(super) size: (u32, u32),
    pub(super) data: Cow<'a, [u8]>,
}

impl<'a> Pixels<'a> {
    /// The pixels of a picture, if it holds as many as it says.
    pub(super) fn of(image: &'a RgbImage) -> Option<Self> {
        let bytes = u64::from(image.width) * u64::from(image.height) * RGB as u64;
        let sound = bytes > 0 && image.data.len() as u64 == bytes;
        sound.then_some(Self {
            size: (image.width, image.height),
            data: Cow::Borrowed(&image.data),
        })
    }

    pub(super) fn filled(size: (u32, u32), colour: [u8; RGB]) -> Self {
        let count = size.0 as usize * size.1 as usize;
        Self {
            size,
            data: Cow::Owned(colour.repeat(count)),
        }
    }

    /// Resized with Lanczos' filter: what is left of small print stays sharp. It is seen once more through the filter of
    /// the model's own resize, so it need not be the same one.
    pub(super) fn scaled(self, size: (u32, u32)) -> Self {
        if size == self.size {
            return self;
        }
        let from: Option<ImageBuffer<Rgb<u8>, &[u8]>> =
            ImageBuffer::from_raw(self.size.0, self.size.1, &self.data);
        let to = from.map(|from| resize(&from, size.0, size.1, FilterType::Lanczos3).into_raw());
        Self {
            size,
            data: Cow::Owned(to.unwrap_or_default()),
        }
    }

    /// The mean of each colour, rounded.
    pub(super) fn mean(&self) -> [u8; RGB] {
        let mut sums = [0_u64; RGB];
        for pixel in self.data.chunks_exact(RGB) {
            sums.iter_mut()
                .zip(pixel)
                .for_each(|(sum, &value)| *sum += u64::from(value));
        }
        let count = (self.data.len() / RGB).max(1) as u64;
        sums.map(|sum| u8::try_from((sum + count / 2) / count).unwrap_or(u8::MAX))
    }

    /// The pixels of one region, which lies inside.
    pub(super) fn cut(self, region: Region) -> Self {
        if region == Region::whole(self.size) {
            return self;
        }
        let mut cut = Self::filled((region.width, region.height), [0; RGB]);
        cut.paste(&self, region, (0, 0));
        cut
    }

    /// The pixels of one region, in it those of `kept` (which lie in the region) and all else in one colour.
    pub(super) fn cut_and_painted(
        &self,
        region: Region,
        kept: &[Region],
        colour: [u8; RGB],
    ) -> Self {
        let mut cut = Self::filled((region.width, region.height), colour);
        for &kept in kept {
            cut.paste(self, kept, (kept.x - region.x, kept.y - region.y));
        }
        cut
    }

    /// Copies a region of other pixels to where `(x, y)` is its first; what would lie outside either is left out.
    pub(super) fn paste(&mut self, from: &Self, region: Region, (x, y): (u32, u32)) {
        let stride = from.size.0 as usize * RGB;
        let source = region.x as usize * RGB..region.right() as usize * RGB;
        let width = self.size.0 as usize * RGB;
        let target = x as usize * RGB..(x as usize + region.width as usize) * RGB;
        let rows = from
            .data
            .chunks_exact(stride.max(1))
            .skip(region.y as usize)
            .take(region.height as usize);
        let places = self
            .data
            .to_mut()
            .chunks_exact_mut(width.max(1))
            .skip(y as usize);
        for (place, row) in places.zip(rows) {
            if let Some((place, row)) = place.get_mut(target.clone()).zip(row.get(source.clone())) {
                place.copy_from_slice(row);
            }
        }
    }

    /// As baseline JPEG; quality from 1 to 100 as libjpeg has it.
    ///
    /// # Errors
    /// [`MediaError::Unsupported`] for a side of more than 65,535 pixels.
    pub(super) fn to_jpeg(&self, quality: u8) -> Result<Vec<u8>, MediaError> {
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, quality)
            .encode(
                &self.data,
                self.size.0,
                self.size.1,
                ExtendedColorType::Rgb8,
            )
            .map_err(|error| translate(Format::Jpeg, error))?;
        Ok(bytes)
    }

    pub(super) fn into_image(self) -> RgbImage {
        RgbImage {
            width: self.size.0,
            height: self.size.1,
            data: self.data.into_owned(),
        }
    }
}
