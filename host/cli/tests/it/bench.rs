//! `msao bench` with nodes that are processes: questions of the demo world, of each sort, over a shaped link.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use msao_evaluate::rows::{Class, Results, Route, Row, Status};
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

fn command(folder: &Path, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msao"));
    command.arg("bench").args(arguments).current_dir(folder);
    command
}

fn msao(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn run_arguments() -> Vec<String> {
    let arguments = [
        "run",
        "small.toml",
        "--out",
        "small",
        "--plugins",
        "plugins",
        "--twins",
        "twins",
        "--models",
    ];
    let models = models().to_str().unwrap().to_owned();
    arguments
        .map(str::to_owned)
        .into_iter()
        .chain([models])
        .collect()
}

fn run(folder: &Path) -> Output {
    command(folder, &run_arguments()).output().unwrap()
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
        assert!(it.busy_cloud_ms > Some(0.0), "{it:?}");
        assert!(it.activation_bytes_cloud > Some(0), "{it:?}");
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
        assert!(drafts || it.busy_edge_ms == Some(0.0), "{it:?}");
        // Whoever has drafted has computed.
        assert!(
            it.drafted == Some(0) || it.busy_edge_ms > Some(0.0),
            "{it:?}"
        );
        assert!(it.flops_wasted.is_some(), "{it:?}");
        assert!(it.flops_wasted <= it.flops_edge, "{it:?}");
        // Of drafts that were turned down the first alone may have come out of reading the prompt.
        let lost = it.drafted.unwrap() - it.accepted.unwrap();
        assert!(lost < 2 || it.flops_wasted > Some(0.0), "{it:?}");
        drafted += it.drafted.unwrap();
        // Due, or when a client was free.
        assert_eq!(it.arrival_ms.is_some(), row.key.arrival != "closed-2");
    }
    assert!(drafted > 0);
    for policy in ["cloud-only", "speculate"] {
        for arrival in ["closed-2", "poisson-20"] {
            // Requests that share passes share their time: a model is never busier than the clock.
            let rows = results.rows.iter();
            let of = |it: &&Row| it.key.policy == policy && it.key.arrival == arrival;
            let (mut busy_ms, mut end_ms) = (0.0, 0.0_f64);
            for row in rows.filter(of) {
                let it = &row.measured;
                busy_ms += it.busy_cloud_ms.unwrap();
                let due_ms = it.arrival_ms.or(it.sent_ms).unwrap();
                end_ms = end_ms.max(due_ms + it.total_ms.unwrap());
            }
            assert!(
                busy_ms <= end_ms,
                "{policy}, {arrival}: {busy_ms} of {end_ms}"
            );
        }
    }
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
    refused("twin = \"large\" }: there is no such twin; allowed: demo, 0.5b");
    without("set = \"demo\"", "set = \"vqav2\"\nfolder = \"nowhere\"");
    refused("nowhere");
    // Half of a file, as a broken-off download leaves it.
    let torn = path.join("torn");
    std::fs::create_dir(&torn).unwrap();
    for (name, text) in [
        (
            "v2_OpenEnded_mscoco_val2014_questions.json",
            "{\"questions\": [",
        ),
        (
            "v2_mscoco_val2014_annotations.json",
            "{\"annotations\": []}",
        ),
    ] {
        std::fs::write(torn.join(name), text).unwrap();
    }
    without("set = \"demo\"", "set = \"vqav2\"\nfolder = \"torn\"");
    refused("v2_OpenEnded_mscoco_val2014_questions.json");
    refused("the file ends too early: fetch it again");
}

/// Ctrl-C while nodes answer: what is whole stays, nothing of the turn under way counts, and the same command goes on.
#[test]
fn a_run_that_is_interrupted_says_so_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("plugins")).unwrap();
    plugins(&path.join("plugins"));
    std::fs::write(path.join("small.toml"), SPEC).unwrap();
    let mut command = command(path, &run_arguments());
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // Until the first turn is whole and the second has begun to be answered.
    let began = Instant::now();
    let rows = || std::fs::read_to_string(path.join("small/rows.csv")).unwrap_or_default();
    while rows().lines().count() < 1 + 8 + 1 {
        let ended = child.try_wait().unwrap();
        if ended.is_some() || began.elapsed() > Duration::from_secs(300) {
            let _ended = child.kill();
            panic!("{ended:?}: {}", rows());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut kill = Command::new("sh");
    kill.args(["-c", &format!("kill -INT {}", child.id())]);
    assert!(kill.status().unwrap().success());
    let told = child.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(130));
    let words = String::from_utf8_lossy(&told.stdout);
    assert!(
        words.contains("interrupted: ") && words.contains(" of 4 turns are in small; the same"),
        "{words}"
    );
    let results = Results::read(&path.join("small")).unwrap();
    let done = results.finished.len();
    assert!((1..4).contains(&done), "{done}");
    assert_eq!(results.rows.len(), 8 * done);

    let told = run(path);
    let errors = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{errors}");
    let after = Results::read(&path.join("small")).unwrap();
    assert_eq!((after.finished.len(), after.rows.len()), (4, 4 * 8));
    assert_eq!(after.rows[..results.rows.len()], results.rows[..]);
    assert_eq!(after.manifest.runs.len(), 2);
}

/// Random weights in the shape of the demo target: they have speed, and nothing that they say is judged.
#[test]
fn twins_are_made_once_and_asked_without_a_word_about_accuracy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::fs::create_dir(path.join("plugins")).unwrap();
    plugins(&path.join("plugins"));
    let spec = SPEC.replace("pair = \"demo\"", "pair = { twin = \"demo\" }");
    // What an interrupted run has left is no twin.
    std::fs::create_dir_all(path.join("twins/demo.new/target")).unwrap();
    std::fs::write(path.join("small.toml"), &spec).unwrap();
    let told = run(path);
    let errors = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{errors}");
    let made = path.join("twins/demo/twin.json");
    let first = std::fs::metadata(&made).unwrap().modified().unwrap();
    assert!(!path.join("twins/demo.new").exists());

    let results = Results::read(&path.join("small")).unwrap();
    assert_eq!(results.rows.len(), 2 * 2 * 8);
    let (mut drafted, mut accepted) = (0, 0);
    for row in &results.rows {
        let it = &row.measured;
        assert_eq!(it.status, Status::Answered, "{}", it.error);
        assert_eq!((it.score, it.parsed), (None, None));
        assert!(it.flops_cloud > Some(0.0) && it.tokens > Some(0), "{it:?}");
        drafted += it.drafted.unwrap();
        accepted += it.accepted.unwrap();
    }
    // The draft model is the target's first layer, and agrees with it mostly: with any other nothing would stand.
    assert!(
        drafted > 0 && 2 * accepted > drafted,
        "{accepted} of {drafted}"
    );
    let told = msao(path, &["report", "small", "--json"]);
    let summary: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(summary["aims"], serde_json::json!([]));
    assert_ne!(summary["duels"][0]["outcome"], "unranked", "{summary}");

    // More repeats of the same: the twin is there.
    std::fs::write(
        path.join("small.toml"),
        spec.replace("repeats = 1", "repeats = 2"),
    )
    .unwrap();
    assert!(run(path).status.success());
    let again = std::fs::metadata(&made).unwrap().modified().unwrap();
    assert_eq!(first, again);
}
