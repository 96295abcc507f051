//! `config.json` of the three families, in both layouts: the flat one of the published checkpoints (language keys at
//! the top, `rope_scaling`) and the nested one that transformers 5 writes (`text_config`, `rope_parameters`).

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{EngineError, Result};

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

#[derive(Deserialize)]
struct RawText {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<Activation>,
    max_position_embeddings: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_parameters: Option<RawRope>,
    use_sliding_window: Option<bool>,
    sliding_window: Option<usize>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RawRope {
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    mrope_section: Option<Vec<usize>>,
}

#[derive(Deserialize)]
struct RawVision {
    depth: usize,
    /// Qwen2-VL: the encoder's width; there `hidden_size` is the language model's.
    embed_dim: Option<usize>,
    hidden_size: usize,
    intermediate_size: Option<usize>,
    out_hidden_size: Option<usize>,
    mlp_ratio: Option<f64>,
    num_heads: usize,
    in_channels: Option<usize>,
    patch_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    spatial_merge_size: Option<usize>,
    hidden_act: Option<Activation>,
    window_size: Option<usize>,
    fullatt_block_indexes: Option<Vec<usize>>,
    tokens_per_second: Option<f64>,
}

#[derive(Deserialize)]
struct RawAudio {
    num_mel_bins: Option<usize>,
    d_model: usize,
    encoder_layers: usize,
    encoder_attention_heads: usize,
    encoder_ffn_dim: usize,
    n_window: Option<usize>,
    max_source_positions: Option<usize>,
    output_dim: Option<usize>,
    activation_function: Option<Activation>,
}

#[derive(Deserialize)]
struct RawTop {
    image_token_id: Option<u32>,
    video_token_id: Option<u32>,
    audio_token_id: Option<u32>,
    tie_word_embeddings: Option<bool>,
    position_id_per_seconds: Option<f64>,
}

impl ModelConfig {
    /// Reads `config.json` of a checkpoint directory.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let text = read_text(&path)?;
        Self::parse(&text, &path)
    }

    /// Parses the text of a `config.json`; `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let fail = |problem: String| EngineError::checkpoint(path, problem);
        let value: Value =
            serde_json::from_str(text).map_err(|e| fail(format!("not JSON: {e}")))?;
        let Value::Object(whole) = value else {
            return Err(fail("not a JSON object".into()));
        };
        let model_type = whole
            .get("model_type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let (family, top) = match model_type {
            "qwen2_vl" => (Family::Qwen2Vl, whole),
            "qwen2_5_vl" => (Family::Qwen2_5Vl, whole),
            "qwen2_5_omni_thinker" => (Family::Qwen2_5Omni, whole),
            "qwen2_5_omni" => match whole.get("thinker_config") {
                Some(Value::Object(thinker)) => (Family::Qwen2_5Omni, thinker.clone()),
                _ => return Err(fail(
                    "thinker_config is missing: a whole Omni checkpoint keeps its thinker there"
                        .into(),
                )),
            },
            other => {
                return Err(EngineError::UnknownFamily {
                    path: path.to_owned(),
                    found: other.to_owned(),
                });
            }
        };
        Self::from_object(family, &top, path)
    }

    fn from_object(family: Family, top: &Map<String, Value>, path: &Path) -> Result<Self> {
        let fail = |problem: String| EngineError::checkpoint(path, problem);
        let raw: RawTop = section(top, None, path)?;
        let raw_text: RawText = section(top, Some("text_config"), path)?;
        let raw_vision: RawVision = match top.get("vision_config") {
            Some(_) => section(top, Some("vision_config"), path)?,
            None => return Err(fail("vision_config is missing".into())),
        };
        // The whole model's key alone counts, as in the reference; the language model's own is not looked at.
        let tied = raw.tie_word_embeddings;
        let tokens_per_second = raw_vision.tokens_per_second;
        let text = text_config(raw_text).map_err(fail)?;
        let vision = vision_config(family, raw_vision, &text).map_err(fail)?;
        let audio = match (family, top.get("audio_config")) {
            (Family::Qwen2_5Omni, Some(_)) => {
                let raw_audio: RawAudio = section(top, Some("audio_config"), path)?;
                Some(audio_config(raw_audio, &text).map_err(fail)?)
            }
            (Family::Qwen2_5Omni, None) => return Err(fail("audio_config is missing".into())),
            _ => None,
        };
        let per_second = match family {
            Family::Qwen2Vl => 1.0,
            Family::Qwen2_5Vl => tokens_per_second.unwrap_or(4.0),
            Family::Qwen2_5Omni => raw.position_id_per_seconds.unwrap_or(25.0),
        };
        if !(per_second > 0.0 && per_second <= 1e4) {
            return Err(fail(format!(
                "positions per second of video are {per_second}; they must be above 0 and at most 10000"
            )));
        }
        let config = ModelConfig {
            family,
            positions: PositionConfig { family, per_second },
            image_token: raw.image_token_id.unwrap_or(151_655),
            video_token: raw.video_token_id.unwrap_or(151_656),
            audio_token: audio
                .as_ref()
                .map(|_| raw.audio_token_id.unwrap_or(151_646)),
            text,
            vision,
            audio,
            tied,
        };
        let placeholders = [
            Some(config.image_token),
            Some(config.video_token),
            config.audio_token,
        ];
        match placeholders
            .into_iter()
            .flatten()
            .find(|id| *id as usize >= config.text.vocab_size)
        {
            Some(id) => Err(fail(format!(
                "placeholder token {id} is not below vocab_size {}",
                config.text.vocab_size
            ))),
            None => Ok(config),
        }
    }
}

/// Old and new spellings of the same key. Files written in transition carry both; then the new one counts.
const RENAMED: [(&str, &str); 6] = [
    ("rope_scaling", "rope_parameters"),
    ("type", "rope_type"),
    ("in_chans", "in_channels"),
    ("image_token_index", "image_token_id"),
    ("video_token_index", "video_token_id"),
    ("audio_token_index", "audio_token_id"),
];

/// Brings an object to the new spellings and drops nulls, which mean the default.
fn modernise(object: &Map<String, Value>) -> Map<String, Value> {
    let mut new: Map<String, Value> = object
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (old, current) in RENAMED {
        if let Some(value) = new.remove(old) {
            new.entry(current).or_insert(value);
        }
    }
    if let Some(Value::Object(rope)) = new.get("rope_parameters") {
        let rope = modernise(rope);
        new.insert("rope_parameters".into(), Value::Object(rope));
    }
    new
}

/// Deserializes the object under `key`, or the top level where there is none: the flat layout keeps the language
/// model's keys there.
fn section<T: serde::de::DeserializeOwned>(
    top: &Map<String, Value>,
    key: Option<&str>,
    path: &Path,
) -> Result<T> {
    let name = key.unwrap_or("top level");
    let fail = |problem: String| EngineError::checkpoint(path, format!("{name}: {problem}"));
    let object = match key.and_then(|key| top.get(key)) {
        None => top,
        Some(Value::Object(object)) => object,
        Some(_) => return Err(fail("not a JSON object".into())),
    };
    serde_json::from_value(Value::Object(modernise(object))).map_err(|e| fail(e.to_string()))
}

/// Largest configuration file that is read; those of the known families have some kilobytes, an index of shards some
/// hundred.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// Reads a configuration file, which may not be larger than one can be.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    use std::io::Read;

    let file = std::fs::File::open(path).map_err(|e| EngineError::read(path, e))?;
    let mut text = String::new();
    let read = file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text);
    let bytes = read.map_err(|e| EngineError::read(path, e))? as u64;
    if bytes > MAX_CONFIG_BYTES {
        let problem = format!("more than {MAX_CONFIG_BYTES} bytes, which no such file has");
        return Err(EngineError::checkpoint(path, problem));
    }
    Ok(text)
}

/// Refuses numbers that no model has, before anything is sized by them.
fn bounded(name: &str, value: usize, limit: usize) -> std::result::Result<usize, String> {
    if value == 0 || value > limit {
        return Err(format!(
            "{name} is {value}; it must be between 1 and {limit}"
        ));
    }
    Ok(value)
}

fn text_config(raw: RawText) -> std::result::Result<TextConfig, String> {
    let hidden_size = bounded("hidden_size", raw.hidden_size, 1 << 16)?;
    let heads = bounded("num_attention_heads", raw.num_attention_heads, 1 << 10)?;
    let kv_heads = bounded(
        "num_key_value_heads",
        raw.num_key_value_heads.unwrap_or(heads),
        heads,
    )?;
    let layers = bounded("num_hidden_layers", raw.num_hidden_layers, 1 << 10)?;
    if heads % kv_heads != 0 {
        return Err(format!(
            "num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
        ));
    }
    let head_dim = match raw.head_dim {
        Some(dim) => dim,
        None if hidden_size % heads == 0 => hidden_size / heads,
        None => {
            return Err(format!(
                "hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}"
            ));
        }
    };
    bounded("head_dim", head_dim, 1 << 12)?;
    if head_dim % 2 != 0 {
        return Err(format!(
            "head_dim {head_dim} is odd; rotary embeddings turn pairs"
        ));
    }
    let rope = raw.rope_parameters;
    let kind = rope.as_ref().and_then(|rope| rope.rope_type.as_deref());
    if let Some(kind) = kind.filter(|kind| !matches!(*kind, "default" | "mrope")) {
        return Err(format!(
            "rope type \"{kind}\" is not supported; \"default\" and \"mrope\" are"
        ));
    }
    let rope_theta = rope
        .as_ref()
        .and_then(|rope| rope.rope_theta)
        .or(raw.rope_theta)
        .unwrap_or(1_000_000.0);
    let section = rope
        .and_then(|rope| rope.mrope_section)
        .unwrap_or_else(|| vec![16, 24, 24]);
    let mrope_section: [usize; 3] = section
        .as_slice()
        .try_into()
        .map_err(|_| format!("mrope_section {section:?} must have three entries"))?;
    if mrope_section.iter().any(|&n| n > head_dim)
        || mrope_section.iter().sum::<usize>() != head_dim / 2
    {
        return Err(format!(
            "mrope_section {section:?} must sum to half of head_dim {head_dim}"
        ));
    }
    let window = if raw.use_sliding_window.unwrap_or(false) {
        let window = raw.sliding_window.unwrap_or(4096);
        Some(bounded("sliding_window", window, 1 << 28)?)
    } else {
        None
    };
    let first_windowed = raw.max_window_layers.unwrap_or(layers);
    let windows = match raw.layer_types {
        Some(types) if types.len() == layers => types
            .iter()
            .map(|kind| match kind.as_str() {
                "full_attention" => Ok(None),
                "sliding_attention" => Ok(window),
                other => Err(format!("layer_types: \"{other}\" is not supported")),
            })
            .collect::<std::result::Result<_, _>>()?,
        Some(types) => {
            return Err(format!(
                "layer_types has {} entries for {layers} layers",
                types.len()
            ));
        }
        None => (0..layers)
            .map(|layer| window.filter(|_| layer >= first_windowed))
            .collect(),
    };
    Ok(TextConfig {
        vocab_size: bounded("vocab_size", raw.vocab_size, 1 << 24)?,
        intermediate_size: bounded("intermediate_size", raw.intermediate_size, 1 << 20)?,
        max_positions: bounded(
            "max_position_embeddings",
            raw.max_position_embeddings.unwrap_or(32_768),
            1 << 28,
        )?,
        norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
        activation: raw.hidden_act.unwrap_or(Activation::Silu),
        hidden_size,
        layers,
        heads,
        kv_heads,
        head_dim,
        rope_theta,
        mrope_section,
        windows,
    })
}

fn vision_config(
    family: Family,
    raw: RawVision,
    text: &TextConfig,
) -> std::result::Result<VisionConfig, String> {
    let (hidden_size, out_hidden_size) = match family {
        Family::Qwen2Vl => (
            raw.embed_dim.ok_or("vision_config: embed_dim is missing")?,
            raw.hidden_size,
        ),
        _ => (
            raw.hidden_size,
            raw.out_hidden_size.unwrap_or(text.hidden_size),
        ),
    };
    if out_hidden_size != text.hidden_size {
        return Err(format!(
            "vision_config: output width {out_hidden_size} is not the language model's {}",
            text.hidden_size
        ));
    }
    let hidden_size = bounded("vision_config hidden size", hidden_size, 1 << 16)?;
    let heads = bounded("vision_config num_heads", raw.num_heads, 1 << 10)?;
    if hidden_size % (heads * 4) != 0 {
        return Err(format!(
            "vision_config: width {hidden_size} must be a multiple of four times num_heads {heads}"
        ));
    }
    let intermediate_size = match family {
        Family::Qwen2Vl => (hidden_size as f64 * raw.mlp_ratio.unwrap_or(4.0)) as usize,
        _ => raw
            .intermediate_size
            .ok_or("vision_config: intermediate_size is missing")?,
    };
    let windows = match family {
        Family::Qwen2Vl => None,
        _ => Some(VisionWindows {
            size: bounded(
                "vision_config window_size",
                raw.window_size.unwrap_or(112),
                1 << 16,
            )?,
            full_blocks: raw
                .fullatt_block_indexes
                .unwrap_or_else(|| vec![7, 15, 23, 31]),
        }),
    };
    let config = VisionConfig {
        depth: bounded("vision_config depth", raw.depth, 1 << 10)?,
        intermediate_size: bounded(
            "vision_config intermediate size",
            intermediate_size,
            1 << 20,
        )?,
        channels: bounded(
            "vision_config in_channels",
            raw.in_channels.unwrap_or(3),
            16,
        )?,
        patch_size: bounded(
            "vision_config patch_size",
            raw.patch_size.unwrap_or(14),
            1 << 10,
        )?,
        temporal_patch_size: bounded(
            "vision_config temporal_patch_size",
            raw.temporal_patch_size.unwrap_or(2),
            64,
        )?,
        merge_size: bounded(
            "vision_config spatial_merge_size",
            raw.spatial_merge_size.unwrap_or(2),
            64,
        )?,
        activation: raw.hidden_act.unwrap_or(match family {
            Family::Qwen2Vl => Activation::QuickGelu,
            _ => Activation::Silu,
        }),
        hidden_size,
        out_hidden_size,
        heads,
        windows,
    };
    match &config.windows {
        Some(windows) if windows.size < config.patch_size * config.merge_size => Err(format!(
            "vision_config: window_size {} is smaller than one merged token ({} pixels)",
            windows.size,
            config.patch_size * config.merge_size
        )),
        _ => Ok(config),
    }
}

fn audio_config(raw: RawAudio, text: &TextConfig) -> std::result::Result<AudioConfig, String> {
    let output_size = raw.output_dim.unwrap_or(text.hidden_size);
    if output_size != text.hidden_size {
        return Err(format!(
            "audio_config: output_dim {output_size} is not the language model's {}",
            text.hidden_size
        ));
    }
    let hidden_size = bounded("audio_config d_model", raw.d_model, 1 << 16)?;
    let heads = bounded(
        "audio_config encoder_attention_heads",
        raw.encoder_attention_heads,
        1 << 10,
    )?;
    if hidden_size % heads != 0 || hidden_size % 2 != 0 || hidden_size < 4 {
        return Err(format!(
            "audio_config: d_model {hidden_size} must be even and a multiple of {heads} heads"
        ));
    }
    let half_chunk = bounded(
        "audio_config n_window",
        raw.n_window.unwrap_or(100),
        1 << 12,
    )?;
    let max_positions = bounded(
        "audio_config max_source_positions",
        raw.max_source_positions.unwrap_or(1500),
        1 << 20,
    )?;
    if half_chunk > max_positions {
        return Err(format!(
            "audio_config: n_window {half_chunk} exceeds max_source_positions {max_positions}"
        ));
    }
    Ok(AudioConfig {
        mel_bins: bounded(
            "audio_config num_mel_bins",
            raw.num_mel_bins.unwrap_or(128),
            1 << 12,
        )?,
        layers: bounded("audio_config encoder_layers", raw.encoder_layers, 1 << 10)?,
        intermediate_size: bounded("audio_config encoder_ffn_dim", raw.encoder_ffn_dim, 1 << 20)?,
        activation: raw.activation_function.unwrap_or(Activation::Gelu),
        hidden_size,
        heads,
        half_chunk,
        max_positions,
        output_size,
    })
}
