//! Which path does what.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response};
use msao_api::{
    ApiError, ChatCompletion, ChatRequest, Choice, ChunkStream, FinishReason, Limits, Logprobs,
    Model, ModelList, Piece, Report, Streaming, headers, sse,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use super::body::{self, Arriving, Outgoing, Streamed, Unread};
use super::respond::{error, json, response, text};
use crate::adapt::CLOSED;
use crate::chat::{self, Answering, Asked, Told};
use crate::config::ApiKey;
use crate::metrics::{Watched, Way};
use crate::node::Node;

/// While nothing else is said, a client hears so often that the node is at it.
const PING_EVERY: Duration = Duration::from_secs(5);
/// A stream begins when there is something to say, or after so long.
const HEAD_WITHIN: Duration = Duration::from_secs(2);
/// Pieces of a stream that may wait for the socket.
const AHEAD: usize = 16;

/// Answers one request.
pub async fn route(node: Arc<Node>, request: Request<Arriving>) -> Response<Outgoing> {
    let arrived_ms = node.clock.now_ms();
    let id = request_id(request.headers(), &node);
    let answered = handle(&node, request, &id, arrived_ms).await;
    let mut response = answered.unwrap_or_else(|refused| {
        node.metrics.refused(refused.status, refused.code);
        tracing::info!(id, status = refused.status, code = refused.code, "refused");
        let mut response = error(&refused);
        if refused.status == 405 {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        response
    });
    if let Ok(id) = HeaderValue::from_str(&id) {
        let name = HeaderName::from_static(headers::REQUEST_ID);
        response.headers_mut().insert(name, id);
    }
    response
}

/// The client's own id where it may be echoed, else one that nobody else has.
fn request_id(given: &HeaderMap, node: &Node) -> String {
    let given = given
        .get(headers::REQUEST_ID)
        .and_then(|id| id.to_str().ok());
    match given.filter(|id| headers::is_request_id(id)) {
        Some(id) => id.to_owned(),
        None => {
            let random = getrandom::u64().unwrap_or_default();
            format!("req_{random:016x}{:x}", node.number())
        }
    }
}

async fn handle(
    node: &Arc<Node>,
    request: Request<Arriving>,
    id: &str,
    arrived_ms: f64,
) -> Result<Response<Outgoing>, ApiError> {
    let path = request.uri().path().to_owned();
    let get = || match *request.method() {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(ApiError::method_not_allowed("GET")),
    };
    match path.as_str() {
        "/health" => {
            get()?;
            Ok(text("ok\n".into()))
        }
        "/ready" => {
            get()?;
            if node.is_draining() {
                return Err(ApiError::draining(None));
            }
            if let Some(role) = node.models.lost() {
                return Err(ApiError::model_lost(role));
            }
            Ok(text("ready\n".into()))
        }
        "/version" => {
            get()?;
            let version = serde_json::json!({
                "name": "msao",
                "version": env!("CARGO_PKG_VERSION"),
                "node": node.config.node.name,
                "role": node.config.node.role,
            });
            Ok(json(&version, Vec::new()))
        }
        "/metrics" => {
            get()?;
            Ok(metrics(node))
        }
        "/v1/models" => {
            get()?;
            key(node, request.headers())?;
            Ok(json(&models(node), Vec::new()))
        }
        "/v1/chat/completions" => {
            if request.method() != Method::POST {
                return Err(ApiError::method_not_allowed("POST"));
            }
            let span = tracing::info_span!("request", id);
            chat(node, request, id, arrived_ms).instrument(span).await
        }
        _ => match path.strip_prefix("/v1/models/") {
            Some(name) => {
                get()?;
                key(node, request.headers())?;
                Ok(json(models(node).get(name)?, Vec::new()))
            }
            None => Err(ApiError::not_found(&path)),
        },
    }
}

fn models(node: &Node) -> ModelList {
    ModelList {
        data: vec![Model {
            id: node.config.api.model.clone(),
            created: node.started_s,
            owned_by: "msao".into(),
        }],
    }
}

fn metrics(node: &Node) -> Response<Outgoing> {
    let load = |of: &Option<crate::models::Model>| of.as_ref().map(|model| model.engine.load());
    let (draft, target) = (load(&node.models.draft), load(&node.models.target));
    let sessions = node
        .sessions
        .as_ref()
        .map_or(0, |sessions| sessions.count());
    let status = node.plugins.status();
    let mut now = vec![
        (
            "requests_under_way",
            "Chat requests under way",
            node.under_way() as f64,
        ),
        ("sessions", "Sessions on the target", sessions as f64),
        (
            "generation",
            "Number of the active generation",
            status.active.number as f64,
        ),
        (
            "live_generations",
            "Generations that decide: the active one, a candidate, and those with requests left",
            status.live_generations as f64,
        ),
        (
            "generations_in_memory",
            "Generations in memory, those that only wait included",
            status.generations_in_memory as f64,
        ),
        (
            "draining",
            "Whether the node takes no more requests",
            f64::from(u8::from(node.is_draining())),
        ),
    ];
    for (load, names) in [
        (
            draft,
            [
                ("draft_sessions", "Answers on the draft model"),
                ("draft_waiting", "Prompts that wait for the draft model"),
                (
                    "draft_kv_blocks",
                    "Blocks of keys and values of the draft model",
                ),
            ],
        ),
        (
            target,
            [
                ("target_sessions", "Answers on the target model"),
                ("target_waiting", "Prompts that wait for the target model"),
                (
                    "target_kv_blocks",
                    "Blocks of keys and values of the target model",
                ),
            ],
        ),
    ] {
        let Some(load) = load else { continue };
        let values = [load.sessions, load.waiting, load.held_blocks];
        for ((name, help), value) in names.into_iter().zip(values) {
            now.push((name, help, value as f64));
        }
    }
    let ways = node.peers.iter().map(|remote| {
        let peer = remote.peer();
        let mut row = msao_core::offload::Node::default();
        peer.fill(&mut row);
        Way {
            peer: peer.name(),
            up: peer.status().up,
            rtt_ms: row.rtt_ms,
            uplink_bps: row.uplink_bps,
            downlink_bps: row.downlink_bps,
            queue_ms: row.queue_ms,
            jitter_ms: row.jitter_ms,
        }
    });
    node.metrics.ways(ways);
    let learned = node.adapt.figures().into_iter();
    node.metrics.watched(learned.flat_map(|known| {
        let pair = known.pair.to_string();
        let classes = known.classes.into_iter();
        classes.map(move |class| Watched {
            pair: pair.clone(),
            class: class.name,
            floor: class.floor.unwrap_or(CLOSED),
            audits: class.audits,
            disagreements: class.disagreements,
        })
    }));
    let active = &status.active;
    let (policy, other) = (active.policy.as_deref(), active.postprocessor.as_deref());
    node.metrics.plugins(policy, other);
    let body = body::whole(node.metrics.text(&now));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response(200, kind, Vec::new(), body)
}

/// Whose key a request shows; `None` where nobody has to show one.
fn key(node: &Node, given: &HeaderMap) -> Result<Option<(String, ApiKey)>, ApiError> {
    let access = node.access.load();
    let keys = &access.keys;
    if keys.is_empty() {
        return Ok(None);
    }
    let shown = given
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
    let digest = shown.map(|key| {
        let digest = Sha256::digest(key.trim().as_bytes());
        msao_core::digest::Digest(digest.into()).to_string()
    });
    // Digests are compared: how long that takes says nothing of the key.
    let found = keys
        .iter()
        .find(|(_, key)| Some(key.sha256.to_ascii_lowercase()) == digest);
    found
        .map(|(name, key)| Some((name.clone(), key.clone())))
        .ok_or_else(ApiError::unauthorized)
}

async fn chat(
    node: &Arc<Node>,
    request: Request<Arriving>,
    id: &str,
    arrived_ms: f64,
) -> Result<Response<Outgoing>, ApiError> {
    let api = &node.config.api;
    let given = request.headers();
    let header = |name: &str| given.get(name).and_then(|value| value.to_str().ok());
    let known = key(node, given)?;
    headers::require_json(header(CONTENT_TYPE.as_str()))?;
    // Nobody need send megabytes to hear that there is no place.
    chat::may_enter(node)?;
    let session = header("x-msao-session").map(str::to_owned);
    let (key, rules) = known.unzip();
    let rules = rules.unwrap_or_default();
    let most = (api.body_mib as usize) << 20;
    let limits = Limits {
        max_body_bytes: most,
        max_media: node.config.media.items as usize,
        max_medium_bytes: (node.config.media.mib as usize) << 20,
        ..Limits::default()
    };
    let within = Duration::from_secs(u64::from(api.body_within_s));
    let read = body::read_into(request.into_body(), most, within, &node.bodies).await;
    let (body, room) = read.map_err(|error| match error {
        Unread::Refused(error) => error,
        Unread::NoRoom => ApiError::overloaded(node.retry_after_ms()),
    })?;
    let mut request = ChatRequest::parse(&body, &limits)?;
    drop(body);
    request.exact |= rules.exact;
    request.media_at_edge |= rules.media_edge_only;
    let (stream, n) = (request.stream, request.n);
    let asked = Asked {
        request,
        id: id.to_owned(),
        session,
        key,
        tenant: rules.tenant,
        arrived_ms,
        room: room.into_iter().map(Arc::new).collect(),
    };
    let mut answering = chat::answer(node, asked).await?;
    let Some(streaming) = stream else {
        return collected(answering, n).await;
    };
    // While nothing was said a refusal still has a status of its own: clients try again by that.
    match tokio::time::timeout(HEAD_WITHIN, first(&mut answering)).await {
        Ok(Some(Told::Failed(error))) => Err(error),
        Ok(Some(first)) => Ok(streamed(node, answering, Some(first), n, streaming)),
        Ok(None) => Err(ApiError::internal()),
        Err(_) => Ok(streamed(node, answering, None, n, streaming)),
    }
}

/// What is told first, apart from how the answer runs, which is taken in.
async fn first(answering: &mut Answering) -> Option<Told> {
    loop {
        match answering.told.recv().await? {
            Told::Runs(route, fingerprint) => answering.runs(route, fingerprint),
            told => return Some(told),
        }
    }
}

/// An answer as events, `first` being what was told already.
fn streamed(
    node: &Arc<Node>,
    answering: Answering,
    first: Option<Told>,
    n: u32,
    streaming: Streaming,
) -> Response<Outgoing> {
    let (pieces, receiver) = mpsc::channel(AHEAD);
    let patience = Duration::from_secs(u64::from(node.config.api.unread_s));
    let headers = Report::opening_headers(answering.route, &answering.generation, answering.seed);
    tokio::spawn(async move {
        let mut events = Events {
            stream: ChunkStream::new(answering.head, n, streaming.include_usage),
            first,
            told: answering.told,
            left: n,
            last: None,
        };
        for choice in 0..n {
            events.piece(choice, Piece::Begin);
        }
        loop {
            let (text, more) = tokio::select! {
                next = events.next() => next,
                // Whoever has gone wants nothing more: dropping what is told stops the work.
                () = pieces.closed() => return,
            };
            if text.is_empty() && more {
                // Nothing that has an event of its own.
                continue;
            }
            if pieces
                .send_timeout(Bytes::from(text), patience)
                .await
                .is_err()
                || !more
            {
                return;
            }
        }
    });
    let mut headers = headers;
    headers.push(("cache-control", "no-store".into()));
    // Proxies that gather events would hold up tokens.
    headers.push(("x-accel-buffering", "no".into()));
    response(
        200,
        headers::EVENT_STREAM,
        headers,
        Streamed::body(receiver),
    )
}

/// What is told, as events.
struct Events {
    stream: ChunkStream,
    /// Comes before all that `told` has.
    first: Option<Told>,
    told: mpsc::Receiver<Told>,
    /// Choices that have not ended.
    left: u32,
    /// Text that is ready.
    last: Option<String>,
}

impl Events {
    fn piece(&mut self, choice: u32, piece: Piece) {
        if let Some(chunk) = self.stream.advance(choice, piece) {
            let text = self.last.get_or_insert_default();
            text.push_str(&sse::event(&chunk));
        }
    }

    /// The next events, as many as there are, and whether there will be more.
    async fn next(&mut self) -> (String, bool) {
        if let Some(ready) = self.last.take() {
            return (ready, true);
        }
        let mut told = match self.first.take() {
            Some(first) => Some(first),
            None => match tokio::time::timeout(PING_EVERY, self.told.recv()).await {
                Ok(told) => told,
                Err(_) => return (sse::PING.to_owned(), true),
            },
        };
        let mut finished = None;
        loop {
            match told {
                Some(Told::Piece(choice, Piece::Finish(reason))) => {
                    self.left = self.left.saturating_sub(1);
                    if self.left > 0 {
                        self.piece(choice, Piece::Finish(reason));
                    } else {
                        // The report goes with the last of them.
                        finished = Some((choice, reason));
                    }
                }
                Some(Told::Piece(choice, piece)) => self.piece(choice, piece),
                // Its headers have gone out; the last event tells the route.
                Some(Told::Runs(_, fingerprint)) => self.stream.computed_by(fingerprint),
                Some(Told::End(report, usage)) => {
                    let mut text = self.last.take().unwrap_or_default();
                    if let Some((choice, reason)) = finished.take()
                        && let Some(mut chunk) = self.stream.advance(choice, Piece::Finish(reason))
                    {
                        chunk.msao = Some(*report);
                        text.push_str(&sse::event(&chunk));
                    }
                    if let Some(chunk) = self.stream.usage(usage) {
                        text.push_str(&sse::event(&chunk));
                    }
                    text.push_str(sse::DONE);
                    return (text, false);
                }
                Some(Told::Failed(error)) => {
                    let mut text = self.last.take().unwrap_or_default();
                    text.push_str(&sse::error(&error));
                    return (text, false);
                }
                None => {
                    let mut text = self.last.take().unwrap_or_default();
                    text.push_str(&sse::error(&ApiError::internal()));
                    return (text, false);
                }
            }
            if finished.is_some() {
                // The end is near, and belongs to it.
                told = self.told.recv().await;
                continue;
            }
            match self.told.try_recv() {
                Ok(next) => told = Some(next),
                Err(_) => break,
            }
        }
        (self.last.take().unwrap_or_default(), true)
    }
}

/// An answer as a whole.
async fn collected(mut answering: Answering, n: u32) -> Result<Response<Outgoing>, ApiError> {
    #[derive(Default)]
    struct One {
        text: String,
        logprobs: Option<Logprobs>,
        finish: Option<FinishReason>,
    }
    let mut answers: Vec<One> = (0..n).map(|_| One::default()).collect();
    while let Some(told) = answering.told.recv().await {
        match told {
            Told::Piece(choice, piece) => {
                let Some(answer) = answers.get_mut(choice as usize) else {
                    continue;
                };
                match piece {
                    Piece::Begin => {}
                    Piece::Text(text, logprobs) => {
                        answer.text.push_str(&text);
                        if let Some(more) = logprobs {
                            let all = answer.logprobs.get_or_insert_default();
                            all.content.extend(more.content);
                        }
                    }
                    Piece::Finish(reason) => answer.finish = Some(reason),
                }
            }
            Told::Runs(route, fingerprint) => answering.runs(route, fingerprint),
            Told::End(report, usage) => {
                let choices = (0..).zip(answers).map(|(index, answer)| {
                    let finish = answer.finish.unwrap_or(FinishReason::Stop);
                    Choice::new(index, answer.text, answer.logprobs, finish)
                });
                let headers = report.headers();
                let whole = ChatCompletion::new(answering.head, choices.collect(), usage, *report);
                return Ok(json(&whole, headers));
            }
            Told::Failed(error) => return Err(error),
        }
    }
    Err(ApiError::internal())
}
