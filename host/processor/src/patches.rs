//! From 8-bit frames to the normalised patches that a vision tower reads.

use std::ops::Range;

use msao_core::inputs::Grid;

use crate::config::PictureConfig;

/// What each 8-bit value of each colour becomes: rescaled and normalised, computed once for all 256 values.
///
/// As Hugging Face's fused form: `(v - mean / rescale) / (std / rescale)` in `f32`.
#[derive(Clone, Debug)]
pub(crate) struct ColourTable {
    tables: [[f32; 256]; 3],
}

impl ColourTable {
    pub(crate) fn new(config: &PictureConfig) -> Self {
        let mut tables = [[0.0; 256]; 3];
        for (colour, table) in tables.iter_mut().enumerate() {
            for (value, out) in (0_u16..).zip(table.iter_mut()) {
                let value = f32::from(value);
                *out = match (config.normalize, config.rescale) {
                    (Some((mean, std)), rescale) => {
                        let pick =
                            |of: [f64; 3]| of.get(colour).copied().unwrap_or_default() as f32;
                        let grow = (1.0 / rescale.unwrap_or(1.0)) as f32;
                        (value - pick(mean) * grow) / (pick(std) * grow)
                    }
                    (None, Some(rescale)) => value * rescale as f32,
                    (None, None) => value,
                };
            }
        }
        Self { tables }
    }
}

/// The grid of `frames` frames of `height` x `width` pixels; `None` unless the sides are whole merged patches.
pub(crate) fn grid_of(
    frames: usize,
    height: usize,
    width: usize,
    config: &PictureConfig,
) -> Option<Grid> {
    let factor = config.factor();
    (height.is_multiple_of(factor) && width.is_multiple_of(factor) && height > 0 && width > 0).then(
        || Grid {
            t: frames.div_ceil(config.temporal_patch),
            h: height / config.patch,
            w: width / config.patch,
        },
    )
}

/// Appends the patches of one temporal patch to `out`.
///
/// `frames` are `temporal_patch` frames of `grid.h * patch` rows of `grid.w * patch` RGB pixels; if they are fewer (a
/// picture, a clip's last frame), the last is repeated. The rows appended are `[grid.h * grid.w, 3 * temporal_patch * patch * patch]`: patches square by square of `merge x merge`, squares in
/// reading order; within a patch colour, frame, row, column.
pub(crate) fn append_patches(
    frames: &[&[u8]],
    grid: Grid,
    config: &PictureConfig,
    table: &ColourTable,
    out: &mut Vec<f32>,
) {
    let all = (0..grid.h / config.merge, 0..grid.w / config.merge);
    append_squares(frames, grid, all, config, table, out);
}

/// The same for a part of the squares of `merge x merge` patches: those in these rows and columns.
pub(crate) fn append_squares(
    frames: &[&[u8]],
    grid: Grid,
    (rows, columns): (Range<usize>, Range<usize>),
    config: &PictureConfig,
    table: &ColourTable,
    out: &mut Vec<f32>,
) {
    let (patch, merge) = (config.patch, config.merge);
    let stride = grid.w * patch * 3;
    out.reserve(rows.len() * columns.len() * merge * merge * config.patch_values());
    for (y, x) in merged_order(rows, columns, merge) {
        for (colour, table) in table.tables.iter().enumerate() {
            for frame in frames {
                let rows = frame.chunks_exact(stride).skip(y * patch).take(patch);
                for row in rows {
                    let pixels = row
                        .get(x * patch * 3..(x + 1) * patch * 3)
                        .unwrap_or_default();
                    out.extend(
                        pixels
                            .chunks_exact(3)
                            .map(|pixel| look_up(table, pixel, colour)),
                    );
                }
            }
            for _ in frames.len()..config.temporal_patch {
                out.extend_from_within(out.len() - patch * patch..);
            }
        }
    }
}

/// What one colour of a pixel becomes. Neither index can miss, which the optimiser sees for the table.
fn look_up(table: &[f32; 256], pixel: &[u8], colour: usize) -> f32 {
    let value = pixel.get(colour).copied().unwrap_or_default();
    table.get(usize::from(value)).copied().unwrap_or_default()
}

/// The `(row, column)` of each patch of these rows and columns of squares, in the order in which a vision tower reads them.
fn merged_order(
    rows: Range<usize>,
    columns: Range<usize>,
    merge: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let squares = rows.flat_map(move |y| columns.clone().map(move |x| (y * merge, x * merge)));
    squares.flat_map(move |(y, x)| {
        (0..merge).flat_map(move |dy| (0..merge).map(move |dx| (y + dy, x + dx)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Filter, PixelBounds};

    fn config(patch: usize, temporal_patch: usize, merge: usize) -> PictureConfig {
        PictureConfig {
            resize: false,
            filter: Filter::Bicubic,
            bounds: PixelBounds {
                min: 1,
                max: 1 << 20,
            },
            rescale: None,
            normalize: None,
            patch,
            temporal_patch,
            merge,
        }
    }

    /// The inverse of [`append_patches`], written from the layout's definition.
    fn unpatch(values: &[f32], grid: Grid, config: &PictureConfig) -> Vec<Vec<u8>> {
        let (p, t, width) = (config.patch, config.temporal_patch, grid.w * config.patch);
        let mut frames = vec![vec![0; grid.h * p * width * 3]; t];
        let columns = grid.w / config.merge;
        for (n, patch) in values.chunks_exact(config.patch_values()).enumerate() {
            let (square, inner) = (
                n / (config.merge * config.merge),
                n % (config.merge * config.merge),
            );
            let y = square / columns * config.merge + inner / config.merge;
            let x = square % columns * config.merge + inner % config.merge;
            for (k, &value) in patch.iter().enumerate() {
                let (colour, frame, dy, dx) = (k / (t * p * p), k / (p * p) % t, k / p % p, k % p);
                frames[frame][((y * p + dy) * width + x * p + dx) * 3 + colour] = value as u8;
            }
        }
        frames
    }

    #[test]
    fn a_lone_frame_fills_its_patch() {
        let config = config(1, 3, 1);
        let grid = Grid { t: 1, h: 1, w: 1 };
        let mut out = Vec::new();
        append_patches(
            &[&[1, 2, 3], &[4, 5, 6]],
            grid,
            &config,
            &ColourTable::new(&config),
            &mut out,
        );
        assert_eq!(out, [1.0, 4.0, 4.0, 2.0, 5.0, 5.0, 3.0, 6.0, 6.0]);
    }

    #[test]
    fn white_and_black_are_normalised_as_documented() {
        let mut config = config(1, 1, 1);
        config.rescale = Some(1.0 / 255.0);
        config.normalize = Some(([0.5, 0.25, 0.0], [0.5, 0.5, 2.0]));
        let mut out = Vec::new();
        let grid = Grid { t: 1, h: 1, w: 2 };
        append_patches(
            &[&[0, 0, 0, 255, 255, 255]],
            grid,
            &config,
            &ColourTable::new(&config),
            &mut out,
        );
        let wanted = [-1.0, -0.5, 0.0, 1.0, 1.5, 0.5];
        assert!(
            out.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6),
            "{out:?}"
        );
    }

    #[test]
    fn a_part_of_the_squares_is_what_they_are_in_the_whole() {
        let config = config(2, 1, 2);
        let grid = Grid { t: 1, h: 8, w: 6 };
        let bytes: Vec<u8> = (0..16 * 12 * 3).map(|i| (i * 31 % 251) as u8).collect();
        let table = ColourTable::new(&config);
        let (mut all, mut part) = (Vec::new(), Vec::new());
        append_patches(&[&bytes], grid, &config, &table, &mut all);
        append_squares(&[&bytes], grid, (1..3, 2..3), &config, &table, &mut part);
        // Squares of four patches, three in a row: those of the last column in the second and third row.
        let square = 4 * config.patch_values();
        let wanted = [5, 8].map(|n: usize| &all[n * square..(n + 1) * square]);
        assert_eq!(part, wanted.concat());
    }

    proptest! {
        #[test]
        fn patches_hold_every_pixel_once(
            h in 1usize..4, w in 1usize..4, p in 1usize..5, t in 1usize..3, m in 1usize..3, seed: u32,
        ) {
            let config = config(p, t, m);
            let grid = Grid { t: 1, h: h * m, w: w * m };
            let bytes = grid.h * grid.w * p * p * 3;
            let frames: Vec<Vec<u8>> = (0..t)
                .map(|f| (0..bytes).map(|i| (seed.wrapping_mul(i as u32 + 1).wrapping_add(f as u32 * 77) >> 7) as u8).collect())
                .collect();
            let views: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let mut out = Vec::new();
            append_patches(&views, grid, &config, &ColourTable::new(&config), &mut out);
            prop_assert_eq!(out.len(), grid.patches() * config.patch_values());
            prop_assert_eq!(unpatch(&out, grid, &config), frames);
        }
    }
}
