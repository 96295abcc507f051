//! Which frames of a clip are kept, and how large they may be.
//!
//! Formulas: `sample_frames` and `resize` of Hugging Face transformers 5.17,
//! `models/qwen2_vl/video_processing_qwen2_vl.py`.

use crate::config::{ClipConfig, PixelBounds};

/// Frames a second that a clip without a known rate is taken to have (`VideoMetadata.sampled_fps`).
const UNKNOWN_FPS: f64 = 24.0;

/// Frames a second sampled from a clip that is too long to keep whole; what Qwen's own tools sample.
const LONG_CLIP_FPS: f64 = 2.0;

/// Which frames of a clip the processor keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum VideoSampling {
    /// As the model's files say. Most say nothing, which means every frame; a clip of more than `max_frames` frames
    /// (768 unless the files differ) is then sampled at two frames a second, as memory must stay bounded.
    #[default]
    Model,
    /// So many frames a second.
    Fps(f64),
    /// So many frames, spread evenly.
    Frames(usize),
}

impl VideoSampling {
    /// The rate that was asked for explicitly.
    pub(crate) fn asked_fps(self) -> Option<f64> {
        match self {
            VideoSampling::Fps(fps) => Some(fps),
            VideoSampling::Model | VideoSampling::Frames(_) => None,
        }
    }
}

/// The indices of the frames to keep of `total` frames at `fps` frames a second, rising.
pub(crate) fn frames_to_sample(
    total: usize,
    fps: f64,
    config: &ClipConfig,
    asked: VideoSampling,
) -> Result<Vec<usize>, String> {
    if total == 0 {
        return Err("the clip has no frames".to_owned());
    }
    match asked {
        VideoSampling::Fps(rate) => by_rate(total, fps, rate, config),
        VideoSampling::Frames(frames) => by_count(total, frames, config),
        VideoSampling::Model if config.sample => match (config.num_frames, config.fps) {
            (Some(frames), _) => by_count(total, frames, config),
            (None, rate) => by_rate(total, fps, rate.unwrap_or(LONG_CLIP_FPS), config),
        },
        VideoSampling::Model if total > config.max_frames => {
            by_rate(total, fps, LONG_CLIP_FPS, config)
        }
        VideoSampling::Model => Ok((0..total).collect()),
    }
}

fn by_count(total: usize, frames: usize, config: &ClipConfig) -> Result<Vec<usize>, String> {
    let step = config.temporal_patch() as f64;
    let frames = ((frames as f64 / step).round_ties_even() * step) as usize;
    if frames == 0 || frames > total {
        return Err(format!(
            "{frames} frames are to be sampled and the clip has {total}"
        ));
    }
    Ok(spread(total, frames))
}

fn by_rate(total: usize, fps: f64, rate: f64, config: &ClipConfig) -> Result<Vec<usize>, String> {
    let known = |fps: f64| fps.is_finite() && fps > 0.0;
    if !known(fps) || !known(rate) {
        return Err(format!(
            "cannot sample {rate} frames a second from a clip of {fps} frames a second"
        ));
    }
    let step = config.temporal_patch();
    let most = config.max_frames.min(total) / step * step;
    let wanted = (total as f64 / fps * rate).max(config.min_frames as f64);
    let frames = wanted.min(most as f64).min(total as f64);
    let frames = (frames / step as f64).floor() as usize * step;
    if frames == 0 {
        return Err(format!(
            "the clip has {total} frames and sampling by rate needs at least {step}"
        ));
    }
    Ok(spread(total, frames))
}

/// `torch.arange(0, total, total / frames).int()`: products in double precision, kept in single.
///
/// Rounding can make that list one longer than `frames`. Where the additional index is beyond the clip, Hugging Face
/// fails on it; here it is left out.
fn spread(total: usize, frames: usize) -> Vec<usize> {
    let step = total as f64 / frames as f64;
    let length = (total as f64 / step).ceil() as usize;
    (0..length)
        .map(|i| (i as f64 * step) as f32 as usize)
        .filter(|&index| index < total)
        .collect()
}

/// The rate of `kept` frames of a clip of `total` frames at `fps`.
pub(crate) fn sampled_fps(kept: usize, total: usize, fps: f64) -> f64 {
    if !(fps.is_finite() && fps > 0.0) || total == 0 || kept == 0 {
        return UNKNOWN_FPS;
    }
    kept as f64 / total as f64 * fps
}

/// The bounds of each of `frames` frames: the family's, shrunk where frames share a budget.
pub(crate) fn frame_bounds(bounds: PixelBounds, frames: usize, config: &ClipConfig) -> PixelBounds {
    let Some(tokens) = config.shared_tokens else {
        return bounds;
    };
    let factor = config.picture.factor() as f64;
    let budget = (tokens as f64 * factor * factor * 0.9) as usize;
    let share = budget.saturating_mul(config.temporal_patch()) / frames.max(1);
    PixelBounds {
        min: bounds.min,
        max: bounds
            .max
            .min(share)
            .max((bounds.min as f64 * 1.05) as usize),
    }
}

impl ClipConfig {
    fn temporal_patch(&self) -> usize {
        self.picture.temporal_patch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Filter, PictureConfig};

    fn config() -> ClipConfig {
        let picture = PictureConfig {
            resize: true,
            filter: Filter::Bicubic,
            bounds: PixelBounds {
                min: 100_352,
                max: 602_112,
            },
            rescale: None,
            normalize: None,
            patch: 14,
            temporal_patch: 2,
            merge: 2,
        };
        ClipConfig {
            picture,
            sample: false,
            fps: None,
            num_frames: None,
            min_frames: 4,
            max_frames: 768,
            shared_tokens: None,
        }
    }

    #[test]
    fn a_model_that_does_not_sample_keeps_every_frame_until_there_are_too_many() {
        assert_eq!(
            frames_to_sample(5, 30.0, &config(), VideoSampling::Model),
            Ok(vec![0, 1, 2, 3, 4])
        );
        let long = frames_to_sample(3000, 30.0, &config(), VideoSampling::Model).unwrap();
        assert_eq!((long.len(), long[1]), (200, 15));
    }

    #[test]
    fn sampling_follows_rate_count_and_limits() {
        let rate =
            |total, fps, rate| frames_to_sample(total, fps, &config(), VideoSampling::Fps(rate));
        assert_eq!(rate(10, 5.0, 2.0), Ok(vec![0, 2, 5, 7]));
        assert_eq!(
            rate(3, 1.0, 2.0),
            Ok(vec![0, 1]),
            "not more than the clip has, in whole patches"
        );
        assert_eq!(rate(100_000, 30.0, 30.0).unwrap().len(), 768);
        assert!(rate(1, 1.0, 1.0).unwrap_err().contains("at least 2"));
        assert!(
            rate(10, 0.0, 2.0)
                .unwrap_err()
                .contains("0 frames a second")
        );
        let count = |total, n| frames_to_sample(total, 5.0, &config(), VideoSampling::Frames(n));
        assert_eq!(count(10, 5), Ok(vec![0, 2, 5, 7]), "2.5 patches are 2");
        assert!(count(10, 12).unwrap_err().contains("the clip has 10"));
        assert!(frames_to_sample(0, 5.0, &config(), VideoSampling::Model).is_err());
    }

    #[test]
    fn frames_share_a_budget_if_asked() {
        let mut config = config();
        let bounds = config.picture.bounds;
        assert_eq!(frame_bounds(bounds, 5000, &config), bounds);
        config.shared_tokens = Some(128_000);
        assert_eq!(frame_bounds(bounds, 8, &config), bounds);
        assert_eq!(frame_bounds(bounds, 768, &config).max, 235_200);
        assert_eq!(frame_bounds(bounds, 1 << 20, &config).max, 105_369);
    }

    proptest! {
        #[test]
        fn sampled_indices_rise_within_the_clip(total in 1usize..4000, fps in 1.0f64..120.0, rate in 0.1f64..60.0) {
            if let Ok(indices) = frames_to_sample(total, fps, &config(), VideoSampling::Fps(rate)) {
                prop_assert!(indices.len() <= 769 && indices.windows(2).all(|pair| pair[0] < pair[1]));
                prop_assert!(indices.iter().all(|&i| i < total));
            }
        }
    }
}
