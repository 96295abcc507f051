//! From the keys of a file to sizes that fit together: everything is held against what a model can be, before
//! anything is sized by it.

use super::file::{RawAudio, RawText, RawVision};
use super::{Activation, AudioConfig, Family, TextConfig, VisionConfig, VisionWindows};

/// Refuses numbers that no model has, before anything is sized by them.
fn bounded(name: &str, value: usize, limit: usize) -> Result<usize, String> {
    if value == 0 || value > limit {
        return Err(format!(
            "{name} is {value}; it must be between 1 and {limit}"
        ));
    }
    Ok(value)
}

pub(super) fn text_config(raw: RawText) -> Result<TextConfig, String> {
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
            .collect::<Result<_, _>>()?,
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

pub(super) fn vision_config(
    family: Family,
    raw: RawVision,
    text: &TextConfig,
) -> Result<VisionConfig, String> {
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

pub(super) fn audio_config(raw: RawAudio, text: &TextConfig) -> Result<AudioConfig, String> {
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
