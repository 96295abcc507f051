//! A request on its way to a plan: its media fetched and decoded, its prompt laid out, what plug-ins see of it.

pub mod fetch;
mod prepare;
mod retain;
mod rows;

pub use self::prepare::{Medium, Prompt, prepare};
pub use self::retain::{Kept, Retained, draft_treatment, kept, target_treatment};
pub use self::rows::{known, parts, report, this_node};
