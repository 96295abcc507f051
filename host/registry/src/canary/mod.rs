//! Whether a candidate is worse than what it is to replace.
//!
//! Both run at the same time on sessions chosen by a salted hash, so whatever happens to the node happens to both. At each
//! step the candidate is judged once, when both have enough requests:
//!
//! - **Errors** (a plug-in's call failed, the request failed, or never reported), **cancelled** (the client left),
//!   **refused** (after it was planned) and **overrides** (the host ran it otherwise than planned) are shares. Worse:
//!   Fisher's exact test, one-sided, gives p below [`alpha`], and the share is larger by more than the operator's tolerance.
//! - **Time to first token** and **total time**, at the 95th percentile: the share of requests above the 95th percentile of
//!   both together, tested in the same way, and a percentile that is longer by more than the tolerance. No assumption
//!   about the distribution is made. Who leaves before the first token counts with the time that it has waited: the token
//!   would have come later than that.
//! - **Cost**: Welch's test of the means, one-sided, and a mean that is higher by more than the tolerance.
//!
//! [`FALSE_ALARMS`] is shared among seven measures and all steps (Bonferroni). Between, errors, cancelled and refused
//! requests are looked at when the candidate has [`EARLY_SAMPLES`] requests, twice as many, four times as many ..., so that
//! a broken one need not break two hundred; these looks share [`EARLY_FALSE_ALARMS`]. Together that is 0.05: a candidate
//! that is no worse is turned away in less than one rollout of twenty.
//!
//! That holds for requests that fail independently of each other. Requests without an answer on the same content are counted
//! once; a session that goes without one on ever different content counts as often as it does.
//!
//! Without a request of the stable generation there is nothing to compare with: the candidate is held. At the last step
//! nobody runs the old generation any more: shares are held against its figures of the step before, times and cost are not
//! judged.

mod compare;
mod trial;

pub use self::compare::{fisher, welch};
pub use self::trial::{
    Arm, ArmFigures, EARLY_FALSE_ALARMS, EARLY_SAMPLES, End, FALSE_ALARMS, Sample, Side, Trial,
    Verdict, alpha, early_alpha,
};
