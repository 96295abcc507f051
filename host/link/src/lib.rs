//! The link between two nodes: shaped, and measured.
//!
//! [`shaper`] puts a link of given bandwidth, delay, jitter, stalls and cuts under any byte stream, in the process and
//! without root: for demonstrations, tests and proofs. [`estimate`] turns transfers, heartbeats and passes into the
//! figures of a node that policies see; it does no I/O and is told the time.
//!
//! Promises: bytes come out in the order in which they went in, whatever the jitter; what is held is bounded; the same
//! seed and the same writes give the same times under tokio's paused clock. Estimates are never negative (but for -1,
//! unknown), never NaN, whatever the input.
//!
//! Read first: [`shaper::Link`], [`shaper::LinkConfig`], [`estimate::LinkEstimator`], [`estimate::Figures`].
#![forbid(unsafe_code)]

pub mod estimate;
pub mod shaper;
