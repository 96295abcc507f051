//! Tuning of parameters whose effect can only be measured: Bayesian optimisation under a constraint.
//!
//! A [`Tuner`] says which point to try next, is told what came of it, and so on: some tens of trials for a few
//! parameters. It holds two Gaussian processes, one of the objective and one of the constraint (`process.rs`), and
//! suggests the point at which the improvement to be expected, times the probability that the constraint is kept, is
//! largest (`improvement.rs`). It begins with a design that covers the space evenly (`design.rs`).
//!
//! Promises: what is suggested is in the space and a function of space, seed and what was told, on any machine with the
//! same mathematical library; trials that failed, or whose figures are no numbers, are learned from as failures.
//!
//! Of the libraries, `egobox-ego` is well kept and could be asked in much the same way, but brings a stack of numerical
//! crates (ndarray, linfa, several optimisers) for what is a side matter here; `friedrich` has processes without
//! constraints and with one length for all coordinates. What is needed is a Cholesky factor (`linear.rs`) and a page of
//! formulas.
//!
//! ```
//! use msao_adapt::tune::{Dimension, Space, Tuner};
//!
//! // How many drafts a round, and from which round trip on, in ms: 40 is best, and more than 6 drafts cost too much.
//! let space = Space::new(vec![Dimension::int(1.0, 16.0), Dimension::float(1.0, 1000.0).log()])?;
//! let mut tuner = Tuner::new(space, 7);
//! for _ in 0..25 {
//!     let point = tuner.suggest();
//!     let [drafts, rtt_ms] = point[..] else { unreachable!() };
//!     let latency_ms = 100.0 - 5.0 * drafts + (rtt_ms / 40.0).ln().powi(2);
//!     tuner.tell(&point, latency_ms, drafts - 6.0)?;
//! }
//! let best = tuner.best().unwrap();
//! assert_eq!(best.point[0], 6.0);
//! assert!(best.objective < 71.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod design;
mod fit;
mod improvement;
mod process;
mod search;
mod space;
pub mod trial;
mod tuner;

pub use self::space::{Dimension, MAX_DIMENSIONS, Point, Space, SpaceError};
pub use self::tuner::{Best, MAX_TRIALS, TellError, Tuner};
