//! What a node remembers.

mod calibration;
mod records;
mod sled;
