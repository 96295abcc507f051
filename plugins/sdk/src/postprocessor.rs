//! What a post-processor implements, and what it is given.

use alloc::vec::Vec;

use crate::{Calibration, Item, Report, Scores};

/// Everything that `score` may read.
#[derive(Clone, Copy, Debug)]
pub struct ScoreInput<'a> {
    /// What the probe saw.
    pub report: &'a Report,
    /// The request's own randomness.
    pub seed: u64,
    /// Values of the manifest's parameters, in its order.
    pub params: &'a [f64],
    /// What this plug-in has learned.
    pub calibration: &'a Calibration,
}

/// One medium with its share of the report's lists, an entry a token.
#[derive(Clone, Copy, Debug)]
pub struct ItemView<'a> {
    /// What it is.
    pub item: &'a Item,
    /// Norm of the token's feature less the item's mean.
    pub saliency: &'a [f32],
    /// Attention that the prompt's last token pays to the token.
    pub relevance: &'a [f32],
    /// Attention that a content-free text pays to it, on average.
    pub baseline: &'a [f32],
    /// Frame, or segment of a sound.
    pub frame: &'a [u32],
    /// Row.
    pub y: &'a [u32],
    /// Column.
    pub x: &'a [u32],
    /// Cosine with the token in the same place one frame before; 2 where there is none.
    pub similarity: &'a [f32],
    /// Values of `features` a token.
    pub dim: usize,
    /// Projected features, token after token.
    pub features: &'a [f32],
}

/// Bits of a coordinate that count: three of them fit a u64.
const BITS: u32 = 21;

/// Sorts coordinates of at most so many bits coarse to fine.
fn fineness(bits: u32, frame: u32, y: u32, x: u32) -> u64 {
    (0..bits).fold(0, |key, bit| {
        let bit_of = |value: u32| u64::from((value >> bit) & 1);
        key << 3 | bit_of(frame) << 2 | bit_of(y) << 1 | bit_of(x)
    })
}

impl ItemView<'_> {
    /// All its tokens, as a regular grid that grows finer: one of half the spacing is complete before the next begins, and until then it is
    /// finer in one direction than in another. Tokens without coordinates come last.
    ///
    /// Tokens whose coordinates are multiples of a large power of two in every direction come first: the Morton code with its bits
    /// reversed; along a line, van der Corput's sequence. Coordinates count up to 2^21.
    pub fn coarse_to_fine(&self) -> Vec<u32> {
        let places = self.frame.iter().zip(self.y).zip(self.x);
        let largest = places
            .clone()
            .map(|((&frame, &y), &x)| frame.max(y).max(x))
            .max();
        let bits = (u32::BITS - largest.unwrap_or(0).leading_zeros()).min(BITS);
        let mut keyed: Vec<(u64, u32)> = places
            .zip(0..)
            .map(|(((&frame, &y), &x), token)| (fineness(bits, frame, y, x), token))
            .take(self.len())
            .collect();
        keyed.sort_unstable();
        let placed = keyed.len() as u32;
        let order = keyed.into_iter().map(|(_, token)| token);
        order.chain(placed..self.item.tokens).collect()
    }

    /// Tokens of the item.
    pub fn len(&self) -> usize {
        self.item.tokens as usize
    }

    /// Whether it has no token.
    pub fn is_empty(&self) -> bool {
        self.item.tokens == 0
    }
}

/// Entries `from..to`, fewer where the list ends before.
fn part<T>(list: &[T], from: usize, to: usize) -> &[T] {
    let to = to.min(list.len());
    list.get(from.min(to)..to).unwrap_or_default()
}

impl Report {
    /// Each item with its share of the lists.
    pub fn views(&self) -> impl Iterator<Item = ItemView<'_>> {
        let dim = self.dim as usize;
        self.items.iter().scan(0usize, move |start, item| {
            let (from, to) = (*start, start.saturating_add(item.tokens as usize));
            *start = to;
            Some(ItemView {
                item,
                saliency: part(&self.saliency, from, to),
                relevance: part(&self.relevance, from, to),
                baseline: part(&self.baseline, from, to),
                frame: part(&self.frame, from, to),
                y: part(&self.y, from, to),
                x: part(&self.x, from, to),
                similarity: part(&self.similarity, from, to),
                dim,
                features: part(
                    &self.features,
                    from.saturating_mul(dim),
                    to.saturating_mul(dim),
                ),
            })
        })
    }
}

/// Says what matters in what the probe saw. Pure, as a policy is.
pub trait PostProcessor {
    /// One score for each item, in their order, and what is learned.
    fn score(input: &ScoreInput) -> Scores;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Probe;

    fn order(probe: &Probe) -> Vec<u32> {
        probe.report.views().next().unwrap().coarse_to_fine()
    }

    #[test]
    fn a_line_is_halved_again_and_again() {
        let line = order(&Probe::new(2).image(1, 16));
        assert_eq!(line, [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15]);
    }

    #[test]
    fn a_grid_of_half_the_spacing_is_complete_before_the_next_begins() {
        for (rows, columns, spacing) in
            [(16, 16, 8), (16, 16, 4), (16, 16, 2), (7, 5, 4), (7, 5, 2)]
        {
            let order = order(&Probe::new(2).image(rows, columns));
            let on_it = |token: &&u32| {
                (*token / columns).is_multiple_of(spacing)
                    && (*token % columns).is_multiple_of(spacing)
            };
            let count = order.iter().filter(on_it).count();
            assert!(
                order[..count].iter().all(|token| on_it(&token)),
                "{rows} x {columns}, {spacing}"
            );
        }
    }

    #[test]
    fn frames_are_a_direction_like_others() {
        let order = order(&Probe::new(2).video(4, 2, 4));
        assert!(
            order[..16]
                .iter()
                .all(|token| (token / 8).is_multiple_of(2))
        );
    }

    #[test]
    fn each_token_comes_once_also_where_coordinates_lack_or_are_vast() {
        let mut probe = Probe::new(2).image(3, 5);
        probe.report.y.truncate(9);
        probe.report.x[4] = u32::MAX;
        probe.report.frame[2] = 1 << 21;
        let all = order(&probe);
        // Those without a place come last.
        assert_eq!(all[9..], [9, 10, 11, 12, 13, 14]);
        let mut sorted = all.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..15).collect::<Vec<u32>>());
        assert_eq!(order(&Probe::new(2).image(0, 0)), Vec::<u32>::new());
    }
}
