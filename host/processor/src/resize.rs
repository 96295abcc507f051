//! Resizing 8-bit RGB with antialiasing, bit for bit as PyTorch's CPU kernel does it.
//!
//! Two passes, rows then columns, each with 16-bit fixed-point weights and an 8-bit result. Sources: ATen
//! `native/cpu/UpSampleKernel.cpp` (`compute_indices_int16_weights_aa`, `basic_loop_aa_*<uint8_t>`), which follows
//! Pillow-SIMD; reached through `torchvision.transforms.v2.functional.resize` on `uint8` tensors.

use std::borrow::Cow;

use crate::config::Filter;

impl Filter {
    /// Half the width of the filter in source pixels at scale 1.
    pub(crate) fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            // Keys (1981), a = -0.5.
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Filter::Bicubic => 0.0,
        }
    }
}

/// The source pixels that make one destination pixel.
struct Taps {
    /// First source pixel.
    first: usize,
    /// Fixed-point weight of each pixel from there.
    weights: Vec<i32>,
}

/// The taps of one axis and the number of fractional bits of their weights.
fn taps(from: usize, to: usize, filter: Filter) -> (Vec<Taps>, u32) {
    let scale = from as f64 / to as f64;
    let support = filter.support() * scale.max(1.0);
    let inverse = 1.0 / scale.max(1.0);
    let mut largest = 0.0_f64;
    let exact: Vec<(usize, Vec<f64>)> = (0..to)
        .map(|i| {
            let centre = scale * (i as f64 + 0.5);
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let mut weights: Vec<f64> = (first..end)
                .map(|j| filter.at((j as f64 - centre + 0.5) * inverse))
                .collect();
            let total: f64 = weights.iter().sum();
            if total != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= total);
            }
            largest = weights.iter().fold(largest, |a, &b| a.max(b));
            (first, weights)
        })
        .collect();
    // As many bits as leave the largest weight within 16 bits.
    let bits = (0..22)
        .find(|bits| (0.5 + largest * f64::from(1_u32 << (bits + 1))) as i64 >= 1 << 15)
        .unwrap_or(22);
    let fixed = |weight: f64| (weight * f64::from(1_u32 << bits)).round() as i32;
    let taps = exact
        .into_iter()
        .map(|(first, weights)| Taps {
            first,
            weights: weights.into_iter().map(fixed).collect(),
        })
        .collect();
    (taps, bits)
}

fn to_u8(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}

/// Resizes `height` rows of `width` RGB pixels to `to = (height, width)`.
///
/// `pixels` has `height * width * 3` bytes, the result `to.0 * to.1 * 3`; it is `pixels` where nothing changes.
pub(crate) fn resize_rgb(
    pixels: &[u8],
    height: usize,
    width: usize,
    to: (usize, usize),
    filter: Filter,
) -> Cow<'_, [u8]> {
    let (tall, wide) = to;
    let pixels = if wide == width {
        Cow::Borrowed(pixels)
    } else {
        Cow::Owned(rows(pixels, height, width, wide, filter))
    };
    if tall == height {
        pixels
    } else {
        Cow::Owned(columns(&pixels, height, wide, tall, filter))
    }
}

/// Each row from `width` to `wide` pixels.
fn rows(pixels: &[u8], height: usize, width: usize, wide: usize, filter: Filter) -> Vec<u8> {
    let (taps, bits) = taps(width, wide, filter);
    let half = if bits == 0 { 0 } else { 1 << (bits - 1) };
    let mut out = Vec::with_capacity(height * wide * 3);
    for row in pixels.chunks_exact(width * 3) {
        for tap in &taps {
            let source = row.get(tap.first * 3..).unwrap_or_default().chunks_exact(3);
            let (mut r, mut g, mut b) = (half, half, half);
            for (pixel, weight) in source.zip(&tap.weights) {
                if let &[pr, pg, pb] = pixel {
                    r += i32::from(pr) * weight;
                    g += i32::from(pg) * weight;
                    b += i32::from(pb) * weight;
                }
            }
            out.extend_from_slice(&[to_u8(r, bits), to_u8(g, bits), to_u8(b, bits)]);
        }
    }
    out
}

/// Each column from `height` to `tall` pixels.
fn columns(pixels: &[u8], height: usize, wide: usize, tall: usize, filter: Filter) -> Vec<u8> {
    let (taps, bits) = taps(height, tall, filter);
    let half = if bits == 0 { 0 } else { 1 << (bits - 1) };
    let stride = wide * 3;
    let mut out = Vec::with_capacity(tall * stride);
    let mut sums = vec![0_i32; stride];
    for tap in &taps {
        sums.fill(half);
        let source = pixels
            .get(tap.first * stride..)
            .unwrap_or_default()
            .chunks_exact(stride);
        for (row, weight) in source.zip(&tap.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_u8(sum, bits)));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_size_is_the_same_picture() {
        let pixels: Vec<u8> = (0..5 * 7 * 3).map(|i| (i * 37) as u8).collect();
        assert_eq!(resize_rgb(&pixels, 5, 7, (5, 7), Filter::Bicubic), pixels);
    }

    proptest! {
        #[test]
        fn one_colour_stays_one_colour(
            h in 1usize..40, w in 1usize..40, tall in 1usize..60, wide in 1usize..60, colour: [u8; 3], cubic: bool,
        ) {
            let pixels = colour.repeat(h * w);
            let filter = if cubic { Filter::Bicubic } else { Filter::Bilinear };
            let out = resize_rgb(&pixels, h, w, (tall, wide), filter);
            prop_assert_eq!(out.len(), tall * wide * 3);
            for pixel in out.chunks_exact(3) {
                for (a, b) in pixel.iter().zip(colour) {
                    prop_assert!(a.abs_diff(b) <= 1);
                }
            }
        }
    }
}
