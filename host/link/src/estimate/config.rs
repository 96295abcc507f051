//! `[estimate]`: how a node measures.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A value that may not be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("estimate.{field}: {problem}")]
pub struct EstimateConfigError {
    /// The key.
    pub field: &'static str,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// `[estimate]`.
///
/// ```
/// let config: msao_link::estimate::EstimateConfig = toml::from_str("heartbeat-ms = 250")?;
/// config.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct EstimateConfig {
    /// How often a node asks a peer for a sign of life, in ms. A link that brings nothing for twice as long stands still.
    pub heartbeat_ms: u32,
    /// Weight of a new sample in means and variances.
    pub weight: f64,
    /// Smallest transfer that shows a bandwidth, in KiB.
    pub transfer_kib: u32,
    /// For how long the shortest round trip is remembered, in ms. BBR's default (N. Cardwell and others,
    /// draft-ietf-ccwg-bbr, `MinRTTFilterLen`).
    pub rtt_window_ms: u32,
}

impl Default for EstimateConfig {
    fn default() -> EstimateConfig {
        EstimateConfig {
            heartbeat_ms: 500,
            weight: 0.125,
            transfer_kib: 64,
            rtt_window_ms: 10_000,
        }
    }
}

impl EstimateConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`EstimateConfigError`], naming the first key that is wrong, and what is allowed.
    pub fn check(&self) -> Result<(), EstimateConfigError> {
        let wrong = |field, problem| Err(EstimateConfigError { field, problem });
        if !(self.weight > 0.0 && self.weight <= 1.0) {
            return wrong(
                "weight",
                format!("is {}; allowed: above 0, at most 1", self.weight),
            );
        }
        for (field, value, least, most) in [
            ("heartbeat-ms", self.heartbeat_ms, 10, 60_000),
            ("transfer-kib", self.transfer_kib, 1, 1 << 20),
            ("rtt-window-ms", self.rtt_window_ms, 100, 600_000),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(field, format!("is {value}; allowed: {least} to {most}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_wrong_values_named() {
        assert_eq!(EstimateConfig::default().check(), Ok(()));
        for (text, named) in [
            ("weight = 0.0", "estimate.weight: is 0; allowed: above 0"),
            ("weight = nan", "estimate.weight"),
            (
                "heartbeat-ms = 1",
                "estimate.heartbeat-ms: is 1; allowed: 10 to 60000",
            ),
            ("transfer-kib = 0", "estimate.transfer-kib"),
            ("rtt-window-ms = 0", "estimate.rtt-window-ms"),
        ] {
            let config: EstimateConfig = toml::from_str(text).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(
                error.starts_with(named),
                "{error} should begin with {named}"
            );
        }
        assert!(toml::from_str::<EstimateConfig>("colour = 1").is_err());
    }
}
