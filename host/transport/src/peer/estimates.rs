//! What is measured of the link to one peer, shared by all that see some of it.

use std::sync::Mutex;

use msao_core::offload::Node;
use msao_link::estimate::{
    Bandwidth, EstimateConfig, Heartbeat, LinkEstimator, LinkSpread, Transfer,
};
use msao_session::frame;

use crate::clock::Clock;
use crate::figures::from_heartbeat;
use crate::lock;

pub(super) struct Estimates {
    clock: Clock,
    /// A smaller transfer shows no bandwidth.
    least_bytes: u64,
    inner: Mutex<Inner>,
}

struct Inner {
    link: LinkEstimator,
    /// When anything came last.
    news_ms: f64,
    /// When a direction's bandwidth was last seen.
    up_ms: Option<f64>,
    down_ms: Option<f64>,
    /// Of the last heartbeat from the peer: its clock, and when it came.
    last: Option<(f64, f64)>,
}

impl Estimates {
    pub(super) fn new(config: &EstimateConfig) -> Estimates {
        let clock = Clock::new();
        Estimates {
            clock,
            least_bytes: u64::from(config.transfer_kib) << 10,
            inner: Mutex::new(Inner {
                link: LinkEstimator::new(config, clock.now_ms()),
                news_ms: 0.0,
                up_ms: None,
                down_ms: None,
                last: None,
            }),
        }
    }

    pub(super) fn least_bytes(&self) -> u64 {
        self.least_bytes
    }

    pub(super) fn now_ms(&self) -> f64 {
        self.clock.now_ms()
    }

    /// Something came from the peer.
    pub(super) fn news(&self) {
        let now_ms = self.now_ms();
        let mut inner = lock(&self.inner);
        inner.news_ms = now_ms;
        inner.link.news(now_ms);
    }

    /// How long nothing has come, ms.
    pub(super) fn silent_ms(&self) -> f64 {
        let now_ms = self.now_ms();
        now_ms - lock(&self.inner).news_ms
    }

    /// A connection begins: silence counts from now, and an old heartbeat is not answered.
    pub(super) fn connected(&self) {
        let now_ms = self.now_ms();
        let mut inner = lock(&self.inner);
        inner.news_ms = now_ms;
        inner.last = None;
    }

    pub(super) fn lost(&self) {
        lock(&self.inner).link.lost();
    }

    /// A heartbeat from the peer.
    pub(super) fn heartbeat(&self, theirs: &frame::Heartbeat) {
        let now_ms = self.now_ms();
        let mut inner = lock(&self.inner);
        inner.news_ms = now_ms;
        inner.last = Some((theirs.sent_ms, now_ms));
        if let Some(echo_ms) = theirs.echo_ms {
            inner.link.heartbeat(Heartbeat {
                sent_ms: echo_ms,
                peer_received_ms: theirs.sent_ms - theirs.held_ms,
                peer_sent_ms: theirs.sent_ms,
                received_ms: now_ms,
            });
        }
        inner.link.report(now_ms, from_heartbeat(theirs));
    }

    /// Puts the times into a heartbeat that goes to the peer.
    pub(super) fn stamp(&self, ours: &mut frame::Heartbeat) {
        let now_ms = self.now_ms();
        let inner = lock(&self.inner);
        ours.sent_ms = now_ms;
        ours.echo_ms = inner.last.map(|(theirs_ms, _)| theirs_ms);
        ours.held_ms = inner
            .last
            .map_or(0.0, |(_, came_ms)| (now_ms - came_ms).max(0.0));
    }

    /// Bytes went to the peer.
    pub(super) fn uplink(&self, transfer: Transfer) {
        let now_ms = self.now_ms();
        let mut inner = lock(&self.inner);
        inner.link.uplink(now_ms, transfer);
        if transfer.bytes >= self.least_bytes {
            inner.up_ms = Some(now_ms);
        }
    }

    /// Bytes came from the peer.
    pub(super) fn downlink(&self, transfer: Transfer) {
        let now_ms = self.now_ms();
        let mut inner = lock(&self.inner);
        inner.link.downlink(now_ms, transfer);
        if transfer.bytes >= self.least_bytes {
            inner.down_ms = Some(now_ms);
        }
    }

    /// How long ago each direction's bandwidth was seen, ms: up, down.
    pub(super) fn bandwidth_age_ms(&self) -> [Option<f64>; 2] {
        let now_ms = self.now_ms();
        let inner = lock(&self.inner);
        [inner.up_ms, inner.down_ms].map(|seen| seen.map(|seen_ms| now_ms - seen_ms))
    }

    pub(super) fn plan(&self, request: u64, work_ms: f64) {
        lock(&self.inner).link.planned.plan(request, work_ms);
    }

    pub(super) fn settle(&self, request: u64) {
        lock(&self.inner).link.planned.settle(request);
    }

    pub(super) fn bandwidth(&self) -> Bandwidth {
        lock(&self.inner).link.bandwidth()
    }

    pub(super) fn remember(&self, before: Bandwidth) {
        lock(&self.inner).link.remember(before);
    }

    pub(super) fn spread(&self) -> LinkSpread {
        lock(&self.inner).link.spread()
    }

    pub(super) fn fill(&self, node: &mut Node) {
        let now_ms = self.now_ms();
        lock(&self.inner).link.fill(now_ms, node);
    }
}
