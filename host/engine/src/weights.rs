//! The tensors of a checkpoint directory: single or sharded safetensors, memory-mapped, copied out one at a time.
//!
//! Tensors are copied rather than used in place: the file may be replaced or cut short while the model lives, and
//! huge pages cannot back a file mapping. The mapping's pages are the file's own, so loading holds the weights once.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memmap2::Mmap;
use msao_kernels::{Element, Format, PackedMatrix};
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

use crate::error::{EngineError, Result};
use crate::quantized::Quantized;

/// How matrices are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// As tensors of the weights' kind, an encoder's: multiplied with hundreds of rows.
    Encoder,
    /// As tensors of the weights' kind.
    Plain,
    /// In the order of our own kernels.
    Packed(Format),
    /// As 8-bit integers, for libtorch.
    Quantized,
}

/// One memory-mapped safetensors file.
struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// A checkpoint's tensors by name, to be copied out as `kind` on `device`.
pub struct Weights {
    shards: Vec<Shard>,
    entries: HashMap<String, Entry>,
    kind: Kind,
    device: Device,
    holding: Holding,
    taken: u64,
    index_path: PathBuf,
    /// Set once nobody wants the rest.
    stop: Option<Arc<AtomicBool>>,
}

/// The name, type and shape of a stored tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTensor {
    /// Its name in the file.
    pub name: String,
    /// Its type, by safetensors' name.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

impl Weights {
    /// Maps the safetensors files of `dir`: those that `model.safetensors.index.json` names, else `model.safetensors`.
    pub fn open(dir: &Path) -> Result<Self> {
        let index = dir.join("model.safetensors.index.json");
        let (index_path, files) = if index.exists() {
            let files = shard_names(&index)?;
            (index, files)
        } else {
            (
                dir.join("model.safetensors"),
                vec!["model.safetensors".to_owned()],
            )
        };
        let mut weights = Weights {
            shards: Vec::new(),
            entries: HashMap::new(),
            kind: Kind::Float,
            device: Device::Cpu,
            // Encoders come first.
            holding: Holding::Encoder,
            taken: 0,
            index_path,
            stop: None,
        };
        for file in files {
            weights.add(dir.join(file))?;
        }
        Ok(weights)
    }

    /// Sets the type and place that tensors are copied out to.
    pub fn target(mut self, kind: Kind, device: Device) -> Self {
        self.kind = kind;
        self.device = device;
        self
    }

    fn add(&mut self, path: PathBuf) -> Result<()> {
        let fail = |problem: String| EngineError::checkpoint(&path, problem);
        let file = File::open(&path).map_err(|e| EngineError::read(&path, e))?;
        let length = file
            .metadata()
            .map_err(|e| EngineError::read(&path, e))?
            .len();
        if length < 8 {
            return Err(fail(format!(
                "{length} bytes is too short for a safetensors file: fetch it again"
            )));
        }
        // SAFETY: the mapping is private to this process and only read. Were the file cut short meanwhile, reading
        // would fault; that is the price of mapping and is kept short, since tensors are copied out at once.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| EngineError::read(&path, e))?;
        // The header's offsets are checked against the data section by the library.
        let (header_size, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            fail(format!(
                "not a whole safetensors file ({e}): fetch it again"
            ))
        })?;
        let data_start = header_size + 8;
        let data_bytes = metadata.data_len();
        if data_start.checked_add(data_bytes) != Some(map.len()) {
            return Err(fail(format!(
                "the header promises {data_bytes} bytes of tensors, the file holds {}: fetch it again",
                map.len().saturating_sub(data_start)
            )));
        }
        let shard = self.shards.len();
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                shard,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: data_start + start,
                end: data_start + end,
            };
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(fail(format!("tensor \"{name}\" is in two files")));
            }
        }
        self.shards.push(Shard { path, map });
        Ok(())
    }

    /// Bytes of weights copied out so far, as held.
    pub fn taken_bytes(&self) -> u64 {
        self.taken
    }

    /// Every stored tensor, sorted by name.
    pub fn stored(&self) -> Vec<StoredTensor> {
        let mut all: Vec<StoredTensor> = self
            .entries
            .iter()
            .map(|(name, entry)| StoredTensor {
                name: name.clone(),
                dtype: format!("{:?}", entry.dtype),
                shape: entry.shape.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Whether a tensor of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The kind in which most of the checkpoint's values are stored.
    pub fn stored_kind(&self) -> Kind {
        let values = |wanted: Kind| -> usize {
            let of_kind = self
                .entries
                .values()
                .filter(|entry| kind_of(entry.dtype) == Some(wanted));
            of_kind
                .map(|entry| entry.shape.iter().product::<usize>())
                .sum()
        };
        [Kind::Float, Kind::BFloat16, Kind::Half]
            .into_iter()
            .max_by_key(|&kind| values(kind))
            .unwrap_or(Kind::Float)
    }

    /// Type and place that tensors are copied out to.
    pub fn kind_and_device(&self) -> (Kind, Device) {
        (self.kind, self.device)
    }

    /// Nothing is taken any more once this is true.
    pub(crate) fn stop_with(&mut self, stop: Option<Arc<AtomicBool>>) {
        self.stop = stop;
    }

    /// How matrices are held from now on.
    pub(crate) fn hold(&mut self, holding: Holding) {
        self.holding = holding;
    }

    /// How matrices are held.
    pub(crate) fn holding(&self) -> Holding {
        self.holding
    }

    /// Copies out the tensor `name`, which must have `shape`.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.take_rows(&[name], shape)
    }

    /// The entries of tensors that make up one of `shape`, stacked along the first axis.
    fn find(&self, names: &[&str], shape: &[usize]) -> Result<Vec<&Entry>> {
        let stop = self.stop.as_ref();
        if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
            return Err(EngineError::request("loading the model was given up"));
        }
        let [rows, row_shape @ ..] = shape else {
            return Err(EngineError::checkpoint(
                &self.index_path,
                "a scalar weight was asked for",
            ));
        };
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let entry = self.entries.get(*name).ok_or_else(|| {
                EngineError::checkpoint(
                    &self.index_path,
                    format!("tensor \"{name}\" is missing: the checkpoint is incomplete or of another model"),
                )
            })?;
            found.push((*name, entry));
        }
        // Saturating: a file may claim any number of rows of width 0.
        let total = found
            .iter()
            .filter_map(|(_, entry)| entry.shape.first())
            .fold(0usize, |sum, rows| sum.saturating_add(*rows));
        for (name, entry) in &found {
            if entry.shape.get(1..) != Some(row_shape) || total != *rows {
                let path = self
                    .shards
                    .get(entry.shard)
                    .map_or(&self.index_path, |shard| &shard.path);
                let joined = if names.len() > 1 {
                    format!(" ({} together)", names.join(", "))
                } else {
                    String::new()
                };
                return Err(EngineError::checkpoint(
                    path,
                    format!(
                        "tensor \"{name}\" has shape {:?}; config.json asks for {shape:?}{joined}",
                        entry.shape
                    ),
                ));
            }
        }
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Copies out several tensors as one, stacked along the first axis in the order given. `shape` is that of the
    /// whole; the parts may differ in their number of rows.
    pub fn take_rows(&mut self, names: &[&str], shape: &[usize]) -> Result<Tensor> {
        let found = self.find(names, shape)?;
        let dims: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
        let whole = Tensor::f_empty(&dims, (self.kind, self.device))?;
        let mut row = 0;
        for entry in &found {
            let part_rows = entry.shape.first().copied().unwrap_or(0) as i64;
            let mut part = whole.f_narrow(0, row, part_rows)?;
            self.copy_into(entry, &mut part)?;
            row += part_rows;
        }
        self.taken += (whole.numel() * self.kind.elt_size_in_bytes()) as u64;
        Ok(whole)
    }

    /// Copies out several matrices as one, stacked along their rows, in the order that our own kernels read.
    pub fn take_packed(
        &mut self,
        names: &[&str],
        outputs: usize,
        inputs: usize,
        format: Format,
    ) -> Result<PackedMatrix> {
        let found = self.find(names, &[outputs, inputs])?;
        let mut packed = PackedMatrix::new(outputs, inputs, format)?;
        let mut row = 0;
        for entry in &found {
            let rows = entry.shape.first().copied().unwrap_or(0);
            let (bytes, kind) = self.bytes_of(entry)?;
            let element = match kind {
                Kind::BFloat16 => Element::Bf16,
                Kind::Half => Element::F16,
                _ => Element::F32,
            };
            packed.pack_rows(row, rows, bytes, element)?;
            row += rows;
        }
        self.taken += packed.bytes() as u64;
        Ok(packed)
    }

    /// Copies out several matrices as one of 8-bit integers, stacked along their rows.
    pub(crate) fn take_quantized(
        &mut self,
        names: &[&str],
        outputs: usize,
        inputs: usize,
    ) -> Result<Quantized> {
        let found = self.find(names, &[outputs, inputs])?;
        let mut quantized = Quantized::new(outputs, inputs, (self.kind, self.device))?;
        let mut row = 0;
        for entry in &found {
            self.with_view(entry, |view| quantized.set_rows(row, view))?;
            row += entry.shape.first().copied().unwrap_or(0) as i64;
        }
        self.taken += quantized.bytes();
        Ok(quantized)
    }

    /// A stored tensor's bytes and type.
    fn bytes_of(&self, entry: &Entry) -> Result<(&[u8], Kind)> {
        let shard = self
            .shards
            .get(entry.shard)
            .ok_or_else(|| EngineError::request("a shard went missing"))?;
        let fail = |problem: String| EngineError::checkpoint(&shard.path, problem);
        let kind = kind_of(entry.dtype).ok_or_else(|| {
            fail(format!(
                "type {:?} is not supported; F32, F16 and BF16 are",
                entry.dtype
            ))
        })?;
        let bytes = shard
            .map
            .get(entry.start..entry.end)
            .ok_or_else(|| fail("a tensor lies outside the file".into()))?;
        let values: usize = entry.shape.iter().product();
        if bytes.len() != values * kind.elt_size_in_bytes() {
            return Err(fail(format!(
                "{} bytes for shape {:?}",
                bytes.len(),
                entry.shape
            )));
        }
        Ok((bytes, kind))
    }

    fn copy_into(&self, entry: &Entry, part: &mut Tensor) -> Result<()> {
        self.with_view(entry, |view| {
            part.f_copy_(view)?;
            Ok(())
        })
    }

    /// Lets `read` see a stored tensor where it lies. What it returns must not hold on to it.
    fn with_view(&self, entry: &Entry, read: impl FnOnce(&Tensor) -> Result<()>) -> Result<()> {
        let (bytes, kind) = self.bytes_of(entry)?;
        let dims: Vec<i64> = entry.shape.iter().map(|&n| n as i64).collect();
        let aligned;
        let mut data = bytes.as_ptr();
        if data.align_offset(kind.elt_size_in_bytes()) != 0 {
            // A header of odd length: rare, and worth one copy.
            aligned = align(bytes);
            data = aligned.as_ptr().cast();
        }
        // SAFETY: `data` points to as many values as `dims` says (checked above), aligned, and outlives the view,
        // which is only read from and dropped before this function returns; `read` keeps nothing of it.
        let view =
            unsafe { Tensor::f_from_blob(data, &dims, &contiguous(&dims), kind, Device::Cpu) }?;
        read(&view)
    }
}

/// Row-major strides.
fn contiguous(dims: &[i64]) -> Vec<i64> {
    let mut strides: Vec<i64> = Vec::with_capacity(dims.len());
    let mut step = 1;
    for dim in dims.iter().rev() {
        strides.push(step);
        step *= dim;
    }
    strides.reverse();
    strides
}

/// The same bytes at an address that any element type may have.
fn align(bytes: &[u8]) -> Vec<u64> {
    let mut words = vec![0u64; bytes.len().div_ceil(8)];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut padded = [0u8; 8];
        for (to, from) in padded.iter_mut().zip(chunk) {
            *to = *from;
        }
        *word = u64::from_ne_bytes(padded);
    }
    words
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F32 => Some(Kind::Float),
        Dtype::F16 => Some(Kind::Half),
        Dtype::BF16 => Some(Kind::BFloat16),
        _ => None,
    }
}

/// The files that an index names, each once.
fn shard_names(index: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let text = crate::config::read_text(index)?;
    let parsed: Index = serde_json::from_str(&text)
        .map_err(|e| EngineError::checkpoint(index, format!("weight_map: {e}")))?;
    let mut files: Vec<String> = parsed.weight_map.into_values().collect();
    files.sort();
    files.dedup();
    if let Some(outside) = files.iter().find(|file| file.contains(['/', '\\'])) {
        return Err(EngineError::checkpoint(
            index,
            format!("weight_map: \"{outside}\" lies outside the directory"),
        ));
    }
    Ok(files)
}
