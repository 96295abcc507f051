//! Matrix products, attention and row operations on the CPU, for the shapes that decoding needs.
//!
//! A general library is made for products with many rows. A decoding step has one row or a few, so its time is the
//! time in which the weights come from memory, and what counts is to read them once, in order and at full speed. Here
//! weights are packed for that ([`PackedMatrix`]), in f32, bf16 or int8, and [`linear`] streams them through registers
//! that hold all rows' sums. [`attend`] works on many sequences of different lengths at once over a paged cache.
//! Products with hundreds of rows run through the same kernels.
//!
//! What is promised:
//! - **Sums are in f32**, whatever the weights and activations are; bf16 results are rounded once, to nearest even.
//! - **A row's product is the same to the bit** whichever rows stand beside it and however many threads there are: a
//!   token verified among others gets the logits that it would get alone. Attention keeps this only as long as a
//!   context is not cut for the threads, which changes the order of its sums and so the last bits.
//! - **Threads are libgomp's**, the team that libtorch uses in the same process, so two pools do not fight over the
//!   cores. Each function takes the number to use and stays on the calling thread where the work is too small to share.
//! - **Nothing runs where the instructions are missing**: [`supported`] says so, and [`PackedMatrix::new`] refuses.
//!   The kernels are there for AVX-512 BF16 and for AVX2 ([`Instructions`]); the best that the CPU has is used. The two
//!   differ in the last bits, so what is promised to the bit holds on one of them.
//!
//! The operations are `unsafe` because they read and write through the pointers of views. They ask for what Rust's
//! references would guarantee: memory that lives, is large enough and is not written by another thread meanwhile.
//!
//! Read first: [`PackedMatrix`], [`linear`], [`attend`].

mod error;
mod ffi;
mod instructions;
mod matrix;
mod operations;
mod stream;
mod view;

pub use self::error::KernelError;
pub use self::instructions::{Instructions, instructions, supported};
pub use self::matrix::{Format, PackedMatrix};
pub use self::operations::{
    MOST_HEAD_DIM, add, attend, gated_silu, gather, linear, rms_norm, rotate_and_store,
};
pub use self::stream::sum_stream;
pub use self::view::{Element, HeadShape, Span, View, ViewMut};
