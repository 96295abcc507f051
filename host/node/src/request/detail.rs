//! A picture that its client wants looked at in low detail: `detail` of OpenAI's `image_url`.
//!
//! It is made smaller before anything else is done with it, whatever a policy then plans. So all that follows is of the
//! smaller picture, and nothing else need know: its tokens and what they cost, what plug-ins see, the probe, digests, the
//! bytes that go to a target (which may be a node of before shipments), and the places of tokens, which are those of a
//! picture that came so small. A plan may make it smaller still.
//!
//! The smaller picture is a file again, and what its file decodes to is what every model reads, here and at another node: the
//! same pixels wherever the target is. The file is a PNG or a JPEG of the best quality, whichever has fewer bytes: drawings
//! lose nothing, and photographs little.

use msao_media::ship::{encode_jpeg, resized, scaled_size};
use msao_media::{MediaError, RgbImage, encode_png};
use msao_processor::{Extent, Processor};

use super::treatment::BEST_QUALITY;

/// Pixels of the longer side of a picture that is read in low detail, at most: OpenAI's.
pub const LOW_SIDE_PX: u32 = 512;

/// Pixels across and down at which a picture of this size is read in low detail; nothing where that is its own size. The
/// shape stays, to a pixel.
pub fn low_size(size: (u32, u32)) -> Option<(u32, u32)> {
    let longer = size.0.max(size.1);
    let scale = f64::from(LOW_SIDE_PX) / f64::from(longer);
    (longer > LOW_SIDE_PX).then(|| scaled_size(size, scale))
}

/// The file of a picture as it is read in low detail; nothing where it is read as it came. Slow: resizes and codes.
///
/// # Errors
/// For people: the model's processor takes no picture of that size, because it resizes none.
pub fn low(image: &RgbImage, processor: &Processor) -> Result<Option<Vec<u8>>, String> {
    let Some((width, height)) = low_size((image.width, image.height)) else {
        return Ok(None);
    };
    if let Err(error) = processor.tokens_of(0, Extent::Image { width, height }) {
        return Err(format!(
            "in detail 'low' it is read at {width} x {height} pixels, which this model does not take ({error}); \
             ask for detail 'auto'"
        ));
    }
    let file = resized(image, (width, height)).and_then(|smaller| coded(&smaller));
    file.map(Some).map_err(|error| error.to_string())
}

fn coded(image: &RgbImage) -> Result<Vec<u8>, MediaError> {
    let quality = u8::try_from(BEST_QUALITY).unwrap_or(100);
    let (png, jpeg) = (encode_png(image)?, encode_jpeg(image, quality)?);
    Ok(if png.len() <= jpeg.len() { png } else { jpeg })
}

#[cfg(test)]
mod tests {
    use msao_media::{Format, Limits, decode_image, sniff};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_longer_side_counts() {
        for (size, low) in [
            ((512, 512), None),
            ((1, 512), None),
            ((513, 10), Some((512, 10))),
            ((1024, 768), Some((512, 384))),
            ((768, 1024), Some((384, 512))),
            ((1000, 999), Some((512, 511))),
            ((100_000, 1), Some((512, 1))),
        ] {
            assert_eq!(low_size(size), low, "{size:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_is_no_larger_and_of_the_same_shape(width in 1_u32..70_000, height in 1_u32..70_000) {
            let Some((across, down)) = low_size((width, height)) else {
                prop_assert!(width.max(height) <= LOW_SIDE_PX);
                return Ok(());
            };
            prop_assert_eq!(across.max(down), LOW_SIDE_PX);
            prop_assert!(across >= 1 && down >= 1);
            let scale = f64::from(LOW_SIDE_PX) / f64::from(width.max(height));
            prop_assert!((f64::from(width) * scale - f64::from(across)).abs() <= 1.0);
            prop_assert!((f64::from(height) * scale - f64::from(down)).abs() <= 1.0);
            // Once is enough.
            prop_assert_eq!(low_size((across, down)), None);
        }
    }

    /// A picture by what its pixels are.
    fn picture(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 3]) -> RgbImage {
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        RgbImage {
            width,
            height,
            data: places.flat_map(|(x, y)| pixel(x, y)).collect(),
        }
    }

    #[test]
    fn a_drawing_loses_nothing_and_a_photograph_is_not_sent_pixel_by_pixel() {
        let drawing = picture(256, 128, |x, y| match x / 50 == y / 50 {
            true => [200, 30, 30],
            false => [255; 3],
        });
        let file = coded(&drawing).unwrap();
        assert_eq!(sniff(&file), Some(Format::Png));
        assert_eq!(decode_image(&file, &Limits::default()).unwrap(), drawing);
        // Slopes, and grain of 16 levels that nothing can foretell.
        let photograph = picture(256, 128, |x, y| {
            let mut grain = (256 * y + x).wrapping_mul(0x9e37_79b9);
            grain = (grain ^ (grain >> 15)).wrapping_mul(0x85eb_ca6b);
            grain = (grain ^ (grain >> 13)).wrapping_mul(0xc2b2_ae35) >> 28;
            [x / 2 + grain, y + grain, 100 + grain].map(|level| level as u8)
        });
        let file = coded(&photograph).unwrap();
        assert_eq!(sniff(&file), Some(Format::Jpeg));
        let back = decode_image(&file, &Limits::default()).unwrap();
        assert_eq!((back.width, back.height), (256, 128));
    }
}
