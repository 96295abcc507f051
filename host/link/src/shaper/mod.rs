//! A link in the process: bandwidth, delay, jitter, stalls, cuts and traces under any byte stream.
//!
//! A [`Link`] is one pipe each way. Every stream that [`Link::wrap`] wraps goes through it, at whichever end, so wrap a
//! connection at one end only. Connections share a direction's bandwidth in turns of at most 1500 bytes, as under a fair
//! queueing discipline.
//!
//! ```text
//! write ─> queue (bounded, then back pressure) ─> bandwidth ─> delay ± jitter, in order ─> read
//!          └ queue-kib                            └ trace       └────── window-kib ──────┘
//! ```
//!
//! Bandwidth is that of the bytes which the streams carry; headers below them are not counted. Sums are exact, but bytes
//! are handed over at tokio's timer ticks, one a millisecond, each at the tick next to its moment: under the paused clock
//! a byte is at most 0.5 ms early or late, and nothing of that adds up. In real time the thread has to wake up as well.
//! A queue should hold what passes in a few ms (at 1 Gbit/s, 125 KB a ms), else the link runs dry between ticks.
//!
//! A [`Course`] is the same on a clock of the caller's, without any bytes.
//!
//! What is not shaped: opening a connection below (see [`Link::handshake`]), loss and reordering, which a byte stream
//! does not show but as delay.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use msao_link::shaper::{End, Link, LinkConfig};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let config: LinkConfig = toml::from_str(
//!     r#"
//!     seed = 7
//!     up = { bandwidth = "20 Mbit/s", delay-ms = 40.0, jitter-ms = 5.0 }
//!     down = { bandwidth = "50 Mbit/s", delay-ms = 40.0 }
//!     "#,
//! )?;
//! let link = Link::start(&config)?;
//! let (edge, mut cloud) = tokio::io::duplex(64 << 10);
//! let mut edge = link.wrap(edge, End::Edge);
//!
//! let sent = tokio::time::Instant::now();
//! edge.write_all(b"a question").await?;
//! let mut question = [0; 10];
//! cloud.read_exact(&mut question).await?;
//! assert!((34..=46).contains(&sent.elapsed().as_millis()));
//!
//! link.cut();
//! let error = edge.write_all(b"another").await.unwrap_err();
//! assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
//! # Ok(())
//! # }
//! ```

mod bandwidth;
mod config;
mod course;
mod lane;
mod link;
mod pipe;
mod pump;
mod shared;
mod stream;
mod supply;
mod timeline;
mod trace;

use std::time::Duration;

pub use self::bandwidth::{Bandwidth, BandwidthError};
pub use self::config::{ConfigError, DirectionConfig, LinkConfig, Pause, TraceConfig};
pub use self::course::{Course, Passage};
pub use self::link::{DirectionTraffic, Link, LinkError, Traffic};
pub use self::stream::ShapedStream;
pub use self::trace::{Trace, TraceError, TraceFormat};

/// Nanoseconds since the link was started.
type Nanos = u64;

const NANOS_PER_MS: Nanos = 1_000_000;
const NANOS_PER_S: Nanos = 1_000_000_000;

/// What one connection sends at a turn, in bytes: a packet on an Ethernet.
const SEGMENT: usize = 1500;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the edge to the cloud.
    Up,
    /// From the cloud to the edge.
    Down,
}

/// Which end of the link a stream belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// What is written goes up, what is read came down.
    Edge,
    /// What is written goes down, what is read came up.
    Cloud,
}

impl End {
    fn writes(self) -> Direction {
        match self {
            End::Edge => Direction::Up,
            End::Cloud => Direction::Down,
        }
    }

    fn reads(self) -> Direction {
        match self {
            End::Edge => Direction::Down,
            End::Cloud => Direction::Up,
        }
    }
}

fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

/// For values that the configuration has checked: finite, not negative, small.
fn nanos_of_ms(ms: f64) -> Nanos {
    (ms * NANOS_PER_MS as f64).round() as Nanos
}
