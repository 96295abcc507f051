//! Reading `config.json`: which family, which layout, which spelling of a key.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::convert::{audio_config, text_config, vision_config};
use super::{Activation, Family, ModelConfig, PositionConfig};
use crate::error::{EngineError, Result};

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

#[derive(Deserialize)]
pub(super) struct RawText {
    pub(super) vocab_size: usize,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: Option<usize>,
    pub(super) head_dim: Option<usize>,
    pub(super) hidden_act: Option<Activation>,
    pub(super) max_position_embeddings: Option<usize>,
    pub(super) rms_norm_eps: Option<f64>,
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_parameters: Option<RawRope>,
    pub(super) use_sliding_window: Option<bool>,
    pub(super) sliding_window: Option<usize>,
    pub(super) max_window_layers: Option<usize>,
    pub(super) layer_types: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct RawRope {
    pub(super) rope_type: Option<String>,
    pub(super) rope_theta: Option<f64>,
    pub(super) mrope_section: Option<Vec<usize>>,
}

#[derive(Deserialize)]
pub(super) struct RawVision {
    pub(super) depth: usize,
    /// Qwen2-VL: the encoder's width; there `hidden_size` is the language model's.
    pub(super) embed_dim: Option<usize>,
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: Option<usize>,
    pub(super) out_hidden_size: Option<usize>,
    pub(super) mlp_ratio: Option<f64>,
    pub(super) num_heads: usize,
    pub(super) in_channels: Option<usize>,
    pub(super) patch_size: Option<usize>,
    pub(super) temporal_patch_size: Option<usize>,
    pub(super) spatial_merge_size: Option<usize>,
    pub(super) hidden_act: Option<Activation>,
    pub(super) window_size: Option<usize>,
    pub(super) fullatt_block_indexes: Option<Vec<usize>>,
    pub(super) tokens_per_second: Option<f64>,
}

#[derive(Deserialize)]
pub(super) struct RawAudio {
    pub(super) num_mel_bins: Option<usize>,
    pub(super) d_model: usize,
    pub(super) encoder_layers: usize,
    pub(super) encoder_attention_heads: usize,
    pub(super) encoder_ffn_dim: usize,
    pub(super) n_window: Option<usize>,
    pub(super) max_source_positions: Option<usize>,
    pub(super) output_dim: Option<usize>,
    pub(super) activation_function: Option<Activation>,
}

#[derive(Deserialize)]
pub(super) struct RawTop {
    pub(super) image_token_id: Option<u32>,
    pub(super) video_token_id: Option<u32>,
    pub(super) audio_token_id: Option<u32>,
    pub(super) tie_word_embeddings: Option<bool>,
    pub(super) position_id_per_seconds: Option<f64>,
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
