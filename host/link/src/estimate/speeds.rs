//! How fast a node is, and how long new work waits: from what its own service did.

use super::average::Average;
use super::config::EstimateConfig;
use super::figures::Figures;
use super::{Latest, UNKNOWN, amount};

/// Largest amount that is taken, so that sums stay finite.
const MOST: f64 = 1e100;
/// After so many ms without anybody waiting, the waits seen before count `1 / e`.
const QUEUE_MEMORY_MS: f64 = 5_000.0;
/// A pass that verifies so many drafts says what one of eight takes.
const NEAR_EIGHT: std::ops::RangeInclusive<u32> = 4..=16;

/// Amount by time, or share of a whole: the quotient of two sums in which older samples count less and less. Larger
/// samples count more, as they should: the mean of their quotients would count a short pass like a long one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateEstimator {
    keep: f64,
    amount: f64,
    per: f64,
}

impl RateEstimator {
    /// `weight` of a new sample, in `(0, 1]`; what is outside counts as 1.
    pub fn new(weight: f64) -> RateEstimator {
        let allowed = weight > 0.0 && weight <= 1.0;
        RateEstimator {
            keep: if allowed { 1.0 - weight } else { 0.0 },
            ..RateEstimator::default()
        }
    }

    /// Takes `amount` in `per` in. Nothing that cannot be, and not where `per` is 0.
    pub fn sample(&mut self, amount: f64, per: f64) {
        if !super::amount(amount) || !super::amount(per) || per == 0.0 {
            return;
        }
        self.amount = self.amount * self.keep + amount.min(MOST);
        self.per = self.per * self.keep + per.min(MOST);
    }

    /// Amount by `per`; [`UNKNOWN`] before the first sample.
    pub fn rate(&self) -> f64 {
        let rate = self.amount / self.per;
        if amount(rate) { rate } else { UNKNOWN }
    }
}

/// How long new work waits before it begins.
///
/// While somebody waits, that is at least as long as the oldest has waited; once nobody does, the waits seen before are
/// soon forgotten.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueEstimator {
    now: Latest,
    waits_ms: Average,
}

impl QueueEstimator {
    /// Nothing seen yet.
    pub fn new(config: &EstimateConfig) -> QueueEstimator {
        QueueEstimator {
            now: Latest::default(),
            waits_ms: Average::new(config.weight),
        }
    }

    /// Work began that had waited so long.
    pub fn began(&mut self, now_ms: f64, waited_ms: f64) {
        self.now.at(now_ms);
        self.waits_ms.sample(waited_ms);
    }

    /// The wait of what comes now. `oldest_ms`: how long the oldest that still waits has waited; 0 where nobody waits. 0
    /// before anything was seen: a node that has not worked yet has no queue.
    pub fn queue_ms(&self, now_ms: f64, oldest_ms: f64) -> f64 {
        let waits_ms = self.waits_ms.mean().unwrap_or(0.0);
        if amount(oldest_ms) && oldest_ms > 0.0 {
            return waits_ms.max(oldest_ms);
        }
        let idle_ms = self.now.peek(now_ms) - self.now.0;
        waits_ms * (-idle_ms / QUEUE_MEMORY_MS).exp()
    }
}

/// How fast a node is. The service reports what it did, the node asks for [`Speeds::figures`].
#[derive(Clone, Debug, PartialEq)]
pub struct Speeds {
    prefill: RateEstimator,
    draft: RateEstimator,
    target: RateEstimator,
    verify_ms: Average,
    acceptance: RateEstimator,
    queue: QueueEstimator,
}

impl Speeds {
    /// Nothing seen yet.
    pub fn new(config: &EstimateConfig) -> Speeds {
        let rate = RateEstimator::new(config.weight);
        Speeds {
            prefill: rate,
            draft: rate,
            target: rate,
            verify_ms: Average::new(config.weight),
            acceptance: rate,
            queue: QueueEstimator::new(config),
        }
    }

    /// The larger model read `tokens` of prompts in `took_ms`.
    pub fn prefilled(&mut self, tokens: u32, took_ms: f64) {
        self.prefill.sample(f64::from(tokens), took_ms);
    }

    /// An answer got `tokens` of the draft model in `took_ms`, as the answer sees it: other answers' passes included.
    pub fn drafted(&mut self, tokens: u32, took_ms: f64) {
        self.draft.sample(f64::from(tokens), took_ms);
    }

    /// An answer got `tokens` of the target model in `took_ms`, likewise.
    pub fn decoded(&mut self, tokens: u32, took_ms: f64) {
        self.target.sample(f64::from(tokens), took_ms);
    }

    /// A pass verified `drafts` of an answer in `took_ms`, of which `accepted` stood.
    pub fn verified(&mut self, drafts: u32, accepted: u32, took_ms: f64) {
        if NEAR_EIGHT.contains(&drafts) {
            self.verify_ms.sample(took_ms);
        }
        let accepted = accepted.min(drafts);
        self.acceptance
            .sample(f64::from(accepted), f64::from(drafts));
    }

    /// Work began that had waited so long.
    pub fn began(&mut self, now_ms: f64, waited_ms: f64) {
        self.queue.began(now_ms, waited_ms);
    }

    /// All figures now. `oldest_ms` as in [`QueueEstimator::queue_ms`]; `kv_free`: tokens for which the cache has room.
    pub fn figures(&self, now_ms: f64, oldest_ms: f64, kv_free: f64) -> Figures {
        let per_s = |rate: &RateEstimator| match rate.rate() {
            UNKNOWN => UNKNOWN,
            per_ms => per_ms * 1000.0,
        };
        Figures {
            queue_ms: self.queue.queue_ms(now_ms, oldest_ms),
            kv_free,
            prefill_tok_per_s: per_s(&self.prefill),
            draft_tok_per_s: per_s(&self.draft),
            target_tok_per_s: per_s(&self.target),
            verify_ms: self.verify_ms.mean().unwrap_or(UNKNOWN),
            acceptance: self.acceptance.rate(),
        }
        .checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_amounts_by_time() {
        let mut speeds = Speeds::new(&EstimateConfig::default());
        let nothing = Figures {
            queue_ms: 0.0,
            kv_free: 500.0,
            ..Figures::UNKNOWN
        };
        assert_eq!(speeds.figures(0.0, 0.0, 500.0), nothing);
        for _ in 0..100 {
            speeds.prefilled(512, 64.0);
            speeds.drafted(10, 100.0);
            speeds.decoded(4, 100.0);
            speeds.verified(8, 6, 30.0);
            // Short and long passes say nothing of a pass of eight.
            speeds.verified(1, 1, 5.0);
        }
        let figures = speeds.figures(0.0, 0.0, 500.0);
        assert!((figures.prefill_tok_per_s - 8000.0).abs() < 1e-6);
        assert!((figures.draft_tok_per_s - 100.0).abs() < 1e-6);
        assert!((figures.target_tok_per_s - 40.0).abs() < 1e-6);
        assert!((figures.verify_ms - 30.0).abs() < 1e-9);
        // Of nine drafts seven stood; the last one a little more than the others.
        assert!((figures.acceptance - 7.0 / 9.0).abs() < 0.02, "{figures:?}");
    }

    #[test]
    fn a_queue_is_felt_while_it_lasts_and_forgotten_after() {
        let mut queue = QueueEstimator::new(&EstimateConfig::default());
        assert_eq!(queue.queue_ms(0.0, 0.0), 0.0);
        queue.began(1_000.0, 80.0);
        assert_eq!(queue.queue_ms(1_000.0, 0.0), 80.0);
        assert_eq!(queue.queue_ms(1_200.0, 30.0), 80.0);
        assert_eq!(queue.queue_ms(1_500.0, 300.0), 300.0);
        assert!(queue.queue_ms(31_000.0, 0.0) < 0.5);
    }
}
