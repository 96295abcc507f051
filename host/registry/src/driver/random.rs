//! A small generator whose numbers are the same everywhere.

/// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A stream of its own for the thing of that number.
    pub fn fork(seed: u64, number: u64) -> Random {
        let mut stream = Random(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        stream.bits();
        stream
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// In [low, high).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// In low..=high.
    pub fn whole(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low + u32::try_from(self.bits() % span).unwrap_or(0)
    }

    /// True with that probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Evenly spread over magnitudes between low and high.
    pub fn magnitude(&mut self, low: f64, high: f64) -> f64 {
        // Powers are left to multiplication and square roots, which every machine rounds alike.
        let mut value = low;
        let mut factor = high / low;
        for _ in 0..24 {
            factor = factor.sqrt();
            if self.chance(0.5) {
                value *= factor;
            }
        }
        value
    }
}
