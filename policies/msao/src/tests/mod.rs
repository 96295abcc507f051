use msao_plugin::{overrides, rules, status};
use proptest::prelude::*;

use super::*;
use crate::arms::{Arm, weigh};

mod cascade;
mod learning;
mod plans;
mod properties;
mod retaining;
mod steps;
mod trials;

const MANIFEST: &str = include_str!("../../policy.toml");
const DEFAULTS: [f64; 38] = [
    10_000.0, 0.25, 0.0, 200.0, 1.0, 0.08, 0.25, 0.3, 4.0, 4.0, 3.0, 0.98, 0.97, 2.0, 0.7, 0.1,
    2.0, 0.02, 0.1, 0.5, 1.0, 0.05, 0.0, 80.0, 1.0, 0.05, 0.0, 64.0, 0.2, 2.0, 0.05, 0.2, 64.0,
    0.1, 0.25, 0.7, 1.0, 1.0,
];
/// The same without a cascade: what most tests are about are the other ways, and an edge answer is dear.
const PARAMS: [f64; 38] = {
    let mut params = DEFAULTS;
    params[1] = 0.0;
    params[3] = 5000.0;
    params[12] = 0.0;
    params
};

fn settings() -> Settings {
    Settings::read(&PARAMS)
}

/// The parameters with other values by name.
fn with(values: &[(&str, f64)]) -> Vec<f64> {
    let mut params = PARAMS.to_vec();
    for (name, value) in values {
        let name = name.replace('-', "_");
        let place = Settings::NAMES.iter().position(|known| *known == name);
        params[place.unwrap()] = *value;
    }
    params
}

/// A question of 100 tokens; answers of 32 are expected.
fn scene() -> Scene {
    Scene::new().text(100).params(&PARAMS).edge(|_| {})
}

/// A peer whose target has no draft model beside it, and this node's drafts stand often there.
fn verifier(peer: &mut Node) {
    peer.can &= !capability::DRAFT;
    peer.acceptance = 0.9;
}

/// A peer behind 5 Mbit/s.
fn slow(peer: &mut Node) {
    peer.uplink_bps = 5e6;
    peer.uplink_sd_bps = 5e5;
}

/// The plan; the probe, if it is asked for, finds what the parts say.
fn planned(scene: &Scene) -> Plan {
    match scene.decide::<Msao>() {
        Decision::Run(plan) => plan,
        Decision::Probe => {
            let probed = |request: &mut Request| request.flags |= flag::PROBED;
            scene.clone().request(probed).plan::<Msao>()
        }
    }
}

fn way(scene: &Scene) -> (Route, u32, u32) {
    let plan = planned(scene);
    (plan.route, plan.peer, plan.reason)
}

fn note(plan: &Plan) -> Note {
    Note::decode(&plan.memo).unwrap()
}

fn arm(scene: &Scene, row: u32, route: Route) -> Arm {
    let weighed = weigh(&scene.input(), &Settings::read(&scene.params));
    let found = weighed
        .arms
        .iter()
        .find(|arm| arm.row == row && arm.route == route);
    *found.unwrap()
}

fn term(plan: &Plan, name: &str) -> f64 {
    let names: Vec<&str> = listed("[[term]]").collect();
    plan.terms[names.iter().position(|known| *known == name).unwrap()]
}

/// Names of what the manifest lists.
fn listed(table: &str) -> impl Iterator<Item = &'static str> {
    MANIFEST
        .split(table)
        .skip(1)
        .filter_map(|table| table.lines().find_map(|line| line.strip_prefix("name = ")))
        .map(|name| name.trim_matches('"'))
}

fn cell(mean: f64, count: f64) -> Cell {
    Cell {
        mean,
        variance: 0.0,
        count,
    }
}

fn learned(scene: Scene, cells: &[(u32, f64, f64)]) -> Scene {
    let cells: Vec<(u32, Cell)> = cells
        .iter()
        .map(|&(key, mean, count)| (key, cell(mean, count)))
        .collect();
    scene.calibration(Calibration::from_cells(&cells))
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-6 * (1.0 + b.abs()), "{a} and {b}");
}

#[test]
fn the_manifest_names_what_the_code_reads() {
    let named: Vec<String> = listed("[[parameter]]")
        .map(|name| name.replace('-', "_"))
        .collect();
    assert_eq!(named, Settings::NAMES);
    let defaults: Vec<f64> = MANIFEST
        .lines()
        .filter_map(|line| line.strip_prefix("default = "))
        .filter_map(|value| match value {
            "true" => Some(1.0),
            "false" => Some(0.0),
            number => number.parse().ok(),
        })
        .collect();
    assert_eq!(defaults, DEFAULTS);
    let reasons: Vec<&str> = listed("[[reason]]").collect();
    assert_eq!(reasons[reason::DECLINES as usize], "declines");
    assert_eq!(reasons[reason::CHECKS as usize], "checks");
    assert_eq!(reasons.len(), reason::CHECKS as usize + 1);
}

#[test]
fn every_cell_is_one_of_its_own_and_all_fit() {
    use crate::cells::{
        BEHIND_PROBE, PROBE, amiss_by_text, left_by_text, length_by_bucket, length_by_text, rest,
    };
    use crate::cells::{
        MAX_ROWS, REQUESTS, acceptance, amiss, bytes, first, kept, last, left, length,
    };
    use crate::shape::{Shape, TEXTS};
    let numbered = |number: u32| Shape::with_number(number, 0);
    let routes = [
        Route::Edge,
        Route::Cloud,
        Route::CloudDraft,
        Route::Speculate,
    ];
    let shapes: Vec<Shape> = (0..).map_while(numbered).collect();
    let mut keys = vec![REQUESTS, PROBE, BEHIND_PROBE];
    for shape in &shapes {
        assert_eq!(numbered(shape.number()), Some(*shape));
        keys.extend([length(*shape), left(*shape)]);
        if shape.bucket == 0 {
            keys.extend([bytes(*shape), kept(*shape), amiss(*shape)]);
            keys.extend((0..MAX_ROWS).map(|row| acceptance(row, *shape)));
            for text in (0..).map_while(|text| Shape::with_number(shape.number(), text)) {
                keys.extend([length_by_text, left_by_text, amiss_by_text].map(|key| key(text)));
            }
        }
        if shape.mix == 0 {
            keys.push(length_by_bucket(*shape));
        }
    }
    for row in 0..MAX_ROWS {
        for route in routes {
            keys.extend([first, rest, last].map(|key| key(row, route)));
        }
    }
    let all = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((keys.len(), all), (2499, 2499));
    assert_eq!(Shape::with_number(0, TEXTS), None);
}
