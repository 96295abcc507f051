//! The parameters and their ranges.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Parameters that can be tuned together.
pub const MAX_DIMENSIONS: usize = 16;

/// Largest size of a bound: whole numbers up to it are exact.
const MOST: f64 = 9e15;

/// A value for each parameter, in their order.
pub type Point = Vec<f64>;

/// Why a space was refused.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum SpaceError {
    /// None, or too many.
    #[error("{0} parameters to tune; allowed: 1 to {MAX_DIMENSIONS}")]
    Count(usize),
    /// A range that holds nothing, or too much.
    #[error(
        "parameter {index} ranges from {min} to {max}; min must be at most max, both within 9 * 10^15, whole numbers for \
         an int, and above 0 on a logarithmic scale"
    )]
    Range {
        /// The parameter's number, from 0.
        index: usize,
        /// Its lowest value.
        min: f64,
        /// Its highest value.
        max: f64,
    },
}

/// A parameter: its range, and on which scale it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    /// Whether only whole numbers are allowed.
    pub int: bool,
    /// Lowest value.
    pub min: f64,
    /// Highest value.
    pub max: f64,
    /// Whether factors count rather than differences.
    pub log: bool,
}

impl Dimension {
    /// Any number from `min` to `max`.
    pub const fn float(min: f64, max: f64) -> Dimension {
        Dimension {
            int: false,
            min,
            max,
            log: false,
        }
    }

    /// Any whole number from `min` to `max`.
    pub const fn int(min: f64, max: f64) -> Dimension {
        Dimension {
            int: true,
            ..Dimension::float(min, max)
        }
    }

    /// The same on a logarithmic scale.
    #[must_use]
    pub const fn log(self) -> Dimension {
        Dimension { log: true, ..self }
    }

    fn fits(&self) -> bool {
        let Dimension { int, min, max, log } = *self;
        let bound = |x: f64| x.abs() <= MOST && (!int || x == x.trunc()) && (!log || x > 0.0);
        bound(min) && bound(max) && min <= max
    }

    /// Ends of the scale. Those of whole numbers lie half a step outside, so that all have the same room.
    fn ends(&self) -> (f64, f64) {
        match (self.int, self.log) {
            (false, false) => (self.min, self.max),
            (true, false) => (self.min - 0.5, self.max + 0.5),
            (_, true) => (self.min.ln(), self.max.ln()),
        }
    }

    /// The value at a place of the scale, 0 being its beginning and 1 its end.
    fn value(&self, place: f64) -> f64 {
        let (begin, end) = self.ends();
        let on_scale = begin + place * (end - begin);
        let value = if self.log { on_scale.exp() } else { on_scale };
        self.nearest(value)
    }

    /// The nearest value that is allowed.
    fn nearest(&self, value: f64) -> f64 {
        let value = if self.int { value.round() } else { value };
        value.clamp(self.min, self.max)
    }

    /// The place of a value on the scale, in `[0, 1]`.
    fn place(&self, value: f64) -> f64 {
        let (begin, end) = self.ends();
        let on_scale = if self.log { value.ln() } else { value };
        let place = (on_scale - begin) / (end - begin);
        // A range of one value.
        if place.is_nan() {
            0.5
        } else {
            place.clamp(0.0, 1.0)
        }
    }
}

/// All parameters that are tuned together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Dimension>", into = "Vec<Dimension>")]
pub struct Space {
    dimensions: Vec<Dimension>,
}

impl TryFrom<Vec<Dimension>> for Space {
    type Error = SpaceError;

    fn try_from(dimensions: Vec<Dimension>) -> Result<Space, SpaceError> {
        Space::new(dimensions)
    }
}

impl From<Space> for Vec<Dimension> {
    fn from(space: Space) -> Vec<Dimension> {
        space.dimensions
    }
}

impl Space {
    /// A space of 1 to [`MAX_DIMENSIONS`] parameters.
    ///
    /// # Errors
    /// There are none or too many, or a range cannot be.
    pub fn new(dimensions: Vec<Dimension>) -> Result<Space, SpaceError> {
        if dimensions.is_empty() || dimensions.len() > MAX_DIMENSIONS {
            return Err(SpaceError::Count(dimensions.len()));
        }
        match dimensions.iter().position(|dimension| !dimension.fits()) {
            None => Ok(Space { dimensions }),
            Some(index) => {
                let (min, max) = dimensions
                    .get(index)
                    .map_or((0.0, 0.0), |it| (it.min, it.max));
                Err(SpaceError::Range { index, min, max })
            }
        }
    }

    /// The parameters.
    pub fn dimensions(&self) -> &[Dimension] {
        &self.dimensions
    }

    /// The values at places of the scales, each in `[0, 1]`.
    pub fn point(&self, places: &[f64]) -> Point {
        let pairs = self.dimensions.iter().zip(places);
        pairs
            .map(|(dimension, place)| dimension.value(*place))
            .collect()
    }

    /// The places of values.
    pub(super) fn places(&self, point: &[f64]) -> Vec<f64> {
        let pairs = self.dimensions.iter().zip(point);
        pairs
            .map(|(dimension, value)| dimension.place(*value))
            .collect()
    }

    /// The places of the values that are really taken: of a whole number there is one place only (E. C.
    /// Garrido-Merchan, D. Hernandez-Lobato, "Dealing with categorical and integer-valued variables in Bayesian
    /// optimization", 2020).
    pub(super) fn snap(&self, places: &[f64]) -> Vec<f64> {
        let pairs = self.dimensions.iter().zip(places);
        pairs
            .map(|(dimension, place)| {
                if dimension.int || dimension.min == dimension.max {
                    dimension.place(dimension.value(*place))
                } else {
                    *place
                }
            })
            .collect()
    }

    /// The nearest point of the space. None where a value is no number, or there are too many or too few.
    pub(super) fn nearest(&self, point: &[f64]) -> Option<Point> {
        let fits =
            point.len() == self.dimensions.len() && point.iter().all(|value| !value.is_nan());
        let pairs = self.dimensions.iter().zip(point);
        fits.then(|| {
            pairs
                .map(|(dimension, value)| dimension.nearest(*value))
                .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn scales_go_from_the_lowest_to_the_highest_value() {
        let dimensions = vec![
            Dimension::float(-2.0, 6.0),
            Dimension::float(0.01, 100.0).log(),
            Dimension::int(1.0, 4.0),
            Dimension::int(1.0, 1024.0).log(),
            Dimension::float(3.0, 3.0),
        ];
        let space = Space::new(dimensions).unwrap();
        let ends = [
            (0.0, [-2.0, 0.01, 1.0, 1.0, 3.0]),
            (1.0, [6.0, 100.0, 4.0, 1024.0, 3.0]),
        ];
        for (place, expected) in ends {
            let point = space.point(&[place; 5]);
            let pairs = point.iter().zip(expected);
            // A logarithm there and back costs some roundings.
            assert!(
                pairs
                    .clone()
                    .all(|(value, end)| (value - end).abs() < 1e-13 * end.abs()),
                "{point:?}"
            );
        }
        let middle = space.point(&[0.5; 5]);
        assert!((middle[1] - 1.0).abs() < 1e-12);
        assert_eq!((middle[0], middle[2], middle[3]), (2.0, 3.0, 32.0));
        assert_eq!(space.point(&[0.0, 0.0, 0.24, 0.0, 0.0])[2], 1.0);
        assert_eq!(space.point(&[0.0, 0.0, 0.26, 0.0, 0.0])[2], 2.0);
        assert_eq!(
            space.nearest(&[9.0, 0.0, 2.4, 3.0, 3.0]).unwrap(),
            [6.0, 0.01, 2.0, 3.0, 3.0]
        );
        assert_eq!(space.nearest(&[f64::NAN, 1.0, 1.0, 1.0, 3.0]), None);
        assert_eq!(space.nearest(&[1.0]), None);
    }

    #[test]
    fn ranges_are_checked() {
        for wrong in [
            Dimension::float(1.0, 0.0),
            Dimension::float(f64::NAN, 0.0),
            Dimension::float(0.0, f64::INFINITY),
            Dimension::float(0.0, 1.0).log(),
            Dimension::int(0.5, 2.0),
        ] {
            let refused = Space::new(vec![Dimension::float(0.0, 1.0), wrong]).unwrap_err();
            assert!(
                matches!(refused, SpaceError::Range { index: 1, .. }),
                "{refused}"
            );
        }
        assert_eq!(Space::new(Vec::new()), Err(SpaceError::Count(0)));
        let text = serde_json::to_string(&vec![Dimension::float(1.0, 0.0)]).unwrap();
        assert!(serde_json::from_str::<Space>(&text).is_err());
    }

    proptest! {
        #[test]
        fn places_and_values_belong_together(
            place in 0.0..=1.0_f64, min in -1e6..1e6_f64, width in 1e-3..1e6_f64, int: bool, log: bool,
        ) {
            let (min, max) = if log { (min.abs() + 1e-3, min.abs() + 1e-3 + width) } else { (min, min + width) };
            let (min, max) = if int { (min.ceil(), max.ceil()) } else { (min, max) };
            let space = Space::new(vec![Dimension { int, min, max, log }]).unwrap();
            let point = space.point(&[place]);
            prop_assert!(point[0] >= min && point[0] <= max);
            prop_assert_eq!(space.nearest(&point).unwrap(), point.clone());
            let snapped = space.snap(&[place]);
            let back = space.point(&snapped);
            prop_assert!((back[0] - point[0]).abs() <= 1e-9 * point[0].abs());
            prop_assert!((space.places(&point)[0] - snapped[0]).abs() < 1e-6);
        }
    }
}
