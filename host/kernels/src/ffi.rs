//! The border to the C++ kernels: the same structs stand in `cpp/kernels.h`.

use std::ffi::{c_int, c_void};

use crate::view::{HeadShape, View, ViewMut};

/// A packed matrix as the kernels see it.
#[repr(C)]
pub(crate) struct Packed {
    pub data: *mut u8,
    pub scale: *mut f32,
    pub bias: *const f32,
    pub outputs: usize,
    pub inputs: usize,
    pub format: u32,
}

/// A span as the kernels see it.
#[repr(C)]
pub(crate) struct RawSpan {
    pub first_row: usize,
    pub rows: usize,
    pub slots: *const u32,
    pub tokens: usize,
}

unsafe extern "C" {
    pub(crate) fn msao_supported() -> c_int;
    pub(crate) fn msao_pack_rows(
        to: *const Packed,
        first_row: usize,
        rows: usize,
        source: *const u8,
        element: u32,
    );
    pub(crate) fn msao_unpack_row(from: *const Packed, row: usize, out: *mut f32);
    pub(crate) fn msao_linear(x: *const View, w: *const Packed, y: *const ViewMut, threads: usize);
    pub(crate) fn msao_gather(w: *const Packed, ids: *const u32, y: *const ViewMut);
    pub(crate) fn msao_rms_norm(x: *const View, weight: *const c_void, eps: f32, y: *const ViewMut);
    pub(crate) fn msao_gated_silu(gate_up: *const View, y: *const ViewMut, threads: usize);
    pub(crate) fn msao_add(x: *const ViewMut, y: *const View);
    pub(crate) fn msao_rotate_and_store(
        qkv: *const ViewMut,
        cos: *const f32,
        sin: *const f32,
        shape: *const HeadShape,
        slots: *const u32,
        keys: *mut c_void,
        values: *mut c_void,
    );
    #[allow(clippy::too_many_arguments)]
    // one call site, and every argument is the public function's own
    pub(crate) fn msao_attend(
        q: *const View,
        shape: *const HeadShape,
        keys: *const c_void,
        values: *const c_void,
        spans: *const RawSpan,
        span_count: usize,
        window: usize,
        out: *const ViewMut,
        threads: usize,
    );
}
