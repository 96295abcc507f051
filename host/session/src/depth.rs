//! How many drafts one pass of the target had better verify.
//!
//! `k` drafts give `(1 - a^(k+1)) / (1 - a)` tokens at acceptance `a` (Leviathan et al. 2023, arXiv 2211.17192). Where a pass takes
//! as long whatever is in it, more are always better. Where the target computes rather than waits for its memory, each draft makes
//! the pass longer, and a late one is hardly ever reached: then what waits behind the best number is verified with the next
//! pass, if it still stands. Both times are learned from the passes as they come.
//!
//! Read first: [`Acceptance::best`] (drafts that come over a link), [`Pace`] (a drafter beside its target).

/// Weight of a new pass in what is known of all.
const WEIGHT: f64 = 0.05;
/// Weight of a new token in what is known of acceptance.
const TOKEN_WEIGHT: f64 = 0.05;
/// Drafts a pass while nothing is known.
const AT_FIRST: usize = 8;
/// Passes whose numbers of drafts are spread less than this say nothing of what one draft more costs.
const LEAST_VARIANCE: f64 = 0.5;
/// Weight of a new round in what is known of the speed of a drafter beside its target.
const DRAFT_WEIGHT: f64 = 0.1;
/// A target that does without drafts tries one again after so many tokens.
const TRY_AGAIN: u32 = 32;

/// How long passes take, by the number of their drafts: a line, fitted by least squares to passes whose weight falls with
/// their age.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassTimes {
    weight: f64,
    drafts: f64,
    took: f64,
    drafts_squared: f64,
    drafts_took: f64,
}

impl PassTimes {
    /// A pass over so many drafts of an answer took so long.
    pub fn saw(&mut self, drafts: usize, took_ms: f64) {
        let drafts = drafts as f64;
        for (sum, new) in [
            (&mut self.weight, 1.0),
            (&mut self.drafts, drafts),
            (&mut self.took, took_ms),
            (&mut self.drafts_squared, drafts * drafts),
            (&mut self.drafts_took, drafts * took_ms),
        ] {
            *sum += WEIGHT * (new - *sum);
        }
    }

    /// A pass without drafts, and what each draft adds to it, in ms; `None` before the first pass.
    pub fn line(&self) -> Option<(f64, f64)> {
        if self.weight <= 0.0 {
            return None;
        }
        let mean = |sum: f64| sum / self.weight;
        let (drafts, took) = (mean(self.drafts), mean(self.took));
        let variance = mean(self.drafts_squared) - drafts * drafts;
        if variance < LEAST_VARIANCE {
            return Some((took, 0.0));
        }
        let slope = (mean(self.drafts_took) - drafts * took) / variance;
        // Noise may say that drafts make a pass shorter, or that nothing is left without them.
        let more = slope.clamp(0.0, took / drafts.max(1.0));
        Some((took - more * drafts, more))
    }
}

/// How often a drafter is right, place by place.
#[derive(Clone, Copy, Debug)]
pub struct Acceptance(f64);

impl Default for Acceptance {
    fn default() -> Acceptance {
        Acceptance(0.7)
    }
}

impl Acceptance {
    /// Of so many drafts so many stood.
    pub fn saw(&mut self, drafts: usize, accepted: usize) {
        // Places at which both chose: the accepted ones, and the one that was not.
        for place in 0..drafts.min(accepted + 1) {
            let stood = if place < accepted { 1.0 } else { 0.0 };
            self.0 += TOKEN_WEIGHT * (stood - self.0);
        }
    }

    /// The number of drafts, up to `most`, that gives most tokens a millisecond, where making one takes `draft_ms`.
    pub fn best(self, times: &PassTimes, draft_ms: f64, most: usize) -> usize {
        let Some((step_ms, more_ms)) = times.line() else {
            return AT_FIRST.min(most);
        };
        let (mut tokens, mut stands) = (1.0, 1.0);
        let (mut best, mut fastest) = (0, 0.0);
        for drafts in 0..=most {
            let took_ms = step_ms + drafts as f64 * (more_ms + draft_ms);
            let rate = tokens / took_ms.max(1e-6);
            // What is no slower may be more.
            if rate >= fastest {
                (best, fastest) = (drafts, rate);
            }
            stands *= self.0;
            tokens += stands;
        }
        best
    }
}

/// A drafter beside its target, which drafts where the target would choose a single token: how many drafts it makes. The
/// best number may be 0: then the target goes on alone, and tries a draft now and then.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    draft_ms: f64,
    times: PassTimes,
    acceptance: Acceptance,
    /// Tokens since the last draft.
    without: u32,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            draft_ms: 1.0,
            times: PassTimes::default(),
            acceptance: Acceptance::default(),
            without: 0,
        }
    }
}

impl Pace {
    /// Of so many drafts, made in `draft_ms` all together, so many stood; holding them against the target took `verify_ms`.
    pub fn saw(&mut self, drafts: usize, draft_ms: f64, accepted: usize, verify_ms: f64) {
        self.times.saw(drafts, verify_ms);
        if drafts == 0 {
            self.without += 1;
            return;
        }
        self.without = 0;
        self.draft_ms += DRAFT_WEIGHT * (draft_ms / drafts as f64 - self.draft_ms);
        self.acceptance.saw(drafts, accepted);
    }

    /// How many drafts are to be made next, at most `most`.
    pub fn drafts(&self, most: usize) -> usize {
        match self.acceptance.best(&self.times, self.draft_ms, most) {
            0 if self.without >= TRY_AGAIN => 1,
            best => best,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_that_is_not_worth_it_is_tried_now_and_then() {
        let mut times = PassTimes::default();
        times.saw(0, 10.0);
        let mut pace = Pace {
            draft_ms: 20.0,
            times,
            without: TRY_AGAIN - 1,
            ..Pace::default()
        };
        assert_eq!(pace.drafts(16), 0);
        pace.without = TRY_AGAIN;
        assert_eq!(pace.drafts(16), 1);
        pace.draft_ms = 0.1;
        assert!(pace.drafts(16) > 1);
    }

    fn times(step_ms: f64, more_ms: f64) -> PassTimes {
        let mut times = PassTimes::default();
        for pass in 0..200 {
            let drafts = pass % 7;
            times.saw(drafts, step_ms + more_ms * drafts as f64);
        }
        times
    }

    fn right(share: f64) -> Acceptance {
        Acceptance(share)
    }

    #[test]
    fn a_line_is_found() {
        let (step_ms, more_ms) = times(27.0, 8.0).line().unwrap();
        assert!((step_ms - 27.0).abs() < 1e-6 && (more_ms - 8.0).abs() < 1e-6);
        // Passes that get shorter with more in them are noise.
        let (step_ms, more_ms) = times(27.0, -1.0).line().unwrap();
        assert!(more_ms == 0.0 && step_ms > 20.0);
        // Of passes that are all alike nothing is known but how long they take.
        let mut alike = PassTimes::default();
        assert!(alike.line().is_none());
        alike.saw(4, 30.0);
        assert_eq!(alike.line(), Some((30.0, 0.0)));
    }

    #[test]
    fn acceptance_is_learned_place_by_place() {
        let mut seen = Acceptance::default();
        for _ in 0..300 {
            // Three places were judged, two stood.
            seen.saw(8, 2);
        }
        assert!((seen.0 - 2.0 / 3.0).abs() < 0.03, "{seen:?}");
        seen.saw(0, 0);
    }

    #[test]
    fn the_number_of_drafts_follows_what_they_are_worth() {
        // A draft that is never right, or as dear as the target, is not asked.
        assert_eq!(right(0.0).best(&times(10.0, 0.1), 1.0, 16), 0);
        assert_eq!(right(0.8).best(&times(10.0, 0.0), 10.0, 16), 0);
        // Drafts that cost nothing are all taken.
        assert_eq!(right(0.9).best(&times(10.0, 0.0), 0.0, 64), 64);
        // (1 - 0.8^(k+1)) / 0.2 in k + 10: 0.2857 at 7, 0.2857 at 8, less at 6 and 9.
        assert!((6..=9).contains(&right(0.8).best(&times(10.0, 0.0), 1.0, 16)));
        // A target that computes: 5.35 tokens in 75 ms at 6, fewer a millisecond at 3 and at 12.
        assert!((5..=7).contains(&right(0.906).best(&times(27.0, 8.0), 0.0, 64)));
        assert_eq!(right(0.5).best(&PassTimes::default(), 1.0, 64), AT_FIRST);
    }
}
