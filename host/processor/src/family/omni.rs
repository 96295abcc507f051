//! Qwen2.5-Omni, the thinker: images, clips and sounds.
//!
//! A clip's own sound track is not interleaved with its frames (`use_audio_in_video` is off, the processor's
//! default): send it as a sound of its own.

use msao_core::chat::Modality;

use super::{Placeholder, Rules};
use crate::config::PixelBounds;

/// Frames a second that the processor assumes when none was asked for.
const ASSUMED_FPS: f64 = 2.0;

const PLACEHOLDERS: [Placeholder; 3] = [
    Placeholder {
        modality: Modality::Image,
        tokenizer_key: "image_token",
        token: "<|IMAGE|>",
        id_keys: &["image_token_id", "image_token_index"],
    },
    Placeholder {
        modality: Modality::Video,
        tokenizer_key: "video_token",
        token: "<|VIDEO|>",
        id_keys: &["video_token_id", "video_token_index"],
    },
    Placeholder {
        modality: Modality::Audio,
        tokenizer_key: "audio_token",
        token: "<|AUDIO|>",
        id_keys: &["audio_token_id", "audio_token_index"],
    },
];

pub(super) struct Omni;

impl Rules for Omni {
    fn name(&self) -> &'static str {
        "Qwen2.5-Omni"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["qwen2_5_omni", "qwen2_5_omni_thinker"]
    }

    fn model_sections(&self) -> &'static [&'static str] {
        &["thinker_config", ""]
    }

    fn placeholders(&self) -> &'static [Placeholder] {
        &PLACEHOLDERS
    }

    /// The processor passes its own `size` with every call, which wins over the files.
    fn frame_bounds(&self) -> Option<PixelBounds> {
        Some(PixelBounds {
            min: 128 * 28 * 28,
            max: 768 * 28 * 28,
        })
    }

    /// Not the clip's own rate: what was asked for, else two frames a second.
    fn seconds_per_grid(
        &self,
        temporal_patch: usize,
        _: f64,
        asked_fps: Option<f64>,
    ) -> Option<f32> {
        Some((temporal_patch as f64 / asked_fps.unwrap_or(ASSUMED_FPS)) as f32)
    }

    fn seconds_name(&self) -> &'static str {
        "video_second_per_grid"
    }
}
