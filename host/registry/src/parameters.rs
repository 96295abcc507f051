//! Which value of a parameter is in force: the operator's pin, else the tuned one, else the manifest's default.

use std::collections::BTreeMap;

use msao_core::offload::manifest::{Manifest, Value};
use thiserror::Error;

/// Values of parameters, by plug-in and parameter.
pub type Values = BTreeMap<String, BTreeMap<String, Value>>;

/// A value that a plug-in's manifest does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{from}.{plugin}.{parameter}: {problem}")]
pub struct ParameterError {
    /// Where it comes from: `policy.pins` or `tuned`.
    pub from: &'static str,
    /// The plug-in.
    pub plugin: String,
    /// The parameter.
    pub parameter: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// The operator's pins, as errors call them.
pub(crate) const PINS: &str = "policy.pins";
/// Tuned values, as errors call them.
pub(crate) const TUNED: &str = "tuned";

fn lay_over(
    numbers: &mut [f64],
    manifest: &Manifest,
    values: &Values,
    from: &'static str,
) -> Result<(), ParameterError> {
    let Some(own) = values.get(&manifest.name) else {
        return Ok(());
    };
    for (name, value) in own {
        let wrong = |problem: String| ParameterError {
            from,
            plugin: manifest.name.clone(),
            parameter: name.clone(),
            problem,
        };
        let place = manifest.parameter(name).ok_or_else(|| {
            let known: Vec<&str> = (manifest.parameters.iter())
                .map(|parameter| parameter.name.as_str())
                .collect();
            wrong(match known.as_slice() {
                [] => "the plug-in has no parameters".to_owned(),
                known => format!("there is no such parameter; there are {}", known.join(", ")),
            })
        })?;
        let (Some(parameter), Some(number)) =
            (manifest.parameters.get(place), numbers.get_mut(place))
        else {
            continue;
        };
        if from == TUNED && !parameter.tune {
            return Err(wrong("the manifest does not let it be tuned".to_owned()));
        }
        *number = parameter.number(value).map_err(wrong)?;
    }
    Ok(())
}

/// The numbers that a plug-in is given.
///
/// # Errors
/// [`ParameterError`]: an unknown name, a value out of range, or a tuned value that may not be tuned.
pub(crate) fn in_force(
    manifest: &Manifest,
    pins: &Values,
    tuned: &Values,
) -> Result<Vec<f64>, ParameterError> {
    let mut numbers = manifest.defaults();
    lay_over(&mut numbers, manifest, tuned, TUNED)?;
    lay_over(&mut numbers, manifest, pins, PINS)?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let parameter = |name: &str, tune: bool| {
            format!(
                "[[parameter]]\nname = \"{name}\"\ntype = \"float\"\ndefault = 1.0\nmin = 0\nmax = 10\nmeaning = \"\"\n\
                 tune = {tune}\n"
            )
        };
        Manifest::parse(&format!(
            "name = \"p\"\nversion = \"1.0.0\"\nworld = \"offload-policy\"\ndescription = \"\"\nstate-schema = 0\n{}{}",
            parameter("a", true),
            parameter("b", false)
        ))
        .unwrap()
    }

    fn values(name: &str, value: f64) -> Values {
        let own = BTreeMap::from([(name.to_owned(), Value::Float(value))]);
        BTreeMap::from([("p".to_owned(), own)])
    }

    #[test]
    fn a_pin_beats_a_tuned_value_and_that_the_default() {
        let none = Values::new();
        let manifest = manifest();
        for (pins, tuned, expected) in [
            (&none, &none, [1.0, 1.0]),
            (&none, &values("a", 2.0), [2.0, 1.0]),
            (&values("a", 3.0), &values("a", 2.0), [3.0, 1.0]),
            (&values("b", 3.0), &values("a", 2.0), [2.0, 3.0]),
        ] {
            assert_eq!(in_force(&manifest, pins, tuned).unwrap(), expected);
        }
        for (pins, tuned, named) in [
            (
                values("c", 1.0),
                none.clone(),
                "policy.pins.p.c: there is no such",
            ),
            (
                values("a", 11.0),
                none.clone(),
                "policy.pins.p.a: 11 is out of range",
            ),
            (
                none.clone(),
                values("b", 2.0),
                "tuned.p.b: the manifest does not",
            ),
        ] {
            let error = in_force(&manifest, &pins, &tuned).unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }
}
