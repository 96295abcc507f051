//! What a node remembers.

mod calibration;
mod failing;
mod records;
mod sled;
