//! Counting what a request costs, from the shapes that ran.

use std::time::Duration;

/// The part of a request's work that a figure belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The vision encoder, for images and clips.
    Vision,
    /// The audio encoder.
    Audio,
    /// The language model over the prompt.
    Prefill,
    /// The language model over what it generates.
    Decode,
}

impl Phase {
    /// All phases in the order they run.
    pub const ALL: [Phase; 4] = [Phase::Vision, Phase::Audio, Phase::Prefill, Phase::Decode];

    /// The phase's name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Vision => "vision",
            Phase::Audio => "audio",
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }
}

/// What one phase cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PhaseCost {
    /// Floating-point operations of matrix products, convolutions and attention: a multiply and an add are two.
    pub flops: u64,
    /// Wall-clock time.
    pub time: Duration,
    /// Most bytes of intermediate results held at once, counted from the results' shapes block by block; a
    /// block's results count until the block ends.
    pub activation_bytes: u64,
}

/// What a request has cost, in the figures that others are told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// Floating-point operations of all phases: a multiply and an add are two.
    pub flops: u64,
    /// Of these, those of passes that drafted what was thrown away. A meter does not know: whoever drives the answer does.
    pub wasted_flops: u64,
    /// See [`Meter::busy`], in ms.
    pub busy_ms: f64,
    /// See [`Meter::activation_bytes`].
    pub activation_bytes: u64,
    /// See [`Meter::cached_tokens`].
    pub cached_tokens: u64,
    /// See [`Meter::cache_byte_seconds`].
    pub cache_byte_seconds: f64,
}

/// The running account of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meter {
    costs: [PhaseCost; 4],
    held: u64,
    /// Its share of the time in which the model computed: of a pass over several requests as much as it has of the pass's
    /// rows. So the sum over all requests is no more than the time that passed.
    pub busy: Duration,
    /// Bytes of the key-value cache at its largest.
    pub cache_bytes: u64,
    /// The cache's blocks integrated over time, in byte-seconds: a block that is begun counts whole, and one that several
    /// requests share counts for each of them.
    pub cache_byte_seconds: f64,
    /// Tokens of the prompt that were not read, because an earlier prompt that begins alike had been.
    pub cached_tokens: u64,
}

impl Meter {
    /// An account of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn slot(&mut self, phase: Phase) -> &mut PhaseCost {
        let [vision, audio, prefill, decode] = &mut self.costs;
        match phase {
            Phase::Vision => vision,
            Phase::Audio => audio,
            Phase::Prefill => prefill,
            Phase::Decode => decode,
        }
    }

    /// What `phase` cost so far.
    pub fn cost(&self, phase: Phase) -> PhaseCost {
        let [vision, audio, prefill, decode] = self.costs;
        match phase {
            Phase::Vision => vision,
            Phase::Audio => audio,
            Phase::Prefill => prefill,
            Phase::Decode => decode,
        }
    }

    /// Floating-point operations of all phases.
    pub fn flops(&self) -> u64 {
        self.costs.iter().map(|cost| cost.flops).sum()
    }

    /// The account in short.
    pub fn spent(&self) -> Spent {
        Spent {
            flops: self.flops(),
            wasted_flops: 0,
            busy_ms: self.busy.as_secs_f64() * 1e3,
            activation_bytes: self.activation_bytes(),
            cached_tokens: self.cached_tokens,
            cache_byte_seconds: self.cache_byte_seconds,
        }
    }

    /// The largest activation high-water mark of any phase, in bytes.
    pub fn activation_bytes(&self) -> u64 {
        self.costs
            .iter()
            .map(|cost| cost.activation_bytes)
            .max()
            .unwrap_or(0)
    }

    /// Adds floating-point operations.
    pub fn add_flops(&mut self, phase: Phase, flops: u64) {
        self.slot(phase).flops += flops;
    }

    /// Adds wall-clock time in which the model computed for this request alone.
    pub fn add_time(&mut self, phase: Phase, time: Duration) {
        self.add_shared_time(phase, time, 1, 1);
    }

    /// Adds wall-clock time in which the model computed for several requests: `rows` of `all` rows were this one's.
    pub fn add_shared_time(&mut self, phase: Phase, time: Duration, rows: usize, all: usize) {
        self.slot(phase).time += time;
        self.busy += time.mul_f64(rows.min(all) as f64 / all.max(1) as f64);
    }

    /// Notes an intermediate result of `bytes`, held until the block that made it ends ([`Meter::release_to`]).
    pub fn hold(&mut self, phase: Phase, bytes: u64) {
        self.held += bytes;
        let held = self.held;
        let cost = self.slot(phase);
        cost.activation_bytes = cost.activation_bytes.max(held);
    }

    /// Bytes held now: the mark that a block hands to [`Meter::release_to`] when it ends.
    pub fn mark(&self) -> u64 {
        self.held
    }

    /// Ends a block: everything held since `mark` was taken is let go.
    pub fn release_to(&mut self, mark: u64) {
        self.held = mark.min(self.held);
    }

    /// Notes that a cache of `bytes`, in blocks of `held` bytes together, was kept for `time`.
    pub fn keep_cache(&mut self, bytes: u64, held: u64, time: Duration) {
        self.cache_bytes = self.cache_bytes.max(bytes);
        self.cache_byte_seconds += held as f64 * time.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_peak_within_blocks_and_do_not_add_up_across_them() {
        let mut meter = Meter::new();
        meter.hold(Phase::Prefill, 100);
        for _ in 0..3 {
            let mark = meter.mark();
            meter.hold(Phase::Prefill, 40);
            meter.hold(Phase::Prefill, 10);
            meter.release_to(mark);
        }
        assert_eq!(meter.cost(Phase::Prefill).activation_bytes, 150);
        assert_eq!(meter.activation_bytes(), 150);
    }

    #[test]
    fn requests_share_the_time_of_a_pass_and_each_has_waited_all_of_it() {
        let pass = Duration::from_millis(8);
        let mut meters = [Meter::new(), Meter::new()];
        for (meter, rows) in meters.iter_mut().zip([1, 3]) {
            meter.add_shared_time(Phase::Decode, pass, rows, 4);
            assert_eq!(meter.cost(Phase::Decode).time, pass);
        }
        assert_eq!(meters[0].busy, pass / 4);
        assert_eq!(meters[0].busy + meters[1].busy, pass);
        // A pass of no rows, or more of one's own than there are, is no reason to make time up.
        meters[0].add_shared_time(Phase::Decode, pass, 9, 0);
        assert!(meters[0].busy <= pass / 4);
    }

    #[test]
    fn cache_is_integrated_over_time() {
        let mut meter = Meter::new();
        meter.keep_cache(900, 1000, Duration::from_millis(500));
        meter.keep_cache(1900, 2000, Duration::from_millis(250));
        assert_eq!(meter.cache_bytes, 1900);
        assert!((meter.cache_byte_seconds - 1000.0).abs() < 1e-9);
    }

    #[test]
    fn the_short_account_sums_the_phases() {
        let mut meter = Meter::new();
        for phase in Phase::ALL {
            meter.add_flops(phase, 10);
        }
        meter.cached_tokens = 3;
        meter.keep_cache(100, 160, Duration::from_secs(2));
        meter.add_time(Phase::Vision, Duration::from_millis(5));
        let mark = meter.mark();
        meter.hold(Phase::Decode, 70);
        meter.release_to(mark);
        let expected = Spent {
            flops: 40,
            wasted_flops: 0,
            busy_ms: 5.0,
            activation_bytes: 70,
            cached_tokens: 3,
            cache_byte_seconds: 320.0,
        };
        assert_eq!(meter.spent(), expected);
    }
}
