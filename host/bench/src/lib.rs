//! What must be shown, measured: the figures behind `cargo xtask prove`.
//!
//! Each proof is a function that returns [`report::Row`]s, one a figure, with its aim and whether it is met. The
//! `msao-prove` binary prints them and writes them down; the tests run what a test run can afford of the same code.
//! Proofs about plug-ins are a program of their own, `msao-prove-plugins`, which builds without the feature `engine` and so
//! without libtorch.
#![deny(unsafe_code)]
// A prover's business is to print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

#[cfg(feature = "engine")]
pub mod adaptive;
#[cfg(feature = "engine")]
pub mod evaluation;
#[cfg(feature = "engine")]
pub mod hostile;
#[cfg(feature = "engine")]
pub mod loading;
#[cfg(feature = "engine")]
pub mod machine;
#[cfg(feature = "nodes")]
pub mod nodes;
#[cfg(feature = "engine")]
pub mod pair;
#[cfg(feature = "engine")]
pub mod parity;
pub mod plugins;
pub mod proof;
pub mod report;
#[cfg(feature = "engine")]
pub mod sampler;
#[cfg(feature = "engine")]
pub mod serving;
#[cfg(feature = "engine")]
pub mod speed;
#[cfg(feature = "engine")]
pub mod vqa;
