//! Whether two answers are the same, to the bit, and where they part.

use msao_core::offload::record::Called;
use msao_core::offload::{Decision, PartPlan, Plan, Treatment, Update};
use serde::Serialize;

/// How a candidate's decision stands to the recorded one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The same to the bit.
    Same,
    /// The same route, peer and mode; something else differs.
    Changed,
    /// Another route, peer or mode.
    Flipped,
    /// The candidate failed where the recorded policy answered.
    Fails,
    /// The candidate answers where the recorded policy failed.
    Mended,
    /// The candidate wants the probe, which was not recorded.
    WantsProbe,
    /// The recorded call failed for want of room or time, or was kept away: that says nothing of the policy, and cannot
    /// happen again in a replay.
    HostFailed,
}

/// Kinds of failures that are the host's or the moment's.
const OF_THE_HOST: [&str; 5] = ["breaker", "revoked", "overloaded", "host", "deadline"];

/// Whether a call was recorded as failed for a reason that a replay does not have.
pub fn host_failed<T>(recorded: &Called<T>) -> bool {
    matches!(recorded, Called::Failed(kind) if OF_THE_HOST.contains(&kind.as_str()))
}

fn same_floats(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

fn same_treatment(a: &Treatment, b: &Treatment) -> bool {
    same_floats(&[a.keep, a.scale, a.frames], &[b.keep, b.scale, b.frames])
        && a.quality == b.quality
        && a.rest == b.rest
}

fn same_parts(a: &[PartPlan], b: &[PartPlan]) -> bool {
    a.len() == b.len()
        && (a.iter().zip(b)).all(|(a, b)| {
            same_treatment(&a.draft, &b.draft) && same_treatment(&a.target, &b.target)
        })
}

/// The fields of a plan in which `a` and `b` differ, to the bit.
pub fn differences(a: &Plan, b: &Plan) -> Vec<&'static str> {
    [
        ("route", a.route == b.route),
        ("peer", a.peer == b.peer),
        ("mode", a.mode == b.mode),
        ("gamma-max", a.gamma_max == b.gamma_max),
        ("in-flight-max", a.in_flight_max == b.in_flight_max),
        (
            "patience-ms",
            a.patience_ms.to_bits() == b.patience_ms.to_bits(),
        ),
        ("parts", same_parts(&a.parts, &b.parts)),
        ("memo", a.memo == b.memo),
        ("reason", a.reason == b.reason),
        ("terms", same_floats(&a.terms, &b.terms)),
    ]
    .into_iter()
    .filter(|(_, same)| !same)
    .map(|(field, _)| field)
    .collect()
}

/// What makes a flip rather than a change.
const FLIPPING: [&str; 3] = ["route", "peer", "mode"];

/// Holds a candidate's decision against the recorded one.
pub fn decisions(recorded: &Called<Decision>, candidate: &Called<Decision>) -> Verdict {
    if host_failed(recorded) {
        return Verdict::HostFailed;
    }
    match (recorded, candidate) {
        (Called::Answered(Decision::Run(a)), Called::Answered(Decision::Run(b))) => {
            let differences = differences(a, b);
            if differences.is_empty() {
                Verdict::Same
            } else if differences.iter().any(|field| FLIPPING.contains(field)) {
                Verdict::Flipped
            } else {
                Verdict::Changed
            }
        }
        (Called::Answered(Decision::Probe), Called::Answered(Decision::Probe)) => Verdict::Same,
        (Called::Answered(_), Called::Answered(Decision::Probe)) => Verdict::WantsProbe,
        (Called::Answered(Decision::Probe), Called::Answered(_)) => Verdict::Flipped,
        (Called::Failed(a), Called::Failed(b)) if a == b => Verdict::Same,
        (_, Called::Failed(_)) => Verdict::Fails,
        (Called::Failed(_), Called::Answered(_)) => Verdict::Mended,
    }
}

/// Whether two lists of updates are the same to the bit.
pub fn same_updates(a: &[Update], b: &[Update]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            (a.operation, a.key) == (b.operation, b.key)
                && same_floats(&[a.value, a.weight], &[b.value, b.weight])
        })
}

#[cfg(test)]
mod tests {
    use msao_core::offload::{Operation, Route};

    use super::*;

    fn answered(plan: &Plan) -> Called<Decision> {
        Called::Answered(Decision::Run(plan.clone()))
    }

    #[test]
    fn equal_means_to_the_bit() {
        let plan = Plan {
            terms: vec![0.0],
            ..Plan::plain(Route::Cloud, 1)
        };
        let other = Plan {
            terms: vec![-0.0],
            ..plan.clone()
        };
        // Rust calls them equal; replay does not.
        assert_eq!(plan, other);
        assert_eq!(differences(&plan, &other), ["terms"]);
        assert_eq!(
            decisions(&answered(&plan), &answered(&other)),
            Verdict::Changed
        );
        let update = |value| Update {
            operation: Operation::Add,
            key: 1,
            value,
            weight: 1.0,
        };
        assert!(!same_updates(&[update(0.0)], &[update(-0.0)]));
        assert!(same_updates(&[update(0.0)], &[update(0.0)]));
    }

    #[test]
    fn a_flip_is_a_change_of_place_or_promise() {
        let cloud = Plan::plain(Route::Cloud, 1);
        let gamma = Plan {
            gamma_max: 5,
            ..cloud.clone()
        };
        let failed = |kind: &str| Called::<Decision>::Failed(kind.to_owned());
        let probe = Called::Answered(Decision::Probe);
        for (recorded, candidate, verdict) in [
            (answered(&cloud), answered(&cloud), Verdict::Same),
            (answered(&cloud), answered(&gamma), Verdict::Changed),
            (
                answered(&cloud),
                answered(&Plan::plain(Route::Cloud, 2)),
                Verdict::Flipped,
            ),
            (
                answered(&cloud),
                answered(&Plan::plain(Route::Edge, 0)),
                Verdict::Flipped,
            ),
            (answered(&cloud), failed("trap"), Verdict::Fails),
            (failed("trap"), failed("trap"), Verdict::Same),
            (failed("trap"), failed("memory"), Verdict::Fails),
            (failed("trap"), answered(&cloud), Verdict::Mended),
            (failed("breaker"), answered(&cloud), Verdict::HostFailed),
            (failed("revoked"), answered(&cloud), Verdict::HostFailed),
            (failed("overloaded"), answered(&cloud), Verdict::HostFailed),
            (failed("deadline"), failed("trap"), Verdict::HostFailed),
            (answered(&cloud), failed("deadline"), Verdict::Fails),
            (answered(&cloud), probe.clone(), Verdict::WantsProbe),
            (probe.clone(), answered(&cloud), Verdict::Flipped),
            (probe.clone(), probe, Verdict::Same),
        ] {
            assert_eq!(decisions(&recorded, &candidate), verdict, "{candidate:?}");
        }
    }
}
