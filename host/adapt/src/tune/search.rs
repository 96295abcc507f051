//! Where a function over the space is largest, as far as some hundred looks tell.

use super::design::Design;
use super::space::Space;
use crate::random::{Random, Stream};

/// Looks all over the space.
const WIDE: usize = 300;
/// Looks around each of the points that were good so far, at each distance.
const NEAR: usize = 12;
const DISTANCES: [f64; 2] = [0.1, 0.02];
/// The best are followed uphill, so many.
const FOLLOWED: usize = 3;
const FIRST_STEP: f64 = 0.1;
const LAST_STEP: f64 = 5e-4;
/// Rounds over all coordinates, at most.
const ROUNDS: usize = 60;

/// The places that are worth most, of those whose values `worth` allows: None is not allowed. `good`: places to look
/// around.
pub(super) fn search(
    space: &Space,
    good: &[Vec<f64>],
    seed: u64,
    worth: impl Fn(&[f64]) -> Option<f64>,
) -> Option<Vec<f64>> {
    let mut random = Random::new(seed, Stream::Search);
    let design = Design::new(space.dimensions().len(), seed);
    let mut looked: Vec<(f64, Vec<f64>)> = Vec::new();
    let mut look = |places: Vec<f64>| {
        let places = space.snap(&places);
        if let Some(worth) = worth(&places).filter(|worth| !worth.is_nan()) {
            looked.push((worth, places));
        }
    };
    (0..WIDE).for_each(|index| look(design.at(index)));
    for place in good {
        for distance in DISTANCES {
            for _ in 0..NEAR {
                let moved = place
                    .iter()
                    .map(|at| (at + distance * random.normal()).clamp(0.0, 1.0));
                look(moved.collect());
            }
        }
    }
    looked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let followed = looked.into_iter().take(FOLLOWED);
    let tops = followed.map(|(value, places)| climb(space, value, places, &worth));
    tops.max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, places)| places)
}

/// Goes uphill along the coordinates, with steps that become smaller (R. Hooke, T. A. Jeeves, 1961).
fn climb(
    space: &Space,
    mut value: f64,
    mut places: Vec<f64>,
    worth: impl Fn(&[f64]) -> Option<f64>,
) -> (f64, Vec<f64>) {
    let mut step = FIRST_STEP;
    for _ in 0..ROUNDS {
        if step < LAST_STEP {
            break;
        }
        let mut moved = false;
        for index in 0..places.len() {
            for by in [step, -step] {
                let mut next = places.clone();
                if let Some(at) = next.get_mut(index) {
                    *at = (*at + by).clamp(0.0, 1.0);
                }
                let next = space.snap(&next);
                if let Some(better) = worth(&next).filter(|worth| *worth > value) {
                    (value, places) = (better, next);
                    moved = true;
                    break;
                }
            }
        }
        if !moved {
            step *= 0.5;
        }
    }
    (value, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::Dimension;

    #[test]
    fn the_top_is_found_and_what_is_not_allowed_is_not() {
        let space = Space::new(vec![Dimension::float(0.0, 1.0), Dimension::int(0.0, 9.0)]).unwrap();
        let hill = |p: &[f64]| -(p[0] - 0.7234).powi(2) - (p[1] - 0.35).powi(2);
        let top = search(&space, &[], 1, |p| Some(hill(p))).unwrap();
        // The place of 3 among 0 to 9.
        assert!(
            (top[0] - 0.7234).abs() < 1e-3 && (top[1] - 0.35).abs() < 1e-12,
            "{top:?}"
        );
        let top = search(&space, &[top], 1, |p| (p[0] < 0.5).then(|| hill(p))).unwrap();
        assert!(top[0] < 0.5 && top[0] > 0.49, "{top:?}");
        assert_eq!(search(&space, &[], 1, |_| None), None);
        assert_eq!(search(&space, &[], 1, |_| Some(f64::NAN)), None);
    }
}
