//! Which decisions are kept, and what of them.

use msao_core::digest::Digest;
use msao_core::offload::record::{DecisionRecord, version_with};
use serde::{Deserialize, Serialize};

use super::RecordError;

/// Something that is left out of records, and of inputs on which plug-ins failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Redact {
    /// The operator's number for the client becomes 0. A policy that looks at it replays as for nobody.
    Tenant,
    /// What the probe saw of the media. The post-processor's call is then not replayed.
    Report,
    /// The calls of `step`, which show how sure the draft was of each token.
    Steps,
    /// The media's digests, by which somebody who has a medium can tell that it was sent, and which of their tokens were read.
    Media,
}

/// `[records]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RecordConfig {
    /// Records kept at most; 0 keeps none.
    pub keep: u64,
    /// Their size at most, with the calibration that they name, MiB.
    pub mib: u64,
    /// Share of requests that are recorded, in [0, 1].
    pub sample: f64,
    /// Share of the recorded ones whose probe report is kept too, in [0, 1]. A report has some 100 bytes a token.
    pub reports: f64,
    /// What is left out of all, and of kept failing inputs.
    pub redact: Vec<Redact>,
    /// Records that may wait to be written; more are dropped, and counted.
    pub queue: u32,
}

impl Default for RecordConfig {
    fn default() -> Self {
        RecordConfig {
            keep: 10_000,
            mib: 64,
            sample: 1.0,
            reports: 0.1,
            redact: Vec::new(),
            queue: 256,
        }
    }
}

/// How much of a request is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// All but the probe's report.
    WithoutReport,
    /// All.
    All,
}

impl RecordConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// [`RecordError::Config`], naming the key.
    pub fn check(&self) -> Result<(), RecordError> {
        let wrong = |field, problem: String| Err(RecordError::Config { field, problem });
        for (field, share) in [("sample", self.sample), ("reports", self.reports)] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(field, format!("is {share}; allowed: 0 to 1"));
            }
        }
        if !(1..=65_536).contains(&self.mib) {
            return wrong("mib", format!("is {}; allowed: 1 to 65536", self.mib));
        }
        if !(1..=65_536).contains(&self.queue) {
            return wrong("queue", format!("is {}; allowed: 1 to 65536", self.queue));
        }
        Ok(())
    }

    /// What of the request called `id` is wanted, chosen by the id and `salt`: clients may name their requests, and whoever
    /// knew the salt could choose which are recorded.
    pub fn wanted(&self, salt: &[u8], id: &str) -> Wanted {
        if self.keep == 0 {
            return Wanted::Nothing;
        }
        let Digest([a, b, c, d, e, f, g, h, ..]) = Digest::of(&[salt, id.as_bytes()].concat());
        let coin = |bytes: [u8; 4]| f64::from(u32::from_le_bytes(bytes)) / 4_294_967_296.0;
        if coin([a, b, c, d]) >= self.sample {
            Wanted::Nothing
        } else if self.redact.contains(&Redact::Report) || coin([e, f, g, h]) >= self.reports {
            Wanted::WithoutReport
        } else {
            Wanted::All
        }
    }

    /// Takes out of `record` what is not kept.
    pub(super) fn redact(&self, salt: &[u8], record: &mut DecisionRecord) {
        for what in &self.redact {
            match what {
                Redact::Tenant => record.request.tenant = 0,
                Redact::Report => {}
                Redact::Steps => record.steps.clear(),
                Redact::Media => {
                    record.media.clear();
                    record.version = version_with(&record.media, record.ahead);
                }
            }
        }
        if self.wanted(salt, &record.id) != Wanted::All
            && let Some(scoring) = &mut record.scoring
        {
            scoring.report = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_kept_to() {
        let config = RecordConfig {
            sample: 0.5,
            reports: 0.2,
            ..RecordConfig::default()
        };
        let counted = |wanted| {
            let ids = (0..20_000).map(|i| config.wanted(b"salt", &format!("request-{i}")));
            ids.filter(|found| *found == wanted).count() as f64 / 20_000.0
        };
        // Five standard deviations of 20,000 coins: 0.018 at most.
        assert!((counted(Wanted::Nothing) - 0.5).abs() < 0.018);
        assert!((counted(Wanted::All) - 0.1).abs() < 0.018);
        assert!((counted(Wanted::WithoutReport) - 0.4).abs() < 0.018);
    }

    #[test]
    fn who_names_a_request_does_not_choose_whether_it_is_recorded() {
        let config = RecordConfig {
            sample: 0.5,
            reports: 1.0,
            ..RecordConfig::default()
        };
        // A name that is left out under one salt is as likely as any other under the next.
        let left_out = |salt: &[u8], id: &str| config.wanted(salt, id) == Wanted::Nothing;
        let names = (0..2000).map(|i| format!("request-{i}"));
        let chosen: Vec<String> = names.filter(|id| left_out(b"known", id)).collect();
        let still = chosen.iter().filter(|id| left_out(b"another", id)).count();
        let share = still as f64 / chosen.len() as f64;
        // Five standard deviations of some 1,000 coins: 0.08.
        assert!((share - 0.5).abs() < 0.08, "{share}");
    }

    #[test]
    fn wrong_values_are_named() {
        for (config, named) in [
            (
                RecordConfig {
                    sample: f64::NAN,
                    ..RecordConfig::default()
                },
                "records.sample",
            ),
            (
                RecordConfig {
                    mib: 0,
                    ..RecordConfig::default()
                },
                "records.mib",
            ),
            (
                RecordConfig {
                    queue: 0,
                    ..RecordConfig::default()
                },
                "records.queue",
            ),
        ] {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
        assert!(RecordConfig::default().check().is_ok());
    }
}
