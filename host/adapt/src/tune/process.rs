//! A Gaussian process: what a smooth function may be like, given its values at some points.
//!
//! Matern's covariance of smoothness 5/2, with a length for each coordinate, and noise. Source: C. E. Rasmussen, C. K.
//! I. Williams, "Gaussian Processes for Machine Learning", 2006, equations 2.25, 2.26 and 4.17.

use super::fit::fit;
use crate::linear::{Cholesky, dot};

/// What shapes a process, in logarithms.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    /// Of the length over which the function changes, coordinate by coordinate.
    pub(super) lengths: Vec<f64>,
    /// Of the function's variance.
    pub(super) signal: f64,
    /// Of the variance of a measurement.
    pub(super) noise: f64,
}

impl Shape {
    /// The covariance, over the function's variance, of two points; and its derivative by half the squared distance in
    /// lengths, less the sign. Squared differences are of the coordinates.
    pub(super) fn correlation(squared_distance: f64) -> (f64, f64) {
        let r = (5.0 * squared_distance).sqrt();
        let decay = (-r).exp();
        let slope = 5.0 / 3.0 * (1.0 + r) * decay;
        ((1.0 + r + r * r / 3.0) * decay, slope)
    }

    /// One over the squares of the lengths.
    pub(super) fn inverse_squares(&self) -> Vec<f64> {
        self.lengths.iter().map(|ln| (-2.0 * ln).exp()).collect()
    }
}

/// A process that knows some values.
#[derive(Debug)]
pub(super) struct Process {
    points: Vec<Vec<f64>>,
    inverse_squares: Vec<f64>,
    signal: f64,
    factor: Cholesky,
    /// The covariance's inverse times the values.
    weights: Vec<f64>,
    mean: f64,
    scale: f64,
}

impl Process {
    /// The process, of a shape that makes the values likely. None without values, or where they are no numbers.
    pub(super) fn of(points: &[Vec<f64>], values: &[f64], seed: u64) -> Option<Process> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let variance = values
            .iter()
            .map(|value| (value - mean).powi(2))
            .sum::<f64>()
            / count;
        // Values that are all the same have no scale.
        let scale = if variance > 1e-24 * mean * mean {
            variance.sqrt()
        } else {
            1.0
        };
        let standard: Vec<f64> = values.iter().map(|value| (value - mean) / scale).collect();
        if standard.is_empty() || !standard.iter().all(|value| value.is_finite()) {
            return None;
        }
        let shape = fit(points, &standard, seed);
        let (signal, noise) = (shape.signal.exp(), shape.noise.exp());
        let inverse_squares = shape.inverse_squares();
        let covariance: Vec<Vec<f64>> = (points.iter().enumerate())
            .map(|(i, point)| {
                let mut row = covariances(points.iter().take(i), point, &inverse_squares, signal);
                row.push(signal + noise);
                row
            })
            .collect();
        let factor = Cholesky::of(&covariance)?;
        let weights = factor.solve(&standard);
        Some(Process {
            points: points.to_vec(),
            inverse_squares,
            signal,
            factor,
            weights,
            mean,
            scale,
        })
    }

    /// Mean and standard deviation of the function at a point, without the noise of a measurement.
    pub(super) fn at(&self, point: &[f64]) -> (f64, f64) {
        let known = covariances(
            self.points.iter(),
            point,
            &self.inverse_squares,
            self.signal,
        );
        let mean = dot(&known, &self.weights);
        let half = self.factor.forward(&known);
        let variance = (self.signal - dot(&half, &half)).max(1e-12 * self.signal);
        (self.mean + self.scale * mean, self.scale * variance.sqrt())
    }
}

fn covariances<'a>(
    points: impl Iterator<Item = &'a Vec<f64>>,
    point: &[f64],
    inverse_squares: &[f64],
    signal: f64,
) -> Vec<f64> {
    let squared_distance = |other: &Vec<f64>| -> f64 {
        let pairs = other.iter().zip(point).zip(inverse_squares);
        pairs
            .map(|((a, b), inverse)| (a - b) * (a - b) * inverse)
            .sum()
    };
    points
        .map(|other| signal * Shape::correlation(squared_distance(other)).0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Random, Stream};

    fn grid(count: usize) -> Vec<Vec<f64>> {
        (0..count)
            .map(|i| {
                vec![
                    (i as f64 + 0.5) / count as f64,
                    ((7 * i) % count) as f64 / count as f64,
                ]
            })
            .collect()
    }

    #[test]
    fn a_smooth_function_is_known_between_its_points_and_less_so_outside() {
        let f = |p: &[f64]| 30.0 + 5.0 * (6.0 * p[0]).sin();
        let points: Vec<Vec<f64>> = grid(20).into_iter().filter(|p| p[0] < 0.8).collect();
        let values: Vec<f64> = points.iter().map(|p| f(p)).collect();
        let process = Process::of(&points, &values, 1).unwrap();
        for place in [0.1, 0.33, 0.52, 0.7] {
            let (mean, deviation) = process.at(&[place, 0.5]);
            assert!((mean - f(&[place])).abs() < 0.2, "{place} {mean}");
            assert!(deviation < 0.5, "{deviation}");
        }
        let (_, inside) = process.at(&[0.5, 0.5]);
        let (_, outside) = process.at(&[1.0, 0.5]);
        assert!(outside > 3.0 * inside);
        // The second coordinate says nothing: its length is longer.
        assert!(process.inverse_squares[1] < 0.2 * process.inverse_squares[0]);
    }

    #[test]
    fn noise_is_told_from_the_function() {
        let mut random = Random::new(3, Stream::Simulation);
        let points = grid(60);
        let values: Vec<f64> = (points.iter())
            .map(|p| (5.0 * p[0]).sin() + 0.3 * random.normal())
            .collect();
        let process = Process::of(&points, &values, 1).unwrap();
        let worst = (1..10)
            .map(|i| f64::from(i) / 10.0)
            .map(|place| (process.at(&[place, 0.5]).0 - (5.0 * place).sin()).abs())
            .fold(0.0, f64::max);
        // Each value alone is off by 0.3; some ten share a length.
        assert!(worst < 0.3, "{worst}");
    }

    #[test]
    fn same_points_and_same_values_do_no_harm() {
        let points = vec![vec![0.5]; 6];
        let process = Process::of(&points, &[1.0, 1.0, 1.0, 2.0, 2.0, 2.0], 1).unwrap();
        assert!((process.at(&[0.5]).0 - 1.5).abs() < 0.05);
        let process = Process::of(&points, &[3.0; 6], 1).unwrap();
        assert_eq!(process.at(&[0.1]).0, 3.0);
        assert!(Process::of(&points, &[f64::NAN; 6], 1).is_none());
        assert!(Process::of(&[], &[], 1).is_none());
    }
}
