//! One request, from its arrival to its outcome.

use std::collections::VecDeque;
use std::sync::Arc;

use msao_core::offload::manifest::Probe;
use msao_core::offload::record::GenerationId;
use msao_core::offload::{
    Action, BINS, Decision, Mode, Node, Outcome, Part, Plan, Route, Status, StepInput, flag, kind,
    modality, overrides,
};

use super::random::Random;
use super::traffic::{Scenario, World};
use crate::runtime::{Arrival, Plugins, Ticket, with_scores};

/// Events of an answer at most: a policy that only waits comes to an end as well.
const MAX_EVENTS: u32 = 2_000;

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Played {
    /// Who decided.
    pub generation: GenerationId,
    /// The plan that ran.
    pub plan: Plan,
    /// Its outcome.
    pub outcome: Outcome,
    /// Whether a fallback ran.
    pub failed: bool,
}

/// Has `plugins` decide about a request, and plays out what they decide.
pub fn play(plugins: &Plugins, scenario: &Scenario) -> Played {
    let mut ticket = plugins.admit(&Arrival {
        session: Some(&scenario.session),
        ..Arrival::new(&scenario.id, scenario.content)
    });
    let mut request = scenario.request.clone();
    let mut parts = scenario.parts.clone();
    let mut probe_ms = 0.0;
    let mut probe = |ticket: &mut Ticket, parts: &mut Vec<Part>, flags: &mut u32| {
        if let Some(report) = scenario.report().map(Arc::new) {
            let scores = ticket.score(&report, scenario.request.seed);
            *parts = with_scores(parts, &scores);
            probe_ms = 2.0 + report.saliency.len() as f64 * 0.02;
        }
        *flags |= flag::PROBED;
    };
    if ticket.probe() == Probe::Full {
        probe(&mut ticket, &mut parts, &mut request.flags);
    }
    let mut nodes = scenario.nodes.clone();
    let mut decision = ticket.plan(&request, &parts, &nodes);
    if decision == Decision::Probe {
        probe(&mut ticket, &mut parts, &mut request.flags);
        decision = ticket.plan(&request, &parts, &nodes);
    }
    let mut plan = planned(decision);
    let refused = scenario.world.refuses && plan.route != Route::Edge && plan.peer > 0;
    if refused {
        begin_in_vain(&mut ticket, scenario, &plan);
        if let Some(peer) = nodes.get_mut(plan.peer as usize) {
            peer.up = false;
        }
        plan = planned(ticket.plan(&request, &parts, &nodes));
    }
    let mut run = Run::new(scenario, &nodes, &plan, probe_ms);
    if refused {
        run.outcome.overrides |= overrides::PEER;
    }
    match plan.route {
        Route::Cloud | Route::CloudDraft => run.cloud(&plan),
        Route::Edge | Route::Speculate => run.drafted(&mut ticket, &plan),
    }
    let outcome = run.outcome;
    let played = Played {
        generation: ticket.generation().clone(),
        plan,
        outcome: outcome.clone(),
        failed: ticket.failed(),
    };
    ticket.finish(outcome);
    played
}

fn planned(decision: Decision) -> Plan {
    match decision {
        Decision::Run(plan) => plan,
        // Only a second probe could come here, which the ticket refuses.
        Decision::Probe => Plan::plain(Route::Edge, 0),
    }
}

/// The edge drafts a little before it hears that the peer does not take the request.
fn begin_in_vain(ticket: &mut Ticket, scenario: &Scenario, plan: &Plan) {
    if plan.route != Route::Speculate {
        return;
    }
    let mut random = scenario.world.random.clone();
    for unsent in 1..=3 {
        ticket.step(&StepInput {
            kind: kind::DRAFTED,
            unsent,
            ..draft(&mut random, scenario.world.ease)
        });
    }
    ticket.step(&StepInput {
        kind: kind::REFUSED,
        unsent: 3,
        ..StepInput::default()
    });
}

struct Round {
    sent_ms: f64,
    due_ms: f64,
    drafts: Vec<f64>,
}

struct Run {
    world: World,
    here: Node,
    peer: Node,
    now_ms: f64,
    committed: u32,
    judged: u32,
    accepted: u32,
    unsent: Vec<f64>,
    rounds: VecDeque<Round>,
    outcome: Outcome,
}

fn bin(probability: f64) -> usize {
    ((probability * BINS as f64) as usize).min(BINS - 1)
}

fn count(list: &mut [u32], place: usize) {
    if let Some(slot) = list.get_mut(place) {
        *slot += 1;
    }
}

impl Run {
    fn new(scenario: &Scenario, nodes: &[Node], plan: &Plan, probe_ms: f64) -> Run {
        let here = nodes.first().cloned().unwrap_or_default();
        let peer = (nodes.get(plan.peer as usize).cloned()).unwrap_or_else(|| here.clone());
        let media: f64 = (scenario.parts.iter())
            .filter(|part| part.modality != modality::TEXT)
            .map(|part| part.bytes)
            .sum();
        let tokens = f64::from(scenario.request.prompt_tokens);
        let kept = plan.parts.iter().zip(&scenario.parts);
        let kept_tokens: f64 = if plan.parts.is_empty() {
            tokens
        } else {
            kept.map(|(plan, part)| plan.target.keep * f64::from(part.tokens))
                .sum()
        };
        let away = plan.route != Route::Edge;
        let sent = if away {
            (media - peer.cached_bytes).max(0.0) + tokens * 4.0
        } else {
            0.0
        };
        let upload_ms = if away && peer.uplink_bps > 0.0 {
            8_000.0 * sent / peer.uplink_bps + peer.rtt_ms / 2.0
        } else {
            0.0
        };
        let prefill_here = if plan.route == Route::Cloud || plan.route == Route::CloudDraft {
            0.0
        } else {
            tokens / here.prefill_tok_per_s.max(1.0) * 1000.0
        };
        let prefill_there = if away {
            kept_tokens / peer.prefill_tok_per_s.max(1.0) * 1000.0
        } else {
            0.0
        };
        let queue_ms = if away { peer.queue_ms } else { here.queue_ms };
        // Upload and prefill there overlap with prefill here.
        let ready = probe_ms + queue_ms + prefill_here.max(upload_ms + prefill_there);
        Run {
            world: scenario.world.clone(),
            now_ms: ready,
            committed: 0,
            judged: 0,
            accepted: 0,
            unsent: Vec::new(),
            rounds: VecDeque::new(),
            outcome: Outcome {
                route: plan.route as u8,
                peer: plan.peer,
                ttft_ms: -1.0,
                total_ms: -1.0,
                probe_ms,
                upload_ms,
                queue_ms,
                sent_bytes: sent.round(),
                edge_flops: if prefill_here > 0.0 {
                    tokens * 1e9
                } else {
                    0.0
                },
                cloud_flops: if away { kept_tokens * 1.4e10 } else { 0.0 },
                drafted: vec![0; BINS],
                accepted: vec![0; BINS],
                parts: plan.parts.clone(),
                ..Outcome::default()
            },
            here,
            peer,
        }
    }

    fn commit(&mut self, tokens: u32) {
        let room = self.world.answer.saturating_sub(self.committed);
        self.committed += tokens.min(room);
        if self.outcome.ttft_ms < 0.0 && self.committed > 0 {
            self.outcome.ttft_ms = self.now_ms;
        }
    }

    fn rest(&mut self, tok_per_s: f64) {
        let apart = 1000.0 / tok_per_s.max(1.0);
        while self.committed < self.world.answer {
            self.now_ms += apart;
            self.commit(1);
        }
    }

    fn end(&mut self, status: Status) {
        let out = &mut self.outcome;
        out.status = status as u8;
        out.tokens = self.committed;
        out.total_ms = if self.committed > 0 {
            self.now_ms
        } else {
            -1.0
        };
        out.received_bytes = f64::from(self.committed) * 40.0;
        if out.route != Route::Edge as u8 {
            out.cost = f64::from(self.committed) * self.peer.price_per_mtok / 1e6
                + out.cloud_flops * 1e-16;
        }
    }

    fn cloud(&mut self, plan: &Plan) {
        if !self.peer.up {
            // The host answers at the edge instead.
            self.outcome.route = Route::Edge as u8;
            self.outcome.overrides |= overrides::ROUTE;
            self.rest(self.here.draft_tok_per_s);
            self.end(Status::Degraded);
            return;
        }
        let speed = if plan.route == Route::CloudDraft {
            self.peer.target_tok_per_s / (1.0 - self.world.ease * 0.6)
        } else {
            self.peer.target_tok_per_s
        };
        self.now_ms += self.peer.rtt_ms / 2.0;
        self.rest(speed);
        self.end(Status::Answered);
    }

    /// The edge drafts; with a peer, its drafts are verified.
    fn drafted(&mut self, ticket: &mut Ticket, plan: &Plan) {
        let verified = plan.route == Route::Speculate;
        let floor = if plan.mode == Mode::Confident {
            self.peer.confidence_floor
        } else {
            2.0
        };
        let token_ms = 1000.0 / self.here.draft_tok_per_s.max(1.0);
        let mut waiting = false;
        let mut down = verified && !self.peer.up;
        let mut told_down = false;
        let mut last = StepInput::default();
        for event in 0..MAX_EVENTS {
            if self.committed >= self.world.answer {
                break;
            }
            down |= verified && self.world.breaks_after == Some(event);
            let kind = if down && !told_down {
                told_down = true;
                self.rounds.clear();
                kind::LINK_DOWN
            } else if waiting && !self.rounds.is_empty() {
                self.verdict(plan.patience_ms)
            } else if self
                .rounds
                .front()
                .is_some_and(|round| round.due_ms <= self.now_ms)
            {
                self.verdict(f64::INFINITY)
            } else {
                self.now_ms += token_ms;
                last = draft(&mut self.world.random, self.world.ease);
                if verified {
                    self.unsent.push(last.p_accept);
                } else {
                    self.commit(1);
                }
                kind::DRAFTED
            };
            waiting = false;
            let input = self.input(kind, last);
            match ticket.step(&input) {
                Action::Draft => {}
                Action::Send if verified && !down => self.send(plan),
                Action::Commit if verified && !down => {
                    let sure = self.unsent.iter().take_while(|p| **p >= floor).count();
                    self.unsent.drain(..sure);
                    self.outcome.unverified += sure as u32;
                    self.commit(sure as u32);
                    self.send(plan);
                }
                Action::Wait => waiting = true,
                Action::Escalate if verified && !down => {
                    self.now_ms += self.peer.rtt_ms;
                    self.rest(self.peer.target_tok_per_s);
                }
                Action::Finish => self.rest(self.here.draft_tok_per_s),
                _ => {}
            }
        }
        // Who only waited is finished at the edge.
        self.rest(self.here.draft_tok_per_s);
        self.end(if down {
            Status::Degraded
        } else {
            Status::Answered
        });
    }

    fn input(&self, kind: u32, last: StepInput) -> StepInput {
        StepInput {
            kind,
            judged: self.judged,
            accepted: self.accepted,
            unsent: self.unsent.len() as u32,
            in_flight: self
                .rounds
                .iter()
                .map(|round| round.drafts.len() as u32)
                .sum(),
            committed: self.committed,
            waited_ms: (self.rounds.front()).map_or(0.0, |round| self.now_ms - round.sent_ms),
            elapsed_ms: self.now_ms,
            rtt_ms: self.peer.rtt_ms,
            queue_ms: self.peer.queue_ms,
            ..last
        }
    }

    fn send(&mut self, plan: &Plan) {
        if self.unsent.is_empty() || self.rounds.len() >= plan.in_flight_max as usize {
            return;
        }
        let most = self.unsent.len().min(plan.gamma_max as usize);
        let drafts: Vec<f64> = self.unsent.drain(..most).collect();
        let jitter = self
            .world
            .random
            .between(0.0, self.peer.jitter_ms.max(0.0) + 0.1);
        let wait = self.peer.rtt_ms + self.peer.verify_ms + self.peer.queue_ms * 0.1 + jitter;
        // Verdicts come in the order in which rounds were sent.
        let after = self.rounds.back().map_or(0.0, |round| round.due_ms);
        self.outcome.rounds += 1;
        self.outcome.cloud_flops += drafts.len() as f64 * 1.4e10;
        self.rounds.push_back(Round {
            sent_ms: self.now_ms,
            due_ms: (self.now_ms + wait).max(after),
            drafts,
        });
    }

    /// Goes on to the next verdict, or to where patience ends.
    fn verdict(&mut self, patience_ms: f64) -> u32 {
        let Some(round) = self.rounds.front() else {
            return kind::DRAFTED;
        };
        let overdue = round.sent_ms + patience_ms;
        if overdue < round.due_ms && overdue > self.now_ms {
            self.now_ms = overdue;
            return kind::OVERDUE;
        }
        self.now_ms = self.now_ms.max(round.due_ms);
        let drafts = (self.rounds.pop_front()).map_or_else(Vec::new, |round| round.drafts);
        let mut good = 0;
        let mut rejected = false;
        for p in drafts {
            self.judged += 1;
            count(&mut self.outcome.drafted, bin(p));
            if !self.world.random.chance(p) {
                rejected = true;
                break;
            }
            good += 1;
            self.accepted += 1;
            count(&mut self.outcome.accepted, bin(p));
        }
        // The verdict brings a token of its own; what was drafted on a wrong guess is void.
        self.commit(good + 1);
        if rejected {
            self.unsent.clear();
            self.rounds.clear();
        }
        kind::VERDICT
    }
}

/// A drafted token: its calibrated probability and what the draft model's distribution looks like at such a place.
fn draft(random: &mut Random, ease: f64) -> StepInput {
    let doubt = random.unit() * random.unit() * (1.0 - ease) * 2.0;
    let p_accept = (1.0 - doubt).clamp(0.02, 0.999);
    StepInput {
        p_accept,
        top1: (p_accept * random.between(0.85, 1.0)).clamp(0.0, 1.0),
        entropy_nats: (1.0 - p_accept) * random.between(1.0, 4.0),
        margin: p_accept * random.between(1.0, 8.0),
        ..StepInput::default()
    }
}
