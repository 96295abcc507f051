//! What the host does where a plug-in does not answer.

use msao_core::offload::{
    Action, Node, Part, Plan, Report, Request, Route, Score, Scores, StepInput, capability, flag,
    kind, modality,
};

/// Drafts a round.
const ROUND: u32 = 4;

/// Everything is needed, nothing can go, tokens in their natural order.
pub fn fallback_scores(report: &Report) -> Scores {
    let whole = |_: &_| Score {
        necessity: 1.0,
        mas: 0.0,
        spatial: 0.0,
        temporal: 0.0,
        unusual: 0.0,
        // What an order leaves out follows in its own order.
        keep_order: Vec::new(),
    };
    Scores {
        items: report.items.iter().map(whole).collect(),
        updates: Vec::new(),
    }
}

/// `cloud` on the first peer that is up and has the target, or here where this node has it; else `edge`. Also `edge` where
/// media must not leave it.
pub fn fallback_plan(request: &Request, parts: &[Part], nodes: &[Node]) -> Plan {
    let stays = request.flags & flag::MEDIA_AT_EDGE != 0
        && parts.iter().any(|part| part.modality != modality::TEXT);
    let has_target = |node: &Node| node.up && node.can & capability::TARGET != 0;
    let peer = nodes.iter().skip(1).position(has_target).map(|row| row + 1);
    let here = nodes.first().filter(|node| has_target(node)).map(|_| 0);
    match peer.filter(|_| !stays).or(here) {
        Some(row) => Plan::plain(Route::Cloud, u32::try_from(row).unwrap_or(0)),
        None => Plan::plain(Route::Edge, 0),
    }
}

/// Exact mode, four drafts a round, one round at a time.
pub fn fallback_step(route: Route, input: &StepInput) -> Action {
    if route != Route::Speculate {
        return Action::Draft;
    }
    match input.kind {
        // Nobody is left to verify anything.
        kind::LINK_DOWN | kind::REFUSED => Action::Finish,
        _ if input.in_flight > 0 => Action::Wait,
        _ if input.unsent >= ROUND => Action::Send,
        _ => Action::Draft,
    }
}

#[cfg(test)]
mod tests {
    use msao_core::offload::check;
    use proptest::prelude::*;

    use super::*;

    fn node(up: bool, can: u32) -> Node {
        Node {
            up,
            can,
            ..Node::default()
        }
    }

    #[test]
    fn the_plan_goes_to_who_can_answer() {
        let (edge, cloud) = (capability::DRAFT, capability::TARGET | capability::VERIFY);
        for (nodes, route, peer) in [
            (vec![node(true, edge), node(true, cloud)], Route::Cloud, 1),
            (vec![node(true, edge), node(false, cloud)], Route::Edge, 0),
            (
                vec![
                    node(true, edge),
                    node(false, cloud),
                    node(true, edge),
                    node(true, cloud),
                ],
                Route::Cloud,
                3,
            ),
            (vec![node(true, cloud)], Route::Cloud, 0),
            (vec![node(true, edge)], Route::Edge, 0),
        ] {
            let plan = fallback_plan(&Request::default(), &[], &nodes);
            assert_eq!((plan.route, plan.peer), (route, peer), "{nodes:?}");
        }
    }

    #[test]
    fn media_that_must_stay_stay() {
        let request = Request {
            flags: flag::MEDIA_AT_EDGE,
            ..Request::default()
        };
        let nodes = [
            node(true, capability::DRAFT),
            node(true, capability::TARGET),
        ];
        let part = |modality| Part {
            modality,
            ..Part::default()
        };
        let text = fallback_plan(&request, &[part(modality::TEXT)], &nodes);
        let image = fallback_plan(&request, &[part(modality::IMAGE)], &nodes);
        assert_eq!((text.route, image.route), (Route::Cloud, Route::Edge));
    }

    proptest! {
        #[test]
        fn the_plan_keeps_the_contract(rows in prop::collection::vec((any::<bool>(), 0_u32..16), 1..6), flags in 0_u32..32) {
            let nodes: Vec<Node> = rows.iter().map(|&(up, can)| node(up, can)).collect();
            let request = Request { flags, ..Request::default() };
            let parts = [Part { modality: modality::IMAGE, ..Part::default() }];
            let plan = fallback_plan(&request, &parts, &nodes);
            prop_assert_eq!(check::plan(&plan, &parts, &nodes, 0, 0), Ok(()));
        }

        #[test]
        fn rounds_are_of_four_and_one_at_a_time(unsent in 0_u32..10, in_flight in 0_u32..10, kind in 0_u32..3) {
            let input = StepInput { kind, unsent, in_flight, ..StepInput::default() };
            let action = fallback_step(Route::Speculate, &input);
            prop_assert_eq!(action == Action::Send, in_flight == 0 && unsent >= 4);
            prop_assert_eq!(action == Action::Wait, in_flight > 0);
        }
    }
}
