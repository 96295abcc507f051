//! What a point came to, what of that is to be low, and what must hold.

use msao_adapt::audit::bound;
use serde::{Deserialize, Serialize};

/// How much room a constraint that cannot be broken any further is said to have: a point at which nothing is committed
/// unverified should not look as if it were on the brink.
const ROOM: f64 = 0.01;
/// How much more may be dropped of what answers need than with the declared defaults.
const LOST: f64 = 0.005;

/// What all requests came to at one point.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Measured {
    /// Mean time to the last token of those that were answered, in ms.
    pub latency_ms: f64,
    /// Mean cost of a request, in the operator's unit.
    pub cost: f64,
    /// Requests.
    pub requests: u32,
    /// Of them, those that were refused or failed.
    pub unanswered: u32,
    /// Of all, those with a token that was committed unverified while the target could be reached and might have been asked.
    pub exposed: u32,
    /// Of them, those with a token that the target would not have chosen.
    pub disagreed: u32,
    /// Share of what answers need of their media that was dropped, in the mean over requests (`docs/simulator.md`).
    pub lost: f64,
    /// Share of all tokens that are not the target's, for people.
    pub wrong: f64,
    /// By where they ran in the end: edge, cloud, cloud-draft, speculate.
    pub routes: [u32; 4],
    /// Calls of the policy that failed or whose answers broke a rule.
    pub failures: u64,
}

impl Measured {
    /// The audits' bound on the share of requests with an unverified disagreement; 0 where nothing was committed unverified.
    pub fn bound(&self, delta: f64) -> f64 {
        match self.exposed {
            0 => 0.0,
            _ => bound(self.requests.into(), self.disagreed.into(), delta),
        }
    }

    /// Whether its figures can have been measured: those of a file may have been changed.
    pub(crate) fn is_sound(&self) -> bool {
        let figures = [self.latency_ms, self.cost, self.lost, self.wrong];
        figures
            .iter()
            .all(|value| value.is_finite() && *value >= 0.0)
            && self.unanswered < self.requests
            && self.exposed <= self.requests
            && self.disagreed <= self.exposed
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wanted {
    /// What a unit of cost is worth for a request, in ms.
    pub weight: f64,
    /// Chance that the bound on disagreement is wrong, at most.
    pub delta: f64,
    /// Share of requests that may have an unverified disagreement. None: no more than with the declared defaults.
    pub budget: Option<f64>,
}

/// Holds points against what is wanted, and against the declared defaults.
#[derive(Clone, Debug, PartialEq)]
pub struct Judge {
    wanted: Wanted,
    /// The bound must not be above.
    limit: f64,
    /// The share of requests without an answer must not be above.
    most_unanswered: f64,
    /// What is dropped of what answers need must not be above.
    most_lost: f64,
}

impl Judge {
    /// `declared`: what the declared defaults came to.
    pub fn new(wanted: Wanted, declared: &Measured) -> Judge {
        let count = f64::from(declared.requests.max(1));
        // Half way to the next worse count, so that as many as with the defaults are well within.
        let one_more = Measured {
            exposed: declared.exposed.max(1),
            disagreed: declared.disagreed + u32::from(declared.exposed > 0),
            ..declared.clone()
        };
        let as_declared = 0.5 * (declared.bound(wanted.delta) + one_more.bound(wanted.delta));
        Judge {
            wanted,
            limit: wanted.budget.unwrap_or(as_declared),
            most_unanswered: (f64::from(declared.unanswered) + 0.5) / count,
            // Routes differ a little in what is read by whom.
            most_lost: declared.lost + LOST,
        }
    }

    /// Mean latency and what the mean cost is worth, in ms.
    pub fn objective(&self, measured: &Measured) -> f64 {
        measured.latency_ms + self.wanted.weight * measured.cost
    }

    /// By how much the audits' bound, the share of requests without an answer, or what is dropped of what answers need, is too
    /// high, whichever is worst; at most 0 where all hold.
    pub fn constraint(&self, measured: &Measured) -> f64 {
        let disagreement = match measured.exposed {
            0 => -self.limit.max(ROOM),
            _ => measured.bound(self.wanted.delta) - self.limit,
        };
        let count = f64::from(measured.requests.max(1));
        let unanswered = f64::from(measured.unanswered) / count - self.most_unanswered;
        let lost = measured.lost - self.most_lost;
        disagreement.max(unanswered).max(lost)
    }

    /// The audits' bound, see [`Measured::bound`].
    pub fn bound(&self, measured: &Measured) -> f64 {
        measured.bound(self.wanted.delta)
    }

    /// Whether the constraint holds.
    pub fn keeps(&self, measured: &Measured) -> bool {
        self.constraint(measured) <= 0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn measured(unanswered: u32, exposed: u32, disagreed: u32) -> Measured {
        Measured {
            latency_ms: 100.0,
            cost: 0.002,
            requests: 1_000,
            unanswered,
            exposed,
            disagreed,
            ..Measured::default()
        }
    }

    fn wanted(budget: Option<f64>) -> Wanted {
        Wanted {
            weight: 500.0,
            delta: 0.05,
            budget,
        }
    }

    #[test]
    fn without_a_budget_nothing_may_get_worse_than_declared() {
        let declared = measured(3, 200, 20);
        let judge = Judge::new(wanted(None), &declared);
        assert_eq!(judge.objective(&declared), 101.0);
        for (point, keeps) in [
            (measured(3, 200, 20), true),
            (measured(0, 900, 3), true),
            (measured(3, 0, 0), true),
            (measured(3, 200, 21), false),
            (measured(4, 0, 0), false),
        ] {
            assert_eq!(judge.keeps(&point), keeps, "{point:?}");
        }
        // What answers need is not dropped for speed.
        let blind = |lost| Measured {
            lost,
            ..measured(3, 200, 20)
        };
        assert!(judge.keeps(&blind(0.005)) && !judge.keeps(&blind(0.02)));
        assert!(Judge::new(wanted(None), &blind(0.1)).keeps(&blind(0.1)));
        // Where the defaults commit nothing unverified nothing else may.
        let judge = Judge::new(wanted(None), &measured(0, 0, 0));
        assert!(judge.keeps(&measured(0, 0, 0)));
        assert!(!judge.keeps(&measured(0, 1, 0)));
    }

    #[test]
    fn a_budget_is_held_against_the_bound_and_not_against_what_was_seen() {
        let judge = Judge::new(wanted(Some(0.01)), &measured(0, 500, 400));
        // None and one in 1,000 show less than 1%; five in 1,000 are half of it and show nothing of the kind.
        assert!(judge.keeps(&measured(0, 500, 0)) && judge.keeps(&measured(0, 500, 1)));
        assert!(!judge.keeps(&measured(0, 500, 5)));
        assert!(!judge.keeps(&measured(0, 500, 400)));
    }

    proptest! {
        #[test]
        fn more_disagreement_and_fewer_answers_are_never_better(
            declared in (0_u32..100, 0_u32..1_000, 0_u32..1_000),
            one in (0_u32..100, 1_u32..1_000, 0_u32..999),
            budget in prop::option::of(0.001..0.5_f64),
        ) {
            let point = |(unanswered, exposed, disagreed): (u32, u32, u32)| {
                measured(unanswered, exposed, disagreed.min(exposed))
            };
            let judge = Judge::new(wanted(budget), &point(declared));
            let here = point(one);
            let worse = point((one.0 + 1, one.1, one.2 + 1));
            prop_assert!(judge.constraint(&here) <= judge.constraint(&worse));
            prop_assert!(judge.constraint(&here).is_finite());
            if budget.is_none() {
                prop_assert!(judge.keeps(&point(declared)));
            }
        }
    }
}
