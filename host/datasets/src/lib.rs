//! Evaluation sets as they are published, and how answers to them are scored: VQAv2's files with the official soft accuracy,
//! MMBench's tables with vanilla accuracy and CircularEval, and the demo world's sets, which have the same layouts.
//!
//! Promises:
//! - A set is loaded whole or not at all; an error names the file, the line, question or row, and what to do. Memory is bounded
//!   by the [limits](mod@files) whatever the files hold.
//! - VQAv2 is scored as the official `vqaEval.py` does, its quirks included ([`vqa::accuracy`] lists them).
//! - A score is in `[0, 1]`, and depends on nothing but the item and the answer.
//! - The same set, number and seed draw the same sample on every machine.
//!
//! Nothing here runs a model or decodes a medium.
//!
//! Read first: [`Set::load`], [`Item`], [`score()`], [`Tally`], [`Workload`].
#![forbid(unsafe_code)]

mod error;
pub mod facts;
pub mod files;
mod item;
pub mod mmbench;
mod sample;
mod score;
mod set;
mod tally;
pub mod vqa;

pub use self::error::DataError;
pub use self::item::{Item, Mix, Reference, Source};
pub use self::sample::{Sample, SampleError, Workload, proportional};
pub use self::score::{Score, score};
pub use self::set::{Kind, Set};
pub use self::tally::{ChoiceFigures, FactFigures, Figures, Key, Mean, Tally};
