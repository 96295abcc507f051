//! Qwen2-VL and Qwen2.5-VL: images and clips.

use msao_core::chat::Modality;

use super::{Placeholder, Rules};

const PLACEHOLDERS: [Placeholder; 2] = [
    Placeholder {
        modality: Modality::Image,
        tokenizer_key: "image_token",
        token: "<|image_pad|>",
        id_keys: &["image_token_id"],
    },
    Placeholder {
        modality: Modality::Video,
        tokenizer_key: "video_token",
        token: "<|video_pad|>",
        id_keys: &["video_token_id"],
    },
];

/// Qwen2-VL: positions count temporal patches, so clips have no seconds.
pub(super) struct Qwen2Vl;

impl Rules for Qwen2Vl {
    fn name(&self) -> &'static str {
        "Qwen2-VL"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["qwen2_vl"]
    }

    fn placeholders(&self) -> &'static [Placeholder] {
        &PLACEHOLDERS
    }

    fn seconds_per_grid(&self, _: usize, _: f64, _: Option<f64>) -> Option<f32> {
        None
    }
}

/// Qwen2.5-VL: as Qwen2-VL, and positions of a clip follow its real time.
pub(super) struct Qwen2_5Vl;

impl Rules for Qwen2_5Vl {
    fn name(&self) -> &'static str {
        "Qwen2.5-VL"
    }

    fn model_types(&self) -> &'static [&'static str] {
        &["qwen2_5_vl"]
    }

    fn placeholders(&self) -> &'static [Placeholder] {
        &PLACEHOLDERS
    }

    fn seconds_per_grid(
        &self,
        temporal_patch: usize,
        sampled_fps: f64,
        _: Option<f64>,
    ) -> Option<f32> {
        Some((temporal_patch as f64 / sampled_fps) as f32)
    }
}
