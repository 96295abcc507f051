//! A link between two processes that can be changed while they run: connections to it are passed on over it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use msao_link::shaper::{Bandwidth, Direction, End, Link, LinkConfig, Trace};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// It, and where to connect to. Ends when it is dropped.
pub struct Between {
    /// The link, to be changed.
    pub link: Link,
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    serving: JoinHandle<()>,
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Between")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Between {
    /// Starts a link that shapes nothing yet, and listens for who wants to go over it.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start() -> Result<Between> {
        let link = Link::start(&LinkConfig::default())?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port")?;
        let address = listener.local_addr()?;
        let to: Arc<Mutex<Option<SocketAddr>>> = Arc::default();
        let (over, whither) = (link.clone(), Arc::clone(&to));
        let serving = tokio::spawn(async move {
            while let Ok((from, _)) = listener.accept().await {
                let to = *whither.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(to) = to {
                    tokio::spawn(pass(over.clone(), from, to));
                }
            }
        });
        Ok(Between {
            link,
            address,
            to,
            serving,
        })
    }

    /// Where to connect to in order to reach `to` over the link.
    pub fn towards(&self, to: SocketAddr) -> SocketAddr {
        *self.to.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
        self.address
    }

    /// Sets bandwidth, in bits a second, and round trip, in ms, of both directions.
    ///
    /// # Errors
    /// No link has such a bandwidth.
    pub fn set(&self, bps: u64, round_trip_ms: f64) -> Result<()> {
        let bandwidth = Bandwidth::from_bps(bps)?;
        for direction in [Direction::Up, Direction::Down] {
            self.link.set_bandwidth(direction, Some(bandwidth));
        }
        self.set_round_trip(round_trip_ms);
        Ok(())
    }

    /// Has the way to the cloud follow a trace, and leaves the way back as fast as it goes.
    pub fn follow(&self, trace: Trace, round_trip_ms: f64) {
        self.link.set_trace(Direction::Up, trace);
        self.link.set_bandwidth(Direction::Down, None);
        self.set_round_trip(round_trip_ms);
    }

    fn set_round_trip(&self, ms: f64) {
        let delay = Duration::from_secs_f64(ms / 2000.0);
        for direction in [Direction::Up, Direction::Down] {
            self.link.set_delay(direction, delay, Duration::ZERO);
        }
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Passes one connection on.
async fn pass(link: Link, from: TcpStream, to: SocketAddr) {
    // Who comes while the link is down is reset.
    if link.handshake().await.is_err() {
        let _gone = from.set_zero_linger();
        return;
    }
    let Ok(mut on) = TcpStream::connect(to).await else {
        return;
    };
    let _slower = from.set_nodelay(true).and_then(|()| on.set_nodelay(true));
    let mut over = link.wrap_tcp(from, End::Cloud);
    let _ended = tokio::io::copy_bidirectional(&mut over, &mut on).await;
}
