//! What plug-ins have learned: cells, who may change them, and where they are kept.

mod cell;
mod key;
mod snapshot;
mod store;
mod writer;

pub use self::cell::{CellsError, Fold, Folding};
pub use self::key::CellsKey;
pub use self::snapshot::Snapshot;
pub use self::store::{CalibrationStore, Cells, Counters};
