//! How long requests wait for a model's seat.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Who waits for a seat, and since when.
#[derive(Debug, Default)]
pub struct Waits {
    next: AtomicU64,
    /// In the order in which they came.
    since: Mutex<BTreeMap<u64, Instant>>,
}

impl Waits {
    /// Somebody waits, until what this gives is dropped.
    pub fn begin(self: &Arc<Self>) -> Wait {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.since().insert(number, Instant::now());
        Wait {
            waits: Arc::clone(self),
            number,
        }
    }

    /// How long whoever came first has waited, in ms; 0 where nobody waits.
    pub fn oldest_ms(&self) -> f64 {
        let since = self.since();
        let first = since.first_key_value();
        first.map_or(0.0, |(_, since)| since.elapsed().as_secs_f64() * 1000.0)
    }

    fn since(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits.
#[derive(Debug)]
pub struct Wait {
    waits: Arc<Waits>,
    number: u64,
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waits.since().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_who_still_waits_counts() {
        let waits = Arc::new(Waits::default());
        assert_eq!(waits.oldest_ms(), 0.0);
        let first = waits.begin();
        std::thread::sleep(Duration::from_millis(20));
        let second = waits.begin();
        assert!(waits.oldest_ms() >= 20.0);
        drop(first);
        assert!(waits.oldest_ms() < waits.since()[&1].elapsed().as_secs_f64() * 1000.0 + 1.0);
        drop(second);
        assert_eq!(waits.oldest_ms(), 0.0);
    }
}
