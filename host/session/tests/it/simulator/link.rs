//! One direction of a link: in order, with a delay and a bandwidth.

#[derive(Clone, Copy, Debug)]
pub struct Direction {
    pub delay_ms: f64,
    pub bandwidth_bps: f64,
    /// The last byte of what was sent leaves at this time.
    free_ms: f64,
    arrived_ms: f64,
}

impl Direction {
    pub fn new(delay_ms: f64, bandwidth_bps: f64) -> Self {
        Direction {
            delay_ms,
            bandwidth_bps,
            free_ms: 0.0,
            arrived_ms: 0.0,
        }
    }

    /// When what is sent now arrives, `more_ms` later than usual but never before what was sent earlier.
    pub fn send(&mut self, now_ms: f64, bytes: usize, more_ms: f64) -> f64 {
        self.free_ms = self.free_ms.max(now_ms) + 8000.0 * bytes as f64 / self.bandwidth_bps;
        self.arrived_ms = self.arrived_ms.max(self.free_ms + self.delay_ms + more_ms);
        self.arrived_ms
    }

    /// A new stream knows nothing of the old one's queue.
    pub fn reset(&mut self) {
        self.free_ms = 0.0;
        self.arrived_ms = 0.0;
    }
}
