//! Which shape makes values likely: climbs the marginal likelihood, with a prior on the shape, from a few starts.

use super::process::Shape;
use crate::linear::{Cholesky, dot};
use crate::random::{Random, Stream};

/// Climbs from so many places.
const STARTS: u32 = 2;
const STEPS: u32 = 40;
/// Lengths, signal and noise stay within these, in logarithms. Coordinates are in `[0, 1]`, values have variance 1.
const LENGTHS: (f64, f64) = (-4.6, 2.3);
const SIGNAL: (f64, f64) = (-3.0, 3.0);
const NOISE: (f64, f64) = (-13.8, 0.0);
/// Means and standard deviations of the prior, in logarithms: without one, few values make any shape likely. Lengths
/// grow with the root of the number of coordinates, as distances do (C. Hvarfner, E. O. Hellsten, L. Nardi, "Vanilla
/// Bayesian optimization performs great in high dimensions", 2024).
const LENGTH_PRIOR: (f64, f64) = (-0.7, 1.0);
const SIGNAL_PRIOR: (f64, f64) = (0.0, 1.0);
const NOISE_PRIOR: (f64, f64) = (-8.0, 2.5);

struct Data<'a> {
    /// Squared differences of the coordinates of each pair of points, row by row of the lower half without the
    /// diagonal.
    differences: Vec<Vec<Vec<f64>>>,
    values: &'a [f64],
}

/// The likeliest shape that was found.
pub(super) fn fit(points: &[Vec<f64>], values: &[f64], seed: u64) -> Shape {
    let squares = |a: &Vec<f64>, b: &Vec<f64>| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).collect()
    };
    let differences = (points.iter().enumerate()).map(|(i, point)| {
        points
            .iter()
            .take(i)
            .map(|other| squares(point, other))
            .collect()
    });
    let data = Data {
        differences: differences.collect(),
        values,
    };
    let dimensions = points.first().map_or(0, Vec::len);
    let center = prior_means(dimensions);
    let mut random = Random::new(seed, Stream::Fit);
    let mut best = (f64::INFINITY, center.clone());
    for start in 0..STARTS {
        let from: Vec<f64> = (center.iter())
            .map(|mean| {
                if start == 0 {
                    *mean
                } else {
                    mean + random.normal()
                }
            })
            .collect();
        climb(&data, from, &mut best);
    }
    shape(&best.1)
}

fn prior_means(dimensions: usize) -> Vec<f64> {
    let length = LENGTH_PRIOR.0 + 0.5 * (dimensions.max(1) as f64).ln();
    let mut means = vec![length; dimensions];
    means.extend([SIGNAL_PRIOR.0, NOISE_PRIOR.0]);
    means
}

/// Lengths, then signal and noise.
fn shape(parameters: &[f64]) -> Shape {
    match parameters {
        [lengths @ .., signal, noise] => Shape {
            lengths: lengths.to_vec(),
            signal: *signal,
            noise: *noise,
        },
        _ => Shape {
            lengths: Vec::new(),
            signal: 0.0,
            noise: 0.0,
        },
    }
}

/// Goes downhill by the signs of the gradient (M. Riedmiller, H. Braun, "RPROP", 1993): each parameter has a step of
/// its own, which grows while the sign stays and shrinks where it turns. Needs no line search, and no scale.
fn climb(data: &Data, mut at: Vec<f64>, best: &mut (f64, Vec<f64>)) {
    let mut steps = vec![0.3; at.len()];
    let mut before = vec![0.0; at.len()];
    for _ in 0..STEPS {
        keep_within(&mut at);
        let Some((cost, gradient)) = cost(data, &at) else {
            return;
        };
        if cost < best.0 {
            *best = (cost, at.clone());
        }
        let parameters = at.iter_mut().zip(&mut steps).zip(&mut before).zip(gradient);
        for (((value, step), before), slope) in parameters {
            let turned = slope * *before;
            *step = if turned < 0.0 {
                *step * 0.5
            } else {
                (*step * 1.2_f64).min(1.0)
            };
            if slope != 0.0 {
                *value -= slope.signum() * *step;
            }
            *before = slope;
        }
        if steps.iter().all(|step| *step < 0.01) {
            return;
        }
    }
}

fn keep_within(parameters: &mut [f64]) {
    if let [lengths @ .., signal, noise] = parameters {
        for length in lengths {
            *length = length.clamp(LENGTHS.0, LENGTHS.1);
        }
        *signal = signal.clamp(SIGNAL.0, SIGNAL.1);
        *noise = noise.clamp(NOISE.0, NOISE.1);
    }
}

/// Minus the logarithm of likelihood times prior, but for a constant, and its gradient (Rasmussen and Williams,
/// equations 2.30 and 5.9). None where the covariance has no factor.
fn cost(data: &Data, parameters: &[f64]) -> Option<(f64, Vec<f64>)> {
    let shape = shape(parameters);
    let (signal, noise) = (shape.signal.exp(), shape.noise.exp());
    let inverse_squares = shape.inverse_squares();
    // Of each pair: covariance, and its slope by half the squared distance.
    let mut slopes = Vec::with_capacity(data.differences.len());
    let mut covariance = Vec::with_capacity(data.differences.len());
    for row in &data.differences {
        let pairs = row.iter().map(|squares| {
            let (correlation, slope) = Shape::correlation(dot(squares, &inverse_squares));
            (signal * correlation, signal * slope)
        });
        let (mut values, slope): (Vec<f64>, Vec<f64>) = pairs.unzip();
        values.push(signal + noise);
        covariance.push(values);
        slopes.push(slope);
    }
    let factor = Cholesky::of(&covariance)?;
    let weights = factor.solve(data.values);
    let inverse = factor.inverse();

    let mut by_length = vec![0.0; inverse_squares.len()];
    let (mut by_signal, mut by_noise) = (0.0, 0.0);
    let rows = inverse
        .iter()
        .zip(&covariance)
        .zip(&slopes)
        .zip(&data.differences);
    for ((((inverse, covariance), slopes), differences), weight) in rows.zip(&weights) {
        let pairs = inverse.iter().zip(covariance).zip(slopes).zip(differences);
        for ((((inverse, covariance), slope), squares), other) in pairs.zip(&weights) {
            // Both halves of the matrix.
            let off = inverse - weight * other;
            by_signal += off * covariance;
            for ((sum, square), inverse) in by_length.iter_mut().zip(squares).zip(&inverse_squares)
            {
                *sum += off * slope * square * inverse;
            }
        }
        let diagonal = 0.5 * (inverse.last()? - weight * weight);
        by_signal += diagonal * signal;
        by_noise += diagonal * noise;
    }
    let mut cost = 0.5 * (dot(&weights, data.values) + factor.log_determinant());
    let mut gradient = by_length;
    gradient.extend([by_signal, by_noise]);

    let means = prior_means(shape.lengths.len());
    let deviations = std::iter::repeat_n(LENGTH_PRIOR.1, shape.lengths.len());
    let deviations = deviations.chain([SIGNAL_PRIOR.1, NOISE_PRIOR.1]);
    let prior = parameters.iter().zip(means).zip(deviations);
    for (slope, ((value, mean), deviation)) in gradient.iter_mut().zip(prior) {
        let off = (value - mean) / deviation;
        cost += 0.5 * off * off;
        *slope += off / deviation;
    }
    cost.is_finite().then_some((cost, gradient))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_cost() {
        let mut random = Random::new(1, Stream::Simulation);
        let points: Vec<Vec<f64>> = (0..12)
            .map(|_| vec![random.uniform(), random.uniform(), random.uniform()])
            .collect();
        let values: Vec<f64> = points
            .iter()
            .map(|p| p[0] - p[1].sin() + 0.1 * p[2])
            .collect();
        let squares = |a: &Vec<f64>, b: &Vec<f64>| {
            a.iter()
                .zip(b)
                .map(|(a, b)| (a - b) * (a - b))
                .collect::<Vec<f64>>()
        };
        let data = Data {
            differences: (0..12)
                .map(|i| (0..i).map(|j| squares(&points[i], &points[j])).collect())
                .collect(),
            values: &values,
        };
        let at = [-0.5, 0.2, 1.0, 0.3, -4.0];
        let (_, gradient) = cost(&data, &at).unwrap();
        for (i, slope) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut at = at;
                at[i] += by;
                cost(&data, &at).unwrap().0
            };
            let measured = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!(
                (slope - measured).abs() < 1e-5 * (1.0 + measured.abs()),
                "{i} {slope} {measured}"
            );
        }
    }
}
