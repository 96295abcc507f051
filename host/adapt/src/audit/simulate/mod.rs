//! Streams of requests whose truth is known, to hold the guarantee against, and to see what it costs.

mod traffic;

use thiserror::Error;

pub use self::traffic::Traffic;
use super::{Audit, AuditConfig, AuditConfigError, Audited, Change, THRESHOLDS, threshold};
use crate::random::{Random, Stream};

/// A truth that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a truth has a rate and a share for each threshold, in [0, 1] and falling nowhere; make it so"
)]
pub struct TruthError;

/// What a threshold would do to requests of a class, threshold by threshold from the highest.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    rates: Vec<f64>,
    shares: Vec<f64>,
}

impl Truth {
    /// `rates`: share of requests with a token at or above the threshold that the target would reject. `shares`: share
    /// of tokens at or above it. Both in `[0, 1]`, [`THRESHOLDS`] long, falling nowhere.
    ///
    /// # Errors
    /// They are not so.
    pub fn new(rates: Vec<f64>, shares: Vec<f64>) -> Result<Truth, TruthError> {
        let sound = |column: &[f64]| {
            column.len() == THRESHOLDS
                && column.is_sorted()
                && column.iter().all(|value| (0.0..=1.0).contains(value))
        };
        if sound(&rates) && sound(&shares) {
            Ok(Truth { rates, shares })
        } else {
            Err(TruthError)
        }
    }

    /// The worst case for the bound: the upper half of the thresholds breaks `high` of the requests, all others a
    /// hundredth part more than `budget`. With `high` at that too, none is allowed.
    ///
    /// # Errors
    /// `high` is no share, or above the others.
    pub fn brink(budget: f64, high: f64) -> Result<Truth, TruthError> {
        let half = THRESHOLDS / 2;
        let rates = (0..THRESHOLDS).map(|index| if index < half { high } else { budget * 1.01 });
        let shares = (1..=THRESHOLDS).map(|index| index as f64 / THRESHOLDS as f64);
        Truth::new(rates.collect(), shares.collect())
    }

    /// Share of requests that a threshold breaks.
    pub fn rate(&self, index: usize) -> f64 {
        self.rates.get(index).copied().unwrap_or(1.0)
    }

    /// Share of tokens that a threshold lets go unverified.
    pub fn share(&self, index: usize) -> f64 {
        self.shares.get(index).copied().unwrap_or(1.0)
    }

    /// The lowest threshold within budget: what somebody who knows the truth would set.
    pub fn oracle(&self, budget: f64) -> Option<usize> {
        self.rates.iter().rposition(|rate| *rate <= budget)
    }
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Play {
    /// Configuration of the audits. Stream `i` has `audit.seed + i`.
    pub audit: AuditConfig,
    /// Streams, each with numbers of its own.
    pub streams: u32,
    /// Requests of each.
    pub requests: u64,
    /// Share of audits that do not come to their end.
    pub unfinished: f64,
}

/// How a stream went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Whether a threshold opened whose true rate is over budget.
    pub opened_over_budget: bool,
    /// Share of all requests with an unverified disagreement.
    pub broken: f64,
    /// Share of all tokens that were committed unverified: those of audits, and of requests before anything was open,
    /// count as verified.
    pub unverified: f64,
    /// Requests before the first threshold opened; all where none did.
    pub waited: u64,
    /// Alarms.
    pub alarms: u64,
}

/// How all streams went.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The budget.
    pub budget: f64,
    /// Share of tokens that an oracle would commit unverified: the lowest threshold within budget, from the first
    /// request on, and no audits.
    pub oracle: f64,
    /// Streams.
    pub runs: Vec<Run>,
}

impl Report {
    /// Runs that opened a threshold over budget, or in which more requests than the budget were broken.
    pub fn over_budget(&self) -> usize {
        let over = |run: &&Run| run.opened_over_budget || run.broken > self.budget;
        self.runs.iter().filter(over).count()
    }

    /// Runs in which more requests than the budget were broken.
    pub fn broken(&self) -> usize {
        let over = |run: &&Run| run.broken > self.budget;
        self.runs.iter().filter(over).count()
    }

    /// The mean share of tokens that were committed unverified, as a part of what an oracle would reach; 1 where that
    /// is nothing.
    pub fn part_of_oracle(&self) -> f64 {
        if self.oracle == 0.0 {
            return 1.0;
        }
        let sum: f64 = self.runs.iter().map(|run| run.unverified).sum();
        sum / self.runs.len().max(1) as f64 / self.oracle
    }

    /// The same of the run that reached least.
    pub fn least_part_of_oracle(&self) -> f64 {
        let least = self.runs.iter().map(|run| run.unverified);
        match least.fold(f64::INFINITY, f64::min) / self.oracle {
            part if part.is_finite() => part,
            _ => 1.0,
        }
    }
}

/// Plays streams of requests of a known truth.
///
/// Of a request one number is drawn, uniform in `(0, 1)`: it is broken by the thresholds whose rate is above. For the
/// thresholds being nested that is the same as drawing its tokens, and a thousand times faster.
///
/// # Errors
/// A figure of the audits' configuration is out of its range.
pub fn simulate(truth: &Truth, play: &Play) -> Result<Report, AuditConfigError> {
    let runs = (0..u64::from(play.streams)).map(|stream| run(truth, play, stream));
    let oracle = truth.oracle(play.audit.budget);
    Ok(Report {
        budget: play.audit.budget,
        oracle: oracle.map_or(0.0, |index| truth.share(index)),
        runs: runs.collect::<Result<_, _>>()?,
    })
}

fn run(truth: &Truth, play: &Play, stream: u64) -> Result<Run, AuditConfigError> {
    let seed = play.audit.seed.wrapping_add(stream);
    let mut random = Random::new(seed, Stream::Simulation);
    let mut audit = Audit::new(AuditConfig { seed, ..play.audit })?;
    let (mut broken, mut unverified) = (0_u64, 0.0);
    let mut waited = play.requests;
    let mut opened_over_budget = false;
    for request in 0..play.requests {
        let drawn = random.uniform();
        // The first threshold that breaks it.
        let first = truth.rates.partition_point(|rate| *rate <= drawn);
        if audit.admit(request) {
            let audited = if random.uniform() < play.unfinished {
                Audited::Unfinished
            } else {
                match threshold(first) {
                    Some(acceptance) => Audited::Rejected { acceptance },
                    None => Audited::Agreed,
                }
            };
            if let Some(Change::Opened { .. }) = audit.finished(request, audited) {
                waited = waited.min(request);
                let rate = audit.open_index().map_or(0.0, |index| truth.rate(index));
                opened_over_budget |= rate > play.audit.budget;
            }
        } else if let Some(open) = audit.open_index() {
            unverified += truth.share(open);
            broken += u64::from(first <= open);
        }
    }
    let requests = play.requests.max(1) as f64;
    Ok(Run {
        opened_over_budget,
        broken: broken as f64 / requests,
        unverified: unverified / requests,
        waited,
        alarms: audit.figures().alarms,
    })
}
