//! One connection of a peer: who it is, what it asks, when it is closed.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use msao_core::digest::Digest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::{PeerInfo, Phase, Server, heartbeat, upload};
use crate::body::{Never, Payload};
use crate::limits::{
    MAX_HEADER, MAX_PROBE_BYTES, MAX_SEND_BUFFER, PING_EVERY, PING_WITHIN, WINDOW,
};
use crate::routes::{self, refusal};
use crate::stream::{Inbound, Negotiation, Outbox, OutboxBody, Parts, Source, Stream};
use crate::wire::{Wire, WireHandle};
use crate::{explain, lock};

/// A session's request may come before the heartbeat's HELLO was looked at; it waits for that so long.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Streams that a connection may have besides its sessions: heartbeats, uploads, questions.
const OTHER_STREAMS: u32 = 64;

/// A connection over which HTTP/2 is spoken.
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    pub(super) address: SocketAddr,
    certificate: Option<Digest>,
    pub(super) wire: WireHandle,
    /// Who the peer is, once its HELLO was understood.
    pub(super) peer: watch::Sender<Option<PeerInfo>>,
    /// Bytes of all uploads.
    pub(super) uploaded: AtomicU64,
    requests: Mutex<Requests>,
}

/// Requests that are under way.
struct Requests {
    now: usize,
    /// When there was the last change; first, when the connection began.
    changed: Instant,
    /// Whether there was one at all.
    any: bool,
}

impl Connection {
    pub(super) fn new(
        server: Arc<Server>,
        address: SocketAddr,
        certificate: Option<Digest>,
        wire: WireHandle,
    ) -> Arc<Connection> {
        Arc::new(Connection {
            server,
            address,
            certificate,
            wire,
            peer: watch::Sender::new(None),
            uploaded: AtomicU64::new(0),
            requests: Mutex::new(Requests {
                now: 0,
                changed: Instant::now(),
                any: false,
            }),
        })
    }

    pub(super) async fn serve(self: Arc<Connection>, wire: Wire) {
        let streams = (self.server.config.sessions as u32).saturating_add(OTHER_STREAMS);
        let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // h2's limits against rapid resets, floods of CONTINUATION and of small DATA frames stay as they are.
        http.timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(MAX_HEADER)
            .max_concurrent_streams(streams)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .auto_date_header(false);
        let this = Arc::clone(&self);
        let service = service_fn(move |request| {
            let this = Arc::clone(&this);
            async move { Ok::<_, Never>(this.answer(request).await) }
        });
        let mut running = pin!(http.serve_connection(TokioIo::new(wire), service));
        let mut phase = self.server.phase.subscribe();
        let mut closing = false;
        loop {
            let closes = async {
                // The sender lives in the server, which this connection holds.
                let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
            };
            tokio::select! {
                ended = running.as_mut() => {
                    self.wire.ended(ended.err().map(|error| explain::words(&error)));
                    break;
                }
                () = closes, if !closing => {
                    closing = true;
                    running.as_mut().graceful_shutdown();
                }
                () = sleep_until(self.idle_at()) => {
                    if self.idle_at() <= Instant::now() {
                        self.wire.kill(self.idle_words());
                    }
                }
            }
        }
        self.farewell();
    }

    /// When the connection is to be closed for want of requests.
    fn idle_at(&self) -> Instant {
        let config = &self.server.config;
        let requests = lock(&self.requests);
        match (requests.any, requests.now) {
            (false, _) => requests.changed + config.request_within,
            (true, 0) => requests.changed + config.idle_after,
            // Looked at again; whether the peer is there, heartbeats and HTTP/2's pings find out.
            (true, _) => Instant::now() + config.idle_after,
        }
    }

    fn idle_words(&self) -> String {
        let config = &self.server.config;
        if lock(&self.requests).any {
            format!("closed: no request for {} s", config.idle_after.as_secs())
        } else {
            format!(
                "closed: no request within {} s",
                config.request_within.as_secs()
            )
        }
    }

    fn farewell(&self) {
        let why = self.wire.why().unwrap_or_default();
        match &*self.peer.borrow() {
            Some(peer) => {
                tracing::info!(peer = %peer.name, address = %self.address, why, "a node's connection has ended")
            }
            None if lock(&self.requests).any => {
                tracing::debug!(address = %self.address, why, "a node's connection for media has ended");
            }
            None => self.server.complain(self.address, &why),
        }
    }

    async fn answer(self: Arc<Connection>, request: Request<Incoming>) -> Response<Payload> {
        let _under_way = UnderWay::begin(&self);
        let path = request.uri().path();
        if let Some(digest) = path.strip_prefix(routes::MEDIA) {
            let Ok(digest) = digest.parse::<Digest>() else {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    refusal::REQUEST,
                    "the path names no digest",
                );
            };
            return match *request.method() {
                Method::HEAD => self.has(digest),
                Method::PUT => upload::medium(&self, digest, request).await,
                _ => wrong_method(),
            };
        }
        match (request.method(), path) {
            (&Method::POST, routes::HEARTBEAT) => heartbeat::answer(&self, request),
            (&Method::POST, routes::SESSION) => self.session(request).await,
            (&Method::PUT, routes::PROBE) => upload::probe(&self, request).await,
            (&Method::GET, _) if path.starts_with(routes::PROBE) => noise(path),
            (_, routes::HEARTBEAT | routes::SESSION | routes::PROBE) => wrong_method(),
            _ => refuse(
                StatusCode::NOT_FOUND,
                refusal::REQUEST,
                "a node has no such path",
            ),
        }
    }

    fn has(&self, digest: Digest) -> Response<Payload> {
        let mut answer = Response::new(Payload::Empty);
        match self.server.config.media.size(digest) {
            Some(bytes) => {
                answer.headers_mut().insert(CONTENT_LENGTH, bytes.into());
            }
            None => *answer.status_mut() = StatusCode::NOT_FOUND,
        }
        answer
    }

    async fn session(self: &Arc<Connection>, request: Request<Incoming>) -> Response<Payload> {
        let mut peers = self.peer.subscribe();
        let peer = timeout(HELLO_WITHIN, peers.wait_for(Option::is_some)).await;
        let Some(peer) = peer.ok().and_then(Result::ok).and_then(|peer| peer.clone()) else {
            return refuse(
                StatusCode::PRECONDITION_REQUIRED,
                refusal::HELLO,
                "no version was agreed on: a connection for sessions begins with HELLO on the heartbeat's stream",
            );
        };
        if *self.server.phase.borrow() != Phase::Serving {
            return refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                refusal::DRAINING,
                "the node is draining and takes no new sessions",
            );
        }
        let Ok(place) = Arc::clone(&self.server.places).try_acquire_owned() else {
            let mut answer = refuse(
                StatusCode::SERVICE_UNAVAILABLE,
                refusal::OVERLOADED,
                "as many sessions as allowed are running",
            );
            // A session lasts seconds, and many end in one.
            let again = HeaderValue::from_static("1000");
            answer.headers_mut().insert(routes::RETRY_AFTER_MS, again);
            return answer;
        };
        let version = peer.agreement.version;
        let (stream, answer) = self.stream(
            request.into_body(),
            Negotiation::Agreed(version),
            Some(Box::new((place, UnderWay::begin(self)))),
        );
        self.server.handler.session(stream, peer);
        answer
    }

    /// A stream of frames: what came is read, and what is sent is the answer.
    pub(super) fn stream(
        &self,
        body: Incoming,
        negotiation: Negotiation,
        place: Option<Box<dyn Send + Sync>>,
    ) -> (Stream, Response<Payload>) {
        let outbox = Arc::new(Outbox::default());
        let stream = Stream::start(Parts {
            outbox: Arc::clone(&outbox),
            inbound: Inbound {
                source: Source::Body(body),
                negotiation,
                wire: self.wire.clone(),
                received: Arc::default(),
                news: None,
            },
            place,
        });
        let mut answer = Response::new(Payload::Frames(OutboxBody(outbox)));
        let frames = HeaderValue::from_static(routes::FRAMES);
        answer.headers_mut().insert(CONTENT_TYPE, frames);
        (stream, answer)
    }

    /// Who this is, from what it says.
    pub(super) fn certificate(&self) -> Option<Digest> {
        self.certificate
    }
}

/// A request that is under way; a session's is so until its stream is dropped.
pub(super) struct UnderWay(Arc<Connection>);

impl UnderWay {
    pub(super) fn begin(connection: &Arc<Connection>) -> UnderWay {
        let mut requests = lock(&connection.requests);
        requests.now += 1;
        requests.any = true;
        drop(requests);
        UnderWay(Arc::clone(connection))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut requests = lock(&self.0.requests);
        requests.now = requests.now.saturating_sub(1);
        requests.changed = Instant::now();
    }
}

/// Bytes of no meaning, as many as the path says.
fn noise(path: &str) -> Response<Payload> {
    let bytes = path
        .strip_prefix(routes::PROBE)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|bytes| bytes.parse().ok());
    match bytes {
        Some(left @ 0..=MAX_PROBE_BYTES) => Response::new(Payload::Noise { left }),
        _ => refuse(
            StatusCode::BAD_REQUEST,
            refusal::REQUEST,
            "a probe has 0 to 8388608 bytes",
        ),
    }
}

fn wrong_method() -> Response<Payload> {
    refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        refusal::REQUEST,
        "the path has no such method",
    )
}

/// An answer that refuses, by a name for programs and in words for people.
pub(super) fn refuse(
    status: StatusCode,
    name: &'static str,
    words: impl Into<String>,
) -> Response<Payload> {
    let mut answer = Response::new(Payload::text(words));
    *answer.status_mut() = status;
    let name = HeaderValue::from_static(name);
    answer.headers_mut().insert(routes::ERROR, name);
    answer
}

/// Counts bytes of an upload among all of the connection's.
pub(super) fn count(connection: &Connection, bytes: usize) -> u64 {
    let before = connection
        .uploaded
        .fetch_add(bytes as u64, Ordering::Relaxed);
    before + bytes as u64
}
