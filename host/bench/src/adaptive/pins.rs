//! A fitted map as parameters of a plug-in: where its manifest has places for knots, they go there.
//!
//! This is the one place that knows what such parameters are called.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use msao_core::chat::Modality;
use msao_core::offload::manifest::{Manifest, Value};

use super::isotonic::Map;

/// Modalities that have a map.
pub const MODALITIES: [Modality; 3] = [Modality::Image, Modality::Video, Modality::Audio];

/// The parameters that hold a knot of a modality's map, numbered from 0: where it lies, in `ln relevance`, and how high it is.
fn names(modality: Modality, number: usize) -> [String; 2] {
    let modality = modality.name();
    [
        format!("{modality}-at-{number}"),
        format!("{modality}-necessity-{number}"),
    ]
}

/// How many knots a manifest has room for, by modality.
pub fn places(manifest: &Manifest) -> BTreeMap<Modality, usize> {
    let count = |modality: Modality| {
        let there = |number: &usize| {
            let names = names(modality, *number);
            names.iter().all(|name| manifest.parameter(name).is_some())
        };
        (0..).take_while(there).count()
    };
    let counts = MODALITIES.into_iter().map(|it| (it, count(it)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// The maps as parameters of a manifest that has places for knots; nothing for one that has none. A map of fewer knots goes on
/// level, as it does beyond its last.
pub fn knots(manifest: &Manifest, maps: &BTreeMap<Modality, Map>) -> BTreeMap<String, f64> {
    let mut pins = BTreeMap::new();
    for (modality, room) in places(manifest) {
        let knots = maps.get(&modality).into_iter().flat_map(|map| {
            let knots = map.at.iter().copied().zip(map.height.iter().copied());
            let last = knots.clone().next_back();
            let level =
                (1..).map_while(move |step| last.map(|(at, it)| (at + f64::from(step), it)));
            knots.chain(level)
        });
        for (number, (at, height)) in knots.take(room).enumerate() {
            let [place, necessity] = names(modality, number);
            pins.insert(place, at);
            pins.insert(necessity, height);
        }
    }
    pins
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

    fn map() -> Map {
        Map {
            at: vec![-1.0, 2.0],
            height: vec![0.25, 0.75],
        }
    }

    #[test]
    fn knots_go_where_the_manifest_has_places_for_them() {
        let places: Vec<(String, f64, f64)> = (0..3)
            .flat_map(|number| names(Modality::Image, number))
            .map(|name| (name, -10.0, 10.0))
            .collect();
        let with = manifest(&places);
        assert_eq!(super::places(&with), BTreeMap::from([(Modality::Image, 3)]));
        let maps = BTreeMap::from([(Modality::Image, map()), (Modality::Audio, map())]);
        let pins = knots(&with, &maps);
        // The third knot goes on level.
        let expected = [
            ("image-at-0", -1.0),
            ("image-at-1", 2.0),
            ("image-at-2", 3.0),
            ("image-necessity-0", 0.25),
            ("image-necessity-1", 0.75),
            ("image-necessity-2", 0.75),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(pins, BTreeMap::from(expected));
        let params = with_pins(&with, &pins).unwrap();
        assert_eq!(params, [-1.0, 0.25, 2.0, 0.75, 3.0, 0.75]);
        let without = manifest(&[("sharpness".to_owned(), 0.1, 10.0)]);
        assert!(knots(&without, &maps).is_empty());
        // Nothing was seen of it.
        let nothing = BTreeMap::from([(Modality::Image, Map::default())]);
        assert!(knots(&with, &nothing).is_empty());
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
