//! Confident mode's guarantee: how sure a draft must be to be committed unverified, for the operator's budget to hold.
//!
//! The budget is a share of requests: of those of a class, so many may have a token committed unverified that the
//! target would not have chosen. Some requests, chosen by a seeded coin when they are admitted and whatever the load,
//! are *audits*: they run in exact mode to their end, and show what confident mode would have done. Up to the first
//! such token both modes take the same way, so an audit disagrees at a threshold exactly if a confident run would have
//! broken it: if the target rejected a token whose acceptance probability was at least the threshold. An audit that
//! does not end counts as disagreement.
//!
//! A threshold opens when it would be a bet won at odds of `1 / delta` that its share of disagreement is below the
//! budget (`bets.rs`, `evidence.rs`). For traffic whose requests are exchangeable the chance that a threshold over
//! budget *ever* opens is at most `delta`. That is so whenever one looks, and however well the acceptance probabilities
//! are calibrated: bad ones open less. Audited requests commit nothing unverified, so that of all requests the share is
//! lower still.
//!
//! Once a threshold is open, a detector watches later audits (`drift.rs`). Its alarm closes the class and forgets all
//! evidence; the guarantee then begins anew.
//!
//! What the host owes:
//! - one [`Audit`] for each class: pair of models, precision, class of retention, class of temperature, and budget. A
//!   change of any is another class. An operator's new budget begins without evidence: a budget chosen with an eye on
//!   the evidence is no budget chosen beforehand;
//! - each request of the class that could run confident is asked of [`Audit::admit`], before anything of it is known
//!   but its class;
//! - an audit runs to its end even where its client has left, or else it is [`Audited::Unfinished`]; audits that a stop
//!   of the node cut are told by [`Audit::abandon`];
//! - acceptance probabilities come from a map that has settled: evidence of before counts for good.
//!
//! ```
//! use msao_adapt::audit::{Audit, AuditConfig, Audited};
//!
//! let config = AuditConfig { budget: 0.05, ..AuditConfig::new(7) };
//! let mut audit = Audit::new(config)?;
//! assert_eq!(audit.open_threshold(), None);
//! for request in 0..3_000 {
//!     if audit.admit(request) {
//!         audit.finished(request, Audited::Rejected { acceptance: 0.97 });
//!     }
//! }
//! // Each audit had a rejected token of 0.97, none had one above.
//! assert!(audit.open_threshold().is_some_and(|threshold| threshold > 0.97 && threshold < 0.98));
//! # Ok::<(), msao_adapt::audit::AuditConfigError>(())
//! ```

mod bets;
mod bound;
mod config;
mod drift;
mod evidence;
mod grid;
mod order;
pub mod simulate;

use serde::{Deserialize, Serialize};

pub use self::bound::bound;
pub use self::config::{AuditConfig, AuditConfigError};
use self::drift::Detector;
use self::evidence::Evidence;
pub use self::grid::{THRESHOLDS, threshold};
pub use self::order::MAX_PENDING;
use self::order::Order;

/// How an audit ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Audited {
    /// The target rejected nothing.
    Agreed,
    /// The target rejected some drafts.
    Rejected {
        /// The largest acceptance probability among them, in `[0, 1]`. NaN counts as unfinished.
        acceptance: f64,
    },
    /// It did not come to its end.
    Unfinished,
}

/// What an audit changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Tokens of this acceptance probability and above may be committed unverified from now on.
    Opened {
        /// In `(0.5, 1)`; lower than what was open before.
        threshold: f64,
    },
    /// Traffic has changed: nothing may be committed unverified until audits have shown again that it may.
    Closed,
}

/// Where the evidence of a class stands, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// Audits counted since evidence was last forgotten.
    pub audits: u64,
    /// Audits that have begun and are not counted.
    pub pending: usize,
    /// Of those counted, audits that disagreed at the threshold that is open, or at the highest where none is.
    pub disagreements: u64,
    /// What is known against the next lower threshold being over budget, as a share of what opens it; at most 1,
    /// negative where disagreement is frequent. 1 where all are open.
    pub progress: f64,
    /// The detector's level as a share of that of an alarm, in `[0, 1)`.
    pub drift: f64,
    /// Alarms since the class began.
    pub alarms: u64,
}

/// What audits have shown of one class of requests, and what may be committed unverified there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Audit {
    config: AuditConfig,
    order: Order,
    evidence: Evidence,
    detector: Detector,
    alarms: u64,
}

/// An audit as it was stored: by an older version perhaps, or with bits turned.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    config: AuditConfig,
    order: Order,
    evidence: Evidence,
    detector: Detector,
    alarms: u64,
}

impl TryFrom<Stored> for Audit {
    type Error = AuditConfigError;

    fn try_from(stored: Stored) -> Result<Audit, AuditConfigError> {
        stored.config.check()?;
        let Stored {
            config,
            order,
            evidence,
            detector,
            alarms,
        } = stored;
        if !(order.is_sound() && evidence.is_sound() && detector.is_sound()) {
            return Err(AuditConfigError::Evidence);
        }
        Ok(Audit {
            config,
            order,
            evidence,
            detector,
            alarms,
        })
    }
}

impl Audit {
    /// A class of which nothing is known: exact mode only.
    ///
    /// # Errors
    /// A figure of the configuration is out of its range.
    pub fn new(config: AuditConfig) -> Result<Audit, AuditConfigError> {
        config.check()?;
        Ok(Audit {
            config,
            order: Order::default(),
            evidence: Evidence::default(),
            detector: Detector::default(),
            alarms: 0,
        })
    }

    /// What this class was begun with.
    pub fn config(&self) -> &AuditConfig {
        &self.config
    }

    /// The lowest acceptance probability that may be committed unverified, in `(0.5, 1)`. None: exact mode only.
    pub fn open_threshold(&self) -> Option<f64> {
        self.open_index().and_then(threshold)
    }

    fn open_index(&self) -> Option<usize> {
        self.evidence.open.checked_sub(1)
    }

    /// A request of the class has come. Whether it is an audit: if so it must run in exact mode, and its end must be
    /// told to [`finished`](Audit::finished).
    ///
    /// The same number always gets the same answer; numbers should not come again. Where more than [`MAX_PENDING`]
    /// audits have not ended, the oldest counts as unfinished: [`open_threshold`](Audit::open_threshold) may be another
    /// afterwards.
    pub fn admit(&mut self, request: u64) -> bool {
        let audited = self.config.coin(request);
        if audited {
            self.order.admit(request);
            self.count_ended();
        }
        audited
    }

    /// An audit has ended. It is counted once all audits before it have ended. What was not admitted, or has ended
    /// before, or was admitted before an alarm, is ignored.
    pub fn finished(&mut self, request: u64, audited: Audited) -> Option<Change> {
        let first = match audited {
            Audited::Agreed => THRESHOLDS,
            Audited::Rejected { acceptance } => grid::first_met(acceptance),
            Audited::Unfinished => 0,
        };
        if !self.order.finish(request, first) {
            return None;
        }
        self.count_ended()
    }

    /// All audits that have not ended never will.
    pub fn abandon(&mut self) -> Option<Change> {
        self.order.abandon();
        self.count_ended()
    }

    /// Forgets all evidence: exact mode only, until audits have opened a threshold again. For what the host knows to
    /// have changed and the class does not tell.
    pub fn forget(&mut self) {
        self.order.clear();
        self.evidence = Evidence::default();
        self.detector = Detector::default();
    }

    fn count_ended(&mut self) -> Option<Change> {
        let before = self.evidence.open;
        while let Some(first) = self.order.next() {
            let AuditConfig {
                budget,
                delta,
                alarm_audits,
                ..
            } = self.config;
            // What was open when this audit was admitted is not known any more; what is open now was not opened by it.
            if let Some(open) = self.open_index()
                && self.detector.watch(first <= open, budget, alarm_audits)
            {
                self.forget();
                self.alarms = self.alarms.saturating_add(1);
                return Some(Change::Closed);
            }
            self.evidence.count(first, budget, delta);
        }
        let opened = self.evidence.open > before;
        let threshold = opened.then(|| self.open_threshold()).flatten()?;
        Some(Change::Opened { threshold })
    }

    /// Where the evidence stands.
    pub fn figures(&self) -> Figures {
        let AuditConfig { budget, delta, .. } = self.config;
        let next = self.evidence.open;
        let progress = if next < THRESHOLDS {
            self.evidence.log_wealth(next, budget) / -delta.ln()
        } else {
            1.0
        };
        Figures {
            audits: self.evidence.audits,
            pending: self.order.len(),
            disagreements: self.evidence.disagreements(self.open_index().unwrap_or(0)),
            progress: progress.clamp(f64::MIN, 1.0),
            drift: self.detector.level() / self.config.alarm_audits,
            alarms: self.alarms,
        }
    }
}

#[cfg(test)]
mod tests;
