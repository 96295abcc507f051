//! What MSAO's plug-ins are written with, in Rust: policies, which decide how a request runs, and post-processors, which
//! say how much of it matters.
//!
//! It promises that a plug-in sees the same types and the same arithmetic in a unit test as in the sandbox, and that the
//! component needs nothing from its host. Units and ranges of every field are those of `wit/types.wit`; the types here are
//! made from it. Read first: [`Policy`], [`PlanInput`], [`PostProcessor`].
//!
//! # A policy
//!
//! ```
//! use msao_plugin::prelude::*;
//!
//! // In the order of `policy.toml`.
//! parameters! {
//!     struct Settings {
//!         /// Round trip above which nothing is drafted, ms.
//!         rtt_limit: f64,
//!     }
//! }
//!
//! struct Patient;
//!
//! impl Policy for Patient {
//!     fn plan(input: &PlanInput) -> Decision {
//!         let settings = Settings::read(input.params);
//!         let peer = input.peers().find(|(_, node)| node.up && node.is(capability::VERIFY));
//!         Decision::Run(match peer {
//!             Some((row, node)) if node.rtt_ms <= settings.rtt_limit => Plan::plain(Route::Speculate, row),
//!             Some((row, _)) => Plan::plain(Route::Cloud, row),
//!             None => Plan::plain(Route::Edge, 0),
//!         })
//!     }
//!
//!     fn step(input: &StepInput, _memo: &[u8]) -> Action {
//!         if input.unsent >= 4 { Action::Send } else { Action::Draft }
//!     }
//! }
//!
//! export_policy!(Patient);
//!
//! // What would be a unit test.
//! let near = Scene::new()
//!     .params(&[60.0])
//!     .edge(|_| {})
//!     .peer(|node| node.rtt_ms = 20.0);
//! assert_eq!(near.plan::<Patient>().route, Route::Speculate);
//! ```
//!
//! The crate of a plug-in is a `cdylib` (and a `rlib`, for its tests) that begins with
//! `#![cfg_attr(target_arch = "wasm32", no_std)]`. One that wants Rust's std in the sandbox depends on this crate with
//! `default-features = false` instead; its component is larger and imports some of WASI.

#![no_std]

extern crate alloc;
#[cfg(not(target_arch = "wasm32"))]
extern crate std;

#[cfg(any(test, all(target_arch = "wasm32", feature = "runtime")))]
mod arena;
#[doc(hidden)]
pub mod bindings;
mod calibration;
mod export;
pub mod math;
mod memo;
mod parameters;
mod policy;
mod postprocessor;
pub mod rules;
#[cfg(all(target_arch = "wasm32", feature = "runtime"))]
mod runtime;
pub mod sparsity;
pub mod testing;
mod words;

pub use self::bindings::offload_policy::exports::msao::offload::policy::Action;
pub use self::bindings::shared::msao::offload::types::{
    Calibration, Decision, Item, Mode, Node, Operation, Outcome, Part, PartPlan, Plan, Report,
    Request, Rest, Route, Score, Scores, Treatment, Update,
};
pub use self::calibration::{Cell, Rising};
pub use self::memo::{MAX_MEMO, MemoField, MemoReader, MemoWriter};
pub use self::parameters::FromParameter;
pub use self::policy::{Event, Explain, PlanInput, Policy, StepInput};
pub use self::postprocessor::{ItemView, PostProcessor, ScoreInput};
pub use self::words::{BINS, capability, flag, modality, overrides, status};

/// For macros.
#[doc(hidden)]
pub mod __private {
    pub use crate::bindings::explanation::exports::msao::offload::explanation::Guest as Explanation;
    pub use crate::bindings::offload_policy::exports::msao::offload::policy::Guest as OffloadPolicy;
    pub use crate::bindings::probe_postprocessor::exports::msao::offload::postprocessor::Guest as ProbePostprocessor;
    pub use alloc::string::String;
    pub use alloc::vec::Vec;
}

/// Everything that a plug-in usually names.
pub mod prelude {
    pub use crate::testing::{Probe, Scene};
    pub use crate::{
        Action, Calibration, Cell, Decision, Event, Explain, Item, ItemView, Mode, Node, Operation,
        Outcome, Part, PartPlan, Plan, PlanInput, Policy, PostProcessor, Report, Request, Rest,
        Route, Score, ScoreInput, Scores, StepInput, Treatment, Update, capability, export_policy,
        export_postprocessor, flag, memo, modality, parameters,
    };
    pub use alloc::string::String;
    pub use alloc::vec::Vec;
    pub use alloc::{format, vec};
}
