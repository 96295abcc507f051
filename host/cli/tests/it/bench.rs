//! `msao bench` with nodes that are processes: questions of the demo world, of each sort, over a shaped link.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use msao_evaluate::rows::{Class, Results, Route, Status};
use msao_hostile::build::{Core, Decision};
use serde_json::Value;

/// Routes as the contract numbers them.
const CLOUD: u8 = 1;
const SPECULATE: u8 = 3;

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

/// A folder with two policies that always plan the same.
fn plugins(folder: &Path) {
    for (name, route) in [("all-cloud", CLOUD), ("all-speculate", SPECULATE)] {
        let decision = Decision {
            route,
            peer: 1,
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

const SPEC: &str = r#"
name = "small"
seed = 3
repeats = 1
warm-up = 1
requests = 8
pair = "demo"
baseline = "cloud-only"
subject = "speculate"
[decoding]
max-tokens = 48
[[data]]
set = "demo"
workload = "mixed"
n = 60
[[policies]]
name = "cloud-only"
policy = "all-cloud"
exact = true
[[policies]]
name = "speculate"
policy = "all-speculate"
exact = true
[[links]]
name = "fast"
up-mbit = 200
down-mbit = 200
rtt-ms = 4
[[arrivals]]
kind = "closed"
concurrency = 2
[[arrivals]]
kind = "poisson"
rate-per-s = 20
"#;

fn msao(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msao"));
    command.arg("bench").args(arguments).current_dir(folder);
    command.output().unwrap()
}

fn run(folder: &Path) -> Output {
    let models = models();
    let models = models.to_str().unwrap();
    let arguments = [
        "run",
        "small.toml",
        "--out",
        "small",
        "--plugins",
        "plugins",
    ];
    msao(folder, &[&arguments[..], &["--models", models]].concat())
}

#[test]
fn a_grid_is_asked_scored_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("plugins")).unwrap();
    plugins(&path.join("plugins"));
    std::fs::write(path.join("small.toml"), SPEC).unwrap();
    let told = run(path);
    let errors = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{errors}");

    let results = Results::read(&path.join("small")).unwrap();
    assert_eq!(results.rows.len(), 2 * 2 * 8);
    let mut drafted = 0;
    for row in &results.rows {
        let it = &row.measured;
        assert_eq!(it.status, Status::Answered, "{}", it.error);
        assert!(it.score.is_some() && it.tokens > Some(0), "{it:?}");
        assert!(
            it.total_ms >= it.ttft_ms && it.ttft_ms > Some(4.0),
            "{it:?}"
        );
        assert!(it.flops_cloud > Some(0.0), "{it:?}");
        assert!(it.cache_byte_seconds_cloud > Some(0.0), "{it:?}");
        assert!(it.bytes_up > Some(0) && it.bytes_down > Some(0), "{it:?}");
        let (route, drafts) = match row.key.policy.as_str() {
            "cloud-only" => (Route::Cloud, false),
            _ => (Route::Speculate, true),
        };
        assert_eq!((it.route, it.class), (Some(route), Some(Class::Exact)));
        // What the target says first may come before there is a draft.
        assert!(
            drafts || (it.flops_edge, it.drafted) == (Some(0.0), Some(0)),
            "{it:?}"
        );
        drafted += it.drafted.unwrap();
        // Due, or when a client was free.
        assert_eq!(it.arrival_ms.is_some(), row.key.arrival != "closed-2");
    }
    assert!(drafted > 0);
    // What is exact says the same about the same question, and scores the same.
    let scores = |policy: &str| -> Vec<(String, u32, Option<f64>)> {
        let rows = results.rows.iter().filter(|row| row.key.policy == policy);
        let mut scores: Vec<_> = rows
            .map(|row| (row.key.arrival.clone(), row.key.index, row.measured.score))
            .collect();
        scores.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        scores
    };
    assert_eq!(scores("cloud-only"), scores("speculate"));

    // All is there: nothing is asked again.
    let before = std::fs::read(path.join("small/rows.csv")).unwrap();
    assert!(run(path).status.success());
    assert_eq!(std::fs::read(path.join("small/rows.csv")).unwrap(), before);

    let told = msao(path, &["report", "small", "--json"]);
    assert!(told.status.success());
    let summary: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(summary["name"], "small");
    let page = std::fs::read_to_string(path.join("small/report.html")).unwrap();
    assert!(page.contains("speculate") && page.contains("<svg"));
}

#[test]
fn what_is_not_there_is_named_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("plugins")).unwrap();
    std::fs::write(path.join("small.toml"), SPEC).unwrap();
    let refused = |word: &str| {
        let told = run(path);
        let errors = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(!told.status.success());
        assert!(errors.contains(word), "{errors}");
        assert!(!path.join("small/rows.csv").exists());
    };
    refused("all-cloud.wasm");
    plugins(&path.join("plugins"));
    let without = |from: &str, to: &str| {
        std::fs::write(path.join("small.toml"), SPEC.replace(from, to)).unwrap();
    };
    without("\"mixed\"", "\"smell\"");
    refused("workload = \"smell\"");
    without("pair = \"demo\"", "pair = { twin = \"large\" }");
    refused("twin = \"large\"");
    without("set = \"demo\"", "set = \"vqav2\"\nfolder = \"nowhere\"");
    refused("nowhere");
}
