//! A cloud node and an edge node, as small as can be.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use msao_core::digest::Digest;
use msao_link::estimate::Figures;
use msao_link::shaper::{Link, LinkConfig};
use msao_session::frame::{Cancel, Draft, Frame, Hello, Identity, SessionId};
use msao_transport::{
    Handler, Listener, Local, MediaStore, Peer, PeerConfig, PeerInfo, ServeError, ServerConfig,
    Status, Stream, TlsIdentity, pki, serve,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

/// What both nodes say of themselves.
pub struct Node {
    pub hello: Mutex<Hello>,
    pub figures: Mutex<Figures>,
    sessions: mpsc::UnboundedSender<(Stream, PeerInfo)>,
}

impl Local for Node {
    fn hello(&self) -> Hello {
        self.hello.lock().unwrap().clone()
    }

    fn figures(&self) -> Figures {
        *self.figures.lock().unwrap()
    }
}

impl Handler for Node {
    fn session(&self, stream: Stream, peer: PeerInfo) {
        // A test that has ended wants no more.
        let _ = self.sessions.send((stream, peer));
    }
}

pub fn hello(software: &str) -> Hello {
    let identity = Identity {
        model: Digest::of(software.as_bytes()),
        tokenizer: Digest::of(b"tokenizer"),
        processor: Digest::of(b"processor"),
    };
    Hello::of(software.into(), Some(identity), Some(identity))
}

pub fn node(software: &str) -> (Arc<Node>, mpsc::UnboundedReceiver<(Stream, PeerInfo)>) {
    let (sessions, came) = mpsc::unbounded_channel();
    let node = Node {
        hello: Mutex::new(hello(software)),
        figures: Mutex::new(Figures::UNKNOWN),
        sessions,
    };
    (Arc::new(node), came)
}

/// A node that takes sessions. Dropped, it is gone at once.
pub struct Cloud {
    pub address: SocketAddr,
    pub node: Arc<Node>,
    pub media: MediaStore,
    sessions: mpsc::UnboundedReceiver<(Stream, PeerInfo)>,
    draining: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Cloud {
    pub async fn plain() -> Cloud {
        Cloud::with(|_| ()).await
    }

    pub async fn with(change: impl FnOnce(&mut ServerConfig)) -> Cloud {
        let listener = Listener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        Cloud::on(listener, change)
    }

    /// Again where another one was.
    pub async fn at(address: SocketAddr, change: impl FnOnce(&mut ServerConfig)) -> Cloud {
        let bound = async {
            loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let listener = timeout(LONG, bound).await.unwrap();
        Cloud::on(Listener::Tcp(listener), change)
    }

    pub fn on(listener: Listener, change: impl FnOnce(&mut ServerConfig)) -> Cloud {
        let address = listener.local_addr().unwrap();
        let media = MediaStore::new(64 << 20);
        let mut config = ServerConfig::new(media.clone());
        // Real clocks on busy machines; tests of these limits set their own.
        config.gone_after = Duration::from_secs(30);
        change(&mut config);
        let media = config.media.clone();
        let (node, sessions) = node("cloud");
        let (stop, stopped) = oneshot::channel::<()>();
        let handler: Arc<dyn Handler> = node.clone();
        let draining = watch::Sender::new(false);
        let drains = draining.subscribe();
        let shutdown = async {
            let _ = stopped.await;
        };
        Cloud {
            address,
            node,
            media,
            sessions,
            draining,
            stop: Some(stop),
            task: tokio::spawn(serve(listener, config, handler, drains, shutdown)),
        }
    }

    pub async fn session(&mut self) -> (Stream, PeerInfo) {
        timeout(LONG, self.sessions.recv()).await.unwrap().unwrap()
    }

    /// Has it take no new sessions, or take them again.
    pub fn drain(&self, draining: bool) {
        self.draining.send_replace(draining);
    }

    /// Begins to shut down.
    pub fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until it has shut down.
    pub async fn stopped(&mut self) {
        timeout(LONG, &mut self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Is gone, without a word.
    pub async fn kill(self) -> SocketAddr {
        self.task.abort();
        let address = self.address;
        let mut this = self;
        let _ = (&mut this.task).await;
        address
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn peer_config(address: SocketAddr) -> PeerConfig {
    let mut config = PeerConfig::new("cloud", address.to_string());
    config.own_name = "edge-1".into();
    config.gone_after = Duration::from_secs(30);
    config.connect_within = Duration::from_secs(20);
    config.hello_within = Duration::from_secs(20);
    config.probe = None;
    config
}

pub fn start(config: PeerConfig) -> Peer {
    Peer::start(config, node("edge").0).unwrap()
}

/// A peer that is up.
pub async fn connected(config: PeerConfig) -> Peer {
    let peer = start(config);
    until(&peer, |status| status.up).await;
    peer
}

pub async fn until(peer: &Peer, wanted: impl FnMut(&Status) -> bool) -> Status {
    let mut watch = peer.watch();
    let came = timeout(LONG, watch.wait_for(wanted)).await;
    match came {
        Ok(status) => status.unwrap().clone(),
        Err(_) => panic!("it stays so: {:?}", peer.status()),
    }
}

/// Why a peer is not up, once it says something with `part` in it.
pub async fn down_with(peer: &Peer, part: &str) -> String {
    let named = |status: &Status| status.why.as_ref().is_some_and(|why| why.contains(part));
    let status = until(peer, |status| !status.up && named(status)).await;
    status.why.unwrap().to_string()
}

/// A link as fast as it goes, to be cut and stalled.
pub fn link() -> Link {
    Link::start(&LinkConfig::default()).unwrap()
}

pub fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

/// A small frame.
pub fn small(number: u8) -> Frame {
    Frame::Cancel(Cancel {
        session: session(number),
    })
}

/// A frame with a number in it.
pub fn numbered(number: u32) -> Frame {
    Frame::Draft(Draft {
        session: session(7),
        epoch: 0,
        round: number,
        committed: 0,
        prefix: Digest([1; 32]),
        start: 0,
        forced: Vec::new(),
        proposed: vec![number; 1 + number as usize % 60],
        last: false,
    })
}

/// Folders of two nodes of one CA, for 127.0.0.1.
pub fn certificates() -> (tempfile::TempDir, TlsIdentity, TlsIdentity) {
    let folder = tempfile::tempdir().unwrap();
    let (cloud, edge) = (folder.path().join("cloud"), folder.path().join("edge"));
    pki::init(&cloud, &["127.0.0.1", "localhost"], pki::Existing::Keep).unwrap();
    pki::issue(&cloud, &edge, &["edge.test"], pki::Existing::Keep).unwrap();
    let (cloud, edge) = (
        TlsIdentity::load(cloud).unwrap(),
        TlsIdentity::load(edge).unwrap(),
    );
    (folder, cloud, edge)
}
