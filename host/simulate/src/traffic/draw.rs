//! Moments and media, drawn.

use msao_core::offload::modality;
use msao_registry::driver::Random;

use super::{Medium, Mix, Pattern};

/// A number of tokens, spread evenly over magnitudes.
pub(super) fn tokens(random: &mut Random, [low, high]: [u32; 2]) -> u32 {
    let drawn = random.magnitude(f64::from(low), f64::from(high)).round();
    (drawn as u32).clamp(low, high)
}

/// Draws moments.
pub(super) struct Clock {
    random: Random,
    now_ms: f64,
    /// Of the burst under way.
    left: u32,
    edge: u32,
}

impl Clock {
    pub(super) fn new(seed: u64) -> Clock {
        Clock {
            random: Random::fork(seed, u64::MAX),
            now_ms: 0.0,
            left: 0,
            edge: 0,
        }
    }

    pub(super) fn next_arrival(&mut self, pattern: Pattern, number: u32, edges: u32) -> (u32, f64) {
        match pattern {
            Pattern::InTurn { .. } => (number % edges, 0.0),
            Pattern::Poisson { per_s } => {
                self.now_ms += 1000.0 / per_s * exponential(&mut self.random);
                (self.random.whole(0, edges - 1), self.now_ms)
            }
            Pattern::Diurnal {
                per_s,
                swing,
                day_ms,
            } => {
                // Drawn as often as at noon, and kept by the share of that which there is at the moment (P. A. W. Lewis,
                // G. S. Shedler, "Simulation of nonhomogeneous Poisson processes by thinning", 1979).
                loop {
                    let most = 1.0 + swing;
                    self.now_ms += 1000.0 / (per_s * most) * exponential(&mut self.random);
                    let day = self.now_ms / day_ms;
                    let from_noon = (day - day.floor() - 0.5).abs();
                    let rate = 1.0 + swing * (1.0 - 4.0 * from_noon);
                    if self.random.chance(rate / most) {
                        break;
                    }
                }
                (self.random.whole(0, edges - 1), self.now_ms)
            }
            Pattern::Bursts {
                per_s,
                size,
                within_ms,
            } => {
                if self.left == 0 {
                    self.left = size;
                    let mean_ms = 1000.0 * f64::from(size) / per_s;
                    self.now_ms += mean_ms * exponential(&mut self.random);
                    self.edge = self.random.whole(0, edges - 1);
                }
                self.left -= 1;
                let later_ms = self.random.between(0.0, within_ms);
                (self.edge, self.now_ms + later_ms)
            }
        }
    }
}

/// An exponentially distributed number of mean 1, by comparisons alone (J. von Neumann, "Various techniques used in connection
/// with random digits", 1951): a logarithm need not be the same to the bit on every machine.
fn exponential(random: &mut Random) -> f64 {
    let mut whole = 0.0;
    loop {
        let first = random.unit();
        let mut last = first;
        let mut falling = 1;
        loop {
            let next = random.unit();
            if next >= last {
                break;
            }
            last = next;
            falling += 1;
        }
        if falling % 2 == 1 {
            return whole + first;
        }
        whole += 1.0;
    }
}

/// A medium by kind: none, some pictures, a clip or a sound.
pub(super) fn media(random: &mut Random, mix: &Mix) -> Vec<Medium> {
    let kind = random.unit();
    let truth = |random: &mut Random, medium: Medium| Medium {
        necessity: random.unit(),
        mas: random.unit(),
        unusual: random.unit() * random.unit(),
        cached: random.chance(0.1),
        ..medium
    };
    let mut media = Vec::new();
    if kind < mix.images {
        for _ in 0..random.whole(1, 2) {
            let (across, down) = (random.whole(4, 18), random.whole(4, 14));
            let picture = Medium {
                modality: modality::IMAGE,
                tokens: across * down,
                frames: 1,
                width_px: across * 28,
                height_px: down * 28,
                duration_ms: 0.0,
                bytes: random.magnitude(2e4, 6e5).round(),
                ..Medium::blank()
            };
            media.push(truth(random, picture));
        }
    } else if kind < mix.images + mix.clips {
        let (across, down, frames) = (random.whole(4, 8), random.whole(3, 6), random.whole(4, 12));
        let clip = Medium {
            modality: modality::VIDEO,
            tokens: across * down * frames,
            frames,
            width_px: across * 28,
            height_px: down * 28,
            duration_ms: f64::from(frames) * 500.0,
            bytes: random.magnitude(2e5, 4e6).round(),
            ..Medium::blank()
        };
        media.push(truth(random, clip));
    } else if kind < mix.images + mix.clips + mix.sounds {
        let segments = random.whole(2, 12);
        let sound = Medium {
            modality: modality::AUDIO,
            tokens: segments * 25,
            frames: segments,
            duration_ms: f64::from(segments) * 1000.0,
            bytes: f64::from(segments) * 32_000.0,
            ..Medium::blank()
        };
        media.push(truth(random, sound));
    }
    media
}

impl Medium {
    /// Nothing yet.
    fn blank() -> Medium {
        Medium {
            modality: modality::IMAGE,
            tokens: 1,
            frames: 1,
            width_px: 0,
            height_px: 0,
            duration_ms: 0.0,
            bytes: 0.0,
            cached: false,
            necessity: 1.0,
            mas: 0.0,
            unusual: 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_exponential() {
        let mut random = Random::new(5);
        let drawn: Vec<f64> = (0..40_000).map(|_| exponential(&mut random)).collect();
        let mean = drawn.iter().sum::<f64>() / 4e4;
        let variance = drawn.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 4e4;
        let beyond = drawn.iter().filter(|x| **x > 2.0).count() as f64 / 4e4;
        // Five standard deviations of each.
        assert!((mean - 1.0).abs() < 0.025, "{mean}");
        assert!((variance - 1.0).abs() < 0.08, "{variance}");
        assert!((beyond - (-2.0_f64).exp()).abs() < 0.009, "{beyond}");
    }
}
