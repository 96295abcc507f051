//! What a plug-in's author does, as the subcommands of `msao policy`: new, build, dev, check, inspect, test, run, bench,
//! replay, record, explain, sign, keygen, failures, doctor.
//!
//! A plug-in under development is a folder: the manifest `policy.toml`, sources in one of four languages, cases in `cases/`,
//! and after `msao policy build` the component `target/NAME.wasm`. Everything here runs the real component in the real
//! sandbox, in the same way as a node does.
//!
//! What the commands promise: an answer on standard output (with `--json` one JSON value), progress on standard error; exit
//! code 0, 1 when something is not as it should be; errors that say what to do next; and that a file is there whole or not at
//! all, whenever they are interrupted.
//!
//! Read first: [`PolicyArgs`], [`plugin::Project`], [`cases`], [`replay`].
#![forbid(unsafe_code)]

pub mod cases;
mod commands;
pub mod files;
pub mod output;
pub mod plugin;
pub mod replay;
pub mod templates;

pub use self::commands::{PolicyArgs, PolicyCommands, run};
