//! What an outcome says of a session.

use msao_core::offload::{BINS, Outcome};

/// Places that are told apart; the last stands for all behind it.
pub const PLACES: usize = 16;

/// Counts of one request, as [`Outcome`] wants them and some more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Drafts held against the target's choice, by acceptance probability.
    pub drafted: [u32; BINS],
    /// Of them, equal to it.
    pub accepted: [u32; BINS],
    /// Drafts held against the target's choice, by how many unjudged drafts they were made behind.
    pub drafted_behind: [u32; PLACES],
    /// Of them, equal to it.
    pub accepted_behind: [u32; PLACES],
    /// Rounds of drafts sent.
    pub rounds: u32,
    /// Times that drafts were taken back because the target chose otherwise.
    pub rollbacks: u32,
    /// Drafts taken back: those that lost and all behind them.
    pub wasted: u32,
    /// Verdicts that came too late to count.
    pub stale: u32,
    /// Tokens of the answer.
    pub tokens: u32,
    /// Of them, committed without the target.
    pub unverified: u32,
    /// Of these, committed once the peer was lost and nobody was there to verify them.
    pub unverified_parted: u32,
    /// Tokens in verdicts of the idle target.
    pub idle_tokens: u32,
    /// Time in which rounds were in flight and nothing was being drafted.
    pub waited_ms: f64,
    /// The rest was left to the target.
    pub escalated: bool,
    /// The peer was lost, or refused, and the answer went on without it.
    pub degraded: bool,
}

impl Counters {
    /// Drafts judged.
    pub fn judged(&self) -> u32 {
        self.drafted.iter().sum()
    }

    /// Drafts accepted.
    pub fn accepted(&self) -> u32 {
        self.accepted.iter().sum()
    }

    /// Fills in what an outcome says of this.
    pub fn fill(&self, outcome: &mut Outcome) {
        outcome.tokens = self.tokens;
        outcome.unverified = self.unverified;
        outcome.rounds = self.rounds;
        outcome.drafted = self.drafted.to_vec();
        outcome.accepted = self.accepted.to_vec();
    }

    /// A draft that was made behind so many unjudged ones was held against the target's choice.
    pub(super) fn judge(&mut self, behind: usize, p_accept: f64, accepted: bool) {
        // A probability that is not a number counts as 0.
        let bin = ((p_accept * BINS as f64) as usize).min(BINS - 1);
        let behind = behind.min(PLACES - 1);
        let drafted = [
            self.drafted.get_mut(bin),
            self.drafted_behind.get_mut(behind),
        ];
        drafted.into_iter().flatten().for_each(|count| *count += 1);
        if accepted {
            let accepted = [
                self.accepted.get_mut(bin),
                self.accepted_behind.get_mut(behind),
            ];
            accepted.into_iter().flatten().for_each(|count| *count += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drafts_are_counted_by_sixteenths() {
        let mut counters = Counters::default();
        for p in [0.0, 0.0625, 0.99, 1.0, f64::NAN, -3.0, 7.0] {
            counters.judge(2, p, p < 0.9);
        }
        counters.judge(40, 0.5, true);
        let behind = (counters.drafted_behind, counters.accepted_behind);
        assert_eq!((behind.0[2], behind.1[2]), (7, 3));
        assert_eq!((behind.0[15], behind.1[15]), (1, 1));
        assert_eq!((counters.drafted[0], counters.accepted[0]), (3, 2));
        assert_eq!((counters.drafted[1], counters.accepted[1]), (1, 1));
        assert_eq!((counters.drafted[15], counters.accepted[15]), (3, 0));
        let mut outcome = Outcome::default();
        counters.fill(&mut outcome);
        assert_eq!(outcome.drafted.iter().sum::<u32>(), counters.judged());
        assert_eq!(outcome.accepted.len(), BINS);
    }
}
