//! One chat request, from what the client asked to the last word of the answer.
//!
//! [`answer`] lays the prompt out, has the plug-ins plan, and starts the answers; what then happens comes through
//! [`Answering::told`]. Whoever drops that has gone: the work stops, on this node and on the other, within one step.

mod ahead;
mod audit;
mod kept;
mod plan;
mod run;
mod treat;
mod trust;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use msao_api::{ApiError, ChatRequest, Head, Medium, Piece, Report, Source, Usage, completion_id};
use msao_core::chat::{Content, Message, Part};
use msao_core::offload::Route;
use msao_core::offload::record::GenerationId;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::http::Unread;
use crate::node::{Node, media_limits};
use crate::request::prepare;

/// Bytes of text that are laid out in the task of the request.
const SHORT: usize = 8 << 10;

/// What a client asked, and who it is.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request.
    pub request: ChatRequest,
    /// Its id, as the client gets it.
    pub id: String,
    /// The header `x-msao-session`.
    pub session: Option<String>,
    /// The name of the client's API key.
    pub key: Option<String>,
    /// The operator's number for the client; 0 for none.
    pub tenant: u32,
    /// When it came, on the node's clock.
    pub arrived_ms: f64,
    /// The room that its body takes, and what was fetched for it.
    pub room: Vec<Arc<OwnedSemaphorePermit>>,
}

impl Asked {
    /// When the answer must be complete, on the node's clock.
    pub fn due_ms(&self) -> Option<f64> {
        let limit_ms = self.request.deadline_ms?;
        Some(self.arrived_ms + f64::from(limit_ms))
    }

    /// What is left until then, in ms; 0 where there is no such time.
    pub fn left_ms(&self, now_ms: f64) -> f64 {
        let left = self.due_ms().map(|due_ms| due_ms - now_ms);
        left.map_or(0.0, |left_ms| left_ms.max(1.0))
    }
}

/// What happens to an answer.
#[derive(Debug)]
pub enum Told {
    /// It runs otherwise than was told before: where, and what computes it (the head's `system_fingerprint`). Comes ahead of
    /// every piece where it was planned again, and ahead of the end where something else answered in the end.
    Runs(Route, String),
    /// A piece of one of the request's answers.
    Piece(u32, Piece),
    /// All is said.
    End(Box<Report>, Usage),
    /// It went wrong on the way.
    Failed(ApiError),
}

/// An answer that has begun.
#[derive(Debug)]
pub struct Answering {
    /// What every chunk begins with.
    pub head: Head,
    /// Where it runs, as planned.
    pub route: Route,
    /// Who planned it.
    pub generation: GenerationId,
    /// The seed of the noise.
    pub seed: u64,
    /// What happens.
    pub told: mpsc::Receiver<Told>,
}

impl Answering {
    /// It runs otherwise than was told before ([`Told::Runs`]).
    pub fn runs(&mut self, route: Route, fingerprint: String) {
        self.route = route;
        self.head.system_fingerprint = fingerprint;
    }
}

/// Whether a request that comes now would find a place, so far as can be said before it is read.
///
/// # Errors
/// The node drains, or has no place.
pub fn may_enter(node: &Node) -> Result<(), ApiError> {
    if node.is_draining() {
        return Err(ApiError::draining(None));
    }
    match node.places.available_permits() {
        0 => Err(full(node)),
        _ => Ok(()),
    }
}

fn full(node: &Node) -> ApiError {
    node.tell_how_busy();
    ApiError::overloaded(node.retry_after_ms())
}

/// Begins to answer.
///
/// # Errors
/// Whatever can be said before the first word: see [`ApiError`].
pub async fn answer(node: &Arc<Node>, asked: Asked) -> Result<Answering, ApiError> {
    let limit_ms = asked.request.deadline_ms;
    let due_ms = asked.due_ms();
    tokio::select! {
        biased;
        // What was begun for it is dropped, and ends.
        () = node.clock.until(due_ms) => {
            Err(ApiError::deadline_exceeded(u64::from(limit_ms.unwrap_or(0))))
        }
        begun = begin(node, asked) => begun,
    }
}

async fn begin(node: &Arc<Node>, asked: Asked) -> Result<Answering, ApiError> {
    if node.is_draining() {
        return Err(ApiError::draining(None));
    }
    if asked.request.model != node.config.api.model {
        return Err(ApiError::model_not_found(&asked.request.model));
    }
    let place = Arc::clone(&node.places)
        .try_acquire_owned()
        .map_err(|_| full(node))?;
    node.tell_how_busy();
    let Some(model) = node.models.first().cloned() else {
        return Err(ApiError::loading(None));
    };
    let mut asked = asked;
    fetch(node, &mut asked).await?;
    let asked_for_media = !asked.request.media.is_empty();
    let limits = media_limits(&node.config.media);
    let text: usize = asked.request.messages.iter().map(text_bytes).sum();
    // A client that leaves stops what is decoded for it; until then it has its place.
    let gone = CancellationToken::new();
    let leaves = gone.clone().drop_guard();
    let span = tracing::info_span!("prepare");
    let work = move || {
        let _phase = span.entered();
        let prompt = prepare(&mut asked.request, &model, &limits, &gone);
        (asked, prompt, place)
    };
    // A short text takes less time than another thread does to begin.
    let prepared = if asked_for_media || text > SHORT {
        let decoder = Arc::clone(&node.decoders).acquire_owned().await;
        let decoder = decoder.map_err(|_| ApiError::internal())?;
        let work = move || {
            let _decoder = decoder;
            work()
        };
        tokio::task::spawn_blocking(work).await.ok()
    } else {
        catch_unwind(AssertUnwindSafe(work)).ok()
    };
    drop(leaves);
    let (asked, prompt, place) = prepared.ok_or_else(ApiError::internal)?;
    let prompt = Arc::new(prompt?);
    let id = completion_id(u128::from(random()?) << 64 | u128::from(random()?));
    let planning = plan::plan(node, asked, prompt).instrument(tracing::info_span!("plan"));
    let planned = planning.await?;
    let head = Head {
        id,
        created: (crate::clock::since_1970_ms() / 1000.0) as u64,
        model: node.config.api.model.clone(),
        system_fingerprint: planned.fingerprint.clone(),
    };
    let (route, generation, seed) = (
        planned.plan.route,
        planned.generation.clone(),
        planned.params.seed,
    );
    let told = run::start(node, planned, place);
    Ok(Answering {
        head,
        route,
        generation,
        seed,
        told,
    })
}

/// Fetches the media that a request names by URL.
async fn fetch(node: &Node, asked: &mut Asked) -> Result<(), ApiError> {
    let by_url = |medium: &Medium| matches!(medium.source, Source::Url(_));
    if !asked.request.media.iter().any(by_url) {
        return Ok(());
    }
    let fetched = node
        .fetcher
        .fetch_all(&mut asked.request.media, &node.bodies)
        .instrument(tracing::info_span!("fetch"))
        .await;
    let rooms = fetched.map_err(|error| match error {
        Unread::Refused(error) => error,
        Unread::NoRoom => ApiError::overloaded(node.retry_after_ms()),
    })?;
    asked.room.extend(rooms.into_iter().map(Arc::new));
    Ok(())
}

/// Bytes of a message's words.
fn text_bytes(message: &Message) -> usize {
    match &message.content {
        Content::Text(text) => text.len(),
        Content::Parts(parts) => {
            let words = parts.iter().filter_map(|part| match part {
                Part::Text { text } => Some(text.len()),
                _ => None,
            });
            words.sum()
        }
    }
}

fn random() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        ApiError::internal()
    })
}
