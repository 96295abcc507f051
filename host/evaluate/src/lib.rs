//! `msao bench`: evaluations that can be run again, and what they say.
//!
//! A specification ([`spec::Spec`]) names data sets, policies, links and ways in which requests come. Out of it a plan
//! ([`plan::Plan`]) is made: short turns, in which one policy is asked some items, so ordered that drift of the machine hits all
//! policies alike. Whoever can ask nodes ([`run::Asker`]) is handed one turn after the other; what comes back is kept
//! ([`rows`]), and from that alone reports and comparisons are made. Nothing here knows of nodes, HTTP or models.
//!
//! Promises:
//! - Everything in a specification is checked before anything starts.
//! - A run that ended early, for whatever reason, goes on where it was: finished turns stay, a half-done one is repeated.
//! - A folder holds results of one specification on one machine with one build; anything else is refused by name.
//! - What was not measured is empty: never 0, never guessed.
//! - The same folder gives the same report, byte for byte.
//!
//! Read first: [`spec::Spec`], [`run::Asker`], [`report::Analysis`].
#![forbid(unsafe_code)]

pub mod capacity;
mod command;
pub mod compare;
mod csv;
mod energy;
pub mod manifest;
pub mod plan;
pub mod profiled;
mod random;
pub mod report;
pub mod rounds;
pub mod rows;
pub mod run;
pub mod simulated;
pub mod spec;
pub mod stats;
pub mod trace;

pub use self::command::{BenchArgs, Elsewhere, With};
