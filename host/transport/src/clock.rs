//! The own monotonic clock, in ms, as estimators and heartbeats count it.

use tokio::time::Instant;

/// Counts from when it was made. Tokio's clock, so that tests can pause it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock(Instant::now())
    }

    pub(crate) fn now_ms(self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1000.0
    }
}
