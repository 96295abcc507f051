//! Weights in the order in which the kernels read them.

use memmap2::{Advice, MmapMut, MmapOptions};

use crate::error::KernelError;
use crate::ffi;
use crate::instructions::kernels;
use crate::view::Element;

/// Outputs in a block.
const BLOCK: usize = 16;
/// A huge page. Larger matrices start at a multiple of it.
const HUGE: usize = 2 << 20;
/// A cache line, and a line of packed weights.
const LINE: usize = 64;

/// How packed weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Format {
    /// 4 bytes a weight.
    F32 = 0,
    /// 2 bytes a weight.
    Bf16 = 1,
    /// 1 byte a weight and an f32 scale an output.
    Int8 = 2,
}

impl Format {
    /// Inputs that lie together in a line of 16 outputs; a row is padded with zeros to a multiple of it.
    fn inputs_a_line(self) -> usize {
        match self {
            Format::F32 => 1,
            Format::Bf16 => 2,
            Format::Int8 => 4,
        }
    }
}

/// The weights of `y = x W^T + b`, `W` `[outputs, inputs]`, packed for [`linear`](crate::linear).
///
/// Holds its own memory, 64-byte aligned and in huge pages where the system grants them. Starts as zeros without a
/// bias; [`pack_rows`](Self::pack_rows) fills it, in pieces or at once.
#[derive(Debug)]
pub struct PackedMatrix {
    memory: MmapMut,
    /// Where the packed values start in `memory`.
    start: usize,
    bytes: usize,
    /// One an output, padded to whole blocks; Int8 only.
    scale: Vec<f32>,
    /// One an output, padded to whole blocks; empty without a bias.
    bias: Vec<f32>,
    outputs: usize,
    inputs: usize,
    format: Format,
    /// Of the instructions in whose order the values lie.
    kernels: &'static ffi::Kernels,
}

impl PackedMatrix {
    /// A matrix of zeros.
    ///
    /// # Errors
    /// [`KernelError::Unsupported`] where the CPU lacks the instructions, [`KernelError::Shape`] for a matrix without
    /// values, [`KernelError::Memory`] where the system gives none.
    pub fn new(outputs: usize, inputs: usize, format: Format) -> Result<Self, KernelError> {
        let kernels = kernels().ok_or(KernelError::Unsupported)?;
        let shape = || KernelError::Shape { outputs, inputs };
        if outputs == 0 || inputs == 0 {
            return Err(shape());
        }
        let bytes = outputs
            .div_ceil(BLOCK)
            .checked_mul(inputs.div_ceil(format.inputs_a_line()))
            .and_then(|lines| lines.checked_mul(LINE))
            .filter(|&bytes| bytes < isize::MAX as usize / 2)
            .ok_or_else(shape)?;
        let spare = if bytes >= HUGE { HUGE } else { 0 };
        let memory = MmapOptions::new()
            .len(bytes + spare)
            .map_anon()
            .map_err(|source| KernelError::Memory {
                bytes,
                source: source.into(),
            })?;
        let start = if spare > 0 {
            // A wish: without huge pages the matrix works as well, only slower.
            let _ = memory.advise(Advice::HugePage);
            (memory.as_ptr() as usize).next_multiple_of(HUGE) - memory.as_ptr() as usize
        } else {
            0
        };
        let padded = outputs.next_multiple_of(BLOCK);
        Ok(PackedMatrix {
            memory,
            start,
            bytes,
            scale: if format == Format::Int8 {
                vec![0.0; padded]
            } else {
                Vec::new()
            },
            bias: Vec::new(),
            outputs,
            inputs,
            format,
            kernels,
        })
    }

    /// Packs rows `[first_row, first_row + rows)` from `source`: their values one row after the other, little-endian,
    /// at any alignment (a mapped file). Converts on the way, rounding to nearest even, without a second copy of the
    /// matrix; values too small for a normal bf16 may become zero there. In [`Format::Int8`] a row's scale is its largest
    /// magnitude / 127. Large pieces are packed by several threads, so a matrix is best packed at once.
    ///
    /// # Errors
    /// [`KernelError::Rows`] for rows that are not there, [`KernelError::Length`] where `source` is not
    /// `rows * inputs` values long. Nothing is written then.
    pub fn pack_rows(
        &mut self,
        first_row: usize,
        rows: usize,
        source: &[u8],
        element: Element,
    ) -> Result<(), KernelError> {
        let end = first_row.saturating_add(rows);
        if end > self.outputs {
            return Err(KernelError::Rows {
                first: first_row,
                end,
                outputs: self.outputs,
            });
        }
        let expected = (rows * self.inputs).saturating_mul(element.size());
        check_length("the source", "bytes", source.len(), expected)?;
        let packed = self.raw_mut();
        // SAFETY: the rows lie within the matrix and the source is as long as they are, both checked above; `packed`
        // points into memory that `self` owns and that is borrowed mutably here. The CPU was asked by `new`.
        unsafe {
            (self.kernels.pack_rows)(&packed, first_row, rows, source.as_ptr(), element as u32);
        };
        Ok(())
    }

    /// Sets the bias, one value an output.
    ///
    /// # Errors
    /// [`KernelError::Length`] where there are not as many as outputs.
    pub fn set_bias(&mut self, bias: &[f32]) -> Result<(), KernelError> {
        check_length("the bias", "values", bias.len(), self.outputs)?;
        self.bias = bias.to_vec();
        self.bias.resize(self.outputs.next_multiple_of(BLOCK), 0.0);
        Ok(())
    }

    /// Writes row `row` as the kernels see it, `inputs` values, into `out`.
    ///
    /// # Errors
    /// [`KernelError::Rows`] for a row that is not there, [`KernelError::Length`] where `out` is not `inputs` long.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) -> Result<(), KernelError> {
        if row >= self.outputs {
            return Err(KernelError::Rows {
                first: row,
                end: row.saturating_add(1),
                outputs: self.outputs,
            });
        }
        check_length("the row", "values", out.len(), self.inputs)?;
        // SAFETY: the row is there and `out` is as long as it, both checked above; the CPU was asked by `new`.
        unsafe { (self.kernels.unpack_row)(&self.raw(), row, out.as_mut_ptr()) };
        Ok(())
    }

    /// Rows of `W`.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns of `W`.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// How the weights are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Bytes that a product reads: packed values with their padding, scales and bias.
    pub fn bytes(&self) -> usize {
        self.bytes + size_of_val(&self.scale[..]) + size_of_val(&self.bias[..])
    }

    pub(crate) fn kernels(&self) -> &'static ffi::Kernels {
        self.kernels
    }

    /// For reading: the kernels that take this write nothing through it.
    pub(crate) fn raw(&self) -> ffi::Packed {
        ffi::Packed {
            data: self.memory.as_ptr().wrapping_add(self.start).cast_mut(),
            scale: self.scale.as_ptr().cast_mut(),
            bias: self.bias_pointer(),
            outputs: self.outputs,
            inputs: self.inputs,
            format: self.format as u32,
        }
    }

    fn raw_mut(&mut self) -> ffi::Packed {
        ffi::Packed {
            data: self.memory.as_mut_ptr().wrapping_add(self.start),
            scale: self.scale.as_mut_ptr(),
            bias: self.bias_pointer(),
            outputs: self.outputs,
            inputs: self.inputs,
            format: self.format as u32,
        }
    }

    fn bias_pointer(&self) -> *const f32 {
        if self.bias.is_empty() {
            std::ptr::null()
        } else {
            self.bias.as_ptr()
        }
    }
}

fn check_length(
    what: &'static str,
    unit: &'static str,
    given: usize,
    expected: usize,
) -> Result<(), KernelError> {
    if given == expected {
        Ok(())
    } else {
        Err(KernelError::Length {
            what,
            unit,
            given,
            expected,
        })
    }
}
