//! What the probe saw of a request: the words between the engine, which looks, and those who judge.

use crate::chat::Modality;
use crate::inputs::Grid;

/// Values that a token's feature is projected to.
pub const FEATURE_WIDTH: usize = 16;

/// One look at a request's media.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProbeReport {
    /// One entry an item, in the order in which they stand in the prompt.
    pub items: Vec<ItemReport>,
    /// Language layers that ran over all tokens.
    pub layers: usize,
    /// Floating-point operations beyond those of a prefill that reads every token in these layers.
    pub extra_flops: u64,
    /// Seconds beyond those of such a prefill.
    pub extra_seconds: f64,
}

/// What the probe saw of one image, clip or sound. Lists have an entry for each of its tokens, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemReport {
    /// What it is.
    pub modality: Modality,
    /// Its extent in tokens: time, height and width. A sound is as long as it has tokens and 1 x 1 otherwise.
    pub grid: Grid,
    /// Norm of the token's encoder feature less the item's mean feature.
    pub saliency: Vec<f32>,
    /// Encoder features projected to [`FEATURE_WIDTH`] values by a seeded random matrix, token after token. Lengths
    /// and angles are kept approximately (Johnson and Lindenstrauss 1984). The matrix, `[hidden, FEATURE_WIDTH]` row by
    /// row: `1 / sqrt(FEATURE_WIDTH)`, with the sign that the top bit of each output of SplitMix64 says.
    pub features: Vec<f32>,
    /// Attention that the prompt's last token, with which the answer begins, pays to each token, averaged over the heads of
    /// the first layer behind the probe's. The prompt's first token is left out of the softmax: it draws attention that
    /// nothing else wants (Xiao et al. 2023, arXiv 2309.17453). What that layer's window hides gets none. Zeros where a
    /// medium ends the prompt.
    pub relevance: Vec<f32>,
    /// The same for a content-free text in the place of the one that follows the last item, averaged over all of that text,
    /// for every item; empty if none was given.
    pub relevance_of_nothing: Vec<f32>,
}
