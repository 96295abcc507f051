//! How fast the kernels are at the shapes of a 0.5B model, beside what the memory and the multipliers give, on each
//! instruction set that the CPU has.
//!
//! `cargo run --release -p msao-kernels --example speed [threads] [seconds a case]`
#![allow(clippy::print_stdout, clippy::expect_used)] // a program whose result is what it prints

use std::ffi::c_void;
use std::time::Instant;

use msao_kernels::{Element, Format, Instructions, PackedMatrix, View, ViewMut, linear, supported};

mod machine;

const ROWS: [usize; 6] = [1, 4, 9, 16, 64, 512];

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
    for set in Instructions::ALL {
        // Where it is missing there is nothing to measure.
        let _ = set.with(|| measure(set, threads, seconds));
    }
}

fn measure(set: Instructions, threads: usize, seconds: f64) {
    println!("\n{set}, {threads} threads");
    for (format, element) in [
        (Format::F32, Element::F32),
        (Format::Bf16, Element::Bf16),
        (Format::Int8, Element::Bf16),
        (Format::Int8, Element::F32),
    ] {
        // Anew for each table: others may use the machine, too.
        let read = machine::read_bandwidth(threads, 2.0 * seconds);
        let peak = machine::peak(set, element, threads, seconds);
        println!(
            "\n{format:?} weights, {element:?} rows; memory reads at {read:.1} GB/s, {peak:.0} GF/s at most: ms a \
             pass, GB/s (share), GF/s (share)"
        );
        let model = Model::new(format);
        for rows in ROWS {
            let time = model.time(rows, element, threads, seconds);
            let (bytes, flops) = (model.bytes() as f64, model.flops(rows));
            println!(
                "{rows:4} rows {:9.3} ms {:6.1} GB/s ({:3.0}%) {:7.1} GF/s ({:3.0}%)",
                time * 1e3,
                bytes / time / 1e9,
                bytes / time / 1e7 / read,
                flops / time / 1e9,
                flops / time / 1e7 / peak
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
