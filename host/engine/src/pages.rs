//! Memory that is taken page by page as it is written to, in huge pages where the system has them.
//!
//! Attention over a long context reads keys all over the cache: with small pages it spends more time on looking pages
//! up than on reading them.

use memmap2::{Advice, MmapMut};
use tch::{Device, Kind, Tensor};

use crate::error::{EngineError, Result};

/// Bytes at the start of each tensor that stay in small pages.
const SMALL: usize = 1 << 20;

/// A stretch of anonymous memory on the processor.
#[derive(Debug)]
pub(crate) struct Pages {
    map: MmapMut,
}

impl Pages {
    /// Sets aside `bytes` of address space; memory is taken when it is first written to. Reads as zeros.
    pub fn reserve(bytes: usize) -> Result<Self> {
        let map = MmapMut::map_anon(bytes.max(1)).map_err(|e| {
            EngineError::request(format!(
                "{bytes} bytes for keys and values are not to be had ({e}): ask for a smaller cache"
            ))
        })?;
        Ok(Pages { map })
    }

    /// Asks for huge pages in the tensor of `bytes` at `offset`, but for its first [`SMALL`] bytes: a huge page taken for
    /// the first token of each of many tensors would be nearly empty.
    pub fn prefer_huge(&self, offset: usize, bytes: usize) {
        if let Some(rest) = bytes.checked_sub(SMALL) {
            // Only advice: without huge pages everything works, slower.
            let _ = self
                .map
                .advise_range(Advice::HugePage, offset + SMALL, rest);
        }
    }

    /// A contiguous tensor at an offset in bytes. It must not outlive this.
    pub fn tensor(&self, offset: usize, shape: &[i64], kind: Kind) -> Result<Tensor> {
        let values: i64 = shape.iter().product();
        let bytes = values as usize * kind.elt_size_in_bytes();
        let end = offset.checked_add(bytes);
        if end.is_none_or(|end| end > self.map.len())
            || !offset.is_multiple_of(kind.elt_size_in_bytes())
        {
            return Err(EngineError::request(
                "a tensor lies outside the memory that was set aside for it",
            ));
        }
        let mut strides = Vec::with_capacity(shape.len());
        let mut step = values;
        for &size in shape {
            step /= size.max(1);
            strides.push(step);
        }
        // SAFETY: the range lies within the map (checked above), which is page-aligned, so that an offset of whole
        // elements is aligned for them. The map is private and writable, stays where it is while `self` lives, and is
        // written to through these tensors alone, which the owner drops first.
        let tensor = unsafe {
            let data = self.map.as_ptr().add(offset);
            Tensor::f_from_blob(data, shape, &strides, kind, Device::Cpu)
        }?;
        Ok(tensor)
    }
}
