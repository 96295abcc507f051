//! From a plan to the last word: the answers run, the client is told, the plug-ins learn.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use msao_api::{ApiError, ItemReport, NodeCost, Piece, PromptTokens, Report, Retention, Usage};
use msao_core::chat::Modality;
use msao_core::meter::Spent;
use msao_core::offload::record::OpenedAhead;
use msao_core::offload::{Decision, Outcome, PartPlan, Plan, Rest, Route, Status, overrides};
use msao_session::edge::{Config, Counters, Start};
use msao_session::frame::RefusedCode;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::Told;
use super::ahead;
use super::audit;
use super::kept::kept;
use super::plan::{
    Planned, allowed, failed, fingerprint, going_on, opening, retained, without_target,
};
use super::treat::{Fitted, clear_whole, fitting, ways};
use super::trust::{self, Seen, Trust};
use crate::answer::{Charges, Driven, Ended, Job, Opened, Steps, Traffic, drive};
use crate::metrics::Work;
use crate::node::{Node, media_limits};
use crate::request::{Cargo, Means, Prompt, Reading, Sight};

/// What happens may wait for the client for so many pieces; beyond that its slowness is counted as absence.
const UNREAD: usize = 256;

/// What a cancelled session has cost is waited for so long once all else is said.
const COUNTED_WITHIN: Duration = Duration::from_millis(200);

/// Starts the answers of a request. The permit is held until the last of them has ended.
pub fn start(
    node: &Arc<Node>,
    planned: Planned,
    place: OwnedSemaphorePermit,
) -> mpsc::Receiver<Told> {
    let (told, receiver) = mpsc::channel(UNREAD);
    let node = Arc::clone(node);
    let span = tracing::info_span!("answer", route = ?planned.plan.route);
    let running = async move {
        Running::new(Arc::clone(&node), planned, told).run().await;
        drop(place);
        node.tell_how_busy();
    };
    tokio::spawn(running.instrument(span));
    receiver
}

/// Polls what runs in this task; `None` where it panics, after which it must not be asked again.
fn caught<F: Future + Unpin>(running: &mut F, context: &mut Context) -> Poll<Option<F::Output>> {
    // What it had is dropped with it, and shared state is behind locks that a panic does not poison for us.
    match catch_unwind(AssertUnwindSafe(|| Pin::new(running).poll(context))) {
        Ok(polled) => polled.map(Some),
        Err(_) => Poll::Ready(None),
    }
}

/// What answers say, in order, and how those in this task end.
struct Saying<F: Future> {
    said: mpsc::UnboundedReceiver<(u32, Piece)>,
    /// In this task: its tokens need not go from one to another.
    alone: Option<F>,
    driven: Vec<F::Output>,
}

impl<F: Future + Unpin> Saying<F> {
    /// The next piece; `None` behind the last one of all answers. May be dropped and asked again.
    async fn next(&mut self) -> Option<(u32, Piece)> {
        poll_fn(|context| {
            let Some(alone) = &mut self.alone else {
                return self.said.poll_recv(context);
            };
            // All of it is told before the answer goes on, so that one that runs ahead of its client waits for it.
            if let Ok(piece) = self.said.try_recv() {
                return Poll::Ready(Some(piece));
            }
            if let Poll::Ready(ended) = caught(alone, context) {
                self.alone = None;
                match ended {
                    Some(ended) => self.driven.push(ended),
                    None => tracing::error!("an answer ended by a panic"),
                }
            }
            // What it has said just now. Nobody is asked to wake this task for it: it would be woken while it runs.
            match self.said.try_recv() {
                Ok(piece) => Poll::Ready(Some(piece)),
                Err(mpsc::error::TryRecvError::Disconnected) => Poll::Ready(None),
                Err(mpsc::error::TryRecvError::Empty) => Poll::Pending,
            }
        })
        .await
    }
}

/// A request whose answers run.
struct Running {
    node: Arc<Node>,
    planned: Planned,
    /// What goes to the target of the prompt, should it be needed.
    cargo: Arc<Cargo>,
    /// The prompt as the draft model reads it, should it begin anew; `None` where there is none.
    reading: Option<Arc<Reading>>,
    steps: Steps,
    traffic: Arc<Traffic>,
    told: mpsc::Sender<Told>,
    gone: CancellationToken,
    /// The client's deadline has come before the end.
    overdue: bool,
    /// Nothing has been said yet.
    silent: bool,
    /// In which row of the nodes the target is, should it be needed.
    target_row: usize,
    /// Whether it is anywhere.
    has_target: bool,
    /// The probe's seat waits for an audit, and what the probe has cost is told apart as long as no answer takes part in it.
    waits: bool,
    /// What became of a session that was opened before there was a plan.
    ahead: Option<OpenedAhead>,
    /// The same session, for the first answer to go on with.
    opened: Option<Opened>,
    /// Or, where the plan is another one, what it was for nothing.
    left: Option<Left>,
}

/// A session that was opened before there was a plan, and that nothing goes on with.
struct Left {
    row: usize,
    /// The peer had been sent the prompt.
    is_open: bool,
    charges: Charges,
    /// Tells them.
    telling: JoinHandle<Charges>,
}

impl Left {
    /// `brings`: see [`Opened::leave`].
    fn new(opened: Opened, brings: bool) -> Left {
        Left {
            row: opened.row(),
            is_open: opened.is_open(),
            charges: Charges::default(),
            telling: opened.leave(brings),
        }
    }

    async fn settle(&mut self) {
        match tokio::time::timeout(COUNTED_WITHIN, &mut self.telling).await {
            Ok(told) => self.charges = told.unwrap_or_default(),
            // It was cancelled first of all; what it may still say is of no use to anybody.
            Err(_) => self.telling.abort(),
        }
    }
}

impl Running {
    fn new(node: Arc<Node>, mut planned: Planned, told: mpsc::Sender<Told>) -> Running {
        let steps = planned.ticket.take();
        let gone = CancellationToken::new();
        let (cargo, reading) = prompts(&node, &planned, &gone);
        let opened = planned.opened.take();
        let traffic = opened.as_ref().map(|opened| Arc::clone(opened.traffic()));
        let (plan, ahead) = (&planned.plan, opened.is_some());
        let (opened, left) = match opened {
            // Drafts beside the target need a seat of their own there, which a session has from the beginning.
            Some(opened)
                if matches!(plan.route, Route::Cloud | Route::Speculate)
                    && opened.fits(plan.peer as usize, &cargo) =>
            {
                (Some(opened), None)
            }
            Some(opened) => {
                let brings = plan.route != Route::Edge && cargo.made().is_some();
                (None, Some(Left::new(opened, brings)))
            }
            None => (None, None),
        };
        let ahead = ahead.then_some(match left {
            None => OpenedAhead::Used,
            Some(_) => OpenedAhead::Wasted,
        });
        Running {
            node,
            planned,
            cargo,
            reading,
            steps: Arc::new(Mutex::new(steps)),
            traffic: traffic.unwrap_or_default(),
            ahead,
            opened,
            left,
            told,
            gone,
            overdue: false,
            silent: true,
            target_row: 0,
            has_target: true,
            waits: false,
        }
    }

    async fn run(mut self) {
        let mut driven = self.answer().await;
        let refused = driven
            .iter()
            .any(|driven| matches!(driven.ended, Ended::Refused(_)));
        if refused && self.silent && !self.gone.is_cancelled() {
            driven = match self.plan_again() {
                Ok(()) => {
                    self.begin_anew(&driven);
                    let (route, computed) = (self.planned.plan.route, &self.planned.fingerprint);
                    self.tell(Told::Runs(route, computed.clone())).await;
                    self.answer().await
                }
                Err(error) => {
                    // Whoever has no room now may have it later, and has said when.
                    let full = driven.iter().find_map(|driven| self.wrong(driven));
                    let error = full.filter(|full| full.status == 429).unwrap_or(error);
                    return self.finish(driven, Some(error)).await;
                }
            };
        }
        let limit_ms = self.planned.asked.request.deadline_ms;
        let error = match limit_ms.filter(|_| self.overdue) {
            Some(limit_ms) => Some(ApiError::deadline_exceeded(u64::from(limit_ms))),
            None => driven.iter().find_map(|driven| self.wrong(driven)),
        };
        self.finish(driven, error).await;
    }

    /// Runs all answers to their end.
    async fn answer(&mut self) -> Vec<Driven> {
        let (pieces, said) = mpsc::unbounded_channel();
        let mut saying = Saying {
            said,
            alone: None,
            driven: Vec::new(),
        };
        let mut running = JoinSet::new();
        let choices = self.planned.asked.request.n;
        for choice in 0..choices {
            let job = self.job(choice, pieces.clone());
            match choices {
                1 => saying.alone = Some(Box::pin(drive(job))),
                _ => drop(running.spawn(drive(job).in_current_span())),
            }
        }
        drop(pieces);
        let due_ms = self.planned.asked.due_ms();
        loop {
            // An answer that runs ahead of its client always has something to say, and nothing below is looked at.
            if due_ms.is_some_and(|due_ms| self.node.clock.now_ms() >= due_ms)
                && !self.gone.is_cancelled()
            {
                self.overdue = true;
                self.gone.cancel();
            }
            let told = self.told.clone();
            tokio::select! {
                biased;
                piece = saying.next() => match piece {
                    Some((choice, piece)) => self.say(choice, piece).await,
                    None => break,
                },
                () = told.closed(), if !self.gone.is_cancelled() => self.gone.cancel(),
                () = self.node.clock.until(due_ms), if !self.gone.is_cancelled() => {
                    self.overdue = true;
                    self.gone.cancel();
                }
            }
        }
        let mut driven = saying.driven;
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok(ended) => driven.push(ended),
                Err(error) => tracing::error!(%error, "an answer ended by a panic"),
            }
        }
        // Whatever became of it there, it is nothing that is still to begin.
        self.planned.ahead.settle();
        driven
    }

    async fn say(&mut self, choice: u32, piece: Piece) {
        self.silent = false;
        if !self.gone.is_cancelled() {
            self.tell(Told::Piece(choice, piece)).await;
        }
    }

    /// Tells the client; one that does not listen for too long has gone.
    async fn tell(&self, told: Told) {
        let patience = Duration::from_secs(u64::from(self.node.config.api.unread_s));
        if self.told.send_timeout(told, patience).await.is_err() {
            self.gone.cancel();
        }
    }

    fn job(&mut self, choice: u32, pieces: mpsc::UnboundedSender<(u32, Piece)>) -> Job {
        let left_ms = self.planned.asked.left_ms(self.node.clock.now_ms());
        let planned = &mut self.planned;
        let request = &planned.asked.request;
        let (plan, logprobs) = (&planned.plan, request.logprobs);
        let mut params = planned.params.clone();
        params.choice = choice;
        let row = plan.peer as usize;
        let start = match plan.route {
            Route::Edge => Start::Alone,
            Route::Speculate => Start::Speculate,
            Route::Cloud => Start::Cloud { with_draft: false },
            Route::CloudDraft => Start::Cloud { with_draft: true },
        };
        let media_stay = request.media_at_edge && !planned.prompt.media.is_empty();
        let way = self.node.target(row, plan.route, media_stay);
        self.target_row = way.as_ref().map_or(row, |way| way.row);
        self.has_target = way.is_some();
        let node = Arc::downgrade(&self.node);
        let made = self.cargo.is_made();
        let elsewhere = move |row| {
            let node = node.upgrade().filter(|_| !media_stay)?;
            node.same_target(row, made)
        };
        // It is the first answer's.
        let opened = self.opened.take().and_then(Opened::go_on);
        let (open, opened) = match opened {
            Some(gone_on) => (gone_on.open, Some(gone_on.way)),
            None => {
                let (asked, prompt) = (&planned.asked, &planned.prompt);
                let most = planned.max_tokens;
                (
                    ahead::opening(asked, prompt, params.clone(), most, left_ms),
                    None,
                )
            }
        };
        let config = Config {
            start,
            opened: opened.is_some(),
            gamma_max: plan.gamma_max,
            in_flight_max: plan.in_flight_max,
            patience_ms: plan.patience_ms,
            confidence_floor: planned.trust.session_floor(plan),
            // Without a target there is nobody to leave anything to.
            alone_floor: if way.is_some() {
                planned.trust.alone_floor(plan)
            } else {
                0.0
            },
            exact_only: request.exact,
            arrived_ms: planned.asked.arrived_ms,
            ..Config::exact(open)
        };
        let brings = plan.route == Route::Edge
            && row > 0
            && (way.as_ref()).is_some_and(|way| way.row == row && way.target.is_there());
        let judge = planned.trust.judge(&self.node);
        let (mut looked_ms, mut waits) = (0.0, self.waits);
        let models = self.node.models.draft.as_ref().zip(self.reading.as_ref());
        let draft = models.map(|(model, reading)| {
            // The probe's seat is the first answer's: it has looked at the prompt, all of it.
            match planned.seat.take().filter(|_| choice == 0) {
                Some(seat) => {
                    looked_ms = planned.probe_ms;
                    waits = planned.looked.is_some();
                    let kept = planned.retained.draft.lists();
                    going_on(seat, kept.keep(planned.prompt.media.len()))
                }
                None => opening(model, reading, params, planned.max_tokens, logprobs),
            }
        });
        self.waits = waits;
        Job {
            choice,
            config,
            opened,
            draft,
            looked_ms,
            way,
            elsewhere: Arc::new(elsewhere),
            withheld: if media_stay {
                overrides::MEDIA
            } else {
                overrides::ROUTE
            },
            cargo: Arc::clone(&self.cargo),
            brings,
            processor: Arc::clone(&planned.processor),
            stops: request.stop.clone(),
            logprobs: logprobs.is_some(),
            steps: Arc::clone(&self.steps),
            judge,
            audited: planned.trust.is_audited(),
            ahead: planned.ahead.clone(),
            pieces,
            gone: self.gone.clone(),
            traffic: Arc::clone(&self.traffic),
            clock: self.node.clock,
            passes: self.node.metrics.passes(Work::Draft),
        }
    }

    /// The peer refused before the first token: the policy plans once more, without it.
    fn plan_again(&mut self) -> Result<(), ApiError> {
        let planned = &mut self.planned;
        if let Some(peer) = planned.nodes.get_mut(planned.plan.peer as usize) {
            peer.up = false;
        }
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        let ticket = steps.as_mut().ok_or_else(ApiError::internal)?;
        planned.request.deadline_ms = planned.asked.left_ms(self.node.clock.now_ms());
        let (request, parts, nodes) = (&planned.request, &planned.parts, &planned.nodes);
        let plan = match ticket.plan(request, parts, nodes) {
            Decision::Run(plan) => plan,
            // It has had its answer, or may not ask any more.
            Decision::Probe => msao_registry::fallback_plan(request, parts, nodes),
        };
        let allowed = allowed(plan, request, parts, nodes)?;
        let prompt: &Prompt = &planned.prompt;
        let stays = planned.asked.request.media_at_edge;
        let again = fitting(&self.node, allowed, prompt, (request, parts), stays);
        let seen = Seen {
            request,
            parts,
            nodes,
            prompt,
        };
        let before = std::mem::replace(&mut planned.trust, Trust::none());
        let (trust, fitted) = trust::again(&self.node, seen, before, again);
        let Fitted {
            plan,
            overrides: changed,
            reaches,
        } = fitted;
        planned.trust = trust;
        ticket.ran(plan.clone());
        let orders = planned.orders.as_deref();
        let model = self.node.models.first().ok_or_else(ApiError::internal)?;
        planned.retained = retained(model, &plan, prompt, orders, reaches)?;
        planned.reaches = reaches;
        let tokens = planned.tokens(&planned.retained.target);
        planned.ahead = (self.node).ahead(plan.peer as usize, plan.route, tokens);
        let runs_at = (plan.route, plan.peer);
        planned.fingerprint = fingerprint(&self.node, model, runs_at, &plan.parts);
        planned.plan = plan;
        if self.ahead == Some(OpenedAhead::Used) {
            // Its peer refused it.
            self.ahead = Some(OpenedAhead::Wasted);
        }
        // The record tells of this plan alone; what was changed of the one before is no concern of it.
        planned.overrides = changed | overrides::PEER;
        (self.cargo, self.reading) = prompts(&self.node, planned, &self.gone);
        Ok(())
    }

    /// The answers begin anew: what the draft model did for them so far was done all the same.
    fn begin_anew(&mut self, driven: &[Driven]) {
        let mut spent = self.apart(driven);
        for here in driven.iter().filter_map(|driven| driven.here) {
            spent.flops = spent.flops.saturating_add(here.flops);
            spent.wasted_flops = spent.wasted_flops.saturating_add(here.wasted_flops);
            spent.cache_byte_seconds += here.cache_byte_seconds;
            spent.busy_ms += here.busy_ms;
            spent.activation_bytes = spent.activation_bytes.max(here.activation_bytes);
        }
        self.planned.looked = Some(spent);
        self.waits = false;
    }

    /// What the client is told of an answer that is not whole; `None` where it is, or nobody listens.
    fn wrong(&self, driven: &Driven) -> Option<ApiError> {
        match &driven.ended {
            Ended::Whole(_) | Ended::Gone => None,
            Ended::NotExact => {
                let why = "the node with the target model was lost and did not come back in time";
                Some(without_target(self.planned.asked.request.exact, why))
            }
            Ended::Failed(error) => Some(failed(&self.node, error)),
            Ended::Refused(refused) => Some(match refused.code {
                RefusedCode::Overloaded => {
                    ApiError::overloaded(refused.retry_after_ms.clamp(0.0, 1e9) as u64)
                }
                RefusedCode::Request => ApiError::invalid_value("messages", &refused.message),
                RefusedCode::Deadline => {
                    let limit_ms = self.planned.asked.request.deadline_ms.unwrap_or(0);
                    ApiError::deadline_exceeded(u64::from(limit_ms))
                }
                _ => {
                    let why = "no node with the target model takes the request";
                    without_target(self.planned.asked.request.exact, why)
                }
            }),
        }
    }

    /// Tells the client and the plug-ins.
    async fn finish(mut self, driven: Vec<Driven>, error: Option<ApiError>) {
        if let Some(left) = &mut self.left {
            left.settle().await;
        }
        let left = self.left.as_ref().filter(|left| left.is_open);
        let left = left.map(|left| left.charges);
        let node = &self.node;
        let planned = &self.planned;
        let now_ms = node.clock.now_ms();
        let mut counters = Counters::default();
        for driven in &driven {
            add(&mut counters, &driven.counters);
        }
        let route = self.ran(&counters);
        let outcome = self.outcome(&driven, &counters, error.as_ref());
        // On other routes it did where the peer was lost, or what it had begun was escalated.
        let drafted = driven.iter().any(|driven| driven.here.is_some());
        let drafted = drafted || matches!(route, Route::Edge | Route::Speculate);
        let (draft, target) = (&planned.retained.draft, &planned.retained.target);
        let items = planned.parts.iter().enumerate();
        let items = items.filter_map(|(medium, part)| {
            let share = |sight: &Sight| sight.share(medium, part.tokens);
            let retention = Retention {
                draft: match route {
                    // It reads beside the target, and what the target reads.
                    Route::CloudDraft => Some(share(target)),
                    _ => drafted.then(|| share(draft)),
                },
                target: (route != Route::Edge).then(|| share(target)),
            };
            ItemReport::of(part, retention)
        });
        let outside = self.outside(&counters);
        node.metrics.outside(outside);
        let mut report = Report {
            outside_budget_tokens: outside,
            audited: planned.trust.is_audited(),
            ahead: self.ahead,
            ..Report::of(
                route,
                planned.generation.clone(),
                planned.params.seed,
                items.collect(),
                &outcome,
            )
        };
        let (looked_here, looked_there) = self.looked(&driven);
        let here = driven.iter().filter_map(|driven| driven.here);
        for spent in here.chain([looked_here]) {
            *report.cost.edge.wasted_flops.get_or_insert(0.0) += spent.wasted_flops as f64;
            let of = (spent.cache_byte_seconds, spent.busy_ms);
            took(&mut report.cost.edge, of, spent.activation_bytes);
        }
        let there = driven.iter().map(|driven| driven.there).chain(left);
        for it in there {
            let of = (it.cache_byte_seconds, it.busy_ms);
            took(&mut report.cost.cloud, of, it.activation_bytes);
        }
        let of = (looked_there.cache_byte_seconds, looked_there.busy_ms);
        took(&mut report.cost.cloud, of, looked_there.activation_bytes);
        let mut cached_tokens = cached(route, &driven);
        if let (Some(left), true) = (left, route != Route::Edge) {
            // What was read for this very request is no earlier prompt. Where nothing was told it may be all of it.
            cached_tokens = cached_tokens.min(left.cached_tokens.unwrap_or(0));
        }
        let usage = usage(planned, cached_tokens, outcome.tokens);
        node.took(now_ms - planned.asked.arrived_ms);
        for driven in &driven {
            let mut speeds = node.speeds();
            if let Some(waited_ms) = driven.queued_ms {
                speeds.began(now_ms, waited_ms);
                node.metrics.waited("draft", waited_ms);
            }
            if let Some(took_ms) = driven.prefill_ms {
                speeds.prefilled(planned.tokens(draft), took_ms);
            }
            speeds.drafted(driven.draft_passes.0, driven.draft_passes.1);
        }
        node.metrics
            .answered(route, &outcome, planned.asked.request.n);
        if let Some(became) = self.ahead {
            node.metrics.opened_ahead(became);
        }
        node.metrics.judged(&counters);
        node.metrics.held(
            report.cost.edge.cache_byte_seconds,
            report.cost.cloud.cache_byte_seconds,
        );
        for (number, medium) in planned.prompt.media.iter().enumerate() {
            for (side, kept, there) in [
                ("edge", draft, drafted),
                ("cloud", target, route != Route::Edge),
            ] {
                if there {
                    let kept = kept.count(number, medium.tokens);
                    let dropped = medium.tokens.saturating_sub(kept);
                    node.metrics.retained(medium.modality, side, kept, dropped);
                }
            }
        }
        let media = kept(&planned.prompt.media, &planned.retained, route, drafted);
        let details = &usage.prompt_tokens_details;
        node.metrics
            .read(usage.prompt_tokens, details.cached_tokens);
        tracing::info!(
            ?route,
            status = outcome.status,
            ttft_ms = outcome.ttft_ms,
            total_ms = outcome.total_ms,
            tokens = outcome.tokens,
            sent = outcome.sent_bytes,
            received = outcome.received_bytes,
            "answered"
        );
        let whole = error.is_none();
        match error {
            Some(error) => self.tell(Told::Failed(error)).await,
            None => {
                if let Some(computed) = self.otherwise(route, &outcome) {
                    self.tell(Told::Runs(route, computed)).await;
                }
                self.tell(Told::End(Box::new(report), usage)).await;
            }
        }
        drop(self.told);
        // The answer goes out first: only then is there time to learn.
        tokio::task::yield_now().await;
        let ticket = self
            .steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut ticket) = ticket {
            ticket.kept(media);
            if let Some(became) = self.ahead {
                ticket.opened_ahead(became);
            }
            node.tell_how_busy();
            let (parts, differ) = as_sent(&planned.plan, &self.cargo);
            if differ {
                ticket.ran(Plan {
                    parts,
                    ..planned.plan.clone()
                });
            }
            // Here, as planning is: another thread would take longer to wake than most policies take to learn, and the
            // sandbox ends those that take too long.
            if catch_unwind(AssertUnwindSafe(|| ticket.finish(outcome))).is_err() {
                tracing::error!("what was to be learned of a request is lost by a panic");
            }
        }
        if let Some(audit) = self.planned.trust.take_audit() {
            let choices = self.planned.asked.request.n as usize;
            let judge = self.planned.trust.judge(&self.node);
            let counted = audit::Counted {
                // Dropped, it counts as unfinished. That an answer ends is said by the draft model too, once the target is lost,
                // without a token that would count.
                whole: whole && !counters.degraded && driven.len() == choices,
                unverified: counters.unverified,
                judged: counters.judged(),
            };
            audit::end(&self.node, audit, judge, driven, &counted).await;
        }
    }

    /// What has computed the answer, where that is not what the client has been told.
    fn otherwise(&self, route: Route, outcome: &Outcome) -> Option<String> {
        let model = self.node.models.first()?;
        let ran_at = (route, outcome.peer);
        let plan = &self.planned.plan;
        // What this node's own model is does not change; what a peer has may.
        let alone = route == Route::Edge && plan.route == Route::Edge;
        if alone && outcome.parts == plan.parts {
            return None;
        }
        let computed = fingerprint(&self.node, model, ran_at, &outcome.parts);
        (computed != self.planned.fingerprint).then_some(computed)
    }

    /// Tokens that were committed unverified and that the operator's budget does not cover.
    fn outside(&self, counters: &Counters) -> u32 {
        let trust = &self.planned.trust;
        let alone = self.planned.plan.route == Route::Edge && !counters.escalated;
        // Without a target to leave anything to, no floor can be held.
        if trust.is_outside() || trust.is_within() && alone && !self.has_target {
            counters.unverified
        } else if trust.is_within() {
            counters.unverified_parted
        } else {
            0
        }
    }

    /// What this node's first model has cost that these answers do not tell.
    fn apart(&self, driven: &[Driven]) -> Spent {
        let told = self.waits && driven.iter().any(|driven| driven.here.is_some());
        let apart = self.planned.looked.filter(|_| !told);
        apart.unwrap_or_default()
    }

    /// The same here and where the target is, be that here too.
    fn looked(&self, driven: &[Driven]) -> (Spent, Spent) {
        let looked = self.apart(driven);
        match &self.node.models.draft {
            Some(_) => (looked, Spent::default()),
            // The target has looked.
            None => (Spent::default(), looked),
        }
    }

    /// Where it ran in the end.
    fn ran(&self, counters: &Counters) -> Route {
        match self.planned.plan.route {
            // Whatever was planned, or left to the target, the draft model gave all of it.
            _ if counters.degraded && counters.unverified == counters.tokens => Route::Edge,
            Route::Edge if counters.escalated => Route::Cloud,
            route => route,
        }
    }

    fn outcome(&self, driven: &[Driven], counters: &Counters, error: Option<&ApiError>) -> Outcome {
        let planned = &self.planned;
        let since = |time: fn(&Driven) -> Option<f64>, pick: fn(f64, f64) -> f64| {
            let times = driven.iter().filter_map(time);
            times
                .reduce(pick)
                .map_or(-1.0, |at_ms| at_ms - planned.asked.arrived_ms)
        };
        let gone = driven
            .iter()
            .any(|driven| matches!(driven.ended, Ended::Gone));
        let status = match error {
            Some(error) if error.status == 429 || error.status == 503 => Status::Refused,
            Some(error) if error.status < 500 => Status::Refused,
            Some(_) => Status::Failed,
            None if gone || self.gone.is_cancelled() => Status::Cancelled,
            None if counters.degraded => Status::Degraded,
            None => Status::Answered,
        };
        let route = self.ran(counters);
        let (sent, received) = self.traffic.bytes();
        let row = if counters.escalated {
            self.target_row
        } else if planned.plan.route == Route::Edge {
            0
        } else {
            planned.plan.peer as usize
        };
        // Where it was in the end, should the one asked for have gone on the way.
        let moved = driven.iter().find(|it| it.overrides & overrides::PEER != 0);
        let row = moved.and_then(|it| it.row).unwrap_or(row);
        let price = (planned.nodes.get(row))
            .map_or(0.0, |peer| peer.price_per_mtok)
            .max(0.0);
        // What the peer does for it: what it does not read is not its work.
        let read = planned.tokens(&planned.retained.target);
        let billed = f64::from(read) + f64::from(counters.tokens);
        // One that was opened for nothing was to read all of the prompt, and is paid for like any other.
        let left = self.left.as_ref();
        let for_nothing = left.filter(|left| left.is_open).map_or(0.0, |left| {
            let peer = planned.nodes.get(left.row);
            let price = peer.map_or(0.0, |peer| peer.price_per_mtok).max(0.0);
            price * planned.prompt.tokens() as f64 / 1e6
        });
        let left = left.map_or(0.0, |left| left.charges.flops);
        let (looked_here, looked_there) = self.looked(driven);
        let (mut parts, as_came) = as_sent(&planned.plan, &self.cargo);
        let as_came = if as_came { overrides::RETENTION } else { 0 };
        if route == Route::CloudDraft {
            // A session names one keep list a medium, which both models there go by.
            for part in &mut parts {
                part.draft = part.target;
            }
            clear_whole(&mut parts);
        }
        let mut outcome = Outcome {
            route: route as u8,
            peer: row as u32,
            status: status as u8,
            overrides: (driven.iter())
                .fold(planned.overrides | as_came, |all, it| all | it.overrides),
            ttft_ms: since(|driven| driven.first_token_ms, f64::min),
            total_ms: since(|driven| driven.last_token_ms, f64::max),
            probe_ms: planned.probe_ms,
            upload_ms: self.traffic.upload_ms(),
            // Answers wait side by side. How long the target had them wait its node does not tell.
            queue_ms: (driven.iter())
                .filter_map(|driven| driven.queued_ms)
                .fold(0.0, f64::max),
            sent_bytes: sent as f64,
            received_bytes: received as f64,
            edge_flops: (driven.iter().filter_map(|driven| driven.here))
                .chain([looked_here])
                .map(|here| here.flops as f64)
                .sum(),
            cloud_flops: driven.iter().map(|driven| driven.there.flops).sum::<f64>()
                + looked_there.flops as f64
                + left,
            cost: for_nothing
                + if route == Route::Edge {
                    0.0
                } else {
                    price * billed / 1e6
                },
            parts,
            ..Outcome::default()
        };
        counters.fill(&mut outcome);
        outcome
    }
}

/// Adds what one seat of a node took to what the node did: byte-seconds and ms add up, the most at once does not.
fn took(cost: &mut NodeCost, (byte_seconds, busy_ms): (f64, f64), activation_bytes: u64) {
    cost.cache_byte_seconds += byte_seconds;
    cost.busy_ms += busy_ms;
    cost.activation_bytes = cost.activation_bytes.max(activation_bytes);
}

/// What of a prompt goes to the target, and how the draft model reads it; both made when they are first needed, and as often as
/// a request is planned.
fn prompts(
    node: &Node,
    planned: &Planned,
    gone: &CancellationToken,
) -> (Arc<Cargo>, Option<Arc<Reading>>) {
    let means = Means {
        limits: media_limits(&node.config.media),
        decoders: Arc::clone(&node.decoders),
        gone: gone.clone(),
    };
    let prompt = &planned.prompt;
    // The models' first laid the prompt out: it is the draft model, or else the target itself.
    let processor = &planned.processor;
    let reading = node.models.draft.as_ref().map(|_| {
        let reading = Reading::new(prompt, &planned.retained.draft, processor, &means);
        Arc::new(reading)
    });
    let ways = ways(&planned.plan, planned.reaches, prompt.media.len());
    let cargo = Cargo::new(prompt, &planned.retained.target, processor, ways, means);
    (Arc::new(cargo), reading)
}

/// A plan's parts as they ran, and whether media went as they came of which shipments were planned.
fn as_sent(plan: &Plan, cargo: &Cargo) -> (Vec<PartPlan>, bool) {
    let mut parts = plan.parts.clone();
    let mut any = false;
    let as_they_came = cargo.made().map(|sent| sent.as_they_came.as_slice());
    for &number in as_they_came.unwrap_or_default() {
        if let Some(part) = parts.get_mut(number) {
            part.target.quality = 0;
            part.target.rest = Rest::Send;
            any = true;
        }
    }
    clear_whole(&mut parts);
    (parts, any)
}

fn add(sum: &mut Counters, one: &Counters) {
    for (sum, one) in sum.drafted.iter_mut().zip(one.drafted) {
        *sum += one;
    }
    for (sum, one) in sum.accepted.iter_mut().zip(one.accepted) {
        *sum += one;
    }
    for (sum, one) in sum.drafted_behind.iter_mut().zip(one.drafted_behind) {
        *sum += one;
    }
    for (sum, one) in sum.accepted_behind.iter_mut().zip(one.accepted_behind) {
        *sum += one;
    }
    sum.rounds += one.rounds;
    sum.rollbacks += one.rollbacks;
    sum.wasted += one.wasted;
    sum.stale += one.stale;
    sum.tokens += one.tokens;
    sum.unverified += one.unverified;
    sum.unverified_parted += one.unverified_parted;
    sum.idle_tokens += one.idle_tokens;
    sum.waited_ms += one.waited_ms;
    sum.escalated |= one.escalated;
    sum.degraded |= one.degraded;
}

/// Tokens of the prompt that had been read before the request came, by the model whose answer it is: the target, or on
/// route `edge` the draft model. Of several answers one reads the prompt and the others find it read: so the least of what
/// they tell counts. 0 where nobody tells.
fn cached(route: Route, driven: &[Driven]) -> u64 {
    let of = |driven: &Driven| match route {
        Route::Edge => driven.here.map(|here| here.cached_tokens),
        Route::Cloud | Route::CloudDraft | Route::Speculate => driven.there.cached_tokens,
    };
    driven.iter().filter_map(of).min().unwrap_or(0)
}

fn usage(planned: &Planned, cached_tokens: u64, tokens: u32) -> Usage {
    let of = |modality: Modality| {
        let media = planned.prompt.media.iter();
        let media = media.filter(|medium| medium.modality == modality);
        media.map(|medium| u64::from(medium.tokens)).sum::<u64>()
    };
    let (image, video, audio) = (
        of(Modality::Image),
        of(Modality::Video),
        of(Modality::Audio),
    );
    let all = planned.prompt.tokens() as u64;
    let prompt = PromptTokens {
        text: all.saturating_sub(image + video + audio),
        image,
        video,
        audio,
        // Another tokenizer may have made more of it.
        cached: cached_tokens.min(all),
    };
    Usage::new(prompt, u64::from(tokens))
}
