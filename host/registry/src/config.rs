//! `[policy]`: what the operator says of plug-ins. Limits of a call are the sandbox's (`[sandbox]`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::parameters::Values;
use crate::signing::{PublicKey, Trust};

/// A value that may not be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("policy.{field}: {problem}")]
pub struct ConfigError {
    /// The key.
    pub field: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// `[policy]`.
///
/// ```
/// let config: msao_registry::PolicyConfig = toml::from_str(
///     r#"
///     boot = "policies/fixed-speculate"
///     boot-postprocessor = "plugins/mas-joint"
///
///     [keys]
///     ops = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
///
///     [canary]
///     min-samples = 500
///
///     [pins.fixed-speculate]
///     gamma = 6
///     "#,
/// )?;
/// config.check()?;
/// assert_eq!(config.canary.steps, [0.01, 0.05, 0.25, 1.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// The policy that a fresh node starts with: an author's folder or a component with `policy.toml` beside it. None: the
    /// built-in fallback.
    pub boot: Option<PathBuf>,
    /// The post-processor that a fresh node starts with.
    pub boot_postprocessor: Option<PathBuf>,
    /// Whether plug-ins without a signature are taken.
    pub allow_unsigned: bool,
    /// Public keys whose signatures are taken, by a name for people.
    pub keys: BTreeMap<String, PublicKey>,
    /// Public keys that are not trusted any more. What they signed is not run either, from the next start or SIGHUP on.
    pub revoked: Vec<PublicKey>,
    /// Parameters that stay as the operator sets them: `[policy.pins.NAME]`.
    pub pins: Values,
    /// How a candidate takes over step by step.
    pub canary: CanaryConfig,
    /// Plug-ins that run beside the active one without effect.
    pub shadow: ShadowConfig,
    /// When failing exports are left alone.
    pub breaker: BreakerConfig,
    /// When a failing generation gives way.
    pub error_budget: BudgetConfig,
    /// Failing inputs that are kept.
    pub failures: CaseConfig,
    /// Instances made before a generation gets its first request; 0 to 1024.
    pub warm: u32,
}

/// `[policy.canary]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CanaryConfig {
    /// Shares of sessions that the candidate gets, step by step; rising, the last one 1.
    pub steps: Vec<f64>,
    /// Requests that must have reported at each step, of the candidate and of the stable generation.
    pub min_samples: u32,
    /// A request that has not reported after so long is lost, s.
    pub report_within_s: u32,
    /// How much larger the share of failed or lost requests may be: 0.01 is one of a hundred.
    pub errors: f64,
    /// How much larger the share of requests may be whose client left before the answer's end.
    pub cancelled: f64,
    /// How much larger the share of requests may be that were refused after they were planned.
    pub refused: f64,
    /// How much larger the share of requests may be that the host ran otherwise than planned.
    pub overrides: f64,
    /// How much longer the 95th percentile of time to first token and of total time may be: 0.1 is a tenth.
    pub latency: f64,
    /// How much higher the mean cost may be: 0.1 is a tenth.
    pub cost: f64,
}

impl Default for CanaryConfig {
    fn default() -> Self {
        CanaryConfig {
            steps: vec![0.01, 0.05, 0.25, 1.0],
            min_samples: 200,
            report_within_s: 300,
            errors: 0.01,
            cancelled: 0.02,
            refused: 0.01,
            overrides: 0.05,
            latency: 0.1,
            cost: 0.1,
        }
    }
}

/// `[policy.shadow]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ShadowConfig {
    /// Requests that may wait for the shadow; more are dropped, and counted.
    pub queue: u32,
}

impl Default for ShadowConfig {
    fn default() -> Self {
        ShadowConfig { queue: 64 }
    }
}

/// `[policy.breaker]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures in a row, on different inputs, that open it.
    pub failures: u32,
    /// The first back-off, ms. It doubles with each probe that fails.
    pub back_off_ms: u64,
    /// The longest back-off, ms.
    pub longest_ms: u64,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        BreakerConfig {
            failures: 5,
            back_off_ms: 1000,
            longest_ms: 10_000,
        }
    }
}

impl BreakerConfig {
    /// Calls that a breaker lets through within `window_ms` if all of them fail, counted up to `enough`.
    fn failing_calls(&self, window_ms: u64, enough: u64) -> u64 {
        let mut calls = u64::from(self.failures);
        let mut back_off_ms = self.back_off_ms;
        let mut now_ms = back_off_ms;
        while calls < enough && now_ms <= window_ms {
            calls += 1;
            back_off_ms = back_off_ms.saturating_mul(2).min(self.longest_ms);
            now_ms = now_ms.saturating_add(back_off_ms);
        }
        calls.min(enough)
    }
}

/// `[policy.error-budget]`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct BudgetConfig {
    /// Different inputs on which a generation may not fail within the window ...
    pub inputs: u32,
    /// ... or this share of the window's requests that it was asked about, if that is more.
    pub share: f64,
    /// The window, s.
    pub window_s: u32,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        BudgetConfig {
            inputs: 16,
            share: 0.01,
            window_s: 300,
        }
    }
}

impl BudgetConfig {
    pub(crate) fn window_ms(&self) -> u64 {
        u64::from(self.window_s) * 1000
    }
}

/// `[policy.failures]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CaseConfig {
    /// Failing inputs kept at most; the oldest go.
    pub keep: u32,
    /// Their size at most, MiB.
    pub mib: u32,
}

impl Default for CaseConfig {
    fn default() -> Self {
        CaseConfig { keep: 256, mib: 64 }
    }
}

impl PolicyConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError`], naming the first key that is wrong, and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |field: &str, problem: String| {
            Err(ConfigError {
                field: field.to_owned(),
                problem,
            })
        };
        let steps = &self.canary.steps;
        let rising = steps.is_sorted_by(|a, b| a < b);
        let positive = steps.iter().all(|&step| step > 0.0);
        // With all sessions from the beginning there would be nothing to compare with.
        if !rising || !positive || steps.len() < 2 || steps.last() != Some(&1.0) {
            return wrong(
                "canary.steps",
                format!("is {steps:?}; allowed: two or more rising shares above 0, the last one 1"),
            );
        }
        let canary = &self.canary;
        for (field, value) in [
            ("canary.errors", canary.errors),
            ("canary.cancelled", canary.cancelled),
            ("canary.refused", canary.refused),
            ("canary.overrides", canary.overrides),
            ("canary.latency", canary.latency),
            ("canary.cost", canary.cost),
            ("error-budget.share", self.error_budget.share),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return wrong(field, format!("is {value}; allowed: 0 to 1"));
            }
        }
        for (field, value, least, most) in [
            ("canary.min-samples", canary.min_samples, 20, 1_000_000),
            ("canary.report-within-s", canary.report_within_s, 1, 86_400),
            ("shadow.queue", self.shadow.queue, 1, 65_536),
            ("breaker.failures", self.breaker.failures, 1, 1_000_000),
            ("error-budget.inputs", self.error_budget.inputs, 1, 60_000),
            (
                "error-budget.window-s",
                self.error_budget.window_s,
                1,
                86_400,
            ),
            ("failures.keep", self.failures.keep, 0, 100_000),
            ("failures.mib", self.failures.mib, 1, 65_536),
            ("warm", self.warm, 0, 1024),
        ] {
            if !(least..=most).contains(&value) {
                return wrong(field, format!("is {value}; allowed: {least} to {most}"));
            }
        }
        let breaker = &self.breaker;
        if breaker.back_off_ms == 0 || breaker.longest_ms < breaker.back_off_ms {
            return wrong(
                "breaker.back-off-ms",
                format!(
                    "is {}; allowed: 1 to longest-ms, which is {}",
                    breaker.back_off_ms, breaker.longest_ms
                ),
            );
        }
        // Calls that an open breaker keeps away cost nothing: what is never reached never brings a generation down.
        let inputs = u64::from(self.error_budget.inputs);
        let most = breaker.failing_calls(self.error_budget.window_ms(), inputs);
        if most < inputs {
            return wrong(
                "error-budget.inputs",
                format!(
                    "is {inputs}, but the breaker lets at most {most} failing calls through in {} s: a generation that \
                     always fails would stay. Lower it or breaker.longest-ms, or raise error-budget.window-s",
                    self.error_budget.window_s
                ),
            );
        }
        for (number, key) in self.revoked.iter().enumerate() {
            if self.revoked.iter().take(number).any(|other| other == key) {
                return wrong("revoked", format!("{key} is there twice"));
            }
        }
        Ok(())
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust {
            keys: self.keys.clone(),
            revoked: self.revoked.clone(),
            allow_unsigned: self.allow_unsigned,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_wrong_values_named() {
        assert_eq!(PolicyConfig::default().check(), Ok(()));
        for (text, named) in [
            ("[canary]\nsteps = [0.5, 0.25, 1.0]", "policy.canary.steps"),
            ("[canary]\nsteps = [0.5]", "policy.canary.steps"),
            ("[canary]\nsteps = []", "policy.canary.steps"),
            ("[canary]\nsteps = [1.0]", "policy.canary.steps"),
            ("[canary]\nsteps = [0.0, 1.0]", "policy.canary.steps"),
            ("[canary]\nmin-samples = 1", "policy.canary.min-samples"),
            ("[canary]\nlatency = nan", "policy.canary.latency"),
            ("[shadow]\nqueue = 0", "policy.shadow.queue"),
            ("[breaker]\nback-off-ms = 0", "policy.breaker.back-off-ms"),
            ("[error-budget]\ninputs = 0", "policy.error-budget.inputs"),
            // Fourteen are let through: five, then at 1, 3, 7, 15, 31, 63, 123, 183 and 243 s.
            (
                "[breaker]\nlongest-ms = 60000",
                "policy.error-budget.inputs: is 16, but the breaker lets at most 14",
            ),
            (
                "[error-budget]\nwindow-s = 10",
                "policy.error-budget.inputs",
            ),
            (
                "[error-budget]\ninputs = 60000",
                "policy.error-budget.inputs",
            ),
        ] {
            let config: PolicyConfig = toml::from_str(text).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error} should name {named}");
        }
        for text in ["colour = 1", "[canary]\ncolour = 1", "keys.ops = \"ab\""] {
            assert!(toml::from_str::<PolicyConfig>(text).is_err(), "{text}");
        }
    }
}
