//! What a post-processor sees, and what it makes of it.

use serde::{Deserialize, Serialize};

use super::Update;

/// One medium under the probe. Units: `record item` in `wit/types.wit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Item {
    /// One of [`super::modality`].
    pub modality: u8,
    /// Tokens in the prompt.
    pub tokens: u32,
    /// Frames or segments; 1 for an image.
    pub frames: u32,
    /// Attention of the prompt's last token, divided by that of a content-free text.
    pub relevance: f64,
}

/// What the probe saw; per-token lists hold the items' tokens one after the other. Units: `record report` in
/// `wit/types.wit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Report {
    /// In prompt order.
    pub items: Vec<Item>,
    /// Norm of the token's feature less the item's mean.
    pub saliency: Vec<f32>,
    /// Attention that the prompt's last token pays to the token.
    pub relevance: Vec<f32>,
    /// Attention that a content-free text pays to it, on average.
    pub baseline: Vec<f32>,
    /// Frame or segment.
    pub frame: Vec<u32>,
    /// Row.
    pub y: Vec<u32>,
    /// Column.
    pub x: Vec<u32>,
    /// Cosine with the token one frame before; 2 where there is none.
    pub similarity: Vec<f32>,
    /// Values of `features` a token.
    pub dim: u32,
    /// Projected encoder features, token after token.
    pub features: Vec<f32>,
}

/// What a post-processor makes of an item. Ranges: `record score` in `wit/types.wit`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Score {
    /// How much the answer needs it.
    pub necessity: f64,
    /// The share of it that can go.
    pub mas: f64,
    /// The share that can go within a frame.
    pub spatial: f64,
    /// The share that can go between frames.
    pub temporal: f64,
    /// How far it is from what calibration has seen.
    pub unusual: f64,
    /// Tokens by number, most needed first.
    pub keep_order: Vec<u32>,
}

/// What `score` says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Scores {
    /// One for each item.
    pub items: Vec<Score>,
    /// What was learned.
    pub updates: Vec<Update>,
}
