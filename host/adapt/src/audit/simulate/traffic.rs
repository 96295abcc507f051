//! Kinds of traffic, to make truths of.

use super::super::THRESHOLDS;
use super::super::grid::first_met;
use super::Truth;
use crate::random::{Random, Stream};

/// Requests that the truth is averaged over. Given the request's tokens, what thresholds do is computed rather than
/// drawn, so few are enough.
const REQUESTS: u32 = 4_000;
/// A rejection as good as sure, whose logarithm is finite.
const SURELY: f64 = 1.0 - 1e-12;

/// A kind of traffic: how long answers are, how sure their drafts, and how far that can be trusted.
///
/// A draft's *doubt*, 1 less its claimed acceptance probability, is `10^-x`, `x` normal and cut at 0. The draft is
/// rejected with probability `floor + trust * doubt`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Mean number of drafts in an answer, at least 1; the number is geometric.
    pub drafts: f64,
    /// Mean of `x`.
    pub decades: f64,
    /// Standard deviation of `x`.
    pub spread: f64,
    /// Rejections by doubt: 1 where claims are calibrated, above where they are too high.
    pub trust: f64,
    /// Rejections of even the surest draft.
    pub floor: f64,
}

impl Traffic {
    /// Calibrated drafts in answers of some 64 tokens, of which five in six are accepted.
    pub const CALIBRATED: Traffic = Traffic {
        drafts: 64.0,
        decades: 2.0,
        spread: 1.5,
        trust: 1.0,
        floor: 0.0,
    };

    /// Kinds that differ in what confident mode depends on, by name.
    pub const KINDS: [(&str, Traffic); 6] = {
        let calibrated = Traffic::CALIBRATED;
        [
            ("calibrated", calibrated),
            (
                "short answers",
                Traffic {
                    drafts: 12.0,
                    ..calibrated
                },
            ),
            (
                "sure drafts",
                Traffic {
                    decades: 3.0,
                    spread: 2.0,
                    ..calibrated
                },
            ),
            (
                "overconfident",
                Traffic {
                    trust: 4.0,
                    ..calibrated
                },
            ),
            (
                "never quite sure",
                Traffic {
                    floor: 1e-5,
                    ..calibrated
                },
            ),
            (
                "little spread",
                Traffic {
                    spread: 1.0,
                    ..calibrated
                },
            ),
        ]
    };

    /// What thresholds would do to it, averaged over some thousand requests of a seed.
    pub fn truth(&self, seed: u64) -> Truth {
        let mut random = Random::new(seed, Stream::Traffic);
        let mut rates = vec![0.0; THRESHOLDS];
        let mut tokens = vec![0.0; THRESHOLDS];
        let mut all = 0.0;
        let end = 1.0 / self.drafts.max(1.0);
        for _ in 0..REQUESTS {
            // The logarithm of the chance that no draft is rejected, by the highest threshold that a draft meets.
            let mut stands = vec![0.0; THRESHOLDS];
            loop {
                let decades = self.decades + self.spread * random.normal();
                let doubt = 10_f64.powf(-decades.max(0.0));
                all += 1.0;
                let met = first_met(1.0 - doubt);
                if let (Some(count), Some(ln)) = (tokens.get_mut(met), stands.get_mut(met)) {
                    let rejected = self.floor + self.trust * doubt;
                    *count += 1.0;
                    *ln += (-rejected.clamp(0.0, SURELY)).ln_1p();
                }
                if random.uniform() < end {
                    break;
                }
            }
            let mut ln = 0.0;
            for (rate, here) in rates.iter_mut().zip(stands) {
                ln += here;
                *rate -= f64::exp_m1(ln);
            }
        }
        let mut below: f64 = 0.0;
        for (rate, count) in rates.iter_mut().zip(&mut tokens) {
            *rate = (*rate / f64::from(REQUESTS)).clamp(0.0, 1.0);
            below += *count;
            *count = (below / all).min(1.0);
        }
        Truth {
            rates,
            shares: tokens,
        }
    }
}
