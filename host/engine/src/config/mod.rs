//! `config.json` of the three families, in both layouts: the flat one of the published checkpoints (language keys at
//! the top, `rope_scaling`) and the nested one that transformers 5 writes (`text_config`, `rope_parameters`).

mod convert;
mod file;

pub(crate) use file::read_text;
use serde::Deserialize;

/// A model family: one way of putting the encoders and the language model together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Qwen2-VL: LayerNorm vision blocks, no windows, no absolute time.
    Qwen2Vl,
    /// Qwen2.5-VL: RMSNorm vision blocks, windowed attention, absolute time for clips.
    Qwen2_5Vl,
    /// Qwen2.5-Omni's thinker: Qwen2.5-VL's vision plus an audio encoder and time-aligned positions.
    Qwen2_5Omni,
}

impl Family {
    /// The `model_type`s that are understood.
    pub const KNOWN: [&'static str; 4] = [
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen2_5_omni",
        "qwen2_5_omni_thinker",
    ];

    /// The family's usual name.
    pub fn name(self) -> &'static str {
        match self {
            Family::Qwen2Vl => "Qwen2-VL",
            Family::Qwen2_5Vl => "Qwen2.5-VL",
            Family::Qwen2_5Omni => "Qwen2.5-Omni thinker",
        }
    }
}

/// An activation function, by Hugging Face's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`.
    #[serde(alias = "swish")]
    Silu,
    /// `x * Phi(x)`, exact.
    Gelu,
    /// `x * sigmoid(1.702 x)`.
    QuickGelu,
}

/// The language model.
#[derive(Clone, Debug)]
pub struct TextConfig {
    /// Rows of the embedding, padding rows included.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The MLP's gate.
    pub activation: Activation,
    /// Longest sequence.
    pub max_positions: usize,
    /// RMSNorm's epsilon.
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How many rotary frequencies turn with time, height and width; sums to `head_dim / 2`.
    pub mrope_section: [usize; 3],
    /// For each layer the number of last tokens it attends to, where it does not attend to all.
    pub windows: Vec<Option<usize>>,
}

/// The vision encoder.
#[derive(Clone, Debug)]
pub struct VisionConfig {
    /// Blocks.
    pub depth: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Width of a merged token: the language model's.
    pub out_hidden_size: usize,
    /// Attention heads.
    pub heads: usize,
    /// Colour channels.
    pub channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames in a patch.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that becomes one token.
    pub merge_size: usize,
    /// The MLP's activation.
    pub activation: Activation,
    /// Windowed attention, where the family has it.
    pub windows: Option<VisionWindows>,
}

/// Which vision blocks see only a window.
#[derive(Clone, Debug)]
pub struct VisionWindows {
    /// Side of a window in pixels.
    pub size: usize,
    /// Blocks that see the whole frame all the same.
    pub full_blocks: Vec<usize>,
}

impl VisionConfig {
    /// Values in one flattened patch.
    pub fn patch_values(&self) -> usize {
        self.channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }
}

/// The audio encoder.
#[derive(Clone, Debug)]
pub struct AudioConfig {
    /// Mel bins of the input.
    pub mel_bins: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Encoder layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Half of a chunk, in mel frames: sound is encoded in chunks of `2 * half_chunk` frames.
    pub half_chunk: usize,
    /// Longest chunk that has position embeddings, after the strided convolution.
    pub max_positions: usize,
    /// Width of the output: the language model's.
    pub output_size: usize,
    /// The MLP's activation.
    pub activation: Activation,
}

/// How token positions follow the media.
#[derive(Clone, Debug, PartialEq)]
pub struct PositionConfig {
    /// The family's rule.
    pub family: Family,
    /// Temporal positions in a second of video (Qwen2.5-VL, Omni).
    pub per_second: f64,
}

/// A whole checkpoint's configuration.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// The family.
    pub family: Family,
    /// The language model.
    pub text: TextConfig,
    /// The vision encoder.
    pub vision: VisionConfig,
    /// The audio encoder, where the family has one.
    pub audio: Option<AudioConfig>,
    /// Position rule.
    pub positions: PositionConfig,
    /// Placeholder of one image token.
    pub image_token: u32,
    /// Placeholder of one video token.
    pub video_token: u32,
    /// Placeholder of one audio token.
    pub audio_token: Option<u32>,
    /// Whether the output matrix is the embedding. Where the file does not say, it is if there is no other: the
    /// default has changed between versions of transformers.
    pub tied: Option<bool>,
}
