//! Nodes, links and queues on a virtual clock, and the same policies deciding about them: what a policy would come to, without
//! nodes.
//!
//! What runs here is the real thing wherever it has no clock of its own: the session's two machines (`msao_session`), the
//! rules that a host lays over a plan (`msao_core::offload::allowed`), how many drafts are worth a pass
//! (`msao_session::depth`), links' shapes and the nodes' estimators (`msao_link`), and policies as components in the sandbox.
//! Engines and models are not: an engine is what its passes cost ([`EngineCost`]), an answer is drawn from a seed
//! ([`traffic::Guessing`]). So figures are as good as the profile, and say most beside others of the same profile.
//!
//! Promises:
//! - No clock is read and nothing is waited for. The same world, traffic, deciders and seed give the same results to the bit.
//! - Every question ends once; what links count is what requests are told, but for what came after their ends.
//! - A world, a profile or traffic that cannot be is refused before anything runs, by the name of the field.
//!
//! What is left out: cuts of links, whole nodes that die, prompts that are read once for several, and the audits' own share of
//! requests.
//!
//! Read first: [`run()`], [`World`], [`Profile`], [`traffic::Traffic`], [`Decides`].
#![forbid(unsafe_code)]

mod agenda;
mod cells;
mod cores;
mod decide;
mod engine;
mod error;
mod link;
mod node;
mod profile;
mod recorded;
mod results;
mod retention;
mod run;
mod script;
mod simulation;
mod slab;
pub mod traffic;
mod world;

pub use self::decide::{Components, Decides, Failed, Plain};
pub use self::error::SimulateError;
pub use self::profile::{EngineCost, EngineLimits, NodeCost, NodeCosts, PluginCost, Profile};
pub use self::results::{Ended, Results, Spread, Summary};
pub use self::simulation::{Options, Progress, run};
pub use self::world::{CloudGroup, EdgeGroup, Rules, World};
