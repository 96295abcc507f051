//! The codec: golden vectors, round trips, hostile bytes.
// The helpers beside the tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod golden;
mod hostile;
mod samples;
mod strategies;
mod stream;
