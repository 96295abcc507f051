//! The link between two nodes: shaped.
//!
//! [`shaper`] puts a link of given bandwidth, delay, jitter, stalls and cuts under any byte stream, in the process and
//! without root: for demonstrations, tests and proofs.
//!
//! Promises: bytes come out in the order in which they went in, whatever the jitter; what is held is bounded; the same
//! seed and the same writes give the same times under tokio's paused clock.
//!
//! Read first: [`shaper::Link`], [`shaper::LinkConfig`].
#![forbid(unsafe_code)]

pub mod shaper;
