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

use msao_core::inputs::{Array, Grid, Mels, ModelInputs, Patches};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};

use crate::error::ProcessorError;
use crate::family::Family;
use crate::files::read_required;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 8 << 30;

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

/// Reads the inputs of one prompt.
///
/// # Errors
/// If the file cannot be read, is larger than [`MAX_FILE_BYTES`], or a tensor is missing or malformed: the error
/// names the file, the tensor, and the type or shape wanted.
pub fn read(path: &Path) -> Result<ModelInputs, ProcessorError> {
    let bytes = read_required(path, MAX_FILE_BYTES, "it is to hold the inputs of a model")?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| ProcessorError::Tensor {
        path: path.to_owned(),
        tensor: ".".to_owned(),
        message: format!("not a safetensors file: {error}"),
    })?;
    let reader = Reader { file, path };
    let videos = reader.patches("pixel_values_videos", "video_grid_thw")?;
    Ok(ModelInputs {
        input_ids: reader.ids()?,
        images: reader.patches("pixel_values", "image_grid_thw")?,
        second_per_grid_ts: reader
            .seconds(videos.as_ref().map_or(0, |videos| videos.grids.len()))?,
        videos,
        audio: reader.mels()?,
    })
}

struct Reader<'a> {
    file: SafeTensors<'a>,
    path: &'a Path,
}

impl<'a> Reader<'a> {
    fn fail(&self, tensor: &str, message: impl Into<String>) -> ProcessorError {
        ProcessorError::Tensor {
            path: self.path.to_owned(),
            tensor: tensor.to_owned(),
            message: message.into(),
        }
    }

    fn find(&self, name: &str) -> Option<TensorView<'a>> {
        self.file.tensor(name).ok()
    }

    fn wants(&self, name: &str, view: &TensorView, wanted: &str) -> ProcessorError {
        self.fail(
            name,
            format!("has the shape {:?}, and {wanted} is wanted", view.shape()),
        )
    }

    fn integers(&self, name: &str, view: &TensorView) -> Result<Vec<i64>, ProcessorError> {
        let data = view.data();
        Ok(match view.dtype() {
            Dtype::I64 => data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| i64::from_le_bytes(bytes))
                .collect(),
            Dtype::I32 => data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| i64::from(i32::from_le_bytes(bytes)))
                .collect(),
            Dtype::U32 => data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| i64::from(u32::from_le_bytes(bytes)))
                .collect(),
            Dtype::I16 => data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| i64::from(i16::from_le_bytes(bytes)))
                .collect(),
            Dtype::U8 | Dtype::BOOL => data.iter().map(|&byte| i64::from(byte)).collect(),
            other => {
                return Err(self.fail(
                    name,
                    format!("has the type {other:?}, and an integer type is wanted"),
                ));
            }
        })
    }

    fn floats(&self, name: &str, view: &TensorView) -> Result<Vec<f32>, ProcessorError> {
        let data = view.data();
        Ok(match view.dtype() {
            Dtype::F32 => data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes))
                .collect(),
            Dtype::F64 => data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| f64::from_le_bytes(bytes) as f32)
                .collect(),
            Dtype::F16 => data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| half::f16::from_le_bytes(bytes).to_f32())
                .collect(),
            Dtype::BF16 => data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| half::bf16::from_le_bytes(bytes).to_f32())
                .collect(),
            other => {
                return Err(self.fail(
                    name,
                    format!("has the type {other:?}, and a floating type is wanted"),
                ));
            }
        })
    }

    fn ids(&self) -> Result<Vec<u32>, ProcessorError> {
        let name = "input_ids";
        let view = self
            .find(name)
            .ok_or_else(|| self.fail(name, "is missing; i64 [1, L] is wanted"))?;
        if !matches!(view.shape(), [_] | [1, _]) {
            return Err(self.wants(name, &view, "[1, L]"));
        }
        let ids = self.integers(name, &view)?;
        if let Some(mask) = self.find("attention_mask") {
            let values = self.integers("attention_mask", &mask)?;
            if values.len() != ids.len() || values.iter().any(|&value| value != 1) {
                let message = format!(
                    "must be {} ones: a prompt is given without padding",
                    ids.len()
                );
                return Err(self.fail("attention_mask", message));
            }
        }
        let checked = ids.iter().map(|&id| {
            u32::try_from(id).map_err(|_| self.fail(name, format!("{id} is no token id")))
        });
        checked.collect()
    }

    fn patches(
        &self,
        values_name: &str,
        grids_name: &str,
    ) -> Result<Option<Patches>, ProcessorError> {
        let (values, grids) = match (self.find(values_name), self.find(grids_name)) {
            (None, None) => return Ok(None),
            (Some(values), Some(grids)) => (values, grids),
            (Some(_), None) => {
                return Err(self.fail(
                    grids_name,
                    format!("is missing, and {values_name} is there"),
                ));
            }
            (None, Some(_)) => {
                return Err(self.fail(
                    values_name,
                    format!("is missing, and {grids_name} is there"),
                ));
            }
        };
        let &[_, 3] = grids.shape() else {
            return Err(self.wants(grids_name, &grids, "[items, 3]"));
        };
        let mut rows = 0_usize;
        let mut parsed = Vec::new();
        for triple in self.integers(grids_name, &grids)?.as_chunks().0 {
            let [t, h, w]: [Option<usize>; 3] =
                triple.map(|side| usize::try_from(side).ok().filter(|&side| side > 0));
            let grid = t.zip(h).zip(w).map(|((t, h), w)| Grid { t, h, w });
            let grid = grid.ok_or_else(|| {
                self.fail(
                    grids_name,
                    format!("{triple:?} is no grid; sides are above 0"),
                )
            })?;
            let patches = grid
                .t
                .checked_mul(grid.h)
                .and_then(|area| area.checked_mul(grid.w));
            let sum = patches.and_then(|patches| rows.checked_add(patches));
            rows = sum.ok_or_else(|| self.fail(grids_name, format!("{triple:?} is too large")))?;
            parsed.push(grid);
        }
        match *values.shape() {
            [given, _] if given == rows => {}
            _ => {
                let wanted = format!(
                    "[{rows}, values in a patch], as many rows as {grids_name} has patches,"
                );
                return Err(self.wants(values_name, &values, &wanted));
            }
        }
        let array = Array {
            shape: values.shape().to_vec(),
            data: self.floats(values_name, &values)?,
        };
        Ok(Some(Patches {
            values: array,
            grids: parsed,
        }))
    }

    fn seconds(&self, clips: usize) -> Result<Vec<f32>, ProcessorError> {
        let Some((name, view)) = SECONDS
            .into_iter()
            .find_map(|name| self.find(name).map(|view| (name, view)))
        else {
            return Ok(Vec::new());
        };
        if view.shape() != [clips] {
            return Err(self.wants(name, &view, &format!("[{clips}], one for each clip,")));
        }
        self.floats(name, &view)
    }

    fn mels(&self) -> Result<Option<Mels>, ProcessorError> {
        let (name, mask_name) = ("input_features", "feature_attention_mask");
        let Some(features) = self.find(name) else {
            return Ok(None);
        };
        let &[sounds, _, frames] = features.shape() else {
            return Err(self.wants(name, &features, "[sounds, mel bins, frames]"));
        };
        let mask = self
            .find(mask_name)
            .ok_or_else(|| self.fail(mask_name, format!("is missing, and {name} is there")))?;
        if mask.shape() != [sounds, frames] {
            return Err(self.wants(mask_name, &mask, &format!("[{sounds}, {frames}]")));
        }
        let values = self.integers(mask_name, &mask)?;
        let mut valid_frames = Vec::with_capacity(sounds);
        for row in values.chunks(frames.max(1)) {
            let valid = row.iter().take_while(|&&value| value == 1).count();
            if row.iter().skip(valid).any(|&value| value != 0) {
                return Err(self.fail(
                    mask_name,
                    "each row must be ones and then zeros: padding is on the right",
                ));
            }
            valid_frames.push(valid);
        }
        let features = Array {
            shape: features.shape().to_vec(),
            data: self.floats(name, &features)?,
        };
        Ok(Some(Mels {
            features,
            valid_frames,
        }))
    }
}

#[cfg(test)]
mod tests {
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
