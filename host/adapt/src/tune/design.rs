//! Points that cover a cube evenly, however many are taken.
//!
//! Halton's sequence (J. H. Halton, 1960): the digits of the point's number, in a prime base for each coordinate, read
//! backwards. The digits are permuted at random (J. Matousek, "On the L2-discrepancy for anchored boxes", 1998), or the
//! coordinates of large bases would rise and fall together for long.

use super::space::MAX_DIMENSIONS;
use crate::random::{Random, Stream};

const PRIMES: [usize; MAX_DIMENSIONS] =
    [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53];
/// Digits beyond this are below what a parameter can tell.
const LEAST: f64 = 1e-9;

/// A sequence of points in a cube.
pub(super) struct Design {
    /// For each coordinate: the base, and a permutation of its digits for each place.
    digits: Vec<(usize, Vec<Vec<usize>>)>,
}

impl Design {
    /// The sequence of a seed, in at most [`MAX_DIMENSIONS`] coordinates.
    pub(super) fn new(dimensions: usize, seed: u64) -> Design {
        let mut random = Random::new(seed, Stream::Design);
        let digits = PRIMES.iter().take(dimensions).map(|base| {
            let places = (LEAST.ln() / -(*base as f64).ln()).ceil() as usize;
            let permutations = (0..places).map(|_| shuffled(*base, &mut random));
            (*base, permutations.collect())
        });
        Design {
            digits: digits.collect(),
        }
    }

    /// Point number `index`, each coordinate in `[0, 1)`.
    pub(super) fn at(&self, index: usize) -> Vec<f64> {
        let coordinate = |(base, permutations): &(usize, Vec<Vec<usize>>)| {
            let (mut rest, mut scale, mut sum) = (index, 1.0, 0.0);
            for permutation in permutations {
                scale /= *base as f64;
                sum += scale * permutation.get(rest % base).copied().unwrap_or(0) as f64;
                rest /= base;
            }
            sum.min(1.0 - f64::EPSILON)
        };
        self.digits.iter().map(coordinate).collect()
    }
}

/// The whole numbers below `count` in random order (R. Durstenfeld, 1964).
fn shuffled(count: usize, random: &mut Random) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        all.swap(last, random.below(last + 1));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stretch_of_a_coordinate_gets_its_share() {
        let design = Design::new(8, 3);
        let points: Vec<Vec<f64>> = (0..96).map(|index| design.at(index)).collect();
        for (coordinate, base) in PRIMES.iter().take(8).enumerate() {
            // Of `base` points in a row each lies in another stretch of length 1 / base.
            let mut counts = vec![0; *base];
            for point in &points {
                assert!((0.0..1.0).contains(&point[coordinate]));
                counts[(point[coordinate] * *base as f64) as usize] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{base} {counts:?}");
        }
    }

    #[test]
    fn coordinates_of_large_bases_do_not_go_together() {
        let design = Design::new(MAX_DIMENSIONS, 1);
        let points: Vec<Vec<f64>> = (0..64).map(|index| design.at(index)).collect();
        for i in 0..MAX_DIMENSIONS {
            for j in 0..i {
                let product: f64 = points.iter().map(|p| (p[i] - 0.5) * (p[j] - 0.5)).sum();
                // Correlation, the variance being 1/12; independent ones would have a standard error of 1/8.
                let correlation = 12.0 * product / 64.0;
                assert!(correlation.abs() < 0.5, "{i} {j} {correlation}");
            }
        }
        assert_ne!(design.at(5), Design::new(MAX_DIMENSIONS, 2).at(5));
        assert_eq!(design.at(5), Design::new(MAX_DIMENSIONS, 1).at(5));
    }
}
