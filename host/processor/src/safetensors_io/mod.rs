//! [`ModelInputs`] in a safetensors file, named as Hugging Face's processors name them.
//!
//! | tensor | type written | shape |
//! |---|---|---|
//! | `input_ids`, `attention_mask` | i64 | `[1, L]` |
//! | `pixel_values`, `pixel_values_videos` | f32 | `[patches, values in a patch]` |
//! | `image_grid_thw`, `video_grid_thw` | i64 | `[items, 3]` |
//! | `second_per_grid_ts` (Omni: `video_second_per_grid`) | f32 | `[clips]` |
//! | `input_features` | f32 | `[sounds, mel bins, frames]` |
//! | `feature_attention_mask` | i32 | `[sounds, frames]` |
//!
//! Reading takes any integer or floating type in their place, `[L]` for `[1, L]`, either name of the seconds, and
//! ignores other tensors.

use std::borrow::Cow;
use std::path::Path;

use msao_core::inputs::{Grid, ModelInputs};
use safetensors::tensor::{Dtype, View};

use crate::error::ProcessorError;
use crate::family::Family;

mod read;

pub use self::read::{MAX_FILE_BYTES, read};

/// Both names of the seconds that a temporal patch of a clip spans.
const SECONDS: [&str; 2] = ["second_per_grid_ts", "video_second_per_grid"];

/// A tensor to be written; turned into bytes only when its turn comes.
enum Tensor<'a> {
    I64(Vec<usize>, Vec<i64>),
    I32(Vec<usize>, Vec<i32>),
    F32(Vec<usize>, &'a [f32]),
}

impl View for Tensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Tensor::I64(..) => Dtype::I64,
            Tensor::I32(..) => Dtype::I32,
            Tensor::F32(..) => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Tensor::I64(shape, _) | Tensor::I32(shape, _) | Tensor::F32(shape, _) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Tensor::I64(_, values) => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Tensor::I32(_, values) => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Tensor::F32(_, values) => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Tensor::I64(_, values) => values.len() * 8,
            Tensor::I32(_, values) => values.len() * 4,
            Tensor::F32(_, values) => values.len() * 4,
        }
    }
}

fn grids_tensor(grids: &[Grid]) -> Tensor<'static> {
    let values = grids
        .iter()
        .flat_map(|grid| [grid.t as i64, grid.h as i64, grid.w as i64])
        .collect();
    Tensor::I64(vec![grids.len(), 3], values)
}

/// Writes the inputs of one prompt under the names that the family's processor gives them.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, inputs: &ModelInputs, family: Family) -> Result<(), ProcessorError> {
    let length = inputs.input_ids.len();
    let ids = inputs.input_ids.iter().map(|&id| i64::from(id)).collect();
    let mut tensors = vec![
        ("input_ids", Tensor::I64(vec![1, length], ids)),
        (
            "attention_mask",
            Tensor::I64(vec![1, length], vec![1; length]),
        ),
    ];
    let pictures = [
        (&inputs.images, "pixel_values", "image_grid_thw"),
        (&inputs.videos, "pixel_values_videos", "video_grid_thw"),
    ];
    for (patches, values_name, grids_name) in pictures {
        if let Some(patches) = patches {
            tensors.push((
                values_name,
                Tensor::F32(patches.values.shape.clone(), &patches.values.data),
            ));
            tensors.push((grids_name, grids_tensor(&patches.grids)));
        }
    }
    let seconds = &inputs.second_per_grid_ts;
    if !seconds.is_empty() {
        tensors.push((
            family.rules().seconds_name(),
            Tensor::F32(vec![seconds.len()], seconds),
        ));
    }
    if let Some(mels) = &inputs.audio {
        let frames = mels.features.shape.last().copied().unwrap_or(0);
        let mask = mels
            .valid_frames
            .iter()
            .flat_map(|&valid| (0..frames).map(move |frame| i32::from(frame < valid)));
        tensors.push((
            "input_features",
            Tensor::F32(mels.features.shape.clone(), &mels.features.data),
        ));
        tensors.push((
            "feature_attention_mask",
            Tensor::I32(vec![mels.valid_frames.len(), frames], mask.collect()),
        ));
    }
    safetensors::serialize_to_file(tensors, None, path).map_err(|error| ProcessorError::Tensor {
        path: path.to_owned(),
        tensor: ".".to_owned(),
        message: format!("cannot be written: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use msao_core::inputs::{Array, Mels, Patches};
    use safetensors::SafeTensors;

    use super::*;

    fn inputs() -> ModelInputs {
        let patches = |t: usize| Patches {
            values: Array {
                shape: vec![t * 4, 3],
                data: (0..t * 12).map(|i| i as f32 / 7.0).collect(),
            },
            grids: vec![Grid { t, h: 2, w: 2 }],
        };
        ModelInputs {
            input_ids: vec![1, 2, 151_655],
            images: Some(patches(1)),
            videos: Some(patches(2)),
            second_per_grid_ts: vec![0.5],
            audio: Some(Mels {
                features: Array {
                    shape: vec![2, 2, 3],
                    data: (0..12).map(|i| i as f32).collect(),
                },
                valid_frames: vec![3, 1],
            }),
            whole: None,
        }
    }

    fn put(path: &Path, tensors: Vec<(&str, Tensor)>) {
        safetensors::serialize_to_file(tensors, None, path).unwrap();
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        for (family, seconds) in [
            (Family::Qwen2_5Vl, SECONDS[0]),
            (Family::Qwen2_5Omni, SECONDS[1]),
        ] {
            let path = dir.path().join("x.safetensors");
            write(&path, &inputs(), family).unwrap();
            assert_eq!(read(&path).unwrap(), inputs());
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                SafeTensors::deserialize(&bytes)
                    .unwrap()
                    .tensor(seconds)
                    .is_ok()
            );
        }
    }

    #[test]
    fn other_integer_types_and_a_flat_prompt_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        put(
            &path,
            vec![
                ("input_ids", Tensor::I32(vec![2], vec![5, 6])),
                ("rope_deltas", Tensor::I32(vec![1], vec![9])),
            ],
        );
        assert_eq!(read(&path).unwrap().input_ids, [5, 6]);
    }

    #[test]
    fn errors_name_the_file_the_tensor_and_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        let values = [0.0; 12];
        let ids = || ("input_ids", Tensor::I64(vec![1, 2], vec![1, 2]));
        let cases = [
            (
                vec![("other", Tensor::I64(vec![1], vec![1]))],
                "input_ids: is missing; i64 [1, L]",
            ),
            (
                vec![("input_ids", Tensor::I64(vec![2, 1], vec![1, 2]))],
                "has the shape [2, 1], and [1, L]",
            ),
            (
                vec![("input_ids", Tensor::F32(vec![1], &[1.0]))],
                "has the type F32, and an integer",
            ),
            (
                vec![("input_ids", Tensor::I64(vec![1], vec![-100]))],
                "-100 is no token id",
            ),
            (
                vec![
                    ids(),
                    ("attention_mask", Tensor::I64(vec![1, 2], vec![0, 1])),
                ],
                "must be 2 ones",
            ),
            (
                vec![ids(), ("pixel_values", Tensor::F32(vec![4, 3], &values))],
                "image_grid_thw: is missing",
            ),
            (
                vec![
                    ids(),
                    ("pixel_values", Tensor::F32(vec![4, 3], &values)),
                    ("image_grid_thw", Tensor::I64(vec![1, 3], vec![1, 2, 3])),
                ],
                "pixel_values: has the shape [4, 3], and [6, values in a patch]",
            ),
            (
                vec![
                    ids(),
                    ("pixel_values", Tensor::F32(vec![4, 3], &values)),
                    (
                        "image_grid_thw",
                        Tensor::I64(vec![1, 3], vec![i64::MAX, 2, 3]),
                    ),
                ],
                "is too large",
            ),
            (
                vec![ids(), ("second_per_grid_ts", Tensor::F32(vec![1], &[1.0]))],
                "[0], one for each clip",
            ),
            (
                vec![
                    ids(),
                    ("input_features", Tensor::F32(vec![1, 4, 3], &values)),
                    (
                        "feature_attention_mask",
                        Tensor::I32(vec![1, 3], vec![1, 0, 1]),
                    ),
                ],
                "ones and then zeros",
            ),
        ];
        for (tensors, wanted) in cases {
            put(&path, tensors);
            let error = read(&path).unwrap_err().to_string();
            assert!(
                error.contains("x.safetensors: ") && error.contains(wanted),
                "{error}"
            );
        }
        std::fs::write(&path, b"\xff\xff\xff\xff\xff\xff\xff\xff").unwrap();
        assert!(
            read(&path)
                .unwrap_err()
                .to_string()
                .contains("not a safetensors file")
        );
        assert!(
            read(&dir.path().join("no"))
                .unwrap_err()
                .to_string()
                .contains("not found")
        );
    }
}
