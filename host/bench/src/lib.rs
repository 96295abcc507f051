//! What must be shown, measured: the figures behind `cargo xtask prove`.
//!
//! Each proof is a function that returns [`report::Row`]s, one a figure, with its aim and whether it is met. The
//! `msao-prove` binary prints them and writes them down; the tests run what a test run can afford of the same code.
#![forbid(unsafe_code)]
// A prover's business is to print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

pub mod hostile;
pub mod loading;
pub mod machine;
pub mod pair;
pub mod parity;
pub mod report;
pub mod sampler;
pub mod serving;
pub mod speed;
pub mod vqa;
