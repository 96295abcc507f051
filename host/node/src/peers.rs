//! Other nodes: the way to a peer's target, and sessions that come from peers.

mod carry;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use msao_core::offload::{self, capability};
use msao_link::estimate::{Bandwidth, EstimateConfig, Figures};
use msao_link::shaper::Link;
use msao_session::frame::Hello;
use msao_transport::{
    Handler, Listener, Local, MediaStore, Peer, PeerConfig, PeerInfo, ServerConfig, Stream,
    TlsIdentity, TransportError,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::carry::{Side, carry};
use crate::adapt::{CLOSED, WatchedLink};
use crate::answer::{Bringing, Connecting, NoWay, Target, Traffic};
use crate::cloud::Sessions;
use crate::config::{self, NodeConfig};
use crate::node::{Models, Node, StartError};
use crate::request::{Cargo, Prompt, Sent};

/// Streams beyond the sessions that may be there, so that each is told why it is none.
const MORE_STREAMS: usize = 64;
/// Certificates are looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a node tells others of itself.
pub struct Told {
    hello: Hello,
    node: std::sync::OnceLock<Weak<Node>>,
}

impl Told {
    /// Of a node with these models. Until [`Told::is`] names the node, its figures are unknown.
    pub fn new(models: &Models) -> Arc<Told> {
        let identity = |model: &Option<crate::models::Model>| model.as_ref().map(|it| it.identity);
        let software = concat!("msao ", env!("CARGO_PKG_VERSION")).to_owned();
        Arc::new(Told {
            hello: Hello::of(software, identity(&models.draft), identity(&models.target)),
            node: std::sync::OnceLock::new(),
        })
    }

    /// Whose figures are told.
    pub fn is(&self, node: &Arc<Node>) {
        // Told once, when the node is there.
        let _again = self.node.set(Arc::downgrade(node));
    }
}

impl Local for Told {
    fn hello(&self) -> Hello {
        self.hello.clone()
    }

    fn figures(&self) -> Figures {
        let node = self.node.get().and_then(Weak::upgrade);
        node.map_or(Figures::UNKNOWN, |node| node.figures())
    }
}

/// Work that a peer is going to get, as whoever may hear that it has begun there shares it. It counts until then, and no
/// longer than anybody holds it: until it has begun, runs elsewhere or is gone.
#[derive(Clone, Debug, Default)]
pub struct Ahead(Arc<Mutex<Option<msao_transport::Planned>>>);

impl Ahead {
    /// It has begun, or will not be done there.
    pub fn settle(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// A peer, as requests see it.
pub struct Remote {
    peer: Peer,
    /// Where it is, as the configuration has it.
    address: String,
    price_per_mtok: f64,
}

impl WatchedLink for Remote {
    fn name(&self) -> String {
        format!("{} at {}", self.peer.name(), self.address)
    }

    fn bandwidth(&self) -> Bandwidth {
        self.peer.bandwidth()
    }

    fn remember(&self, before: Bandwidth) {
        self.peer.remember(before);
    }
}

impl Remote {
    /// Begins to connect to every peer that the configuration names.
    ///
    /// # Errors
    /// A certificate that cannot be used, or an address that may not be.
    pub fn all(config: &NodeConfig, told: &Arc<Told>) -> Result<Vec<Arc<Remote>>, StartError> {
        if config.peers.is_empty() {
            return Ok(Vec::new());
        }
        let tls = identity(&config.sessions)?;
        let mut remotes = Vec::new();
        for peer in &config.peers {
            let heartbeat = Duration::from_millis(u64::from(config.sessions.heartbeat_ms));
            let wanted = PeerConfig {
                own_name: config.node.name.clone(),
                tls: tls.clone(),
                heartbeat,
                gone_after: Duration::from_millis(u64::from(config.sessions.gone_after_ms)),
                estimates: EstimateConfig {
                    heartbeat_ms: config.sessions.heartbeat_ms,
                    ..EstimateConfig::default()
                },
                shape: peer
                    .shape
                    .as_ref()
                    .map(Link::start)
                    .transpose()
                    .map_err(StartError::Link)?,
                ..PeerConfig::new(&peer.name, &peer.address)
            };
            let local: Arc<dyn Local> = Arc::clone(told) as Arc<dyn Local>;
            remotes.push(Arc::new(Remote {
                peer: Peer::start(wanted, local).map_err(StartError::Peer)?,
                address: peer.address.clone(),
                price_per_mtok: peer.price_per_mtok,
            }));
        }
        Ok(remotes)
    }

    /// The peer.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether media may be made smaller for it: it opens shipments.
    pub fn opens_shipments(&self) -> bool {
        let agreement = self.peer.status().agreement;
        agreement.is_some_and(|agreed| agreed.shipments)
    }

    /// Notes that a prompt of so many tokens is going to be read there, until the result is settled or dropped.
    pub fn ahead(&self, prompt_tokens: u32) -> Ahead {
        let mut row = offload::Node::default();
        self.peer.fill(&mut row);
        // A peer that has read nothing yet has not told how fast it is.
        let per_s = row.prefill_tok_per_s;
        let work_ms = if per_s > 0.0 {
            f64::from(prompt_tokens) / per_s * 1000.0
        } else {
            0.0
        };
        let planned = self.peer.plan(work_ms);
        Ahead(Arc::new(Mutex::new(Some(planned))))
    }

    /// The peer's row, for policies to see.
    pub fn row(&self, prompt: &Prompt) -> offload::Node {
        let status = self.peer.status();
        let media = prompt.media.iter().map(|medium| medium.digest);
        let mut node = offload::Node {
            can: status.agreement.map_or(0, |agreed| {
                [
                    (agreed.cloud, capability::TARGET),
                    (
                        agreed.drafts,
                        capability::VERIFY | capability::SAME_TOKENIZER,
                    ),
                    (agreed.cloud_draft, capability::DRAFT),
                ]
                .into_iter()
                .filter(|(can, _)| *can)
                .fold(0, |bits, (_, bit)| bits | bit)
            }),
            price_per_mtok: self.price_per_mtok,
            cached_bytes: self.peer.cached_bytes(media),
            confidence_floor: CLOSED,
            ..offload::Node::default()
        };
        self.peer.fill(&mut node);
        if !node.up {
            // One that drains still tells how it is. What new work would find there nobody knows, and a row that is down and has
            // figures is one that has refused just now.
            Figures::UNKNOWN.fill(&mut node);
        }
        node
    }
}

impl Target for Remote {
    fn connect(&self, patient: bool, cargo: &Arc<Cargo>, traffic: &Arc<Traffic>) -> Connecting {
        let (peer, cargo, traffic) = (self.peer.clone(), Arc::clone(cargo), Arc::clone(traffic));
        Box::pin(async move {
            if patient {
                let mut status = peer.watch();
                let up = status.wait_for(|status| status.up).await;
                up.map_err(|_| NoWay::Lost("the peer is not looked after any more".into()))?;
            } else if !peer.status().up {
                return Err(NoWay::Lost("the peer is down".into()));
            }
            let sent = cargo.sent().await.map_err(NoWay::unmade)?;
            let uploading = upload(&peer, &sent, &traffic);
            uploading.instrument(tracing::info_span!("upload")).await?;
            let stream = peer.open().map_err(no_way)?;
            let meter = stream.meter();
            traffic.meter(move || (meter.sent_bytes(), meter.received_bytes()));
            Ok(carry(stream, Side::Edge))
        })
    }

    fn bring(&self, cargo: &Arc<Cargo>, traffic: &Arc<Traffic>) -> Bringing {
        let (peer, cargo, traffic) = (self.peer.clone(), Arc::clone(cargo), Arc::clone(traffic));
        Box::pin(async move {
            let Ok(sent) = cargo.sent().await else {
                return;
            };
            if let Err(why) = upload(&peer, &sent, &traffic).await {
                tracing::debug!(?why, "media were not brought ahead");
            }
        })
    }

    fn forget(&self, cargo: &Cargo) {
        for (digest, _) in cargo.made().into_iter().flat_map(|sent| &sent.uploads) {
            self.peer.forget(*digest);
        }
    }

    fn figures(&self) -> (f64, f64) {
        let mut node = offload::Node::default();
        self.peer.fill(&mut node);
        (node.rtt_ms, node.queue_ms)
    }

    fn is_there(&self) -> bool {
        self.peer.status().up
    }
}

/// Sees to it that the peer has all media that a prompt's OPEN names.
async fn upload(peer: &Peer, sent: &Sent, traffic: &Traffic) -> Result<(), NoWay> {
    if sent.uploads.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    let mut uploads = JoinSet::new();
    for (digest, bytes) in &sent.uploads {
        let (peer, digest, bytes) = (peer.clone(), *digest, bytes.clone());
        let count = Arc::clone(traffic.media());
        uploads.spawn(async move { peer.media_counted(digest, bytes, &count).await });
    }
    let mut any = false;
    while let Some(uploaded) = uploads.join_next().await {
        let uploaded = uploaded.map_err(|error| NoWay::Lost(error.to_string()))?;
        let uploaded = uploaded.map_err(no_way)?;
        any |= uploaded.sent_bytes > 0 || uploaded.asked_ms > 0.0;
    }
    // Where another way of the same request brings them, it counts the time.
    if any {
        traffic.uploaded(began.elapsed());
    }
    Ok(())
}

fn no_way(error: TransportError) -> NoWay {
    match error {
        TransportError::Refused {
            code,
            retry_after_ms,
            message,
        } => NoWay::Refused {
            code,
            retry_after_ms,
            message,
        },
        error => NoWay::Lost(error.to_string()),
    }
}

fn identity(sessions: &config::Sessions) -> Result<Option<TlsIdentity>, StartError> {
    let Some(folder) = &sessions.tls else {
        return Ok(None);
    };
    let identity = TlsIdentity::load(folder).map_err(StartError::Identity)?;
    identity.watch(LOOK_EVERY);
    Ok(Some(identity))
}

/// Takes the sessions that peers open.
struct Taking {
    told: Arc<Told>,
    sessions: Arc<Sessions>,
}

impl Local for Taking {
    fn hello(&self) -> Hello {
        self.told.hello()
    }

    fn figures(&self) -> Figures {
        self.told.figures()
    }
}

impl Handler for Taking {
    fn session(&self, stream: Stream, peer: PeerInfo) {
        tracing::debug!(peer = peer.name, "a session");
        self.sessions.accept(carry(stream, Side::Cloud));
    }
}

/// The listener for peers.
pub struct Intake {
    listener: Listener,
    config: ServerConfig,
    handler: Arc<dyn Handler>,
}

impl Intake {
    /// Opens the port that the configuration names.
    ///
    /// # Errors
    /// The address cannot be listened on, or a certificate not be used.
    pub async fn bind(
        config: &NodeConfig,
        media: MediaStore,
        told: &Arc<Told>,
        sessions: &Arc<Sessions>,
    ) -> Result<Intake, StartError> {
        let section = &config.sessions;
        let listener = Listener::bind(section.listen).await;
        let listener = listener.map_err(|error| StartError::Listen {
            key: "sessions.listen",
            address: section.listen,
            error,
        })?;
        let config = ServerConfig {
            tls: identity(section)?,
            // The sessions themselves refuse first, and can say when to come back.
            sessions: section.most as usize + MORE_STREAMS,
            gone_after: Duration::from_millis(u64::from(section.gone_after_ms)),
            drain_within: Duration::from_secs(u64::from(config.node.drain_s)),
            ..ServerConfig::new(media)
        };
        Ok(Intake {
            listener,
            config,
            handler: Arc::new(Taking {
                told: Arc::clone(told),
                sessions: Arc::clone(sessions),
            }),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then lets sessions end. While `draining` says so no new ones are taken.
    pub async fn serve(self, draining: watch::Receiver<bool>, stop: CancellationToken) {
        let stopped = async move { stop.cancelled().await };
        let (listener, config) = (self.listener, self.config);
        let served = msao_transport::serve(listener, config, self.handler, draining, stopped);
        if let Err(error) = served.await {
            tracing::error!(%error, "sessions of other nodes are taken no more");
        }
    }
}
