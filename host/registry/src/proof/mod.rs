//! Figures that are too slow for a test run: exchanges under load, and stops at random moments.
//!
//! Used by the project's prover and, with small numbers, by its tests.

mod observes;
mod stops;
mod swaps;

pub use self::observes::{ObserveFigures, observes};
pub use self::stops::{StopFigures, Torture, stop_at_random, torture};
pub use self::swaps::{Belongs, SwapFigures, SwapRun, swaps};
