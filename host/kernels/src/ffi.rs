//! The border to the C++ kernels: the same structs stand in `cpp/kernels.h`.

use std::ffi::c_void;

use crate::instructions::Instructions;
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

/// The kernels of one instruction set.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Kernels {
    pub pack_rows: unsafe extern "C" fn(
        to: *const Packed,
        first_row: usize,
        rows: usize,
        source: *const u8,
        element: u32,
    ),
    pub unpack_row: unsafe extern "C" fn(from: *const Packed, row: usize, out: *mut f32),
    pub linear:
        unsafe extern "C" fn(x: *const View, w: *const Packed, y: *const ViewMut, threads: usize),
    pub gather: unsafe extern "C" fn(w: *const Packed, ids: *const u32, y: *const ViewMut),
    pub rms_norm:
        unsafe extern "C" fn(x: *const View, weight: *const c_void, eps: f32, y: *const ViewMut),
    pub gated_silu: unsafe extern "C" fn(gate_up: *const View, y: *const ViewMut, threads: usize),
    pub add: unsafe extern "C" fn(x: *const ViewMut, y: *const View),
    pub rotate_and_store: unsafe extern "C" fn(
        qkv: *const ViewMut,
        cos: *const f32,
        sin: *const f32,
        shape: *const HeadShape,
        slots: *const u32,
        keys: *mut c_void,
        values: *mut c_void,
    ),
    pub attend: unsafe extern "C" fn(
        q: *const View,
        shape: *const HeadShape,
        keys: *const c_void,
        values: *const c_void,
        spans: *const RawSpan,
        span_count: usize,
        window: usize,
        out: *const ViewMut,
        threads: usize,
    ),
}

unsafe extern "C" {
    /// Null where the set is not built or the CPU lacks it. Compiled without special instructions.
    pub(crate) fn msao_kernels(set: Instructions) -> *const Kernels;
}
