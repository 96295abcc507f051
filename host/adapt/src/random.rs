//! Random numbers as a function of seed, stream and place: the same on every machine, and none is ever carried over.

use msao_core::sampling::philox4x32_10;

const STEPS: f64 = (1_u64 << 53) as f64;

/// What a stream of numbers is for. Streams of one seed have nothing to do with each other.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stream {
    Coin = 1,
    Simulation,
    Traffic,
    Design,
    Fit,
    Search,
}

/// The number at one place of a stream, in `(0, 1)`: `(k + 1/2) / 2^53` of Philox's first 53 bits.
pub(crate) fn uniform_at(seed: u64, stream: Stream, place: u64) -> f64 {
    let counter = [place as u32, (place >> 32) as u32, stream as u32, 0];
    let [low, high, ..] = philox4x32_10(counter, [seed as u32, (seed >> 32) as u32]);
    let bits = (u64::from(low) | u64::from(high) << 32) >> 11;
    // The largest would be rounded up to 1.
    ((bits as f64 + 0.5) / STEPS).min(1.0 - f64::EPSILON / 2.0)
}

/// The numbers of a stream, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    seed: u64,
    stream: Stream,
    place: u64,
}

impl Random {
    pub(crate) fn new(seed: u64, stream: Stream) -> Random {
        Random {
            seed,
            stream,
            place: 0,
        }
    }

    /// In `(0, 1)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        let number = uniform_at(self.seed, self.stream, self.place);
        self.place = self.place.wrapping_add(1);
        number
    }

    /// Of mean 0 and variance 1 (G. E. P. Box, M. E. Muller, 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Of the whole numbers below `count`, which is at least 1.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        ((self.uniform() * count as f64) as usize).min(count.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut random = Random::new(3, Stream::Simulation);
        let count = 100_000;
        let mean_and_square = |draw: &mut dyn FnMut() -> f64| {
            let (mut sum, mut squares) = (0.0, 0.0);
            for _ in 0..count {
                let x = draw();
                sum += x;
                squares += x * x;
            }
            (sum / f64::from(count), squares / f64::from(count))
        };
        // Four standard errors: 0.289 and 0.298 over sqrt(100,000); 1 and 1.41 likewise.
        let (mean, square) = mean_and_square(&mut || random.uniform());
        assert!((mean - 0.5).abs() < 0.004 && (square - 1.0 / 3.0).abs() < 0.004);
        let (mean, square) = mean_and_square(&mut || random.normal());
        assert!((mean).abs() < 0.013 && (square - 1.0).abs() < 0.018);
    }

    #[test]
    fn streams_and_seeds_differ() {
        let at = |seed, stream, place| uniform_at(seed, stream, place).to_bits();
        let here = at(1, Stream::Coin, 5);
        assert_eq!(here, at(1, Stream::Coin, 5));
        assert_ne!(here, at(1 << 32, Stream::Coin, 5));
        assert_ne!(here, at(1, Stream::Search, 5));
        assert_ne!(here, at(1, Stream::Coin, 5 << 32));
    }
}
