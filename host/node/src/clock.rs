//! The node's clocks.

use std::time::{Duration, Instant, SystemTime};

/// A monotonic clock in ms since the node started.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Clock {
        Clock(Instant::now())
    }
}

impl Clock {
    /// Now.
    pub fn now_ms(self) -> f64 {
        self.0.elapsed().as_secs_f64() * 1000.0
    }

    /// Sleeps until the clock shows `due_ms`; for ever without one.
    pub async fn until(self, due_ms: Option<f64>) {
        match due_ms.filter(|due_ms| due_ms.is_finite()) {
            Some(due_ms) => {
                let left_ms = (due_ms - self.now_ms()).clamp(0.0, 1e9);
                tokio::time::sleep(Duration::from_secs_f64(left_ms / 1000.0)).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Wall clock, ms since 1970.
pub fn since_1970_ms() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64() * 1000.0)
}
