//! A node: models, plug-ins, sessions, and what is counted.

use std::cmp::Reverse;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use msao_adapt::acceptance::Mix;
use msao_core::offload::{self, Route};
use msao_engine::NearDuplicates;
use msao_link::estimate::{EstimateConfig, Figures, Speeds};
use msao_registry::sandbox::{Sandbox, SandboxConfig, SandboxError};
use msao_registry::state::{
    CalibrationStore, RecordError, RecordRing, SledStorage, Storage, StorageError,
};
use msao_registry::{OpenError, Options, Plugins, Site};
use msao_session::frame::Identity;
use msao_transport::Status;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};

use crate::access::Access;
use crate::adapt::{self, Adapt, Pair};
use crate::answer::{Target, Way};
use crate::clock::{Clock, since_1970_ms};
use crate::cloud::{Here, Media, SessionLimits, Sessions};
use crate::config::{self, NodeConfig};
use crate::metrics::Metrics;
use crate::models::{Model, ModelError};
use crate::peers::{Ahead, Remote};
use crate::request::fetch::{Fetcher, FetcherError};
use crate::request::{self, Prompt};

/// Why a node does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The database of what was learned.
    #[error("node.state: {0}")]
    Storage(#[from] StorageError),
    /// The decision records.
    #[error("records: {0}")]
    Records(#[from] RecordError),
    /// The sandbox.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The plug-ins.
    #[error(transparent)]
    Plugins(#[from] OpenError),
    /// Media that are named by URL.
    #[error(transparent)]
    Fetcher(#[from] FetcherError),
    /// A listener.
    #[error(
        "{key}: cannot listen on {address}: {error}; name another address, or stop who listens there"
    )]
    Listen {
        /// The key.
        key: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The log of what operators change.
    #[error("node.state: {0}")]
    Audit(std::io::Error),
    /// A peer.
    #[error(transparent)]
    Peer(msao_transport::PeerError),
    /// The link under a peer's connections.
    #[error("peers.shape: {0}")]
    Link(msao_link::shaper::LinkError),
    /// The certificate between nodes.
    #[error("sessions.tls: {0}")]
    Identity(msao_transport::TlsError),
    /// A certificate or a key.
    #[error("{key}: {path}: {problem}", path = path.display())]
    Tls {
        /// The key.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Something stopped while the node was starting.
    #[error("the start was interrupted")]
    Interrupted,
}

/// The models that are here.
#[derive(Clone, Default)]
pub struct Models {
    /// The small one.
    pub draft: Option<Model>,
    /// The large one.
    pub target: Option<Model>,
}

impl Models {
    /// Which model computes nothing any more, if one does not.
    pub fn lost(&self) -> Option<&'static str> {
        let ended = |model: &Option<Model>| {
            let model = model.as_ref();
            model.is_some_and(|model| model.engine.load().ended)
        };
        [("draft", &self.draft), ("target", &self.target)]
            .into_iter()
            .find_map(|(role, model)| ended(model).then_some(role))
    }

    /// Whether ids mean the same to both, where there are both.
    pub fn are_alike(&self) -> bool {
        match (&self.draft, &self.target) {
            (Some(draft), Some(target)) => draft.identity.tokenizer == target.identity.tokenizer,
            _ => true,
        }
    }

    /// What lays prompts out on this node: the draft, which looks at them first, or else the target.
    pub fn first(&self) -> Option<&Model> {
        self.draft.as_ref().or(self.target.as_ref())
    }

    /// Loads what the configuration names.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn load(config: &NodeConfig) -> Result<Models, ModelError> {
        let mut models = Models::default();
        let fps = config.media.fps;
        let levels = config.probe.near_duplicates;
        let near = (levels > 0.0).then(|| NearDuplicates::within(levels as f32));
        for (role, section, place) in [
            ("draft", &config.models.draft, &mut models.draft),
            ("target", &config.models.target, &mut models.target),
        ] {
            if let Some(section) = section {
                tracing::info!(role, path = %section.path.display(), "loading a model");
                // What the target sees is never less than what was sent.
                let near = near.filter(|_| role == "draft");
                let model = Model::load(role, section, fps, near).await?;
                let load = model.engine.load();
                let (kernels, graphs) = (load.kernels, load.graphs);
                tracing::info!(role, kernels, graphs, "the model is there");
                *place = Some(model);
            }
        }
        Ok(models)
    }
}

/// Whether a node takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// It does.
    Open,
    /// It does not, until an operator says so.
    Closed,
    /// It does not, and never will again: the process stops.
    Stopping,
}

/// The process stops, so that the node takes requests no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the node is being stopped, and takes no requests again: start it anew")]
pub struct Stops;

/// Everything that a node is.
pub struct Node {
    /// What it was told.
    pub config: NodeConfig,
    /// Who may ask, as was told last.
    pub access: ArcSwap<Access>,
    /// Its models.
    pub models: Models,
    /// Its plug-ins.
    pub plugins: Plugins,
    /// Decisions that are kept.
    pub records: Arc<RecordRing>,
    /// What plug-ins have learned.
    pub calibration: Arc<CalibrationStore>,
    /// What it has learned itself of its drafts.
    pub adapt: Adapt,
    /// Sessions on its target; none without one.
    pub sessions: Option<Arc<Sessions>>,
    /// Other nodes that have the target.
    pub peers: Vec<Arc<Remote>>,
    /// Its clock.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// When it came up, in seconds since 1970.
    pub started_s: u64,
    /// Requests that may be under way.
    pub places: Arc<Semaphore>,
    /// Bytes that the bodies of requests under way may still have.
    pub bodies: Arc<Semaphore>,
    /// Fetches media that are named by URL.
    pub fetcher: Arc<Fetcher>,
    /// Who may decode media.
    pub decoders: Arc<Semaphore>,
    door: Mutex<Door>,
    /// Whether it takes no more requests, for whoever waits for a change of that. Follows `door`.
    draining: watch::Sender<bool>,
    /// How long requests take, in ms.
    request_ms: Mutex<f64>,
    /// The draft model's speed.
    speeds: Arc<Mutex<Speeds>>,
    next: AtomicU64,
}

/// How plug-ins are run. What is compiled of them is kept with the rest of the node's state, unless the operator names another
/// place: exchanging a policy would else take all of a core for as long as compiling takes, and every request waits for that.
fn compiling(config: &NodeConfig) -> SandboxConfig {
    let mut sandbox = config.sandbox.clone();
    let kept = || config.node.state.join("compiled");
    sandbox.cache.get_or_insert_with(kept);
    sandbox
}

impl Node {
    /// Brings a node up on models that are loaded. `media` gives what other nodes have uploaded; `peers` are connected to;
    /// `fetcher` fetches media for clients.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(
        config: NodeConfig,
        models: Models,
        media: Media,
        peers: Vec<Arc<Remote>>,
        fetcher: Fetcher,
    ) -> Result<Arc<Node>, StartError> {
        let state = config.node.state.clone();
        let records_config = config.records.clone();
        let (confident, metrics) = (config.confident.clone(), Metrics::default());
        let checkpoint_every = Duration::from_millis(u64::from(config.calibration.checkpoint_ms));
        let new_speeds = || Arc::new(Mutex::new(Speeds::new(&EstimateConfig::default())));
        let (speeds, target_speeds) = (new_speeds(), new_speeds());
        let watch = |role: &str, model: &Option<Model>, speeds: &Arc<Mutex<Speeds>>| {
            let model = model.as_ref()?;
            let model = format!("{role} {} {}", model.identity.model, model.held);
            let speeds = Arc::clone(speeds);
            Some(adapt::Watched { model, speeds })
        };
        let watched = [
            watch("draft", &models.draft, &speeds),
            watch("target", &models.target, &target_speeds),
        ];
        let watched: Vec<adapt::Watched> = watched.into_iter().flatten().collect();
        let links = (peers.iter())
            .map(|peer| Arc::clone(peer) as Arc<dyn adapt::WatchedLink>)
            .collect();
        let counted = metrics.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<_, StartError> {
            let opened = SledStorage::open(&state.join("learned"))?;
            if let Some(aside) = &opened.set_aside {
                tracing::warn!(
                    ?aside,
                    "what was learned could not be read and was set aside"
                );
            }
            let storage: Arc<dyn Storage> = Arc::new(opened.storage);
            let kept = CalibrationStore::open_every(Arc::clone(&storage), checkpoint_every)?;
            let adapt = Adapt::start(adapt::Options {
                storage: Arc::clone(&storage),
                confident,
                checkpoint_every,
                watched,
                links,
                metrics: counted,
            })?;
            let records = Arc::new(RecordRing::open(storage, records_config)?);
            Ok((Arc::new(kept), adapt, records))
        });
        let (calibration, adapt, records) = opened.await.map_err(|_| StartError::Interrupted)??;
        let name = |model: &Option<Model>| {
            let model = model.as_ref();
            model.map_or_else(|| "none".into(), |it| it.identity.model.short())
        };
        let options = Options {
            folder: config.node.state.join("plugins"),
            config: config.policy.clone(),
            loader: Arc::new(Sandbox::new(&compiling(&config))?),
            calibration: Arc::clone(&calibration),
            records: Some(Arc::clone(&records)),
            site: Site {
                models: format!("{}/{}", name(&models.draft), name(&models.target)),
                node: config.node.name.clone(),
            },
        };
        let opened = tokio::task::spawn_blocking(move || Plugins::open(options));
        let opened = opened.await.map_err(|_| StartError::Interrupted)??;
        for warning in &opened.warnings {
            tracing::warn!("{warning}");
        }
        let clock = Clock::default();
        let decoding = Arc::new(Semaphore::new(decoders(&config.media)));
        let limits = SessionLimits {
            most: config.sessions.most as usize,
            lease_ms: f64::from(config.sessions.lease_ms),
            media: media_limits(&config.media),
            decoders: Arc::clone(&decoding),
        };
        let counted = metrics.clone();
        // Nobody else has had the plug-ins so far.
        let _first = opened
            .plugins
            .watch_calls(Box::new(move |export, took, failure| {
                counted.called(export.name(), took, failure);
            }));
        let sessions = models.target.clone().map(|target| {
            let (draft, metrics) = (models.draft.clone(), metrics.clone());
            Sessions::new(target, draft, limits, media, clock, metrics, target_speeds)
        });
        Ok(Arc::new(Node {
            places: Arc::new(Semaphore::new(config.api.requests as usize)),
            access: ArcSwap::from_pointee(Access::of(&config)),
            bodies: Arc::new(Semaphore::new((config.api.bodies_mib as usize) << 20)),
            fetcher: Arc::new(fetcher),
            decoders: decoding,
            config,
            models,
            plugins: opened.plugins,
            records,
            calibration,
            adapt,
            sessions,
            peers,
            clock,
            metrics,
            started_s: (since_1970_ms() / 1000.0) as u64,
            door: Mutex::new(Door::Open),
            draining: watch::Sender::new(false),
            request_ms: Mutex::new(0.0),
            speeds,
            next: AtomicU64::new(0),
        }))
    }

    /// Takes no more requests; those under way go on. Peers are told. [`Node::undrain`] undoes it.
    pub fn drain(&self) {
        self.turn(|door| match door {
            Door::Open => Door::Closed,
            other => other,
        });
    }

    /// Takes requests again. Peers are told.
    ///
    /// # Errors
    /// [`Stops`]: too late.
    pub fn undrain(&self) -> Result<(), Stops> {
        let now = self.turn(|door| match door {
            Door::Closed => Door::Open,
            other => other,
        });
        match now {
            Door::Stopping => Err(Stops),
            Door::Open | Door::Closed => Ok(()),
        }
    }

    /// Takes no more requests for good, because the process stops; those under way go on.
    pub fn stop(&self) {
        self.turn(|_| Door::Stopping);
    }

    /// Opens or closes the door, in one go with all that follows it.
    fn turn(&self, next: impl FnOnce(Door) -> Door) -> Door {
        let mut door = lock(&self.door);
        *door = next(*door);
        let draining = *door != Door::Open;
        if let Some(sessions) = &self.sessions {
            sessions.set_draining(draining);
        }
        self.draining
            .send_if_modified(|was| std::mem::replace(was, draining) != draining);
        *door
    }

    /// Whether it takes no more requests.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// The same, and every change of it.
    pub fn watch_draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Requests under way.
    pub fn under_way(&self) -> usize {
        (self.config.api.requests as usize).saturating_sub(self.places.available_permits())
    }

    /// Whether requests are short of places or of the models: three quarters of the places are taken by others than the one
    /// that asks, or a prompt waits for a model.
    fn is_short(&self) -> bool {
        let others = self.under_way().saturating_sub(1);
        let crowded = 4 * others >= 3 * self.config.api.requests as usize;
        let models = [&self.models.draft, &self.models.target];
        let waits = |model: &Model| model.engine.load().waiting > 0;
        crowded || models.into_iter().flatten().any(waits)
    }

    /// Tells the plug-ins how busy the node is: the shadow, for which nobody waits, gives way first.
    pub fn tell_how_busy(&self) {
        self.plugins.set_busy(self.is_short());
    }

    /// When a place is likely to be free, in ms: requests end one after the other, evenly.
    pub fn retry_after_ms(&self) -> u64 {
        let took_ms = *lock(&self.request_ms);
        let apart_ms = took_ms / self.under_way().max(1) as f64;
        apart_ms.clamp(100.0, 60_000.0) as u64
    }

    /// A request has taken so long.
    pub fn took(&self, ms: f64) {
        let mut mean = lock(&self.request_ms);
        *mean = if *mean == 0.0 {
            ms
        } else {
            *mean + 0.1 * (ms - *mean)
        };
    }

    /// What was learned of the draft model's speed.
    pub fn speeds(&self) -> MutexGuard<'_, Speeds> {
        lock(&self.speeds)
    }

    /// How fast this node is and how long new work waits, by all its models.
    pub fn figures(&self) -> Figures {
        let own = self.models.draft.as_ref().map(|draft| {
            let oldest_ms = draft.waits.oldest_ms();
            let figures = self
                .speeds()
                .figures(self.clock.now_ms(), oldest_ms, draft.kv_free());
            Figures {
                planned_ms: draft.waits.planned_ms(figures.prefill_tok_per_s),
                ..figures
            }
        });
        let target = self.sessions.as_ref().map(|sessions| sessions.figures());
        match (own, target) {
            // A draft model that has answered nobody here may have drafted beside the target.
            (Some(own), Some(target)) if own.draft_tok_per_s > 0.0 => Figures {
                draft_tok_per_s: own.draft_tok_per_s,
                ..target
            },
            (_, Some(target)) => target,
            (own, None) => own.unwrap_or(Figures::UNKNOWN),
        }
    }

    /// What policies see of the nodes, for a request of this temperature: this one, then each peer.
    pub fn rows(&self, prompt: &Prompt, temperature: f64) -> Vec<offload::Node> {
        let own = request::this_node(&self.models, self.figures());
        let peers = self.peers.iter().map(|peer| peer.row(prompt));
        let all = [own].into_iter().chain(peers).enumerate();
        let mix: Mix = prompt.media.iter().map(|medium| medium.modality).collect();
        let text_alone = prompt.media.is_empty();
        all.map(|(number, mut row)| {
            if let Some(pair) = self.pair(number) {
                let (floor, accepted) = self.adapt.row(&pair, mix, temperature, text_alone);
                row.confidence_floor = floor;
                row.acceptance = accepted.unwrap_or(row.acceptance);
            }
            request::known(row)
        })
        .collect()
    }

    /// This node's draft model and the target in a row, where the one can draft for the other.
    pub fn pair(&self, row: usize) -> Option<Pair> {
        let draft = self.models.draft.as_ref()?;
        let target = self.target_identity(row)?;
        (draft.identity.tokenizer == target.tokenizer).then(|| Pair {
            draft: draft.identity.model,
            target: target.model,
            held: draft.held.clone(),
        })
    }

    /// All pairs of models that it serves, so far as its peers have said what they have.
    pub fn pairs(&self) -> Vec<Pair> {
        let mut pairs: Vec<Pair> = (0..=self.peers.len())
            .filter_map(|row| self.pair(row))
            .collect();
        pairs.sort();
        pairs.dedup();
        pairs
    }

    /// Who has the target, for a plan that names this row, and in which row that is. A plan that needs none may still come
    /// to need it: an answer that is escalated goes to whoever is there and reads the same ids, and to nobody else if media
    /// are not to leave.
    pub fn target(&self, row: usize, route: Route, media_stay: bool) -> Option<Way> {
        let here = || {
            let sessions = self.sessions.as_ref()?;
            let target = Arc::new(Here(Arc::clone(sessions)));
            Some(Way { row: 0, target })
        };
        let remote = |peer: usize| {
            let target = Arc::clone(self.peers.get(peer)?);
            let row = peer + 1;
            Some(Way { row, target })
        };
        match (route, row.checked_sub(1)) {
            (Route::Edge, _) => here().filter(|_| self.models.are_alike()).or_else(|| {
                let all = self.peers.iter().enumerate().filter(|_| !media_stay);
                let status = all.map(|(peer, remote)| (peer, remote.peer().status()));
                let fits = |status: &Status| status.agreement.is_some_and(|agreed| agreed.drafts);
                let fitting = status.filter(|(_, status)| fits(status));
                // One that is up before one that may come back.
                let best = fitting.max_by_key(|(peer, status)| (status.up, Reverse(*peer)));
                best.and_then(|(peer, _)| remote(peer))
            }),
            (_, None) => here(),
            (_, Some(peer)) => remote(peer),
        }
    }

    /// Who has the very target of the node in `row` and can be reached: that one is gone. Not a node that drains, nor, where
    /// media were `made` smaller, one that does not know how.
    pub fn same_target(&self, row: usize, made: bool) -> Option<Way> {
        let wanted = self.target_identity(row)?;
        let own = self.sessions.as_ref().filter(|_| row != 0);
        let own = own.filter(|_| self.target_identity(0) == Some(wanted));
        if let Some(sessions) = own {
            let target = Arc::new(Here(Arc::clone(sessions)));
            return Some(Way { row: 0, target });
        }
        (1..).zip(&self.peers).find_map(|(other, remote)| {
            let status = remote.peer().status();
            let has_it = status
                .hello
                .is_some_and(|hello| hello.target == Some(wanted));
            let knows = !made || remote.opens_shipments();
            let takes = status.up && !status.draining && has_it && knows && other != row;
            takes.then(|| Way {
                row: other,
                target: Arc::clone(remote) as Arc<dyn Target>,
            })
        })
    }

    /// The target in a plan's row, as it names itself; of a peer, what it said last.
    pub fn target_identity(&self, row: usize) -> Option<Identity> {
        match row.checked_sub(1) {
            None => self.models.target.as_ref().map(|target| target.identity),
            Some(peer) => self.peers.get(peer)?.peer().status().hello?.target,
        }
    }

    /// Whether the node in a plan's row is another one that media may be made smaller for.
    pub fn opens_shipments(&self, row: usize) -> bool {
        let peer = row.checked_sub(1).and_then(|peer| self.peers.get(peer));
        peer.is_some_and(|peer| peer.opens_shipments())
    }

    /// Notes work that a plan is going to send to a peer: nothing where it stays here.
    pub fn ahead(&self, row: usize, route: Route, prompt_tokens: u32) -> Ahead {
        let peer = row.checked_sub(1).filter(|_| route != Route::Edge);
        let peer = peer.and_then(|peer| self.peers.get(peer));
        peer.map_or_else(Ahead::default, |peer| peer.ahead(prompt_tokens))
    }

    /// A number that no other request of this process has.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn decoders(media: &config::Media) -> usize {
    match media.decoders {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some as usize,
    }
}

/// What a medium may be, in the words of who decodes it.
pub fn media_limits(media: &config::Media) -> msao_media::Limits {
    msao_media::Limits {
        max_bytes: u64::from(media.mib) << 20,
        max_pixels: (media.megapixels * 1e6) as u64,
        max_frames: media.frames as usize,
        max_video_seconds: media.video_s,
        max_audio_seconds: media.audio_s,
        max_decoded_bytes: u64::from(media.decoded_mib) << 20,
    }
}
