//! The worked example: estimate how long each route would take, take the quickest, learn how wrong the estimate was.
//!
//! The same policy stands beside this one in C, JavaScript and Python. All four give the same plans to the last bit, so
//! each does its arithmetic in the same order, with nothing but `+ - * /` and comparisons.

#![cfg_attr(target_arch = "wasm32", no_std)]

use msao_plugin::prelude::*;

/// The manifest's reasons, by number.
mod reason {
    pub const UNKNOWN: u32 = 0;
    pub const EDGE: u32 = 1;
    pub const OWN_TARGET: u32 = 2;
    pub const CLOUD: u32 = 3;
    pub const SPECULATE: u32 = 4;
}

/// Below this acceptance probability a draft is sent at once: what follows it would likely be wasted.
const DOUBTFUL: f64 = 0.3;

parameters! {
    struct Settings {
        margin: f64,
        gamma: u32,
        weight: f64,
    }
}

memo! {
    /// The route by number, the drafts a round, and the estimate that `observe` compares with.
    struct Note {
        route: u8,
        gamma: u32,
        estimate_ms: f64,
    }
}

/// The policy.
#[derive(Debug)]
pub struct Quickest;

fn number(route: Route) -> u8 {
    match route {
        Route::Edge => 0,
        Route::Cloud => 1,
        Route::CloudDraft => 2,
        Route::Speculate => 3,
    }
}

fn at_least_0(value: f64) -> f64 {
    if value > 0.0 { value } else { 0.0 }
}

fn wait_ms(node: &Node) -> f64 {
    at_least_0(node.queue_ms) + at_least_0(node.planned_ms)
}

/// Tokens that a round of `gamma` drafts yields when each is accepted with probability `acceptance`.
fn yields(acceptance: f64, gamma: u32) -> f64 {
    let mut all_accepted = 1.0;
    let mut tokens = 1.0;
    for _ in 0..gamma {
        all_accepted *= acceptance;
        tokens += all_accepted;
    }
    tokens
}

/// The best so far.
struct Choice {
    route: Route,
    peer: u32,
    reason: u32,
    estimate_ms: f64,
    /// The estimate with what leaving this node must gain; below 0: nothing was chosen.
    compared_ms: f64,
}

impl Choice {
    fn offer(&mut self, route: Route, peer: u32, reason: u32, estimate_ms: f64, margin: f64) {
        let compared_ms = estimate_ms * margin;
        if self.compared_ms < 0.0 || compared_ms < self.compared_ms {
            *self = Choice {
                route,
                peer,
                reason,
                estimate_ms,
                compared_ms,
            };
        }
    }
}

/// `candidate`, if it is less or there was none.
fn quicker(before: f64, candidate: f64) -> f64 {
    if before < 0.0 || candidate < before {
        candidate
    } else {
        before
    }
}

fn plan(input: &PlanInput) -> Plan {
    let settings = Settings::read(input.params);
    let learned = |route: Route| input.calibration.mean_or(u32::from(number(route)), 1.0);
    let here = input.here();
    let prompt = f64::from(input.request.prompt_tokens);
    let tokens = f64::from(input.request.max_tokens);
    let mut media_bytes = 0.0;
    for part in input.media() {
        media_bytes += part.bytes;
    }

    let (mut edge_ms, mut cloud_ms, mut speculate_ms) = (-1.0, -1.0, -1.0);
    let mut choice = Choice {
        route: Route::Edge,
        peer: 0,
        reason: reason::UNKNOWN,
        estimate_ms: 0.0,
        compared_ms: -1.0,
    };

    let reads = here.prefill_tok_per_s > 0.0;
    let drafts = here.is(capability::DRAFT) && here.draft_tok_per_s > 0.0;
    if drafts && reads {
        let read_ms = prompt * 1000.0 / here.prefill_tok_per_s;
        let write_ms = tokens * 1000.0 / here.draft_tok_per_s;
        edge_ms = (wait_ms(here) + read_ms + write_ms) * learned(Route::Edge);
        // The draft model's own answer is quick, and not what the target would have said.
        if !input.request.has(flag::EXACT) {
            choice.offer(Route::Edge, 0, reason::EDGE, edge_ms, 1.0);
        }
    }
    if here.is(capability::TARGET) && here.target_tok_per_s > 0.0 && reads {
        let read_ms = prompt * 1000.0 / here.prefill_tok_per_s;
        let write_ms = tokens * 1000.0 / here.target_tok_per_s;
        cloud_ms = (wait_ms(here) + read_ms + write_ms) * learned(Route::Cloud);
        choice.offer(Route::Cloud, 0, reason::OWN_TARGET, cloud_ms, 1.0);
    }
    for (row, node) in input.peers() {
        let known = node.uplink_bps > 0.0 && node.rtt_ms >= 0.0 && node.prefill_tok_per_s > 0.0;
        if !node.up || !node.is(capability::TARGET) || !known || input.bound_here() {
            continue;
        }
        let missing_bytes = at_least_0(media_bytes - at_least_0(node.cached_bytes));
        let upload_ms = missing_bytes * 8000.0 / node.uplink_bps;
        let read_ms = prompt * 1000.0 / node.prefill_tok_per_s;
        let begins_ms = node.rtt_ms + wait_ms(node) + upload_ms + read_ms;
        if node.target_tok_per_s > 0.0 {
            let write_ms = tokens * 1000.0 / node.target_tok_per_s;
            let estimate_ms = (begins_ms + write_ms) * learned(Route::Cloud);
            cloud_ms = quicker(cloud_ms, estimate_ms);
            choice.offer(
                Route::Cloud,
                row,
                reason::CLOUD,
                estimate_ms,
                settings.margin,
            );
        }
        let verifies = node.is(capability::VERIFY | capability::SAME_TOKENIZER);
        if drafts && verifies && node.verify_ms > 0.0 && node.acceptance >= 0.0 {
            let draft_ms = f64::from(settings.gamma) * 1000.0 / here.draft_tok_per_s;
            let round_ms = draft_ms + node.rtt_ms + wait_ms(node) + node.verify_ms;
            let write_ms = tokens * round_ms / yields(node.acceptance, settings.gamma);
            let estimate_ms = (begins_ms + write_ms) * learned(Route::Speculate);
            speculate_ms = quicker(speculate_ms, estimate_ms);
            choice.offer(
                Route::Speculate,
                row,
                reason::SPECULATE,
                estimate_ms,
                settings.margin,
            );
        }
    }
    if choice.compared_ms < 0.0 {
        let peer = input
            .peers()
            .find(|(_, node)| node.up && node.is(capability::TARGET) && !input.bound_here());
        if here.is(capability::TARGET) {
            choice.route = Route::Cloud;
        } else if let Some((row, _)) = peer {
            choice.route = Route::Cloud;
            choice.peer = row;
        }
    }

    let note = Note {
        route: number(choice.route),
        gamma: settings.gamma,
        estimate_ms: choice.estimate_ms,
    };
    Plan {
        gamma_max: settings.gamma,
        memo: note.encode(),
        reason: choice.reason,
        terms: vec![edge_ms, cloud_ms, speculate_ms],
        ..Plan::plain(choice.route, choice.peer)
    }
}

impl Policy for Quickest {
    fn plan(input: &PlanInput) -> Decision {
        Decision::Run(plan(input))
    }

    fn step(input: &StepInput, memo: &[u8]) -> Action {
        // A fallback plan has no note: it speculates with four drafts a round.
        let note = Note::decode(memo).unwrap_or(Note {
            route: number(Route::Speculate),
            gamma: 4,
            estimate_ms: 0.0,
        });
        if note.route == number(Route::Edge) {
            return Action::Finish;
        }
        match input.event {
            Event::LinkDown | Event::Refused => Action::Finish,
            Event::Overdue => Action::Wait,
            _ if input.in_flight >= note.gamma => Action::Wait,
            _ if input.unsent >= note.gamma => Action::Send,
            _ if input.unsent > 0 && input.p_accept < DOUBTFUL => Action::Send,
            _ => Action::Draft,
        }
    }

    fn observe(outcome: &Outcome, params: &[f64], _calibration: &Calibration) -> Vec<Update> {
        let settings = Settings::read(params);
        match Note::decode(&outcome.memo) {
            Some(note)
                if outcome.status == 0
                    && outcome.route == note.route
                    && outcome.total_ms > 0.0
                    && note.estimate_ms > 0.0 =>
            {
                let ratio = outcome.total_ms / note.estimate_ms;
                vec![Update::sample(
                    u32::from(note.route),
                    ratio,
                    settings.weight,
                )]
            }
            _ => Vec::new(),
        }
    }
}

export_policy!(Quickest);

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> Scene {
        Scene::new()
            .text(100)
            .request(|request| request.max_tokens = 50)
            .params(&[1.0, 4.0, 0.1])
            .edge(|_| {})
    }

    #[test]
    fn estimates_are_what_a_hand_gets() {
        let plan = scene().peer(|_| {}).plan::<Quickest>();
        // Edge: 100 tokens at 2,000/s, 50 at 100/s.
        let edge = 50.0 + 500.0;
        // Cloud: 20 ms away, 100 tokens at 20,000/s, 50 at 40/s.
        let cloud = 20.0 + 5.0 + 1250.0;
        // A round: 4 drafts at 100/s, 20 ms, 30 ms; yields 1 + 0.8 + 0.64 + 0.512 + 0.4096.
        let speculate = 20.0 + 5.0 + 50.0 * 90.0 / 3.3616;
        let terms = [edge, cloud, speculate];
        assert!(
            plan.terms
                .iter()
                .zip(terms)
                .all(|(a, b)| (a - b).abs() < 1e-9)
        );
        assert_eq!((plan.route, plan.reason), (Route::Edge, reason::EDGE));
    }

    #[test]
    fn a_slow_draft_leaves_the_node() {
        let scene = scene()
            .edge(|edge| edge.draft_tok_per_s = 10.0)
            .peer(|_| {});
        let plan = scene.plan::<Quickest>();
        assert_eq!((plan.route, plan.peer), (Route::Cloud, 1));
        let bound = scene
            .image(64, 1e5)
            .request(|request| request.flags |= flag::MEDIA_AT_EDGE);
        assert_eq!(bound.plan::<Quickest>().route, Route::Edge);
    }

    #[test]
    fn an_exact_answer_is_not_the_drafts() {
        let scene = scene()
            .peer(|_| {})
            .request(|request| request.flags |= flag::EXACT);
        assert_eq!(scene.plan::<Quickest>().route, Route::Cloud);
        let near = scene.peer(|peer| peer.rtt_ms = 1.0);
        let plan = near.params(&[1.0, 1.0, 0.1]).plan::<Quickest>();
        assert_eq!((plan.route, plan.peer), (Route::Speculate, 2));
    }

    #[test]
    fn what_was_learned_counts() {
        let ten_times = Cell {
            mean: 10.0,
            variance: 0.0,
            count: 1.0,
        };
        let scene = scene()
            .peer(|_| {})
            .calibration(Calibration::from_cells(&[(0, ten_times)]));
        assert_eq!(scene.plan::<Quickest>().terms[0], 5500.0);
        assert_eq!(scene.plan::<Quickest>().route, Route::Cloud);
    }

    #[test]
    fn an_outcome_teaches_by_how_much_the_estimate_was_wrong() {
        let plan = scene().plan::<Quickest>();
        let outcome = Outcome {
            total_ms: 1100.0,
            memo: plan.memo,
            ..Outcome::default()
        };
        let updates = Quickest::observe(&outcome, &[1.0, 4.0, 0.1], &Calibration::default());
        assert_eq!(updates, [Update::sample(0, 2.0, 0.1)]);
        let failed = Outcome {
            status: 4,
            ..outcome
        };
        assert!(Quickest::observe(&failed, &[1.0, 4.0, 0.1], &Calibration::default()).is_empty());
    }

    #[test]
    fn where_nothing_is_known_the_target_answers() {
        let unknown = Scene::new()
            .params(&[1.0, 4.0, 0.1])
            .edge(|edge| *edge = Node::UNKNOWN)
            .peer(|peer| {
                peer.uplink_bps = -1.0;
            });
        let plan = unknown.plan::<Quickest>();
        assert_eq!(
            (plan.route, plan.peer, plan.reason),
            (Route::Cloud, 1, reason::UNKNOWN)
        );
        assert_eq!(plan.terms, [-1.0; 3]);
    }
}
