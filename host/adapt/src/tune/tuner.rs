//! Which point to try next.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::design::Design;
use super::improvement::{log_improvement, log_probability};
use super::process::Process;
use super::search::search;
use super::space::{Point, Space};

/// Trials that are kept; beyond, the oldest is forgotten that is not the best. The work for a suggestion grows with the
/// third power of their number.
pub const MAX_TRIALS: usize = 256;

/// Points around which is looked for better ones.
const GOOD: usize = 5;
/// Points closer than this, coordinate by coordinate and as parts of the ranges, are the same.
const SAME: f64 = 1e-6;

/// Why what was told was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TellError {
    /// No point of the space.
    #[error("a trial at {0:?}, which is no point of the space; tell a number for each parameter")]
    Foreign(Vec<f64>),
    /// Stored trials that were not told.
    #[error("stored trials do not fit the space; begin anew")]
    Stored,
}

/// The best trial so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Best {
    /// Where.
    pub point: Point,
    /// What was told of it: the lowest objective of those whose constraint is at most 0.
    pub objective: f64,
    /// Likewise.
    pub constraint: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    point: Point,
    /// Objective and constraint; none where it failed.
    outcome: Option<(f64, f64)>,
}

/// Looks for the point with the lowest objective among those whose constraint is at most 0.
///
/// [`suggest`](Tuner::suggest) is a function of what was told: asked twice, it answers the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Tuner {
    space: Space,
    seed: u64,
    trials: Vec<Trial>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    space: Space,
    seed: u64,
    trials: Vec<Trial>,
}

impl TryFrom<Stored> for Tuner {
    type Error = TellError;

    fn try_from(stored: Stored) -> Result<Tuner, TellError> {
        let Stored {
            space,
            seed,
            trials,
        } = stored;
        let sound = trials.iter().all(|trial| {
            let (objective, constraint) = trial.outcome.unwrap_or_default();
            space.nearest(&trial.point).as_ref() == Some(&trial.point)
                && objective.is_finite()
                && constraint.is_finite()
        });
        if sound && trials.len() <= MAX_TRIALS {
            Ok(Tuner {
                space,
                seed,
                trials,
            })
        } else {
            Err(TellError::Stored)
        }
    }
}

impl Tuner {
    /// Nothing tried yet.
    pub fn new(space: Space, seed: u64) -> Tuner {
        Tuner {
            space,
            seed,
            trials: Vec::new(),
        }
    }

    /// The space.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Trials that are known.
    pub fn trials(&self) -> usize {
        self.trials.len()
    }

    /// A trial has ended. `objective`: what is to be low. `constraint`: what must be at most 0. A trial that failed is
    /// told with NaN or an infinite number in either: it counts as one that broke the constraint. The point need not
    /// have been suggested; what is outside the space is taken for its border.
    ///
    /// # Errors
    /// `point` has a value for another number of parameters, or NaN for one.
    pub fn tell(
        &mut self,
        point: &[f64],
        objective: f64,
        constraint: f64,
    ) -> Result<(), TellError> {
        let foreign = || TellError::Foreign(point.to_vec());
        let point = self.space.nearest(point).ok_or_else(foreign)?;
        let measured = objective.is_finite() && constraint.is_finite();
        if self.trials.len() >= MAX_TRIALS {
            let best = self.best_trial();
            let old = (0..self.trials.len()).find(|index| Some(*index) != best);
            self.trials.remove(old.unwrap_or(0));
        }
        self.trials.push(Trial {
            point,
            outcome: measured.then_some((objective, constraint)),
        });
        Ok(())
    }

    fn best_trial(&self) -> Option<usize> {
        let kept =
            self.trials
                .iter()
                .enumerate()
                .filter_map(|(index, trial)| match trial.outcome {
                    Some((objective, constraint)) if constraint <= 0.0 => Some((index, objective)),
                    _ => None,
                });
        kept.min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(index, _)| index)
    }

    /// The best trial that kept the constraint. Where measurements are noisy its objective is a lucky one.
    pub fn best(&self) -> Option<Best> {
        let trial = self.trials.get(self.best_trial()?)?;
        let (objective, constraint) = trial.outcome?;
        Some(Best {
            point: trial.point.clone(),
            objective,
            constraint,
        })
    }

    /// The point to try next. Some 20 ms of a core after 30 trials of two parameters, a second after 200 of eight.
    pub fn suggest(&self) -> Point {
        let begun = self.trials.len() > 2 * self.space.dimensions().len() + 1;
        let better = if begun { self.better() } else { None };
        let places = better.unwrap_or_else(|| self.elsewhere());
        self.space.point(&places)
    }

    /// The next point of the design that was not tried.
    fn elsewhere(&self) -> Vec<f64> {
        let design = Design::new(self.space.dimensions().len(), self.seed);
        let tried = self.tried();
        let first = self.trials.len();
        let mut points =
            (first..first + MAX_TRIALS).map(|index| self.space.snap(&design.at(index)));
        points
            .find(|places| !is_among(places, &tried))
            // A small space of whole numbers, all of which were tried.
            .unwrap_or_else(|| self.space.snap(&design.at(first)))
    }

    fn tried(&self) -> Vec<Vec<f64>> {
        self.trials
            .iter()
            .map(|trial| self.space.places(&trial.point))
            .collect()
    }

    /// The point from which most improvement is expected. None where nothing can be expected.
    fn better(&self) -> Option<Vec<f64>> {
        let tried = self.tried();
        let trials = || self.trials.iter().zip(&tried);
        let measured: Vec<(&Vec<f64>, f64, f64)> = trials()
            .filter_map(|(trial, places)| trial.outcome.map(|(y, c)| (places, y, c)))
            .collect();
        let seed = self.seed.wrapping_add(self.trials.len() as u64);
        let (points, objectives): (Vec<Vec<f64>>, Vec<f64>) = measured
            .iter()
            .map(|(places, y, _)| ((*places).clone(), *y))
            .unzip();
        let objective = Process::of(&points, &squashed(&objectives), seed);
        let constraint = self.constraint(&tried, seed);

        // Of points that keep the constraint what the process says, not what was measured: a lucky one is no better.
        let kept = measured
            .iter()
            .filter(|(_, _, constraint)| *constraint <= 0.0);
        let best = objective.as_ref().and_then(|objective| {
            let means = kept.map(|(places, _, _)| objective.at(places).0);
            means.min_by(f64::total_cmp)
        });
        let mut good = measured;
        good.sort_by(|(_, ya, ca), (_, yb, cb)| {
            let key = |y: f64, c: f64| if c <= 0.0 { (0.0, y) } else { (c, 0.0) };
            let ((ca, ya), (cb, yb)) = (key(*ya, *ca), key(*yb, *cb));
            ca.total_cmp(&cb).then(ya.total_cmp(&yb))
        });
        let good: Vec<Vec<f64>> = good
            .into_iter()
            .take(GOOD)
            .map(|(places, _, _)| places.clone())
            .collect();

        search(&self.space, &good, seed, |places| {
            if is_among(places, &tried) {
                return None;
            }
            let keeps = constraint.as_ref().map_or(0.0, |constraint| {
                let (mean, deviation) = constraint.at(places);
                log_probability(-mean / deviation)
            });
            // Before any point keeps the constraint, one that does is all that is looked for.
            let gain = match (&objective, best) {
                (Some(objective), Some(best)) => {
                    let (mean, deviation) = objective.at(places);
                    log_improvement(best, mean, deviation)
                }
                _ => 0.0,
            };
            Some(keeps + gain)
        })
    }

    /// The process of the constraint. None where all trials kept it and none more than another: nothing is constrained.
    fn constraint(&self, tried: &[Vec<f64>], seed: u64) -> Option<Process> {
        let told = || {
            self.trials
                .iter()
                .filter_map(|trial| trial.outcome.map(|(_, c)| c))
        };
        let (least, most) = (
            told().fold(f64::INFINITY, f64::min),
            told().fold(f64::NEG_INFINITY, f64::max),
        );
        let all = told().count() == self.trials.len();
        if all && least == most && most <= 0.0 {
            return None;
        }
        let mut sizes: Vec<f64> = told().map(f64::abs).filter(|size| *size > 0.0).collect();
        let scale = median(&mut sizes).unwrap_or(1.0);
        // A failure is as bad as the worst that was seen, and at least as bad as usual.
        let failed = most.max(scale);
        let values = self.trials.iter().map(|trial| {
            let value = trial.outcome.map_or(failed, |(_, constraint)| constraint);
            (value / scale).asinh()
        });
        Process::of(
            tried,
            &values.collect::<Vec<f64>>(),
            seed.wrapping_add(1 << 32),
        )
    }
}

/// Values with their order kept and outliers brought in, linear around the median: one trial that takes a thousand
/// times as long as the others should not make them all look the same.
fn squashed(values: &[f64]) -> Vec<f64> {
    let middle = median(&mut values.to_vec()).unwrap_or(0.0);
    let mut off: Vec<f64> = values
        .iter()
        .map(|value| (value - middle).abs())
        .filter(|off| *off > 0.0)
        .collect();
    let scale = median(&mut off)
        .filter(|scale| scale.is_finite())
        .unwrap_or(f64::MAX);
    values
        .iter()
        .map(|value| (value / scale - middle / scale).asinh())
        .collect()
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn is_among(places: &[f64], tried: &[Vec<f64>]) -> bool {
    let same = |other: &&Vec<f64>| places.iter().zip(*other).all(|(a, b)| (a - b).abs() < SAME);
    tried.iter().find(same).is_some()
}

#[cfg(test)]
mod tests;
