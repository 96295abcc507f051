//! Shapes: the sizes of a twin, and the `config.json` that says so.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::tensors::Dtype;
use crate::config::{Activation, Family, ModelConfig, read_text};
use crate::error::{EngineError, Result};

/// The names of shapes, and what each stands for.
pub const SHAPES: [(&str, &str); 5] = [
    ("demo", "the size of the demo target"),
    ("0.5b", "Qwen2.5-0.5B's language model"),
    ("1.5b", "Qwen2.5-1.5B's language model"),
    ("3b", "Qwen2.5-3B's language model"),
    ("7b", "Qwen2.5-7B's language model"),
];

/// Sizes of a language model, as its `config.json` gives them.
#[derive(Clone, Debug)]
struct Sizes {
    hidden: usize,
    mlp: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocabulary: usize,
    tied: bool,
    context: usize,
    rope_theta: f64,
    norm_eps: f64,
}

/// Published sizes of Qwen2.5: hidden, MLP, layers, heads, key heads, vocabulary, whether the head is tied.
const PUBLISHED: [(&str, [usize; 6], bool); 4] = [
    ("0.5b", [896, 4864, 24, 14, 2, 151_936], true),
    ("1.5b", [1536, 8960, 28, 12, 2, 151_936], true),
    ("3b", [2048, 11_008, 36, 16, 2, 151_936], true),
    ("7b", [3584, 18_944, 28, 28, 4, 152_064], false),
];

/// A twin's sizes, on a thinker's configuration.
#[derive(Debug)]
pub(super) struct Shape {
    /// The configuration of the tokenizer's directory, whose ids and small towers the twin takes over.
    base: Map<String, Value>,
    sizes: Sizes,
}

impl Shape {
    /// The shape of that name, or of the directory at that path. `tokenizer` is a thinker's directory.
    pub fn find(name: &str, tokenizer: &Path) -> Result<Self> {
        let mut base = thinker_config(tokenizer)?;
        let named = PUBLISHED.iter().find(|(known, _, _)| *known == name);
        let sizes =
            if let Some((_, [hidden, mlp, layers, heads, kv_heads, vocabulary], tied)) = named {
                Sizes {
                    hidden: *hidden,
                    mlp: *mlp,
                    layers: *layers,
                    heads: *heads,
                    kv_heads: *kv_heads,
                    head_dim: hidden / heads,
                    vocabulary: *vocabulary,
                    tied: *tied,
                    context: 32_768,
                    rope_theta: 1e6,
                    norm_eps: 1e-6,
                }
            } else if name == "demo" {
                sizes_of(&ModelConfig::load(tokenizer)?)
            } else {
                let dir = Path::new(name);
                if !dir.join("config.json").is_file() {
                    let known: Vec<&str> = SHAPES.iter().map(|(known, _)| *known).collect();
                    return Err(EngineError::request(format!(
                        "shape {name}: neither one of {} nor a directory with a config.json",
                        known.join(", ")
                    )));
                }
                let config = ModelConfig::load(dir)?;
                if config.text.activation != Activation::Silu {
                    return Err(EngineError::request(format!(
                        "shape {name}: its language model's activation is not silu, and a twin's is"
                    )));
                }
                take_towers(&mut base, &config, tokenizer)?;
                sizes_of(&config)
            };
        Ok(Shape { base, sizes })
    }

    pub fn layers(&self) -> usize {
        self.sizes.layers
    }

    pub fn vocabulary(&self) -> usize {
        self.sizes.vocabulary
    }

    /// The configuration with so many language layers, as JSON and as the engine reads it. `out` is named in errors.
    pub fn config(
        &self,
        layers: usize,
        dtype: Dtype,
        out: &Path,
    ) -> Result<(Map<String, Value>, ModelConfig)> {
        let sizes = &self.sizes;
        let mut config = self.base.clone();
        let half = sizes.head_dim / 2;
        let time = half / 4;
        let height = (half - time) / 2;
        let mut text = json!({
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.mlp,
            "num_hidden_layers": layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
            "vocab_size": sizes.vocabulary,
            "tie_word_embeddings": sizes.tied,
            "max_position_embeddings": sizes.context,
            "rms_norm_eps": sizes.norm_eps,
            "hidden_act": "silu",
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": sizes.rope_theta,
                "mrope_section": [time, height, half - time - height],
            },
            "layer_types": vec!["full_attention"; layers],
            "max_window_layers": layers,
            "use_sliding_window": false,
            "sliding_window": null,
        });
        if sizes.head_dim * sizes.heads != sizes.hidden {
            merge(&mut text, json!({ "head_dim": sizes.head_dim }));
        }
        for (part, keys) in [
            ("text_config", text),
            ("vision_config", json!({ "out_hidden_size": sizes.hidden })),
            ("audio_config", json!({ "output_dim": sizes.hidden })),
        ] {
            merge(config.entry(part).or_insert_with(|| json!({})), keys);
        }
        config.insert("tie_word_embeddings".into(), sizes.tied.into());
        config.insert("dtype".into(), dtype.hugging_face().into());
        let text = Value::Object(config.clone()).to_string();
        let parsed = ModelConfig::parse(&text, &out.join("config.json"))?;
        Ok((config, parsed))
    }
}

fn sizes_of(config: &ModelConfig) -> Sizes {
    let text = &config.text;
    Sizes {
        hidden: text.hidden_size,
        mlp: text.intermediate_size,
        layers: text.layers,
        heads: text.heads,
        kv_heads: text.kv_heads,
        head_dim: text.head_dim,
        vocabulary: text.vocab_size,
        tied: config.tied.unwrap_or(false),
        context: text.max_positions,
        rope_theta: text.rope_theta,
        norm_eps: text.norm_eps,
    }
}

/// Puts the towers of `config` into `base`, where its pictures and sounds are cut as the preprocessor files cut them.
fn take_towers(
    base: &mut Map<String, Value>,
    config: &ModelConfig,
    tokenizer: &Path,
) -> Result<()> {
    let own = ModelConfig::load(tokenizer)?;
    let vision = &config.vision;
    let same_patches = (
        vision.patch_size,
        vision.temporal_patch_size,
        vision.merge_size,
        vision.channels,
    ) == (
        own.vision.patch_size,
        own.vision.temporal_patch_size,
        own.vision.merge_size,
        own.vision.channels,
    );
    // Qwen2-VL's tower is another architecture.
    if let (Some(windows), true) = (
        &vision.windows,
        same_patches && config.family != Family::Qwen2Vl,
    ) {
        let keys = json!({
            "depth": vision.depth,
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.intermediate_size,
            "num_heads": vision.heads,
            "window_size": windows.size,
            "fullatt_block_indexes": windows.full_blocks,
        });
        merge(
            base.entry("vision_config").or_insert_with(|| json!({})),
            keys,
        );
    }
    if let (Some(audio), Some(own)) = (&config.audio, &own.audio)
        && audio.mel_bins == own.mel_bins
    {
        let keys = json!({
            "d_model": audio.hidden_size,
            "encoder_layers": audio.layers,
            "encoder_attention_heads": audio.heads,
            "encoder_ffn_dim": audio.intermediate_size,
            "n_window": audio.half_chunk,
            "max_source_positions": audio.max_positions,
        });
        merge(
            base.entry("audio_config").or_insert_with(|| json!({})),
            keys,
        );
    }
    Ok(())
}

/// The configuration of a thinker, alone or inside a whole Omni checkpoint.
fn thinker_config(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join("config.json");
    if !path.is_file() {
        return Err(EngineError::request(format!(
            "{} is missing: --tokenizer names a Qwen2.5-Omni thinker's directory, such as models/demo-target of a \
             checkout, whose tokenizer and preprocessor files the twin takes over",
            path.display()
        )));
    }
    let text = read_text(&path)?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|e| EngineError::checkpoint(&path, format!("not JSON: {e}")))?;
    let kind = value
        .get("model_type")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let thinker = match kind {
        "qwen2_5_omni_thinker" => Some(&value),
        "qwen2_5_omni" => value.get("thinker_config"),
        _ => None,
    };
    match thinker {
        Some(Value::Object(config)) => {
            let mut config = config.clone();
            config.insert("model_type".into(), "qwen2_5_omni_thinker".into());
            config.insert(
                "architectures".into(),
                json!(["Qwen2_5OmniThinkerForConditionalGeneration"]),
            );
            Ok(config)
        }
        _ => Err(EngineError::checkpoint(
            &path,
            format!(
                "model_type \"{kind}\": a twin takes tokenizer and preprocessor files from a Qwen2.5-Omni thinker"
            ),
        )),
    }
}

/// Sets the keys of `keys` in the object `into`.
fn merge(into: &mut Value, keys: Value) {
    if let (Value::Object(into), Value::Object(keys)) = (into, keys) {
        into.extend(keys);
    }
}
