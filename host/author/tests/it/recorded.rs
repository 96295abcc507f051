//! The recorded decisions in `tests/data`, of real nodes: they replay to the bit, however many there are. And decisions about
//! drawn requests: recording them again gives the same bytes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::{SHIPPED, beside, built, copied, json, root, run, shipped, text};

fn recording(name: &str) -> PathBuf {
    root()
        .join("tests/data/decisions")
        .join(format!("{name}.jsonl.zst"))
}

/// The lines of a recording.
fn lines(name: &str) -> String {
    let packed = fs::File::open(recording(name)).unwrap();
    String::from_utf8(zstd::decode_all(packed).unwrap()).unwrap()
}

/// The decisions of a recording.
fn decisions(name: &str) -> Vec<Value> {
    let text = lines(name);
    let decisions: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter_map(|mut line| line.get_mut("decision").map(Value::take))
        .collect();
    assert!(decisions.len() >= 3, "{name}: {}", decisions.len());
    decisions
}

fn count(name: &str) -> usize {
    decisions(name).len()
}

#[test]
fn every_shipped_policy_decides_as_it_did_to_the_bit() {
    for name in SHIPPED {
        let plugin = shipped(name);
        let file = recording(name);
        for more in [
            &["--same"][..],
            &["--same", "--deterministic"],
            &["--same", "--learn"],
        ] {
            let fixed = [
                "replay",
                file.to_str().unwrap(),
                plugin.to_str().unwrap(),
                "--json",
            ];
            let output = run(&[&fixed, more].concat());
            let report = json(&output);
            assert!(output.status.success(), "{name} {more:?}: {report}");
            assert_eq!(report["verdicts"], json!({ "same": count(name) }), "{name}");
            assert_eq!(report["steps"]["calls"], report["steps"]["same"], "{name}");
            assert_eq!(report["observes"]["calls"], json!(count(name)), "{name}");
        }
    }
}

#[test]
fn another_policy_is_told_apart_and_estimated() {
    let plugin = shipped("cloud-only");
    let file = recording("edge-only");
    let output = run(&[
        "replay",
        file.to_str().unwrap(),
        plugin.to_str().unwrap(),
        "--json",
    ]);
    let report = json(&output);
    assert!(output.status.success());
    assert!(
        report["verdicts"]["flipped"].as_u64().unwrap() > 0,
        "{report}"
    );
    let flips: u64 = report["flips"]
        .as_object()
        .unwrap()
        .values()
        .map(|n| n.as_u64().unwrap())
        .sum();
    assert_eq!(Some(flips), report["verdicts"]["flipped"].as_u64());
    let by_reason: u64 = (report["by-reason"].as_object().unwrap().values())
        .map(|row| row["decisions"].as_u64().unwrap())
        .sum();
    assert_eq!(by_reason as usize, count("edge-only"));
    // More is sent to a cloud than to nobody.
    assert!(report["estimate"]["sent-bytes"].as_f64().unwrap() > 0.0);
    assert!(
        report["estimates-are"]
            .as_str()
            .unwrap()
            .contains("not measurements")
    );
    let shown = text(&run(&[
        "replay",
        file.to_str().unwrap(),
        plugin.to_str().unwrap(),
    ]));
    assert!(
        shown.contains("edge -> cloud") && shown.contains("estimates, not measurements"),
        "{shown}"
    );
    // With --same the difference is a failure.
    let output = run(&[
        "replay",
        file.to_str().unwrap(),
        plugin.to_str().unwrap(),
        "--same",
    ]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn what_the_host_failed_at_is_no_flip_and_a_bad_line_is_told() {
    let plugin = shipped("cloud-only");
    let text = lines("cloud-only");
    let is_decision = |line: &&str| line.starts_with("{\"decision\"");
    let mut kinds = ["breaker", "overloaded", "deadline"].into_iter();
    let lines = text.lines().map(|line| {
        let Some(kind) = is_decision(&line).then(|| kinds.next()).flatten() else {
            return line.to_owned();
        };
        let mut value: Value = serde_json::from_str(line).unwrap();
        value["decision"]["planned"] = json!({ "failed": kind });
        value["decision"]["asked"] = json!(null);
        value.to_string()
    });
    let mut lines: Vec<String> = lines.collect();
    lines.push("{\"decision\":{\"version\":1,".to_owned());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorded.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    let (file, plugin) = (file.to_str().unwrap(), plugin.to_str().unwrap());
    let output = run(&["replay", file, plugin, "--json", "--same"]);
    let report = json(&output);
    assert!(output.status.success(), "{report}");
    let same = count("cloud-only") - 3;
    assert_eq!(
        report["verdicts"],
        json!({ "host-failed": 3, "same": same })
    );
    assert_eq!(report["skipped-lines"], json!(1));
    assert_eq!(report["flips"], json!({}));
    assert_eq!(report["examples"], json!([]));
    let output = run(&["replay", file, plugin, "--same"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("left out: line"), "{told}");
    // Where the policy itself was at fault, it counts.
    let trapped = lines.join("\n").replace("\"overloaded\"", "\"trap\"");
    fs::write(file, trapped).unwrap();
    let report = json(&run(&["replay", file, plugin, "--json"]));
    assert_eq!(report["verdicts"]["mended"], json!(1), "{report}");
}

#[test]
fn the_recorded_scores_are_the_post_processors_to_the_bit() {
    let plugin = built(Path::new("plugins/mas-joint"));
    let file = recording("mas-joint");
    let seen = decisions("mas-joint").into_iter();
    let scored = seen
        .filter(|decision| decision["scoring"]["report"].is_object())
        .count();
    assert!(scored > 0);
    for more in [
        &["--same"][..],
        &["--same", "--deterministic"],
        &["--same", "--learn"],
    ] {
        let fixed = [
            "replay",
            file.to_str().unwrap(),
            plugin.to_str().unwrap(),
            "--json",
        ];
        let output = run(&[&fixed, more].concat());
        let told = json(&output);
        assert!(output.status.success(), "{more:?}: {told}");
        assert_eq!(told["replayed"], json!(scored), "{told}");
        assert_eq!(told["same"], json!(scored), "{told}");
        assert_eq!(told["learned"], json!(more.contains(&"--learn")));
    }
    // About drawn requests: a policy that has the probe run first.
    let (_folder, policy) = copied("cloud-only");
    let manifest = fs::read_to_string(policy.join("policy.toml")).unwrap();
    let manifest = manifest.replacen("state-schema", "probe = \"full\"\nstate-schema", 1);
    fs::write(policy.join("policy.toml"), manifest).unwrap();
    let record = || {
        text(&run(&[
            "record",
            policy.to_str().unwrap(),
            "--postprocessor",
            plugin.to_str().unwrap(),
            "--seed",
            "5",
            "--count",
            "3",
            "--reports",
            "1",
        ]))
    };
    let drawn = record();
    assert!(drawn.contains("\"report\":{"), "nothing was probed");
    assert!(record() == drawn, "two recordings of one seed differ");
}

#[test]
fn what_a_peer_refused_replays_to_the_bit() {
    for name in SHIPPED {
        let plugin = shipped(name);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("refused.jsonl");
        let (plugin, out) = (plugin.to_str().unwrap(), out.to_str().unwrap());
        let traffic = ["--seed", "9", "--count", "60", "--refusals", "0.5"];
        let beside = beside(name);
        let beside: Vec<&str> = beside.iter().map(String::as_str).collect();
        text(&run(&[
            &["record", plugin, "--out", out],
            &traffic[..],
            &beside[..],
        ]
        .concat()));
        let replanned = fs::read_to_string(out).unwrap();
        let replanned = replanned.matches("\"replanned\":true").count();
        // `edge-only` goes to a peer as well, where an exact answer is demanded.
        assert!(replanned > 10, "{name}: {replanned}");
        let report = json(&run(&["replay", out, plugin, "--json", "--same"]));
        assert_eq!(report["verdicts"], json!({ "same": 60 }), "{name}");
        assert_eq!(report["steps"]["calls"], report["steps"]["same"], "{name}");
        assert_eq!(report["observes"]["calls"], json!(60), "{name}");
        assert_eq!(report["observes"]["same"], json!(60), "{name}");
    }
}

#[test]
fn drawn_requests_are_recorded_to_the_same_bytes() {
    for name in SHIPPED {
        let plugin = shipped(name);
        let beside = beside(name);
        let beside: Vec<&str> = beside.iter().map(String::as_str).collect();
        let folder = tempfile::tempdir().unwrap();
        let record = |file: &str, seed: &str| {
            let out = folder.path().join(file);
            let (plugin, out) = (plugin.to_str().unwrap(), out.to_str().unwrap());
            let traffic = ["--seed", seed, "--count", "20"];
            let record = ["record", plugin, "--out", out];
            text(&run(&[&record, &traffic[..], &beside[..]].concat()));
            fs::read_to_string(out).unwrap()
        };
        let first = record("first.jsonl", "1");
        assert!(
            record("again.jsonl", "1") == first,
            "{name}: two recordings of one seed differ"
        );
        // Another seed is another recording.
        assert_ne!(record("other.jsonl", "2"), first, "{name}");
        // And what is recorded replays.
        let file = folder.path().join("first.jsonl");
        let (file, plugin) = (file.to_str().unwrap(), plugin.to_str().unwrap());
        let report = json(&run(&["replay", file, plugin, "--json", "--same"]));
        assert_eq!(report["verdicts"], json!({ "same": 20 }), "{name}");
    }
}
