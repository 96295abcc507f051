//! The machine's own limits, measured in the same run as what is held against them.

use anyhow::Result;
use msao_engine::machine::{matrix_rate, own_kernels, read_rate};
use msao_engine::{Place, Precision};

use crate::report::Row;

/// A share of the limit above this, in percent, says that the limit was measured wrong.
pub const BELIEVABLE: f64 = 105.0;
/// How often the limit is measured again before it is given up.
const AGAIN: usize = 6;

/// What memory and arithmetic allow.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Where it computes.
    pub place: Place,
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
    ///
    /// # Errors
    /// The place is not there.
    pub fn measure(place: Place, threads: usize) -> Result<Self> {
        msao_engine::set_threads(threads);
        let f32_flops_per_s = matrix_rate(place, Precision::F32)?;
        let bf16_flops_per_s = matrix_rate(place, Precision::Bf16)?;
        Ok(Machine {
            place,
            threads,
            read_bytes_per_s: read_rate(place, threads)?,
            f32_flops_per_s,
            // A processor without instructions for bf16 multiplies it as f32, which libtorch does not.
            bf16_flops_per_s: bf16_flops_per_s.max(f32_flops_per_s),
        })
    }

    /// The same machine with its memory measured again. On one that others use too the limit moves: the faster of both
    /// readings counts.
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn again(&self) -> Result<Self> {
        let now = read_rate(self.place, self.threads)?;
        Ok(Machine {
            read_bytes_per_s: self.read_bytes_per_s.max(now),
            ..*self
        })
    }

    /// What share of the limit, in percent, work that took `seconds` reached: `bytes` read, `flops` computed. The memory is
    /// measured again behind the work, and more often where the share could not be.
    ///
    /// # Errors
    /// The memory cannot be had.
    pub fn share(&mut self, seconds: f64, bytes: f64, flops: f64, bf16: bool) -> Result<f64> {
        let mut share = f64::INFINITY;
        for _ in 0..AGAIN {
            *self = self.again()?;
            share = 100.0 * self.floor_s(bytes, flops, bf16) / seconds;
            if share <= BELIEVABLE {
                break;
            }
        }
        Ok(share)
    }

    /// The limit of memory, in words.
    pub fn memory_limit(&self) -> String {
        format!(
            "memory read at {:.1} GB/s, the fastest before and behind",
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
                match self.place {
                    Place::Cpu => format!("machine: memory read by {threads} threads"),
                    place => format!("machine: memory of {place} read"),
                },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_memory_and_arithmetic_is_the_floor() {
        let machine = Machine {
            place: Place::Cpu,
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
