//! Sessions that others have opened on this node's target: edge nodes over a link, and this node's own requests.

mod account;
mod attached;
mod pair;
mod session;
mod words;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use msao_core::digest::Digest;
use msao_link::estimate::{Figures, Speeds, UNKNOWN};
use msao_session::depth::PassTimes;
use msao_session::frame::{Frame, Open, Refused, RefusedCode, SessionId, Wanted};
use tokio::sync::{Semaphore, watch};
use tracing::Instrument as _;

use self::attached::{Attach, Attached, Newest};
use crate::answer::{Channel, Connecting, NoWay, Target, Traffic};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::models::Model;
use crate::request::Cargo;

/// A stream that says nothing for so long has nothing to say.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// What sessions are held with.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// Sessions at once.
    pub most: usize,
    /// How long a lost session's cache is kept, in ms.
    pub lease_ms: f64,
    /// What a medium may be.
    pub media: msao_media::Limits,
    /// Who may decode media: those of all sessions at once would take more memory than there is.
    pub decoders: Arc<Semaphore>,
}

/// Gives the bytes of a medium by digest.
pub type Media = Arc<dyn Fn(&Digest) -> Option<Bytes> + Send + Sync>;

/// All sessions on the target.
pub struct Sessions {
    target: Model,
    /// For sessions that want both models.
    draft: Option<Model>,
    limits: SessionLimits,
    media: Media,
    clock: Clock,
    live: Mutex<HashMap<SessionId, Arc<Newest>>>,
    count: AtomicU32,
    draining: AtomicBool,
    /// Sessions that the target works for.
    busy: watch::Sender<usize>,
    speeds: Arc<Mutex<Speeds>>,
    /// How long the target's passes take for a session.
    times: Mutex<PassTimes>,
    metrics: Metrics,
}

impl Sessions {
    /// None yet. `speeds`: what is known of the target's speed.
    pub fn new(
        target: Model,
        draft: Option<Model>,
        limits: SessionLimits,
        media: Media,
        clock: Clock,
        metrics: Metrics,
        speeds: Arc<Mutex<Speeds>>,
    ) -> Arc<Sessions> {
        Arc::new(Sessions {
            target,
            draft,
            limits,
            media,
            clock,
            live: Mutex::default(),
            count: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            busy: watch::Sender::new(0),
            speeds,
            times: Mutex::default(),
            metrics,
        })
    }

    /// Serves whatever comes on a stream from another node.
    pub fn accept(self: &Arc<Self>, channel: Channel) {
        tokio::spawn(Arc::clone(self).serve(channel, None));
    }

    /// Whether new sessions are refused; those that are there go on either way.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Sessions that are there.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed) as usize
    }

    /// How fast the target is and how long new work waits.
    pub fn figures(&self) -> Figures {
        let oldest_ms = self.target.waits.oldest_ms();
        let kv_free = self.target.kv_free();
        let figures = self
            .speeds()
            .figures(self.clock.now_ms(), oldest_ms, kv_free);
        Figures {
            planned_ms: self.target.waits.planned_ms(figures.prefill_tok_per_s),
            ..figures
        }
    }

    /// What was learned of this node's speed.
    pub fn speeds(&self) -> MutexGuard<'_, Speeds> {
        self.speeds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn times(&self) -> MutexGuard<'_, PassTimes> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self) -> MutexGuard<'_, HashMap<SessionId, Arc<Newest>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a stream. `known`: what a request of this node sends, whose bytes need not be uploaded.
    async fn serve(self: Arc<Self>, mut channel: Channel, known: Option<Arc<Cargo>>) {
        let first = tokio::time::timeout(FIRST_FRAME, channel.recv()).await;
        let Ok(Some(Frame::Open(open))) = first else {
            return;
        };
        let id = open.session;
        let newest = Arc::<Newest>::default();
        let (channel, open) = {
            let mut live = self.live();
            let attach = Attach { channel, open };
            let left = match live.get(&id) {
                Some(there) => there.put(attach),
                None => Err(attach),
            };
            match left {
                Ok(()) => return,
                // It is not there, or has just ended and begins anew.
                Err(Attach { channel, open }) => {
                    live.insert(id, Arc::clone(&newest));
                    (channel, open)
                }
            }
        };
        let served = match self.let_in(&open) {
            Ok(()) => {
                self.count.fetch_add(1, Ordering::Relaxed);
                let request = open.request.clone().unwrap_or_default();
                let span = tracing::info_span!("session", id = %id, request);
                let attached = Attached(Arc::clone(&newest));
                let running = Arc::clone(&self).run(*open, channel, attached, known);
                running.instrument(span).await;
                self.count.fetch_sub(1, Ordering::Relaxed);
                Ok(())
            }
            Err(refused) => Err((channel, refused)),
        };
        {
            let mut live = self.live();
            let own = live.get(&id);
            if own.is_some_and(|there| Arc::ptr_eq(there, &newest)) {
                live.remove(&id);
            }
        }
        if let Err((mut channel, (code, retry_after_ms, message))) = served {
            channel.send(Frame::Refused(Refused {
                session: id,
                code,
                retry_after_ms,
                message,
            }));
        }
    }

    fn let_in(&self, open: &Open) -> Result<(), (RefusedCode, f64, String)> {
        if self.draining.load(Ordering::Relaxed) {
            let why = "the node takes no new sessions".to_owned();
            return Err((RefusedCode::Draining, 0.0, why));
        }
        if self.count() >= self.limits.most {
            let why = format!("{} sessions are there (sessions.most)", self.limits.most);
            return Err((RefusedCode::Overloaded, self.retry_after_ms(), why));
        }
        let own = self.target.identity.tokenizer;
        let foreign = open.tokenizer.is_some_and(|other| other != own);
        if foreign && open.wanted == Wanted::Verify {
            let why = "the target has another tokenizer than who drafts".to_owned();
            return Err((RefusedCode::Tokenizer, 0.0, why));
        }
        if open.target_input != open.prompt.digest() {
            let why = "the prompt has another digest than target_input".to_owned();
            return Err((RefusedCode::TargetInput, 0.0, why));
        }
        Ok(())
    }

    /// After so long it is worth trying again.
    fn retry_after_ms(&self) -> f64 {
        self.figures().queue_ms.max(100.0)
    }
}

/// This node's own target, for its own requests.
pub struct Here(pub Arc<Sessions>);

impl Target for Here {
    fn connect(&self, _patient: bool, cargo: &Arc<Cargo>, _traffic: &Arc<Traffic>) -> Connecting {
        let (sessions, cargo) = (Arc::clone(&self.0), Arc::clone(cargo));
        Box::pin(async move {
            cargo.sent().await.map_err(NoWay::unmade)?;
            let (own, other) = Channel::pair();
            tokio::spawn(sessions.serve(other, Some(cargo)));
            Ok(own)
        })
    }

    fn forget(&self, _cargo: &Cargo) {}

    fn figures(&self) -> (f64, f64) {
        let queue_ms = self.0.figures().queue_ms;
        (0.0, if queue_ms >= 0.0 { queue_ms } else { UNKNOWN })
    }

    fn is_there(&self) -> bool {
        true
    }
}
