//! How fast a node is, and how long new work waits: from what its own service did.

use serde::Serialize;

use super::average::Average;
use super::config::EstimateConfig;
use super::figures::Figures;
use super::{Latest, UNKNOWN, amount};

/// Largest amount that is taken, so that sums stay finite.
const MOST: f64 = 1e100;
/// After so many ms without anybody waiting, the waits seen before count `1 / e`.
const QUEUE_MEMORY_MS: f64 = 5_000.0;
/// Who has waited for no longer than this, on average, had nobody before him, in ms.
const AT_REST_MS: f64 = 2.0;
/// A pass that verifies so many drafts says what one of eight takes.
const NEAR_EIGHT: std::ops::RangeInclusive<u32> = 4..=16;

/// A single sample's word for a rate is restored with the weight of so long, in ms.
const RESTORED_MS: f64 = 1_000.0;

/// Amount by time, or share of a whole: the quotient of two sums in which older samples count less and less. Larger
/// samples count more, as they should: the mean of their quotients would count a short pass like a long one.
///
/// Its spread is that of the samples' quotients, each weighted as it is in the rate (D. H. D. West, "Updating mean and
/// variance estimates", CACM 22, 1979).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RateEstimator {
    keep: f64,
    amount: f64,
    per: f64,
    squares: f64,
    count: u64,
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
        let (amount, per) = (amount.min(MOST), per.min(MOST));
        let before = self.rate();
        self.amount = self.amount * self.keep + amount;
        self.per = self.per * self.keep + per;
        self.count += 1;
        let (rate, now) = (amount / per, self.rate());
        let more = per * (rate - before) * (rate - now);
        let squares = self.squares * self.keep + if self.count > 1 { more } else { 0.0 };
        // Rates that cannot be told apart from infinite ones have no spread.
        self.squares = if squares.is_finite() {
            squares.max(0.0)
        } else {
            0.0
        };
    }

    /// Amount by `per`; [`UNKNOWN`] before the first sample.
    pub fn rate(&self) -> f64 {
        let rate = self.amount / self.per;
        if amount(rate) { rate } else { UNKNOWN }
    }

    /// Standard deviation of the rate; [`UNKNOWN`] before the second sample.
    pub fn standard_deviation(&self) -> f64 {
        let deviation = (self.squares / self.per).sqrt();
        if self.count > 1 && amount(deviation) {
            deviation
        } else {
            UNKNOWN
        }
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
        waits_ms * self.busy(now_ms, oldest_ms)
    }

    /// How much of what was seen last still counts, in `[0, 1]`: all of it while somebody waits.
    fn busy(&self, now_ms: f64, oldest_ms: f64) -> f64 {
        if amount(oldest_ms) && oldest_ms > 0.0 {
            return 1.0;
        }
        let idle_ms = self.now.peek(now_ms) - self.now.0;
        (-idle_ms / QUEUE_MEMORY_MS).exp()
    }

    /// Whether nobody has had to wait of late.
    fn rests(&self) -> bool {
        self.waits_ms.mean().is_none_or(|ms| ms <= AT_REST_MS)
    }
}

/// How far a node's speeds wander, for people: standard deviations; [`UNKNOWN`] for what is not known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SpeedSpread {
    /// Of the waits.
    pub queue_sd_ms: f64,
    /// Of `prefill_tok_per_s`.
    pub prefill_sd_tok_per_s: f64,
    /// Of `draft_tok_per_s`.
    pub draft_sd_tok_per_s: f64,
    /// Of `target_tok_per_s`.
    pub target_sd_tok_per_s: f64,
    /// Of `verify_ms`.
    pub verify_sd_ms: f64,
}

/// A rate as it is, and as it is while nobody waits.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Speed {
    now: RateEstimator,
    at_rest: RateEstimator,
}

impl Speed {
    fn new(weight: f64) -> Speed {
        let rate = RateEstimator::new(weight);
        Speed {
            now: rate,
            at_rest: rate,
        }
    }

    fn sample(&mut self, amount: f64, per: f64, rests: bool) {
        self.now.sample(amount, per);
        if rests {
            self.at_rest.sample(amount, per);
        }
    }

    /// A second's, where `busy` of what the load has made of it still counts, in `[0, 1]`.
    fn per_s(&self, busy: f64) -> f64 {
        let (now, at_rest) = (self.now.rate(), self.at_rest.rate());
        let rate = match now > 0.0 && at_rest > 0.0 {
            // What one takes goes back, and not how many there are in a time: predictions count with that. Never to more: what a process
            // did first is slow as well, and may be all that nobody had to wait for.
            true => {
                let (now, at_rest) = (1.0 / now, 1.0 / at_rest.max(now));
                1.0 / (at_rest + busy * (now - at_rest))
            }
            false => now,
        };
        if amount(rate) { rate * 1000.0 } else { UNKNOWN }
    }
}

/// How fast a node is. The service reports what it did, the node asks for [`Speeds::figures`].
///
/// An answer's tokens take as long as it sees them take, others' passes included: under load all is slower. Who is idle again is as fast as
/// before, but nobody asks whom figures call slow; so each figure goes back to what was seen while nobody waited, if that
/// was faster.
#[derive(Clone, Debug, PartialEq)]
pub struct Speeds {
    prefill: Speed,
    draft: Speed,
    target: Speed,
    verify_ms: Average,
    verify_at_rest_ms: Average,
    acceptance: RateEstimator,
    queue: QueueEstimator,
}

impl Speeds {
    /// Nothing seen yet.
    pub fn new(config: &EstimateConfig) -> Speeds {
        let speed = Speed::new(config.weight);
        Speeds {
            prefill: speed,
            draft: speed,
            target: speed,
            verify_ms: Average::new(config.weight),
            verify_at_rest_ms: Average::new(config.weight),
            acceptance: RateEstimator::new(config.weight),
            queue: QueueEstimator::new(config),
        }
    }

    /// The larger model read `tokens` of prompts in `took_ms`.
    pub fn prefilled(&mut self, tokens: u32, took_ms: f64) {
        let rests = self.queue.rests();
        self.prefill.sample(f64::from(tokens), took_ms, rests);
    }

    /// An answer got `tokens` of the draft model in `took_ms`, as the answer sees it: other answers' passes included.
    pub fn drafted(&mut self, tokens: u32, took_ms: f64) {
        let rests = self.queue.rests();
        self.draft.sample(f64::from(tokens), took_ms, rests);
    }

    /// An answer got `tokens` of the target model in `took_ms`, likewise.
    pub fn decoded(&mut self, tokens: u32, took_ms: f64) {
        let rests = self.queue.rests();
        self.target.sample(f64::from(tokens), took_ms, rests);
    }

    /// A pass verified `drafts` of an answer in `took_ms`, of which `accepted` stood. Those behind the first that did not were
    /// not judged, and say nothing of how often drafts stand.
    pub fn verified(&mut self, drafts: u32, accepted: u32, took_ms: f64) {
        if NEAR_EIGHT.contains(&drafts) {
            self.verify_ms.sample(took_ms);
            if self.queue.rests() {
                self.verify_at_rest_ms.sample(took_ms);
            }
        }
        let accepted = accepted.min(drafts);
        let judged = drafts.min(accepted.saturating_add(1));
        self.acceptance
            .sample(f64::from(accepted), f64::from(judged));
    }

    /// Work began that had waited so long.
    pub fn began(&mut self, now_ms: f64, waited_ms: f64) {
        self.queue.began(now_ms, waited_ms);
    }

    /// How far they wander.
    pub fn spread(&self) -> SpeedSpread {
        let per_s = |rate: &RateEstimator| match rate.standard_deviation() {
            UNKNOWN => UNKNOWN,
            per_ms => per_ms * 1000.0,
        };
        let of = |average: &Average| average.standard_deviation().unwrap_or(UNKNOWN);
        SpeedSpread {
            queue_sd_ms: of(&self.queue.waits_ms),
            prefill_sd_tok_per_s: per_s(&self.prefill.now),
            draft_sd_tok_per_s: per_s(&self.draft.now),
            target_sd_tok_per_s: per_s(&self.target.now),
            verify_sd_ms: of(&self.verify_ms),
        }
    }

    /// Begins with what was known before a restart: as if each figure had been seen once. What cannot be is left out. Waits
    /// are not restored: nobody waits yet.
    pub fn restore(&mut self, figures: Figures) {
        let figures = figures.checked();
        for (rate, per_s) in [
            (&mut self.prefill, figures.prefill_tok_per_s),
            (&mut self.draft, figures.draft_tok_per_s),
            (&mut self.target, figures.target_tok_per_s),
        ] {
            rate.sample(per_s / 1000.0 * RESTORED_MS, RESTORED_MS, true);
        }
        self.verify_ms.sample(figures.verify_ms);
        self.verify_at_rest_ms.sample(figures.verify_ms);
        self.acceptance.sample(figures.acceptance, 1.0);
    }

    /// All figures now but for work that has not begun, of which they know nothing. `oldest_ms` as in [`QueueEstimator::queue_ms`]; `kv_free`: tokens for which the cache has room.
    pub fn figures(&self, now_ms: f64, oldest_ms: f64, kv_free: f64) -> Figures {
        self.figures_of(
            self.queue.busy(now_ms, oldest_ms),
            self.queue.queue_ms(now_ms, oldest_ms),
            kv_free,
        )
    }

    /// All figures as they will be once nobody asks: what a restart begins with, for nobody waits then.
    pub fn at_rest(&self) -> Figures {
        self.figures_of(0.0, 0.0, UNKNOWN)
    }

    /// `busy`: how much of what the load has made of speeds still counts, in `[0, 1]`.
    fn figures_of(&self, busy: f64, queue_ms: f64, kv_free: f64) -> Figures {
        let verify_ms = self.verify_ms.mean().map(|now| {
            let at_rest = self.verify_at_rest_ms.mean().unwrap_or(now).min(now);
            at_rest + busy * (now - at_rest)
        });
        Figures {
            queue_ms,
            planned_ms: UNKNOWN,
            kv_free,
            prefill_tok_per_s: self.prefill.per_s(busy),
            draft_tok_per_s: self.draft.per_s(busy),
            target_tok_per_s: self.target.per_s(busy),
            verify_ms: verify_ms.unwrap_or(UNKNOWN),
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
        // Of eight drafts that were judged seven stood; the last one counts a little more than the others.
        assert!((figures.acceptance - 7.0 / 8.0).abs() < 0.02, "{figures:?}");
    }

    #[test]
    fn speeds_have_spreads_and_come_back_after_a_restart() {
        let mut speeds = Speeds::new(&EstimateConfig::default());
        assert_eq!(speeds.spread().draft_sd_tok_per_s, UNKNOWN);
        for step in 0..2_000 {
            // 5 and 15 tokens in 100 ms, in turn.
            speeds.drafted(if step % 2 == 0 { 5 } else { 15 }, 100.0);
            speeds.verified(8, 6, if step % 2 == 0 { 20.0 } else { 40.0 });
        }
        let spread = speeds.spread();
        assert!((spread.draft_sd_tok_per_s - 50.0).abs() < 1.0, "{spread:?}");
        assert!((spread.verify_sd_ms - 10.0).abs() < 0.5, "{spread:?}");
        assert_eq!(spread.prefill_sd_tok_per_s, UNKNOWN);

        let before = speeds.figures(0.0, 0.0, 0.0);
        let mut again = Speeds::new(&EstimateConfig::default());
        again.restore(before);
        let after = again.figures(0.0, 0.0, 0.0);
        assert!((after.draft_tok_per_s / before.draft_tok_per_s - 1.0).abs() < 1e-9);
        assert!((after.verify_ms - before.verify_ms).abs() < 1e-9);
        assert!((after.acceptance - before.acceptance).abs() < 1e-9);
        assert_eq!(after.prefill_tok_per_s, UNKNOWN);
        // A single sample's weight: what is new counts soon.
        for _ in 0..100 {
            again.drafted(40, 100.0);
        }
        let figures = again.figures(0.0, 0.0, 0.0);
        assert!((figures.draft_tok_per_s - 400.0).abs() < 1.0, "{figures:?}");
    }

    #[test]
    fn what_a_load_made_slow_is_fast_again_once_nobody_asks() {
        let mut speeds = Speeds::new(&EstimateConfig::default());
        let mut now_ms = 0.0;
        let mut asked = |speeds: &mut Speeds, waited_ms: f64, slower: f64, times: u32| {
            for _ in 0..times {
                now_ms += 10.0;
                speeds.began(now_ms, waited_ms);
                speeds.prefilled(100, 10.0 * slower);
                speeds.drafted(10, 20.0 * slower);
                speeds.decoded(10, 40.0 * slower);
                speeds.verified(8, 8, 5.0 * slower);
            }
            now_ms
        };
        let now = asked(&mut speeds, 0.1, 1.0, 50);
        let before = speeds.figures(now, 0.0, UNKNOWN);
        let now = asked(&mut speeds, 300.0, 10.0, 200);
        let under_load = speeds.figures(now, 400.0, UNKNOWN);
        assert!(under_load.draft_tok_per_s < 0.11 * before.draft_tok_per_s);
        // Somebody still waits, however long nothing has begun.
        let stuck = speeds.figures(now + 60_000.0, 60_000.0, UNKNOWN);
        assert_eq!(stuck.draft_tok_per_s, under_load.draft_tok_per_s);
        // A while later, and after a restart.
        let mut again = Speeds::new(&EstimateConfig::default());
        again.restore(speeds.at_rest());
        for after in [
            speeds.figures(now + 60_000.0, 0.0, UNKNOWN),
            again.figures(0.0, 0.0, UNKNOWN),
        ] {
            for (after, before) in [
                (after.prefill_tok_per_s, before.prefill_tok_per_s),
                (after.draft_tok_per_s, before.draft_tok_per_s),
                (after.target_tok_per_s, before.target_tok_per_s),
                (after.verify_ms, before.verify_ms),
            ] {
                // The first waits of the load were still averaged with those before it.
                assert!((after / before - 1.0).abs() < 0.02, "{after} {before}");
            }
        }
        // What was slow at first, before anybody waited, does not come back.
        let mut cold = Speeds::new(&EstimateConfig::default());
        cold.began(0.0, 0.0);
        cold.drafted(10, 200.0);
        for now_ms in [10.0, 20.0, 30.0] {
            cold.began(now_ms, 50.0);
            cold.drafted(10, 10.0);
        }
        let now = cold.figures(30.0, 1.0, UNKNOWN).draft_tok_per_s;
        assert!((cold.at_rest().draft_tok_per_s / now - 1.0).abs() < 1e-9);
        // Who has never rested is as slow as he was seen.
        let mut loaded = Speeds::new(&EstimateConfig::default());
        loaded.began(0.0, 300.0);
        loaded.drafted(10, 200.0);
        assert_eq!(loaded.at_rest().draft_tok_per_s, 50.0);
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
