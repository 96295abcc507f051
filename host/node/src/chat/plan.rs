//! From a prompt to a plan: limits, what the plug-ins say, and what the host makes of it.

use std::sync::Arc;

use msao_api::{ApiError, drawn_seed, system_fingerprint};
use msao_core::inputs::ModelInputs;
use msao_core::meter::Spent;
use msao_core::offload::manifest::Probe;
use msao_core::offload::record::GenerationId;
use msao_core::offload::{self, Decision, Means, Part, PartPlan, Plan, Route, Treatment, flag};
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::service::{Open, ServiceError, Tell};
use msao_engine::{EngineError, Keep, OpenOptions, ProbeOptions};
use msao_processor::Processor;
use msao_registry::{Arrival, Ticket, with_scores};
use msao_session::frame::Identity;
use tracing::Instrument as _;

use super::ahead::{self, Known};
use super::treat::{Fitted, encoding, fitting};
use super::trust::{self, Seen, Trust};
use super::{Asked, random};
use crate::answer::Opened;
use crate::clock::since_1970_ms;
use crate::models::{Model, Opening, Seat};
use crate::node::Node;
use crate::peers::Ahead;
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
    /// What the host did otherwise than planned: bits of [`offload::overrides`].
    pub overrides: u32,
    /// What of the answer may be committed without the target's word.
    pub trust: Trust,
    /// Counts as work that the peer is going to get, until it has begun.
    pub ahead: Ahead,
    /// A session that was opened while the probe ran, until it is known whether the plan goes on with it.
    pub opened: Option<Opened>,
    /// What is read of the media.
    pub retained: Retained,
    /// Where its models are.
    pub reaches: Reaches,
    /// By what it was chosen, where the probe has run.
    pub orders: Option<Orders>,
    /// The draft model's seat, where the probe has taken it and the answer goes on from there: it waits for what it is to
    /// keep.
    pub seat: Option<Box<dyn Seat>>,
    /// What this node's first model has cost apart from what the answers tell: in the probe, where none of them goes on from it
    /// or that is yet to be seen, and in answers that were begun anew.
    pub looked: Option<Spent>,
    /// Time in the probe, in ms.
    pub probe_ms: f64,
    /// Names what computes the answer, as planned and as the client has been told.
    pub fingerprint: String,
}

impl Planned {
    /// Tokens of the prompt that a model reads, text included.
    pub fn tokens(&self, sight: &Sight) -> u32 {
        read_of(&self.prompt, sight)
    }
}

/// Tokens of a prompt of whose media so much is read.
fn read_of(prompt: &Prompt, sight: &Sight) -> u32 {
    let media = prompt.media.iter().map(|medium| medium.tokens);
    (prompt.tokens() as u32).saturating_sub(sight.dropped(media))
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
        opened: None,
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
    let nodes = node.rows(&prompt, params.temperature);
    if planning.ticket()?.probe() == Probe::Full {
        let of = (&asked, &prompt, &params);
        parts = planning
            .probe(of, &mut request, &parts, &nodes)
            .instrument(tracing::info_span!("probe"))
            .await?;
    }
    let mut decision = planning.ticket()?.plan(&request, &parts, &nodes);
    if decision == Decision::Probe {
        let of = (&asked, &prompt, &params);
        parts = planning
            .probe(of, &mut request, &parts, &nodes)
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
    let planned = fitting(node, allowed, &prompt, (&request, &parts), stays);
    let seen = Seen {
        request: &request,
        parts: &parts,
        nodes: &nodes,
        prompt: &prompt,
    };
    let (trust, fitted) = trust::admit(node, seen, planned);
    let Fitted {
        plan,
        overrides,
        reaches,
    } = fitted;
    let orders = planning.orders.as_deref();
    let retained = retained(model, &plan, &prompt, orders, reaches)?;
    if let Some(opened) = &planning.opened {
        opened.settle();
    }
    // At once: who is planned next sees it.
    let tokens = read_of(&prompt, &retained.target);
    let ahead = node.ahead(plan.peer as usize, plan.route, tokens);
    // What an audit asks the draft model has to be what it would have drafted, behind the same probe.
    let goes_on = trust.is_audited() && !retained.draft.lists().is_whole();
    let looked = planning.let_go(plan.route, goes_on).await;
    let mut ticket = planning.ticket.take().ok_or_else(ApiError::internal)?;
    if overrides != 0 {
        ticket.ran(plan.clone());
    }
    Ok(Planned {
        fingerprint: fingerprint(node, model, (plan.route, plan.peer), &plan.parts),
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
        trust,
        ahead,
        opened: planning.opened.take(),
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

/// Names what computes an answer that runs there, with these parts: the target wherever it takes part, since its tokens are
/// committed then. `model`: this node's first.
pub fn fingerprint(
    node: &Node,
    model: &Model,
    (route, peer): (Route, u32),
    parts: &[PartPlan],
) -> String {
    let of = |identity: &Identity, held: &str, side: fn(&PartPlan) -> &Treatment| {
        let encoding = encoding(&identity.processor, parts, side);
        system_fingerprint(&identity.model, held, &encoding)
    };
    let target = || match (peer, &node.models.target) {
        (0, Some(target)) => Some(of(&target.identity, &target.held, |part| &part.target)),
        // How a peer holds its model is part of what it says of it.
        (row, _) => (node.target_identity(row as usize))
            .map(|identity| of(&identity, "", |part| &part.target)),
    };
    let of_target = (route != Route::Edge).then(target).flatten();
    of_target.unwrap_or_else(|| of(&model.identity, &model.held, |part| &part.draft))
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
    /// Cancelled where it is dropped: no plan goes on with it.
    opened: Option<Opened>,
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

    /// Looks at the prompt with this node's first model, has it scored, and gives the parts as a policy then sees them. Opens a
    /// session at a peer meanwhile, where the policy wants that.
    async fn probe(
        &mut self,
        (asked, prompt, params): (&Asked, &Arc<Prompt>, &SamplingParams),
        request: &mut offload::Request,
        parts: &[Part],
        nodes: &[offload::Node],
    ) -> Result<Vec<Part>, ApiError> {
        request.flags |= flag::PROBED;
        if prompt.media.is_empty() {
            // There is nothing to look at.
            let scores = self.score(&Arc::default(), request.seed)?;
            return Ok(with_scores(parts, &scores));
        }
        let began_ms = self.node.clock.now_ms();
        let known = Known {
            asked,
            prompt,
            params,
            request,
            parts,
            nodes,
        };
        self.opened = ahead::open(self.node, self.ticket()?.ahead(), known);
        let model = self.node.models.first().ok_or_else(ApiError::internal)?;
        let options = OpenOptions {
            probe: Some(ProbeOptions {
                content_free: content_free(model, prompt),
                seed: request.seed,
            }),
            ..OpenOptions::default()
        };
        let read = (&prompt.inputs, prompt.tokens() as u32);
        let looking = async {
            let seat = open(
                model,
                read,
                params.clone(),
                request.max_tokens,
                options,
                None,
            )
            .await?;
            let probed = seat.probed().await?;
            Ok::<_, ServiceError>((seat, probed))
        };
        let looked = match &mut self.opened {
            Some(opened) => opened.beside(looking).await,
            None => looking.await,
        };
        let (seat, probed) = looked.map_err(|error| failed(self.node, &error))?;
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
    /// model that is there in case the peer is lost holds nothing as long as it is not. Gives what the probe has cost where no
    /// draft tells it. `goes_on`: something goes on from it all the same, once the answer is whole.
    async fn let_go(&mut self, route: Route, goes_on: bool) -> Option<Spent> {
        let has_draft = self.node.models.draft.is_some();
        if has_draft && matches!(route, Route::Edge | Route::Speculate) {
            return None;
        }
        let meter = self.seat.as_ref()?.meter().await;
        if !(has_draft && goes_on) {
            self.seat = None;
        }
        Some(meter.ok()?.spent())
    }

    /// On this thread, whose tasks others take over: it may wait for its turn, and then works for as long as ten plans.
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

/// Takes a seat for one answer to a prompt of which so many tokens are read.
pub async fn open(
    model: &Model,
    (inputs, tokens): (&Arc<ModelInputs>, u32),
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
    let _waits = model.waits.begin(tokens);
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
        let prompt = (&laid.inputs, laid.tokens());
        open(&model, prompt, params, max_tokens, options, top_logprobs).await
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

/// The plan as it may run on this node. Gives what was changed. What it says of media is left to [`fitting`].
pub fn allowed(
    plan: Plan,
    request: &offload::Request,
    parts: &[Part],
    nodes: &[offload::Node],
) -> Result<(Plan, u32), ApiError> {
    // As far as `fitting` says.
    let means = Means { retention: true };
    let exact = request.flags & flag::EXACT != 0;
    offload::allowed(plan, request, parts, nodes, means)
        .map_err(|why| without_target(exact, &why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_demands_the_target_is_refused_without_one() {
        for (flags, status) in [(0, 503), (flag::EXACT, 503)] {
            let request = offload::Request {
                flags,
                ..offload::Request::default()
            };
            let refused = allowed(Plan::plain(Route::Cloud, 1), &request, &[], &[]);
            assert_eq!(refused.map_err(|error| error.status), Err(status));
        }
    }
}
