//! Reads the golden cases: inputs as the reference's processor made them and what the reference computed.

use std::path::{Path, PathBuf};

use msao_core::inputs::{Array, Grid, ModelInputs, Patches};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// CLIP's normalisation, which all three families use; the goldens store pixels before it.
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
const STD: [f32; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];

/// One prompt with what the reference made of it.
pub struct Case {
    pub model: String,
    pub name: String,
    pub inputs: ModelInputs,
    pub position_ids: [Vec<i64>; 3],
    pub rope_delta: i64,
    pub logits: Vec<f32>,
    pub logits_positions: Vec<usize>,
    pub greedy_tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct Description {
    model: String,
    case: String,
    #[serde(default)]
    use_audio_in_video: bool,
    #[serde(default)]
    audios: Vec<Sound>,
    second_per_grid: Option<Vec<f32>>,
    rope_delta: i64,
}

#[derive(Deserialize)]
struct Sound {
    path: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

pub fn checkpoint(name: &str) -> PathBuf {
    root().join("models").join(name)
}

/// Every case, in the order of their paths.
pub fn cases() -> Vec<Case> {
    let mut found = Vec::new();
    for model in sorted(&root().join("cases")) {
        for file in sorted(&model) {
            if file
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                found.extend(read(&file));
            }
        }
    }
    found
}

fn sorted(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn read(file: &Path) -> Option<Case> {
    let description: Description =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    if description.use_audio_in_video || !description.audios.is_empty() {
        // Sound taken from a clip's own track, interleaved with its frames, is not supported.
        return None;
    }
    let bytes = std::fs::read(file.with_extension("safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let positions = integers(&tensors, "position_ids");
    let length = positions.len() / 3;
    let axis = |i: usize| positions[i * length..(i + 1) * length].to_vec();
    let ids = |name: &str| {
        integers(&tensors, name)
            .into_iter()
            .map(|id| id as u32)
            .collect()
    };
    Some(Case {
        inputs: ModelInputs {
            input_ids: ids("input_ids"),
            images: patches(&tensors, "pixel_values_u8", "image_grid_thw"),
            videos: patches(&tensors, "pixel_values_videos_u8", "video_grid_thw"),
            second_per_grid_ts: description.second_per_grid.clone().unwrap_or_default(),
            audio: mels(&description),
        },
        position_ids: [axis(0), axis(1), axis(2)],
        rope_delta: description.rope_delta,
        logits: floats(&tensors, "logits"),
        logits_positions: integers(&tensors, "logits_positions")
            .into_iter()
            .map(|p| p as usize)
            .collect(),
        greedy_tokens: ids("greedy_tokens"),
        model: description.model,
        name: description.case,
    })
}

fn mels(description: &Description) -> Option<msao_core::inputs::Mels> {
    if description.audios.is_empty() {
        return None;
    }
    unimplemented!()
}

fn integers(tensors: &SafeTensors, name: &str) -> Vec<i64> {
    let view = tensors.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::I64, "{name}");
    view.data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn floats(tensors: &SafeTensors, name: &str) -> Vec<f32> {
    let view = tensors.tensor(name).unwrap();
    assert_eq!(view.dtype(), Dtype::F32, "{name}");
    view.data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// `[n, 3, t, p, p]` bytes, `t` being 1 where the second frame repeats the first, to normalised flat patches.
fn patches(tensors: &SafeTensors, name: &str, grid: &str) -> Option<Patches> {
    let view = tensors.tensor(name).ok()?;
    let &[rows, 3, frames, height, width] = view.shape() else {
        panic!("{name}: {:?}", view.shape())
    };
    let grids: Vec<Grid> = integers(tensors, grid)
        .chunks(3)
        .map(|g| Grid {
            t: g[0] as usize,
            h: g[1] as usize,
            w: g[2] as usize,
        })
        .collect();
    let plane = height * width;
    let mut data = Vec::new();
    for patch in view.data().chunks_exact(3 * frames * plane) {
        for (channel, pixels) in patch.chunks_exact(frames * plane).enumerate() {
            let normal = pixels
                .iter()
                .map(|&p| (f32::from(p) - MEAN[channel] * 255.0) / (STD[channel] * 255.0));
            let normal: Vec<f32> = normal.collect();
            for _ in 0..2 / frames {
                data.extend_from_slice(&normal);
            }
        }
    }
    Some(Patches {
        values: Array {
            shape: vec![rows, 3 * 2 * plane],
            data,
        },
        grids,
    })
}
