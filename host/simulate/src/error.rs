//! What cannot be simulated.

use msao_link::shaper::LinkError;
use thiserror::Error;

/// Why a simulation does not run.
#[derive(Debug, Error)]
pub enum SimulateError {
    /// A value that may not be.
    #[error("{field}: {problem}")]
    Value {
        /// Where, for instance `engines.twin.pass-ms` or `questions[7].answer-tokens`.
        field: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// No TOML, a key that does not exist, or a value of the wrong type.
    #[error("the {what} cannot be read: {error}")]
    Syntax {
        /// What was read: `profile` or `world`.
        what: &'static str,
        /// What is wrong.
        error: Box<toml::de::Error>,
    },
    /// A link that cannot be.
    #[error("edges[{group}].{error}")]
    Link {
        /// Of this group of edges.
        group: usize,
        /// What is wrong with it.
        error: Box<LinkError>,
    },
    /// A plug-in that cannot be used.
    #[error("{0}")]
    Plugin(String),
}

pub(crate) type Result<T> = std::result::Result<T, SimulateError>;

/// A value that may not be, unless it may.
pub(crate) fn must(
    allowed: bool,
    field: impl FnOnce() -> String,
    problem: impl FnOnce() -> String,
) -> Result<()> {
    if allowed {
        return Ok(());
    }
    Err(SimulateError::Value {
        field: field(),
        problem: problem(),
    })
}

/// A number in a closed range, by the name of its field.
pub(crate) fn within(
    field: impl FnOnce() -> String,
    value: f64,
    least: f64,
    most: f64,
) -> Result<()> {
    let allowed = value >= least && value <= most;
    must(allowed, field, || {
        format!("is {value}; allowed: {least} to {most}")
    })
}
