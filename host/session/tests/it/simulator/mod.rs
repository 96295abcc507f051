//! Both sides of a session on a virtual clock, from a seed: toy models, a link that delays and breaks, any policy.
//!
//! Every frame goes through the codec. The toy engines keep their orders in a queue as the real one does, and hold what
//! they are asked against what they have read, so that a wrong rollback shows at once.
// The helpers beside the tests may fail as tests do.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod engine;
mod link;
mod policy;
mod properties;
mod rng;
mod scenario;
mod speed;
mod toy;
mod world;
