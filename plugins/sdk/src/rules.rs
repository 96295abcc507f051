//! The contract's rules for answers, so that a plug-in's tests can hold its own answers against them. A node refuses what
//! breaks one (`host/core/src/offload/check.rs`, which has the last word), and charges the plug-in for it.

use alloc::format;
use alloc::string::String;

use crate::{
    MAX_MEMO, Operation, Plan, PlanInput, Report, Route, Scores, Treatment, Update, capability,
};

/// Drafts a round, and rounds under way, at most.
const MAX_ROUND: u32 = 64;
const MAX_PATIENCE_MS: f64 = 60_000.0;
const MAX_TERMS: usize = 64;
const MAX_UPDATES: usize = 256;

fn rule(keeps: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if keeps { Ok(()) } else { Err(broken()) }
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

/// Holds a plan for `input` against the rules. `reasons` and `terms`: how many the manifest lists.
///
/// ```
/// use msao_plugin::prelude::*;
/// use msao_plugin::rules;
///
/// let scene = Scene::new().edge(|_| {}).peer(|_| {});
/// assert!(rules::plan(&Plan::plain(Route::Cloud, 1), &scene.input(), 0, 0).is_ok());
/// assert!(rules::plan(&Plan::plain(Route::Cloud, 2), &scene.input(), 0, 0).is_err());
/// ```
///
/// # Errors
/// The first rule that is broken.
pub fn plan(plan: &Plan, input: &PlanInput, reasons: usize, terms: usize) -> Result<(), String> {
    let own = input.here().is(capability::TARGET);
    let peer = plan.peer as usize;
    let there = match plan.route {
        // To a row that media are brought to.
        Route::Edge => peer == 0 || peer < input.nodes.len(),
        _ => peer < input.nodes.len() && (peer > 0 || own),
    };
    rule(there, || format!("peer {peer} by {:?}", plan.route))?;
    for (field, value) in [
        ("gamma-max", plan.gamma_max),
        ("in-flight-max", plan.in_flight_max),
    ] {
        let keeps = (1..=MAX_ROUND).contains(&value);
        rule(keeps, || format!("{field} is {value}"))?;
    }
    let patience = plan.patience_ms;
    let keeps = patience > 0.0 && patience <= MAX_PATIENCE_MS;
    rule(keeps, || format!("patience-ms is {patience}"))?;
    let parts = plan.parts.len();
    let keeps = parts == 0 || parts == input.parts.len();
    rule(keeps, || format!("{parts} parts"))?;
    for (planned, part) in plan.parts.iter().zip(input.parts) {
        for treatment in [&planned.draft, &planned.target] {
            let keeps = treated(treatment) && (part.is_media() || treatment.keep == 1.0);
            rule(keeps, || format!("a part gets {treatment:?}"))?;
        }
    }
    let memo = plan.memo.len();
    rule(memo <= MAX_MEMO, || format!("a memo of {memo} bytes"))?;
    let keeps = (plan.reason as usize) < reasons.max(1);
    rule(keeps, || format!("reason {}", plan.reason))?;
    let keeps =
        plan.terms.len() <= terms.min(MAX_TERMS) && plan.terms.iter().all(|term| term.is_finite());
    rule(keeps, || format!("terms {:?}", plan.terms))
}

fn treated(treatment: &Treatment) -> bool {
    let shrinks = |by: f64| by > 0.0 && by <= 1.0;
    is_share(treatment.keep)
        && shrinks(treatment.scale)
        && shrinks(treatment.frames)
        && treatment.quality <= 100
}

/// Holds updates against the rules.
///
/// # Errors
/// The first rule that is broken.
pub fn updates(updates: &[Update]) -> Result<(), String> {
    let count = updates.len();
    rule(count <= MAX_UPDATES, || format!("{count} updates"))?;
    for update in updates {
        let weight = update.weight;
        let keeps = update.value.is_finite()
            && match update.operation {
                Operation::Sample => weight > 0.0 && weight <= 1.0,
                Operation::Add => weight == 1.0,
                Operation::Clear => weight == 1.0 && update.value == 0.0,
            };
        rule(keeps, || format!("{update:?}"))?;
    }
    Ok(())
}

/// Holds scores of `report` against the rules.
///
/// # Errors
/// The first rule that is broken.
pub fn scores(scores: &Scores, report: &Report) -> Result<(), String> {
    let keeps = scores.items.len() == report.items.len();
    rule(keeps, || format!("{} scores", scores.items.len()))?;
    for (score, item) in scores.items.iter().zip(&report.items) {
        let shares = [
            score.necessity,
            score.mas,
            score.spatial,
            score.temporal,
            score.unusual,
        ];
        let keeps = shares.into_iter().all(is_share);
        rule(keeps, || format!("shares {shares:?}"))?;
        let mut named = score.keep_order.clone();
        named.sort_unstable();
        named.dedup();
        let keeps = named.len() == score.keep_order.len()
            && named.last().is_none_or(|token| *token < item.tokens);
        rule(keeps, || format!("keep-order {:?}", score.keep_order))?;
    }
    updates(&scores.updates)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::testing::{Probe, Scene};
    use crate::{PartPlan, Score};

    #[test]
    fn a_plan_that_breaks_a_rule_is_found() {
        let scene = Scene::new().image(64, 1e5).edge(|_| {}).peer(|_| {});
        let keeps = |change: fn(&mut Plan)| {
            let mut plan = Plan::plain(Route::Cloud, 1);
            change(&mut plan);
            super::plan(&plan, &scene.input(), 1, 1).is_ok()
        };
        assert!(keeps(|_| {}));
        assert!(keeps(|plan| plan.parts = vec![PartPlan::WHOLE; 2]));
        for change in [
            (|plan| plan.peer = 0) as fn(&mut Plan),
            |plan| plan.peer = 2,
            |plan| (plan.route, plan.peer) = (Route::Edge, 2),
            |plan| plan.gamma_max = 65,
            |plan| plan.in_flight_max = 0,
            |plan| plan.patience_ms = f64::NAN,
            |plan| plan.parts = vec![PartPlan::WHOLE],
            |plan| {
                let pruned = Treatment::keeping(0.5);
                let pruned = PartPlan {
                    draft: pruned,
                    target: pruned,
                };
                plan.parts = vec![pruned; 2];
            },
            |plan| plan.memo = vec![0; 257],
            |plan| plan.reason = 1,
            |plan| plan.terms = vec![0.0; 2],
            |plan| plan.terms = vec![f64::INFINITY],
        ] {
            assert!(!keeps(change));
        }
    }

    #[test]
    fn a_node_with_the_target_is_its_own_peer() {
        let scene = Scene::new().edge(|here| here.can = capability::TARGET);
        assert!(plan(&Plan::plain(Route::Cloud, 0), &scene.input(), 0, 0).is_ok());
    }

    #[test]
    fn an_update_that_breaks_a_rule_is_found() {
        let keeps = |update: Update| updates(&[update]).is_ok();
        assert!(keeps(Update::sample(1, 0.5, 1.0)));
        assert!(keeps(Update::add(1, -2.0)));
        assert!(keeps(Update::clear(1)));
        assert!(!keeps(Update::sample(1, 0.5, 0.0)));
        assert!(!keeps(Update::sample(1, f64::NAN, 0.5)));
        assert!(updates(&vec![Update::clear(1); 257]).is_err());
    }

    #[test]
    fn a_score_that_breaks_a_rule_is_found() {
        let report = Probe::new(1).image(1, 3).report;
        let keeps = |mas: f64, order: &[u32]| {
            let score = Score {
                necessity: 1.0,
                mas,
                spatial: 0.0,
                temporal: 0.0,
                unusual: 0.0,
                keep_order: order.to_vec(),
            };
            let all = Scores {
                items: vec![score],
                updates: vec![],
            };
            scores(&all, &report).is_ok()
        };
        assert!(keeps(0.5, &[2, 0]));
        assert!(!keeps(1.5, &[2, 0]));
        assert!(!keeps(0.5, &[2, 2]));
        assert!(!keeps(0.5, &[3]));
    }
}
