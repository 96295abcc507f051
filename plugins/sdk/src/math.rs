//! Functions of f64 beyond `+ - * /`, the same to the last bit in the sandbox and in a native test.

pub use libm::{ceil, exp, fabs as abs, floor, log as ln, pow, round, sqrt, sqrtf};

/// The logistic function `1 / (1 + e^-x)`, in `[0, 1]`.
pub fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + exp(-x))
}
