//! One cell, and what the operations do to it.
//!
//! Mean and variance are exponentially weighted, updated sample by sample in the form of D. H. D. West, "Updating Mean and
//! Variance Estimates: An Improved Method", CACM 22 (1979), with the exponential weights of T. Finch, "Incremental
//! calculation of weighted mean and variance" (2009), section 9. With a sample `x` of weight `w`:
//!
//! ```text
//! d        = x - mean
//! mean     = mean + w * d
//! variance = (1 - w) * (variance + w * d * d)
//! ```
//!
//! The first sample counts whole: the mean is the sample, the variance 0.

use std::collections::BTreeMap;

use msao_core::offload::{Calibration, MAX_CELLS, Operation, Update};
use serde::{Deserialize, Serialize};

/// A cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cell {
    mean: f64,
    variance: f64,
    count: f64,
    /// Whether a sample has come. A cell that only `add` has touched still takes its first one whole.
    sampled: bool,
}

impl Cell {
    fn sample(self, value: f64, weight: f64) -> Cell {
        let (mean, variance) = if self.sampled {
            let difference = value - self.mean;
            let step = weight * difference;
            (
                self.mean + step,
                (1.0 - weight) * (self.variance + step * difference),
            )
        } else {
            (value, 0.0)
        };
        Cell {
            mean,
            variance,
            count: self.count + 1.0,
            sampled: true,
        }
    }

    fn is_finite(self) -> bool {
        self.mean.is_finite() && self.variance.is_finite() && self.count.is_finite()
    }
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// It was applied.
    Applied,
    /// It would have made a cell beyond the 4,096th; nothing changed.
    Full,
    /// It would have taken the cell out of the range of finite numbers; nothing changed.
    Overflow,
}

/// Cells that nobody can have learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CellsError {
    /// Their columns have different lengths.
    #[error("cells' keys, means, variances and counts are not equally many; export them anew")]
    Columns,
    /// More than a plug-in may have.
    #[error("there are {0} cells; a plug-in has {most} at most", most = MAX_CELLS)]
    TooMany(usize),
    /// A key comes twice, or out of order.
    #[error("cells' keys must rise, and none come twice; export them anew")]
    Keys,
    /// A value is not finite, or a variance negative.
    #[error("a cell's value is not finite, or its variance is negative; export them anew")]
    Values,
}

/// A plug-in's cells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct CellMap(BTreeMap<u32, Cell>);

impl CellMap {
    /// Does one operation.
    pub(super) fn apply(&mut self, update: &Update) -> Fold {
        let old = self.0.get(&update.key).copied();
        if update.operation == Operation::Clear {
            self.0.remove(&update.key);
            return Fold::Applied;
        }
        if old.is_none() && self.0.len() >= MAX_CELLS {
            return Fold::Full;
        }
        let old = old.unwrap_or_default();
        let new = match update.operation {
            Operation::Sample => old.sample(update.value, update.weight),
            _ => Cell {
                count: old.count + update.value,
                ..old
            },
        };
        if !new.is_finite() {
            return Fold::Overflow;
        }
        self.0.insert(update.key, new);
        Fold::Applied
    }

    /// As plug-ins read them.
    pub(super) fn to_calibration(&self) -> Calibration {
        let column = |value: fn(&Cell) -> f64| self.0.values().map(value).collect();
        Calibration {
            keys: self.0.keys().copied().collect(),
            mean: column(|cell| cell.mean),
            variance: column(|cell| cell.variance),
            count: column(|cell| cell.count),
        }
    }

    /// From what comes from outside, as [`CellMap::from_calibration`].
    pub(super) fn checked(calibration: &Calibration) -> Result<CellMap, CellsError> {
        let Calibration {
            keys,
            mean,
            variance,
            count,
        } = calibration;
        if [mean.len(), variance.len(), count.len()] != [keys.len(); 3] {
            return Err(CellsError::Columns);
        }
        if keys.len() > MAX_CELLS {
            return Err(CellsError::TooMany(keys.len()));
        }
        if !keys.is_sorted_by(|one, next| one < next) {
            return Err(CellsError::Keys);
        }
        let finite = |column: &[f64]| column.iter().all(|value| value.is_finite());
        let fits = finite(mean) && finite(variance) && finite(count);
        if !fits || variance.iter().any(|value| *value < 0.0) {
            return Err(CellsError::Values);
        }
        Ok(CellMap::from_calibration(calibration))
    }

    /// From what a plug-in read. It does not tell whether a cell was ever sampled: all are taken to have been.
    pub(super) fn from_calibration(calibration: &Calibration) -> CellMap {
        let columns = (calibration.mean.iter())
            .zip(&calibration.variance)
            .zip(&calibration.count);
        CellMap(
            (calibration.keys.iter().copied())
                .zip(columns)
                .map(|(key, ((&mean, &variance), &count))| {
                    let cell = Cell {
                        mean,
                        variance,
                        count,
                        sampled: true,
                    };
                    (key, cell)
                })
                .collect(),
        )
    }
}

/// Cells that a tool folds updates into, to replay what a plug-in would have learned: as the store does it.
#[derive(Clone, Debug)]
pub struct Folding {
    cells: CellMap,
    calibration: Calibration,
}

impl Folding {
    /// Begins with a snapshot.
    pub fn new(calibration: Calibration) -> Folding {
        Folding {
            cells: CellMap::from_calibration(&calibration),
            calibration,
        }
    }

    /// Applies `updates`. Returns what became of each.
    pub fn fold(&mut self, updates: &[Update]) -> Vec<Fold> {
        let folds = (updates.iter()).map(|update| self.cells.apply(update));
        let folds = folds.collect();
        if !updates.is_empty() {
            self.calibration = self.cells.to_calibration();
        }
        folds
    }

    /// As plug-ins read them.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(key: u32, value: f64, weight: f64) -> Update {
        Update {
            operation: Operation::Sample,
            key,
            value,
            weight,
        }
    }

    fn other(operation: Operation, key: u32, value: f64) -> Update {
        Update {
            operation,
            key,
            value,
            weight: 1.0,
        }
    }

    fn only(cells: &CellMap) -> (f64, f64, f64) {
        let all = cells.to_calibration();
        assert_eq!(all.len(), 1);
        (all.mean[0], all.variance[0], all.count[0])
    }

    #[test]
    fn operations_do_what_the_contract_says() {
        let mut cells = CellMap::default();
        // Worked by hand: 4 whole; then 8 with weight 1/4: d = 4, mean 4 + 1, variance 3/4 * (0 + 1 * 4).
        cells.apply(&sample(7, 4.0, 0.25));
        assert_eq!(only(&cells), (4.0, 0.0, 1.0));
        cells.apply(&sample(7, 8.0, 0.25));
        assert_eq!(only(&cells), (5.0, 3.0, 2.0));
        cells.apply(&other(Operation::Add, 7, -1.5));
        assert_eq!(only(&cells), (5.0, 3.0, 0.5));
        cells.apply(&other(Operation::Clear, 7, 0.0));
        assert_eq!(cells, CellMap::default());
        // A cell that `add` made still takes its first sample whole.
        cells.apply(&other(Operation::Add, 7, 2.0));
        cells.apply(&sample(7, 9.0, 0.1));
        assert_eq!(only(&cells), (9.0, 0.0, 3.0));
    }

    #[test]
    fn folding_call_by_call_is_what_the_store_does() {
        let updates = [
            other(Operation::Add, 7, 2.0),
            sample(7, 9.0, 0.1),
            sample(7, 5.0, 0.1),
            other(Operation::Add, 8, 1.0),
            other(Operation::Clear, 7, 0.0),
            other(Operation::Add, 7, 1.0),
            sample(7, 4.0, 0.1),
        ];
        let mut cells = CellMap::default();
        let mut folding = Folding::new(Calibration::default());
        for update in &updates {
            cells.apply(update);
            assert_eq!(folding.fold(std::slice::from_ref(update)), [Fold::Applied]);
            assert_eq!(folding.calibration(), &cells.to_calibration());
        }
    }

    #[test]
    fn cells_from_outside_are_checked() {
        let good = Calibration {
            keys: vec![3, 9],
            mean: vec![0.5, -1.0],
            variance: vec![0.0, 2.0],
            count: vec![4.0, 7.0],
        };
        assert_eq!(CellMap::checked(&good).unwrap().to_calibration(), good);
        let none = Calibration::default();
        assert_eq!(CellMap::checked(&none), Ok(CellMap::default()));
        let wrong = |change: &dyn Fn(&mut Calibration)| {
            let mut cells = good.clone();
            change(&mut cells);
            CellMap::checked(&cells).unwrap_err()
        };
        assert_eq!(wrong(&|it| it.mean.truncate(1)), CellsError::Columns);
        assert_eq!(wrong(&|it| it.keys = vec![9, 9]), CellsError::Keys);
        assert_eq!(wrong(&|it| it.keys = vec![9, 3]), CellsError::Keys);
        assert_eq!(wrong(&|it| it.count[0] = f64::NAN), CellsError::Values);
        assert_eq!(wrong(&|it| it.variance[1] = -0.1), CellsError::Values);
        let many = MAX_CELLS + 1;
        let too_many = Calibration {
            keys: (0..many as u32).collect(),
            mean: vec![0.0; many],
            variance: vec![0.0; many],
            count: vec![0.0; many],
        };
        assert_eq!(CellMap::checked(&too_many), Err(CellsError::TooMany(many)));
    }

    #[test]
    fn the_4097th_cell_is_refused_and_the_others_live_on() {
        let mut cells = CellMap::default();
        for key in 0..MAX_CELLS as u32 {
            assert_eq!(cells.apply(&sample(key, 1.0, 1.0)), Fold::Applied);
        }
        let before = cells.clone();
        assert_eq!(cells.apply(&sample(9999, 1.0, 1.0)), Fold::Full);
        assert_eq!(cells, before);
        assert_eq!(cells.apply(&sample(0, 3.0, 1.0)), Fold::Applied);
        assert_eq!(cells.apply(&other(Operation::Clear, 1, 0.0)), Fold::Applied);
        assert_eq!(cells.apply(&sample(9999, 1.0, 1.0)), Fold::Applied);
    }

    proptest! {
        /// The definition: a weighted sum over all samples, w_0 = prod(1 - w_i), w_k = w_k prod_{i>k}(1 - w_i).
        #[test]
        fn mean_and_variance_are_those_of_the_weighted_samples(
            samples in prop::collection::vec((-1e3_f64..1e3, 0.01_f64..=1.0), 1..60),
        ) {
            let mut cells = CellMap::default();
            let mut weights: Vec<f64> = Vec::new();
            for (i, &(value, weight)) in samples.iter().enumerate() {
                cells.apply(&sample(1, value, weight));
                let weight = if i == 0 { 1.0 } else { weight };
                weights.iter_mut().for_each(|w| *w *= 1.0 - weight);
                weights.push(weight);
            }
            let weighted = |value: &dyn Fn(f64) -> f64| -> f64 {
                weights.iter().zip(&samples).map(|(w, (x, _))| w * value(*x)).sum()
            };
            let mean = weighted(&|x| x);
            let variance = weighted(&|x| (x - mean) * (x - mean));
            let (found_mean, found_variance, count) = only(&cells);
            // Sixty additions of numbers up to 1e6 in f64.
            prop_assert!((found_mean - mean).abs() < 1e-9, "{found_mean} {mean}");
            prop_assert!((found_variance - variance).abs() < 1e-6, "{found_variance} {variance}");
            prop_assert_eq!(count, samples.len() as f64);
        }

        #[test]
        fn cells_stay_finite_whatever_comes(
            updates in prop::collection::vec(
                (0_u32..3, prop::num::f64::NORMAL, 1e-9_f64..=1.0, any::<bool>()),
                0..200,
            ),
        ) {
            let mut cells = CellMap::default();
            for (key, value, weight, add) in updates {
                let update = if add {
                    other(Operation::Add, key, value)
                } else {
                    sample(key, value, weight)
                };
                cells.apply(&update);
            }
            let all = cells.to_calibration();
            prop_assert!(all.mean.iter().chain(&all.variance).chain(&all.count).all(|x| x.is_finite()));
            prop_assert!(all.variance.iter().all(|&x| x >= 0.0));
        }
    }
}
