//! What plug-ins are asked and what they answer, as plain values: the records of `wit/`, field by field.
//!
//! The contract itself, with every unit and range, is the WIT package; here stand the same words for everyone who is not
//! a plug-in. [`check`] holds an answer against the contract's ranges, [`allowed()`] says what a host makes of a plan,
//! [`manifest`] reads what an author says of a plug-in, [`record`] is one decision as it is kept and replayed, [`kept`] what was
//! read of its media, [`account`] what people ask of it.
//!
//! Read first: [`PlanInput`] and [`Decision`].

pub mod account;
mod allowed;
mod calibration;
pub mod check;
pub mod kept;
pub mod manifest;
mod outcome;
mod plan;
pub mod record;
mod report;
mod request;
mod step;

pub use self::allowed::{Means, Unable, allowed};
pub use self::calibration::{Calibration, MAX_CELLS, MAX_UPDATES, Operation, Update};
pub use self::outcome::{BINS, Outcome, Status, overrides};
pub use self::plan::{Decision, MAX_MEMO, Mode, PartPlan, Plan, Rest, Route, Treatment};
pub use self::report::{Item, Report, Score, Scores};
pub use self::request::{Node, Part, PlanInput, Request, capability, flag, modality};
pub use self::step::{Action, StepInput, kind};
