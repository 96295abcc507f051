//! The simulator beside formulas, and what it refuses.

mod closed_forms;
mod common;
mod component;
mod cores;
mod refused;
mod whole;
