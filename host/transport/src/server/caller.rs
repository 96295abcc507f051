//! Somebody who has connected: with TLS, who it is; without, nothing yet.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use msao_core::digest::Digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::Server;
use super::connection::Connection;
use crate::explain;
use crate::net::Io;
use crate::tls::ALPN;
use crate::wire::Wire;

/// Whoever is turned away may still say so much, for so long.
const PARTING_BYTES: u64 = 64 << 10;
const PARTING: Duration = Duration::from_secs(1);

/// Somebody who has connected and of whom nothing is known yet.
pub(super) struct Caller {
    pub(super) server: Arc<Server>,
    pub(super) address: SocketAddr,
}

impl Caller {
    pub(super) async fn serve(self, stream: Box<dyn Io>) {
        let Caller { server, address } = self;
        let config = &server.config;
        let Some(tls) = &config.tls else {
            let (wire, handle) = Wire::new(stream, true, true);
            return Connection::new(server, address, None, handle)
                .serve(wire)
                .await;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&tls.loaded().server));
        let accepting = acceptor.accept(stream).into_fallible();
        let stream = match timeout(config.handshake_within, accepting).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((error, stream))) => {
                server.complain(address, &format!("no TLS: {}", explain::words(&error)));
                return part(stream).await;
            }
            Err(_) => {
                return server.complain(address, "no TLS: the handshake took too long");
            }
        };
        let (_, session) = stream.get_ref();
        if session.alpn_protocol() != Some(ALPN) {
            return server.complain(
                address,
                "turned away: the peer does not speak HTTP/2 (ALPN h2)",
            );
        }
        let shown = session.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|certificate| Digest::of(certificate));
        let (wire, handle) = Wire::new(Box::new(stream), true, false);
        Connection::new(server, address, certificate, handle)
            .serve(wire)
            .await;
    }
}

/// Lets TLS's last word arrive: closed at once, with something of the peer's unread, the socket would take it back, and
/// the peer could not tell why.
async fn part(mut stream: Box<dyn Io>) {
    let parting = async {
        stream.shutdown().await?;
        let mut rest = (&mut stream).take(PARTING_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whatever comes of it, the stream is dropped.
    let _ = timeout(PARTING, parting).await;
}
