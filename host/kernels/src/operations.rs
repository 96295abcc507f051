//! The operations of a forward pass. All of them need [`supported`](crate::supported): it is part of what their callers
//! vouch for. Those with a matrix run on the instructions that it was packed for.

use std::ffi::c_void;

use crate::ffi::{self, Kernels};
use crate::instructions;
use crate::matrix::PackedMatrix;
use crate::view::{HeadShape, Span, View, ViewMut};

/// Widest head that [`attend`] takes.
pub const MOST_HEAD_DIM: usize = 256;

/// The kernels of this CPU.
///
/// # Safety
/// There are some: [`supported`](crate::supported).
unsafe fn kernels() -> &'static Kernels {
    // SAFETY: the caller vouches for it.
    unsafe { instructions::kernels().unwrap_unchecked() }
}

/// `y = x W^T + b`: `x` `[rows, inputs]`, `y` `[rows, outputs]`, on up to `threads` threads.
///
/// | x | weights | y |
/// |---|---|---|
/// | F32 | F32, Bf16 (widened), Int8 | F32 |
/// | Bf16 | Bf16, Int8 | Bf16, or F32 (logits) |
///
/// A row's result does not depend on the other rows or on `threads`, to the bit.
///
/// # Safety
/// The pair of formats is one of the table's. The views' memory is valid for their rows, widths and strides, `y`
/// overlaps neither `x` nor itself, and nobody else writes to `x` or touches `y` meanwhile.
pub unsafe fn linear(x: View, weights: &PackedMatrix, y: ViewMut, threads: usize) {
    debug_assert_eq!(x.width, weights.inputs());
    debug_assert_eq!(y.width, weights.outputs());
    debug_assert_eq!(x.rows, y.rows);
    // SAFETY: the caller vouches for the views; the matrix's memory is as large as its shape says.
    unsafe { (weights.kernels().linear)(&x, &weights.raw(), &y, threads) };
}

/// Writes rows `ids` of `weights`, dequantised, into the rows of `y` `[ids.len(), inputs]`: embeddings.
///
/// # Safety
/// Every id is below `weights.outputs()`. `y`'s memory is valid for its shape and nobody else touches it meanwhile.
pub unsafe fn gather(weights: &PackedMatrix, ids: &[u32], y: ViewMut) {
    debug_assert_eq!(ids.len(), y.rows);
    debug_assert_eq!(y.width, weights.inputs());
    debug_assert!(ids.iter().all(|&id| (id as usize) < weights.outputs()));
    // SAFETY: the caller vouches for the ids and the view.
    unsafe { (weights.kernels().gather)(&weights.raw(), ids.as_ptr(), &y) };
}

/// `y = x / sqrt(mean(x^2) + eps) * weight` a row, computed in f32 and rounded once at the end, as torch's `rms_norm`
/// does. `weight` has `x.width` values of `x`'s element, which is also `y`'s. `y` may be `x`.
///
/// # Safety
/// The kernels are [`supported`](crate::supported). The memory of the views and of `weight` is valid for its shape, and nobody else writes to it meanwhile.
pub unsafe fn rms_norm(x: View, weight: *const c_void, eps: f32, y: ViewMut) {
    debug_assert_eq!((x.rows, x.width, x.element), (y.rows, y.width, y.element));
    // SAFETY: the caller vouches for the CPU, the views and the weight.
    unsafe { (kernels().rms_norm)(&x, weight, eps, &y) };
}

/// `y = silu(gate) * up`: `gate_up` `[rows, 2 * width]` holds a row's gates and behind them its ups, `y`
/// `[rows, width]`. In bf16 silu's result is rounded before the product, as it is where the two are separate steps.
///
/// # Safety
/// The kernels are [`supported`](crate::supported). The views' memory is valid for their shapes, they do not overlap, and nobody else writes to them meanwhile.
pub unsafe fn gated_silu(gate_up: View, y: ViewMut, threads: usize) {
    debug_assert_eq!(
        (gate_up.rows, gate_up.width, gate_up.element),
        (y.rows, 2 * y.width, y.element)
    );
    // SAFETY: the caller vouches for the CPU and the views.
    unsafe { (kernels().gated_silu)(&gate_up, &y, threads) };
}

/// `x += y`, both of one shape and element.
///
/// # Safety
/// The kernels are [`supported`](crate::supported). The views' memory is valid for their shapes, they do not overlap, and nobody else writes to them meanwhile.
pub unsafe fn add(x: ViewMut, y: View) {
    debug_assert_eq!((x.rows, x.width, x.element), (y.rows, y.width, y.element));
    // SAFETY: the caller vouches for the CPU and the views.
    unsafe { (kernels().add)(&x, &y) };
}

/// Turns queries and keys by their angles and writes keys and values into the cache.
///
/// `qkv` `[rows, (heads + 2 * kv_heads) * dim]`: a row's query heads, key heads, value heads. `cos`, `sin`
/// `[rows, dim]` in f32. A head's value `i` becomes `x[i] * cos[i] + turned[i] * sin[i]`, where `turned` is its second
/// half negated, then its first half (Su et al. 2021, in the half-split layout of Hugging Face checkpoints).
/// Queries are turned in place, keys and values of row `r` go to `keys[slots[r]]` and `values[slots[r]]`: pools
/// `[slots, kv_heads, dim]` of `qkv`'s element. Computed in f32, rounded once.
///
/// # Safety
/// The kernels are [`supported`](crate::supported). All memory is valid for these shapes, every slot lies in the pools, no slot is named twice, and nobody else touches
/// the rows or the slots meanwhile.
pub unsafe fn rotate_and_store(
    qkv: ViewMut,
    cos: *const f32,
    sin: *const f32,
    shape: HeadShape,
    slots: &[u32],
    keys: *mut c_void,
    values: *mut c_void,
) {
    debug_assert_eq!(qkv.rows, slots.len());
    debug_assert_eq!(qkv.width, (shape.heads + 2 * shape.kv_heads) * shape.dim);
    debug_assert_eq!(shape.dim % 2, 0);
    // SAFETY: the caller vouches for the CPU, the memory and the slots.
    unsafe {
        (kernels().rotate_and_store)(&qkv, cos, sin, &shape, slots.as_ptr(), keys, values);
    }
}

/// Attention of many sequences at once over the paged cache, on up to `threads` threads.
///
/// `q` `[rows, heads * dim]`, already turned; `keys`, `values` `[slots, kv_heads, dim]`, all of `q`'s element; `out`
/// `[rows, heads * dim]`. Each row sees its span's tokens up to its own ([`Span`]), of those the last `window` where
/// there is one (at least 1). Weights are `softmax(q k / sqrt(dim))` in f32; in bf16 they are rounded to bf16 for the
/// product with the values. Scores of -infinity weigh nothing; a row that has no others becomes zeros. Rows that no
/// span names are not written.
///
/// # Safety
/// The kernels are [`supported`](crate::supported). All memory is valid for these shapes, every slot lies in the pools, spans do not share rows and none has more rows
/// than slots, `out` does not overlap `q`, and nobody else writes to any of it meanwhile.
#[allow(clippy::too_many_arguments)] // the parts of one formula; a struct would only rename them
pub unsafe fn attend(
    q: View,
    shape: HeadShape,
    keys: *const c_void,
    values: *const c_void,
    spans: &[Span],
    window: Option<usize>,
    out: ViewMut,
    threads: usize,
) {
    debug_assert_eq!((q.width, q.element), (out.width, out.element));
    debug_assert_eq!(q.width, shape.heads * shape.dim);
    debug_assert!(shape.heads.is_multiple_of(shape.kv_heads) && shape.dim.is_multiple_of(2));
    debug_assert!(shape.dim <= MOST_HEAD_DIM && window != Some(0));
    debug_assert!(
        spans.iter().all(|span| span.rows <= span.slots.len()
            && span.first_row + span.rows <= q.rows.min(out.rows))
    );
    let spans: Vec<ffi::RawSpan> = spans
        .iter()
        .map(|span| ffi::RawSpan {
            first_row: span.first_row,
            rows: span.rows,
            slots: span.slots.as_ptr(),
            tokens: span.slots.len(),
        })
        .collect();
    // SAFETY: the caller vouches for the CPU, the memory, the slots and the spans.
    unsafe {
        (kernels().attend)(
            &q,
            &shape,
            keys,
            values,
            spans.as_ptr(),
            spans.len(),
            window.unwrap_or(usize::MAX),
            &out,
            threads,
        );
    }
}
