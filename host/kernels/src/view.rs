//! What the operations are handed: views of memory that the caller owns.

use std::ffi::c_void;

/// How a value is stored outside packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Element {
    /// 32-bit floating point.
    F32 = 0,
    /// bfloat16: the upper half of an f32.
    Bf16 = 1,
    /// IEEE half precision. Only a source of weights, never an activation.
    F16 = 2,
}

impl Element {
    /// Bytes that a value takes.
    pub fn size(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 | Element::F16 => 2,
        }
    }
}

/// Activations to read: `rows` rows of `width` values of type `element`, `stride` values (not bytes) apart.
///
/// `data` is aligned to the element's size; nothing more is asked of it or of `stride`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct View {
    /// The first row's first value.
    pub data: *const c_void,
    /// How many rows there are.
    pub rows: usize,
    /// Values in a row.
    pub width: usize,
    /// Values from the start of a row to the start of the next one, at least `width`.
    pub stride: usize,
    /// What a value is: F32 or Bf16.
    pub element: Element,
}

/// Activations to write; the fields are [`View`]'s.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ViewMut {
    /// The first row's first value.
    pub data: *mut c_void,
    /// How many rows there are.
    pub rows: usize,
    /// Values in a row.
    pub width: usize,
    /// Values from the start of a row to the start of the next one, at least `width`.
    pub stride: usize,
    /// What a value is: F32 or Bf16.
    pub element: Element,
}

/// The heads of an attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HeadShape {
    /// Query heads, a multiple of `kv_heads`: query head `h` reads key head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values a head, even and at most 256.
    pub dim: usize,
}

/// One sequence's rows in a pass over many sequences.
///
/// Rows `[first_row, first_row + rows)` of the queries belong to the last `rows` of the tokens that `slots` lists in
/// the order of the sequence. So row `i` of the span sees the first `slots.len() - rows + i + 1` of them.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// The first of its rows among the queries.
    pub first_row: usize,
    /// How many rows it has.
    pub rows: usize,
    /// Where each of its tokens lies in the pools, those held before this pass first.
    pub slots: &'a [u32],
}
