//! What a node knows of a link and of itself, from what it has seen. No I/O, no clock: the caller says when.
//!
//! All times are ms of one monotonic clock of the caller's, counted from any moment before; where a peer's clock comes in, its
//! offset cancels out. A time before one that was told earlier counts as the later of the two. Samples that cannot be (not
//! finite, negative, ending before they begin) are ignored. What comes out is what [`Node`] documents: never negative, never
//! NaN, [`UNKNOWN`] for what was never seen.
//!
//! Read first: [`LinkEstimator`] (one a peer), [`Speeds`] (one a node), [`Figures`] (what a node tells its peers).
//!
//! ```
//! use msao_core::offload::Node;
//! use msao_link::estimate::{EstimateConfig, Heartbeat, LinkEstimator, Transfer};
//!
//! let mut link = LinkEstimator::new(&EstimateConfig::default(), 0.0);
//! // The peer's clock is some hours off; it took 1 ms to answer.
//! link.heartbeat(Heartbeat {
//!     sent_ms: 500.0,
//!     peer_received_ms: 9_000_010.0,
//!     peer_sent_ms: 9_000_011.0,
//!     received_ms: 521.0,
//! });
//! // 250 KB, acknowledged after 120 ms, 20 of which are the round trip: 20 Mbit/s.
//! link.uplink(720.0, Transfer { bytes: 250_000, start_ms: 600.0, end_ms: 720.0, acknowledged: true });
//!
//! let mut node = Node::default();
//! link.fill(800.0, &mut node);
//! assert_eq!((node.rtt_ms, node.uplink_bps.round(), node.age_ms), (20.0, 20e6, 80.0));
//! // Nothing has come down yet.
//! assert_eq!(node.downlink_bps, -1.0);
//! ```
//!
//! [`Node`]: msao_core::offload::Node

mod average;
mod bandwidth;
mod config;
mod figures;
mod link;
mod planned;
mod round_trip;
mod speeds;
mod stalls;

pub use self::average::Average;
pub use self::bandwidth::{BandwidthEstimator, Transfer};
pub use self::config::{EstimateConfig, EstimateConfigError};
pub use self::figures::Figures;
pub use self::link::{Bandwidth, LinkEstimator, LinkSpread};
pub use self::planned::PlannedWork;
pub use self::round_trip::{Heartbeat, RoundTripEstimator};
pub use self::speeds::{QueueEstimator, RateEstimator, SpeedSpread, Speeds};
pub use self::stalls::StallEstimator;

/// What is not known.
pub const UNKNOWN: f64 = -1.0;

/// Times are taken for this at most, some 30,000 years, so that their differences keep their digits.
const LATEST_MS: f64 = 1e15;

/// Time that only goes forward, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Latest(f64);

impl Latest {
    /// The later of `now_ms` and all before; what is not finite counts as no news.
    fn at(&mut self, now_ms: f64) -> f64 {
        self.0 = self.peek(now_ms);
        self.0
    }

    fn peek(self, now_ms: f64) -> f64 {
        if now_ms.is_finite() {
            self.0.max(now_ms.min(LATEST_MS))
        } else {
            self.0
        }
    }
}

/// Whether a sample can be.
fn amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}
