//! `cloud-only`: the target answers, on this node if it has it, else on the nearest peer that has. What edge and cloud
//! together are compared with.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

/// The manifest's reasons, by number.
mod reason {
    pub const CLOUD: u32 = 0;
    pub const NO_TARGET: u32 = 1;
    pub const MEDIA_STAY: u32 = 2;
}

/// The policy.
#[derive(Debug)]
pub struct CloudOnly;

impl Policy for CloudOnly {
    fn plan(input: &PlanInput) -> Decision {
        let peer = input.nearest(capability::TARGET);
        let (route, row, reason) = match peer {
            _ if input.here().is(capability::TARGET) => (Route::Cloud, 0, reason::CLOUD),
            _ if input.bound_here() => (Route::Edge, 0, reason::MEDIA_STAY),
            Some((row, _)) => (Route::Cloud, row, reason::CLOUD),
            None => (Route::Edge, 0, reason::NO_TARGET),
        };
        Decision::Run(Plan {
            reason,
            terms: vec![
                peer.filter(|(at, _)| *at == row)
                    .map_or(-1.0, |(_, node)| node.rtt_ms),
            ],
            ..Plan::plain(route, row)
        })
    }

    /// Called only where the draft model answers alone.
    fn step(_input: &StepInput, _memo: &[u8]) -> Action {
        Action::Finish
    }
}

export_policy!(CloudOnly);

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(scene: &Scene) -> (Route, u32, u32) {
        let plan = scene.plan::<CloudOnly>();
        (plan.route, plan.peer, plan.reason)
    }

    #[test]
    fn the_nearest_target_answers() {
        let scene = Scene::new()
            .edge(|_| {})
            .peer(|far| far.rtt_ms = 80.0)
            .peer(|near| near.rtt_ms = 10.0)
            .peer(|no_target| {
                no_target.rtt_ms = 1.0;
                no_target.can = capability::DRAFT;
            });
        assert_eq!(planned(&scene), (Route::Cloud, 2, reason::CLOUD));
        assert_eq!(scene.plan::<CloudOnly>().terms, [10.0]);
    }

    #[test]
    fn a_node_with_the_target_is_its_own_cloud() {
        let scene = Scene::new()
            .edge(|here| here.can = capability::TARGET)
            .peer(|_| {});
        assert_eq!(planned(&scene), (Route::Cloud, 0, reason::CLOUD));
    }

    #[test]
    fn without_a_peer_the_draft_answers() {
        let alone = Scene::new().edge(|_| {});
        assert_eq!(planned(&alone), (Route::Edge, 0, reason::NO_TARGET));
        let down = alone.peer(|peer| peer.up = false);
        assert_eq!(planned(&down), (Route::Edge, 0, reason::NO_TARGET));
        assert_eq!(CloudOnly::step(&StepInput::default(), &[]), Action::Finish);
    }

    #[test]
    fn media_that_must_stay_do() {
        let scene = Scene::new()
            .image(64, 1e5)
            .request(|request| request.flags |= flag::MEDIA_AT_EDGE)
            .edge(|_| {})
            .peer(|_| {});
        assert_eq!(planned(&scene), (Route::Edge, 0, reason::MEDIA_STAY));
    }
}
