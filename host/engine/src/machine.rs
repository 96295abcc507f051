//! What this machine's processor can do with matrices, to hold the engine against.

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

use crate::device::{Place, Precision};
use crate::error::Result;

/// Side of the square matrices: large enough that multiplying, not memory, is the limit.
const SIDE: i64 = 1536;
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
        let a = Tensor::f_ones([SIDE, SIDE], options)?;
        let b = Tensor::f_ones([SIDE, SIDE], options)?;
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
        Ok(2.0 * (SIDE as f64).powi(3) / best.as_secs_f64())
    })
}

/// The instructions that our own kernels compute with on this processor; without any, libtorch computes.
pub fn own_kernels() -> Option<String> {
    msao_kernels::instructions().map(|instructions| instructions.to_string())
}
