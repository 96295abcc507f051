//! From a plan to a session: where the target is, and what the edge's machine is run with.

use std::rc::Rc;

use msao_core::digest::Digest;
use msao_core::offload::{
    Means, Mode, Node, Part, Plan, Request, Route, allowed, capability, flag, modality, overrides,
};
use msao_session::edge::{Config, Edge, Start};
use msao_session::frame::{Open, Prompt, SessionId, Wanted};

use super::Simulation;
use crate::retention::Treated;
use crate::run::{Channel, Run, Way};
use crate::script::Script;
use crate::slab::Key;
use crate::traffic::Question;

impl Simulation<'_> {
    /// The plan runs.
    pub(super) fn begins(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let question = self.traffic.questions.get(run.question as usize);
        let (Some(question), false) = (question, run.ended) else {
            return;
        };
        let Some(node) = self.nodes.get(run.edge) else {
            return;
        };
        let decided = &run.decided;
        let treated = Treated::of(question, &decided.plan);
        let (route, edge) = (decided.plan.route, run.edge);
        // Beside the target a draft model reads what the target reads.
        let lost = match route {
            Route::CloudDraft => treated.target_lost,
            _ => treated.draft_lost,
        };
        if lost > 0.0 {
            run.script = Rc::new(Script::write(question, lost));
        }
        run.treated = treated;
        let way = |row: usize| match row.checked_sub(1) {
            None => node.target.map(|_| Way {
                node: edge,
                link: None,
                row,
            }),
            Some(peer) => node.peers.get(peer).map(|peer| Way {
                node: peer.node,
                link: Some(peer.link),
                row,
            }),
        };
        let (stays, elsewhere) = escape(&decided.request, &decided.parts, &decided.nodes);
        run.withheld = if stays {
            overrides::MEDIA
        } else {
            overrides::ROUTE
        };
        run.way = match route {
            Route::Edge => elsewhere.and_then(way),
            _ => way(decided.plan.peer as usize),
        };
        run.stepped = matches!(route, Route::Edge | Route::Speculate);
        let left_ms = run.left_ms(question.deadline_ms, now_ms);
        // Without a target there is nobody to leave anything to.
        let held = self.rules.budget && route == Route::Edge && run.way.is_some();
        let config = Config {
            alone_floor: match held {
                true => self.rules.confidence_floor,
                false => 0.0,
            },
            ..config(key, run, question, left_ms, node.draft.is_none())
        };
        // The draft model goes on from the probe if that is who looked, and if it drafts.
        if let Some(seat) = run.seat {
            if run.stepped && node.draft == Some(seat.engine) {
                run.account.looked_ms = run.account.probe_ms;
                let (tokens, script) = (run.treated.draft_tokens, Rc::clone(&run.script));
                if let Some(engine) = self.engines.get_mut(seat.engine) {
                    engine.keep(now_ms, seat.sequence, tokens, script);
                    self.stirred.push(seat.engine);
                }
            } else {
                run.seat = None;
                if let Some(engine) = self.engines.get_mut(seat.engine) {
                    run.account.edge_flops += engine.close(seat.sequence);
                    self.stirred.push(seat.engine);
                }
            }
        }
        let (machine, effects) = Edge::start(config, now_ms);
        run.machine = Some(machine);
        run.channel = Channel::Closed;
        // As nodes do it: to whom the plan names, if that is who the answer may be left to.
        let row = run.decided.plan.peer as usize;
        let brings = self.rules.bring
            && route == Route::Edge
            && (run.way).is_some_and(|it| it.link.is_some() && it.row == row);
        if route != Route::Edge {
            self.is_ahead(key, edge);
        }
        if brings {
            self.connect(key);
        }
        self.edge_effects(key, effects);
    }

    /// Notes the request's prompt as work that the peer is going to get.
    fn is_ahead(&mut self, key: Key, edge: usize) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let row = run.decided.plan.peer as usize;
        let peer = row.checked_sub(1);
        let peers = self.nodes.get(edge).map(|node| &node.peers);
        let link = peers.and_then(|peers| Some(peers.get(peer?)?.link));
        let per_s = (run.decided.nodes.get(row)).map_or(-1.0, |row| row.prefill_tok_per_s);
        // A peer that has read nothing yet has not told how fast it is.
        let work_ms = if per_s > 0.0 {
            f64::from(run.treated.target_tokens) / per_s * 1000.0
        } else {
            0.0
        };
        if let Some(number) = link
            && let Some(link) = self.links.get_mut(number)
        {
            run.ahead = Some(number);
            link.estimator.planned.plan(run.question.into(), work_ms);
        }
    }
}

/// Whether media must stay, and in which row the target is that a plan for the edge alone may still come to need.
fn escape(request: &Request, parts: &[Part], nodes: &[Node]) -> (bool, Option<usize>) {
    let has_media = parts.iter().any(|part| part.modality != modality::TEXT);
    let stays = request.flags & flag::MEDIA_AT_EDGE != 0 && has_media;
    let verifies = capability::TARGET | capability::VERIFY;
    let there = |row: &usize| {
        let node = nodes.get(*row);
        node.is_some_and(|node| node.up && node.can & verifies == verifies)
    };
    let row = (0..nodes.len())
        .filter(|row| *row == 0 || !stays)
        .find(there);
    (stays, row)
}

/// A plan within an operator's budget: as long as nothing is open, what the draft model alone would have said is the target's to
/// say, where it can be reached (`host/node/src/chat/trust.rs`). Gives what was changed, too.
pub(super) fn within_budget(
    (plan, changed): (Plan, u32),
    floor: f64,
    (request, parts, nodes): (&Request, &[Part], &[Node]),
    means: Means,
) -> (Plan, u32) {
    let (_, elsewhere) = escape(request, parts, nodes);
    let Some(row) = elsewhere.filter(|_| plan.route == Route::Edge && floor > 1.0) else {
        return (plan, changed);
    };
    let exact = Plan {
        route: Route::Cloud,
        peer: row as u32,
        ..plan.clone()
    };
    let demanded = Request {
        flags: request.flags | flag::EXACT,
        ..request.clone()
    };
    match allowed(exact, &demanded, parts, nodes, means) {
        Ok((exact, more)) => {
            let more = more | overrides::EXACT | overrides::ROUTE;
            (exact, changed | more)
        }
        Err(_) => (plan, changed),
    }
}

/// What the edge's machine is run with, as a node runs it.
fn config(key: Key, run: &Run, question: &Question, left_ms: f64, draftless: bool) -> Config {
    let plan: &Plan = &run.decided.plan;
    let exact = run.decided.request.flags & flag::EXACT != 0;
    let open = Open {
        session: SessionId(key.name()),
        epoch: 0,
        wanted: Wanted::Verify,
        sampling: Default::default(),
        top_logprobs: None,
        max_tokens: question.max_tokens,
        // Nobody holds it against anything.
        target_input: Digest([0; 32]),
        prompt: Prompt::default(),
        deadline_ms: left_ms,
        tokenizer: None,
        request: None,
        cost: true,
        committed: Vec::new(),
    };
    let peer = run.decided.nodes.get(plan.peer as usize);
    Config {
        start: match plan.route {
            Route::Edge => Start::Alone,
            Route::Speculate => Start::Speculate,
            Route::Cloud => Start::Cloud { with_draft: false },
            Route::CloudDraft => Start::Cloud { with_draft: true },
        },
        gamma_max: plan.gamma_max,
        in_flight_max: plan.in_flight_max,
        patience_ms: plan.patience_ms,
        confidence_floor: match plan.mode {
            Mode::Exact => f64::INFINITY,
            Mode::Confident => peer.map_or(f64::INFINITY, |peer| peer.confidence_floor),
        },
        exact_only: exact || draftless,
        arrived_ms: run.arrived_ms,
        ..Config::exact(open)
    }
}
