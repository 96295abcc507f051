//! From a prompt to a plan: limits, what the plug-ins say, and what the host makes of it.

use std::sync::Arc;

use msao_api::{ApiError, drawn_seed, system_fingerprint};
use msao_core::inputs::ModelInputs;
use msao_core::meter::Spent;
use msao_core::offload::manifest::Probe;
use msao_core::offload::record::GenerationId;
use msao_core::offload::{
    self, Decision, Mode, Part, PartPlan, Plan, Route, Treatment, capability, flag, modality,
    overrides,
};
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::service::{Open, ServiceError, Tell};
use msao_engine::{EngineError, Keep, OpenOptions, ProbeOptions};
use msao_processor::Processor;
use msao_registry::{Arrival, Ticket, with_scores};
use msao_session::frame::Identity;
use tracing::Instrument as _;

use super::treat::{Fitted, encoding, fitting};
use super::{Asked, random};
use crate::clock::since_1970_ms;
use crate::models::{Model, Opening, Seat};
use crate::node::Node;
use crate::request::{self, Prompt, Reaches, Reading, Retained, Sight};

/// The tokens of each medium of a prompt, those needed most first, as a post-processor has ranked them.
pub type Orders = Vec<Vec<u32>>;

/// A request that knows how it runs.
pub struct Planned {
    /// What was asked.
    pub asked: Asked,
    /// Laid out.
    pub prompt: Arc<Prompt>,
    /// How tokens are chosen; `choice` is 0.
    pub params: SamplingParams,
    /// Tokens of each answer at most.
    pub max_tokens: u32,
    /// Reads the answers' tokens.
    pub processor: Arc<Processor>,
    /// The request's way through the plug-ins, until the answers take it.
    pub ticket: Option<Ticket>,
    /// Who planned it.
    pub generation: GenerationId,
    /// What the policy saw.
    pub request: offload::Request,
    /// Likewise.
    pub parts: Vec<Part>,
    /// Likewise.
    pub nodes: Vec<offload::Node>,
    /// How it runs.
    pub plan: Plan,
    /// What the host did otherwise than planned: bits of [`overrides`].
    pub overrides: u32,
    /// What is read of the media.
    pub retained: Retained,
    /// Where its models are.
    pub reaches: Reaches,
    /// By what it was chosen, where the probe has run.
    pub orders: Option<Orders>,
    /// The draft model's seat, where the probe has taken it and the answer goes on from there: it waits for what it is to
    /// keep.
    pub seat: Option<Box<dyn Seat>>,
    /// What the probe has cost, where nothing goes on from it.
    pub looked: Option<Spent>,
    /// Time in the probe, in ms.
    pub probe_ms: f64,
    /// Names what computes the answer.
    pub fingerprint: String,
}

impl Planned {
    /// Tokens of the prompt that a model reads, text included.
    pub fn tokens(&self, sight: &Sight) -> u32 {
        let media = self.prompt.media.iter().map(|medium| medium.tokens);
        (self.request.prompt_tokens).saturating_sub(sight.dropped(media))
    }
}

/// Plans a request.
///
/// # Errors
/// What the client is told instead of an answer.
pub async fn plan(
    node: &Arc<Node>,
    asked: Asked,
    prompt: Arc<Prompt>,
) -> Result<Planned, ApiError> {
    let model = node.models.first().ok_or_else(|| ApiError::loading(None))?;
    let max_tokens = room(node, model, &asked, &prompt)?;
    let params = asked
        .request
        .sampling
        .params(&model.defaults, drawn_seed(random()?));
    params.validate_for(model.vocabulary())?;
    let arrival = Arrival {
        session: asked.session.as_deref(),
        prompt_cache_key: asked.request.prompt_cache_key.as_deref(),
        user: asked.request.user.as_deref(),
        api_key: asked.key.as_deref(),
        ..Arrival::new(&asked.id, prompt.content)
    };
    let mut planning = Planning {
        node,
        ticket: Some(node.plugins.admit(&arrival)),
        seat: None,
        orders: None,
        probe_ms: 0.0,
    };
    let mut request = offload::Request {
        seed: random()?,
        now_ms: since_1970_ms(),
        prompt_tokens: prompt.tokens() as u32,
        max_tokens,
        deadline_ms: asked.left_ms(node.clock.now_ms()),
        temperature: params.temperature,
        tenant: asked.tenant,
        flags: asked.request.flags(),
    };
    let mut parts = request::parts(&prompt);
    let nodes = node.rows(&prompt);
    if planning.ticket()?.probe() == Probe::Full {
        parts = planning
            .probe(&prompt, &params, max_tokens, &mut request, &parts)
            .instrument(tracing::info_span!("probe"))
            .await?;
    }
    let mut decision = planning.ticket()?.plan(&request, &parts, &nodes);
    if decision == Decision::Probe {
        parts = planning
            .probe(&prompt, &params, max_tokens, &mut request, &parts)
            .instrument(tracing::info_span!("probe"))
            .await?;
        decision = planning.ticket()?.plan(&request, &parts, &nodes);
    }
    let Decision::Run(plan) = decision else {
        // The ticket lets a policy ask once.
        return Err(ApiError::internal());
    };
    let allowed = allowed(plan, &request, &parts, &nodes)?;
    let stays = asked.request.media_at_edge;
    let Fitted {
        plan,
        overrides,
        reaches,
    } = fitting(node, allowed, &prompt, (&request, &parts), stays);
    let orders = planning.orders.as_deref();
    let retained = retained(model, &plan, &prompt, orders, reaches)?;
    let looked = planning.let_go(plan.route).await;
    let mut ticket = planning.ticket.take().ok_or_else(ApiError::internal)?;
    if overrides != 0 {
        ticket.ran(plan.clone());
    }
    Ok(Planned {
        fingerprint: fingerprint(node, model, &plan),
        generation: ticket.generation().clone(),
        asked,
        prompt,
        params,
        max_tokens,
        processor: Arc::clone(&model.processor),
        ticket: Some(ticket),
        request,
        parts,
        nodes,
        plan,
        overrides,
        retained,
        reaches,
        orders: planning.orders.take(),
        seat: planning.seat.take(),
        looked,
        probe_ms: planning.probe_ms,
    })
}

/// What the models read of a prompt's media by a plan that can run.
pub fn retained(
    model: &Model,
    plan: &Plan,
    prompt: &Prompt,
    orders: Option<&[Vec<u32>]>,
    reaches: Reaches,
) -> Result<Retained, ApiError> {
    let processor = &model.processor;
    let retained = Retained::of(&plan.parts, &prompt.media, orders, processor, reaches);
    retained.map_err(|error| {
        // Sizes that cannot be had were left out before.
        tracing::error!(%error, "a medium cannot be laid out as planned");
        ApiError::internal()
    })
}

/// Names what computes an answer: the target wherever it takes part, since its tokens are committed then.
fn fingerprint(node: &Node, model: &Model, plan: &Plan) -> String {
    let of = |identity: &Identity, held: &str, side: fn(&PartPlan) -> &Treatment| {
        let encoding = encoding(&identity.processor, &plan.parts, side);
        system_fingerprint(&identity.model, held, &encoding)
    };
    let target = || match (plan.peer, &node.models.target) {
        (0, Some(target)) => Some(of(&target.identity, &target.held, |part| &part.target)),
        // How a peer holds its model is part of what it says of it.
        (row, _) => (node.target_identity(row as usize))
            .map(|identity| of(&identity, "", |part| &part.target)),
    };
    let planned = (plan.route != Route::Edge).then(target).flatten();
    planned.unwrap_or_else(|| of(&model.identity, &model.held, |part| &part.draft))
}

/// Tokens that each answer may have, once the prompt is known.
fn room(node: &Node, model: &Model, asked: &Asked, prompt: &Prompt) -> Result<u32, ApiError> {
    let api = &node.config.api;
    let context = model.processor.context().min(model.engine.capacity());
    let left = context.saturating_sub(prompt.tokens());
    let too_long =
        |answer: u32| ApiError::context_length_exceeded(prompt.tokens(), answer as usize, context);
    match asked.request.max_tokens {
        Some(most) if most > api.max_tokens => {
            let rule = format!(
                "this node gives {} tokens at most (api.max-tokens).",
                api.max_tokens
            );
            Err(ApiError::invalid_value("max_completion_tokens", &rule))
        }
        Some(most) if most as usize > left => Err(too_long(most)),
        Some(most) => Ok(most),
        None if left == 0 => Err(too_long(1)),
        None => Ok(api
            .default_max_tokens
            .min(u32::try_from(left).unwrap_or(u32::MAX))),
    }
}

/// A request that is being planned. Dropped on the way, because it is refused or its client has left, it is no policy's
/// fault.
struct Planning<'a> {
    node: &'a Arc<Node>,
    ticket: Option<Ticket>,
    /// Of the model that has looked at the prompt. Nothing is kept yet: what, the plan says.
    seat: Option<Box<dyn Seat>>,
    orders: Option<Orders>,
    probe_ms: f64,
}

impl Drop for Planning<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Some(ticket) = self.ticket.take()
        {
            ticket.withdraw();
        }
    }
}

impl Planning<'_> {
    fn ticket(&mut self) -> Result<&mut Ticket, ApiError> {
        self.ticket.as_mut().ok_or_else(ApiError::internal)
    }

    /// Looks at the prompt with this node's first model, has it scored, and gives the parts as a policy then sees them.
    async fn probe(
        &mut self,
        prompt: &Arc<Prompt>,
        params: &SamplingParams,
        max_tokens: u32,
        request: &mut offload::Request,
        parts: &[Part],
    ) -> Result<Vec<Part>, ApiError> {
        request.flags |= flag::PROBED;
        if prompt.media.is_empty() {
            // There is nothing to look at.
            let scores = self.score(&Arc::default(), request.seed)?;
            return Ok(with_scores(parts, &scores));
        }
        let began_ms = self.node.clock.now_ms();
        let model = self.node.models.first().ok_or_else(ApiError::internal)?;
        let options = OpenOptions {
            probe: Some(ProbeOptions {
                content_free: content_free(model, prompt),
                seed: request.seed,
            }),
            ..OpenOptions::default()
        };
        let inputs = &prompt.inputs;
        let seat = open(model, inputs, params.clone(), max_tokens, options, None).await;
        let seat = seat.map_err(|error| failed(self.node, &error))?;
        let probed = seat
            .probed()
            .await
            .map_err(|error| failed(self.node, &error))?;
        let scores = self.score(&Arc::new(request::report(&probed)), request.seed)?;
        // The fallback's scores rank nothing, and would have the beginning of each medium stay.
        let ticket = self.ticket()?;
        let ranked = ticket.generation().postprocessor.is_some() && !ticket.failed();
        self.orders = ranked.then(|| {
            let items = scores.items.iter();
            items.map(|score| score.keep_order.clone()).collect()
        });
        self.seat = Some(seat);
        self.probe_ms = self.node.clock.now_ms() - began_ms;
        Ok(with_scores(parts, &scores))
    }

    /// Lets go of the probe's seat where no draft of this node goes on from it: the target has seats of its own, and a draft
    /// model that is there in case the peer is lost holds nothing as long as it is not. Gives what the probe has cost then.
    async fn let_go(&mut self, route: Route) -> Option<Spent> {
        let drafts = matches!(route, Route::Edge | Route::Speculate);
        if drafts && self.node.models.draft.is_some() {
            return None;
        }
        let seat = self.seat.take()?;
        let meter = seat.meter().await.ok()?;
        Some(meter.spent())
    }

    /// The sandbox has threads of its own for it; this one waits, and the others go on.
    fn score(
        &mut self,
        report: &Arc<offload::Report>,
        seed: u64,
    ) -> Result<offload::Scores, ApiError> {
        let ticket = self.ticket()?;
        Ok(tokio::task::block_in_place(|| ticket.score(report, seed)))
    }
}

/// What the probe reads in place of the text behind the last medium; nothing where there is no room for it.
fn content_free(model: &Model, prompt: &Prompt) -> Vec<u32> {
    let Some(last) = prompt.media.last() else {
        return Vec::new();
    };
    let ids = match model.processor.content_free(last.modality) {
        Ok(ids) => ids,
        Err(error) => {
            // A template that wants more than one turn, say. Relevance is then told as it is, beside nothing.
            tracing::warn!(%error, "there is no content-free text for the probe");
            return Vec::new();
        }
    };
    let context = model.processor.context().min(model.engine.capacity());
    if prompt.tokens() + ids.len() <= context {
        ids
    } else {
        Vec::new()
    }
}

/// Takes a seat for one answer.
pub async fn open(
    model: &Model,
    inputs: &Arc<ModelInputs>,
    params: SamplingParams,
    max_tokens: u32,
    options: OpenOptions,
    top_logprobs: Option<u32>,
) -> Result<Box<dyn Seat>, ServiceError> {
    let sampler = Sampler::new(params, model.vocabulary(), &inputs.input_ids)
        .map_err(|error| EngineError::Request(error.to_string()))?;
    let open = Open {
        inputs: Arc::clone(inputs),
        sampler,
        reserve: max_tokens as usize,
        options,
        end_of_sequence: model.ends().to_vec(),
        tell: Tell {
            top_logprobs,
            confidence: true,
        },
    };
    let _waits = model.waits.begin();
    model.engine.open(open).await
}

/// The same, to be taken later, of a prompt as it is read.
pub fn opening(
    model: &Model,
    reading: &Arc<Reading>,
    params: SamplingParams,
    max_tokens: u32,
    top_logprobs: Option<u32>,
) -> Opening {
    let (model, reading) = (model.clone(), Arc::clone(reading));
    Box::pin(async move {
        let laid = reading.laid().await;
        let laid = laid.map_err(|why| ServiceError::Engine(EngineError::Request(why)))?;
        let options = OpenOptions {
            keep: laid.kept.pruning(laid.media.len()),
            probe: None,
        };
        let inputs = &laid.inputs;
        open(&model, inputs, params, max_tokens, options, top_logprobs).await
    })
}

/// The probe's seat, to go on later with what is kept.
pub fn going_on(seat: Box<dyn Seat>, keep: Keep) -> Opening {
    Box::pin(async move {
        seat.keep(keep).await?;
        Ok(seat)
    })
}

/// What a client is told where a model fails.
pub fn failed(node: &Node, error: &ServiceError) -> ApiError {
    match error {
        error if error.is_want_of_room() => ApiError::overloaded(node.retry_after_ms()),
        ServiceError::TooLarge { tokens, capacity } => {
            ApiError::context_length_exceeded(*tokens, 0, *capacity)
        }
        ServiceError::Engine(EngineError::TooLong { tokens, limit }) => {
            ApiError::context_length_exceeded(*tokens, 1, *limit)
        }
        _ => {
            tracing::error!(%error, "a model failed");
            node.models
                .lost()
                .map_or_else(ApiError::internal, ApiError::model_lost)
        }
    }
}

/// What a client is told where the target is out of reach: only who demanded it can do without.
pub fn without_target(exact: bool, why: &str) -> ApiError {
    if exact {
        ApiError::exact_unavailable(why)
    } else {
        ApiError::target_unavailable(why)
    }
}

/// The plan as it may run: the client's wishes and the nodes' state come before the policy's. Gives what was changed. What it
/// says of media is left to [`fitting`].
pub fn allowed(
    plan: Plan,
    request: &offload::Request,
    parts: &[Part],
    nodes: &[offload::Node],
) -> Result<(Plan, u32), ApiError> {
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
            let why = if stays {
                "no node that may get the media has the target model"
            } else {
                "no node with the target model can be reached"
            };
            return Err(without_target(exact, why));
        };
        plan.route = Route::Cloud;
        plan.peer = other as u32;
        changed |= overrides::ROUTE;
    }
    let row = plan.peer as usize;
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
        // Nothing is committed unverified without audited data, and none is kept yet.
        plan.mode = Mode::Exact;
        changed |= overrides::EXACT;
    }
    Ok((plan, changed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(can: u32) -> offload::Node {
        offload::Node {
            up: true,
            can,
            ..offload::Node::default()
        }
    }

    const EDGE: u32 = capability::DRAFT | capability::SAME_TOKENIZER;
    const CLOUD: u32 = capability::TARGET | capability::VERIFY;

    fn run(
        route: Route,
        peer: u32,
        flags: u32,
        nodes: &[offload::Node],
    ) -> Result<(Route, u32, u32), u16> {
        let request = offload::Request {
            flags,
            ..offload::Request::default()
        };
        let parts = [Part {
            modality: modality::IMAGE,
            ..Part::default()
        }];
        let ran = allowed(Plan::plain(route, peer), &request, &parts, nodes);
        ran.map(|(plan, changed)| (plan.route, plan.peer, changed))
            .map_err(|error| error.status)
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
        let down = offload::Node {
            up: false,
            ..node(CLOUD)
        };
        let nodes = [node(EDGE), down.clone(), node(CLOUD)];
        let expected = Ok((Route::Speculate, 2, overrides::PEER));
        assert_eq!(run(Route::Speculate, 1, 0, &nodes), expected);
        let nodes = [node(EDGE), down];
        let expected = Ok((Route::Edge, 0, overrides::PEER | overrides::ROUTE));
        assert_eq!(run(Route::Cloud, 1, 0, &nodes), expected);
        assert_eq!(run(Route::Cloud, 1, flag::EXACT, &nodes), Err(503));
    }

    #[test]
    fn what_the_client_demands_comes_first() {
        let nodes = [node(EDGE), node(CLOUD)];
        let expected = Ok((Route::Edge, 0, overrides::MEDIA | overrides::ROUTE));
        assert_eq!(run(Route::Cloud, 1, flag::MEDIA_AT_EDGE, &nodes), expected);
        let expected = Ok((Route::Cloud, 1, overrides::ROUTE));
        assert_eq!(run(Route::Edge, 0, flag::EXACT, &nodes), expected);
        let both = flag::EXACT | flag::MEDIA_AT_EDGE;
        assert_eq!(run(Route::Cloud, 1, both, &nodes), Err(503));
        // Where the target is here, media need not leave.
        let here = [node(EDGE | CLOUD), node(CLOUD)];
        let expected = Ok((Route::Cloud, 0, overrides::MEDIA));
        assert_eq!(run(Route::Cloud, 1, both, &here), expected);
    }
}
