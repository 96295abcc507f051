//! `cloud-draft`: one node has both models and drafts for itself. The fastest speculation there is, since no round
//! crosses a link; what it costs is the cloud's time.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

/// The manifest's reasons, by number.
mod reason {
    pub const CLOUD_DRAFT: u32 = 0;
    pub const NO_DRAFT_THERE: u32 = 1;
    pub const NO_TARGET: u32 = 2;
    pub const MEDIA_STAY: u32 = 3;
}

/// The policy.
#[derive(Debug)]
pub struct CloudDraft;

const BOTH: u32 = capability::DRAFT | capability::TARGET;

fn choose(input: &PlanInput) -> (Route, u32, u32) {
    let here = input.here();
    if here.is(BOTH) {
        return (Route::CloudDraft, 0, reason::CLOUD_DRAFT);
    }
    if input.bound_here() {
        return match here.is(capability::TARGET) {
            true => (Route::Cloud, 0, reason::MEDIA_STAY),
            false => (Route::Edge, 0, reason::MEDIA_STAY),
        };
    }
    if let Some((row, _)) = input.nearest(BOTH) {
        return (Route::CloudDraft, row, reason::CLOUD_DRAFT);
    }
    if here.is(capability::TARGET) {
        return (Route::Cloud, 0, reason::NO_DRAFT_THERE);
    }
    match input.nearest(capability::TARGET) {
        Some((row, _)) => (Route::Cloud, row, reason::NO_DRAFT_THERE),
        None => (Route::Edge, 0, reason::NO_TARGET),
    }
}

impl Policy for CloudDraft {
    fn plan(input: &PlanInput) -> Decision {
        let (route, row, reason) = choose(input);
        let peer = input.peers().find(|(at, _)| row > 0 && *at == row);
        Decision::Run(Plan {
            reason,
            terms: vec![peer.map_or(-1.0, |(_, node)| node.rtt_ms)],
            ..Plan::plain(route, row)
        })
    }

    /// Called only where the draft model answers alone.
    fn step(_input: &StepInput, _memo: &[u8]) -> Action {
        Action::Finish
    }
}

export_policy!(CloudDraft);

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(scene: &Scene) -> (Route, u32, u32) {
        let plan = scene.plan::<CloudDraft>();
        (plan.route, plan.peer, plan.reason)
    }

    #[test]
    fn a_peer_with_both_models_drafts_for_itself() {
        let scene = Scene::new()
            .edge(|_| {})
            .peer(|near| {
                near.rtt_ms = 1.0;
                near.can = capability::TARGET;
            })
            .peer(|far| far.rtt_ms = 50.0);
        assert_eq!(planned(&scene), (Route::CloudDraft, 2, reason::CLOUD_DRAFT));
    }

    #[test]
    fn without_a_draft_there_the_target_answers_alone() {
        let scene = Scene::new()
            .edge(|_| {})
            .peer(|peer| peer.can = capability::TARGET);
        assert_eq!(planned(&scene), (Route::Cloud, 1, reason::NO_DRAFT_THERE));
    }

    #[test]
    fn a_node_with_both_is_its_own_cloud_and_keeps_media_too() {
        let scene = Scene::new()
            .image(64, 1e5)
            .request(|request| request.flags |= flag::MEDIA_AT_EDGE)
            .edge(|here| here.can = BOTH)
            .peer(|_| {});
        assert_eq!(planned(&scene), (Route::CloudDraft, 0, reason::CLOUD_DRAFT));
        let edge = scene.clone().edge(|_| {}).peer(|_| {});
        assert_eq!(planned(&edge), (Route::Edge, 0, reason::MEDIA_STAY));
        let target = scene.edge(|here| here.can = capability::TARGET);
        assert_eq!(planned(&target), (Route::Cloud, 0, reason::MEDIA_STAY));
    }

    #[test]
    fn without_a_peer_the_draft_answers() {
        let alone = Scene::new().edge(|_| {});
        assert_eq!(planned(&alone), (Route::Edge, 0, reason::NO_TARGET));
        assert_eq!(CloudDraft::step(&StepInput::default(), &[]), Action::Finish);
    }
}
