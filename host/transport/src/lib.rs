//! Sessions between nodes over HTTP/2: sockets, TLS, heartbeats, media by digest. The only crate that knows hyper, h2 and
//! rustls where nodes talk to each other.
//!
//! An edge node holds a [`Peer`] for each cloud node: two connections, one for media, one for sessions and heartbeats,
//! so that a large upload never stands before a verdict. A cloud node runs [`serve`].
//!
//! | request | what |
//! |---|---|
//! | `POST /node/v1/heartbeat` | HELLO each way, then HEARTBEATs as long as the connection lives; REFUSED when the node begins to drain, HELLO again when it drains no more |
//! | `POST /node/v1/session` | the frames of one session, both ways at once |
//! | `HEAD /node/v1/media/{sha256}` | whether a medium is there: asked of large ones that this node has not sent itself |
//! | `PUT /node/v1/media/{sha256}` | a medium; one that is there already may come again |
//! | `GET /node/v1/probe/{bytes}`, `PUT /node/v1/probe` | bytes of no meaning, to see how fast they go |
//!
//! Promises:
//! - Frames arrive whole and in order, or the stream ends with an error on both sides. Nothing waits for ever.
//! - What either side holds for the other is bounded ([`limits`]), whoever stops reading.
//! - A medium is kept under its own digest alone, and goes over the link once for all who send it at the same time.
//! - Nodes speak TLS 1.3 with certificates of one private CA on both ends; without certificates, on loopback alone.
//!
//! Read first: [`Peer`], [`serve`] with [`Handler`], [`Stream`]; [`pki`] for certificates and tokens, [`TlsIdentity`]
//! for their use.
#![forbid(unsafe_code)]

mod body;
mod clock;
mod error;
mod explain;
mod figures;
pub mod limits;
mod media_store;
mod net;
mod peer;
pub mod pki;
mod quiet;
mod routes;
mod server;
mod stream;
mod tls;
mod wire;

pub use self::error::{ServeError, TransportError};
pub use self::figures::{from_heartbeat, to_heartbeat};
pub use self::media_store::{MediaStore, StoreError};
pub use self::net::{Dial, Listener, MemoryDial, memory};
pub use self::peer::{Peer, PeerConfig, PeerError, Planned, Status, Uploaded};
pub use self::server::{Handler, PeerInfo, ServerConfig, serve};
pub use self::stream::{Meter, Receiver, Sender, Stream};
pub use self::tls::{TlsError, TlsIdentity};

use msao_link::estimate::Figures;
use msao_session::frame::Hello;

/// What a node tells of itself. Called from the transport's tasks, so it must not block.
pub trait Local: Send + Sync + 'static {
    /// For the HELLO of a new connection.
    fn hello(&self) -> Hello;

    /// For the next heartbeat.
    fn figures(&self) -> Figures;
}

/// A lock whose data stay usable when a holder has panicked: none of ours leaves them half changed.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
