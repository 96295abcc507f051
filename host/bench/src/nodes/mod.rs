//! Nodes as processes, and a client of them: what the demo shows, the proofs measure and `cargo xtask record` writes down.

pub mod demo;
#[cfg(feature = "engine")]
pub mod faults;
#[cfg(feature = "engine")]
pub mod floods;
#[cfg(feature = "engine")]
pub mod identity;
#[cfg(feature = "engine")]
pub mod link;
#[cfg(feature = "engine")]
pub mod overhead;
#[cfg(feature = "engine")]
pub mod overload;
#[cfg(feature = "engine")]
pub mod paced;
pub mod record;
#[cfg(feature = "engine")]
pub mod swaps;

#[cfg(feature = "engine")]
pub use msao_pair::{between, pair};
pub use msao_pair::{client, process};
