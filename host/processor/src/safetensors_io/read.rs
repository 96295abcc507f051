//! Reading model inputs, whoever wrote them.

use std::path::Path;

use msao_core::inputs::{Array, Grid, Mels, ModelInputs, Patches};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::SECONDS;
use crate::error::ProcessorError;
use crate::files::read_required;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 8 << 30;

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
        whole: None,
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
