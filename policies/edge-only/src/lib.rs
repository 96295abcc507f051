//! `edge-only`: the draft model answers here. What it costs to leave the node is measured against it.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

/// The manifest's reasons, by number.
mod reason {
    pub const EDGE: u32 = 0;
    pub const NO_DRAFT_HERE: u32 = 1;
    pub const EXACT_ASKED: u32 = 2;
}

/// The policy.
#[derive(Debug)]
pub struct EdgeOnly;

/// The row of a node whose target may answer.
fn target(input: &PlanInput) -> Option<u32> {
    if input.here().is(capability::TARGET) {
        return Some(0);
    }
    match input.nearest(capability::TARGET) {
        Some((row, _)) if !input.bound_here() => Some(row),
        _ => None,
    }
}

impl Policy for EdgeOnly {
    fn plan(input: &PlanInput) -> Decision {
        let drafts = input.here().is(capability::DRAFT);
        let exact = input.request.has(flag::EXACT);
        let (route, row, reason) = match target(input) {
            Some(row) if !drafts => (Route::Cloud, row, reason::NO_DRAFT_HERE),
            Some(row) if exact => (Route::Cloud, row, reason::EXACT_ASKED),
            _ => (Route::Edge, 0, reason::EDGE),
        };
        let peer = input.peers().find(|(at, _)| row > 0 && *at == row);
        Decision::Run(Plan {
            reason,
            terms: vec![peer.map_or(-1.0, |(_, node)| node.rtt_ms)],
            ..Plan::plain(route, row)
        })
    }

    fn step(_input: &StepInput, _memo: &[u8]) -> Action {
        Action::Finish
    }
}

export_policy!(EdgeOnly);

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(scene: &Scene) -> (Route, u32, u32) {
        let plan = scene.plan::<EdgeOnly>();
        (plan.route, plan.peer, plan.reason)
    }

    #[test]
    fn it_stays_whoever_is_near() {
        let scene = Scene::new().edge(|_| {}).peer(|peer| peer.rtt_ms = 0.1);
        assert_eq!(planned(&scene), (Route::Edge, 0, reason::EDGE));
        assert_eq!(EdgeOnly::step(&StepInput::default(), &[]), Action::Finish);
    }

    #[test]
    fn without_a_draft_model_a_target_answers() {
        let no_draft = Scene::new().edge(|here| here.can = 0);
        assert_eq!(planned(&no_draft), (Route::Edge, 0, reason::EDGE));
        let with_peer = no_draft.peer(|_| {});
        assert_eq!(
            planned(&with_peer),
            (Route::Cloud, 1, reason::NO_DRAFT_HERE)
        );
        let cloud = Scene::new().edge(|here| here.can = capability::TARGET);
        assert_eq!(planned(&cloud), (Route::Cloud, 0, reason::NO_DRAFT_HERE));
    }

    #[test]
    fn exact_answers_come_from_a_target_if_one_is_there() {
        let exact = Scene::new()
            .request(|request| request.flags |= flag::EXACT)
            .edge(|_| {});
        assert_eq!(planned(&exact), (Route::Edge, 0, reason::EDGE));
        let with_peer = exact.peer(|_| {});
        assert_eq!(planned(&with_peer), (Route::Cloud, 1, reason::EXACT_ASKED));
        let bound = with_peer
            .image(64, 1e5)
            .request(|request| request.flags |= flag::MEDIA_AT_EDGE);
        assert_eq!(planned(&bound), (Route::Edge, 0, reason::EDGE));
    }
}
