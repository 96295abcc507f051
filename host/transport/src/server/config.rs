//! What a server is told.

use std::time::Duration;

use crate::error::ServeError;
use crate::media_store::MediaStore;
use crate::tls::TlsIdentity;

/// What a server is told. Begin with [`ServerConfig::new`].
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// None: HTTP/2 in the clear, on loopback alone.
    pub tls: Option<TlsIdentity>,
    /// Where media go.
    pub media: MediaStore,
    /// Sessions at once, of all peers; more are refused as overloaded.
    pub sessions: usize,
    /// Connections at once, of all peers; a peer has two.
    pub connections: usize,
    /// How long TLS may take to begin.
    pub handshake_within: Duration,
    /// The first request of a connection has come within.
    pub request_within: Duration,
    /// A peer of which nothing came for so long, though its heartbeats were due, is gone: its connection is closed. A
    /// peer that beats more slowly is given four of its own beats.
    pub gone_after: Duration,
    /// A connection with no request for so long is closed.
    pub idle_after: Duration,
    /// An upload that brings nothing for so long is given up.
    pub body_within: Duration,
    /// How long running sessions may go on after a shutdown has begun.
    pub drain_within: Duration,
}

impl ServerConfig {
    /// The defaults, without TLS.
    pub fn new(media: MediaStore) -> ServerConfig {
        ServerConfig {
            tls: None,
            media,
            sessions: 512,
            connections: 256,
            handshake_within: Duration::from_secs(5),
            request_within: Duration::from_secs(10),
            gone_after: Duration::from_secs(1),
            idle_after: Duration::from_secs(120),
            body_within: Duration::from_secs(20),
            drain_within: Duration::from_secs(30),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ServeError> {
        let wrong = |field, problem: String| Err(ServeError::Config { field, problem });
        for (field, value) in [
            ("sessions", self.sessions),
            ("connections", self.connections),
        ] {
            if !(1..=1 << 16).contains(&value) {
                return wrong(field, format!("is {value}; allowed: 1 to 65536"));
            }
        }
        for (field, value) in [
            ("handshake_within", self.handshake_within),
            ("request_within", self.request_within),
            ("gone_after", self.gone_after),
            ("idle_after", self.idle_after),
            ("body_within", self.body_within),
        ] {
            if value.is_zero() {
                return wrong(field, "is 0; allowed: any time above 0".into());
            }
        }
        Ok(())
    }
}
