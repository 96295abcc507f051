//! Bringing a request's audit to its end.

use msao_adapt::acceptance::{Draft, Map};
use msao_adapt::audit::Audited;
use tokio::task::JoinSet;

use crate::adapt::{Auditing, Judge};
use crate::answer::{Driven, Ended, Place};
use crate::node::Node;

/// What came of a request, so far as its audit needs it.
pub struct Counted {
    /// All its answers were given, and none went wrong.
    pub whole: bool,
    /// Tokens committed without the target.
    pub unverified: u32,
    /// Drafts that were judged on the way.
    pub judged: u32,
}

/// Asks the draft model about every place of the answers, and tells the audit what the target rejected. An answer that is
/// not whole, or not all the target's that the audit is about, leaves it unfinished: then it counts as disagreement.
///
/// What no draft was judged of on the way is learned from here.
pub async fn end(
    node: &Node,
    audit: Auditing,
    mut judge: Judge,
    driven: Vec<Driven>,
    counted: &Counted,
) {
    let of_the_target = |driven: &Driven| {
        let target = driven.row.and_then(|row| node.target_identity(row));
        let whole = matches!(driven.ended, Ended::Whole(_));
        whole && target.is_some_and(|target| target.model == audit.pair().target)
    };
    if !counted.whole || counted.unverified > 0 || !driven.iter().all(of_the_target) {
        return;
    }
    // Beside each other: their seats may share a prompt that one of them lays out for all.
    let mut replays = JoinSet::new();
    for driven in driven {
        let Some(replay) = driven.replay else {
            return;
        };
        replays.spawn(replay.run());
    }
    let mut rejected: Option<f64> = None;
    while let Some(replayed) = replays.join_next().await {
        let Ok(Some(places)) = replayed else {
            return;
        };
        if counted.judged == 0 {
            for place in &places {
                let (p_accept, _) = judge.of(&place.confidence);
                judge.learn(&place.confidence, p_accept, place.accepted);
            }
        }
        let own = surest(audit.map(), judge.mas(), &places);
        rejected = [rejected, own].into_iter().flatten().reduce(f64::max);
    }
    audit.end(match rejected {
        Some(acceptance) => Audited::Rejected { acceptance },
        None => Audited::Agreed,
    });
}

/// The largest acceptance probability among the places where the target chose otherwise; `None` where it never did.
fn surest(map: &Map, mas: f64, places: &[Place]) -> Option<f64> {
    let rejected = places.iter().filter(|place| !place.accepted);
    let acceptances = rejected.map(|place| map.acceptance(&Draft::of(&place.confidence, mas)));
    acceptances.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use msao_adapt::acceptance::Learner;
    use msao_core::sampling::Confidence;

    use super::*;

    #[test]
    fn the_surest_of_what_was_rejected_counts() {
        let map = Learner::default().map();
        let place = |top1: f64, accepted| Place {
            confidence: Confidence {
                top1,
                entropy: 1.0 - top1,
                margin: 2.0,
            },
            accepted,
        };
        let p = |top1: f64| map.acceptance(&Draft::of(&place(top1, true).confidence, 0.0));
        assert_eq!(surest(&map, 0.0, &[]), None);
        assert_eq!(surest(&map, 0.0, &[place(0.9, true)]), None);
        let places = [
            place(0.99, true),
            place(0.3, false),
            place(0.8, false),
            place(0.6, false),
        ];
        assert_eq!(surest(&map, 0.0, &places), Some(p(0.8)));
    }
}
