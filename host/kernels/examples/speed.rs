//! How fast the kernels are at the shapes of a 0.5B model, beside what the memory gives.
//!
//! `cargo run --release -p msao-kernels --example speed [threads] [seconds a case]`
#![allow(clippy::print_stdout, clippy::expect_used)] // a program whose result is what it prints

use std::ffi::c_void;
use std::time::Instant;

use memmap2::{Advice, MmapMut};
use msao_kernels::{Element, Format, PackedMatrix, View, ViewMut, linear, supported};

const ROWS: [usize; 6] = [1, 4, 9, 16, 32, 256];

fn main() {
    if !supported() {
        println!("this CPU lacks the instructions: nothing to measure");
        return;
    }
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(2);
    let seconds = arguments
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.15);
    let read = read_bandwidth(threads, seconds);
    println!("{threads} threads; memory reads at {read:.1} GB/s");
    for (format, element) in [
        (Format::F32, Element::F32),
        (Format::Bf16, Element::Bf16),
        (Format::Int8, Element::Bf16),
        (Format::Int8, Element::F32),
    ] {
        println!(
            "\n{format:?} weights, {element:?} rows: ms a pass, GB/s (share of the read), GF/s"
        );
        let model = Model::new(format);
        for rows in ROWS {
            let time = model.time(rows, element, threads, seconds);
            let (bytes, flops) = (model.bytes() as f64, model.flops(rows));
            println!(
                "{rows:4} rows {:9.3} ms {:6.1} GB/s ({:3.0}%) {:7.1} GF/s",
                time * 1e3,
                bytes / time / 1e9,
                bytes / time / 1e7 / read,
                flops / time / 1e9
            );
        }
    }
}

/// The products of a few layers: as many as do not fit into the caches.
struct Model(Vec<PackedMatrix>);

impl Model {
    fn new(format: Format) -> Self {
        let shapes = [(1152, 896), (896, 896), (9728, 896), (896, 4864)];
        let matrices = (0..8).flat_map(|_| shapes).map(|(outputs, inputs)| {
            let mut matrix = PackedMatrix::new(outputs, inputs, format).expect("memory");
            let row: Vec<u8> = (0..outputs * inputs)
                .flat_map(|i| (((i * 7919) % 251) as f32 / 251.0 - 0.5).to_le_bytes())
                .collect();
            matrix
                .pack_rows(0, outputs, &row, Element::F32)
                .expect("rows of the matrix");
            matrix
        });
        Model(matrices.collect())
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(PackedMatrix::bytes).sum()
    }

    fn flops(&self, rows: usize) -> f64 {
        let weights: usize = self.0.iter().map(|m| m.outputs() * m.inputs()).sum();
        2.0 * (weights * rows) as f64
    }

    /// Seconds a pass, the fastest of those that fit into `seconds`.
    fn time(&self, rows: usize, element: Element, threads: usize, seconds: f64) -> f64 {
        let x = vec![0x3f80_3f80_u32; rows * 4864];
        let mut y = vec![0u32; rows * 9728];
        let (mut best, start) = (f64::INFINITY, Instant::now());
        while start.elapsed().as_secs_f64() < seconds {
            let pass = Instant::now();
            for matrix in &self.0 {
                let x = View {
                    data: x.as_ptr().cast(),
                    rows,
                    width: matrix.inputs(),
                    stride: matrix.inputs(),
                    element,
                };
                let y = ViewMut {
                    data: y.as_mut_ptr().cast::<c_void>(),
                    rows,
                    width: matrix.outputs(),
                    stride: matrix.outputs(),
                    element,
                };
                // SAFETY: both buffers hold `rows` rows of the widest matrix, in 4 bytes a value.
                unsafe { linear(x, matrix, y, threads) };
            }
            best = best.min(pass.elapsed().as_secs_f64());
        }
        best
    }
}

/// GB/s at which threads sum a few hundred MB in huge pages: what the products could reach at best.
fn read_bandwidth(threads: usize, seconds: f64) -> f64 {
    let mut memory = MmapMut::map_anon(320 << 20).expect("memory");
    let _ = memory.advise(Advice::HugePage);
    memory.fill(1);
    let part = memory.len() / threads / 64 * 64;
    let passes = 4;
    let (mut best, start) = (f64::INFINITY, Instant::now());
    while start.elapsed().as_secs_f64() < 2.0 * seconds {
        let pass = Instant::now();
        std::thread::scope(|scope| {
            for part in memory.chunks_exact(part) {
                scope.spawn(move || {
                    for _ in 0..passes {
                        // SAFETY: `main` asked for AVX-512.
                        std::hint::black_box(unsafe { sum(std::hint::black_box(part)) });
                    }
                });
            }
        });
        best = best.min(pass.elapsed().as_secs_f64());
    }
    (passes * part * threads) as f64 / best / 1e9
}

/// Whole lines, asked for ahead of their use: nothing but the memory holds up reading.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum(bytes: &[u8]) -> i64 {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch, _mm512_add_epi64, _mm512_reduce_add_epi64};
    use std::arch::x86_64::{_mm512_loadu_si512, _mm512_setzero_si512};
    let mut sums = [_mm512_setzero_si512(); 4];
    for lines in bytes.as_chunks::<256>().0 {
        for (sum, line) in sums.iter_mut().zip(lines.as_chunks::<64>().0) {
            // SAFETY: the line has 64 bytes; a prefetch may name any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(2048).cast());
                *sum = _mm512_add_epi64(*sum, _mm512_loadu_si512(line.as_ptr().cast()));
            }
        }
    }
    let [a, b, c, d] = sums;
    _mm512_reduce_add_epi64(_mm512_add_epi64(
        _mm512_add_epi64(a, b),
        _mm512_add_epi64(c, d),
    ))
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn sum(_: &[u8]) -> i64 {
    0 // not reached: the kernels are not supported there
}
