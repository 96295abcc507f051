//! A map that never falls, fitted to what was seen: from how relevant an item is to how often it was needed.
//!
//! By pooling adjacent violators (M. Ayer et al., "An empirical distribution function for sampling with incomplete
//! information", 1955): of all maps that never fall the one with the least squared error. It is a staircase with as many steps as
//! the data have; [`Map`] keeps a few of them and goes straight from the middle of one to the middle of the next.

use serde::Serialize;

/// Bins of equal count into which what was seen is put first, for each knot that may be kept: single items say too little.
const BINS_A_KNOT: usize = 4;
/// What a step is drawn towards the mean of all by, in items: a handful of items that were all needed do not make it sure.
const PRIOR: f64 = 1.0;

/// A step: where it lies, how high it is, how much was seen there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Mean of what it pools, along the way.
    pub at: f64,
    /// Mean height.
    pub height: f64,
    /// Weight of what it pools.
    pub weight: f64,
}

impl Step {
    fn pooled(self, other: Step) -> Step {
        let weight = self.weight + other.weight;
        let mean = |one: f64, two: f64| (one * self.weight + two * other.weight) / weight;
        Step {
            at: mean(self.at, other.at),
            height: mean(self.height, other.height),
            weight,
        }
    }

    /// By how much pooling two steps adds to the squared error.
    fn cost(self, other: Step) -> f64 {
        let apart = self.height - other.height;
        self.weight * other.weight / (self.weight + other.weight) * apart * apart
    }
}

/// Pools neighbours, given in their order along the way, until none is higher than the one after it.
pub fn pool(steps: impl IntoIterator<Item = Step>) -> Vec<Step> {
    let mut pooled: Vec<Step> = Vec::new();
    for mut step in steps {
        while let Some(before) = pooled.pop_if(|before| before.height >= step.height) {
            step = before.pooled(step);
        }
        pooled.push(step);
    }
    pooled
}

/// A map through a few knots: straight between them, level beyond.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Map {
    /// Where the knots lie, rising.
    pub at: Vec<f64>,
    /// How high they are, never falling, in `[0, 1]`.
    pub height: Vec<f64>,
}

impl Map {
    /// Fits a share to what was seen: where, and whether it was so. At most `knots` of them, none of nothing.
    pub fn fit(seen: &[(f64, bool)], knots: usize) -> Map {
        let mut seen: Vec<(f64, bool)> = seen
            .iter()
            .copied()
            .filter(|(at, _)| at.is_finite())
            .collect();
        seen.sort_by(|a, b| a.0.total_cmp(&b.0));
        let share = |some: &[(f64, bool)]| {
            let count = some.len().max(1) as f64;
            some.iter().filter(|(_, yes)| *yes).count() as f64 / count
        };
        let all = share(&seen);
        let size = seen.len().div_ceil((knots * BINS_A_KNOT).max(1)).max(1);
        let bins = bins(&seen, size).into_iter().map(|bin| Step {
            at: bin.iter().map(|(at, _)| at).sum::<f64>() / bin.len() as f64,
            height: share(bin),
            weight: bin.len() as f64,
        });
        let mut steps = pool(bins);
        while steps.len() > knots.max(1) {
            let costs = steps.windows(2).map(|pair| match pair {
                [one, other] => one.cost(*other),
                _ => f64::INFINITY,
            });
            let cheapest = costs.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
            let Some((number, _)) = cheapest else { break };
            let next = steps.remove(number + 1);
            if let Some(step) = steps.get_mut(number) {
                *step = step.pooled(next);
            }
        }
        // Drawing small steps further in than large ones may turn two round.
        let drawn_in = pool(steps.into_iter().map(|step| Step {
            height: (step.height * step.weight + all * PRIOR) / (step.weight + PRIOR),
            ..step
        }));
        Map {
            at: drawn_in.iter().map(|step| step.at).collect(),
            height: drawn_in.iter().map(|step| step.height).collect(),
        }
    }

    /// The share at a place. None where nothing was seen, or the place is no number.
    pub fn of(&self, place: f64) -> Option<f64> {
        if place.is_nan() {
            return None;
        }
        let after = self.at.partition_point(|at| *at <= place);
        let knot = |number: usize| Some((*self.at.get(number)?, *self.height.get(number)?));
        let before = after.checked_sub(1).and_then(knot);
        match (before, knot(after)) {
            (Some((x0, y0)), Some((x1, y1))) => Some(y0 + (y1 - y0) * (place - x0) / (x1 - x0)),
            (Some((_, level)), None) | (None, Some((_, level))) => Some(level),
            (None, None) => None,
        }
    }
}

/// Bins of `size`, or somewhat more where equal places would lie in two.
fn bins(seen: &[(f64, bool)], size: usize) -> Vec<&[(f64, bool)]> {
    let mut bins = Vec::new();
    let mut rest = seen;
    while let Some((last, _)) = rest.get(size.min(rest.len()).wrapping_sub(1)) {
        let end = rest.partition_point(|(at, _)| at <= last);
        let (bin, others) = rest.split_at(end);
        bins.push(bin);
        rest = others;
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(at: f64, height: f64, weight: f64) -> Step {
        Step { at, height, weight }
    }

    #[test]
    fn neighbours_that_fall_are_pooled_by_weight() {
        // 3 then 1 (thrice) give 6 / 4; 2 is above that.
        let steps = [
            step(1.0, 3.0, 1.0),
            step(2.0, 1.0, 3.0),
            step(3.0, 2.0, 2.0),
        ];
        assert_eq!(pool(steps), [step(1.75, 1.5, 4.0), step(3.0, 2.0, 2.0)]);
        // 1, 0 give 1/2; then 0 pools all three to 1/3; 1 stays.
        let heights = [1.0, 0.0, 0.0, 1.0];
        let steps = (0..4)
            .zip(heights)
            .map(|(at, height)| step(f64::from(at), height, 1.0));
        let pooled = pool(steps);
        assert_eq!(pooled.len(), 2);
        assert!((pooled[0].height - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!((pooled[0].at, pooled[1]), (1.0, step(3.0, 1.0, 1.0)));
    }

    #[test]
    fn a_pooled_map_is_the_best_that_never_falls() {
        // Held against every staircase over a grid of heights, of which the best has the heights that pooling gives.
        let seen = [0.5, 0.0, 1.0, 0.5];
        let pooled = pool(seen.map(|height| step(0.0, height, 1.0)));
        let mut best = (f64::INFINITY, Vec::new());
        for code in 0..5_u32.pow(4) {
            let heights: Vec<f64> = (0..4)
                .map(|place| f64::from(code / 5_u32.pow(place) % 5) / 4.0)
                .collect();
            let error: f64 = heights.iter().zip(seen).map(|(a, b)| (a - b).powi(2)).sum();
            if heights.is_sorted() && error < best.0 {
                best = (error, heights);
            }
        }
        assert_eq!(best.1, [0.25, 0.25, 0.75, 0.75]);
        let heights: Vec<f64> = pooled.iter().map(|step| step.height).collect();
        assert_eq!(heights, [0.25, 0.75]);
    }

    #[test]
    fn a_fitted_map_never_falls_and_has_no_more_knots_than_asked_for() {
        // Needed more often the further along, with some noise that is always the same.
        let seen: Vec<(f64, bool)> = (0..400_u32)
            .map(|number| {
                let place = f64::from(number) / 400.0;
                (place, f64::from(number * 7919 % 400) / 400.0 < place)
            })
            .collect();
        for knots in [1, 2, 6] {
            let map = Map::fit(&seen, knots);
            assert!((1..=knots).contains(&map.at.len()), "{map:?}");
            assert!(map.at.is_sorted() && map.height.is_sorted(), "{map:?}");
        }
        let map = Map::fit(&seen, 6);
        for place in [0.2, 0.5, 0.8] {
            assert!((map.of(place).unwrap() - place).abs() < 0.1, "{map:?}");
        }
    }

    #[test]
    fn few_items_make_nothing_sure() {
        // One not needed, one needed: each half way to the mean of 1/2.
        let map = Map::fit(&[(0.0, false), (1.0, true)], 4);
        assert_eq!(
            (map.at.as_slice(), map.height.as_slice()),
            (&[0.0, 1.0][..], &[0.25, 0.75][..])
        );
        assert_eq!(map.of(0.5), Some(0.5));
        assert_eq!((map.of(-9.0), map.of(9.0)), (Some(0.25), Some(0.75)));
        assert_eq!(map.of(f64::NAN), None);
        assert_eq!(Map::fit(&[], 4).of(0.0), None);
        assert_eq!(Map::fit(&[(f64::NAN, true)], 4).of(0.0), None);
    }

    #[test]
    fn equal_places_are_in_one_bin() {
        let seen = [(1.0, true), (1.0, false), (1.0, true), (2.0, true)];
        let bins = bins(&seen, 1);
        assert_eq!(bins, [&seen[..3], &seen[3..]]);
    }
}
