//! Reading what was learned, and saying what to learn.

use crate::{Calibration, Operation, Update};

/// What a plug-in knows under one key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Exponentially weighted mean of its samples.
    pub mean: f64,
    /// Exponentially weighted variance of its samples.
    pub variance: f64,
    /// Samples so far, or what [`Update::add`] has summed up.
    pub count: f64,
}

/// Reads cells by keys that rise: [`Calibration::rising`].
#[derive(Clone, Copy, Debug)]
pub struct Rising<'a> {
    calibration: &'a Calibration,
    at: usize,
}

impl Rising<'_> {
    /// The cell with this key, which is no lower than any asked for before; of a lower one nothing is known.
    pub fn get(&mut self, key: u32) -> Option<Cell> {
        let Calibration {
            keys,
            mean,
            variance,
            count,
        } = self.calibration;
        while let Some(&known) = keys.get(self.at) {
            if known > key {
                return None;
            }
            if known == key {
                return Some(Cell {
                    mean: *mean.get(self.at)?,
                    variance: *variance.get(self.at)?,
                    count: *count.get(self.at)?,
                });
            }
            self.at += 1;
        }
        None
    }
}

impl Calibration {
    /// The cell with this key.
    ///
    /// ```
    /// use msao_plugin::{Calibration, Cell};
    ///
    /// let calibration = Calibration::from_cells(&[(7, Cell { mean: 0.5, variance: 0.1, count: 3.0 })]);
    /// assert_eq!(calibration.get(7).map(|cell| cell.mean), Some(0.5));
    /// assert_eq!(calibration.get(8), None);
    /// ```
    pub fn get(&self, key: u32) -> Option<Cell> {
        let at = self.keys.binary_search(&key).ok()?;
        Some(Cell {
            mean: *self.mean.get(at)?,
            variance: *self.variance.get(at)?,
            count: *self.count.get(at)?,
        })
    }

    /// Its mean, or `default` where nothing was learned.
    pub fn mean_or(&self, key: u32, default: f64) -> f64 {
        self.get(key).map_or(default, |cell| cell.mean)
    }

    /// Cells whose keys are asked for in rising order, from `key` on: one search, then a walk. Worth it where a plan
    /// looks at many cells that lie side by side.
    ///
    /// ```
    /// use msao_plugin::{Calibration, Cell};
    ///
    /// let cell = |mean| Cell { mean, variance: 0.0, count: 1.0 };
    /// let calibration = Calibration::from_cells(&[(3, cell(0.3)), (7, cell(0.7)), (8, cell(0.8))]);
    /// let mut rising = calibration.rising(4);
    /// assert_eq!(rising.get(5), None);
    /// assert_eq!(rising.get(8).map(|cell| cell.mean), Some(0.8));
    /// ```
    pub fn rising(&self, key: u32) -> Rising<'_> {
        Rising {
            calibration: self,
            at: self.keys.partition_point(|known| *known < key),
        }
    }

    /// For tests: a calibration that holds these cells. The last one of a key counts.
    pub fn from_cells(cells: &[(u32, Cell)]) -> Calibration {
        let sorted: alloc::collections::BTreeMap<u32, Cell> = cells.iter().copied().collect();
        let mut calibration = Calibration::default();
        for (key, cell) in sorted {
            calibration.keys.push(key);
            calibration.mean.push(cell.mean);
            calibration.variance.push(cell.variance);
            calibration.count.push(cell.count);
        }
        calibration
    }
}

impl Update {
    /// Takes a finite `value` into the cell's mean and variance, with `weight` in (0, 1].
    pub fn sample(key: u32, value: f64, weight: f64) -> Update {
        Update {
            operation: Operation::Sample,
            key,
            value,
            weight,
        }
    }

    /// Adds a finite `value` to the cell's count.
    pub fn add(key: u32, value: f64) -> Update {
        Update {
            operation: Operation::Add,
            key,
            value,
            weight: 1.0,
        }
    }

    /// Removes the cell.
    pub fn clear(key: u32) -> Update {
        Update {
            operation: Operation::Clear,
            key,
            value: 0.0,
            weight: 1.0,
        }
    }
}
