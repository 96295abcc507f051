//! From what a draft model says of its token to the probability that the target accepts it.
//!
//! A [`Learner`] sees which drafts the target accepted. It has two parts: a score, increasing in the draft's top-1
//! probability and margin and decreasing in its entropy and the request's MAS (`score.rs`), and rates of acceptance by
//! score (`bins.rs`). The first makes one number of four, the second makes it right whatever the first got wrong. What
//! readers get is a [`Map`]: immutable, monotone, cheap to ask.
//!
//! Promises: an acceptance probability is in `[0, 1]` and monotone in each of the four scalars, whatever was learned;
//! it follows a change of the models or of traffic within some [`Learner::HORIZON`] drafts of a score; what cannot be
//! is ignored and counted.
//!
//! ```
//! use msao_adapt::acceptance::{Draft, Learner};
//!
//! let mut learner = Learner::default();
//! let draft = Draft { top1: 0.9, entropy_nats: 0.4, margin: 3.0, mas: 0.2 };
//! // Before anything is known it is about the draft model's own probability.
//! let before = learner.map().acceptance(&draft);
//! assert!(before > 0.85 && before < 0.95);
//! for i in 0..1_000 {
//!     learner.learn(&draft, i % 5 != 0);
//! }
//! let after = learner.map().acceptance(&draft);
//! assert!((after - 0.8).abs() < 0.01);
//! ```

mod bins;
mod counts;
mod learner;
mod map;
mod score;

pub(crate) use self::bins::monotone;
pub use self::counts::{AcceptanceCounts, Cell, Mix};
pub use self::learner::{Learner, LearnerError};
pub use self::map::Map;
pub use self::score::Draft;

#[cfg(test)]
mod tests;
