//! All that is known of the link to one peer, and of the peer.

use msao_core::offload::Node;
use serde::{Deserialize, Serialize};

use super::average::Average;
use super::bandwidth::{BandwidthEstimator, Transfer};
use super::config::EstimateConfig;
use super::figures::Figures;
use super::planned::PlannedWork;
use super::round_trip::{Heartbeat, RoundTripEstimator};
use super::stalls::StallEstimator;
use super::{Latest, UNKNOWN};

/// How far what is known of a peer wanders, for people; [`UNKNOWN`] for what is not known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LinkSpread {
    /// Standard deviation of the bandwidth to it.
    pub uplink_sd_bps: f64,
    /// Standard deviation of the bandwidth from it.
    pub downlink_sd_bps: f64,
    /// Mean deviation of the round trip.
    pub jitter_ms: f64,
    /// Exponentially weighted mean of its queue, as it tells it.
    pub queue_mean_ms: f64,
    /// Standard deviation of its queue.
    pub queue_sd_ms: f64,
}

/// What of a link is worth knowing after a restart; [`UNKNOWN`] for what is not known. The round trip is not: the first
/// heartbeat tells it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Bandwidth {
    /// To the peer, bit/s.
    pub uplink_bps: f64,
    /// From it, bit/s.
    pub downlink_bps: f64,
}

impl Bandwidth {
    /// Nothing is known.
    pub const UNKNOWN: Bandwidth = Bandwidth {
        uplink_bps: UNKNOWN,
        downlink_bps: UNKNOWN,
    };
}

/// The estimates of one peer. Times are by the own clock except where said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkEstimator {
    uplink: BandwidthEstimator,
    downlink: BandwidthEstimator,
    round_trip: RoundTripEstimator,
    stalls: StallEstimator,
    now: Latest,
    /// When an estimate changed last.
    changed_ms: Option<f64>,
    peer: Figures,
    /// The peer's queue, as it was told.
    queue_ms: Average,
    /// What was planned onto the peer from here.
    pub planned: PlannedWork,
}

impl LinkEstimator {
    /// Nothing seen yet; from `now_ms` on, heartbeats are expected.
    pub fn new(config: &EstimateConfig, now_ms: f64) -> LinkEstimator {
        LinkEstimator {
            uplink: BandwidthEstimator::new(config),
            downlink: BandwidthEstimator::new(config),
            round_trip: RoundTripEstimator::new(config),
            stalls: StallEstimator::new(config, now_ms),
            now: Latest::default(),
            changed_ms: None,
            peer: Figures::UNKNOWN,
            queue_ms: Average::new(config.weight),
            planned: PlannedWork::default(),
        }
    }

    /// What is to be known after a restart.
    pub fn bandwidth(&self) -> Bandwidth {
        Bandwidth {
            uplink_bps: self.uplink.bps(),
            downlink_bps: self.downlink.bps(),
        }
    }

    /// Takes for granted what was known before a restart, for each direction until a transfer shows what it is now.
    pub fn remember(&mut self, before: Bandwidth) {
        self.uplink.remember(before.uplink_bps);
        self.downlink.remember(before.downlink_bps);
    }

    /// Anything came from the peer.
    pub fn news(&mut self, now_ms: f64) {
        let now_ms = self.now.at(now_ms);
        self.stalls.news(now_ms);
    }

    /// The answer to a heartbeat came, at `heartbeat.received_ms`.
    pub fn heartbeat(&mut self, heartbeat: Heartbeat) {
        self.news(heartbeat.received_ms);
        if self.round_trip.heartbeat(heartbeat) {
            self.changed_ms = Some(self.now.0);
        }
    }

    /// Bytes went to the peer, as its acknowledgement, or its report of when it had them (then by its clock), says now.
    pub fn uplink(&mut self, now_ms: f64, transfer: Transfer) {
        self.news(now_ms);
        if self.uplink.transfer(transfer, self.round_trip.rtt_ms()) {
            self.changed_ms = Some(self.now.0);
        }
    }

    /// Bytes came from the peer, the last ones now.
    pub fn downlink(&mut self, now_ms: f64, transfer: Transfer) {
        self.news(now_ms);
        if self.downlink.transfer(transfer, self.round_trip.rtt_ms()) {
            self.changed_ms = Some(self.now.0);
        }
    }

    /// The peer told its own figures, usually with a heartbeat.
    pub fn report(&mut self, now_ms: f64, figures: Figures) {
        self.news(now_ms);
        self.peer = figures.checked();
        self.queue_ms.sample(self.peer.queue_ms);
    }

    /// The peer was lost: what was planned onto it will not run there, and its figures say nothing any more. What is known
    /// of the link stays.
    pub fn lost(&mut self) {
        self.peer = Figures::UNKNOWN;
        self.planned.clear();
    }

    /// The round trip without queueing, in ms; [`UNKNOWN`] before the first heartbeat.
    pub fn rtt_ms(&self) -> f64 {
        self.round_trip.rtt_ms()
    }

    /// How far what is known of the peer wanders.
    pub fn spread(&self) -> LinkSpread {
        LinkSpread {
            uplink_sd_bps: self.uplink.sd_bps(),
            downlink_sd_bps: self.downlink.sd_bps(),
            jitter_ms: self.round_trip.jitter_ms(),
            queue_mean_ms: self.queue_ms.mean().unwrap_or(UNKNOWN),
            queue_sd_ms: self.queue_ms.standard_deviation().unwrap_or(UNKNOWN),
        }
    }

    /// Writes what is known into the peer's row, for policies to see. `up`, `can`, `price_per_mtok`, `cached_bytes` and
    /// `confidence_floor` are not measured here and stay as they are.
    pub fn fill(&self, now_ms: f64, node: &mut Node) {
        let now_ms = self.now.peek(now_ms);
        node.uplink_bps = self.uplink.bps();
        node.uplink_sd_bps = self.uplink.sd_bps();
        node.downlink_bps = self.downlink.bps();
        node.rtt_ms = self.round_trip.rtt_ms();
        node.jitter_ms = self.round_trip.jitter_ms();
        node.stalled = self.stalls.stalled(now_ms);
        node.age_ms = self.changed_ms.map_or(UNKNOWN, |at| (now_ms - at).max(0.0));
        self.peer.fill(node);
        let own_ms = self.planned.total_ms();
        if node.queue_ms >= 0.0 {
            // What the peer has taken on waits before what comes now. What of it is from here stands under `planned_ms`
            // already: together they are the larger of what is known here and there.
            let others_ms = (self.peer.planned_ms - own_ms).max(0.0);
            node.queue_ms = (node.queue_ms + others_ms).min(f64::MAX);
        }
        node.planned_ms = own_ms;
    }
}
