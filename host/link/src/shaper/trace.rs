//! Recorded links, and the three formats they come in.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{NANOS_PER_MS, NANOS_PER_S, Nanos};

/// Bytes of a file.
const MAX_BYTES: u64 = 64 << 20;
/// Bytes that go at one of Mahimahi's delivery opportunities.
pub(super) const OPPORTUNITY: u64 = 1500;
/// Longest trace: a year, which keeps all sums far from overflowing.
const MAX_NANOS: f64 = 366.0 * 86_400.0 * NANOS_PER_S as f64;
/// Highest rate, bit/s.
const MAX_BPS: f64 = 1e12;

/// How a trace is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceFormat {
    /// A line is a moment in ms at which 1500 bytes may go; moments may repeat; the last one is the trace's length. An
    /// opportunity that nobody uses is lost (R. Netravali and others, "Mahimahi: accurate record-and-replay for HTTP",
    /// USENIX ATC 2015).
    Mahimahi,
    /// The Norwegian 3G logs (H. Riiser and others, "Commute path bandwidth traces from 3G networks", MMSys 2013): a line
    /// is `unix_s ms lat lon bytes ms_elapsed`; the last two say what came in that time.
    Hsdpa,
    /// A header `time_s,bps` or `time_ms,bps`, then a row for each moment from which on a rate holds, beginning with 0.
    /// The last rate holds as long as the one before it.
    Csv,
}

/// Why a trace cannot be used.
#[derive(Debug, Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("{path}: {source}; name a file that can be read", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Larger than any honest one.
    #[error("{path}: has more than {MAX_BYTES} bytes; use a part of it", path = .0.display())]
    TooLarge(PathBuf),
    /// A line that is not of the format.
    #[error("line {line}: {problem}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong and what is allowed.
        problem: String,
    },
    /// No byte would ever pass.
    #[error("the trace lets nothing pass; use one with at least one line that does")]
    Empty,
}

/// A recorded link: what may pass when.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace(pub(super) Kind);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// Moments in ms, rising; the last one, above 0, is the period.
    Opportunities(Vec<u64>),
    /// At least one, and one that is above 0.
    Rates(Vec<Rate>),
}

/// A rate that holds up to a moment of the period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// Since the period began; above the end of the rate before.
    pub(super) end: Nanos,
    pub(super) bps: u64,
}

impl Trace {
    /// Reads a file.
    ///
    /// # Errors
    /// [`TraceError`].
    pub fn read(path: &Path, format: TraceFormat) -> Result<Trace, TraceError> {
        let io = |source| TraceError::Io {
            path: path.to_owned(),
            source,
        };
        let mut text = String::new();
        let file = fs::File::open(path).map_err(io)?;
        file.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(io)?;
        if text.len() as u64 > MAX_BYTES {
            return Err(TraceError::TooLarge(path.to_owned()));
        }
        Trace::parse(&text, format)
    }

    /// Reads a text. Empty lines do not count.
    ///
    /// # Errors
    /// [`TraceError::Line`] or [`TraceError::Empty`].
    pub fn parse(text: &str, format: TraceFormat) -> Result<Trace, TraceError> {
        let lines = (text.lines().enumerate())
            .map(|(index, line)| (index + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty());
        match format {
            TraceFormat::Mahimahi => opportunities(lines),
            TraceFormat::Hsdpa => hsdpa(lines),
            TraceFormat::Csv => csv(lines),
        }
    }

    /// After how many ms it begins anew.
    pub fn period_ms(&self) -> f64 {
        self.period() as f64 / NANOS_PER_MS as f64
    }

    /// Bits per second over the whole trace.
    pub fn mean_bps(&self) -> f64 {
        let bits = match &self.0 {
            Kind::Opportunities(moments) => moments.len() as f64 * (OPPORTUNITY * 8) as f64,
            Kind::Rates(rates) => {
                let mut begin = 0;
                (rates.iter())
                    .map(|rate| {
                        let lasts = rate.end - begin;
                        begin = rate.end;
                        rate.bps as f64 * lasts as f64 / NANOS_PER_S as f64
                    })
                    .sum()
            }
        };
        bits * NANOS_PER_S as f64 / self.period() as f64
    }

    fn period(&self) -> Nanos {
        match &self.0 {
            Kind::Opportunities(moments) => moments.last().map_or(1, |ms| ms * NANOS_PER_MS),
            Kind::Rates(rates) => rates.last().map_or(1, |rate| rate.end),
        }
    }
}

fn wrong<T>(line: usize, problem: impl Into<String>) -> Result<T, TraceError> {
    Err(TraceError::Line {
        line,
        problem: problem.into(),
    })
}

fn opportunities<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Trace, TraceError> {
    let mut moments: Vec<u64> = Vec::new();
    for (line, text) in lines {
        let least = moments.last().copied().unwrap_or(0);
        match text.parse::<u64>() {
            Ok(ms) if ms >= least && ms as f64 * NANOS_PER_MS as f64 <= MAX_NANOS => {
                moments.push(ms)
            }
            _ => {
                return wrong(
                    line,
                    format!(
                        "is `{text}`; allowed: a whole number of ms, {least} or more, at most a year"
                    ),
                );
            }
        }
    }
    match moments.last() {
        None | Some(0) => Err(TraceError::Empty),
        Some(_) => Ok(Trace(Kind::Opportunities(moments))),
    }
}

/// Rates one after the other.
#[derive(Default)]
struct Rates {
    rates: Vec<Rate>,
    end: f64,
}

impl Rates {
    /// Adds a rate that lasts so many ns. The caller has checked that both are finite and not negative.
    fn push(&mut self, line: usize, lasts: f64, bps: f64) -> Result<(), TraceError> {
        self.end += lasts;
        if self.end > MAX_NANOS || bps > MAX_BPS {
            return wrong(line, "is beyond a year, or 1 Tbit/s; allowed: up to that");
        }
        let end = self.end.round() as Nanos;
        if self.rates.last().map_or(0, |rate| rate.end) >= end {
            return wrong(line, "lasts no time; allowed: 1 ns or more");
        }
        self.rates.push(Rate {
            end,
            bps: bps.round() as u64,
        });
        Ok(())
    }

    fn finish(self) -> Result<Trace, TraceError> {
        if self.rates.iter().any(|rate| rate.bps > 0) {
            return Ok(Trace(Kind::Rates(self.rates)));
        }
        Err(TraceError::Empty)
    }
}

/// A finite number that is not negative.
fn amount(text: Option<&str>) -> Option<f64> {
    let value: f64 = text?.trim().parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

fn hsdpa<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Trace, TraceError> {
    let mut rates = Rates::default();
    for (line, text) in lines {
        let mut columns = text.split_whitespace().skip(4);
        let (bytes, elapsed_ms) = (amount(columns.next()), amount(columns.next()));
        match (bytes, elapsed_ms) {
            (Some(bytes), Some(elapsed_ms)) if elapsed_ms > 0.0 => {
                let lasts = elapsed_ms * NANOS_PER_MS as f64;
                rates.push(line, lasts, bytes * 8.0 * NANOS_PER_S as f64 / lasts)?;
            }
            _ => {
                return wrong(
                    line,
                    format!(
                        "is `{text}`; allowed: `unix_s ms lat lon bytes ms_elapsed`, bytes 0 or more, ms_elapsed above 0"
                    ),
                );
            }
        }
    }
    rates.finish()
}

fn csv<'a>(mut lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Trace, TraceError> {
    let unit = match lines.next() {
        Some((_, "time_s,bps")) => NANOS_PER_S as f64,
        Some((_, "time_ms,bps")) => NANOS_PER_MS as f64,
        Some((line, text)) => {
            return wrong(
                line,
                format!("is `{text}`; allowed: the header `time_s,bps` or `time_ms,bps`"),
            );
        }
        None => return Err(TraceError::Empty),
    };
    let mut rates = Rates::default();
    let mut last: Option<(usize, f64, f64)> = None;
    let mut lasts = NANOS_PER_S as f64;
    for (line, text) in lines {
        let (time, bps) = text.split_once(',').unwrap_or((text, ""));
        let (Some(time), Some(bps)) = (amount(Some(time)), amount(Some(bps))) else {
            return wrong(
                line,
                format!("is `{text}`; allowed: a time and a rate, both 0 or more"),
            );
        };
        let time = time * unit;
        match last {
            None if time != 0.0 => {
                return wrong(
                    line,
                    format!("is `{text}`; allowed: time 0 in the first row"),
                );
            }
            None => {}
            Some((_, before, _)) if time <= before => {
                return wrong(
                    line,
                    format!("is `{text}`; allowed: a time after that of the row before"),
                );
            }
            Some((line, before, bps)) => {
                lasts = time - before;
                rates.push(line, lasts, bps)?;
            }
        }
        last = Some((line, time, bps));
    }
    if let Some((line, _, bps)) = last {
        rates.push(line, lasts, bps)?;
    }
    rates.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_period(text: &str, format: TraceFormat) -> (f64, f64) {
        let trace = Trace::parse(text, format).unwrap();
        (trace.mean_bps(), trace.period_ms())
    }

    #[test]
    fn each_format_is_read() {
        // Four packets of 1500 bytes in 10 ms: 48,000 bits, 4.8 Mbit/s.
        let mahimahi = mean_and_period("0\n3\n3\n\n10\n", TraceFormat::Mahimahi);
        assert_eq!(mahimahi, (4.8e6, 10.0));
        // 100 KB in 1 s, nothing in 1 s.
        let hsdpa = "1289406399 549 59.85 10.78 100000 1000\n1289406400 1549 59.85 10.78 0 1000";
        assert_eq!(mean_and_period(hsdpa, TraceFormat::Hsdpa), (4e5, 2000.0));
        let csv = "time_s,bps\n0,1000000\n0.5, 3000000\n1.0,0\n";
        let (mean, period) = mean_and_period(csv, TraceFormat::Csv);
        assert!((mean - 4e6 / 3.0).abs() < 1.0);
        assert_eq!(period, 1500.0);
        assert_eq!(
            mean_and_period("time_ms,bps\n0,5000", TraceFormat::Csv),
            (5000.0, 1000.0)
        );
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (format, text, named) in [
            (
                TraceFormat::Mahimahi,
                "5\n4",
                "line 2: is `4`; allowed: a whole number of ms, 5 or more",
            ),
            (TraceFormat::Mahimahi, "1.5", "line 1"),
            (TraceFormat::Mahimahi, "99999999999999", "line 1"),
            (TraceFormat::Mahimahi, "0\n0", "the trace lets nothing pass"),
            (TraceFormat::Mahimahi, "", "the trace lets nothing pass"),
            (TraceFormat::Hsdpa, "1 2 3 4 5", "line 1"),
            (TraceFormat::Hsdpa, "1 2 3 4 5 0", "line 1"),
            (TraceFormat::Hsdpa, "1 2 3 4 -5 10", "line 1"),
            (
                TraceFormat::Hsdpa,
                "1 2 3 4 0 10",
                "the trace lets nothing pass",
            ),
            (
                TraceFormat::Csv,
                "0,5",
                "line 1: is `0,5`; allowed: the header",
            ),
            (
                TraceFormat::Csv,
                "time_s,bps\n1,5",
                "line 2: is `1,5`; allowed: time 0",
            ),
            (TraceFormat::Csv, "time_s,bps\n0,5\n0,6", "line 3"),
            (TraceFormat::Csv, "time_s,bps\n0,nan", "line 2"),
            (TraceFormat::Csv, "time_s,bps\n0,1e13", "line 2: is beyond"),
            (
                TraceFormat::Csv,
                "time_s,bps\n0,0",
                "the trace lets nothing pass",
            ),
            (
                TraceFormat::Csv,
                "time_s,bps",
                "the trace lets nothing pass",
            ),
        ] {
            let error = Trace::parse(text, format).unwrap_err().to_string();
            assert!(
                error.starts_with(named),
                "{error} should begin with {named}"
            );
        }
        let error = Trace::read(Path::new("not/there"), TraceFormat::Csv).unwrap_err();
        assert!(error.to_string().starts_with("not/there: "), "{error}");
    }
}
