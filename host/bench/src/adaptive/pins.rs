//! What was fitted, as parameters of a plug-in.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use msao_adapt::necessity::COUNT;
use msao_core::offload::manifest::{Manifest, Value};

/// The parameters that hold the knots of the map from plain necessity, where a manifest has all of them.
pub fn knots(manifest: &Manifest) -> Option<[String; COUNT]> {
    let names: [String; COUNT] = std::array::from_fn(|number| format!("knot-{number}"));
    let there = names.iter().all(|name| manifest.parameter(name).is_some());
    there.then_some(names)
}

/// A manifest's parameters, those of `pins` as they say.
///
/// # Errors
/// A pin names no parameter, or is out of its range.
pub fn with_pins(manifest: &Manifest, pins: &BTreeMap<String, f64>) -> Result<Vec<f64>> {
    let mut params = manifest.defaults();
    for (name, value) in pins {
        let place = manifest.parameter(name);
        let parameter = place.and_then(|place| manifest.parameters.get(place));
        let parameter = parameter.with_context(|| format!("there is no parameter {name}"))?;
        let number = parameter.number(&Value::Float(*value));
        let number = number.map_err(|problem| anyhow!("{name}: {problem}"))?;
        if let Some(slot) = place.and_then(|place| params.get_mut(place)) {
            *slot = number;
        }
    }
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn manifest(parameters: &[(String, f64, f64)]) -> Manifest {
        let mut text = String::from(
            "name = \"p\"\nversion = \"1.0.0\"\nworld = \"probe-postprocessor\"\ndescription = \"\"\nstate-schema = 0\n",
        );
        for (name, min, max) in parameters {
            let _ = write!(
                text,
                "[[parameter]]\nname = \"{name}\"\ntype = \"float\"\ndefault = {min:?}\nmin = {min:?}\nmax = {max:?}\n\
                 meaning = \"\"\ntune = true\n"
            );
        }
        Manifest::parse(&text).unwrap()
    }

    #[test]
    fn knots_go_where_the_manifest_has_places_for_all_of_them() {
        let place = |number| (format!("knot-{number}"), -16.0, 16.0);
        let all: Vec<(String, f64, f64)> = (0..COUNT).map(place).collect();
        let found = knots(&manifest(&all)).unwrap();
        assert_eq!((found[0].as_str(), found[8].as_str()), ("knot-0", "knot-8"));
        assert_eq!(knots(&manifest(&all[1..])), None);
        assert_eq!(
            knots(&manifest(&[("sharpness".to_owned(), 0.1, 10.0)])),
            None
        );
    }

    #[test]
    fn pins_are_held_against_the_manifest() {
        let one = manifest(&[("sharpness".to_owned(), 0.5, 10.0)]);
        let pin = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        assert_eq!(with_pins(&one, &pin("sharpness", 3.0)).unwrap(), [3.0]);
        assert_eq!(with_pins(&one, &BTreeMap::new()).unwrap(), [0.5]);
        let refused = |name, value| with_pins(&one, &pin(name, value)).unwrap_err().to_string();
        assert!(refused("sharpness", 11.0).contains("sharpness: 11 is out of range"));
        assert!(refused("blunt", 1.0).contains("no parameter blunt"));
    }
}
