//! Why a matrix could not be made or filled.

use std::sync::Arc;

use thiserror::Error;

/// Why a matrix could not be made or filled. The operations themselves cannot fail.
#[derive(Clone, Debug, Error)]
pub enum KernelError {
    /// The CPU lacks the instructions.
    #[error(
        "this CPU has neither AVX2 with FMA and F16C nor AVX-512 with VBMI and BF16; compute with libtorch instead"
    )]
    Unsupported,
    /// A matrix without values, or one whose size does not fit an address.
    #[error("a matrix of {outputs} x {inputs} cannot be packed")]
    Shape {
        /// Rows asked for.
        outputs: usize,
        /// Columns asked for.
        inputs: usize,
    },
    /// No memory for the packed values.
    #[error("no memory for {bytes} bytes of packed weights: {source}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// Rows that the matrix does not have.
    #[error("rows {first} to {end} of a matrix that has {outputs}")]
    Rows {
        /// The first row named.
        first: usize,
        /// One past the last row named.
        end: usize,
        /// Rows that the matrix has.
        outputs: usize,
    },
    /// A slice of another length than its shape asks for.
    #[error("{what} has {given} {unit}, expected {expected}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// What is counted.
        unit: &'static str,
        /// Its length.
        given: usize,
        /// The length that the shape asks for.
        expected: usize,
    },
}
