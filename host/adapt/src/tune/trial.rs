//! Problems with a known answer, to hold tuning against random search and a dense grid.

use super::{Dimension, Point, Space, Tuner};
use crate::random::{Random, Stream};

/// Points of a dense grid along each parameter that is no whole number.
const GRID: u32 = 400;

/// A smooth function of two parameters, and a constraint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Branin's function in a disc that holds one of its three lowest points (J. M. Parr et al., 2012).
    Branin,
    /// The first of Gardner et al. (2014): two valleys, of which the deeper is cut by the constraint.
    Waves,
    /// Speculation over a link: drafts a round and the least confidence that is drafted on, for the mean time of a
    /// token; what the cloud has to verify is bounded.
    Rounds,
}

impl Problem {
    /// All of them.
    pub const ALL: [Problem; 3] = [Problem::Branin, Problem::Waves, Problem::Rounds];

    /// The parameters.
    pub fn dimensions(self) -> Vec<Dimension> {
        match self {
            Problem::Branin => vec![Dimension::float(-5.0, 10.0), Dimension::float(0.0, 15.0)],
            Problem::Waves => vec![Dimension::float(0.0, 6.0), Dimension::float(0.0, 6.0)],
            Problem::Rounds => vec![Dimension::int(1.0, 32.0), Dimension::float(0.01, 0.99)],
        }
    }

    /// Objective and constraint.
    pub fn at(self, point: &[f64]) -> (f64, f64) {
        let &[x, y] = point else {
            return (f64::NAN, f64::NAN);
        };
        match self {
            Problem::Branin => {
                let pi = std::f64::consts::PI;
                let bend = y - 5.1 / (4.0 * pi * pi) * x * x + 5.0 / pi * x - 6.0;
                let value = bend * bend + 10.0 * (1.0 - 1.0 / (8.0 * pi)) * x.cos() + 10.0;
                (value, (x - 2.5).powi(2) + (y - 7.5).powi(2) - 50.0)
            }
            Problem::Waves => (
                (2.0 * x).cos() * y.cos() + x.sin(),
                x.cos() * y.cos() - x.sin() * y.sin() - 0.5,
            ),
            Problem::Rounds => rounds(x, y),
        }
    }

    /// The lowest objective on a dense grid among points that keep the constraint, and the highest of all.
    pub fn grid(self) -> (f64, f64) {
        let along = |dimension: &Dimension| -> Vec<f64> {
            let steps = if dimension.int {
                (dimension.max - dimension.min) as u32
            } else {
                GRID
            };
            let width = (dimension.max - dimension.min) / f64::from(steps);
            (0..=steps)
                .map(|step| dimension.min + width * f64::from(step))
                .collect()
        };
        let axes: Vec<Vec<f64>> = self.dimensions().iter().map(along).collect();
        let (mut best, mut worst) = (f64::INFINITY, f64::NEG_INFINITY);
        if let [xs, ys] = axes.as_slice() {
            for point in xs.iter().flat_map(|x| ys.iter().map(|y| [*x, *y])) {
                let (objective, constraint) = self.at(&point);
                worst = worst.max(objective);
                if constraint <= 0.0 {
                    best = best.min(objective);
                }
            }
        }
        (best, worst)
    }
}

/// The mean time of a token in ms where rounds of at most `drafts` drafts go over a link, drafting ends below a
/// confidence, and drafts are accepted with 0.75 to 0.95. Constraint: drafts that are verified for a token, at most
/// 1.6.
fn rounds(drafts: f64, confidence: f64) -> (f64, f64) {
    const DRAFT_MS: f64 = 6.0;
    const ROUND_MS: f64 = 60.0;
    // The pickier, the fewer drafts, and the more of them stand.
    let acceptance = 0.75 + 0.2 * confidence;
    let sent = 1.0 + (drafts - 1.0) * (1.0 - confidence.powi(3));
    let tokens = (1.0 - acceptance.powf(sent + 1.0)) / (1.0 - acceptance);
    ((sent * DRAFT_MS + ROUND_MS) / tokens, sent / tokens - 1.6)
}

/// Tuning beside random search, over some seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// The lowest objective on a dense grid.
    pub grid: f64,
    /// The best that tuning reached, seed by seed; the highest objective there is where nothing kept the constraint.
    pub tuned: Vec<f64>,
    /// The best that as many random points reached, likewise.
    pub random: Vec<f64>,
}

impl Comparison {
    /// Mean of the best that tuning reached.
    pub fn tuned_mean(&self) -> f64 {
        mean(&self.tuned)
    }

    /// Mean of the best that random search reached.
    pub fn random_mean(&self) -> f64 {
        mean(&self.random)
    }

    /// By what part of the grid's best the mean that tuning reached is above it; negative where it is below.
    pub fn above_grid(&self) -> f64 {
        (self.tuned_mean() - self.grid) / self.grid.abs()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Tunes a problem with `evaluations` trials for each of `seeds` seeds, and searches at random with as many.
pub fn compare(problem: Problem, evaluations: u32, seeds: u64) -> Comparison {
    let (grid, worst) = problem.grid();
    let mut comparison = Comparison {
        grid,
        tuned: Vec::new(),
        random: Vec::new(),
    };
    let Ok(space) = Space::new(problem.dimensions()) else {
        return comparison;
    };
    for seed in 0..seeds {
        let mut tuner = Tuner::new(space.clone(), seed);
        let mut random = Random::new(seed, Stream::Simulation);
        let mut best = worst;
        for _ in 0..evaluations {
            let point = tuner.suggest();
            let (objective, constraint) = problem.at(&point);
            // A suggestion is always a point of the space.
            let _ = tuner.tell(&point, objective, constraint);

            let places: Vec<f64> = point.iter().map(|_| random.uniform()).collect();
            let point: Point = space.point(&places);
            let (objective, constraint) = problem.at(&point);
            if constraint <= 0.0 {
                best = best.min(objective);
            }
        }
        comparison
            .tuned
            .push(tuner.best().map_or(worst, |best| best.objective));
        comparison.random.push(best);
    }
    comparison
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_optima_lie_where_they_should() {
        // Branin's lowest value, which the disc leaves at (pi, 2.275); within what a grid of 400 sees.
        let (best, worst) = Problem::Branin.grid();
        assert!((best - 0.397_887).abs() < 0.002 && worst > 300.0, "{best}");
        assert!(Problem::Branin.at(&[std::f64::consts::PI, 2.275]).1 < 0.0);
        assert!(Problem::Branin.at(&[-std::f64::consts::PI, 12.275]).1 > 0.0);
        let (waves, _) = Problem::Waves.grid();
        assert!((-2.0..-1.8).contains(&waves), "{waves}");
        let (rounds, worst) = Problem::Rounds.grid();
        assert!(rounds > 10.0 && worst > 2.0 * rounds, "{rounds} {worst}");
        assert!(Problem::Branin.at(&[1.0]).0.is_nan());
    }

    #[test]
    fn tuning_beats_random_search_and_comes_near_the_best_there_is() {
        // `examples/tuning.rs` plays all problems with 20 seeds.
        let comparison = compare(Problem::Waves, 30, 20);
        assert!(
            comparison.tuned_mean() < comparison.random_mean(),
            "{comparison:?}"
        );
        assert!(comparison.above_grid() < 0.05, "{comparison:?}");
    }
}
