//! Which points are tried, in which order, and what is the best of them.
//!
//! First the declared defaults, then as many points as wanted that the tuner suggests, then as many that are drawn at random, for
//! comparison. Each next point is a function of settings and of the trials before, so that a search that is taken up again goes
//! on as if it had never stopped.

use anyhow::{Context, bail};
use msao_adapt::tune::{MAX_TRIALS, Point, Tuner};
use msao_registry::driver::Random;
use serde::{Deserialize, Serialize};

use crate::judge::{Judge, Measured, Wanted};
use crate::tunable::Tunables;

/// Points that the tuner may be asked for: beyond it would forget trials.
pub const MOST_EVALUATIONS: u32 = MAX_TRIALS as u32 - 1;

/// Of the seed's streams, the one for random points.
const RANDOM_POINTS: u64 = 0x5eed;

/// One point, and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Trial {
    /// A value for each tuned parameter.
    pub point: Point,
    /// None: no request was answered.
    pub measured: Option<Measured>,
}

/// All trials so far, each kind in its order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Trials {
    /// The declared defaults.
    pub declared: Option<Trial>,
    /// What the tuner suggested.
    pub tuned: Vec<Trial>,
    /// What was drawn at random.
    pub random: Vec<Trial>,
}

/// Where a point comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The manifest.
    Declared,
    /// The tuner.
    Tuned,
    /// A draw.
    Random,
}

/// What playing a point came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Played {
    /// All requests have ended; none was answered where there are no figures.
    Over(Option<Measured>),
    /// Somebody wants it to end: the point counts as not tried.
    Stopped,
}

/// The best of some trials.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best<'a> {
    /// Where it comes from, and its number among those.
    pub origin: Origin,
    /// From 0.
    pub number: usize,
    /// It.
    pub trial: &'a Trial,
    /// Of it.
    pub measured: &'a Measured,
    /// What was to be low.
    pub objective: f64,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Search {
    tunables: Tunables,
    wanted: Wanted,
    seed: u64,
    evaluations: u32,
    trials: Trials,
    tuner: Tuner,
    judge: Option<Judge>,
}

impl Search {
    /// Nothing tried yet. `evaluations`: points that the tuner is asked for.
    pub fn new(tunables: Tunables, wanted: Wanted, seed: u64, evaluations: u32) -> Search {
        let tuner = Tuner::new(tunables.space().clone(), seed);
        Search {
            tunables,
            wanted,
            seed,
            evaluations,
            trials: Trials::default(),
            tuner,
            judge: None,
        }
    }

    /// Goes on where another search with the same settings had got to.
    ///
    /// # Errors
    /// The trials are not those of such a search.
    pub fn resume(mut self, trials: Trials) -> anyhow::Result<Search> {
        let Trials {
            declared,
            tuned,
            random,
        } = trials;
        if declared.is_none() && !(tuned.is_empty() && random.is_empty()) {
            bail!("the declared defaults are missing among the trials");
        }
        let (tuned, random) = (tuned.into_iter(), random.into_iter());
        let tuned = tuned.map(|trial| (Origin::Tuned, trial));
        let random = random.map(|trial| (Origin::Random, trial));
        let declared = declared.map(|trial| (Origin::Declared, trial));
        for (origin, trial) in declared.into_iter().chain(tuned).chain(random) {
            let measured = trial.measured.as_ref();
            if !self.tunables.allow(&trial.point) || measured.is_some_and(|it| !it.is_sound()) {
                bail!("a trial has figures that cannot have been measured");
            }
            self.tell(origin, trial.point, trial.measured)?;
        }
        Ok(self)
    }

    /// What is tuned.
    pub fn tunables(&self) -> &Tunables {
        &self.tunables
    }

    /// All trials so far.
    pub fn trials(&self) -> &Trials {
        &self.trials
    }

    /// Trials so far, and in all.
    pub fn progress(&self) -> (usize, usize) {
        let Trials {
            declared,
            tuned,
            random,
        } = &self.trials;
        let done = usize::from(declared.is_some()) + tuned.len() + random.len();
        (done, 1 + 2 * self.evaluations as usize)
    }

    /// Holds trials against what is wanted; none before the defaults have been tried.
    pub fn judge(&self) -> Option<&Judge> {
        self.judge.as_ref()
    }

    /// The next point to try; none where the search is over.
    pub fn upcoming(&self) -> Option<(Origin, Point)> {
        let wanted = self.evaluations as usize;
        if self.trials.declared.is_none() {
            return Some((Origin::Declared, self.tunables.declared()));
        }
        if self.trials.tuned.len() < wanted {
            let point = self.tunables.rounded(&self.tuner.suggest());
            return Some((Origin::Tuned, point));
        }
        let number = self.trials.random.len();
        (number < wanted).then(|| (Origin::Random, self.drawn(number)))
    }

    /// A point at random, each coordinate even over its scale.
    fn drawn(&self, number: usize) -> Point {
        let mut random = Random::fork(self.seed ^ RANDOM_POINTS, number as u64);
        let space = self.tunables.space();
        let places: Vec<f64> = space.dimensions().iter().map(|_| random.unit()).collect();
        self.tunables.rounded(&space.point(&places))
    }

    /// A point has been tried.
    ///
    /// # Errors
    /// No request was answered with the declared defaults: there is nothing to compare with.
    pub fn tell(
        &mut self,
        origin: Origin,
        point: Point,
        measured: Option<Measured>,
    ) -> anyhow::Result<()> {
        if origin == Origin::Declared {
            let measured = measured.as_ref().context(
                "with the declared defaults no request is answered in this world: choose other engines (--draft, --target, --profile), \
                 or let requests come more slowly (--pace)",
            )?;
            self.judge = Some(Judge::new(self.wanted, measured));
        }
        // Random points are no help to the tuner: the two are compared.
        if origin != Origin::Random {
            let judged = self.judge.as_ref().zip(measured.as_ref());
            let (objective, constraint) = judged.map_or((f64::NAN, f64::NAN), |(judge, it)| {
                (judge.objective(it), judge.constraint(it))
            });
            self.tuner.tell(&point, objective, constraint)?;
        }
        let trial = Trial { point, measured };
        match origin {
            Origin::Declared => self.trials.declared = Some(trial),
            Origin::Tuned => self.trials.tuned.push(trial),
            Origin::Random => self.trials.random.push(trial),
        }
        Ok(())
    }

    /// The best of the declared defaults and of the tuner's points that kept the constraint; of equal ones the earlier.
    pub fn best(&self) -> Option<Best<'_>> {
        self.best_of(Origin::Tuned, &self.trials.tuned)
    }

    /// The best of the declared defaults and of the points drawn at random.
    pub fn best_random(&self) -> Option<Best<'_>> {
        self.best_of(Origin::Random, &self.trials.random)
    }

    fn best_of<'a>(&'a self, origin: Origin, trials: &'a [Trial]) -> Option<Best<'a>> {
        let declared = self.trials.declared.iter();
        let declared = declared.map(|trial| (Origin::Declared, 0, trial));
        let others = trials.iter().enumerate();
        let others = others.map(|(number, trial)| (origin, number, trial));
        let judge = self.judge.as_ref()?;
        let kept = declared
            .chain(others)
            .filter_map(|(origin, number, trial)| {
                let measured = trial.measured.as_ref()?;
                judge.keeps(measured).then(|| Best {
                    origin,
                    number,
                    trial,
                    measured,
                    objective: judge.objective(measured),
                })
            });
        kept.min_by(|a, b| a.objective.total_cmp(&b.objective))
    }
}

/// Tries one point after the other. `play` plays all requests with parameters, in the manifest's order; `save` is told after
/// each point. True if the search is over, false if it was stopped.
///
/// # Errors
/// Those of `play`, `save` and [`Search::tell`].
pub fn go_on(
    search: &mut Search,
    play: &mut dyn FnMut(Origin, Vec<f64>) -> anyhow::Result<Played>,
    save: &mut dyn FnMut(&Search) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    while let Some((origin, point)) = search.upcoming() {
        let params = search.tunables().params(&point);
        let Played::Over(measured) = play(origin, params)? else {
            return Ok(false);
        };
        search.tell(origin, point, measured)?;
        save(search)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
