//! The side that connects: one [`Peer`] for each cloud node.

mod answer;
mod bulk;
mod config;
mod estimates;
mod keeper;
mod known;
mod line;
mod media;
mod probe;
mod status;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use hyper::Method;
use hyper::header::HeaderValue;
use msao_core::digest::Digest;
use msao_core::offload::Node;
use msao_link::estimate::{Bandwidth, LinkSpread};
use tokio::sync::{OnceCell, watch};

pub use self::config::{PeerConfig, PeerError};
pub use self::media::Uploaded;
pub use self::status::Status;

use self::config::Target;
use self::estimates::Estimates;
use self::known::Known;
use self::line::Line;
use crate::body::Payload;
use crate::error::TransportError;
use crate::stream::{Inbound, Negotiation, Outbox, OutboxBody, Parts, Source, Stream};
use crate::{Local, lock, routes};

/// A node that sessions can be had of. Clones are the same one; with the last its connections end.
#[derive(Clone)]
pub struct Peer {
    inner: Arc<Inner>,
    /// The tasks end when nobody holds this any more.
    _life: Arc<watch::Sender<()>>,
}

struct Inner {
    config: PeerConfig,
    target: Target,
    local: Arc<dyn Local>,
    estimates: Arc<Estimates>,
    status: watch::Sender<Status>,
    /// The connection for sessions, and the version agreed on it.
    sessions: watch::Sender<Option<(Line, u8)>>,
    /// The connection for media.
    bulk: watch::Sender<Option<Line>>,
    known: Mutex<Known>,
    /// Uploads under way, for whoever wants the same.
    flights: Mutex<HashMap<Digest, Weak<OnceCell<()>>>>,
    /// Which run of the peer's program was seen last.
    instance: Mutex<Option<String>>,
    /// Numbers what is planned.
    plans: AtomicU64,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.inner.config.name)
            .field("status", &*self.inner.status.borrow())
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// Begins to connect, and goes on as long as a clone of this is there. Needs a runtime.
    ///
    /// # Errors
    /// A value that may not be, for instance another machine's address without TLS.
    pub fn start(mut config: PeerConfig, local: Arc<dyn Local>) -> Result<Peer, PeerError> {
        let target = config.check()?;
        let inner = Arc::new(Inner {
            estimates: Arc::new(Estimates::new(&config.estimates)),
            config,
            target,
            local,
            status: watch::Sender::new(Status::first()),
            sessions: watch::Sender::new(None),
            bulk: watch::Sender::new(None),
            known: Mutex::default(),
            flights: Mutex::default(),
            instance: Mutex::default(),
            plans: AtomicU64::new(0),
        });
        let (life, over) = watch::channel(());
        tokio::spawn(keeper::keep(Arc::clone(&inner), over));
        Ok(Peer {
            inner,
            _life: Arc::new(life),
        })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    /// How it is.
    pub fn status(&self) -> Status {
        self.inner.status.borrow().clone()
    }

    /// How it is, and every change of that.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.inner.status.subscribe()
    }

    /// Opens a session's stream. It can be sent to at once; what the peer thinks of it comes with the first frame: a
    /// peer that takes no more sessions makes [`Stream::recv`] fail with [`TransportError::Refused`].
    ///
    /// # Errors
    /// [`TransportError::Down`], or [`TransportError::Refused`] with `Draining`, where that is known already.
    pub fn open(&self) -> Result<Stream, TransportError> {
        let inner = &self.inner;
        let refused = || inner.status.borrow().error(&inner.config.name);
        if !inner.status.borrow().up {
            return Err(refused());
        }
        let Some((line, version)) = inner.sessions.borrow().clone() else {
            return Err(refused());
        };
        if let Some(why) = line.over() {
            return Err(TransportError::Down {
                peer: inner.config.name.clone(),
                why,
            });
        }
        Ok(inner.stream(&line, routes::SESSION, &[], Negotiation::Agreed(version)))
    }

    /// Writes what is known into the peer's row, for policies to see: `up`, the link's estimates, the peer's own figures,
    /// and what was planned onto it. `can`, `price_per_mtok`, `cached_bytes` and `confidence_floor` stay as they are.
    pub fn fill(&self, node: &mut Node) {
        self.inner.estimates.fill(node);
        node.up = self.inner.status.borrow().up;
    }

    /// What of the link is to be known after a restart of this node.
    pub fn bandwidth(&self) -> Bandwidth {
        self.inner.estimates.bandwidth()
    }

    /// Takes for granted what [`Peer::bandwidth`] said before a restart, until transfers show what it is now.
    pub fn remember(&self, before: Bandwidth) {
        self.inner.estimates.remember(before);
    }

    /// How far what is known of the link and of the peer's queue wanders.
    pub fn spread(&self) -> LinkSpread {
        self.inner.estimates.spread()
    }

    /// Notes that about `work_ms` of work are going to be sent there, until the result is dropped: when the work has
    /// begun, ran elsewhere or is gone.
    pub fn plan(&self, work_ms: f64) -> Planned {
        let request = self.inner.plans.fetch_add(1, Ordering::Relaxed);
        self.inner.estimates.plan(request, work_ms);
        Planned {
            estimates: Arc::clone(&self.inner.estimates),
            request,
        }
    }
}

impl Inner {
    /// A stream of frames, asked for at `path`.
    fn stream(
        self: &Arc<Inner>,
        line: &Line,
        path: &'static str,
        headers: &[(&'static str, HeaderValue)],
        negotiation: Negotiation,
    ) -> Stream {
        let outbox = Arc::new(Outbox::default());
        let mut all = vec![(CONTENT_TYPE_NAME, HeaderValue::from_static(routes::FRAMES))];
        all.extend_from_slice(headers);
        let body = Payload::Frames(OutboxBody(Arc::clone(&outbox)));
        let asked = line.ask(Method::POST, path, &all, body);
        // A task that reads must not keep the peer's connections alive.
        let inner = Arc::downgrade(self);
        let answer = async move {
            let answer = answer::checked(asked.await?, path).await?;
            if let (Some(inner), Some(instance)) = (
                inner.upgrade(),
                routes::text(answer.headers(), routes::INSTANCE),
            ) {
                inner.saw_instance(instance);
            }
            Ok(answer.into_body())
        };
        let estimates = Arc::clone(&self.estimates);
        Stream::start(Parts {
            outbox,
            inbound: Inbound {
                source: Source::Answer(Box::pin(answer)),
                negotiation,
                wire: line.wire.clone(),
                received: Arc::default(),
                news: Some(Arc::new(move || estimates.news())),
            },
            place: None,
        })
    }

    /// Another run of the peer's program has none of what the last one had.
    fn saw_instance(&self, instance: &str) {
        let mut seen = lock(&self.instance);
        if seen.as_deref() != Some(instance) {
            *seen = Some(instance.to_owned());
            drop(seen);
            lock(&self.known).clear();
        }
    }
}

const CONTENT_TYPE_NAME: &str = "content-type";

/// Work that was planned onto a peer. Dropped when it has begun, ran elsewhere or is gone.
#[must_use = "the work counts as planned only as long as this is held"]
pub struct Planned {
    estimates: Arc<Estimates>,
    request: u64,
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Planned")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

impl Drop for Planned {
    fn drop(&mut self) {
        self.estimates.settle(self.request);
    }
}
