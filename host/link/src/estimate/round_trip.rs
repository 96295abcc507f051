//! Round trip and jitter, from heartbeats.

use std::collections::VecDeque;

use super::average::Average;
use super::config::EstimateConfig;
use super::{Latest, UNKNOWN, amount};

/// Minima that are kept at most; reached only by heartbeats far more frequent than the configuration's.
const MOST_MINIMA: usize = 1024;

/// A question to a peer, and its answer. The peer's clock may be off by any amount.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heartbeat {
    /// When it was sent, by the own clock.
    pub sent_ms: f64,
    /// When the peer had it, by the peer's clock.
    pub peer_received_ms: f64,
    /// When the peer answered, by the peer's clock.
    pub peer_sent_ms: f64,
    /// When the answer came, by the own clock.
    pub received_ms: f64,
}

impl Heartbeat {
    /// The time on the link: all of it less what the peer took to answer (RFC 5905, section 8, the delay). None if the
    /// moments cannot be.
    pub fn round_trip_ms(&self) -> Option<f64> {
        let whole = self.received_ms - self.sent_ms;
        let at_peer = self.peer_sent_ms - self.peer_received_ms;
        // Clocks run at slightly different speeds, so on a short link the difference may fall below 0.
        (amount(whole) && amount(at_peer)).then_some((whole - at_peer).max(0.0))
    }
}

/// Round trip and jitter of a link.
///
/// The round trip without queueing is the shortest one of late: queues only add to it. Jitter is the smoothed mean
/// deviation from the smoothed round trip (RFC 6298, section 2, with the weight of the configuration).
#[derive(Clone, Debug, PartialEq)]
pub struct RoundTripEstimator {
    window_ms: f64,
    now: Latest,
    /// Candidates for the shortest one, by when they came: each longer than those before it, which expire first.
    minima: VecDeque<(f64, f64)>,
    mean: Average,
    deviation: Average,
}

impl RoundTripEstimator {
    /// Nothing seen yet.
    pub fn new(config: &EstimateConfig) -> RoundTripEstimator {
        RoundTripEstimator {
            window_ms: f64::from(config.rtt_window_ms),
            now: Latest::default(),
            minima: VecDeque::new(),
            mean: Average::new(config.weight),
            deviation: Average::new(config.weight),
        }
    }

    /// Takes a heartbeat in. Says whether it could be used.
    pub fn heartbeat(&mut self, heartbeat: Heartbeat) -> bool {
        let Some(rtt_ms) = heartbeat.round_trip_ms() else {
            return false;
        };
        let now_ms = self.now.at(heartbeat.received_ms);
        if let Some(mean) = self.mean.mean() {
            self.deviation.sample((rtt_ms - mean).abs());
        }
        self.mean.sample(rtt_ms);
        while self
            .minima
            .pop_back_if(|(_, other)| *other >= rtt_ms)
            .is_some()
        {}
        self.minima.push_back((now_ms, rtt_ms));
        let begin = now_ms - self.window_ms;
        // What comes last is always young enough.
        while self.minima.pop_front_if(|(at, _)| *at < begin).is_some() {}
        if self.minima.len() > MOST_MINIMA {
            self.minima.pop_front();
        }
        true
    }

    /// The shortest round trip of the window before the last heartbeat; [`UNKNOWN`] before the first.
    pub fn rtt_ms(&self) -> f64 {
        self.minima.front().map_or(UNKNOWN, |(_, rtt_ms)| *rtt_ms)
    }

    /// Mean deviation of the round trip; [`UNKNOWN`] before the second heartbeat.
    pub fn jitter_ms(&self) -> f64 {
        self.deviation.mean().unwrap_or(UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(at_ms: f64, rtt_ms: f64, offset_ms: f64) -> Heartbeat {
        Heartbeat {
            sent_ms: at_ms,
            peer_received_ms: at_ms + offset_ms,
            peer_sent_ms: at_ms + offset_ms + 3.0,
            received_ms: at_ms + rtt_ms + 3.0,
        }
    }

    #[test]
    fn the_shortest_of_late_counts_whatever_the_peers_clock() {
        let mut estimator = RoundTripEstimator::new(&EstimateConfig::default());
        assert_eq!(
            (estimator.rtt_ms(), estimator.jitter_ms()),
            (UNKNOWN, UNKNOWN)
        );
        for (at_ms, rtt_ms, shortest) in [
            (0.0, 40.0, 40.0),
            (1_000.0, 20.0, 20.0),
            (2_000.0, 90.0, 20.0),
            (11_900.0, 60.0, 60.0),
            (13_000.0, 70.0, 60.0),
        ] {
            assert!(estimator.heartbeat(beat(at_ms, rtt_ms, -1e9)));
            assert_eq!(estimator.rtt_ms(), shortest, "at {at_ms}");
        }
        assert!(!estimator.heartbeat(Heartbeat {
            peer_sent_ms: -1.0,
            ..beat(0.0, 1.0, 0.0)
        }));
    }

    #[test]
    fn jitter_is_the_mean_deviation() {
        let mut estimator = RoundTripEstimator::new(&EstimateConfig::default());
        for step in 0..1000 {
            let rtt_ms = if step % 2 == 0 { 15.0 } else { 25.0 };
            estimator.heartbeat(beat(f64::from(step) * 500.0, rtt_ms, 7.0));
        }
        // The smoothed round trip goes to and fro by a few percent of the 10 ms.
        assert!(
            (estimator.jitter_ms() - 5.0).abs() < 0.5,
            "{}",
            estimator.jitter_ms()
        );
        assert_eq!(estimator.rtt_ms(), 15.0);
    }
}
