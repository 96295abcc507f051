//! `msao calibrate`: better values for what a policy declares as tunable, found in the simulator over recorded traffic.
//!
//! The real component is asked about the same requests again and again, each time with other parameters, in a world that the
//! records tell of (`msao_simulate`). Which parameters come next says Bayesian optimisation (`msao_adapt::tune`): the mean
//! latency and what it costs are to be low, while the audits' bound on unverified disagreement holds. What is found is a
//! revision of parameters for the ordinary canary: nothing here changes a node by itself.
//!
//! Promises:
//! - The same policy, records, world and seed give the same trace on every machine with the same mathematical library, also
//!   where a run was interrupted and taken up again.
//! - What is proposed kept the constraint, and was better than the declared defaults, in the simulator. Where nothing was, nothing
//!   is proposed.
//! - Files are there whole or not at all; after an interruption all that was found so far is there.
//!
//! Read first: [`CalibrateArgs`], [`search::Search`], [`judge::Judge`]; whoever searches in another way begins with
//! [`scene::SceneArgs`] and [`play::Player`].
#![forbid(unsafe_code)]

mod command;
pub mod judge;
pub mod play;
mod plot;
mod progress;
mod report;
pub mod scene;
pub mod search;
mod state;
pub mod tunable;

pub use self::command::CalibrateArgs;
