//! What an operator does from a shell: the commands that look at running nodes and change what is active on them.
//!
//! Everything here is a client of a node's operator API and has no other way in: no file of a node is read, and what the
//! API's token does not allow cannot be done. The node decides; these commands ask, watch, and say in words what came of it.
//!
//! What the commands promise: an answer on standard output (with `--json` one JSON value), progress on standard error; exit
//! code 0, or 1 when something is not as it should be; errors that say what to do next; and that what a node of another
//! version leaves out of its state, or adds to it, is no error.
//!
//! [`PolicyCommands`] and [`NodeCommands`] are lists of subcommands, [`ExplainArgs`] and [`TopArgs`] single commands; each has
//! a `run`. A program puts them where it likes: `msao` has the first among those of `msao policy`.
//!
//! Read first: [`client`], [`glance`] (what is read of a node's state), [`release`] (how plug-ins are named).
#![forbid(unsafe_code)]

pub mod client;
mod connect;
mod explain;
pub mod files;
pub mod glance;
mod help;
pub mod interrupt;
mod node;
pub mod output;
mod overlay;
mod plugin;
mod policy;
pub mod release;
mod revision;
pub mod rollout;
mod top;

pub use self::connect::Connect;
pub use self::explain::ExplainArgs;
pub use self::help::{OPERATING, grouped};
pub use self::node::NodeCommands;
pub use self::policy::PolicyCommands;
pub use self::revision::Revision;
pub use self::top::TopArgs;
