//! How fast attention is at the heads of a 0.5B model: decoding, verifying and prompts, on each instruction set that
//! the CPU has.
//!
//! `cargo run --release -p msao-kernels --example attention [threads] [seconds a case] [case]`
#![allow(clippy::print_stdout, clippy::expect_used)] // a program whose result is what it prints

use std::time::Instant;

use memmap2::{Advice, MmapMut};
use msao_kernels::{Element, HeadShape, Instructions, Span, View, ViewMut, attend, supported};

mod machine;

const SHAPE: HeadShape = HeadShape {
    heads: 14,
    kv_heads: 2,
    dim: 64,
};

fn main() {
    if !supported() {
        println!("this CPU lacks the instructions: nothing to measure");
        return;
    }
    let mut arguments = std::env::args().skip(1);
    let threads = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(2);
    let seconds = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(0.1);
    let only: Option<usize> = arguments.next().and_then(|n| n.parse().ok());
    for set in Instructions::ALL {
        // Where it is missing there is nothing to measure.
        let _ = set.with(|| measure(set, threads, seconds, only));
    }
}

fn measure(set: Instructions, threads: usize, seconds: f64, only: Option<usize>) {
    let read = machine::read_bandwidth(threads, 2.0 * seconds);
    for element in [Element::F32, Element::Bf16] {
        let peak = machine::peak(set, element, threads, seconds);
        println!(
            "{set}, {element:?}, {threads} threads; memory reads at {read:.1} GB/s, {peak:.0} GF/s at most: us a \
             layer, GB/s of keys and values (share), GF/s (share)"
        );
        for (number, (sequences, rows, held)) in [
            (1, 1, 100),
            (1, 1, 1000),
            (1, 1, 8000),
            (1, 1, 30000),
            (8, 1, 500),
            (16, 1, 2000),
            (1, 5, 1000),
            (1, 16, 4000),
            (1, 512, 0),
            (1, 512, 3584),
        ]
        .into_iter()
        .enumerate()
        {
            if only.is_some_and(|only| only != number) {
                continue;
            }
            let time = time((sequences, rows, held), element, threads, seconds);
            let tokens = sequences * (held + rows);
            let bytes = 2 * tokens * SHAPE.kv_heads * SHAPE.dim * element.size();
            let seen = sequences * rows * (2 * held + rows + 1) / 2;
            let flops = 4 * SHAPE.heads * SHAPE.dim * seen;
            println!(
                "{sequences:3} x {rows:3} rows behind {held:5}: {:9.1} us {:6.1} GB/s ({:3.0}%) {:6.1} GF/s ({:3.0}%)",
                time * 1e6,
                bytes as f64 / time / 1e9,
                bytes as f64 / time / 1e7 / read,
                flops as f64 / time / 1e9,
                flops as f64 / time / 1e7 / peak
            );
        }
    }
}

/// Seconds a call, the fastest of those that fit into `seconds`; calls walk through layers, as a pass does.
fn time(
    (sequences, rows, held): (usize, usize, usize),
    element: Element,
    threads: usize,
    seconds: f64,
) -> f64 {
    let (all, tokens) = (sequences * rows, held + rows);
    let room = (sequences * tokens.next_multiple_of(16)) as u32;
    // Blocks of 16 slots, the sequences' in turns.
    let slots: Vec<Vec<u32>> = (0..sequences as u32)
        .map(|s| {
            (0..tokens as u32)
                .map(|t| ((t / 16) * sequences as u32 + s) * 16 + t % 16)
                .collect()
        })
        .collect();
    let layer = room as usize * SHAPE.kv_heads * SHAPE.dim * element.size();
    let layers = (256 << 20) / layer / 2 + 1;
    let mut pools = MmapMut::map_anon(layers.min(24) * 2 * layer).expect("memory");
    // As a cache should be: with small pages a token's keys and values miss the TLB.
    let _ = pools.advise(Advice::HugePage);
    pools.fill(0x3c);
    let width = SHAPE.heads * SHAPE.dim;
    let q = vec![0x3f80_3f80_u32; all * width];
    let mut out = vec![0u32; all * width];
    let spans: Vec<Span> = (slots.iter().enumerate())
        .map(|(s, slots)| Span {
            first_row: s * rows,
            rows,
            slots,
        })
        .collect();
    let (mut best, start) = (f64::INFINITY, Instant::now());
    while start.elapsed().as_secs_f64() < seconds {
        let pass = Instant::now();
        for pool in pools.chunks_exact(2 * layer) {
            let (keys, values) = pool.split_at(layer);
            let q = View {
                data: q.as_ptr().cast(),
                rows: all,
                width,
                stride: width,
                element,
            };
            let out = ViewMut {
                data: out.as_mut_ptr().cast(),
                rows: all,
                width,
                stride: width,
                element,
            };
            let (keys, values) = (keys.as_ptr().cast(), values.as_ptr().cast());
            // SAFETY: the buffers have these shapes and every slot lies below `room`.
            unsafe { attend(q, SHAPE, keys, values, &spans, None, out, threads) };
        }
        best = best.min(pass.elapsed().as_secs_f64() / layers.min(24) as f64);
    }
    best
}
