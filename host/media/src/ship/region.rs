//! Rectangles of pixels, and the ones that cells of a grid cover.

use std::collections::BTreeMap;

/// A rectangle of pixels; the first row is the top one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    /// First row.
    pub y: u32,
    /// First column.
    pub x: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl Region {
    /// All of a canvas of this width and height.
    pub fn whole((width, height): (u32, u32)) -> Self {
        Self {
            y: 0,
            x: 0,
            width,
            height,
        }
    }

    /// What lies inside a canvas of this width and height, if anything.
    pub fn within(self, canvas: (u32, u32)) -> Option<Self> {
        let right = self.right().min(canvas.0);
        let bottom = self.bottom().min(canvas.1);
        Self::between((self.x, self.y), (right, bottom))
    }

    /// The region with so many pixels more on each side, for what reads beyond the pixels it is about, such as the
    /// filter of a later resize. May reach beyond the canvas on the right and below; the left and top end at 0.
    pub fn grown(self, by_px: u32) -> Self {
        let (x, y) = (self.x.saturating_sub(by_px), self.y.saturating_sub(by_px));
        Self {
            x,
            y,
            width: self.right().saturating_add(by_px) - x,
            height: self.bottom().saturating_add(by_px) - y,
        }
    }

    /// Its area in pixels.
    pub fn area_px(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The column after the last.
    pub(super) fn right(self) -> u32 {
        self.x.saturating_add(self.width)
    }

    /// The row after the last.
    pub(super) fn bottom(self) -> u32 {
        self.y.saturating_add(self.height)
    }

    /// Grown outward until all sides lie on multiples of `to_px` (0 is taken as 1) or on the edge of the canvas.
    pub(super) fn aligned(self, to_px: u32, canvas: (u32, u32)) -> Option<Self> {
        let to_px = to_px.max(1);
        let down = |value: u32| value / to_px * to_px;
        let up = |value: u32| value.checked_next_multiple_of(to_px).unwrap_or(u32::MAX);
        Self::between(
            (down(self.x), down(self.y)),
            (up(self.right()), up(self.bottom())),
        )?
        .within(canvas)
    }

    /// The smallest region around all of `regions`; `None` if there are none.
    pub(super) fn around(regions: &[Self]) -> Option<Self> {
        let left = regions.iter().map(|region| region.x).min()?;
        let top = regions.iter().map(|region| region.y).min()?;
        let right = regions.iter().map(|region| region.right()).max()?;
        let bottom = regions.iter().map(|region| region.bottom()).max()?;
        Self::between((left, top), (right, bottom))
    }

    /// From the first pixel to the one after the last; `None` if that is nothing.
    fn between((x, y): (u32, u32), (right, bottom): (u32, u32)) -> Option<Self> {
        (x < right && y < bottom).then(|| Self {
            y,
            x,
            width: right - x,
            height: bottom - y,
        })
    }
}

/// The pixels of a canvas that cells of a grid cover, in few rectangles from top to bottom.
///
/// `kept` are `(row, column)` of cells from 0, in any order; `cell_px` is a cell's width and height in pixels, which need
/// not be whole; `canvas` is its width and height in pixels. Neighbours in a row become one rectangle, and equal ones in
/// rows below each other. A rectangle contains its cells whole, so where cells do not end on pixels it reaches up to a
/// pixel beyond them. What lies outside the canvas is left out; with a size of cells that is not above 0, everything.
pub fn regions(kept: &[(u32, u32)], cell_px: (f64, f64), canvas: (u32, u32)) -> Vec<Region> {
    let (width, height) = cell_px;
    if !(width > 0.0 && height > 0.0) {
        return Vec::new();
    }
    let mut cells = kept.to_vec();
    cells.sort_unstable();
    cells.dedup();
    let mut found: Vec<Region> = rectangles(&cells)
        .into_iter()
        .filter_map(|(rows, columns)| {
            let (x, right) = pixels(columns, width, canvas.0);
            let (y, bottom) = pixels(rows, height, canvas.1);
            Region::between((x, y), (right, bottom))
        })
        .collect();
    found.sort_unstable();
    found
}

/// First, and the one after the last; in `u64` since the last cell may have any `u32` for its number.
type Span = (u64, u64);

/// Rows and columns of the rectangles that sorted `(row, column)` cells make.
fn rectangles(cells: &[(u32, u32)]) -> Vec<(Span, Span)> {
    let mut done = Vec::new();
    // The rectangles that the next row may still make longer: rows, by columns.
    let mut open: BTreeMap<Span, Span> = BTreeMap::new();
    for run in cells.chunk_by(|a, b| a.0 == b.0 && a.1.checked_add(1) == Some(b.1)) {
        let (Some(&(row, first)), Some(&(_, last))) = (run.first(), run.last()) else {
            continue;
        };
        let (row, columns) = (u64::from(row), (u64::from(first), u64::from(last) + 1));
        let rows = open.entry(columns).or_insert((row, row));
        if rows.1 != row {
            done.push((*rows, columns));
            rows.0 = row;
        }
        rows.1 = row + 1;
    }
    done.extend(open.into_iter().map(|(columns, rows)| (rows, columns)));
    done
}

/// The pixels from the start of the first cell to the end of the last, within `limit`.
fn pixels((first, end): Span, cell_px: f64, limit: u32) -> (u32, u32) {
    // A border that should be whole is not made so by a product of rounded numbers.
    const SLACK_PX: f64 = 1e-6;
    let start = (first as f64 * cell_px + SLACK_PX).floor() as u32;
    let end = (end as f64 * cell_px - SLACK_PX).ceil() as u32;
    (start.min(limit), end.min(limit))
}

/// The share of a canvas of this width and height that regions cover, in `[0, 1]`. Pixels in several regions count once;
/// what lies outside counts nothing.
pub fn share(regions: &[Region], canvas: (u32, u32)) -> f64 {
    let area = Region::whole(canvas).area_px();
    if area == 0 {
        return 0.0;
    }
    covered_px(regions, canvas) as f64 / area as f64
}

/// Pixels of the canvas that lie in at least one region: row bands between the borders of regions, one after the other.
pub(super) fn covered_px(regions: &[Region], canvas: (u32, u32)) -> u64 {
    let mut inside: Vec<Region> = regions
        .iter()
        .filter_map(|region| region.within(canvas))
        .collect();
    inside.sort_unstable_by_key(|region| (region.x, region.width));
    let mut borders: Vec<u32> = inside
        .iter()
        .flat_map(|region| [region.y, region.bottom()])
        .collect();
    borders.sort_unstable();
    borders.dedup();
    let mut covered = 0;
    for (&top, &bottom) in borders.iter().zip(borders.iter().skip(1)) {
        let (mut columns, mut reached) = (0, 0);
        for region in &inside {
            if region.y <= top && region.bottom() >= bottom {
                columns += u64::from(region.right().saturating_sub(region.x.max(reached)));
                reached = reached.max(region.right());
            }
        }
        covered += columns * u64::from(bottom - top);
    }
    covered
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(x: u32, y: u32, width: u32, height: u32) -> Region {
        Region {
            y,
            x,
            width,
            height,
        }
    }

    #[test]
    fn neighbours_become_one_rectangle() {
        let block: Vec<(u32, u32)> = (1..4)
            .flat_map(|row| (2..6).map(move |column| (row, column)))
            .collect();
        assert_eq!(
            regions(&block, (28.0, 28.0), (640, 480)),
            [region(56, 28, 112, 84)]
        );
        // An L: its two rows have different columns.
        assert_eq!(
            regions(&[(1, 0), (0, 0), (1, 1), (0, 0)], (10.0, 20.0), (100, 100)),
            [region(0, 0, 10, 20), region(0, 20, 20, 20)]
        );
        // The same columns with a row between them stay two.
        assert_eq!(
            regions(&[(0, 3), (2, 3)], (10.0, 10.0), (100, 100)),
            [region(30, 0, 10, 10), region(30, 20, 10, 10)]
        );
        assert!(regions(&[], (10.0, 10.0), (100, 100)).is_empty());
    }

    #[test]
    fn cells_that_do_not_end_on_pixels_are_covered_whole() {
        let third = 100.0 / 3.0;
        assert_eq!(
            regions(&[(0, 1)], (third, 10.0), (100, 10)),
            [region(33, 0, 34, 10)]
        );
        // 37 cells end exactly at the edge, whatever the products round to; no border that is whole gains a pixel.
        for columns in 1..200 {
            let width = 28 * columns;
            let cell = f64::from(width) / f64::from(columns);
            for column in 0..columns {
                assert_eq!(
                    regions(&[(0, column)], (cell, 28.0), (width, 28)),
                    [region(28 * column, 0, 28, 28)]
                );
            }
        }
    }

    #[test]
    fn what_lies_outside_or_is_no_size_is_left_out() {
        assert_eq!(
            regions(
                &[(0, 0), (0, 9), (u32::MAX, u32::MAX)],
                (30.0, 30.0),
                (20, 20)
            ),
            [region(0, 0, 20, 20)]
        );
        for size in [0.0, -1.0, f64::NAN] {
            assert!(regions(&[(0, 0)], (size, 10.0), (20, 20)).is_empty());
        }
    }

    #[test]
    fn shares_count_each_pixel_once() {
        let canvas = (10, 10);
        assert_eq!(share(&[], canvas), 0.0);
        assert_eq!(share(&[Region::whole(canvas); 3], canvas), 1.0);
        assert_eq!(
            share(&[region(0, 0, 5, 5), region(3, 3, 5, 5)], canvas),
            0.46
        );
        assert_eq!(
            share(&[region(8, 8, 100, u32::MAX), region(50, 0, 1, 1)], canvas),
            0.04
        );
        assert_eq!(share(&[region(0, 0, 1, 1)], (0, 7)), 0.0);
    }

    #[test]
    fn alignment_ends_at_the_canvas() {
        let canvas = (100, 50);
        assert_eq!(
            region(9, 17, 3, 3).aligned(8, canvas),
            Some(region(8, 16, 8, 8))
        );
        assert_eq!(
            region(97, 48, 1, 1).aligned(16, canvas),
            Some(region(96, 48, 4, 2))
        );
        assert_eq!(
            region(9, 9, 3, 3).aligned(0, canvas),
            Some(region(9, 9, 3, 3))
        );
        assert_eq!(
            region(9, 9, 3, 3).aligned(u32::MAX, canvas),
            Some(Region::whole(canvas))
        );
        assert_eq!(region(100, 0, 3, 3).aligned(1, canvas), None);
        assert_eq!(region(0, 0, 0, 3).aligned(8, canvas), None);
    }

    #[test]
    fn growing_stops_at_the_left_and_the_top() {
        assert_eq!(region(3, 10, 4, 5).grown(6), region(0, 4, 13, 17));
        assert_eq!(
            region(0, 0, u32::MAX, 1).grown(1),
            region(0, 0, u32::MAX, 2)
        );
    }

    proptest! {
        #[test]
        fn regions_cover_their_cells_and_no_others(
            cells in prop::collection::vec((0u32..9, 0u32..9), 0..60),
            cell in 1u32..6,
        ) {
            let canvas = (9 * cell, 9 * cell);
            let found = regions(&cells, (f64::from(cell), f64::from(cell)), canvas);
            let inside = |x: u32, y: u32| found.iter().filter(|region| {
                (region.x..region.right()).contains(&x) && (region.y..region.bottom()).contains(&y)
            }).count();
            let mut covered = 0;
            for row in 0..9 {
                for column in 0..9 {
                    let times = usize::from(cells.contains(&(row, column)));
                    covered += times;
                    prop_assert_eq!(inside(column * cell, row * cell), times);
                    prop_assert_eq!(inside(column * cell + cell - 1, row * cell + cell - 1), times);
                }
            }
            prop_assert_eq!(share(&found, canvas), covered as f64 / 81.0);
        }

        #[test]
        fn the_share_is_that_of_the_painted_pixels(
            many in prop::collection::vec((0u32..14, 0u32..14, 0u32..9, 0u32..9), 0..12),
        ) {
            let many: Vec<Region> = many.into_iter().map(|(x, y, w, h)| region(x, y, w, h)).collect();
            let (width, height) = (12, 10);
            let painted = (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).filter(|&(x, y)| {
                many.iter().any(|region| {
                    (region.x..region.right()).contains(&x) && (region.y..region.bottom()).contains(&y)
                })
            });
            prop_assert_eq!(covered_px(&many, (width, height)), painted.count() as u64);
        }
    }
}
