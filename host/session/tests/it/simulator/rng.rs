//! Numbers from a seed.

use proptest::test_runner::Config;

/// So many seeds. A failure prints its scenario, seed included, so no file of failures is kept.
pub fn cases(cases: u32) -> Config {
    Config {
        failure_persistence: None,
        ..Config::with_cases(cases)
    }
}

/// splitmix64 (G. L. Steele, D. Lea, C. H. Flood 2014, "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// In `[from, to)`.
    pub fn within(&mut self, from: f64, to: f64) -> f64 {
        from + (to - from) * self.unit()
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}
