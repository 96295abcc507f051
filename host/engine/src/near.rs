//! Near duplicates among the temporal patches of a clip, found before anything is encoded.
//!
//! Two temporal patches (pairs of frames) are taken for the same picture where all of this holds:
//! - their 64-bit difference hashes (N. Krawetz's dHash: is a cell darker than its right neighbour?) are
//!   at most [`MOST_BITS`] apart: what moved as a whole is told here, before every value is compared;
//! - no block of either frame, a quarter of a patch, differs by more than [`NearDuplicates::block`] on average: a small
//!   thing that moved or a digit that changed fills a block, though it is nothing in the frame;
//! - no single value differs by more than [`NearDuplicates::peak`];
//! - the frames differ by no more than [`NearDuplicates::frame`] on average.
//!
//! Values are compared in place, and in every channel: what only changes its colour is a change. What is not a number
//! is like nothing.

use msao_core::inputs::Grid;

use crate::config::VisionConfig;

/// A grey level of 255 in preprocessed values: all families normalise by a standard deviation of about 0.27.
pub(crate) const LEVEL: f32 = 1.0 / (255.0 * 0.27);
/// Bits of 64 by which the hashes of near duplicates differ at most.
const MOST_BITS: u32 = 6;
/// Cells of the hash, from whose neighbours its bits come.
const ROWS: usize = 8;
const COLUMNS: usize = 9;

/// How little two temporal patches of a clip may differ to count as one picture. In grey levels of 255: means and
/// the maximum of absolute differences.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NearDuplicates {
    /// Mean over any block of a frame, a quarter of a patch (7 x 7 pixels in published checkpoints), all channels.
    pub block: f32,
    /// Mean over both frames.
    pub frame: f32,
    /// Of any value.
    pub peak: f32,
}

impl NearDuplicates {
    /// Blocks may differ by `levels` on average, frames by half of it, a value by twelve times as much: a sensor's and
    /// a codec's noise is spread thin and has tails.
    pub fn within(levels: f32) -> NearDuplicates {
        NearDuplicates {
            block: levels,
            frame: levels / 2.0,
            peak: 12.0 * levels,
        }
    }
}

impl Default for NearDuplicates {
    /// Two levels: less than the faintest stroke that a person could read.
    fn default() -> NearDuplicates {
        NearDuplicates::within(2.0)
    }
}

/// Compares the temporal patches of one clip.
#[derive(Debug)]
pub(crate) struct Judge {
    near: NearDuplicates,
    channels: usize,
    /// Frames in a temporal patch.
    frames: usize,
    /// Side of a patch in pixels.
    patch: usize,
    /// Side of a merged token in patches.
    merge: usize,
    /// Merged tokens in a row of the frame.
    across: usize,
    /// For each row and column of pixels its cell's.
    row_of: Vec<usize>,
    column_of: Vec<usize>,
    /// Of the temporal patches that were looked at.
    hashes: Vec<Option<u64>>,
}

impl Judge {
    pub fn new(near: &NearDuplicates, grid: Grid, config: &VisionConfig) -> Judge {
        let (patch, merge) = (config.patch_size.max(1), config.merge_size.max(1));
        let cells = |patches: usize, cells: usize| -> Vec<usize> {
            let pixels = patches.saturating_mul(patch);
            (0..pixels).map(|pixel| pixel * cells / pixels).collect()
        };
        Judge {
            near: *near,
            channels: config.channels.max(1),
            frames: config.temporal_patch_size.max(1),
            patch,
            merge,
            across: (grid.w / merge).max(1),
            row_of: cells(grid.h, ROWS),
            column_of: cells(grid.w, COLUMNS),
            hashes: vec![None; grid.t],
        }
    }

    /// Whether two temporal patches, each its number and its values `[patches, channels * frames * patch²]` in merge
    /// order, are near duplicates.
    pub fn alike(&mut self, before: (usize, &[f32]), own: (usize, &[f32])) -> bool {
        let apart = self.hash(before) ^ self.hash(own);
        apart.count_ones() <= MOST_BITS && self.close(before.1, own.1)
    }

    fn hash(&mut self, (number, values): (usize, &[f32])) -> u64 {
        if let Some(Some(hash)) = self.hashes.get(number) {
            return *hash;
        }
        let hash = self.difference_hash(values);
        if let Some(slot) = self.hashes.get_mut(number) {
            *slot = Some(hash);
        }
        hash
    }

    /// For each of 8 x 8 cells whether its right neighbour is brighter, by more than a level: where a picture is flat,
    /// noise decides nothing.
    fn difference_hash(&self, values: &[f32]) -> u64 {
        let (plane, frames) = (self.patch * self.patch, self.frames);
        let mut cells = [0.0_f32; ROWS * COLUMNS];
        for (number, patch) in values.chunks(self.channels * frames * plane).enumerate() {
            let (block, within) = (
                number / (self.merge * self.merge),
                number % (self.merge * self.merge),
            );
            let row = block / self.across * self.merge + within / self.merge;
            let column = block % self.across * self.merge + within % self.merge;
            let columns = column * self.patch..(column + 1) * self.patch;
            let columns = self.column_of.get(columns).unwrap_or_default();
            for (number, plane) in patch.chunks(plane).enumerate() {
                let weight = self.luma(number / frames);
                for (y, line) in plane.chunks(self.patch).enumerate() {
                    let cell_row = self.row_of.get(row * self.patch + y).copied();
                    let from = cell_row.unwrap_or(0) * COLUMNS;
                    let cells = cells.get_mut(from..from + COLUMNS).unwrap_or_default();
                    for (column, value) in columns.iter().zip(line) {
                        if let Some(cell) = cells.get_mut(*column) {
                            *cell += weight * value;
                        }
                    }
                }
            }
        }
        let size = |of: &[usize], cell: usize| of.iter().filter(|&&at| at == cell).count();
        let heights = (0..ROWS).map(|cell| size(&self.row_of, cell) * frames);
        let widths: Vec<usize> = (0..COLUMNS)
            .map(|cell| size(&self.column_of, cell))
            .collect();
        let mut hash = 0;
        for (sums, height) in cells.chunks(COLUMNS).zip(heights) {
            let means: Vec<f32> = (sums.iter().zip(&widths))
                .map(|(sum, width)| sum / (height * width) as f32)
                .collect();
            for (left, right) in means.iter().zip(means.iter().skip(1)) {
                hash = hash << 1 | u64::from(right - left > LEVEL);
            }
        }
        hash
    }

    /// A channel's share of the luma (ITU-R BT.601).
    fn luma(&self, channel: usize) -> f32 {
        match (self.channels, channel) {
            (3, 0) => 0.299,
            (3, 1) => 0.587,
            (3, 2) => 0.114,
            (channels, _) => 1.0 / channels as f32,
        }
    }

    /// Whether all values are close enough.
    fn close(&self, before: &[f32], own: &[f32]) -> bool {
        let (plane, frames) = (self.patch * self.patch, self.frames);
        let side = self.patch.div_ceil(2);
        let rest = self.patch - side;
        let sizes = [side * side, side * rest, rest * side, rest * rest];
        let most = self.near.block * LEVEL * self.channels as f32;
        let peak_most = self.near.peak * LEVEL;
        let mut total = 0.0_f64;
        // For each frame its upper left, upper right, lower left and lower right block.
        let mut sums = vec![[0.0_f32; 4]; frames];
        let size = self.channels * frames * plane;
        for (before, own) in before.chunks(size).zip(own.chunks(size)) {
            sums.fill([0.0; 4]);
            let mut peak = 0.0_f32;
            let planes = before.chunks(plane).zip(own.chunks(plane));
            for (number, (before, own)) in planes.enumerate() {
                let Some([a, b, c, d]) = sums.get_mut(number % frames) else {
                    continue;
                };
                let lines = before.chunks(self.patch).zip(own.chunks(self.patch));
                for (y, (before, own)) in lines.enumerate() {
                    let (left, right) = if y < side {
                        (&mut *a, &mut *b)
                    } else {
                        (&mut *c, &mut *d)
                    };
                    let middle = side.min(before.len()).min(own.len());
                    let (before, own) = (before.split_at(middle), own.split_at(middle));
                    *left += difference(before.0, own.0, &mut peak);
                    *right += difference(before.1, own.1, &mut peak);
                }
            }
            let blocks = sums.iter().flat_map(|sums| sums.iter().zip(sizes));
            // A sum that is no number is not within.
            let mut within = peak <= peak_most;
            for (sum, size) in blocks {
                within &= *sum <= most * size as f32;
                total += f64::from(*sum);
            }
            if !within {
                return false;
            }
        }
        let mean = total / before.len().max(1) as f64;
        before.len() == own.len() && mean <= f64::from(self.near.frame * LEVEL)
    }
}

/// Sum of absolute differences; the largest goes into `peak`.
fn difference(before: &[f32], own: &[f32], peak: &mut f32) -> f32 {
    let mut sum = 0.0;
    for (before, own) in before.iter().zip(own) {
        let apart = (before - own).abs();
        *peak = peak.max(apart);
        sum += apart;
    }
    sum
}
