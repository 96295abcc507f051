//! Reading the settings of the image, video and audio processors, wherever a model directory keeps them.
//!
//! Three layouts are read, in Hugging Face's order: nested in `processor_config.json` (what transformers 5 writes),
//! then `video_preprocessor_config.json` (clips alone), then `preprocessor_config.json` (all kinds in one object,
//! as the families were published). A key that is missing or null takes the default of the processor's class.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::{ClipConfig, Filter, MediaConfig, PictureConfig, PixelBounds, SoundConfig};
use crate::error::ProcessorError;
use crate::files::{lookup, read_json, typed};

#[derive(Debug, Deserialize)]
struct RawSize {
    #[serde(alias = "min_pixels")]
    shortest_edge: Option<usize>,
    #[serde(alias = "max_pixels")]
    longest_edge: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct RawPicture {
    do_resize: Option<bool>,
    resample: Option<u32>,
    size: Option<RawSize>,
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    do_rescale: Option<bool>,
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    patch_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    merge_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct RawClip {
    do_sample_frames: Option<bool>,
    fps: Option<f64>,
    num_frames: Option<usize>,
    min_frames: Option<usize>,
    max_frames: Option<usize>,
    cap_pixels_per_frame: Option<bool>,
    max_video_tokens: Option<usize>,
}

#[derive(Debug, Deserialize)]
struct RawSound {
    feature_size: Option<usize>,
    sampling_rate: Option<usize>,
    hop_length: Option<usize>,
    chunk_length: Option<usize>,
    n_fft: Option<usize>,
    padding_value: Option<f64>,
    padding_side: Option<String>,
    dither: Option<f64>,
}

const IMAGE_BOUNDS: PixelBounds = PixelBounds {
    min: 56 * 56,
    max: 28 * 28 * 1280,
};
const FRAME_BOUNDS: PixelBounds = PixelBounds {
    min: 128 * 28 * 28,
    max: 28 * 28 * 768,
};
/// OpenAI's CLIP.
const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// One object of settings and where it was found.
struct Section<'a> {
    value: &'a Value,
    path: &'a Path,
    prefix: &'static str,
}

impl Section<'_> {
    fn fail(&self, key: &str, message: impl Into<String>) -> ProcessorError {
        let key = if self.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.prefix)
        };
        ProcessorError::config(self.path, key, message)
    }

    fn within(
        &self,
        key: &str,
        value: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, ProcessorError> {
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(self.fail(
                key,
                format!(
                    "is {value}, and must be from {} to {}",
                    range.start(),
                    range.end()
                ),
            ))
        }
    }

    fn picture(&self, default: PixelBounds) -> Result<PictureConfig, ProcessorError> {
        let raw: RawPicture = typed(self.value, self.path, self.prefix)?;
        let (shortest, longest) = raw
            .size
            .map_or((None, None), |size| (size.shortest_edge, size.longest_edge));
        // The old keys win over `size`, as they do when the processor's class is constructed.
        let bounds = PixelBounds {
            min: raw.min_pixels.or(shortest).unwrap_or(default.min),
            max: raw.max_pixels.or(longest).unwrap_or(default.max),
        };
        if bounds.min == 0 || bounds.min > bounds.max {
            let message = format!(
                "allows from {} to {} pixels; the smallest (shortest_edge, min_pixels) must be at least 1 and at most \
                 the largest (longest_edge, max_pixels)",
                bounds.min, bounds.max
            );
            return Err(self.fail("size", message));
        }
        let filter = match raw.resample {
            None | Some(3) => Filter::Bicubic,
            Some(2) => Filter::Bilinear,
            Some(other) => {
                return Err(self.fail(
                    "resample",
                    format!("is {other}; known are 2 (bilinear) and 3 (bicubic)"),
                ));
            }
        };
        let (mean, std) = (raw.image_mean.unwrap_or(MEAN), raw.image_std.unwrap_or(STD));
        if !std.iter().all(|std| std.is_normal()) {
            return Err(self.fail("image_std", "must have no zero"));
        }
        Ok(PictureConfig {
            resize: raw.do_resize.unwrap_or(true),
            filter,
            bounds,
            rescale: raw
                .do_rescale
                .unwrap_or(true)
                .then_some(raw.rescale_factor.unwrap_or(1.0 / 255.0)),
            normalize: raw.do_normalize.unwrap_or(true).then_some((mean, std)),
            patch: self.within("patch_size", raw.patch_size.unwrap_or(14), 1..=256)?,
            temporal_patch: self.within(
                "temporal_patch_size",
                raw.temporal_patch_size.unwrap_or(2),
                1..=16,
            )?,
            merge: self.within("merge_size", raw.merge_size.unwrap_or(2), 1..=16)?,
        })
    }

    fn clip(&self) -> Result<ClipConfig, ProcessorError> {
        let picture = self.picture(FRAME_BOUNDS)?;
        let raw: RawClip = typed(self.value, self.path, self.prefix)?;
        let sample = raw.do_sample_frames.unwrap_or(false);
        if sample && raw.fps.is_some() == raw.num_frames.is_some() {
            return Err(self.fail(
                "do_sample_frames",
                "is true, so exactly one of fps and num_frames must be given",
            ));
        }
        if raw.fps.is_some_and(|fps| !(fps.is_finite() && fps > 0.0)) {
            return Err(self.fail("fps", "must be above 0"));
        }
        let shared = raw
            .cap_pixels_per_frame
            .unwrap_or(false)
            .then_some(raw.max_video_tokens.unwrap_or(128_000));
        Ok(ClipConfig {
            picture,
            sample,
            fps: raw.fps,
            num_frames: raw
                .num_frames
                .map(|n| self.within("num_frames", n, 1..=1 << 20))
                .transpose()?,
            min_frames: raw.min_frames.unwrap_or(4),
            max_frames: self.within("max_frames", raw.max_frames.unwrap_or(768), 1..=1 << 20)?,
            shared_tokens: shared
                .map(|n| self.within("max_video_tokens", n, 1..=1 << 30))
                .transpose()?,
        })
    }

    fn sound(&self) -> Result<SoundConfig, ProcessorError> {
        let raw: RawSound = typed(self.value, self.path, self.prefix)?;
        if raw.dither.is_some_and(|dither| dither != 0.0) {
            return Err(self.fail(
                "dither",
                "adds noise, which is not supported; set it to 0.0",
            ));
        }
        if raw.padding_value.is_some_and(|value| value != 0.0) {
            return Err(self.fail("padding_value", "must be 0.0"));
        }
        if raw
            .padding_side
            .as_deref()
            .is_some_and(|side| side != "right")
        {
            return Err(self.fail("padding_side", "must be `right`"));
        }
        let sampling_rate = raw.sampling_rate.unwrap_or(16_000);
        if sampling_rate != 16_000 {
            return Err(self.fail(
                "sampling_rate",
                format!("is {sampling_rate}, and sounds come at 16000"),
            ));
        }
        let chunk = self.within("chunk_length", raw.chunk_length.unwrap_or(30), 1..=3600)?;
        let n_fft = self.within("n_fft", raw.n_fft.unwrap_or(400), 16..=sampling_rate)?;
        Ok(SoundConfig {
            mels: self.within("feature_size", raw.feature_size.unwrap_or(80), 1..=1024)?,
            sampling_rate,
            hop: self.within(
                "hop_length",
                raw.hop_length.unwrap_or(160),
                16..=sampling_rate,
            )?,
            n_fft,
            max_samples: chunk * sampling_rate,
        })
    }
}

/// Reads the settings of all three processors from a model directory.
pub(crate) fn load(dir: &Path) -> Result<MediaConfig, ProcessorError> {
    let read = |name: &str| -> Result<(PathBuf, Option<Value>), ProcessorError> {
        let path = dir.join(name);
        let value = read_json(&path)?;
        Ok((path, value))
    };
    let nested = read("processor_config.json")?;
    let flat = read("preprocessor_config.json")?;
    let clip = read("video_preprocessor_config.json")?;
    let find = |key: &'static str,
                files: &[&'_ (PathBuf, Option<Value>)]|
     -> Option<(Value, PathBuf, &'static str)> {
        let inner = nested.1.as_ref().and_then(|value| lookup(value, key));
        inner
            .map(|value| (value.clone(), nested.0.clone(), key))
            .or_else(|| {
                files
                    .iter()
                    .find_map(|(path, value)| value.clone().map(|value| (value, path.clone(), "")))
            })
    };
    let missing = |what: &str| ProcessorError::MissingFile {
        path: flat.0.clone(),
        wanted: format!("the {what} settings are there, or in processor_config.json"),
    };
    let (value, path, prefix) =
        find("image_processor", &[&flat]).ok_or_else(|| missing("image"))?;
    let image = Section {
        value: &value,
        path: &path,
        prefix,
    }
    .picture(IMAGE_BOUNDS)?;
    let (value, path, prefix) =
        find("video_processor", &[&clip, &flat]).ok_or_else(|| missing("video"))?;
    let video = Section {
        value: &value,
        path: &path,
        prefix,
    }
    .clip()?;
    let sound = find("feature_extractor", &[&flat])
        .filter(|(value, _, _)| lookup(value, "feature_size").is_some());
    let audio = sound
        .map(|(value, path, prefix)| {
            Section {
                value: &value,
                path: &path,
                prefix,
            }
            .sound()
        })
        .transpose()?;
    Ok(MediaConfig {
        image,
        video,
        audio,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> Result<MediaConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        load(dir.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_old_file_serves_all_kinds() {
        let old = r#"{"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "feature_size": 128,
                      "chunk_length": 300, "size": {"shortest_edge": 5, "longest_edge": 6}}"#;
        let config = with(&[("preprocessor_config.json", old)]).unwrap();
        assert_eq!(
            config.image.bounds,
            PixelBounds {
                min: 3136,
                max: 12_845_056
            }
        );
        assert_eq!(config.video.picture.bounds, config.image.bounds);
        assert_eq!(config.audio.unwrap().max_samples, 4_800_000);
        assert!(!config.video.sample);
    }

    #[test]
    fn defaults_differ_between_pictures_and_frames() {
        let config = with(&[("preprocessor_config.json", "{}")]).unwrap();
        assert_eq!(config.image.bounds, IMAGE_BOUNDS);
        assert_eq!(config.video.picture.bounds, FRAME_BOUNDS);
        assert_eq!(config.audio, None);
    }

    #[test]
    fn nested_settings_win_over_the_files_beside_them() {
        let nested = r#"{"image_processor": {"patch_size": 16}, "video_processor": {"fps": 2, "do_sample_frames": true}}"#;
        let flat = r#"{"patch_size": 8, "merge_size": 4}"#;
        let config = with(&[
            ("processor_config.json", nested),
            ("preprocessor_config.json", flat),
        ])
        .unwrap();
        assert_eq!((config.image.patch, config.image.merge), (16, 2));
        assert!(config.video.sample);
        let config = with(&[
            ("video_preprocessor_config.json", r#"{"patch_size": 10}"#),
            ("preprocessor_config.json", flat),
        ]);
        assert_eq!(config.unwrap().video.picture.patch, 10);
    }

    #[test]
    fn errors_name_file_key_and_limit() {
        let cases = [
            (
                r#"{"patch_size": "14"}"#,
                "preprocessor_config.json: patch_size: invalid type: string",
            ),
            (
                r#"{"patch_size": 0}"#,
                "patch_size: is 0, and must be from 1 to 256",
            ),
            (r#"{"resample": 1}"#, "resample: is 1; known are 2"),
            (r#"{"image_mean": [1, 2]}"#, "image_mean: invalid length 2"),
            (
                r#"{"image_std": [1, 0, 1]}"#,
                "image_std: must have no zero",
            ),
            (
                r#"{"min_pixels": 9, "max_pixels": 8}"#,
                "size: allows from 9 to 8 pixels",
            ),
            (
                r#"{"feature_size": 128, "dither": 0.1}"#,
                "dither: adds noise",
            ),
            (
                r#"{"feature_size": 128, "sampling_rate": 8000}"#,
                "sampling_rate: is 8000",
            ),
            (
                r#"{"do_sample_frames": true}"#,
                "exactly one of fps and num_frames",
            ),
            ("[]", "must be a JSON object"),
            ("{", "not valid JSON"),
        ];
        for (text, wanted) in cases {
            let error = with(&[("preprocessor_config.json", text)]).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        assert!(
            with(&[])
                .unwrap_err()
                .contains("preprocessor_config.json: not found")
        );
    }
}
