//! Synthetic traffic from a seed: requests, nodes, events and outcomes as a node would see them, without a node.
//!
//! For recording decision sets, for proofs and for trying a policy. It is a simulation, and says so wherever its figures are
//! shown: times come from a few formulas, acceptance from a coin whose probability the policy is told. The same seed gives
//! the same traffic on every machine; a policy's answers change what follows within a request, never the next request.

mod play;
mod random;
mod set;
mod traffic;

pub use self::play::{Played, play};
pub use self::random::Random;
pub use self::set::{RecordSetError, record_set};
pub use self::traffic::{Driver, Scenario, World};
