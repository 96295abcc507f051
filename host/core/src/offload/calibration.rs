//! What plug-ins learn, and how they say so.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Cells that a plug-in may have.
pub const MAX_CELLS: usize = 4096;
/// Updates that one call may return.
pub const MAX_UPDATES: usize = 256;

/// A snapshot of a plug-in's cells: parallel lists, sorted by key, no key twice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Calibration {
    /// What the plug-in calls its cells.
    pub keys: Vec<u32>,
    /// Exponentially weighted mean of a cell's samples.
    pub mean: Vec<f64>,
    /// Exponentially weighted variance of a cell's samples.
    pub variance: Vec<f64>,
    /// Samples so far, or what `add` has summed up.
    pub count: Vec<f64>,
}

/// What an [`Update`] does to its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Takes `value` into mean and variance with `weight`.
    Sample,
    /// Adds `value` to the count.
    Add,
    /// Removes the cell.
    Clear,
}

/// A typed change of one cell. The one writer applies updates in the order in which requests complete.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Update {
    /// What to do.
    pub operation: Operation,
    /// To which cell.
    pub key: u32,
    /// A finite number.
    pub value: f64,
    /// In `(0, 1]`.
    pub weight: f64,
}

impl Calibration {
    /// Cells.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing was learned.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The name of this snapshot: a digest of all its numbers, little-endian, column by column.
    pub fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(4 + self.len() * 28);
        bytes.extend((self.len() as u32).to_le_bytes());
        bytes.extend(self.keys.iter().flat_map(|key| key.to_le_bytes()));
        for column in [&self.mean, &self.variance, &self.count] {
            bytes.extend(column.iter().flat_map(|value| value.to_le_bytes()));
        }
        Digest::of(&bytes)
    }
}
