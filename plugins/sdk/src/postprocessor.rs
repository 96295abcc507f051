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

/// Sorts coordinates coarse to fine.
fn fineness(frame: u32, y: u32, x: u32) -> u64 {
    (0..BITS).fold(0, |key, bit| {
        let bit_of = |value: u32| u64::from((value >> bit) & 1);
        key << 3 | bit_of(frame) << 2 | bit_of(y) << 1 | bit_of(x)
    })
}

impl ItemView<'_> {
    /// Its tokens as a regular grid that grows finer: however many of the first are taken, they are spread evenly over frames, rows and
    /// columns.
    ///
    /// Tokens whose coordinates are multiples of a large power of two in every direction come first: the Morton code with its bits
    /// reversed; along a line, van der Corput's sequence.
    pub fn coarse_to_fine(&self) -> Vec<u32> {
        let places = self.frame.iter().zip(self.y).zip(self.x);
        let mut keyed: Vec<(u64, u32)> = places
            .zip(0..)
            .map(|(((&frame, &y), &x), token)| (fineness(frame, y, x), token))
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, token)| token).collect()
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
