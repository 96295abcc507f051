//! One HTTP/2 connection to a peer.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use msao_link::shaper::End;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Duration, timeout};
use tokio_rustls::TlsConnector;

use super::config::{PeerConfig, Target};
use crate::body::Payload;
use crate::error::TransportError;
use crate::explain;
use crate::limits::{MAX_HEADER, MAX_SEND_BUFFER, PING_EVERY, PING_WITHIN, WINDOW};
use crate::net::{self, Dial, Io};
use crate::routes;
use crate::stream::lost;
use crate::tls::ALPN;
use crate::wire::{Wire, WireHandle};

/// A stream that was cancelled here is remembered for so long, so that what is still under way on it is passed over. h2
/// takes what comes on a forgotten stream for a mistake of the peer, and ends the connection after a thousand of them.
const REMEMBER_RESET: Duration = Duration::from_secs(60);
/// As many are remembered.
const REMEMBERED_RESETS: usize = 1024;

/// A connection. Clones are the same one.
#[derive(Clone)]
pub(super) struct Line {
    send: SendRequest<Payload>,
    pub(super) wire: WireHandle,
    base: Arc<str>,
    own_name: HeaderValue,
}

/// Ends its connection, and all that is under way on it, when it is dropped.
pub(super) struct Bound {
    pub(super) line: Line,
    released: bool,
}

impl Bound {
    pub(super) fn new(line: Line) -> Bound {
        Bound {
            line,
            released: false,
        }
    }

    /// Leaves the connection to what is under way on it; it ends with that.
    pub(super) fn release(mut self) {
        self.released = true;
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if !self.released {
            self.line.wire.kill("this node has closed the connection");
        }
    }
}

impl Line {
    /// Connects; why not, in words.
    pub(super) async fn connect(config: &PeerConfig, target: &Target) -> Result<Line, String> {
        let within = config.connect_within;
        timeout(within, Line::connect_slowly(config, target))
            .await
            .unwrap_or_else(|_| Err(format!("no connection within {} ms", within.as_millis())))
    }

    async fn connect_slowly(config: &PeerConfig, target: &Target) -> Result<Line, String> {
        let io = reach(config, target).await?;
        let (io, plain): (Box<dyn Io>, bool) = match &config.tls {
            None => (io, true),
            Some(tls) => {
                let name = ServerName::try_from(target.host.clone())
                    .map_err(|_| format!("{} is no name of a host", target.host))?;
                let connector = TlsConnector::from(Arc::clone(&tls.loaded().client));
                let stream = connector
                    .connect(name, io)
                    .await
                    .map_err(|error| explain::words(&error))?;
                if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
                    return Err("the peer does not speak HTTP/2 (ALPN h2)".into());
                }
                (Box::new(stream), false)
            }
        };
        let (wire, handle) = Wire::new(io, false, plain);
        let (send, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_header_list_size(MAX_HEADER)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .max_concurrent_reset_streams(REMEMBERED_RESETS)
            .reset_stream_duration(REMEMBER_RESET)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(|error| handle.why().unwrap_or_else(|| explain::words(&error)))?;
        let watched = handle.clone();
        tokio::spawn(async move {
            let ended = connection.await;
            watched.ended(ended.err().map(|error| explain::words(&error)));
        });
        let scheme = if plain { "http" } else { "https" };
        // The configuration's names are checked, so that this does not fail.
        let own_name = HeaderValue::from_str(&config.own_name)
            .unwrap_or_else(|_| HeaderValue::from_static("node"));
        Ok(Line {
            send,
            wire: handle,
            base: format!("{scheme}://{}", target.authority).into(),
            own_name,
        })
    }

    /// Asks. The request is under way at once; the future only waits for the answer's header, and cancels the request
    /// when it is dropped.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, HeaderValue)],
        body: Payload,
    ) -> impl Future<Output = Result<Response<Incoming>, TransportError>> + Send + use<> {
        let mut builder = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(routes::NODE, self.own_name.clone());
        for (name, value) in headers {
            builder = builder.header(*name, value.clone());
        }
        let sent = builder
            .body(body)
            .map(|request| self.send.clone().send_request(request));
        let wire = self.wire.clone();
        async move {
            let sent = sent.map_err(|error| TransportError::Lost(error.to_string()))?;
            sent.await.map_err(|error| lost(&error, &wire))
        }
    }

    /// Why it is of no more use, if it is not.
    pub(super) fn over(&self) -> Option<String> {
        self.wire.why()
    }
}

/// Opens a connection below TLS.
async fn reach(config: &PeerConfig, target: &Target) -> Result<Box<dyn Io>, String> {
    if let Some(link) = &config.shape {
        let down = |error: io::Error| format!("the link is down ({error})");
        link.handshake().await.map_err(down)?;
    }
    match &config.dial {
        Dial::Memory(dial) => {
            let stream = dial.connect().await.map_err(|error| error.to_string())?;
            Ok(match &config.shape {
                Some(link) => Box::new(link.wrap(stream, End::Edge)),
                None => Box::new(stream),
            })
        }
        Dial::Tcp => {
            let stream = tcp(config, target).await?;
            net::at_once(&stream);
            Ok(match &config.shape {
                Some(link) => Box::new(link.wrap_tcp(stream, End::Edge)),
                None => Box::new(stream),
            })
        }
    }
}

async fn tcp(config: &PeerConfig, target: &Target) -> Result<TcpStream, String> {
    let found: Vec<SocketAddr> = lookup_host((&*target.host, target.port))
        .await
        .map_err(|error| format!("{} is not found: {error}", target.host))?
        .collect();
    let allowed = |address: &&SocketAddr| config.tls.is_some() || address.ip().is_loopback();
    let mut why = if found.is_empty() {
        format!("{} has no address", target.host)
    } else {
        format!(
            "{} is another machine, and sessions.tls is not set",
            target.host
        )
    };
    for address in found.iter().filter(allowed) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}
