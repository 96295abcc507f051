//! Plug-ins that misbehave, built as real components, with what a host has to say to each.
//!
//! [`corpus`] is the list; [`build::Core`] is what its components, and honest ones, are made with. The sandbox's tests run it, and so does
//! `cargo xtask prove plugins`. [`shipped()`] finds a plug-in that ships, to be misused in turn.
#![forbid(unsafe_code)]

pub mod build;
mod cases;
mod shipped;

pub use cases::{Case, Expected, MANIFEST, SCORE_MANIFEST, corpus};
pub use shipped::shipped;
