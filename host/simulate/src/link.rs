//! A link as an edge has it: what passes, and what is known of it. Estimates are made by the nodes' own estimators.
//!
//! Heartbeats are not sent one by one: those that would have come back by now are looked at when somebody wants to know.

use std::collections::VecDeque;

use msao_core::offload::Node;
use msao_link::estimate::{EstimateConfig, Figures, Heartbeat, LinkEstimator, Transfer, UNKNOWN};
use msao_link::shaper::Course;

/// Estimates look back no further.
const LOOK_BACK_MS: f64 = 60_000.0;
/// Bandwidths are measured again after so long (`msao_transport::PeerConfig::probe`).
const MEASURE_EVERY_MS: f64 = 300_000.0;
/// Heartbeats that went while the link was being made.
const FIRST_BEATS: u64 = 8;
/// Figures that a node's peers may still hear of.
const MOST_TOLD: usize = 16;

/// What a node said of itself, and when.
#[derive(Debug, Default)]
pub(crate) struct Told(VecDeque<(f64, Figures)>);

impl Told {
    pub fn tell(&mut self, now_ms: f64, figures: Figures) {
        if self.0.len() >= MOST_TOLD {
            self.0.pop_front();
        }
        self.0.push_back((now_ms, figures));
    }

    /// What it said last by that moment.
    fn by(&self, at_ms: f64) -> Figures {
        let told = self.0.iter().rev().find(|(told_ms, _)| *told_ms <= at_ms);
        told.or(self.0.front())
            .map_or(Figures::UNKNOWN, |(_, figures)| *figures)
    }
}

/// See the module.
pub(crate) struct Link {
    pub up: Course,
    pub down: Course,
    pub estimator: LinkEstimator,
    heartbeat_ms: f64,
    /// When the first heartbeat goes.
    phase_ms: f64,
    beat: u64,
    /// A heartbeat whose figures have not been taken in: when the peer had it, and when its answer came.
    heard: Option<(f64, f64)>,
    /// Bytes of half a measurement.
    half_bytes: u64,
    measured_ms: f64,
    queue_ms: f64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
}

impl Link {
    /// `phase`: in `[0, 1)`, so that not all links are looked at in the same moment.
    pub fn new(up: Course, down: Course, config: &EstimateConfig, phase: f64) -> Link {
        let heartbeat_ms = f64::from(config.heartbeat_ms);
        let mut link = Link {
            up,
            down,
            estimator: LinkEstimator::new(config, 0.0),
            heartbeat_ms,
            phase_ms: phase * heartbeat_ms,
            beat: 0,
            heard: None,
            half_bytes: u64::from(config.transfer_kib).saturating_mul(1024),
            measured_ms: f64::NEG_INFINITY,
            queue_ms: UNKNOWN,
            sent_bytes: 0,
            received_bytes: 0,
        };
        for beat in 0..FIRST_BEATS {
            link.heard = link.beat(0.0, u64::MAX - beat, f64::INFINITY);
        }
        link.measure(0.0);
        link
    }

    /// Takes in what is known by now. `told`: what the peer said of itself.
    pub fn look(&mut self, now_ms: f64, told: &Told) {
        let oldest = ((now_ms - LOOK_BACK_MS - self.phase_ms) / self.heartbeat_ms).ceil();
        if oldest > self.beat as f64 {
            self.beat = oldest as u64;
        }
        loop {
            let sent_ms = self.phase_ms + self.beat as f64 * self.heartbeat_ms;
            if sent_ms > now_ms {
                break;
            }
            let Some(beat) = self.beat(sent_ms, self.beat, now_ms) else {
                break;
            };
            self.heard = Some(beat);
            self.beat += 1;
        }
        if let Some((there_ms, back_ms)) = self.heard.take() {
            let figures = told.by(there_ms);
            self.estimator.report(back_ms, figures);
            self.queue_ms = figures.queue_ms;
            // Not while nothing comes: a measurement would be news of its own.
            if now_ms - self.measured_ms >= MEASURE_EVERY_MS {
                self.measure(now_ms);
            }
        }
    }

    /// A heartbeat, if it is back by then: when the peer had it, and when its answer came.
    fn beat(&mut self, sent_ms: f64, number: u64, by_ms: f64) -> Option<(f64, f64)> {
        let there_ms = self.up.glance_ms(sent_ms, number);
        let back_ms = self.down.glance_ms(there_ms, number);
        if back_ms > by_ms {
            return None;
        }
        self.estimator.heartbeat(Heartbeat {
            sent_ms,
            peer_received_ms: there_ms,
            peer_sent_ms: there_ms,
            received_ms: back_ms,
        });
        Some((there_ms, back_ms))
    }

    /// As nodes do where no media have shown a bandwidth: the latter half of some bytes, each way. They take nothing of the
    /// link here.
    fn measure(&mut self, now_ms: f64) {
        self.measured_ms = now_ms;
        let bytes = self.half_bytes;
        let took_ms = |course: &Course| {
            let mut course = course.clone();
            let first = course.send(now_ms, bytes);
            course.send(now_ms, bytes).passed_ms - first.passed_ms
        };
        let transfer = |end_ms: f64| Transfer {
            bytes,
            start_ms: 0.0,
            end_ms,
            acknowledged: false,
        };
        let (up_ms, down_ms) = (took_ms(&self.up), took_ms(&self.down));
        self.estimator.uplink(now_ms, transfer(up_ms));
        self.estimator.downlink(now_ms, transfer(down_ms));
    }

    /// Media went up, and passed in so long.
    pub fn uploaded(&mut self, now_ms: f64, bytes: u64, took_ms: f64) {
        let transfer = Transfer {
            bytes,
            start_ms: 0.0,
            end_ms: took_ms,
            acknowledged: false,
        };
        self.estimator.uplink(now_ms, transfer);
    }

    /// Writes into the peer's row what is known.
    pub fn fill(&self, now_ms: f64, node: &mut Node) {
        self.estimator.fill(now_ms, node);
    }

    /// Round trip, and the wait at the peer, in ms; -1 for what is not known.
    pub fn figures(&self) -> (f64, f64) {
        (self.estimator.rtt_ms(), self.queue_ms)
    }
}

#[cfg(test)]
mod tests {
    use msao_link::shaper::LinkConfig;

    use super::*;

    fn link(text: &str) -> Link {
        let config: LinkConfig = toml::from_str(text).unwrap();
        let (up, down) = Course::pair(&config).unwrap();
        Link::new(up, down, &EstimateConfig::default(), 0.5)
    }

    #[test]
    fn a_link_is_known_from_the_beginning_and_figures_come_with_heartbeats() {
        let mut link = link(
            "up = { bandwidth = '20 Mbit/s', delay-ms = 15.0 }\ndown = { bandwidth = '50 Mbit/s', delay-ms = 5.0 }",
        );
        let mut told = Told::default();
        let figures = |queue_ms| Figures {
            queue_ms,
            ..Figures::UNKNOWN
        };
        told.tell(0.0, figures(1.0));
        told.tell(500.0, figures(2.0));
        link.look(100.0, &told);
        let mut node = Node::default();
        link.fill(100.0, &mut node);
        assert_eq!((node.rtt_ms, node.queue_ms), (20.0, 1.0));
        assert!(
            (node.uplink_bps / 20e6 - 1.0).abs() < 0.01,
            "{}",
            node.uplink_bps
        );
        assert!(
            (node.downlink_bps / 50e6 - 1.0).abs() < 0.01,
            "{}",
            node.downlink_bps
        );
        // The first heartbeat goes at 250 ms and was there at 265, before the second figures.
        link.look(600.0, &told);
        assert_eq!(link.figures(), (20.0, 1.0));
        link.look(780.0, &told);
        assert_eq!(link.figures(), (20.0, 2.0));
    }

    #[test]
    fn a_stall_is_seen_while_it_lasts_and_after() {
        let mut link = link(
            "up.delay-ms = 5.0\ndown.delay-ms = 5.0\nstalls = [{ at-ms = 2000, for-ms = 8000 }]",
        );
        let told = Told::default();
        let mut stalled = |now_ms: f64| {
            let mut node = Node::default();
            link.look(now_ms, &told);
            link.fill(now_ms, &mut node);
            node.stalled
        };
        assert_eq!(stalled(1_900.0), 0.0);
        assert!(stalled(8_000.0) > 0.5);
        let after = stalled(20_000.0);
        assert!((0.3..0.5).contains(&after), "{after}");
        // Nobody looks for an hour: it is over, and only the last minute counts.
        assert!(stalled(3_600_000.0) < 0.02);
    }
}
