//! Pictures to PNG, which loses nothing: for what people look at.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::error::MediaError;
use crate::image::{RgbImage, translate};
use crate::sniff::Format;

/// Encodes a picture as PNG. [`decode_image`](crate::decode_image) gives the same pixels back.
///
/// # Errors
/// [`MediaError::Corrupt`] where the picture has other pixels than its size says, or none.
pub fn encode_png(image: &RgbImage) -> Result<Vec<u8>, MediaError> {
    let wanted = u64::from(image.width) * u64::from(image.height) * 3;
    if wanted == 0 || image.data.len() as u64 != wanted {
        let detail = format!(
            "{} x {} pixels take {wanted} bytes, and there are {}",
            image.width,
            image.height,
            image.data.len()
        );
        return Err(MediaError::corrupt(Format::Png, detail));
    }
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(
            &image.data,
            image.width,
            image.height,
            ExtendedColorType::Rgb8,
        )
        .map_err(|error| translate(Format::Png, error))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, decode_image};

    #[test]
    fn pixels_come_back_as_they_were() {
        let data: Vec<u8> = (0..7 * 5 * 3).map(|it| (it * 37 % 256) as u8).collect();
        let image = RgbImage {
            width: 7,
            height: 5,
            data,
        };
        let bytes = encode_png(&image).unwrap();
        assert_eq!(decode_image(&bytes, &Limits::default()).unwrap(), image);
        for (width, height, bytes) in [(7, 5, 104), (7, 5, 106), (0, 5, 0)] {
            let wrong = RgbImage {
                width,
                height,
                data: vec![0; bytes],
            };
            let error = encode_png(&wrong).unwrap_err().to_string();
            assert!(error.contains("there are"), "{error}");
        }
    }
}
