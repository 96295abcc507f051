//! How long requests wait for a model's seat, and how much of it they are going to want.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use msao_link::estimate::UNKNOWN;

/// Who waits for a seat, and since when.
#[derive(Debug, Default)]
pub struct Waits {
    next: AtomicU64,
    /// In the order in which they came, with the tokens of their prompts.
    since: Mutex<BTreeMap<u64, (Instant, u32)>>,
}

impl Waits {
    /// Somebody waits with a prompt of so many tokens, until what this gives is dropped.
    pub fn begin(self: &Arc<Self>, tokens: u32) -> Wait {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.since().insert(number, (Instant::now(), tokens));
        Wait {
            waits: Arc::clone(self),
            number,
        }
    }

    /// How long whoever came first has waited, in ms; 0 where nobody waits.
    pub fn oldest_ms(&self) -> f64 {
        let since = self.since();
        let first = since.first_key_value();
        first.map_or(0.0, |(_, (since, _))| {
            since.elapsed().as_secs_f64() * 1000.0
        })
    }

    /// How long it takes to read all prompts that wait, in ms, at so many tokens a second; 0 where nobody waits,
    /// [`UNKNOWN`] where somebody does and nothing is known of the speed.
    pub fn planned_ms(&self, tok_per_s: f64) -> f64 {
        let tokens: u64 = self
            .since()
            .values()
            .map(|(_, tokens)| u64::from(*tokens))
            .sum();
        match tokens {
            0 => 0.0,
            tokens if tok_per_s > 0.0 => tokens as f64 / tok_per_s * 1000.0,
            _ => UNKNOWN,
        }
    }

    fn since(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, u32)>> {
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
        let first = waits.begin(100);
        std::thread::sleep(Duration::from_millis(20));
        let second = waits.begin(50);
        assert!(waits.oldest_ms() >= 20.0);
        assert_eq!(waits.planned_ms(1000.0), 150.0);
        drop(first);
        assert!(waits.oldest_ms() < waits.since()[&1].0.elapsed().as_secs_f64() * 1000.0 + 1.0);
        assert_eq!(waits.planned_ms(1000.0), 50.0);
        assert_eq!(waits.planned_ms(UNKNOWN), UNKNOWN);
        drop(second);
        assert_eq!((waits.oldest_ms(), waits.planned_ms(UNKNOWN)), (0.0, 0.0));
    }
}
