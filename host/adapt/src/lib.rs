//! The mathematics by which a node adapts: how sure it may be of a draft, what it may commit unverified, how parameters are
//! tuned. What it estimates of links and nodes is in `msao-link`.
//!
//! Pure: no I/O, no clock, no threads. Times are arguments, chance is a function of a seed, and all state can be stored
//! with serde and comes back the same to the bit. Whatever was measured, results are in their documented ranges.
//!
//! Read first: [`acceptance::Learner`] (from a draft's scalars to its acceptance probability), [`audit::Audit`] (what
//! confident mode may commit), [`tune::Tuner`] (which parameters to try next), [`necessity::fit`] (what a post-processor's necessity
//! is to say).
#![forbid(unsafe_code)]

pub mod acceptance;
pub mod audit;
mod linear;
pub mod necessity;
mod random;
pub mod tune;
