//! What a manifest lets be tuned: as a space to search, and as values to write down.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use msao_adapt::tune::{Dimension, MAX_DIMENSIONS, Point, Space};
use msao_core::offload::manifest::{Manifest, Parameter, ParameterType, Value};

/// From this ratio of the highest to the lowest value on, factors count rather than differences.
const LOGARITHMIC_FROM: f64 = 50.0;

/// A parameter that is tuned.
#[derive(Clone, Debug)]
struct Tunable {
    /// Its number in the manifest.
    place: usize,
    parameter: Parameter,
    dimension: Dimension,
}

/// What is tuned of a policy's parameters, and what the others are meanwhile.
#[derive(Clone, Debug)]
pub struct Tunables {
    all: Vec<Tunable>,
    space: Space,
    /// All parameters in the manifest's order, where nothing is tuned.
    base: Vec<f64>,
}

impl Tunables {
    /// Everything that the manifest declares as tunable, but for what is `held` at a value.
    ///
    /// # Errors
    /// There is nothing to tune, or too much at once; a held value that the manifest does not allow.
    pub fn new(manifest: &Manifest, held: &BTreeMap<String, Value>) -> anyhow::Result<Tunables> {
        let mut base = manifest.defaults();
        for (name, value) in held {
            let place = manifest.parameter(name);
            let parameter = place.and_then(|place| manifest.parameters.get(place));
            let (Some(place), Some(parameter)) = (place, parameter) else {
                bail!(
                    "--param {name}: {} has no such parameter; there are {}",
                    manifest.name,
                    names(manifest.parameters.iter())
                );
            };
            let number = parameter.number(value);
            let number = number.map_err(|why| anyhow::anyhow!("--param {name}: {why}"))?;
            if let Some(base) = base.get_mut(place) {
                *base = number;
            }
        }
        let declared = manifest.parameters.iter().enumerate();
        let declared = declared.filter(|(_, it)| it.tune && !held.contains_key(&it.name));
        let all: Vec<Tunable> = declared
            .map(|(place, parameter)| {
                let dimension = dimension(parameter).with_context(|| {
                    format!("{}: {} cannot be tuned", manifest.name, parameter.name)
                })?;
                Ok(Tunable {
                    place,
                    parameter: parameter.clone(),
                    dimension,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        if all.is_empty() {
            bail!(
                "{} declares nothing as tunable that is not held: `tune = true` in its policy.toml says what may be tuned",
                manifest.name
            );
        }
        if all.len() > MAX_DIMENSIONS {
            bail!(
                "{} declares {} parameters as tunable; at most {MAX_DIMENSIONS} can be tuned together: hold some with --param \
                 NAME=VALUE, of {}",
                manifest.name,
                all.len(),
                names(all.iter().map(|it| &it.parameter))
            );
        }
        let space = Space::new(all.iter().map(|it| it.dimension).collect())
            .with_context(|| format!("the ranges that {} declares", manifest.name))?;
        Ok(Tunables { all, space, base })
    }

    /// The space that is searched, a dimension for each tuned parameter.
    pub fn space(&self) -> &Space {
        &self.space
    }

    /// Names of what is tuned, in the manifest's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|it| it.parameter.name.as_str())
    }

    /// Whether a point is one of the space.
    pub fn allow(&self, point: &[f64]) -> bool {
        let within = |(it, &value): (&Tunable, &f64)| {
            let Dimension { int, min, max, .. } = it.dimension;
            value >= min && value <= max && (!int || value.fract() == 0.0)
        };
        point.len() == self.all.len() && self.all.iter().zip(point).all(within)
    }

    /// The point at which all tuned parameters have their defaults.
    pub fn declared(&self) -> Point {
        let places = self.all.iter().map(|it| self.base.get(it.place));
        places.map(|value| value.copied().unwrap_or(0.0)).collect()
    }

    /// The nearest point that people can write down: four digits, and in range.
    pub fn rounded(&self, point: &[f64]) -> Point {
        let pairs = self.all.iter().zip(point);
        pairs.map(|(it, &value)| it.rounded(value)).collect()
    }

    /// All parameters in the manifest's order, as the policy gets them at that point.
    pub fn params(&self, point: &[f64]) -> Vec<f64> {
        let mut params = self.base.clone();
        for (it, &value) in self.all.iter().zip(point) {
            if let Some(param) = params.get_mut(it.place) {
                *param = value;
            }
        }
        params
    }

    /// The tuned parameters at that point, as a manifest writes them.
    pub fn values(&self, point: &[f64]) -> BTreeMap<String, Value> {
        let pairs = self.all.iter().zip(point);
        pairs
            .map(|(it, &value)| (it.parameter.name.clone(), it.value(value)))
            .collect()
    }
}

fn names<'a>(parameters: impl Iterator<Item = &'a Parameter>) -> String {
    let names: Vec<&str> = parameters.map(|it| it.name.as_str()).collect();
    match names.as_slice() {
        [] => "none".to_owned(),
        names => names.join(", "),
    }
}

/// A parameter as something to search along. Choices and switches are numbers here: next to each other lies what the manifest
/// lists next to each other.
fn dimension(parameter: &Parameter) -> anyhow::Result<Dimension> {
    let (min, max) = (parameter.min.unwrap_or(0.0), parameter.max.unwrap_or(0.0));
    let dimension = match parameter.kind {
        ParameterType::Float => Dimension::float(min, max),
        ParameterType::Int => Dimension::int(min.ceil(), max.floor()),
        ParameterType::Bool => return Ok(Dimension::int(0.0, 1.0)),
        ParameterType::Choice => {
            let last = parameter.choices.len().saturating_sub(1);
            return Ok(Dimension::int(0.0, last as f64));
        }
    };
    if dimension.min > dimension.max {
        bail!("there is no whole number between its min, {min}, and its max, {max}");
    }
    let wide = dimension.min > 0.0 && dimension.max / dimension.min >= LOGARITHMIC_FROM;
    Ok(if wide { dimension.log() } else { dimension })
}

impl Tunable {
    fn rounded(&self, value: f64) -> f64 {
        if self.dimension.int {
            return value;
        }
        let short = format!("{value:.3e}").parse::<f64>().unwrap_or(value);
        short.clamp(self.dimension.min, self.dimension.max)
    }

    fn value(&self, value: f64) -> Value {
        match self.parameter.kind {
            ParameterType::Float => Value::Float(value),
            // A point of the space has a whole number here. Casting saturates.
            ParameterType::Int => Value::Int(value as i64),
            ParameterType::Bool => Value::Bool(value >= 0.5),
            ParameterType::Choice => {
                let choice = self.parameter.choices.get(value.max(0.0) as usize);
                Value::Text(choice.cloned().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> Manifest {
        let text = r#"
            name = "patient"
            version = "1.0.0"
            world = "offload-policy"
            description = ""
            state-schema = 0
            [[parameter]]
            name = "fixed"
            type = "float"
            default = 3.0
            min = 0.0
            max = 9.0
            meaning = ""
            [[parameter]]
            name = "gamma"
            type = "int"
            default = 4
            min = 1
            max = 64
            meaning = ""
            tune = true
            [[parameter]]
            name = "share"
            type = "float"
            default = 0.3
            min = 0.0
            max = 1.0
            meaning = ""
            tune = true
            [[parameter]]
            name = "signal"
            type = "choice"
            default = "b"
            choices = ["a", "b", "c"]
            meaning = ""
            tune = true
            [[parameter]]
            name = "bold"
            type = "bool"
            default = true
            meaning = ""
            tune = true
        "#;
        Manifest::parse(text).unwrap()
    }

    fn held(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
        let pairs = pairs.iter().cloned();
        pairs
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    #[test]
    fn what_is_tunable_becomes_a_space_and_back() {
        let tunables = Tunables::new(&manifest(), &held(&[])).unwrap();
        let names: Vec<&str> = tunables.names().collect();
        assert_eq!(names, ["gamma", "share", "signal", "bold"]);
        let dimensions = tunables.space().dimensions();
        assert_eq!(dimensions[0], Dimension::int(1.0, 64.0).log());
        assert_eq!(dimensions[1], Dimension::float(0.0, 1.0));
        assert_eq!(dimensions[2], Dimension::int(0.0, 2.0));
        assert_eq!(tunables.declared(), [4.0, 0.3, 1.0, 1.0]);
        let point = tunables.rounded(&[8.0, 0.123_456_7, 2.0, 0.0]);
        assert_eq!(point, [8.0, 0.1235, 2.0, 0.0]);
        assert!(tunables.allow(&point));
        for other in [
            vec![8.5, 0.5, 2.0, 0.0],
            vec![8.0, 1.1, 2.0, 0.0],
            vec![8.0, f64::NAN, 2.0, 0.0],
            vec![8.0, 0.5, 2.0],
        ] {
            assert!(!tunables.allow(&other), "{other:?}");
        }
        assert_eq!(tunables.params(&point), [3.0, 8.0, 0.1235, 2.0, 0.0]);
        let values = held(&[
            ("gamma", Value::Int(8)),
            ("share", Value::Float(0.1235)),
            ("signal", Value::Text("c".to_owned())),
            ("bold", Value::Bool(false)),
        ]);
        assert_eq!(tunables.values(&point), values);
    }

    #[test]
    fn what_is_held_is_not_tuned() {
        let fixed = held(&[("gamma", Value::Int(9)), ("fixed", Value::Int(5))]);
        let tunables = Tunables::new(&manifest(), &fixed).unwrap();
        assert_eq!(tunables.names().count(), 3);
        assert_eq!(
            tunables.params(&tunables.declared()),
            [5.0, 9.0, 0.3, 1.0, 1.0]
        );
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (pairs, told) in [
            (
                vec![("delta", Value::Int(1))],
                "--param delta: patient has no such parameter; there are fixed, gamma",
            ),
            (
                vec![("gamma", Value::Int(65))],
                "--param gamma: 65 is out of range; allowed: 1 to 64",
            ),
            (
                vec![
                    ("gamma", Value::Int(1)),
                    ("share", Value::Float(0.0)),
                    ("signal", Value::Text("a".to_owned())),
                    ("bold", Value::Bool(true)),
                ],
                "patient declares nothing as tunable that is not held",
            ),
        ] {
            let error = Tunables::new(&manifest(), &held(&pairs)).unwrap_err();
            assert!(error.to_string().starts_with(told), "{error}");
        }
        let mut many = manifest();
        let gamma = many.parameters[1].clone();
        many.parameters.extend((0..14).map(|number| Parameter {
            name: format!("more-{number}"),
            ..gamma.clone()
        }));
        let error = Tunables::new(&many, &held(&[])).unwrap_err().to_string();
        assert!(
            error.contains("declares 18 parameters as tunable; at most 16"),
            "{error}"
        );
        let mut empty = manifest();
        (empty.parameters[1].min, empty.parameters[1].max) = (Some(1.2), Some(1.8));
        let error = format!("{:#}", Tunables::new(&empty, &held(&[])).unwrap_err());
        assert!(
            error.contains("gamma cannot be tuned: there is no whole number"),
            "{error}"
        );
    }

    proptest! {
        /// Whatever is suggested can be written down and is allowed.
        #[test]
        fn rounded_points_are_in_range(places in prop::collection::vec(0.0..=1.0_f64, 4)) {
            let manifest = manifest();
            let tunables = Tunables::new(&manifest, &held(&[])).unwrap();
            let point = tunables.rounded(&tunables.space().point(&places));
            let params = tunables.params(&point);
            for (name, value) in tunables.values(&point) {
                let place = manifest.parameter(&name).unwrap();
                let number = manifest.parameters[place].number(&value);
                prop_assert_eq!(number, Ok(params[place]), "{}", name);
            }
            prop_assert_eq!(tunables.rounded(&point), point);
        }
    }
}
