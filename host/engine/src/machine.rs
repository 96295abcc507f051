//! What this machine can do with matrices and how fast it reads its memory, to hold the engine against.

use std::hint::black_box;
use std::time::{Duration, Instant};

use memmap2::{Advice, MmapMut};
use tch::{Kind, Tensor};

use crate::device::{Place, Precision};
use crate::error::{EngineError, Result};

/// Bytes read for the bandwidth: far more than any cache holds.
const READ_BYTES: usize = 768 << 20;
/// The same of a GPU, which reads them in a fraction of a millisecond.
const DEVICE_READ_BYTES: usize = 4 << 30;
/// How often; the fastest counts.
const READS: usize = 9;

/// Side of the square matrices: large enough that multiplying, not memory, is the limit.
const SIDE: i64 = 1536;
/// The same on a GPU.
const DEVICE_SIDE: i64 = 8192;
/// For how long products are repeated.
const LONG_ENOUGH: Duration = Duration::from_millis(700);

/// Floating-point operations a second of libtorch's product of two square matrices, with as many threads as are set: the
/// fastest of several.
///
/// # Errors
/// If the place or the precision is not there.
pub fn matrix_rate(place: Place, precision: Precision) -> Result<f64> {
    tch::no_grad(|| {
        let options = (precision.kind(Kind::Float), place.device()?);
        let side = match place {
            Place::Cpu => SIDE,
            Place::Cuda(_) => DEVICE_SIDE,
        };
        // Of random numbers: a GPU multiplies ones faster.
        let a = Tensor::f_randn([side, side], options)?;
        let b = Tensor::f_randn([side, side], options)?;
        drop(a.f_matmul(&b)?);
        place.wait()?;
        let started = Instant::now();
        let mut best = Duration::MAX;
        while started.elapsed() < LONG_ENOUGH {
            let one = Instant::now();
            drop(a.f_matmul(&b)?);
            place.wait()?;
            best = best.min(one.elapsed());
        }
        Ok(2.0 * (side as f64).powi(3) / best.as_secs_f64())
    })
}

/// Bytes a second that are read from the place's memory: by so many threads of the processor, each its own part of one
/// large array in huge pages where the system has them, as the weights are; on a GPU by a sum over it. The fastest of
/// several.
///
/// # Errors
/// If the place is not there or has no room.
pub fn read_rate(place: Place, threads: usize) -> Result<f64> {
    Ok(match place {
        Place::Cpu => READ_BYTES as f64 / read_processor(threads.max(1))?,
        Place::Cuda(_) => DEVICE_READ_BYTES as f64 / read_gpu(place)?,
    })
}

fn read_processor(threads: usize) -> Result<f64> {
    let no_room = |error| EngineError::request(format!("memory to measure with: {error}"));
    let mut map = MmapMut::map_anon(READ_BYTES).map_err(no_room)?;
    // Only advice.
    let _ = map.advise(Advice::HugePage);
    // Written once, so that each page is real memory.
    map.fill(1);
    let part = READ_BYTES.div_ceil(threads).next_multiple_of(4096);
    let mut best = f64::INFINITY;
    for _ in 0..READS {
        let started = Instant::now();
        std::thread::scope(|scope| {
            let mut parts = map.chunks(part);
            let own = parts.next();
            for bytes in parts {
                scope.spawn(move || black_box(msao_kernels::sum_stream(bytes)));
            }
            black_box(own.map(msao_kernels::sum_stream));
        });
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn read_gpu(place: Place) -> Result<f64> {
    tch::no_grad(|| {
        let values = (DEVICE_READ_BYTES / size_of::<f32>()) as i64;
        let all = Tensor::f_ones([values], (Kind::Float, place.device()?))?;
        let mut best = f64::INFINITY;
        for _ in 0..=READS {
            place.wait()?;
            let started = Instant::now();
            drop(all.f_sum(Kind::Float)?);
            place.wait()?;
            best = best.min(started.elapsed().as_secs_f64());
        }
        Ok(best)
    })
}

/// The instructions that our own kernels compute with on this processor; without any, libtorch computes.
pub fn own_kernels() -> Option<String> {
    msao_kernels::instructions().map(|instructions| instructions.to_string())
}
