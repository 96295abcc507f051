//! The size that a picture is resized to: whole patches, bounded pixels, nearly the same shape.
//!
//! Formula: `smart_resize` of Hugging Face transformers 5.17, `models/qwen2_vl/image_processing_qwen2_vl.py`.

use crate::config::PixelBounds;

/// Longest side over shortest side that is accepted.
pub const MAX_ASPECT_RATIO: f64 = 200.0;

/// Largest side that is accepted, in pixels; keeps every product below exact in 64 bits.
pub const MAX_SIDE: usize = 1 << 20;

/// Why a picture has no size to be resized to.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum SizeError {
    /// No pixels, or a side that is absurd.
    #[error("{width}x{height} pixels: each side must be from 1 to {MAX_SIDE}")]
    Side {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// Longer than wide by too much.
    #[error(
        "{width}x{height} pixels: one side is {ratio:.1} times the other and at most {MAX_ASPECT_RATIO} is allowed"
    )]
    Aspect {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Longest side over shortest.
        ratio: f64,
    },
}

/// The `(height, width)` to resize to: multiples of `factor`, `height * width` within `bounds`, shape nearly kept.
///
/// ```
/// use msao_processor::{PixelBounds, smart_resize};
/// let bounds = PixelBounds { min: 56 * 56, max: 28 * 28 * 1280 };
/// assert_eq!(smart_resize(480, 640, 28, bounds), Ok((476, 644)));
/// ```
pub fn smart_resize(
    height: usize,
    width: usize,
    factor: usize,
    bounds: PixelBounds,
) -> Result<(usize, usize), SizeError> {
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(SizeError::Side { height, width });
    }
    let factor = factor.max(1);
    let (h, w, f) = (height as f64, width as f64, factor as f64);
    let ratio = h.max(w) / h.min(w);
    if ratio > MAX_ASPECT_RATIO {
        return Err(SizeError::Aspect {
            height,
            width,
            ratio,
        });
    }
    // Python's `round` takes halves to the even number.
    let nearest = |side: f64| (side / f).round_ties_even() as usize * factor;
    let (tall, wide) = (nearest(h), nearest(w));
    if tall * wide > bounds.max {
        let shrink = (h * w / bounds.max as f64).sqrt();
        let down = |side: f64| ((side / shrink / f).floor() as usize * factor).max(factor);
        Ok((down(h), down(w)))
    } else if tall * wide < bounds.min {
        let grow = (bounds.min as f64 / (h * w)).sqrt();
        let up = |side: f64| (side * grow / f).ceil() as usize * factor;
        Ok((up(h), up(w)))
    } else {
        Ok((tall, wide))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn halves_go_to_the_even_multiple() {
        let bounds = PixelBounds {
            min: 1,
            max: usize::MAX,
        };
        assert_eq!(smart_resize(42, 70, 28, bounds), Ok((56, 56)));
        assert_eq!(
            smart_resize(14, 28, 28, bounds),
            Ok((28, 28)),
            "nothing rounds to zero"
        );
    }

    #[test]
    fn absurd_shapes_are_refused_with_the_limit() {
        let bounds = PixelBounds {
            min: 3136,
            max: 1_003_520,
        };
        let error = smart_resize(10, 2010, 28, bounds).unwrap_err().to_string();
        assert!(
            error.contains("2010x10") && error.contains("at most 200"),
            "{error}"
        );
        assert!(smart_resize(0, 5, 28, bounds).is_err());
        assert!(smart_resize(10, 2000, 28, bounds).is_ok());
    }

    proptest! {
        #[test]
        fn sizes_are_whole_patches_within_bounds(
            height in 1usize..5000, width in 1usize..5000, factor in 1usize..64, min in 1usize..100_000, more in 0usize..4_000_000,
        ) {
            // Bounds less than one step apart can have no size between them.
            let bounds = PixelBounds { min, max: min + more };
            if let Ok((tall, wide)) = smart_resize(height, width, factor, bounds) {
                prop_assert!(tall > 0 && wide > 0);
                prop_assert_eq!((tall % factor, wide % factor), (0, 0));
                // Growing may overshoot by one step a side; shrinking stops at one step.
                let grown = ((min as f64 * height as f64 / width as f64).sqrt() + factor as f64)
                    * ((min as f64 * width as f64 / height as f64).sqrt() + factor as f64);
                let thin = tall == factor || wide == factor;
                prop_assert!(thin || (tall * wide) as f64 <= (bounds.max as f64).max(grown) + 1.0);
                prop_assert!(tall * wide >= min || tall * wide * 4 > bounds.max || thin || bounds.max < 4 * factor * factor * 16);
            }
        }

        #[test]
        fn a_size_that_fits_stays(tall in 1usize..40, wide in 1usize..40) {
            let bounds = PixelBounds { min: 1, max: usize::MAX };
            prop_assert_eq!(smart_resize(tall * 28, wide * 28, 28, bounds), Ok((tall * 28, wide * 28)));
        }
    }
}
