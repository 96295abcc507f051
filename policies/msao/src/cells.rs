//! All that is learned, by key.
//!
//! | key | cell | samples |
//! |---|---|---|
//! | 0 | requests learned from | count alone |
//! | 1 | probe | time that it took, divided by what was predicted |
//! | 2 | edge answers behind the probe | first token's time from there on, divided by what was predicted |
//! | 16 + shape | length of answers to requests of this [`Shape`] | tokens |
//! | 80 + bucket | the same, whatever media a request has | tokens |
//! | 96 + mix | bytes of media that were made anew | bytes sent, divided by what was predicted |
//! | 112 + mix | retention | share of media tokens that the formula keeps for the target |
//! | 160 + shape | edge answers that were left to a target | 1 where it was, else 0 |
//! | 224 + mix | drafts that were sure enough for an edge answer, and were judged elsewhere | share of a request's that did not stand |
//! | 1024 + 32 * row + mix | acceptance by a node | share of a request's drafts |
//! | 1024 + 32 * row + 8 + 4 * route | first token of a node by a route, edge answers behind the probe aside | time, divided by what was predicted |
//! | ... + 1 | the tokens behind it | likewise, given how many came |
//! | ... + 2 | when it was last taken | number of requests by then (the latest counts alone) |
//! | 4096 + 64 * mix + text | length of answers, as at 16, however many tokens they may have | tokens |
//! | 4608 + 64 * mix + text | edge answers, as at 160, likewise | 1 or 0 |
//! | 5120 + 64 * mix + text | sure drafts, as at 224 | share of a request's that did not stand |
//!
//! `mix`, `bucket` and `text` are those of [`Shape`]; routes are 0 edge, 1 cloud, 2 cloud-draft, 3 speculate. 64 rows at most
//! are learned of: with all of them there are 2,499 cells, of 4,096 that a plug-in may have.

use msao_plugin::{Calibration, Cell, Rising, Route};

use crate::shape::{BUCKETS, MIXES, Shape};

pub(crate) const REQUESTS: u32 = 0;
pub(crate) const PROBE: u32 = 1;
pub(crate) const BEHIND_PROBE: u32 = 2;
const LENGTH: u32 = 16;
const LENGTH_BY_BUCKET: u32 = LENGTH + MIXES * BUCKETS;
const BYTES: u32 = 96;
const KEPT: u32 = 112;
const LEFT: u32 = 160;
const AMISS: u32 = 224;
const ROWS: u32 = 1024;
const ROW: u32 = 32;
const ARMS: u32 = MIXES;
const ARM: u32 = 4;
const LENGTH_BY_TEXT: u32 = 4096;
const LEFT_BY_TEXT: u32 = 4608;
const AMISS_BY_TEXT: u32 = 5120;
const TEXT: u32 = 64;

/// Rows that are learned of, and planned for; a node with more peers knows the first ones alone.
pub(crate) const MAX_ROWS: u32 = 64;

pub(crate) fn length(shape: Shape) -> u32 {
    LENGTH + shape.number()
}

pub(crate) fn length_by_bucket(shape: Shape) -> u32 {
    LENGTH_BY_BUCKET + shape.bucket
}

pub(crate) fn bytes(shape: Shape) -> u32 {
    BYTES + shape.mix
}

pub(crate) fn kept(shape: Shape) -> u32 {
    KEPT + shape.mix
}

pub(crate) fn left(shape: Shape) -> u32 {
    LEFT + shape.number()
}

pub(crate) fn amiss(shape: Shape) -> u32 {
    AMISS + shape.mix
}

/// The last three: what was learned of a mix, by how much text there is.
fn by_text(first: u32, shape: Shape) -> u32 {
    first + TEXT * shape.mix + shape.text
}

pub(crate) fn length_by_text(shape: Shape) -> u32 {
    by_text(LENGTH_BY_TEXT, shape)
}

pub(crate) fn left_by_text(shape: Shape) -> u32 {
    by_text(LEFT_BY_TEXT, shape)
}

pub(crate) fn amiss_by_text(shape: Shape) -> u32 {
    by_text(AMISS_BY_TEXT, shape)
}

fn arm(row: u32, route: Route) -> u32 {
    ROWS + row * ROW + ARMS + route as u32 * ARM
}

pub(crate) fn first(row: u32, route: Route) -> u32 {
    arm(row, route)
}

pub(crate) fn rest(row: u32, route: Route) -> u32 {
    arm(row, route) + 1
}

pub(crate) fn last(row: u32, route: Route) -> u32 {
    arm(row, route) + 2
}

pub(crate) fn acceptance(row: u32, shape: Shape) -> u32 {
    ROWS + row * ROW + shape.mix
}

/// Mean and count of a cell that has any.
pub(crate) fn seen(cell: Option<Cell>) -> Option<(f64, f64)> {
    let cell = cell?;
    (cell.count > 0.0 && cell.mean.is_finite()).then_some((cell.mean, cell.count))
}

/// The mean of a cell with `guess` counting like so many samples more.
pub(crate) fn mean_beside(cell: Option<Cell>, guess: f64, weight: f64) -> f64 {
    match seen(cell) {
        Some((mean, count)) => (mean * count + guess * weight) / (count + weight),
        None => guess,
    }
}

/// What was learned of a node by one route.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ArmCells {
    pub(crate) first: Option<(f64, f64)>,
    pub(crate) rest: Option<(f64, f64)>,
    /// Number of requests when it was last taken.
    pub(crate) last: Option<f64>,
}

/// Reads the rows' cells in rising order: of each row acceptance, then routes.
pub(crate) struct RowCells<'a>(Rising<'a>);

impl<'a> RowCells<'a> {
    pub(crate) fn of(calibration: &'a Calibration) -> RowCells<'a> {
        RowCells(calibration.rising(ROWS))
    }

    pub(crate) fn arm(&mut self, row: u32, route: Route) -> ArmCells {
        ArmCells {
            first: seen(self.0.get(first(row, route))),
            rest: seen(self.0.get(rest(row, route))),
            last: seen(self.0.get(last(row, route))).map(|(requests, _)| requests),
        }
    }

    pub(crate) fn acceptance(&mut self, row: u32, shape: Shape) -> Option<(f64, f64)> {
        seen(self.0.get(acceptance(row, shape)))
    }
}
