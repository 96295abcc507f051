//! How fast drafts become an answer: the system's own formulas, for `plan` and for `step`.
//!
//! With `a` the share of drafts that stand, `t_d` the time of a draft, `t_t` that of a token of the target alone, `t_v`
//! that of a pass over eight drafts, all in ms:
//!
//! ```text
//! L             = rtt + jitter + t_v + t_v / 2 + queue + 8000 * bytes / uplink        a verdict, from draft to answer
//! stream        : 1 / (1 - a) tokens per a / (1 - a) * t_d + t_d + L, that is t_d + (1 - a) * L a token
//! side by side  : the least over g = 1 .. 8 of (g * t_d + t_t + (t_v - t_t) * g / 8) / (1 + a + .. + a^g)
//! ```
//!
//! `t_v / 2` is the wait for the pass that is running already.

use crate::model::{Link, Machine};
use crate::{larger, smaller};

/// Bytes of a round of one draft: frame and id.
const ROUND_BYTES: f64 = 68.0;
/// Bytes of one draft more.
const DRAFT_BYTES: f64 = 4.0;
/// Drafts of the pass that [`Machine::pass_ms`] is the time of.
const PASS_DRAFTS: u32 = 8;

/// Edge drafts, cloud verifies, and nobody waits for the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) draft_ms: f64,
    /// `L`.
    pub(crate) verdict_ms: f64,
    /// In `[0, 1]`.
    pub(crate) acceptance: f64,
}

impl Stream {
    /// Time of a token of the answer.
    pub(crate) fn token_ms(&self) -> f64 {
        self.draft_ms + (1.0 - self.acceptance) * self.verdict_ms
    }

    /// Whether a draft is worth its time, where all before it stand with probability `stands`: `stands` is at least
    /// tokens a ms, as they come now, times what it costs. `charge`: share of its own time that is charged; `more_ms`:
    /// what it adds to a pass and to the way.
    pub(crate) fn is_worth_drafting(&self, stands: f64, charge: f64, more_ms: f64) -> bool {
        stands * self.token_ms() >= charge * self.draft_ms + more_ms
    }
}

/// `L` but for round trip and queue.
pub(crate) fn verdict_ms(machine: &Machine, link: &Link) -> f64 {
    1.5 * machine.pass_ms + ROUND_BYTES * link.byte_ms
}

/// What one draft more costs: its row in the pass, the bytes, and, where others wait for the target, its share of
/// theirs. A target that nobody waits for verifies it for what its row takes.
pub(crate) fn more_ms(machine: &Machine, link: &Link) -> f64 {
    let all = machine.queue_ms + machine.pass_ms;
    let pressure = if all > 0.0 {
        machine.queue_ms / all
    } else {
        0.0
    };
    let row_ms = larger(machine.pass_ms - machine.target_ms, 0.0);
    (row_ms + pressure * machine.pass_ms) / f64::from(PASS_DRAFTS) + DRAFT_BYTES * link.byte_ms
}

/// Time of a token where a node drafts for itself.
pub(crate) fn side_by_side_ms(machine: &Machine, acceptance: f64) -> f64 {
    let row_ms = (machine.pass_ms - machine.target_ms) / f64::from(PASS_DRAFTS);
    let mut round_ms = machine.target_ms;
    let (mut stands, mut tokens) = (1.0, 1.0);
    // Without a draft it is the target alone.
    let mut least_ms = machine.target_ms;
    for _ in 0..PASS_DRAFTS {
        round_ms += machine.draft_ms + row_ms;
        stands *= acceptance;
        tokens += stands;
        least_ms = smaller(round_ms / tokens, least_ms);
    }
    larger(least_ms, 0.0)
}

/// `base` to the power of `exponent`.
pub(crate) fn power(base: f64, exponent: u32) -> f64 {
    let (mut result, mut square, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left % 2 == 1 {
            result *= square;
        }
        square *= square;
        left /= 2;
    }
    result
}
