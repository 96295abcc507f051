//! From a question to a plan that runs.

use std::rc::Rc;

use msao_core::offload::manifest::Probe;
use msao_core::offload::{
    self, Decision, PlanInput, Request, Scores, Status, Update, allowed, check, flag, overrides,
};
use msao_registry::{fallback_plan, fallback_scores, with_scores};

use super::begin::within_budget;
use super::{Event, Simulation};
use crate::engine::{Opening, Seat};
use crate::retention::{MediaTokens, behind_probe, clear_whole};
use crate::run::{Place, Run};
use crate::script::Script;
use crate::slab::Key;
use crate::traffic::{Arrivals, Question};

/// Wall clock at the beginning, 2026-01-01T00:00:00Z.
const BEGIN_MS: f64 = 1_767_225_600_000.0;

impl<'a> Simulation<'a> {
    pub(super) fn question(&self, number: u32) -> Option<&'a Question> {
        self.traffic.questions.get(number as usize)
    }

    pub(super) fn arrives(&mut self, number: u32) {
        if self.traffic.arrivals == Arrivals::ByClock {
            self.comes_next(number + 1);
        }
        let Some(question) = self.question(number) else {
            return;
        };
        let (now_ms, edge) = (self.now_ms(), question.edge as usize);
        let request = Request {
            seed: question.seed,
            now_ms: BEGIN_MS + now_ms,
            prompt_tokens: question.prompt_tokens(),
            max_tokens: question.max_tokens,
            deadline_ms: question.deadline_ms,
            temperature: question.temperature,
            tenant: question.tenant,
            flags: question.flags & !flag::PROBED,
        };
        let learned = (self.policy_cells.of(edge), self.score_cells.of(edge));
        let script = Rc::new(Script::write(question, 0.0));
        let parts = question.parts();
        let run = Run::new(number, edge, now_ms, request, parts, learned, script);
        let key = self.runs.insert(Box::new(run));
        self.tally.came(now_ms);
        if question.deadline_ms > 0.0 {
            self.agenda
                .at(now_ms + question.deadline_ms, Event::Late(key));
        }
        // What takes no time is done at once, so that nothing comes between.
        let media = MediaTokens::of(question);
        match self.costs.edge.ms(media) {
            takes_ms if takes_ms > 0.0 => {
                self.prepares(edge, takes_ms, media, Event::Prepared(key));
            }
            _ => self.prepared(key),
        }
    }

    /// The prompt is laid out: a request is decided about.
    pub(super) fn prepared(&mut self, key: Key) {
        match self.decides.probe() {
            Probe::Full => self.probe(key),
            Probe::None | Probe::Ask => self.plan(key),
        }
    }

    /// Has the probe look at a request. Afterwards it is planned.
    fn probe(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        run.decided.request.flags |= flag::PROBED;
        run.decided.asked = true;
        run.probe_began_ms = now_ms;
        let Some(question) = self.traffic.questions.get(run.question as usize) else {
            return;
        };
        if question.media.is_empty() {
            // There is nothing to look at.
            return self.score(key);
        }
        let node = self.nodes.get(run.edge);
        let engine = node.and_then(|node| node.draft.or(node.target));
        let opening = Opening {
            run: key,
            seat: Seat::Edge,
            script: Rc::clone(&run.script),
            prompt_tokens: question.prompt_tokens(),
            media: MediaTokens::of(question),
            reserve: question.max_tokens,
            probe: true,
        };
        let Some(engine) = engine else {
            return self.finish(key, Status::Failed);
        };
        let opened = self.engines.get_mut(engine);
        match opened.and_then(|opened| opened.open(now_ms, opening)) {
            Some(sequence) => {
                run.seat = Some(Place { engine, sequence });
                self.stirred.push(engine);
            }
            None => self.finish(key, Status::Refused),
        }
    }

    pub(super) fn probed(&mut self, key: Key, sequence: Key) {
        let seat = self.runs.get(key).and_then(|run| run.seat);
        if seat.is_some_and(|seat| seat.sequence == sequence) {
            self.score(key);
        }
    }

    /// Has what the probe saw scored, and the request planned after that.
    fn score(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let Some(question) = self.traffic.questions.get(run.question as usize) else {
            return;
        };
        let decided = &mut run.decided;
        let scored = question.report.as_ref().and_then(|report| {
            let learned = &decided.score_calibration;
            let scored = self.decides.score(report, question.seed, learned)?;
            Some((report, scored))
        });
        let scores: Scores = match scored {
            Some((_, Ok(scores))) => scores,
            Some((report, Err(_))) => {
                decided.overrides |= overrides::FALLBACK;
                self.tally.failures += 1;
                fallback_scores(report)
            }
            None => question.truth(),
        };
        decided.parts = with_scores(&decided.parts, &scores);
        decided.score_updates = scores.updates;
        run.account.probe_ms += now_ms - run.probe_began_ms + self.plugins.score_ms;
        let (edge, at_ms) = (run.edge, now_ms + self.plugins.score_ms);
        self.works(edge, at_ms, Event::Scored(key));
    }

    /// Asks the policy.
    pub(super) fn plan(&mut self, key: Key) {
        let now_ms = self.now_ms();
        let rows = self.rows(key);
        let may_ask = self.decides.probe() == Probe::Ask;
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if run.ended {
            return;
        }
        let decided = &mut run.decided;
        // Who plans again sees the nodes as they were, without the one that refused.
        if !decided.replanned {
            decided.nodes = rows;
        }
        let answer = self.decides.plan(PlanInput {
            request: &decided.request,
            parts: &decided.parts,
            nodes: &decided.nodes,
            params: &[],
            calibration: &decided.calibration,
        });
        let plan = match answer {
            Ok(Decision::Run(plan)) => Some(plan).filter(|plan| {
                // A plug-in's has been held against its manifest before.
                let (reasons, terms) = (plan.reason as usize + 1, plan.terms.len());
                check::plan(plan, &decided.parts, &decided.nodes, reasons, terms).is_ok()
            }),
            Ok(Decision::Probe) if may_ask && !decided.asked => return self.probe(key),
            Ok(Decision::Probe) | Err(_) => None,
        };
        let plan = plan.unwrap_or_else(|| {
            // There is no memo of the policy's that its steps could go by.
            decided.stepless = true;
            decided.overrides |= overrides::FALLBACK;
            self.tally.failures += 1;
            fallback_plan(&decided.request, &decided.parts, &decided.nodes)
        });
        let means = self.rules.means();
        let (request, parts, nodes) = (&decided.request, &decided.parts, &decided.nodes);
        match allowed(plan, request, parts, nodes, means) {
            Ok(planned) => {
                let (mut plan, mut changed) = match self.rules.budget {
                    true => {
                        let floor = self.rules.confidence_floor;
                        within_budget(planned, floor, (request, parts, nodes), means)
                    }
                    false => planned,
                };
                let probed = request.flags & flag::PROBED != 0;
                if probed && behind_probe(&mut plan.parts, parts) {
                    changed |= overrides::RETENTION;
                }
                clear_whole(&mut plan.parts);
                decided.plan = plan;
                decided.overrides |= changed;
                let at_ms = now_ms + self.plugins.plan_ms;
                let (edge, attempt) = (run.edge, run.attempt);
                self.works(edge, at_ms, Event::Planned(key, attempt));
            }
            Err(_) => self.finish(key, Status::Refused),
        }
    }

    /// What the policy sees of the nodes: this one, then each peer.
    fn rows(&mut self, key: Key) -> Vec<offload::Node> {
        let now_ms = self.now_ms();
        let run = self.runs.get(key);
        let Some((node, question)) = run.and_then(|run| {
            let question = self.traffic.questions.get(run.question as usize)?;
            Some((self.nodes.get(run.edge)?, question))
        }) else {
            return Vec::new();
        };
        let floor = self.rules.confidence_floor;
        let cached = question.media.iter().filter(|medium| medium.cached);
        let cached_bytes: f64 = cached.map(|medium| medium.bytes).sum();
        let mut rows = Vec::with_capacity(node.peers.len() + 1);
        rows.push(node.own_row(node.figures(now_ms, &self.engines), floor));
        for peer in &node.peers {
            let there = self.nodes.get(peer.node);
            let (Some(there), Some(link)) = (there, self.links.get_mut(peer.link)) else {
                continue;
            };
            link.look(now_ms, &there.told);
            let mut row = there.row_for(node.draft.is_some(), floor, cached_bytes);
            link.fill(now_ms, &mut row);
            rows.push(row);
        }
        rows
    }

    /// The first peer refused before the first token: the policy plans once more, without it.
    pub(super) fn plan_again(&mut self, key: Key) {
        let now_ms = self.now_ms();
        self.settle_ahead(key);
        self.frees(key);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let question = self.traffic.questions.get(run.question as usize);
        let left_ms = question.map_or(0.0, |it| run.left_ms(it.deadline_ms, now_ms));
        run.attempt += 1;
        run.machine = None;
        run.known = 0;
        run.account.looked_ms = 0.0;
        run.upload = None;
        run.laid_out_ms = 0.0;
        run.behind = None;
        run.outbox.clear();
        run.up.clear();
        let lost: u64 = run.down.drain(..).map(|(_, bytes)| bytes).sum();
        self.tally.late_bytes += lost;
        let decided = &mut run.decided;
        decided.replanned = true;
        decided.asked = true;
        decided.stepless = false;
        decided.overrides |= overrides::PEER;
        decided.request.deadline_ms = left_ms;
        if let Some(peer) = decided.nodes.get_mut(decided.plan.peer as usize) {
            peer.up = false;
        }
        if let Some(seat) = run.seat.take() {
            let flops = self.close(seat);
            self.add_edge_flops(key, flops);
        }
        self.plan(key);
    }

    fn add_edge_flops(&mut self, key: Key, flops: f64) {
        if let Some(run) = self.runs.get_mut(key) {
            run.account.edge_flops += flops;
        }
    }

    /// Applies what was learned of a request that has ended.
    pub(super) fn learn(&mut self, edge: usize, policy: &[Update], score: &[Update]) {
        self.score_cells.learn(edge, score);
        self.policy_cells.learn(edge, policy);
    }
}
