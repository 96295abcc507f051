//! `[link]`: what a link is to be like.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bandwidth::Bandwidth;
use super::trace::TraceFormat;

/// Longest delay, in ms: beyond it nobody would wait for an answer.
const MAX_DELAY_MS: f64 = 60_000.0;
/// Largest queue and window, in KiB.
const MAX_KIB: u32 = 1 << 20;
/// Stalls or cuts that may be listed.
const MAX_PAUSES: usize = 10_000;
/// Latest moment, and longest pause: a year in ms.
const MAX_MS: u64 = 366 * 86_400_000;

/// A value that may not be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("link.{field}: {problem}")]
pub struct ConfigError {
    /// The key, for instance `up.jitter-ms`.
    pub field: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// `[link]`. By default nothing is shaped.
///
/// ```
/// let config: msao_link::shaper::LinkConfig = toml::from_str(
///     r#"
///     seed = 7
///     stalls = [{ at-ms = 4000, for-ms = 900 }]
///     cuts = [{ at-ms = 9000 }]
///     repeat-ms = 30000
///
///     [up]
///     trace = { file = "traces/train.up", format = "mahimahi" }
///     delay-ms = 40.0
///     jitter-ms = 10.0
///
///     [down]
///     bandwidth = "50 Mbit/s"
///     delay-ms = 40.0
///     "#,
/// )?;
/// config.check()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LinkConfig {
    /// Of the jitter.
    pub seed: u64,
    /// What may wait to be sent in a direction, in KiB, shared by the connections that have something to send; then
    /// writers wait.
    pub queue_kib: u32,
    /// What may be under way or unread in a direction of a connection, in KiB. As TCP's window it caps a connection's
    /// bandwidth, here at the window by the one-way delay.
    pub window_kib: u32,
    /// From the edge to the cloud.
    pub up: DirectionConfig,
    /// From the cloud to the edge.
    pub down: DirectionConfig,
    /// When nothing passes, in either direction. In the order of time, not overlapping.
    pub stalls: Vec<Pause>,
    /// When all connections are reset, and for how long none can be had. In the order of time, not overlapping.
    pub cuts: Vec<Pause>,
    /// After so many ms stalls and cuts begin anew. None: they come once.
    pub repeat_ms: Option<u64>,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            seed: 0,
            queue_kib: 256,
            window_kib: 16 << 10,
            up: DirectionConfig::default(),
            down: DirectionConfig::default(),
            stalls: Vec::new(),
            cuts: Vec::new(),
            repeat_ms: None,
        }
    }
}

/// One direction of a link.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DirectionConfig {
    /// For instance `20 Mbit/s`. Neither this nor a trace: as fast as it goes.
    pub bandwidth: Option<Bandwidth>,
    /// A recorded link instead of a constant bandwidth, replayed in a loop.
    pub trace: Option<TraceConfig>,
    /// From one end to the other, in ms: half the round trip, if both directions have it.
    pub delay_ms: f64,
    /// The delay of a segment is uniform between `delay-ms - jitter-ms` and `delay-ms + jitter-ms`, but never overtakes
    /// the one before it on its connection.
    pub jitter_ms: f64,
}

/// Where a trace is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TraceConfig {
    /// The file.
    pub file: PathBuf,
    /// How it is written.
    pub format: TraceFormat,
}

/// A moment, and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pause {
    /// Since the link was started, or since the schedule began anew, in ms.
    pub at_ms: u64,
    /// How long, in ms. 0 is allowed for a cut alone: connections are reset, new ones can be had at once.
    #[serde(default)]
    pub for_ms: u64,
}

fn wrong<T>(field: impl Into<String>, problem: String) -> Result<T, ConfigError> {
    Err(ConfigError {
        field: field.into(),
        problem,
    })
}

impl LinkConfig {
    /// Checks every value. Traces are read by [`super::Link::start`].
    ///
    /// # Errors
    /// [`ConfigError`], naming the first key that is wrong, and what is allowed.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("queue-kib", self.queue_kib),
            ("window-kib", self.window_kib),
        ] {
            if !(4..=MAX_KIB).contains(&value) {
                return wrong(field, format!("is {value}; allowed: 4 to {MAX_KIB}"));
            }
        }
        self.up.check("up")?;
        self.down.check("down")?;
        pauses("stalls", &self.stalls, 1)?;
        pauses("cuts", &self.cuts, 0)?;
        let Some(repeat_ms) = self.repeat_ms else {
            return Ok(());
        };
        let last = self.stalls.last().into_iter().chain(self.cuts.last());
        let least = last.map(Pause::end_ms).max().unwrap_or(0).max(1);
        if !(least..=MAX_MS).contains(&repeat_ms) {
            return wrong(
                "repeat-ms",
                format!(
                    "is {repeat_ms}; allowed: {least}, the end of the last stall or cut, to {MAX_MS}"
                ),
            );
        }
        Ok(())
    }
}

impl DirectionConfig {
    fn check(&self, at: &str) -> Result<(), ConfigError> {
        if self.bandwidth.is_some() && self.trace.is_some() {
            return wrong(
                format!("{at}.trace"),
                "stands beside bandwidth; allowed: one of the two".to_owned(),
            );
        }
        let (delay_ms, jitter_ms) = (self.delay_ms, self.jitter_ms);
        if !(0.0..=MAX_DELAY_MS).contains(&delay_ms) {
            return wrong(
                format!("{at}.delay-ms"),
                format!("is {delay_ms}; allowed: 0 to {MAX_DELAY_MS}"),
            );
        }
        if !(0.0..=delay_ms).contains(&jitter_ms) {
            return wrong(
                format!("{at}.jitter-ms"),
                format!("is {jitter_ms}; allowed: 0 to delay-ms, which is {delay_ms}"),
            );
        }
        Ok(())
    }
}

impl Pause {
    fn end_ms(&self) -> u64 {
        self.at_ms.saturating_add(self.for_ms)
    }
}

fn pauses(field: &str, pauses: &[Pause], least_ms: u64) -> Result<(), ConfigError> {
    if pauses.len() > MAX_PAUSES {
        return wrong(
            field,
            format!(
                "has {} entries; at most {MAX_PAUSES} are allowed",
                pauses.len()
            ),
        );
    }
    let mut from_ms = 0;
    for (number, pause) in pauses.iter().enumerate() {
        if !(from_ms..=MAX_MS).contains(&pause.at_ms) {
            return wrong(
                format!("{field}[{number}].at-ms"),
                format!(
                    "is {}; allowed: {from_ms}, the end of the one before, to {MAX_MS}",
                    pause.at_ms
                ),
            );
        }
        if !(least_ms..=MAX_MS).contains(&pause.for_ms) {
            return wrong(
                format!("{field}[{number}].for-ms"),
                format!("is {}; allowed: {least_ms} to {MAX_MS}", pause.for_ms),
            );
        }
        from_ms = pause.end_ms();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_allowed_and_wrong_values_named() {
        assert_eq!(LinkConfig::default().check(), Ok(()));
        for (text, named) in [
            ("queue-kib = 3", "link.queue-kib: is 3; allowed: 4 to"),
            ("window-kib = 0", "link.window-kib: is 0"),
            (
                "[up]\ndelay-ms = -1.0",
                "link.up.delay-ms: is -1; allowed: 0 to 60000",
            ),
            ("[up]\ndelay-ms = nan", "link.up.delay-ms"),
            (
                "[down]\ndelay-ms = 5.0\njitter-ms = 6.0",
                "link.down.jitter-ms: is 6; allowed: 0 to delay-ms",
            ),
            (
                "[up]\nbandwidth = '1 Mbit/s'\ntrace = { file = 'a', format = 'csv' }",
                "link.up.trace: stands beside bandwidth",
            ),
            (
                "stalls = [{ at-ms = 1 }]",
                "link.stalls[0].for-ms: is 0; allowed: 1 to",
            ),
            (
                "stalls = [{ at-ms = 5, for-ms = 5 }, { at-ms = 9, for-ms = 1 }]",
                "link.stalls[1].at-ms: is 9; allowed: 10, the end of the one before",
            ),
            (
                "cuts = [{ at-ms = 5 }]\nrepeat-ms = 4",
                "link.repeat-ms: is 4; allowed: 5",
            ),
            ("repeat-ms = 0", "link.repeat-ms: is 0; allowed: 1"),
        ] {
            let config: LinkConfig = toml::from_str(text).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(
                error.starts_with(named),
                "{error} should begin with {named}"
            );
        }
        for text in [
            "colour = 1",
            "[up]\ncolour = 1",
            "[up]\nbandwidth = '20'",
            "[up]\nbandwidth = 20",
            "[up]\ntrace = { file = 'a', format = 'pcap' }",
        ] {
            assert!(toml::from_str::<LinkConfig>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        let config: LinkConfig =
            toml::from_str("up.bandwidth = '2.5 Mbit/s'\ncuts = [{ at-ms = 5 }]").unwrap();
        let shown = toml::to_string(&config).unwrap();
        assert_eq!(toml::from_str::<LinkConfig>(&shown).unwrap(), config);
    }
}
