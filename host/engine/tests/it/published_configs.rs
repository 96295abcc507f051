//! The layouts of published checkpoints, with their real sizes: what is read from them, without their weights.
#![allow(clippy::unwrap_used)] // a test's helpers may panic

use std::path::Path;

use msao_engine::{Family, ModelConfig};
use serde_json::{Value, json};

fn parse(config: &Value) -> ModelConfig {
    ModelConfig::parse(&config.to_string(), Path::new("config.json")).unwrap()
}

/// Qwen2-VL-2B-Instruct: language keys at the top, `rope_scaling`, the encoder's width under `embed_dim`.
#[test]
fn qwen2_vl_2b() {
    let config = parse(&json!({
        "model_type": "qwen2_vl", "hidden_act": "silu", "hidden_size": 1536, "intermediate_size": 8960,
        "max_position_embeddings": 32768, "max_window_layers": 28, "num_attention_heads": 12,
        "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1e6,
        "sliding_window": 32768, "use_sliding_window": false, "tie_word_embeddings": true, "vocab_size": 151936,
        "vision_start_token_id": 151652, "image_token_id": 151655, "video_token_id": 151656,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {
            "depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "in_chans": 3, "hidden_size": 1536,
            "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2
        },
    }));
    assert_eq!(config.family, Family::Qwen2Vl);
    assert_eq!(config.tied, Some(true));
    assert_eq!(config.text.head_dim, 128);
    assert!(config.text.windows.iter().all(Option::is_none));
    assert_eq!(config.vision.hidden_size, 1280);
    assert_eq!(config.vision.intermediate_size, 5120);
    assert!(config.vision.windows.is_none() && config.audio.is_none());
}

/// Qwen2.5-VL-3B-Instruct: windows, absolute time.
#[test]
fn qwen2_5_vl_3b() {
    let config = parse(&json!({
        "model_type": "qwen2_5_vl", "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 11008,
        "max_position_embeddings": 128000, "max_window_layers": 70, "num_attention_heads": 16,
        "num_hidden_layers": 36, "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_theta": 1e6,
        "sliding_window": 32768, "use_sliding_window": false, "tie_word_embeddings": true, "vocab_size": 151936,
        "image_token_id": 151655, "video_token_id": 151656,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_config": {
            "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "in_chans": 3, "out_hidden_size": 2048, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2, "temporal_patch_size": 2
        },
    }));
    assert_eq!(config.family, Family::Qwen2_5Vl);
    assert!((config.positions.per_second - 2.0).abs() < f64::EPSILON);
    let windows = config.vision.windows.unwrap();
    assert_eq!(
        (windows.size, windows.full_blocks.as_slice()),
        (112, [7, 15, 23, 31].as_slice())
    );
    assert_eq!(config.text.max_positions, 128_000);
}

/// Qwen2.5-Omni-7B: the thinker beside talker and vocoder, token ids as indices, both spellings of the rotary type.
#[test]
fn qwen2_5_omni_7b() {
    let config = parse(&json!({
        "model_type": "qwen2_5_omni", "enable_audio_output": true, "talker_config": {}, "token2wav_config": {},
        "thinker_config": {
            "model_type": "qwen2_5_omni_thinker", "audio_token_index": 151646, "image_token_index": 151655,
            "video_token_index": 151656, "position_id_per_seconds": 25, "seconds_per_chunk": 2,
            "tie_word_embeddings": false,
            "text_config": {
                "model_type": "qwen2_5_omni_text", "hidden_act": "silu", "hidden_size": 3584,
                "intermediate_size": 18944, "max_position_embeddings": 32768, "max_window_layers": 28,
                "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4,
                "rms_norm_eps": 1e-06, "rope_theta": 1e6, "sliding_window": 32768,
                "use_sliding_window": false, "vocab_size": 152064,
                "rope_scaling": {"mrope_section": [16, 24, 24], "rope_type": "default", "type": "default"}
            },
            "vision_config": {
                "depth": 32, "embed_dim": 1280, "fullatt_block_indexes": [7, 15, 23, 31], "hidden_act": "silu",
                "hidden_size": 1280, "in_channels": 3, "in_chans": 3, "intermediate_size": 3420, "num_heads": 16,
                "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14,
                "temporal_patch_size": 2, "tokens_per_second": 25, "window_size": 112
            },
            "audio_config": {
                "activation_function": "gelu", "d_model": 1280, "encoder_attention_heads": 20,
                "encoder_ffn_dim": 5120, "encoder_layers": 32, "max_source_positions": 1500, "n_window": 100,
                "num_mel_bins": 128, "output_dim": 3584
            }
        },
    }));
    assert_eq!(config.family, Family::Qwen2_5Omni);
    assert_eq!(config.tied, Some(false));
    assert_eq!(
        (config.image_token, config.video_token, config.audio_token),
        (151_655, 151_656, Some(151_646))
    );
    assert!((config.positions.per_second - 25.0).abs() < f64::EPSILON);
    assert_eq!(config.audio.unwrap().half_chunk, 100);
    assert_eq!(config.text.kv_heads, 4);
}

/// Where a file does not say whether the output is tied, the weights decide.
#[test]
fn a_missing_key_is_not_guessed() {
    let mut config = json!({
        "model_type": "qwen2_vl", "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4,
        "num_hidden_layers": 1, "vocab_size": 200000, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "vision_config": {"depth": 1, "embed_dim": 32, "num_heads": 2, "hidden_size": 64},
    });
    assert_eq!(parse(&config).tied, None);
    config["rope_scaling"] = json!({"type": "yarn", "factor": 4.0});
    let refused = ModelConfig::parse(&config.to_string(), Path::new("config.json")).unwrap_err();
    assert!(refused.to_string().contains("yarn"), "{refused}");
}
