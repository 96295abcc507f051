//! What learns the map.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bins::Bins;
use super::map::Map;
use super::score::{Draft, Score};

/// What was stored cannot have been learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the stored acceptance map does not fit together; learn it anew")]
pub struct LearnerError;

/// Learns from verdicts which drafts the target accepts. One for each pair of models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Learner {
    score: Score,
    bins: Bins,
    judged: u64,
    ignored: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    score: Score,
    bins: Bins,
    judged: u64,
    ignored: u64,
}

impl TryFrom<Stored> for Learner {
    type Error = LearnerError;

    fn try_from(stored: Stored) -> Result<Learner, LearnerError> {
        let Stored {
            score,
            bins,
            judged,
            ignored,
        } = stored;
        if score.is_sound() && bins.is_sound() {
            Ok(Learner {
                score,
                bins,
                judged,
                ignored,
            })
        } else {
            Err(LearnerError)
        }
    }
}

impl Learner {
    /// Drafts after which an earlier one counts `1/e`: of all drafts for the score, of those of about the same score
    /// for its rate of acceptance. Short enough to follow a change within minutes of traffic, long enough to tell a
    /// doubt of 10^-4.
    pub const HORIZON: f64 = 20_000.0;

    /// The target accepted a draft, or rejected it. Drafts behind a rejected one were not judged and say nothing. Which
    /// are judged may depend on their scalars, as in confident mode, but on nothing else. Ignored, and counted, where a
    /// scalar cannot be.
    pub fn learn(&mut self, draft: &Draft, accepted: bool) {
        let Some(signals) = draft.signals() else {
            self.ignored = self.ignored.saturating_add(1);
            return;
        };
        self.judged = self.judged.saturating_add(1);
        const KEEP: f64 = 1.0 - 1.0 / Learner::HORIZON;
        // By the score as it was before this draft, as those will be who ask next.
        self.bins.learn(self.score.of(&signals), accepted, KEEP);
        self.score.learn(&signals, accepted, KEEP);
    }

    /// The map as it is now.
    pub fn map(&self) -> Map {
        Map::new(self.score.weights, self.bins.knots())
    }

    /// Drafts learned from.
    pub fn judged(&self) -> u64 {
        self.judged
    }

    /// Drafts that could not be.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}
