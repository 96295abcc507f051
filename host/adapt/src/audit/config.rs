//! What an operator says of confident mode.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::random::{Stream, uniform_at};

/// Why a configuration, or what was stored of an audit, was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AuditConfigError {
    /// A figure out of its range.
    #[error("{field} is {value}; allowed: {allowed}")]
    Range {
        /// Its name.
        field: &'static str,
        /// What it is.
        value: f64,
        /// What it may be.
        allowed: &'static str,
    },
    /// Evidence that audits cannot have given.
    #[error("stored evidence of audits does not fit together; begin the class anew")]
    Evidence,
}

/// Budget, certainty and audits of a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// Share of requests that may have a token committed unverified that the target would not have chosen, in `(0, 1)`.
    pub budget: f64,
    /// Chance that a threshold over budget opens, at most, in `(0, 1)`.
    pub delta: f64,
    /// Share of requests that are audited, in `(0, 1]`.
    pub rate: f64,
    /// Seed of the coin.
    pub seed: u64,
    /// Audits between two false alarms of the detector, on average, at least: where the share is exactly the budget.
    /// Far more where it is below, as it mostly is. In `[1, 10^12]`.
    pub alarm_audits: f64,
}

impl AuditConfig {
    /// Budget 1%, delta 0.05, every tenth request audited, 20,000 audits between false alarms.
    pub const fn new(seed: u64) -> AuditConfig {
        AuditConfig {
            budget: 0.01,
            delta: 0.05,
            rate: 0.1,
            seed,
            alarm_audits: 20_000.0,
        }
    }

    /// Whether all is in range.
    ///
    /// # Errors
    /// The first figure that is not.
    pub fn check(&self) -> Result<(), AuditConfigError> {
        let within = |x: f64| x > 0.0 && x < 1.0;
        let range = |field, value, allowed, fits: bool| {
            if fits {
                Ok(())
            } else {
                Err(AuditConfigError::Range {
                    field,
                    value,
                    allowed,
                })
            }
        };
        let AuditConfig {
            budget,
            delta,
            rate,
            alarm_audits,
            ..
        } = *self;
        range("budget", budget, "above 0 and below 1", within(budget))?;
        range("delta", delta, "above 0 and below 1", within(delta))?;
        range(
            "rate",
            rate,
            "above 0, at most 1",
            rate > 0.0 && rate <= 1.0,
        )?;
        let fits = (1.0..=1e12).contains(&alarm_audits);
        range("alarm_audits", alarm_audits, "1 to 10^12", fits)
    }

    /// Whether the request of this number is audited: the same answer at any time and on any machine.
    pub fn coin(&self, request: u64) -> bool {
        uniform_at(self.seed, Stream::Coin, request) < self.rate
    }
}
