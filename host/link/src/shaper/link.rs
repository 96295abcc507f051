//! The handle of a link: starts it, puts it under streams, changes it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::bandwidth::Bandwidth;
use super::config::{ConfigError, DirectionConfig, LinkConfig};
use super::pipe::{Delay, Pipe};
use super::pump;
use super::shared::{Member, Shared};
use super::stream::ShapedStream;
use super::supply::Supply;
use super::timeline::Timeline;
use super::trace::{Trace, TraceError};
use super::{Direction, End, Nanos, nanos, nanos_of_ms};

/// Why a link was not started.
#[derive(Debug, Error)]
pub enum LinkError {
    /// A value that may not be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A trace that cannot be used.
    #[error("link.{direction}.trace: {file}: {source}", file = .file.display())]
    Trace {
        /// `up` or `down`.
        direction: &'static str,
        /// The trace's file.
        file: PathBuf,
        /// What is wrong with it.
        source: TraceError,
    },
    /// Called outside a tokio runtime.
    #[error("a link needs a tokio runtime; start it from within one, with its time enabled")]
    NoRuntime,
}

/// What went through a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionTraffic {
    /// Bytes that were written into it.
    pub accepted_bytes: u64,
    /// Bytes that came out of it.
    pub delivered_bytes: u64,
    /// Bytes that wait, are under way, or are unread.
    pub held_bytes: u64,
}

/// What went through a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the edge to the cloud.
    pub up: DirectionTraffic,
    /// From the cloud to the edge.
    pub down: DirectionTraffic,
}

/// A link, and the handle to change it. Clones are the same link.
///
/// Its time is that of the runtime it was started in. It goes on as long as a clone or a stream of it is there.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Link")
            .field("traffic", &self.traffic())
            .finish()
    }
}

impl Link {
    /// Reads the traces, and starts the link; stalls and cuts count from now. Needs the time of a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn start(config: &LinkConfig) -> Result<Link, LinkError> {
        config.check()?;
        let runtime = Handle::try_current().map_err(|_| LinkError::NoRuntime)?;
        let pipe = |number, name, direction: &DirectionConfig| {
            let delay = Delay {
                mean: nanos_of_ms(direction.delay_ms),
                jitter: nanos_of_ms(direction.jitter_ms),
            };
            let bytes = |kib: u32| kib as usize * 1024;
            let (queue, window) = (bytes(config.queue_kib), bytes(config.window_kib));
            let supply = supply(name, direction)?;
            Ok::<_, LinkError>(Pipe::new(supply, delay, config.seed, number, queue, window))
        };
        let (up, down) = (pipe(0, "up", &config.up)?, pipe(1, "down", &config.down)?);
        let shared = Shared::start(runtime, up, down, Timeline::new(config));
        Ok(Link { shared })
    }

    /// Puts the link under a stream. `end` says which of its ends the returned stream belongs to: a client at the edge
    /// wraps what it connected with [`End::Edge`], a server in the cloud what it accepted with [`End::Cloud`]; one of the
    /// two is enough.
    ///
    /// The returned stream behaves as a socket: what is written goes its way without being flushed, also after the stream
    /// is dropped (for a minute at most). While the link is down it is reset from the start.
    ///
    /// After a cut the other end sees what `stream` does when it is dropped; [`Link::wrap_tcp`] resets it.
    pub fn wrap<S>(&self, stream: S, end: End) -> ShapedStream
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.wrap_with(stream, end, |_| {})
    }

    /// [`Link::wrap`] for TCP: after a cut the other end is reset as well.
    pub fn wrap_tcp(&self, stream: TcpStream, end: End) -> ShapedStream {
        self.wrap_with(stream, end, |stream| {
            // Fails only on a socket that is gone already.
            let _ = stream.set_zero_linger();
        })
    }

    fn wrap_with<S>(&self, stream: S, end: End, cut: fn(&mut S)) -> ShapedStream
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let member = Arc::new(Member::join(&self.shared));
        let pump = pump::run(stream, Arc::clone(&member), end, cut);
        self.shared.runtime.spawn(pump);
        ShapedStream::new(member, end)
    }

    /// Waits as long as opening a connection over the link takes: a round trip. Connections themselves are opened below
    /// the link and know nothing of its delay.
    ///
    /// # Errors
    /// `ConnectionRefused` if the link is down.
    pub async fn handshake(&self) -> io::Result<()> {
        let (round_trip, down) = self.shared.with(|state, now| {
            let [up, down] = state.both().map(|pipe| pipe.mean_delay());
            (up.saturating_add(down), !state.is_up(now))
        });
        sleep(Duration::from_nanos(round_trip)).await;
        if down || !self.is_up() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(())
    }

    /// Resets all connections. New ones can be had at once, unless the link is down.
    pub fn cut(&self) {
        self.shared.with(|state, _| state.cut(0));
    }

    /// Resets all connections, and resets new ones until [`Link::bring_up`].
    pub fn take_down(&self) {
        self.shared.with(|state, _| state.cut(Nanos::MAX));
    }

    /// Lets new connections be had again, also if the schedule says otherwise.
    pub fn bring_up(&self) {
        self.shared.with(|state, _| state.bring_up());
    }

    /// Whether a connection can be had.
    pub fn is_up(&self) -> bool {
        self.shared.with(|state, now| state.is_up(now))
    }

    /// Lets nothing pass from now on for `duration`, in either direction. Nothing is lost.
    pub fn stall(&self, duration: Duration) {
        self.shared.with(|state, now| {
            let until = now.saturating_add(nanos(duration));
            state
                .both()
                .into_iter()
                .for_each(|pipe| pipe.stall(now, until));
        });
    }

    /// Sets a direction's bandwidth, also in place of a trace. None: as fast as it goes.
    pub fn set_bandwidth(&self, direction: Direction, bandwidth: Option<Bandwidth>) {
        let supply = bandwidth.map_or(Supply::Unlimited, Supply::Constant);
        self.shared
            .with(|state, now| state.pipe(direction).set_supply(now, supply));
    }

    /// Lets a direction follow a trace, from its beginning.
    pub fn set_trace(&self, direction: Direction, trace: Trace) {
        self.shared.with(|state, now| {
            let supply = Supply::Trace(Arc::new(trace), now);
            state.pipe(direction).set_supply(now, supply);
        });
    }

    /// Sets a direction's delay and jitter, as in [`DirectionConfig`]; a jitter above the delay counts as the delay. What
    /// is under way keeps its own.
    pub fn set_delay(&self, direction: Direction, delay: Duration, jitter: Duration) {
        let (mean, jitter) = (nanos(delay), nanos(jitter.min(delay)));
        let delay = Delay { mean, jitter };
        self.shared
            .with(|state, now| state.pipe(direction).set_delay(now, delay));
    }

    /// What went through so far.
    pub fn traffic(&self) -> Traffic {
        self.shared.with(|state, _| {
            let [up, down] = state.both().map(|pipe| DirectionTraffic {
                accepted_bytes: pipe.accepted,
                delivered_bytes: pipe.delivered,
                held_bytes: pipe.held() as u64,
            });
            Traffic { up, down }
        })
    }
}

pub(super) fn supply(name: &'static str, direction: &DirectionConfig) -> Result<Supply, LinkError> {
    if let Some(trace) = &direction.trace {
        let read = Trace::read(&trace.file, trace.format);
        return match read {
            Ok(trace) => Ok(Supply::Trace(Arc::new(trace), 0)),
            Err(source) => Err(LinkError::Trace {
                direction: name,
                file: trace.file.clone(),
                source,
            }),
        };
    }
    Ok(direction
        .bandwidth
        .map_or(Supply::Unlimited, Supply::Constant))
}
