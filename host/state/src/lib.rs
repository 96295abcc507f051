//! What a node learns and remembers: calibration and decision records. The only crate that knows sled.
//!
//! All of it can be rebuilt by serving on. So a database that cannot be read never stops a node: it is set aside under
//! another name, and the node starts cold and says so. What must not be lost (which plug-ins are active) lies elsewhere, in
//! `msao-registry`.
//!
//! Read first: [`Storage`], [`CalibrationStore`], [`RecordRing`].
#![deny(unsafe_code)]

mod calibration;
mod priority;
mod queue;
mod records;
mod storage;

pub use self::calibration::{
    CalibrationStore, Cells, CellsError, CellsKey, Counters, Fold, Folding, Snapshot,
};
pub use self::priority::step_back;
pub use self::records::{
    Exported, JsonlError, Line, RecordConfig, RecordError, RecordRing, RecordStats, Recorded,
    Redact, Wanted, read_jsonl, write_line,
};
pub use self::storage::{
    Batch, MemoryStorage, Opened, SetAside, SledStorage, Storage, StorageError, Visit,
};
