//! An edge and a cloud node, a process each, with a link between them and a client beside the edge: what proofs, the demo and
//! `msao bench run` ask.
//!
//! Nothing here knows the engine: nodes are started as `msao serve` and asked over HTTP, as anybody would.
//!
//! Read first: [`pair::Pair`], [`client::ask`], [`asker::PairAsker`].
#![forbid(unsafe_code)]

pub mod asker;
pub mod between;
pub mod client;
pub mod pair;
pub mod process;
