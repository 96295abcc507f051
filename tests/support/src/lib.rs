//! Reading the golden vectors of `tests/golden` (see its README), for tests and for the prover.
//!
//! Only this repository's own files are read: where one is missing or malformed the checkout is broken, and a panic
//! that names it is the right answer.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod pruned;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use msao_core::chat::Message;
use msao_core::inputs::{Grid, Patches};
use msao_media::{AudioClip, Limits, RgbImage, VideoClip, VideoInfo, decode_audio, decode_image};
use msao_processor::{
    Media, Options, PictureConfig, PixelBounds, Prepared, Processor, VideoSampling,
};
use safetensors::SafeTensors;
use serde_json::Value;

pub use pruned::{Pattern, Pruned, Seen, pruned};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden")
}

pub fn json(path: &str) -> Value {
    serde_json::from_slice(&stored(&root().join(path)).unwrap()).unwrap()
}

/// What `file` holds. Large files are kept packed by zstd, as `file.zst`: that one is unpacked where `file` itself is not
/// there.
///
/// # Errors
/// Neither is there, the one that is cannot be read, or what is packed is damaged.
pub fn stored(file: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut packed = file.as_os_str().to_owned();
            packed.push(".zst");
            zstd::decode_all(File::open(packed)?)
        }
        read => read,
    }
}

/// The tensors of one file, which is kept packed; panics name the tensor.
pub struct Tensors(Vec<u8>);

impl Tensors {
    pub fn read(path: &str) -> Self {
        Self(stored(&root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}")))
    }

    fn view(&self, name: &str) -> Option<(Vec<usize>, Vec<u8>)> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).ok()?;
        Some((view.shape().to_vec(), view.data().to_vec()))
    }

    pub fn u8(&self, name: &str) -> Option<(Vec<usize>, Vec<u8>)> {
        self.view(name)
    }

    pub fn i64(&self, name: &str) -> Option<Vec<i64>> {
        let (_, data) = self.view(name)?;
        Some(
            data.as_chunks()
                .0
                .iter()
                .map(|&bytes| i64::from_le_bytes(bytes))
                .collect(),
        )
    }

    pub fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, data) = self
            .view(name)
            .unwrap_or_else(|| panic!("no tensor {name}"));
        (
            shape,
            data.as_chunks()
                .0
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect(),
        )
    }

    pub fn grids(&self, name: &str) -> Option<Vec<Grid>> {
        let sides: Vec<usize> = self
            .i64(name)?
            .into_iter()
            .map(|side| side as usize)
            .collect();
        Some(
            sides
                .as_chunks()
                .0
                .iter()
                .map(|&[t, h, w]| Grid { t, h, w })
                .collect(),
        )
    }
}

pub fn picture(path: &str) -> RgbImage {
    decode_image(
        &std::fs::read(root().join(path)).unwrap(),
        &Limits::default(),
    )
    .unwrap()
}

pub fn sound(path: &str) -> AudioClip {
    decode_audio(
        &std::fs::read(root().join(path)).unwrap(),
        &Limits::default(),
    )
    .unwrap()
}

/// Those frames of a stored stack.
pub fn clip(path: &str, fps: f64, indices: &[usize]) -> VideoClip {
    let (shape, data) = Tensors::read(path).u8("frames").unwrap();
    let &[frames, height, width, 3] = shape.as_slice() else {
        panic!("{path}: {shape:?}")
    };
    let info = VideoInfo {
        width: width as u32,
        height: height as u32,
        frames,
        fps,
    };
    let stack: Vec<&[u8]> = data.chunks_exact(height * width * 3).collect();
    let take = |&index: &usize| RgbImage {
        width: info.width,
        height: info.height,
        data: stack[index].to_vec(),
    };
    VideoClip {
        info,
        frames: indices.iter().map(take).collect(),
        indices: indices.to_vec(),
    }
}

/// Every case that does not interleave a clip with its sound, by path without extension.
pub fn cases() -> Vec<(String, Value)> {
    let mut out = Vec::new();
    for model in std::fs::read_dir(root().join("cases")).unwrap() {
        for file in std::fs::read_dir(model.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let relative = path.strip_prefix(root()).unwrap().with_extension("");
                let relative = relative.to_str().unwrap().to_owned();
                let case = json(&format!("{relative}.json"));
                if !case["use_audio_in_video"].as_bool().unwrap() {
                    out.push((relative, case));
                }
            }
        }
    }
    assert!(out.len() > 30, "golden cases are missing");
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

/// The messages of a case, with `image_url` parts in Hugging Face's form.
pub fn messages(case: &Value) -> Vec<Message> {
    let mut messages = case["messages"].clone();
    for message in messages.as_array_mut().unwrap() {
        for part in message["content"].as_array_mut().into_iter().flatten() {
            if part["type"] == "image_url" {
                *part = serde_json::json!({"type": "image", "image": part["image_url"]["url"]});
            }
        }
    }
    serde_json::from_value(messages).unwrap()
}

/// The media of a case in the order of the messages' parts.
pub fn media(case: &Value, messages: &[Message], processor: &Processor) -> Vec<Media> {
    let clip_of = |path: &str| {
        let listed = case["videos"].as_array().unwrap();
        let known = listed.iter().find(|video| video["path"] == path).unwrap();
        let fps = known["fps"].as_f64().unwrap();
        let info = VideoInfo {
            width: known["width"].as_u64().unwrap() as u32,
            height: known["height"].as_u64().unwrap() as u32,
            frames: known["frames"].as_u64().unwrap() as usize,
            fps,
        };
        let indices = processor.frames_to_sample(&info).unwrap();
        assert_eq!(
            serde_json::json!(indices),
            known["frame_indices"],
            "sampled frames of {path}"
        );
        clip(path, fps, &indices)
    };
    let parts = messages.iter().flat_map(Message::parts);
    let load = |part: msao_core::chat::Part| {
        use msao_core::chat::Part;
        match part {
            Part::Text { .. } => None,
            Part::Image { image } => Some(Media::Image(picture(&image))),
            Part::Video { video } => Some(Media::Video(clip_of(&video))),
            Part::Audio { audio } => Some(Media::Audio(sound(&audio))),
        }
    };
    parts.filter_map(load).collect()
}

/// The options that the case was made with.
pub fn options(case: &Value) -> Options {
    let rate = case["videos"]
        .as_array()
        .unwrap()
        .first()
        .and_then(|video| video["sample_fps"].as_f64());
    let bounds = |kind: &str| PixelBounds {
        min: case["pixels"][kind]["min_pixels"].as_u64().unwrap() as usize,
        max: case["pixels"][kind]["max_pixels"].as_u64().unwrap() as usize,
    };
    // Omni's own processor would not take the bounds of the files for clips; the cases pass them.
    let frame_bounds = (case["family"] == "qwen2_5_omni").then(|| bounds("video"));
    Options {
        sampling: rate.map_or(VideoSampling::Model, VideoSampling::Fps),
        frame_bounds,
        ..Options::default()
    }
}

/// Patches back to 8-bit values `[N, 3, T, P, P]`, and how far the values are from those that the bytes stand for,
/// before normalisation (0 to 1).
pub fn bytes_of(patches: &Patches, config: &PictureConfig) -> (Vec<u8>, f32) {
    let (mean, std) = config.normalize.unwrap();
    let plane = config.temporal_patch * config.patch * config.patch;
    let mut worst = 0.0_f32;
    let bytes = patches
        .values
        .data
        .chunks_exact(plane)
        .enumerate()
        .flat_map(|(n, values)| {
            let (mean, std) = (mean[n % 3] as f32, std[n % 3] as f32);
            let bytes: Vec<u8> = values
                .iter()
                .map(|value| {
                    let colour = value * std + mean;
                    let byte = (colour * 255.0).round();
                    worst = worst.max((colour - byte / 255.0).abs());
                    byte as u8
                })
                .collect();
            bytes
        });
    let bytes = bytes.collect();
    (bytes, worst)
}

/// One case, prepared by our own processor, with what the reference computed for it.
pub struct Case {
    /// `model/case`.
    pub name: String,
    pub prepared: Prepared,
    /// The reference's `[3, L]`.
    pub position_ids: [Vec<i64>; 3],
    pub rope_delta: i64,
    /// Rows of the reference's logits, one for each of `logits_positions`.
    pub logits: Vec<f32>,
    pub logits_positions: Vec<usize>,
    /// The reference's greedy continuation.
    pub greedy_tokens: Vec<u32>,
}

/// The golden checkpoints, by name.
pub fn models() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(root().join("models"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The processor of a golden checkpoint, set as the case was made.
pub fn processor_for(case: &Value) -> Processor {
    let model = case["model"].as_str().unwrap();
    let processor = Processor::load(&root().join("models").join(model)).unwrap();
    processor.with_options(options(case))
}

/// The cases of one checkpoint.
pub fn cases_of(model: &str) -> Vec<Case> {
    let all = cases()
        .into_iter()
        .filter(|(_, case)| case["model"] == model);
    all.map(|(path, case)| {
        let expected = Tensors::read(&format!("{path}.safetensors"));
        let processor = processor_for(&case);
        let messages = messages(&case);
        let media = media(&case, &messages, &processor);
        let positions = expected.i64("position_ids").unwrap();
        let length = positions.len() / 3;
        let axis = |i: usize| positions[i * length..(i + 1) * length].to_vec();
        Case {
            name: format!("{model}/{}", case["case"].as_str().unwrap()),
            prepared: processor.prepare(&messages, &media).unwrap(),
            position_ids: [axis(0), axis(1), axis(2)],
            rope_delta: case["rope_delta"].as_i64().unwrap(),
            logits: expected.f32("logits").1,
            logits_positions: expected
                .i64("logits_positions")
                .unwrap()
                .into_iter()
                .map(|position| position as usize)
                .collect(),
            greedy_tokens: expected
                .i64("greedy_tokens")
                .unwrap()
                .into_iter()
                .map(|id| id as u32)
                .collect(),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_it_is_or_packed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("words.json");
        let packed = dir.path().join("words.json.zst");
        let error = stored(&file).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);

        std::fs::write(&packed, zstd::encode_all(&b"packed"[..], 3).unwrap()).unwrap();
        assert_eq!(stored(&file).unwrap(), b"packed");

        // What somebody has put there unpacked is what they mean.
        std::fs::write(&file, "plain").unwrap();
        assert_eq!(stored(&file).unwrap(), b"plain");
    }

    #[test]
    fn a_packed_file_that_is_cut_short_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let whole = zstd::encode_all(&[7_u8; 1000][..], 3).unwrap();
        let packed = dir.path().join("words.json.zst");
        std::fs::write(packed, &whole[..whole.len() - 1]).unwrap();
        assert!(stored(&dir.path().join("words.json")).is_err());
    }
}
