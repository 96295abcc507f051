//! Bandwidth of one direction, from transfers that were large enough to show it.

use super::average::Average;
use super::config::EstimateConfig;
use super::{UNKNOWN, amount};

/// Fastest that is believed, bit/s: transfers that took no time at all on the clock would else be infinite.
const MOST_BPS: f64 = 1e12;
/// A transfer acknowledged after a time of which the round trip is more than this share shows the round trip, not the
/// bandwidth.
const MOST_ROUND_TRIP: f64 = 0.5;

/// Bytes that went one way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transfer {
    /// How many.
    pub bytes: u64,
    /// When the first byte went, or came.
    pub start_ms: f64,
    /// When the last byte came, or the sender learned of it; by the same clock as `start_ms`.
    pub end_ms: f64,
    /// `end_ms` is when the sender had the acknowledgement, so that a round trip is in between. Otherwise both are the
    /// receiver's.
    pub acknowledged: bool,
}

/// Bandwidth of one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct BandwidthEstimator {
    least_bytes: u64,
    bps: Average,
    /// As it was before a restart: what is said until a transfer shows what it is now.
    remembered_bps: f64,
}

impl BandwidthEstimator {
    /// Nothing seen yet.
    pub fn new(config: &EstimateConfig) -> BandwidthEstimator {
        BandwidthEstimator {
            least_bytes: config.transfer_kib.saturating_mul(1024).into(),
            bps: Average::new(config.weight),
            remembered_bps: UNKNOWN,
        }
    }

    /// Takes `bps` for granted until the first transfer; what cannot be a bandwidth is not taken.
    pub fn remember(&mut self, bps: f64) {
        if amount(bps) && bps <= MOST_BPS {
            self.remembered_bps = bps;
        }
    }

    /// Takes a transfer in, if it shows the bandwidth: large, and long beside the round trip, which is taken off one that
    /// was acknowledged (`rtt_ms` below 0: unknown, nothing is taken off). Says whether it did.
    pub fn transfer(&mut self, transfer: Transfer, rtt_ms: f64) -> bool {
        let lasted_ms = transfer.end_ms - transfer.start_ms;
        if transfer.bytes < self.least_bytes || !amount(lasted_ms) || lasted_ms == 0.0 {
            return false;
        }
        let waited_ms = if transfer.acknowledged && amount(rtt_ms) {
            rtt_ms
        } else {
            0.0
        };
        if waited_ms > lasted_ms * MOST_ROUND_TRIP {
            return false;
        }
        let bits = transfer.bytes as f64 * 8.0;
        let bps = bits * 1000.0 / (lasted_ms - waited_ms);
        self.bps.sample(bps.min(MOST_BPS));
        true
    }

    /// Bits per second; before the first transfer that showed it what is remembered, or [`UNKNOWN`].
    pub fn bps(&self) -> f64 {
        self.bps.mean().unwrap_or(self.remembered_bps)
    }

    /// Its standard deviation; [`UNKNOWN`] before the second.
    pub fn sd_bps(&self) -> f64 {
        self.bps.standard_deviation().unwrap_or(UNKNOWN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_counts_until_something_is_seen() {
        let mut estimator = BandwidthEstimator::new(&EstimateConfig::default());
        for wrong in [f64::NAN, -5.0, f64::INFINITY, 2e12] {
            estimator.remember(wrong);
            assert_eq!(estimator.bps(), UNKNOWN);
        }
        estimator.remember(3e6);
        assert_eq!((estimator.bps(), estimator.sd_bps()), (3e6, UNKNOWN));
        let transfer = Transfer {
            bytes: 1_000_000,
            start_ms: 0.0,
            end_ms: 1000.0,
            acknowledged: false,
        };
        assert!(estimator.transfer(transfer, UNKNOWN));
        assert_eq!(estimator.bps(), 8e6);
    }

    #[test]
    fn small_transfers_and_round_trips_do_not_count() {
        let mut estimator = BandwidthEstimator::new(&EstimateConfig::default());
        let transfer = |bytes, end_ms, acknowledged| Transfer {
            bytes,
            start_ms: 0.0,
            end_ms,
            acknowledged,
        };
        assert!(!estimator.transfer(transfer(65_535, 10.0, false), 0.0));
        assert!(!estimator.transfer(transfer(1 << 20, 0.0, false), 0.0));
        assert!(!estimator.transfer(transfer(1 << 20, -1.0, false), 0.0));
        assert!(!estimator.transfer(transfer(1 << 20, 30.0, true), 20.0));
        assert_eq!((estimator.bps(), estimator.sd_bps()), (UNKNOWN, UNKNOWN));
        assert!(estimator.transfer(transfer(1_000_000, 100.0, true), 20.0));
        assert!((estimator.bps() - 1e8).abs() < 1.0);
        assert_eq!(estimator.sd_bps(), UNKNOWN);
        assert!(estimator.transfer(transfer(1_000_000, 80.0, true), -1.0));
        assert!((estimator.bps() - 1e8).abs() < 1.0);
        assert!(estimator.sd_bps() < 1.0);
    }
}
