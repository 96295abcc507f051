//! What the tests share: buffers of either element with a stride, and numbers that differ.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)] // a test's helpers may panic

use half::{bf16, f16};
use msao_kernels::{Element, Format, Instructions, PackedMatrix, View, ViewMut, supported};

/// Runs `check` on each instruction set that this CPU has. Says so where it has none: a green run has then tested
/// nothing.
pub fn on_each(mut check: impl FnMut()) {
    if !supported() {
        println!("SKIPPED: this CPU lacks the instructions, the kernels were not tested");
    }
    for set in Instructions::ALL {
        if set.available() {
            println!("on {set}");
            set.with(&mut check).unwrap();
        }
    }
}

/// The same numbers for the same seed, in [-1, 1), with some far larger and some zeros among them.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let x = (state >> 40) as f32 / (1 << 23) as f32 - 1.0;
            match state % 64 {
                0 => x * 8.0,
                1 => 0.0,
                _ => x,
            }
        })
        .collect()
}

/// Values as the element stores them.
pub fn encode(values: &[f32], element: Element) -> Vec<u8> {
    match element {
        Element::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Element::Bf16 => (values.iter())
            .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
            .collect(),
        Element::F16 => (values.iter())
            .flat_map(|&x| f16::from_f32(x).to_le_bytes())
            .collect(),
    }
}

pub fn decode(bytes: &[u8], element: Element) -> Vec<f32> {
    match element {
        Element::F32 => (bytes.chunks_exact(4))
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect(),
        Element::Bf16 => (bytes.chunks_exact(2))
            .map(|b| bf16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .collect(),
        Element::F16 => (bytes.chunks_exact(2))
            .map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32())
            .collect(),
    }
}

/// What is left of values after being stored.
pub fn stored(values: &[f32], element: Element) -> Vec<f32> {
    decode(&encode(values, element), element)
}

/// Rows with a stride, aligned to the element only, and a guard of 0xA5 in every gap and behind the end.
pub struct Rows {
    bytes: Vec<u32>,
    pub rows: usize,
    pub width: usize,
    pub stride: usize,
    pub element: Element,
}

const GUARD: u8 = 0xa5;

impl Rows {
    pub fn new(rows: usize, width: usize, gap: usize, element: Element) -> Self {
        let stride = width + gap;
        // One value in front, so that nothing is aligned by luck.
        let bytes = (rows * stride + 65) * element.size();
        Rows {
            bytes: vec![u32::from_ne_bytes([GUARD; 4]); bytes.div_ceil(4)],
            rows,
            width,
            stride,
            element,
        }
    }

    pub fn of(values: &[f32], width: usize, gap: usize, element: Element) -> Self {
        let mut all = Rows::new(values.len() / width.max(1), width, gap, element);
        let (stride, size) = (all.stride, element.size());
        for (row, values) in values.chunks_exact(width).enumerate() {
            let at = (1 + row * stride) * size;
            all.raw_mut()[at..at + width * size].copy_from_slice(&encode(values, element));
        }
        all
    }

    fn raw(&self) -> &[u8] {
        // SAFETY: the same memory as bytes.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.bytes.len() * 4) }
    }

    fn raw_mut(&mut self) -> &mut [u8] {
        let length = self.bytes.len() * 4;
        // SAFETY: the same memory as bytes, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_mut_ptr().cast(), length) }
    }

    pub fn view(&self) -> View {
        View {
            data: self.raw()[self.element.size()..].as_ptr().cast(),
            rows: self.rows,
            width: self.width,
            stride: self.stride,
            element: self.element,
        }
    }

    pub fn view_mut(&mut self) -> ViewMut {
        let size = self.element.size();
        ViewMut {
            data: self.raw_mut()[size..].as_mut_ptr().cast(),
            rows: self.rows,
            width: self.width,
            stride: self.stride,
            element: self.element,
        }
    }

    /// The rows' values one after the other. Fails if anything was written between or behind them.
    pub fn values(&self) -> Vec<f32> {
        let (size, raw) = (self.element.size(), self.raw());
        let mut values = Vec::new();
        let mut guarded = raw[..size].to_vec();
        for row in 0..self.rows {
            let at = (1 + row * self.stride) * size;
            let (end, next) = (at + self.width * size, at + self.stride * size);
            values.extend(decode(&raw[at..end], self.element));
            guarded.extend(&raw[end..next]);
        }
        guarded.extend(&raw[(1 + self.rows * self.stride) * size..]);
        assert!(
            guarded.iter().all(|&b| b == GUARD),
            "written outside the rows"
        );
        values
    }
}

/// A packed matrix and what it holds, dequantised, row after row.
pub fn matrix(
    outputs: usize,
    inputs: usize,
    format: Format,
    seed: u64,
) -> (PackedMatrix, Vec<f32>) {
    let source = numbers(outputs * inputs, seed);
    let mut matrix = PackedMatrix::new(outputs, inputs, format).unwrap();
    let bytes = encode(&source, Element::F32);
    matrix.pack_rows(0, outputs, &bytes, Element::F32).unwrap();
    let mut held = vec![0.0; outputs * inputs];
    for (row, out) in held.chunks_exact_mut(inputs).enumerate() {
        matrix.unpack_row(row, out).unwrap();
    }
    (matrix, held)
}

/// Fails where a value is further from its reference than `tolerance` (absolute) and the rounding of its element.
pub fn close(name: &str, got: &[f32], expected: &[(f64, f64)], element: Element) {
    assert_eq!(got.len(), expected.len());
    let rounding = match element {
        Element::F32 => 2f64.powi(-22),
        _ => 2f64.powi(-8),
    };
    for (i, (&got, &(expected, tolerance))) in got.iter().zip(expected).enumerate() {
        let bound = tolerance + expected.abs() * rounding;
        let error = (f64::from(got) - expected).abs();
        assert!(
            error <= bound,
            "{name}: value {i} is {got}, expected {expected} within {bound}"
        );
    }
}
