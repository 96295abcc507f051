//! A picture that is drawn on. What would lie outside it is left out.

use msao_media::RgbImage;

/// Red, green and blue.
pub type Colour = [u8; 3];

/// Bytes of a pixel.
const RGB: usize = 3;

/// A rectangle of pixels: left, top, width and height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// Pixels in rows, the top one first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canvas {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl Canvas {
    /// All in one colour.
    pub fn filled(width: u32, height: u32, colour: Colour) -> Canvas {
        Canvas {
            width,
            height,
            data: colour.repeat(width as usize * height as usize),
        }
    }

    /// A picture brought to another size: each pixel is the mean, rounded down, of those of the picture that it covers, and at
    /// least of one. Integers alone, so that it is the same to the bit everywhere.
    pub fn scaled(image: &RgbImage, width: u32, height: u32) -> Canvas {
        let mut data = Vec::with_capacity(width as usize * height as usize * RGB);
        let stride = image.width as usize * RGB;
        for y in 0..height {
            let rows = covered(y, height, image.height);
            for x in 0..width {
                let columns = covered(x, width, image.width);
                let (mut sums, mut count) = ([0_u64; RGB], 0_u64);
                for row in rows.clone() {
                    let first = row * stride + columns.start * RGB;
                    let bytes = image.data.get(first..first + columns.len() * RGB);
                    for pixel in bytes.unwrap_or_default().chunks_exact(RGB) {
                        let values = sums.iter_mut().zip(pixel);
                        values.for_each(|(sum, value)| *sum += u64::from(*value));
                        count += 1;
                    }
                }
                data.extend(sums.map(|sum| (sum / count.max(1)) as u8));
            }
        }
        Canvas {
            width,
            height,
            data,
        }
    }

    /// Width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Gives every pixel of an area another colour.
    pub fn change(&mut self, area: Area, to: impl Fn(Colour) -> Colour) {
        let right = area.x.saturating_add(area.width).min(self.width) as usize;
        let left = (area.x as usize).min(right);
        let stride = self.width as usize * RGB;
        let rows = self.data.chunks_exact_mut(stride.max(1));
        let rows = rows.skip(area.y as usize).take(area.height as usize);
        for row in rows {
            let pixels = row.get_mut(left * RGB..right * RGB).unwrap_or_default();
            for pixel in pixels.chunks_exact_mut(RGB) {
                if let [r, g, b] = pixel {
                    [*r, *g, *b] = to([*r, *g, *b]);
                }
            }
        }
    }

    /// Puts another one onto it, with its left top at `(x, y)`.
    pub fn paste(&mut self, from: &Canvas, (x, y): (u32, u32)) {
        let width = from.width.min(self.width.saturating_sub(x)) as usize * RGB;
        let (own, other) = (self.width as usize * RGB, from.width as usize * RGB);
        let rows = self.data.chunks_exact_mut(own.max(1)).skip(y as usize);
        for (row, source) in rows.zip(from.data.chunks_exact(other.max(1))) {
            let first = x as usize * RGB;
            let place = row.get_mut(first..first + width);
            if let Some((place, source)) = place.zip(source.get(..width)) {
                place.copy_from_slice(source);
            }
        }
    }

    /// The same with a frame of this many pixels around it.
    pub fn framed(&self, by: u32, colour: Colour) -> Canvas {
        let mut framed = Canvas::filled(self.width + 2 * by, self.height + 2 * by, colour);
        framed.paste(self, (by, by));
        framed
    }

    /// As a picture.
    pub fn into_image(self) -> RgbImage {
        RgbImage {
            width: self.width,
            height: self.height,
            data: self.data,
        }
    }
}

/// Which of `all` things place `at` of `places` stands for: a run of them, at least one where there is any.
pub fn covered(at: u32, places: u32, all: u32) -> std::ops::Range<usize> {
    let place = |at: u32| (u64::from(at) * u64::from(all) / u64::from(places.max(1))) as usize;
    let first = place(at);
    let end = place(at.saturating_add(1)).max(first + 1);
    first.min(all as usize)..end.min(all as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grey(width: u32, height: u32, data: &[u8]) -> RgbImage {
        RgbImage {
            width,
            height,
            data: data.iter().flat_map(|value| [*value; 3]).collect(),
        }
    }

    #[test]
    fn a_picture_is_scaled_by_means_of_what_pixels_cover() {
        let image = grey(4, 2, &[0, 10, 20, 30, 40, 50, 60, 71]);
        let values =
            |canvas: Canvas| -> Vec<u8> { canvas.data.chunks(3).map(|it| it[0]).collect() };
        assert_eq!(values(Canvas::scaled(&image, 2, 1)), [25, 45]);
        assert_eq!(values(Canvas::scaled(&image, 4, 1)), [20, 30, 40, 50]);
        assert_eq!(
            values(Canvas::scaled(&grey(2, 1, &[1, 9]), 4, 2)),
            [1, 1, 9, 9, 1, 1, 9, 9]
        );
        // One that has fewer pixels than it says is drawn as far as it goes.
        let short = RgbImage {
            data: vec![9; 5],
            ..grey(2, 1, &[])
        };
        assert_eq!(values(Canvas::scaled(&short, 2, 1)), [9, 0]);
    }

    proptest! {
        #[test]
        fn places_stand_for_all_things_in_order(places in 1_u32..90, all in 1_u32..90) {
            let runs: Vec<_> = (0..places).map(|at| covered(at, places, all)).collect();
            prop_assert!(runs.iter().all(|run| !run.is_empty() && run.end <= all as usize));
            prop_assert_eq!((runs[0].start, runs[places as usize - 1].end), (0, all as usize));
            prop_assert!(runs.windows(2).all(|pair| pair[1].start <= pair[0].end));
        }

        #[test]
        fn nothing_is_drawn_outside(
            (width, height) in (0_u32..9, 0_u32..9),
            (x, y) in (0_u32..12, 0_u32..12),
            (wide, high) in (0_u32..12, 0_u32..12),
        ) {
            let mut canvas = Canvas::filled(width, height, [1; 3]);
            canvas.paste(&Canvas::filled(wide, high, [2; 3]), (x, y));
            canvas.change(Area { x, y, width: wide, height: high }, |[r, ..]| [r + 1; 3]);
            prop_assert_eq!(canvas.data.len(), (width * height * 3) as usize);
            for (number, pixel) in canvas.data.chunks(3).enumerate() {
                let at = (number as u32 % width, number as u32 / width);
                let inside = (x..x + wide).contains(&at.0) && (y..y + high).contains(&at.1);
                prop_assert_eq!(pixel, [if inside { 3 } else { 1 }; 3]);
            }
        }
    }
}
