//! The plug-in platform's figures: what a call costs, what a runaway is stopped by, what a host says to hostile files.
//!
//! Built without the engine, so that proving it needs no libtorch.

pub mod bare;
pub mod beginnings;
pub mod costs;
pub mod guests;
pub mod hostile;
pub mod inputs;
pub mod instances;
pub mod languages;
pub mod measure;
pub mod mutations;
pub mod native;
pub mod replays;
pub mod runaway;
pub mod shipped;
pub mod stops;
pub mod swaps;
