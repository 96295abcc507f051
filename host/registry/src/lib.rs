//! Which plug-ins are there, which are active, and how a new one takes over.
//!
//! What is active stands in checksummed files, so that it is as it was after any stop, whatever became of the database. A
//! new generation takes over by exchanging a pointer: requests under way finish on theirs, and the one before stays
//! compiled, so that going back needs no disk. Whatever a plug-in does, a request is answered: each call has a fallback.
//!
//! Read first: [`Plugins`] (the runtime that a node calls), [`Ticket`] (one request's way through it), [`PolicyConfig`]
//! (what the operator says), [`deployment::Deployment`] (what is active, as a state machine).
//!
//! ```text
//! Plugins ── admit ──> Ticket ── score, plan, step*, finish ──┬─> calibration   (msao-state, one writer)
//!    │ activate, canary, promote, rollback, off               ├─> decision ring (msao-state)
//!    ▼                                                        ├─> shadow        (bounded queue, dropped first)
//! Deployment ── journal ──> disk                              └─> canary trial  (compared, stepped, rolled back)
//! ```
#![forbid(unsafe_code)]

pub mod breaker;
pub mod budget;
mod bundle;
pub mod canary;
mod cases;
mod config;
pub mod deployment;
pub mod driver;
mod fallback;
mod files;
mod journal;
mod parameters;
mod plugin;
pub mod proof;
mod runtime;
mod shadow;
mod signing;
mod sticky;
mod store;

pub use self::bundle::{Bundle, BundleError};
pub use self::cases::{Case, CaseInput, CaseSummary, Cases};
pub use self::config::{
    BreakerConfig, BudgetConfig, CanaryConfig, CaseConfig, ConfigError, PolicyConfig, ShadowConfig,
};
pub use self::fallback::{fallback_plan, fallback_scores, fallback_step};
pub use self::files::FileError;
pub use self::journal::{Damaged, Entry, Found, Journal, JournalError};
pub use self::parameters::{ParameterError, Values};
pub use self::plugin::{Loaded, Loader, PolicyPlugin, PostProcessorPlugin};
pub use self::runtime::{
    Arrival, CallWatcher, Choice, Conditional, Described, GenerationStatus, InUse, KeysRefused,
    NoWords, NotTaken, OpenError, Opened, Options, Pick, Plugins, Receipt, Refused, Removed,
    RolloutStatus, Side, Site, Status, Ticket, with_scores,
};
pub use self::shadow::{Agreement, ShadowStats};
pub use self::signing::{
    KeyError, PublicKey, Serial, SignatureError, SignatureFile, SigningKeyFile, Trust,
};
pub use self::sticky::SessionKey;
pub use self::store::{Release, Store, StoreError};
// What the runtime is built on, for those who call it.
pub use msao_sandbox as sandbox;
pub use msao_state as state;
