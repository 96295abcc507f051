//! The machine's own limits, measured in the same run as what is held against them.

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Result, anyhow};
use memmap2::{Advice, MmapMut};
use msao_engine::machine::{matrix_rate, own_kernels};
use msao_engine::{Place, Precision};

use crate::report::Row;

/// Bytes read for the bandwidth: far more than any cache holds.
const READ_BYTES: usize = 768 << 20;
/// How often; the fastest counts.
const READS: usize = 9;

/// What memory and arithmetic allow.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Threads that it was measured with.
    pub threads: usize,
    /// Bytes a second that all threads together read from memory.
    pub read_bytes_per_s: f64,
    /// Operations a second of an f32 matrix product.
    pub f32_flops_per_s: f64,
    /// Operations a second of a bf16 matrix product, widened to f32 where that is faster.
    pub bf16_flops_per_s: f64,
}

impl Machine {
    /// Measures with so many threads.
    pub fn measure(threads: usize) -> Result<Self> {
        msao_engine::set_threads(threads);
        let f32_flops_per_s = matrix_rate(Place::Cpu, Precision::F32)?;
        let bf16_flops_per_s = matrix_rate(Place::Cpu, Precision::Bf16)?;
        Ok(Machine {
            threads,
            read_bytes_per_s: read_bandwidth(threads)?,
            f32_flops_per_s,
            // A processor without instructions for bf16 multiplies it as f32, which libtorch does not.
            bf16_flops_per_s: bf16_flops_per_s.max(f32_flops_per_s),
        })
    }

    /// The same machine with its memory measured again: on one that others use too the limit moves.
    pub fn again(&self) -> Result<Self> {
        Ok(Machine {
            read_bytes_per_s: read_bandwidth(self.threads)?,
            ..*self
        })
    }

    /// The limit of memory, in words.
    pub fn memory_limit(&self) -> String {
        format!(
            "memory read at {:.1} GB/s just before",
            self.read_bytes_per_s / 1e9
        )
    }

    /// The figures as rows without an aim.
    pub fn rows(&self) -> Vec<Row> {
        let threads = self.threads;
        let kernels = match own_kernels() {
            Some(instructions) => format!("our own kernels compute, with {instructions}"),
            None => "our own kernels have no instructions here: libtorch computes".to_owned(),
        };
        vec![
            Row::told(
                format!("machine: memory read by {threads} threads"),
                self.read_bytes_per_s / 1e9,
                " GB/s",
            )
            .with_details(vec![kernels]),
            Row::told(
                "machine: f32 matrix product",
                self.f32_flops_per_s / 1e9,
                " GF/s",
            ),
            Row::told(
                "machine: bf16 matrix product",
                self.bf16_flops_per_s / 1e9,
                " GF/s",
            ),
        ]
    }

    /// The least time in seconds for reading so many bytes and computing so many operations: both overlap at best.
    pub fn floor_s(&self, bytes: f64, flops: f64, bf16: bool) -> f64 {
        let rate = if bf16 {
            self.bf16_flops_per_s
        } else {
            self.f32_flops_per_s
        };
        (bytes / self.read_bytes_per_s).max(flops / rate)
    }
}

/// Bytes a second that `threads` threads read together: each sums its own part of one large array, which lies in huge
/// pages where the system has them, as the weights do.
fn read_bandwidth(threads: usize) -> Result<f64> {
    let threads = threads.max(1);
    let mut map = MmapMut::map_anon(READ_BYTES)?;
    // Only advice.
    let _ = map.advise(Advice::HugePage);
    // Written once, so that each page is real memory.
    map.fill(1);
    let words: &[[u8; 8]] = map.as_chunks().0;
    let part = words.len().div_ceil(threads);
    let mut best = f64::INFINITY;
    for _ in 0..READS {
        let started = Instant::now();
        let sum = std::thread::scope(|scope| {
            let readers: Vec<_> = words
                .chunks(part)
                .map(|words| scope.spawn(move || sum(words)))
                .collect();
            readers.into_iter().try_fold(0u64, |total, reader| {
                reader.join().map(|part| total.wrapping_add(part))
            })
        });
        black_box(sum.map_err(|_| anyhow!("a reading thread failed"))?);
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(READ_BYTES as f64 / best)
}

/// In several sums side by side, so that adding is never what is waited for.
fn sum(words: &[[u8; 8]]) -> u64 {
    let (chunks, rest) = words.as_chunks::<32>();
    let mut lanes = [0u64; 32];
    for chunk in chunks {
        for (lane, word) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(u64::from_le_bytes(*word));
        }
    }
    let rest = rest.iter().map(|word| u64::from_le_bytes(*word));
    lanes.into_iter().chain(rest).fold(0u64, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let words: Vec<[u8; 8]> = (0u64..1000).map(u64::to_le_bytes).collect();
        assert_eq!(sum(&words), 499_500);
    }

    #[test]
    fn the_slower_of_memory_and_arithmetic_is_the_floor() {
        let machine = Machine {
            threads: 1,
            read_bytes_per_s: 10.0,
            f32_flops_per_s: 100.0,
            bf16_flops_per_s: 200.0,
        };
        assert_eq!(machine.floor_s(10.0, 50.0, false), 1.0);
        assert_eq!(machine.floor_s(10.0, 400.0, false), 4.0);
        assert_eq!(machine.floor_s(10.0, 400.0, true), 2.0);
    }
}
