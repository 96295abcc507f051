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

    /// Which shares of the limit, in percent, `work` reaches in so many turns; it tells what one of its steps took, in
    /// seconds, which reads `bytes` and computes `flops`. Memory is read before and behind each turn, and a turn is held
    /// against the mean of the two readings: on a machine that others use too the limit moves from one second to the next.
    ///
    /// # Errors
    /// The memory cannot be had, or the work fails.
    pub fn in_turns(
        &self,
        turns: usize,
        (bytes, flops, bf16): (f64, f64, bool),
        mut work: impl FnMut() -> Result<f64>,
    ) -> Result<Shares> {
        let read = || read_rate(self.place, self.threads);
        let mut before = read()?;
        let mut all = Shares::default();
        for _ in 0..turns {
            let seconds = work()?;
            let behind = read()?;
            let machine = Machine {
                read_bytes_per_s: (before + behind) / 2.0,
                ..*self
            };
            let share = 100.0 * machine.floor_s(bytes, flops, bf16) / seconds;
            all.turns.push((share, machine.read_bytes_per_s));
            before = behind;
        }
        all.turns
            .sort_by(|(one, _), (other, _)| one.total_cmp(other));
        Ok(all)
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

/// Shares of the limit that were reached in turn.
#[derive(Debug, Default)]
pub struct Shares {
    /// In percent, the least first, each with the bytes a second that memory gave beside it.
    turns: Vec<(f64, f64)>,
}

impl Shares {
    /// The one in the middle, in percent.
    pub fn median(&self) -> f64 {
        let middle = self.turns.get(self.turns.len() / 2);
        middle.map_or(f64::NAN, |(share, _)| *share)
    }

    /// All of them, in words.
    pub fn words(&self) -> String {
        let shares = self.turns.iter().map(|(share, _)| format!("{share:.0}"));
        let memory = self.turns.iter().map(|(_, memory)| memory / 1e9);
        let slowest = memory.clone().fold(f64::INFINITY, f64::min);
        let fastest = memory.fold(0.0, f64::max);
        format!(
            "the median of {} %; memory was read at {slowest:.1} to {fastest:.1} GB/s beside them",
            shares.collect::<Vec<_>>().join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_share_counts() {
        let shares = Shares {
            turns: vec![(70.0, 20e9), (85.0, 19e9), (90.0, 22e9)],
        };
        assert_eq!(shares.median(), 85.0);
        let words = "the median of 70, 85, 90 %; memory was read at 19.0 to 22.0 GB/s beside them";
        assert_eq!(shares.words(), words);
        assert!(Shares::default().median().is_nan());
    }

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
