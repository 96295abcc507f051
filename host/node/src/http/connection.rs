//! Connections: accepting, TLS, telling the versions apart, limits, and the end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::body::{Arriving, Outgoing};
use crate::metrics::Metrics;
use crate::node::StartError;

/// Streams of one HTTP/2 connection at once.
const STREAMS: u32 = 128;
/// Streams that a client may reset before they were looked at; more, and its connection is closed (rapid reset).
const RESETS: usize = 32;
/// A connection of which nothing is heard is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Answers one request.
pub type Handler = Arc<
    dyn Fn(Request<Arriving>) -> Pin<Box<dyn Future<Output = Response<Outgoing>> + Send>>
        + Send
        + Sync,
>;

/// What a listener's connections may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At once.
    pub connections: usize,
    /// A header, or TLS, must have come after so long.
    pub headers_within: Duration,
    /// Bytes of a request's header.
    pub header_bytes: u32,
    /// A client that takes nothing for so long is left.
    pub unread: Duration,
    /// How long requests may go on once the listener is to end.
    pub drain: Duration,
}

/// Certificate and key of a listener, by the keys that name them.
#[derive(Clone, Copy, Debug)]
pub struct Certificate<'a> {
    /// Certificate chain, PEM.
    pub chain: (&'static str, &'a Path),
    /// Its key, PEM.
    pub key: (&'static str, &'a Path),
}

/// A listener for HTTP/1.1 and HTTP/2.
pub struct Server {
    listener: TcpListener,
    tls: Option<Tls>,
    limits: Limits,
    metrics: Metrics,
    handler: Handler,
}

/// How connections are encrypted; new ones by what was read last.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

impl Tls {
    fn read(certificate: Certificate<'_>) -> Result<Tls, StartError> {
        let config = server_config(certificate)?;
        Ok(Tls(Arc::new(ArcSwap::from_pointee(config))))
    }

    /// Reads the certificate anew. What comes back has it used, by connections that come from then on.
    ///
    /// # Errors
    /// It cannot be used: the one before stays.
    pub fn renewal(&self, certificate: Certificate<'_>) -> Result<impl FnOnce(), StartError> {
        let config = Arc::new(server_config(certificate)?);
        Ok(move || self.0.store(config))
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

impl Server {
    /// Opens the port that `key` names.
    ///
    /// # Errors
    /// The address cannot be listened on, or certificate and key cannot be used.
    pub async fn bind(
        key: &'static str,
        address: SocketAddr,
        certificate: Option<Certificate<'_>>,
        limits: Limits,
        metrics: Metrics,
        handler: Handler,
    ) -> Result<Server, StartError> {
        let tls = certificate.map(Tls::read).transpose()?;
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| StartError::Listen {
            key,
            address,
            error,
        })?;
        Ok(Server {
            listener,
            tls,
            limits,
            metrics,
            handler,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// How connections are encrypted, if they are.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Serves until `stop`, then lets what is under way end, for as long as the limits say.
    pub async fn serve(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // No file descriptors, most often: others have to end first.
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.metrics.no_room();
                continue;
            };
            let connected = self.metrics.connected();
            let (handler, limits) = (Arc::clone(&self.handler), self.limits);
            let tls = self.tls.as_ref().map(Tls::acceptor);
            let watcher = graceful.watcher();
            tokio::spawn(async move {
                if let Err(error) = serve_one(handler, stream, tls, limits, watcher).await {
                    tracing::debug!(%from, %error, "a client's connection ended");
                }
                drop((place, connected));
            });
        }
        drop(self.listener);
        let drained = tokio::time::timeout(self.limits.drain, graceful.shutdown()).await;
        if drained.is_err() {
            let seconds = self.limits.drain.as_secs();
            tracing::warn!(
                seconds,
                "requests were still under way when the time to end was over"
            );
        }
    }
}

fn server_config(certificate: Certificate<'_>) -> Result<ServerConfig, StartError> {
    let Certificate { chain, key } = certificate;
    let wrong = |(key, path): (&'static str, &Path)| {
        let path = path.to_owned();
        move |problem: String| StartError::Tls { key, path, problem }
    };
    let (cert_path, key_path) = (chain.1, key.1);
    let certificates = CertificateDer::pem_file_iter(cert_path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(chain)(error.to_string()))?;
    let private =
        PrivateKeyDer::from_pem_file(key_path).map_err(|error| wrong(key)(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_no_client_auth()
                .with_single_cert(certificates, private)
        })
        .map_err(|error| wrong(chain)(error.to_string()));
    let mut config = config?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn serve_one(
    handler: Handler,
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Tokens are small and wanted at once.
    stream.set_nodelay(true)?;
    let (within, unread) = (limits.headers_within, limits.unread);
    match tls {
        Some(tls) => {
            let stream = tokio::time::timeout(within, tls.accept(stream)).await??;
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            speak(
                handler,
                Patient::new(stream, unread),
                is_h2,
                limits,
                watcher,
            )
            .await
        }
        None => {
            let is_h2 = tokio::time::timeout(within, begins_as_h2(&stream)).await??;
            speak(
                handler,
                Patient::new(stream, unread),
                is_h2,
                limits,
                watcher,
            )
            .await
        }
    }
}

async fn speak<S>(
    handler: Handler,
    stream: S,
    is_h2: bool,
    limits: Limits,
    watcher: Watcher,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answered = handler(Arriving::of(request));
        async move { Ok::<_, std::convert::Infallible>(answered.await) }
    });
    let (io, header) = (TokioIo::new(stream), limits.header_bytes);
    let within = limits.headers_within;
    if is_h2 {
        let mut h2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        h2.timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(header)
            .max_pending_accept_reset_streams(RESETS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(within);
        watcher.watch(h2.serve_connection(io, service)).await?;
    } else {
        let mut h1 = hyper::server::conn::http1::Builder::new();
        h1.timer(TokioTimer::new())
            .header_read_timeout(within)
            .max_buf_size(header as usize);
        watcher.watch(h1.serve_connection(io, service)).await?;
    }
    Ok(())
}

/// Whether the first bytes are those of HTTP/2. They stay in the stream.
async fn begins_as_h2(stream: &TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0";
    let mut begin = [0; PREFACE.len()];
    loop {
        let count = stream.peek(&mut begin).await?;
        let came = begin.get(..count).unwrap_or_default();
        if count == 0 || !PREFACE.starts_with(came) {
            return Ok(false);
        }
        if count == PREFACE.len() {
            return Ok(true);
        }
        // The rest is on its way: a peek does not wait for it.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A stream that fails where the other side takes nothing for too long.
struct Patient<S> {
    stream: S,
    patience: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Patient {
            stream,
            patience,
            waiting: None,
        }
    }

    /// Begins to wait, or goes on waiting, or has waited too long.
    fn wait<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let patience = self.patience;
        let sleep = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + patience)));
        ready!(sleep.as_mut().poll(context));
        let why = "the client takes nothing (api.unread-s)";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending => self.wait(context),
            done => {
                self.waiting = None;
                done
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.wait(context),
            done => {
                self.waiting = None;
                done
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write_vectored(context, buffers) {
            Poll::Pending => self.wait(context),
            done => {
                self.waiting = None;
                done
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
