//! VQAv2: its files ([`load`](crate::Set::load)) and its soft accuracy.

pub mod accuracy;
mod contractions;
mod load;

pub use self::accuracy::{Answers, Rules, normalise, punctuation};
pub(crate) use self::load::load;
