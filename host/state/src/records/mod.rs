//! Decisions as they were taken, kept for replay and for people who ask why.

mod config;
mod finite;
mod jsonl;
mod ring;
mod shelf;

use thiserror::Error;

pub use self::config::{RecordConfig, Redact, Wanted};
pub use self::jsonl::{JsonlError, Line, Recorded, read_jsonl, write_line};
pub use self::ring::{Exported, RecordRing, RecordStats};
use crate::storage::StorageError;

/// Why records cannot be kept or read.
#[derive(Debug, Error)]
pub enum RecordError {
    /// A value of the configuration that may not be.
    #[error("records.{field}: {problem}")]
    Config {
        /// The key.
        field: &'static str,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is kept is not what this program writes.
    #[error("a kept record cannot be read: {0}")]
    Unreadable(String),
    /// The export cannot be written.
    #[error("the records cannot be written out: {0}")]
    Output(#[from] std::io::Error),
    /// No randomness for the choice of what is sampled.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The ring is closed.
    #[error("the records are closed")]
    Closed,
}
