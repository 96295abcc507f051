//! Whether a candidate is worse than what it is to replace.
//!
//! Both run at the same time on sessions chosen by a salted hash, so whatever happens to the node happens to both. At each
//! step the candidate is judged once, when both have enough requests:
//!
//! - **Errors** (a plug-in's call failed, the request failed, or never reported) and **overrides** (the host ran it
//!   otherwise than planned) are shares. Worse: Fisher's exact test, one-sided, gives p below [`ALPHA`], and the share is
//!   larger by more than the operator's tolerance.
//! - **Time to first token** and **total time**, at the 95th percentile: the share of requests above the 95th percentile of
//!   both together, tested in the same way, and a percentile that is longer by more than the tolerance. No assumption
//!   about the distribution is made.
//! - **Cost**: Welch's test of the means, one-sided, and a mean that is higher by more than the tolerance.
//!
//! `ALPHA` is 0.05 shared among five measures and four steps (Bonferroni): a candidate that is no worse is turned away in
//! less than one rollout of twenty. Between, errors and lost requests are looked at again and again, from
//! [`EARLY_SAMPLES`] requests on, at [`EARLY_ALPHA`], so that a broken candidate need not break two hundred.
//!
//! At the last step nobody runs the old generation any more: errors and overrides are held against its figures of the step
//! before, times and cost are not judged.

mod compare;
mod trial;

pub use self::compare::{fisher, welch};
pub use self::trial::{
    ALPHA, Arm, ArmFigures, EARLY_ALPHA, EARLY_SAMPLES, Sample, Side, Trial, Verdict,
};
