//! What a host makes of a plan: the client's wishes and the nodes' state come before the policy's.

use super::{
    Mode, Node, Part, PartPlan, Plan, Request, Route, Treatment, capability, flag, modality,
    overrides,
};

/// What a host is able to do beyond running plans exactly and with everything as it came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Means {
    /// Media are re-encoded and pruned as a plan says.
    pub retention: bool,
}

/// Why no plan can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unable {
    /// Whoever has the target may not get the media.
    #[error("no node that may get the media has the target model")]
    MediaStay,
    /// Nobody has the target.
    #[error("no node with the target model can be reached")]
    NoTarget,
}

/// The plan as it may run. Gives what was changed, as bits of [`overrides`].
///
/// # Errors
/// [`Unable`]: only the target may answer, or there is no draft model, and the target is out of reach.
pub fn allowed(
    plan: Plan,
    request: &Request,
    parts: &[Part],
    nodes: &[Node],
    means: Means,
) -> Result<(Plan, u32), Unable> {
    let mut plan = plan;
    let mut changed = 0;
    let has_media = parts.iter().any(|part| part.modality != modality::TEXT);
    let stays = request.flags & flag::MEDIA_AT_EDGE != 0 && has_media;
    let exact = request.flags & flag::EXACT != 0;
    let can = |row: usize, bits: u32| {
        let node = nodes.get(row);
        node.is_some_and(|node| node.up && node.can & bits == bits)
    };
    let target_at = |row: usize| can(row, capability::TARGET);
    let near = |row: usize| row == 0 || !stays;
    let row = plan.peer as usize;
    if plan.route != Route::Edge && !(target_at(row) && near(row)) {
        // The peer has gone since the policy looked, or media may not go there.
        let other = (0..nodes.len()).find(|&row| target_at(row) && near(row));
        changed |= if near(row) {
            overrides::PEER
        } else {
            overrides::MEDIA
        };
        match other {
            Some(other) => plan.peer = other as u32,
            None => {
                plan.route = Route::Edge;
                plan.peer = 0;
                changed |= overrides::ROUTE;
            }
        }
    }
    if plan.route == Route::Edge && (exact || !can(0, capability::DRAFT)) {
        let other = (0..nodes.len()).find(|&row| target_at(row) && near(row));
        let Some(other) = other else {
            return Err(match stays {
                true => Unable::MediaStay,
                false => Unable::NoTarget,
            });
        };
        plan.route = Route::Cloud;
        plan.peer = other as u32;
        changed |= overrides::ROUTE;
    }
    let row = plan.peer as usize;
    if plan.route == Route::Edge && row > 0 && !(target_at(row) && near(row)) {
        // Nothing is brought to who is gone, or where it may not go: the answer is the same.
        plan.peer = 0;
    }
    if plan.route == Route::Speculate
        && !(can(0, capability::DRAFT) && can(row, capability::VERIFY))
    {
        plan.route = Route::Cloud;
        changed |= overrides::ROUTE;
    }
    let both = if row == 0 {
        // Here the two models are each for itself, too.
        capability::DRAFT | capability::SAME_TOKENIZER
    } else {
        capability::DRAFT
    };
    if plan.route == Route::CloudDraft && !can(row, both) {
        plan.route = Route::Cloud;
        changed |= overrides::ROUTE;
    }
    if plan.mode == Mode::Confident {
        // What audits have opened stands in the row of the target; the other routes have nothing to commit unverified.
        let target = nodes.get(plan.peer as usize);
        let open = target.is_some_and(|target| target.confidence_floor <= 1.0);
        if !open || exact || plan.route != Route::Speculate {
            plan.mode = Mode::Exact;
            changed |= overrides::EXACT;
        }
    }
    let whole = |part: &PartPlan| part.draft == Treatment::WHOLE && part.target == Treatment::WHOLE;
    if !means.retention && !plan.parts.iter().all(whole) {
        plan.parts.clear();
        changed |= overrides::RETENTION;
    }
    Ok((plan, changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(can: u32) -> Node {
        Node {
            up: true,
            can,
            ..Node::default()
        }
    }

    const EDGE: u32 = capability::DRAFT | capability::SAME_TOKENIZER;
    const CLOUD: u32 = capability::TARGET | capability::VERIFY;

    fn run(
        route: Route,
        peer: u32,
        flags: u32,
        nodes: &[Node],
    ) -> Result<(Route, u32, u32), Unable> {
        let request = Request {
            flags,
            ..Request::default()
        };
        let parts = [Part {
            modality: modality::IMAGE,
            ..Part::default()
        }];
        let plan = Plan::plain(route, peer);
        allowed(plan, &request, &parts, nodes, Means::default())
            .map(|(plan, changed)| (plan.route, plan.peer, changed))
    }

    #[test]
    fn what_can_run_runs_as_planned() {
        let nodes = [node(EDGE), node(CLOUD)];
        for (route, peer) in [(Route::Edge, 0), (Route::Cloud, 1), (Route::Speculate, 1)] {
            assert_eq!(run(route, peer, 0, &nodes), Ok((route, peer, 0)));
        }
        // The cloud has no draft model.
        let expected = Ok((Route::Cloud, 1, overrides::ROUTE));
        assert_eq!(run(Route::CloudDraft, 1, 0, &nodes), expected);
    }

    #[test]
    fn models_that_do_not_fit_each_other_answer_each_alone() {
        let apart = [node(capability::DRAFT | capability::TARGET)];
        for route in [Route::Speculate, Route::CloudDraft] {
            let expected = Ok((Route::Cloud, 0, overrides::ROUTE));
            assert_eq!(run(route, 0, 0, &apart), expected);
        }
        let alike = [node(EDGE | CLOUD)];
        for route in [Route::Speculate, Route::CloudDraft] {
            assert_eq!(run(route, 0, 0, &alike), Ok((route, 0, 0)));
        }
    }

    #[test]
    fn another_peer_is_asked_where_the_one_named_is_gone() {
        let down = Node {
            up: false,
            ..node(CLOUD)
        };
        let nodes = [node(EDGE), down.clone(), node(CLOUD)];
        let expected = Ok((Route::Speculate, 2, overrides::PEER));
        assert_eq!(run(Route::Speculate, 1, 0, &nodes), expected);
        let nodes = [node(EDGE), down];
        let expected = Ok((Route::Edge, 0, overrides::PEER | overrides::ROUTE));
        assert_eq!(run(Route::Cloud, 1, 0, &nodes), expected);
        let none = Err(Unable::NoTarget);
        assert_eq!(run(Route::Cloud, 1, flag::EXACT, &nodes), none);
    }

    #[test]
    fn what_the_client_demands_comes_first() {
        let nodes = [node(EDGE), node(CLOUD)];
        let expected = Ok((Route::Edge, 0, overrides::MEDIA | overrides::ROUTE));
        assert_eq!(run(Route::Cloud, 1, flag::MEDIA_AT_EDGE, &nodes), expected);
        let expected = Ok((Route::Cloud, 1, overrides::ROUTE));
        assert_eq!(run(Route::Edge, 0, flag::EXACT, &nodes), expected);
        let both = flag::EXACT | flag::MEDIA_AT_EDGE;
        let none = Err(Unable::MediaStay);
        assert_eq!(run(Route::Cloud, 1, both, &nodes), none);
        // Where the target is here, media need not leave.
        let here = [node(EDGE | CLOUD), node(CLOUD)];
        let expected = Ok((Route::Cloud, 0, overrides::MEDIA));
        assert_eq!(run(Route::Cloud, 1, both, &here), expected);
    }

    #[test]
    fn what_a_host_cannot_do_is_left_out_and_told() {
        let nodes = [node(EDGE), node(CLOUD)];
        let treatment = Treatment {
            keep: 0.5,
            ..Treatment::WHOLE
        };
        let plan = Plan {
            parts: vec![PartPlan {
                draft: treatment,
                target: Treatment::WHOLE,
            }],
            ..Plan::plain(Route::Speculate, 1)
        };
        let run = |means| allowed(plan.clone(), &Request::default(), &[], &nodes, means);
        let whole = Plan {
            parts: Vec::new(),
            ..plan.clone()
        };
        assert_eq!(run(Means::default()), Ok((whole, overrides::RETENTION)));
        assert_eq!(run(Means { retention: true }), Ok((plan.clone(), 0)));
    }

    #[test]
    fn confident_mode_stands_only_where_audits_have_opened_it() {
        let with = |floor: f64| {
            let target = Node {
                confidence_floor: floor,
                ..node(CLOUD)
            };
            [
                Node {
                    confidence_floor: 2.0,
                    ..node(EDGE)
                },
                target,
            ]
        };
        let run = |route, flags, floor| {
            let request = Request {
                flags,
                ..Request::default()
            };
            let plan = Plan {
                mode: Mode::Confident,
                ..Plan::plain(route, u32::from(route != Route::Edge))
            };
            let ran = allowed(plan, &request, &[], &with(floor), Means::default());
            ran.map(|(plan, changed)| (plan.mode, changed))
        };
        let exact = Ok((Mode::Exact, overrides::EXACT));
        assert_eq!(run(Route::Speculate, 0, 0.97), Ok((Mode::Confident, 0)));
        assert_eq!(run(Route::Speculate, 0, 2.0), exact);
        assert_eq!(run(Route::Speculate, 0, f64::NAN), exact);
        let demanded = run(Route::Speculate, flag::EXACT, 0.97);
        assert_eq!(demanded, exact);
        assert_eq!(run(Route::Cloud, 0, 0.97), exact);
        // Nothing is there to be confident of: the edge answers.
        assert_eq!(run(Route::Edge, 0, 0.97), exact);
    }
}
