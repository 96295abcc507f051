//! What a processor hands to an engine, named as Hugging Face names it.

/// A dense array of `f32` in row-major order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Array {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f32>,
}

/// The extent of one image or clip in patches: time, height, width.
///
/// For an image `t` is 1. `h` and `w` are multiples of the spatial merge size, so the item has
/// `t * h * w / merge²` tokens in the prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Temporal patches.
    pub t: usize,
    /// Rows of patches.
    pub h: usize,
    /// Columns of patches.
    pub w: usize,
}

impl Grid {
    /// Patches in the item. Saturates: a grid read from a file may claim anything.
    pub fn patches(&self) -> usize {
        self.t.saturating_mul(self.h).saturating_mul(self.w)
    }
}

/// Patches of several items together; saturates as [`Grid::patches`] does.
pub fn patch_count(grids: &[Grid]) -> usize {
    grids
        .iter()
        .fold(0, |sum: usize, grid| sum.saturating_add(grid.patches()))
}

/// The normalised patches of all images (or all clips) of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patches {
    /// `[sum of grid.patches(), channels * temporal_patch * patch * patch]`, items one after the other, each in
    /// 2x2-merge order.
    pub values: Array,
    /// One grid an item.
    pub grids: Vec<Grid>,
}

/// The log-mel spectrograms of all sounds of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mels {
    /// `[items, mel bins, frames]`, padded on the right to a common length.
    pub features: Array,
    /// Frames of each item that are sound, not padding.
    pub valid_frames: Vec<usize>,
}

/// Everything a multimodal model reads for one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelInputs {
    /// `[L]` token ids; each media token is its own placeholder id.
    pub input_ids: Vec<u32>,
    /// `pixel_values` and `image_grid_thw`.
    pub images: Option<Patches>,
    /// `pixel_values_videos` and `video_grid_thw`.
    pub videos: Option<Patches>,
    /// Seconds that one temporal patch of each clip spans; empty for families that do not use it.
    pub second_per_grid_ts: Vec<f32>,
    /// `input_features` and `feature_attention_mask`.
    pub audio: Option<Mels>,
    /// The prompt that this one is a part of, where not all of its media are laid out.
    pub whole: Option<Whole>,
}

impl ModelInputs {
    /// Tokens of the whole prompt, laid out here or not: as far as positions reach.
    pub fn extent(&self) -> usize {
        let whole = self.whole.as_ref();
        whole.map_or(self.input_ids.len(), |whole| whole.input_ids.len())
    }
}

/// A prompt of whose media only a part is laid out, or all at another size: the prompt as it would be with everything, and
/// where in that each token stands. So what is left out moves nothing else, and what is left is where it always was.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// `[M]` ids of the whole prompt.
    pub input_ids: Vec<u32>,
    /// The grids of all its images, in patches.
    pub images: Vec<Grid>,
    /// The grids of all its clips, in patches.
    pub videos: Vec<Grid>,
    /// As [`ModelInputs::second_per_grid_ts`], of all its clips.
    pub second_per_grid_ts: Vec<f32>,
    /// `[L]`: of each token of [`ModelInputs::input_ids`] the place in the whole prompt, below `M`. A token of a picture
    /// that was made smaller stands where its centre lies, so that several may share a place.
    pub places: Vec<u32>,
}
