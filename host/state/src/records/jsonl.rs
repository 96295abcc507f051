//! Decisions as text: a JSON object a line. A calibration snapshot stands before the first decision that names it.
//!
//! ```text
//! {"snapshot":{"digest":"5df6...","calibration":{"keys":[...],"mean":[...],"variance":[...],"count":[...]}}}
//! {"decision":{"version":1,"id":"...",...}}
//! ```
//!
//! Numbers are written so that they are read back to the bit. What was packed by zstd (RFC 8878) is read as it is.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::Calibration;
use msao_core::offload::record::{DecisionRecord, VERSION};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::calibration::Snapshot;

/// Bytes of a line at most: far more than a record with the largest report that a context allows.
const MAX_LINE: u64 = 64 << 20;

/// What a frame of zstd begins with (RFC 8878, section 3.1.1). No JSON does.
const PACKED: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Line {
    /// What a plug-in had learned, under the name by which decisions call it.
    Snapshot {
        /// [`Calibration::digest`].
        digest: Digest,
        /// The cells.
        calibration: Calibration,
    },
    /// A decision.
    Decision(Box<DecisionRecord>),
}

/// Why recorded decisions cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {problem}")]
pub struct JsonlError {
    /// Counted from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: String,
}

/// Recorded decisions, and the calibration that they name.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// By [`Calibration::digest`].
    pub snapshots: HashMap<Digest, Arc<Snapshot>>,
    /// In the order of the file, which is the order in which they completed.
    pub decisions: Vec<DecisionRecord>,
    /// Lines that could not be read and were left out.
    pub skipped: u64,
    /// What is wrong with the first of them.
    pub first_skipped: Option<JsonlError>,
}

/// Writes `line`.
///
/// # Errors
/// What the output says.
pub fn write_line(out: &mut dyn Write, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}

/// Reads what [`write_line`] wrote, packed by zstd or not. Every snapshot is held against its digest, and every decision against the snapshots. One
/// bad line is no reason to lose the others: it is left out, counted, and the first is told.
///
/// # Errors
/// [`JsonlError`], naming the line: the input fails, a line is longer than any record, or there are bad lines and no decision.
pub fn read_jsonl(mut input: impl BufRead) -> Result<Recorded, JsonlError> {
    let failed = |error: std::io::Error| JsonlError {
        line: 1,
        problem: error.to_string(),
    };
    if input.fill_buf().map_err(failed)?.starts_with(&PACKED) {
        let unpacked = zstd::Decoder::with_buffer(input).map_err(failed)?;
        return read_lines(BufReader::new(unpacked));
    }
    read_lines(input)
}

fn read_lines(mut input: impl BufRead) -> Result<Recorded, JsonlError> {
    let mut recorded = Recorded::default();
    let mut text = Vec::new();
    for line in 1.. {
        let wrong = |problem: String| JsonlError { line, problem };
        text.clear();
        let read = (&mut input)
            .take(MAX_LINE + 1)
            .read_until(b'\n', &mut text)
            .map_err(|error| wrong(error.to_string()))?;
        if read == 0 {
            break;
        }
        if text.len() as u64 > MAX_LINE {
            return Err(wrong(format!("is longer than {MAX_LINE} bytes")));
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        if let Err(problem) = take(&mut recorded, &text) {
            recorded.skipped += 1;
            recorded.first_skipped.get_or_insert(wrong(problem));
        }
    }
    match recorded.first_skipped {
        Some(error) if recorded.decisions.is_empty() => Err(error),
        _ => Ok(recorded),
    }
}

/// Takes a line into `recorded`, or says what is wrong with it.
fn take(recorded: &mut Recorded, text: &[u8]) -> Result<(), String> {
    match serde_json::from_slice(text).map_err(|error| error.to_string())? {
        Line::Snapshot {
            digest,
            calibration,
        } => {
            check_columns(&calibration)?;
            let snapshot = Snapshot::new(calibration);
            if snapshot.digest() != digest {
                return Err(format!(
                    "the snapshot is not the one that its digest {} names",
                    digest.short()
                ));
            }
            recorded.snapshots.insert(digest, Arc::new(snapshot));
        }
        Line::Decision(record) => {
            if record.version == 0 || record.version > VERSION {
                return Err(format!(
                    "the record has version {}; this program reads 1 to {VERSION}",
                    record.version
                ));
            }
            for digest in named(&record) {
                if !recorded.snapshots.contains_key(&digest) {
                    return Err(format!(
                        "the decision names the snapshot {}, which does not stand before it",
                        digest.short()
                    ));
                }
            }
            recorded.decisions.push(*record);
        }
    }
    Ok(())
}

fn check_columns(calibration: &Calibration) -> Result<(), String> {
    let cells = calibration.len();
    let columns = [&calibration.mean, &calibration.variance, &calibration.count];
    if columns.iter().any(|column| column.len() != cells) {
        return Err("the snapshot's columns have different lengths".into());
    }
    if !calibration.keys.is_sorted_by(|a, b| a < b) {
        return Err("the snapshot's keys are not in order".into());
    }
    Ok(())
}

/// The snapshots that a record names.
pub(super) fn named(record: &DecisionRecord) -> Vec<Digest> {
    let mut digests = vec![record.given.calibration];
    if let Some(scoring) = &record.scoring
        && scoring.given.calibration != record.given.calibration
    {
        digests.push(scoring.given.calibration);
    }
    digests
}
