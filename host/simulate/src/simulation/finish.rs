//! The end of a request: what became of it, who learns from it, what is left behind.

use msao_core::offload::{Outcome, Route, Status};
use msao_session::edge::Counters;

use super::Simulation;
use crate::results::Ended;
use crate::retention::clear_whole;
use crate::run::Run;
use crate::slab::Key;
use crate::traffic::Arrivals;

impl Simulation<'_> {
    /// The work that was noted as planned onto a peer has begun there, or never will.
    pub(super) fn settle_ahead(&mut self, key: Key) {
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        let ahead = run.ahead.take();
        if let Some(link) = ahead.and_then(|link| self.links.get_mut(link)) {
            link.estimator.planned.settle(run.question.into());
        }
    }

    /// Ends a request: once, however often it is called.
    pub(super) fn finish(&mut self, key: Key, status: Status) {
        let now_ms = self.now_ms();
        self.settle_ahead(key);
        let Some(run) = self.runs.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut run.ended, true) {
            return;
        }
        // What waits to be said goes nowhere any more.
        run.outbox.clear();
        if let Some(seat) = run.seat.take() {
            let flops = self.close(seat);
            if let Some(run) = self.runs.get_mut(key) {
                run.account.edge_flops += flops;
            }
        }
        let Some(run) = self.runs.get(key) else {
            return;
        };
        let edge = run.edge;
        let outcome = outcome(run, self.cloud_flops(run), status);
        // Of what never ran nothing is learned.
        let observes = run.machine.is_some() || run.decided.replanned;
        let observed = match observes {
            true => self.decides.observe(&outcome, &run.decided.calibration),
            false => Ok(Vec::new()),
        };
        let ended = Ended {
            question: run.question,
            edge: run.edge as u32,
            arrived_ms: run.arrived_ms,
            ended_ms: now_ms,
            deadline_ms: (self.traffic.questions)
                .get(run.question as usize)
                .map_or(0.0, |question| question.deadline_ms),
            wrong: run.account.wrong,
            lost: match Route::Edge as u8 == outcome.route {
                true => run.treated.draft_lost,
                false => run.treated.target_lost,
            },
            outcome,
        };
        let account = &run.account;
        if let Some(node) = self.nodes.get_mut(edge) {
            let speeds = &mut node.draft_speeds;
            if let Some((waited_ms, took_ms)) = account.draft_ready {
                speeds.began(now_ms, waited_ms);
                speeds.prefilled(run.treated.draft_tokens, account.looked_ms + took_ms);
            }
            speeds.drafted(account.draft_passes.0, account.draft_passes.1);
        }
        let updates = observed.unwrap_or_else(|_| {
            self.tally.failures += 1;
            Vec::new()
        });
        self.tally.ended(ended);
        let scored = self
            .runs
            .get_mut(key)
            .map(|run| &mut run.decided.score_updates);
        let scored = scored.map(std::mem::take).unwrap_or_default();
        self.learn(edge, &updates, &scored);
        if observes {
            self.also_works(edge, self.plugins.observe_ms);
        }
        self.left -= 1;
        if let Arrivals::InTurn { think_ms, .. } = self.traffic.arrivals {
            self.takes_turn(edge, think_ms);
        }
        self.forget(key);
    }

    /// Drops a request of which nothing is left anywhere.
    pub(super) fn forget(&mut self, key: Key) {
        let run = self.runs.get(key);
        let over = run.is_some_and(|run| run.ended && run.cloud.is_none() && run.up.is_empty());
        if !over {
            return;
        }
        if let Some(run) = self.runs.remove(key) {
            self.tally.late_bytes += run.down.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
    }
}

/// Where it ran in the end.
fn ran(planned: Route, counters: &Counters) -> Route {
    match planned {
        Route::Edge if counters.escalated => Route::Cloud,
        // Whatever was planned, the draft model gave all of it.
        _ if counters.degraded && counters.unverified == counters.tokens => Route::Edge,
        route => route,
    }
}

/// What became of it, as a node tells it.
fn outcome(run: &Run, cloud_flops: f64, status: Status) -> Outcome {
    let (decided, account) = (&run.decided, &run.account);
    let none = Counters::default();
    let counters = run.machine.as_ref().map_or(&none, |it| it.counters());
    let plan = &decided.plan;
    let route = ran(plan.route, counters);
    let row = match run.way {
        Some(way) if counters.escalated => way.row,
        _ if plan.route == Route::Edge => 0,
        _ => plan.peer as usize,
    };
    let price = decided.nodes.get(row).map_or(0.0, |row| row.price_per_mtok);
    // What the peer does not read is not its work. Of what never ran nothing is billed.
    let billed = f64::from(run.treated.target_tokens) + f64::from(counters.tokens);
    let mut parts = plan.parts.clone();
    if route == Route::CloudDraft {
        for part in &mut parts {
            part.draft = part.target;
        }
        clear_whole(&mut parts);
    }
    let since = |at_ms: Option<f64>| at_ms.map_or(-1.0, |at_ms| at_ms - run.arrived_ms);
    let mut outcome = Outcome {
        route: route as u8,
        peer: row as u32,
        status: status as u8,
        overrides: decided.overrides,
        ttft_ms: since(account.first_ms),
        total_ms: since(account.last_ms),
        probe_ms: account.probe_ms,
        upload_ms: account.upload_ms,
        queue_ms: account.queue_ms,
        sent_bytes: account.sent_bytes as f64,
        received_bytes: account.received_bytes as f64,
        edge_flops: account.edge_flops,
        cloud_flops,
        cost: match route {
            Route::Edge => 0.0,
            _ => price.max(0.0) * billed / 1e6,
        },
        parts,
        memo: plan.memo.clone(),
        ..Outcome::default()
    };
    counters.fill(&mut outcome);
    outcome
}
