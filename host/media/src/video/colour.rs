//! YUV 4:2:0 to RGB, with the arithmetic of ffmpeg's `swscale`.
//!
//! Every library that clips are usually read with (PyAV, decord, torchcodec) converts with it, so its results are what
//! a model has seen. Its vector code for `yuv420p` to `rgb24` at one size repeats chroma over its two by two pixels
//! and rounds every product down, which makes pictures about one level darker than exact arithmetic would; done the
//! same way here, frames agree with ffmpeg on x86-64 in every bit.
//!
//! Which matrix and range a clip uses is signalled in the stream or in the container; without a signal BT.601 and
//! the limited range are meant, as ffmpeg takes it whatever the size.

use crate::image::RgbImage;

/// How numbers stand for colours in a clip.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Colour {
    /// `matrix_coefficients` of ITU-T H.273; 2 is "unspecified".
    pub(super) matrix: u8,
    /// Whether luma uses 0 to 255 and not 16 to 235.
    pub(super) full_range: bool,
}

impl Colour {
    pub(super) const UNSPECIFIED: u8 = 2;

    /// Weights of red and blue in luma (ITU-T H.273, table 4).
    fn weights(self) -> (f64, f64) {
        match self.matrix {
            1 => (0.2126, 0.0722),
            4 => (0.30, 0.11),
            7 => (0.212, 0.087),
            9 | 10 => (0.2627, 0.0593),
            _ => (0.299, 0.114),
        }
    }
}

/// The planes of one frame; chroma has half the width and height.
pub(super) struct Planes<'a> {
    pub(super) y: &'a [u8],
    pub(super) u: &'a [u8],
    pub(super) v: &'a [u8],
    pub(super) y_stride: usize,
    pub(super) uv_stride: usize,
}

/// Factors with 13 bits after the point. The products have 16 bits cut off and their other factor 3 bits added, all of
/// which fits in 32 bits with room to spare.
struct Factors {
    luma: i32,
    black: i32,
    red_v: i32,
    green_u: i32,
    green_v: i32,
    blue_u: i32,
}

impl Factors {
    fn new(colour: Colour) -> Self {
        let (red, blue) = colour.weights();
        let green = 1.0 - red - blue;
        let (luma_span, chroma_span, black) = if colour.full_range {
            (255.0, 255.0, 0)
        } else {
            (219.0, 224.0, 16)
        };
        let fixed = |factor: f64| (factor * 8192.0).round() as i32;
        let chroma = 255.0 / chroma_span;
        Self {
            luma: fixed(255.0 / luma_span),
            black,
            red_v: fixed(2.0 * (1.0 - red) * chroma),
            green_u: fixed(-2.0 * (1.0 - blue) * blue / green * chroma),
            green_v: fixed(-2.0 * (1.0 - red) * red / green * chroma),
            blue_u: fixed(2.0 * (1.0 - blue) * chroma),
        }
    }

    fn product(value: i32, factor: i32) -> i32 {
        (8 * value * factor) >> 16
    }

    /// What two chroma values add to red, green and blue.
    fn chroma(&self, u: u8, v: u8) -> [i32; 3] {
        let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
        [
            Self::product(v, self.red_v),
            Self::product(u, self.green_u) + Self::product(v, self.green_v),
            Self::product(u, self.blue_u),
        ]
    }

    fn pixel(&self, y: u8, chroma: [i32; 3]) -> [u8; 3] {
        let luma = Self::product(i32::from(y) - self.black, self.luma);
        chroma.map(|chroma| (luma + chroma).clamp(0, 255) as u8)
    }
}

/// The frame in RGB, or `None` where the planes are smaller than the size.
pub(super) fn to_rgb(
    planes: &Planes<'_>,
    (width, height): (u32, u32),
    colour: Colour,
) -> Option<RgbImage> {
    let factors = Factors::new(colour);
    let (w, h) = (width as usize, height as usize);
    let mut data = vec![0; w * h * 3];
    for (row, out) in data.chunks_exact_mut(w * 3).enumerate() {
        let y = row_of(planes.y, planes.y_stride, row, w)?;
        let u = row_of(planes.u, planes.uv_stride, row / 2, w.div_ceil(2))?;
        let v = row_of(planes.v, planes.uv_stride, row / 2, w.div_ceil(2))?;
        for (((out, y), u), v) in out.chunks_mut(6).zip(y.chunks(2)).zip(u).zip(v) {
            let chroma = factors.chroma(*u, *v);
            for (out, y) in out.chunks_exact_mut(3).zip(y) {
                out.copy_from_slice(&factors.pixel(*y, chroma));
            }
        }
    }
    Some(RgbImage {
        width,
        height,
        data,
    })
}

fn row_of(plane: &[u8], stride: usize, row: usize, width: usize) -> Option<&[u8]> {
    let start = row.checked_mul(stride)?;
    plane.get(start..start.checked_add(width)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BT601: Colour = Colour {
        matrix: 6,
        full_range: false,
    };
    const BT709: Colour = Colour {
        matrix: 1,
        full_range: false,
    };

    fn one(colour: Colour, [y, u, v]: [u8; 3]) -> [u8; 3] {
        let factors = Factors::new(colour);
        factors.pixel(y, factors.chroma(u, v))
    }

    #[test]
    fn known_colours() {
        for colour in [BT601, BT709] {
            assert_eq!(one(colour, [16, 128, 128]), [0; 3]);
            assert_eq!(one(colour, [235, 128, 128]), [255; 3]);
            assert_eq!(one(colour, [0, 128, 128]), [0; 3]);
            assert_eq!(one(colour, [255, 128, 128]), [255; 3]);
        }
        // Red, green and blue at full strength as the two standards write them.
        for (colour, yuv, rgb) in [
            (BT601, [81, 90, 240], [255, 0, 0]),
            (BT601, [145, 54, 34], [0, 255, 0]),
            (BT601, [41, 240, 110], [0, 0, 255]),
            (BT709, [63, 102, 240], [255, 0, 0]),
            (BT709, [173, 42, 26], [0, 255, 0]),
            (BT709, [32, 240, 118], [0, 0, 255]),
        ] {
            let got = one(colour, yuv);
            let far = got
                .iter()
                .zip(&rgb)
                .map(|(a, b): (&u8, &u8)| a.abs_diff(*b))
                .max();
            assert!(far <= Some(3), "{yuv:?}: {got:?}, not {rgb:?}");
        }
        let full = Colour {
            matrix: 6,
            full_range: true,
        };
        assert_eq!(one(full, [200, 128, 128]), [200; 3]);
    }

    #[test]
    fn odd_sizes_and_short_planes() {
        let planes = Planes {
            y: &[100; 15],
            u: &[128; 4],
            v: &[128; 4],
            y_stride: 5,
            uv_stride: 2,
        };
        let frame = to_rgb(
            &planes,
            (3, 3),
            Colour {
                matrix: 2,
                full_range: true,
            },
        )
        .unwrap();
        assert_eq!(frame.data, [100; 27]);
        assert!(to_rgb(&planes, (3, 4), BT601).is_none());
        assert!(to_rgb(&planes, (6, 3), BT601).is_none());
    }
}
