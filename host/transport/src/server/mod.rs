//! The side that is connected to.

mod caller;
mod config;
mod connection;
mod heartbeat;
mod upload;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use msao_core::digest::Digest;
use msao_session::frame::Hello;
use msao_session::hello::Agreement;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub use self::config::ServerConfig;

use self::caller::Caller;
use crate::Local;
use crate::clock::Clock;
use crate::error::ServeError;
use crate::net::Listener;
use crate::quiet::Quiet;
use crate::stream::Stream;

/// After the sessions are over, connections are closed within this.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Wait after the system could not accept: it may be out of file descriptors, and asking at once would not give it any.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A node that takes sessions.
pub trait Handler: Local {
    /// Takes a new session's stream, whose first frame should be OPEN. Called from the connection's task: it must not
    /// block, and usually spawns a task for the stream. The stream takes a place among the sessions until both of its
    /// halves are dropped.
    fn session(&self, stream: Stream, peer: PeerInfo);
}

/// Who a session comes from.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// The name that the peer gives itself, for logs; its address if it gives none.
    pub name: String,
    /// From where it is connected.
    pub address: SocketAddr,
    /// SHA-256 of its certificate; nothing without TLS.
    pub certificate: Option<Digest>,
    /// Its HELLO.
    pub hello: Hello,
    /// What may be done together, the peer being the edge.
    pub agreement: Agreement,
}

/// What all connections share.
pub(crate) struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) clock: Clock,
    /// Another one for every start; peers see from it that what they had sent is gone.
    pub(crate) instance: String,
    /// A permit for each session that may run.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) quiet: Quiet,
}

/// Whether sessions are taken, and how far shutting down is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Everything is taken.
    Serving,
    /// Running sessions go on; no new ones are taken. Whoever drains may serve again, as long as no shutdown has begun.
    Draining,
    /// Connections are being closed.
    Closing,
}

impl Phase {
    /// Before a shutdown.
    fn before_the_end(draining: bool) -> Phase {
        if draining {
            Phase::Draining
        } else {
            Phase::Serving
        }
    }
}

/// Takes connections until `shutdown` is there; then no new ones and no new sessions, and returns when the running ones
/// have ended, after [`ServerConfig::drain_within`] at the latest.
///
/// While `draining` is true no new sessions are taken, but connections are, and go on: peers are told that the node drains, and
/// told again when it does not any more. A sender that is gone leaves it as it was last.
///
/// # Errors
/// [`ServeError`], before anything is taken: a limit that may not be, or a listener without TLS that other machines can
/// reach.
pub async fn serve(
    mut listener: Listener,
    config: ServerConfig,
    handler: Arc<dyn Handler>,
    mut draining: watch::Receiver<bool>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    config.check()?;
    let address = listener.local_addr()?;
    if config.tls.is_none() && !address.ip().is_loopback() {
        return Err(ServeError::PlainBeyondLoopback(address));
    }
    let instance = crate::pki::Token::draw().map(|token| token.sha256().short());
    let phase = Phase::before_the_end(*draining.borrow_and_update());
    let server = Arc::new(Server {
        places: Arc::new(Semaphore::new(config.sessions)),
        handler,
        clock: Clock::new(),
        // Without random bytes peers cannot see a restart, and find out as a session names media that are not here.
        instance: instance.unwrap_or_default(),
        phase: watch::Sender::new(phase),
        quiet: Quiet::default(),
        config,
    });
    let connections = Arc::new(Semaphore::new(server.config.connections));
    let mut tasks = JoinSet::new();
    // Whether anybody can still connect.
    let mut open = true;
    tokio::pin!(shutdown);
    tracing::info!(%address, tls = server.config.tls.is_some(), "taking sessions of other nodes");
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => continue,
            Ok(()) = draining.changed() => {
                let phase = Phase::before_the_end(*draining.borrow_and_update());
                server.turn_to(phase);
                continue;
            }
            accepted = listener.accept(), if open => accepted,
        };
        match accepted {
            Some(Ok((stream, address))) => {
                let Ok(place) = Arc::clone(&connections).try_acquire_owned() else {
                    server.complain(
                        address,
                        "turned away: as many connections as allowed are open",
                    );
                    continue;
                };
                let caller = Caller {
                    server: Arc::clone(&server),
                    address,
                };
                tasks.spawn(async move {
                    caller.serve(stream).await;
                    drop(place);
                });
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection of another node could not be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
            // Nobody can connect any more; what is connected goes on.
            None => open = false,
        }
    }
    drop(listener);
    server.drain(&mut tasks).await;
    Ok(())
}

impl Server {
    /// An operator has the node drain, or serve again.
    fn turn_to(&self, phase: Phase) {
        let changed = self.phase.send_if_modified(|was| {
            let changed = *was != phase;
            *was = phase;
            changed
        });
        if changed && phase == Phase::Draining {
            tracing::info!("no new sessions of other nodes are taken; running ones go on");
        } else if changed {
            tracing::info!("sessions of other nodes are taken again");
        }
    }

    async fn drain(&self, tasks: &mut JoinSet<()>) {
        self.phase.send_replace(Phase::Draining);
        let running = self.config.sessions - self.places.available_permits();
        tracing::info!(
            running,
            "no new sessions are taken; waiting for the running ones"
        );
        // All places are free when no session runs. The configuration's limit is far below what fits.
        let all = self.places.acquire_many(self.config.sessions as u32);
        if timeout(self.config.drain_within, all).await.is_err() {
            let running = self.config.sessions - self.places.available_permits();
            tracing::warn!(running, "sessions are cut: they did not end in time");
        }
        self.phase.send_replace(Phase::Closing);
        let closed = async { while tasks.join_next().await.is_some() {} };
        if timeout(CLOSE_WITHIN, closed).await.is_err() {
            tasks.shutdown().await;
        }
    }

    /// A line about a stranger.
    pub(crate) fn complain(&self, address: SocketAddr, problem: &str) {
        if let Some(held_back) = self.quiet.line() {
            tracing::warn!(%address, held_back, "{problem}");
        }
    }
}
