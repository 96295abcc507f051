//! Cells that were made up, played: against what a link and an engine of given speed come to.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use msao_evaluate::manifest::{Facts, Machine, Manifest};
use msao_evaluate::plan::Purpose;
use msao_evaluate::rows::{Key, Measured, Results, Route, Row};
use msao_evaluate::simulated::{Compared, PlayArgs, Played};
use msao_evaluate::spec::Spec;
use msao_hostile::build::{Core, Decision};

const SPEC: &str = r#"
name = "made-up"
repeats = 2
requests = 4
pair = "demo"
data = [{ name = "demo", set = "demo", n = 20 }]
links = [
  { name = "near", up-mbit = 1000, down-mbit = 1000, rtt-ms = 10 },
  { name = "far", up-mbit = 1000, down-mbit = 1000, rtt-ms = 90 },
]
arrivals = [{ kind = "closed", concurrency = 1 }, { kind = "poisson", rate-per-s = 0.1 }]
[[policies]]
name = "cloud-only"
policy = "all-cloud"
exact = true
[[policies]]
name = "edge"
policy = "all-edge"
[[policies]]
name = "never-asked"
policy = "all-edge"
"#;

/// A target of 10 ms a token that reads at once, a draft model twice as fast.
const PROFILE: &str = r#"
name = "made up"
[engines.target]
pass-ms = 10.0
row-ms = 0.0
draft-ms = 0.0
prefill-tok-per-s = 1e6
encoder-ms-per-token = 0.0
probe-share = 0.0
probe-ms = 0.0
kv-bytes-per-token = 1.0
kv-mib = 64.0
flops-per-token = 1.0
prefill-flops-per-token = 1.0
flops-per-token-pair = 0.0
encoder-flops-per-token = 0.0
[engines.draft]
pass-ms = 5.0
row-ms = 0.0
draft-ms = 0.0
prefill-tok-per-s = 1e6
encoder-ms-per-token = 0.0
probe-share = 0.0
probe-ms = 0.0
kv-bytes-per-token = 1.0
kv-mib = 64.0
flops-per-token = 1.0
prefill-flops-per-token = 1.0
flops-per-token-pair = 0.0
encoder-flops-per-token = 0.0
"#;

/// Answers have 21 tokens; each was measured to take 400 ms.
fn results() -> Results {
    let spec = Spec::parse(SPEC).unwrap();
    let mut rows = Vec::new();
    for link in ["near", "far"] {
        for arrival in ["closed-1", "poisson-0.1"] {
            for (policy, route) in [("cloud-only", Route::Cloud), ("edge", Route::Edge)] {
                for (repeat, index) in
                    (0..2).flat_map(|repeat| (0..4).map(move |index| (repeat, index)))
                {
                    let at_ms = 10_000.0 * f64::from(index);
                    rows.push(Row {
                        key: Key {
                            run: "r1".into(),
                            turn: "t".into(),
                            repeat,
                            purpose: Purpose::Timed,
                            data: "demo".into(),
                            link: link.into(),
                            arrival: arrival.into(),
                            policy: policy.into(),
                            index,
                            seed: u64::from(index),
                        },
                        measured: Measured {
                            kind: if index == 0 {
                                "image".into()
                            } else {
                                "text".into()
                            },
                            route: Some(route),
                            arrival_ms: (arrival != "closed-1").then_some(at_ms),
                            sent_ms: Some(at_ms),
                            total_ms: Some(400.0),
                            prompt_tokens: Some(if index == 0 { 90 } else { 20 }),
                            tokens: Some(21),
                            bytes_up: Some(if index == 0 { 9_000 } else { 900 }),
                            ..Measured::default()
                        },
                    });
                }
            }
        }
    }
    let digest = spec.digest().unwrap();
    Results {
        manifest: Manifest::new(spec, digest, Machine::default(), Facts::default()),
        finished: BTreeMap::new(),
        rows,
    }
}

fn plugins(folder: &Path) {
    for (name, route, peer) in [("all-cloud", 1, 1), ("all-edge", 0, 0)] {
        let decision = Decision {
            route,
            peer,
            ..Decision::default()
        };
        let component = Core::deciding(&decision).build().unwrap();
        std::fs::write(folder.join(format!("{name}.wasm")), component).unwrap();
        let manifest = format!(
            "name = \"{name}\"\nversion = \"1.0.0\"\nworld = \"offload-policy\"\ndescription = \"\"\nstate-schema = 1\n"
        );
        std::fs::write(folder.join(format!("{name}.toml")), manifest).unwrap();
    }
}

fn with(folder: &Path) -> PlayArgs {
    let profile = folder.join("profile.toml");
    std::fs::write(&profile, PROFILE).unwrap();
    PlayArgs {
        plugins: PathBuf::from(folder),
        profile: Some(profile),
        draft: None,
        target: None,
        cores: None,
    }
}

#[test]
fn cells_take_what_their_link_and_engine_take() {
    let folder = tempfile::tempdir().unwrap();
    plugins(folder.path());
    let with = with(folder.path());
    let results = results();
    let plays = msao_rehearse::play(&results, Path::new(""), &with).unwrap();
    // A policy that has no rows has no cells.
    assert_eq!(plays.cells.len(), 8);
    for cell in &plays.cells {
        assert_eq!((cell.asked, cell.answered), (8, 8), "{cell:?}");
        let rtt_ms = if cell.cell.link == "near" { 10.0 } else { 90.0 };
        let expected_ms = match cell.cell.policy.as_str() {
            "cloud-only" => rtt_ms + 21.0 * 10.0,
            _ => 21.0 * 5.0,
        };
        let mean_ms = cell.mean_ms.unwrap();
        // A picture takes a round trip more to go up.
        let more_ms = rtt_ms + 15.0;
        assert!(
            (expected_ms - 15.0..expected_ms + more_ms).contains(&mean_ms),
            "{cell:?}: {expected_ms}"
        );
    }
    let found = Compared::of(&results, &plays);
    for cell in &found.cells {
        assert_eq!(cell.measured_ms, Some(400.0));
        let error = 100.0 * (cell.played_ms.unwrap() / 400.0 - 1.0);
        assert!((cell.error_percent.unwrap() - error).abs() < 1e-9);
    }
    assert!(found.mean_error_percent.unwrap() > 10.0);
    // The same again comes to the same.
    let again = msao_rehearse::play(&results, Path::new(""), &with).unwrap();
    assert_eq!(again, plays);
    // Whoever learns first is held against what counts alone; these learn nothing.
    let mut taught = results;
    taught.manifest.spec.learn = 30;
    let taught = msao_rehearse::play(&taught, Path::new(""), &with).unwrap();
    for (cell, before) in taught.cells.iter().zip(&plays.cells) {
        assert_eq!((cell.asked, cell.answered), (8, 8));
        let (mean_ms, before_ms) = (cell.mean_ms.unwrap(), before.mean_ms.unwrap());
        assert!((mean_ms - before_ms).abs() < 1.0, "{cell:?}: {before_ms}");
    }
}

/// The mean of the cell that comes by the clock, over the near link, of the draft model alone.
fn by_the_clock_ms(results: &Results, with: &PlayArgs) -> f64 {
    let plays = msao_rehearse::play(results, Path::new(""), with).unwrap();
    let wanted = |cell: &&Played| {
        let cell = &cell.cell;
        (cell.link.as_str(), cell.policy.as_str()) == ("near", "edge") && cell.arrival != "closed-1"
    };
    plays.cells.iter().find(wanted).unwrap().mean_ms.unwrap()
}

/// Requests of the cells that come by the clock are so far apart, and each was sent so much later than it was due.
fn apart(apart_ms: f64, late_ms: f64) -> Results {
    let mut results = results();
    for row in &mut results.rows {
        if row.measured.arrival_ms.is_some() {
            let due_ms = apart_ms * f64::from(row.key.index);
            row.measured.arrival_ms = Some(due_ms);
            row.measured.sent_ms = Some(due_ms + late_ms);
        }
    }
    results
}

#[test]
fn what_nodes_do_beside_their_models_takes_of_the_cores_that_the_folder_tells_of() {
    let folder = tempfile::tempdir().unwrap();
    plugins(folder.path());
    let mut with = with(folder.path());
    let profile = format!("{PROFILE}[nodes.edge]\nrequest-ms = 60.0\n");
    std::fs::write(with.profile.as_ref().unwrap(), profile).unwrap();
    let mut results = apart(50.0, 0.0);
    // 60 ms and an answer of some 105 ms, every 50 ms: with cores to spare nobody is in anybody's way, as answers share passes.
    with.cores = Some(0);
    let spare_ms = by_the_clock_ms(&results, &with);
    assert!((160.0..180.0).contains(&spare_ms), "{spare_ms}");
    // On one core three of four come while there is work of others. What tells nothing had one.
    with.cores = None;
    let shared_ms = by_the_clock_ms(&results, &with);
    assert!(shared_ms > spare_ms + 60.0, "{shared_ms} and {spare_ms}");
    results.manifest.facts.node_cores = Some(1);
    assert_eq!(by_the_clock_ms(&results, &with), shared_ms);
    // With as many as there are threads there are cores to spare: within a pass, as rounding may have what comes at one moment
    // come in another order. What is named goes before what is told.
    results.manifest.facts.node_cores = Some(8);
    let many_ms = by_the_clock_ms(&results, &with);
    assert!((many_ms - spare_ms).abs() < 2.0, "{many_ms} {spare_ms}");
    with.cores = Some(1);
    assert_eq!(by_the_clock_ms(&results, &with), shared_ms);
    with.cores = Some(5000);
    let error = msao_rehearse::play(&results, Path::new(""), &with).unwrap_err();
    let told = format!("{error:#}");
    assert!(told.contains("clouds[0].cores: is 5000"), "{told}");
}

#[test]
fn a_client_that_came_late_has_waited_since_it_was_due() {
    let folder = tempfile::tempdir().unwrap();
    plugins(folder.path());
    let with = with(folder.path());
    let punctual_ms = by_the_clock_ms(&apart(50.0, 0.0), &with);
    let late_ms = by_the_clock_ms(&apart(50.0, 7.0), &with);
    assert!((late_ms - punctual_ms - 7.0).abs() < 1e-6, "{late_ms}");
}

#[test]
fn what_cannot_be_played_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut with = with(folder.path());
    let refused = |with: &PlayArgs, results: &Results| {
        let error = msao_rehearse::play(results, Path::new(""), with).unwrap_err();
        format!("{error:#}")
    };
    let told = refused(&with, &results());
    assert!(told.contains("all-cloud.wasm"), "{told}");
    plugins(folder.path());
    let mut odd = results();
    odd.manifest.spec.policies[0]
        .parameters
        .insert("gamma".into(), msao_evaluate::spec::Parameter::Int(3));
    let told = refused(&with, &odd);
    assert!(
        told.contains("all-cloud declares no parameter gamma"),
        "{told}"
    );
    with.target = Some("another".into());
    assert!(refused(&with, &results()).contains("another"));
    with.profile = Some(folder.path().join("nowhere.toml"));
    assert!(refused(&with, &results()).contains("nowhere.toml"));
}
