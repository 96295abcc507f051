//! From recorded decisions to a revision of parameters, through the program.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test's helpers may panic

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use common::{Fake, answered, program, read, records, said, shipped, small, text, trace, wrong};
use serde_json::{Value, json};

#[test]
fn recorded_decisions_become_a_revision_that_a_node_can_take() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("found");
    let told = small(&out).output().unwrap();
    let words = text(&told);
    let found = read(&out.join("trace.json"));
    assert_eq!(found["finished"], true);
    // The defaults, six points of the tuner's, six at random.
    assert_eq!(found["trials"].as_array().map(Vec::len), Some(13));
    assert_eq!(
        found["declared"]["values"],
        json!({ "gamma": 4, "in-flight": 1 })
    );
    // All that were answered, so many times that there are 30 or more.
    let answered = answered("fixed-speculate");
    let requests = answered * 30_usize.div_ceil(answered);
    assert_eq!(found["declared"]["measured"]["requests"], requests);
    // Exact speculation commits nothing unverified, whatever its parameters.
    for trial in found["trials"].as_array().unwrap() {
        assert_eq!(trial["measured"]["exposed"], 0);
        assert_eq!(trial["bound"], 0.0);
        assert_eq!(trial["measured"]["failures"], 0);
    }
    // A link and passes of 40 ms: waiting for each round of four costs time.
    let objective = |row: &Value| row["objective"].as_f64().unwrap();
    assert_eq!(found["better"], true, "{words}");
    assert!(objective(&found["best"]) < objective(&found["declared"]));
    let revision = read(&out.join("revision.json"));
    assert_eq!(revision["plugin"], "fixed-speculate");
    assert_eq!(revision["values"], found["best"]["values"]);
    let next = format!(
        "msao policy tune --from {}",
        out.join("revision.json").display()
    );
    assert!(words.contains(&next), "{words}");
    for part in [
        "declared defaults",
        "tuned",
        "random search",
        "gamma",
        "in-flight",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let picture = std::fs::read_to_string(out.join("trace.svg")).unwrap();
    assert!(picture.starts_with("<svg ") && picture.contains("fixed-speculate 0.1.0"));
    // Progress is on standard error, with the time that is left.
    assert!(said(&told).contains("point 1 of 13") && said(&told).contains("left"));

    // The same again is the same, and says so as one value.
    let again = folder.path().join("again");
    let answer = text(&small(&again).arg("--json").output().unwrap());
    let mut answer: Value = serde_json::from_str(&answer).unwrap();
    let object = answer.as_object_mut().unwrap();
    object.remove("files");
    object.remove("next");
    assert_eq!(answer, trace(&again));
    assert_eq!(trace(&again), trace(&out));
}

/// Waits until a search has tried so many points, or has ended.
fn tried(out: &Path, running: &mut std::process::Child, points: usize) {
    while running.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(out.join("state.json")).unwrap_or_default();
        let state: Value = serde_json::from_str(&text).unwrap_or_default();
        let tuned = state["trials"]["tuned"].as_array().map_or(0, Vec::len);
        if tuned >= points {
            return;
        }
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_was_interrupted_is_there_and_goes_on_as_if_it_had_not_been() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    text(&small(&whole).output().unwrap());
    let out = folder.path().join("interrupted");
    let mut running = small(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    tried(&out, &mut running, 2);
    let killed = Command::new("kill")
        .args(["-INT", &running.id().to_string()])
        .status();
    let ended = running.wait().unwrap();
    if killed.unwrap().success() && !ended.success() {
        assert_eq!(ended.code(), Some(1), "{ended}");
        // All that was found so far is there, and is not thrown away by accident.
        let so_far = read(&out.join("trace.json"));
        assert_eq!(so_far["finished"], false);
        let count = so_far["trials"].as_array().map_or(0, Vec::len);
        assert!((3..13).contains(&count), "{count}");
        assert!(out.join("trace.svg").is_file());
        let error = wrong::<&str>(&mut small(&out), &[]);
        assert!(
            error.contains("has not come to its end: --resume"),
            "{error}"
        );
    }
    let error = wrong(&mut small(&out), &["--resume", "--weight", "7"]);
    assert!(error.contains("another wanted.weight"), "{error}");
    text(&small(&out).arg("--resume").output().unwrap());
    assert_eq!(trace(&out), trace(&whole));
    // More points than before: those that there are stay.
    let more = text(
        &small(&out)
            .args(["--resume", "--json", "--evaluations", "7"])
            .output()
            .unwrap(),
    );
    let more: Value = serde_json::from_str(&more).unwrap();
    assert_eq!(more["trials"].as_array().map(Vec::len), Some(15));
    let first = |trace: &Value| trace["trials"].as_array().unwrap()[..7].to_vec();
    assert_eq!(first(&more), first(&trace(&whole)));
}

#[test]
fn a_node_takes_what_was_found_as_a_canary_or_says_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let node = Fake::start(200);
    let out = folder.path().join("taken");
    let words = text(&small(&out).args(["--push", &node.url]).output().unwrap());
    let revision = read(&out.join("revision.json"));
    assert_eq!(
        node.bodies("/v1/tune"),
        [json!({ "plugin": "fixed-speculate", "values": revision["values"], "gradually": true })]
    );
    assert!(
        words.contains("as a canary") && words.contains("note: worth knowing"),
        "{words}"
    );
    // It was asked whether it is there before anything took long.
    assert_eq!(node.bodies("/v1/state").len(), 1);

    let node = Fake::start(409);
    let out = folder.path().join("refused");
    let refused = small(&out).args(["--push", &node.url]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(
        words.contains("did not take it: not now: it is not active."),
        "{words}"
    );
    assert!(out.join("revision.json").is_file());

    let gone = folder.path().join("gone");
    let error = wrong(&mut small(&gone), &["--push", "http://127.0.0.1:1"]);
    assert!(
        error.contains("no node answers") && !gone.exists(),
        "{error}"
    );
}

#[test]
fn what_cannot_be_calibrated_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("none");
    let with = |policy: &Path, records: &Path| {
        let mut command = program();
        command
            .arg("--policy")
            .arg(policy)
            .arg("--records")
            .arg(records);
        command.arg("--out").arg(&nowhere);
        command
    };
    let (policy, decisions) = (shipped("fixed-speculate"), records("fixed-speculate"));
    let none: &[&str] = &[];
    let error = wrong(&mut with(&shipped("cloud-only"), &decisions), none);
    assert!(
        error.contains("cloud-only declares nothing as tunable"),
        "{error}"
    );
    let error = wrong(&mut with(Path::new("not/there"), &decisions), none);
    assert!(error.contains("policy.toml is missing"), "{error}");
    let empty = folder.path().join("empty.jsonl");
    std::fs::write(&empty, "").unwrap();
    let error = wrong(&mut with(&policy, &empty), none);
    assert!(
        error.contains("no decision of a request that was answered"),
        "{error}"
    );
    let cases: [(&[&str], &str); 11] = [
        (&["--evaluations", "0"], "--evaluations is 0; allowed: 1 to"),
        (&["--requests", "0"], "--requests is 0"),
        (&["--budget", "1.5"], "--budget is 1.5; allowed: above 0"),
        (&["--delta", "0"], "--delta is 0"),
        (&["--weight", "nan"], "--weight is NaN"),
        (&["--pace", "0"], "pace: is 0"),
        (
            &["--draft", "none"],
            "is \"none\"; allowed: an engine of the profile",
        ),
        (&["--param", "gamma=0"], "--param gamma: 0 is out of range"),
        (
            &["--param", "other=1"],
            "fixed-speculate has no such parameter; there are gamma",
        ),
        (&["--resume"], "nothing to go on with"),
        (
            &["--profile", "not/there.toml"],
            "cannot read not/there.toml",
        ),
    ];
    for (more, told) in cases {
        let error = wrong(&mut with(&policy, &decisions), more);
        assert!(error.contains(told), "{more:?}: {error}");
    }
    assert!(!nowhere.exists());
    // What does not belong together is refused by the command line.
    let output = with(&policy, &decisions).arg("--at-once").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn worlds_and_profiles_can_be_given_and_what_is_held_is_not_tuned() {
    let folder = tempfile::tempdir().unwrap();
    let world = folder.path().join("world.toml");
    let text_of = "[[clouds]]\ntarget = 'paced-target'\ndraft = 'paced-draft'\n[[edges]]\ncount = 2\ndraft = 'paced-draft'\n\
                   [edges.link]\nup = { bandwidth = '20 Mbit/s', delay-ms = 30.0 }\ndown = { delay-ms = 30.0 }\n";
    std::fs::write(&world, text_of).unwrap();
    let out = folder.path().join("found");
    let answer = text(
        &program()
            .arg("--policy")
            .arg(shipped("fixed-speculate"))
            .arg("--records")
            .arg(records("edge-only"))
            .arg("--world")
            .arg(&world)
            .args([
                "--param",
                "in-flight=8",
                "--pace",
                "0.2",
                "--requests",
                "60",
                "--evaluations",
                "3",
                "--json",
            ])
            .arg("--out")
            .arg(&out)
            .output()
            .unwrap(),
    );
    let found: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(found["declared"]["values"], json!({ "gamma": 4 }));
    assert_eq!(
        found["settings"]["played"]["held"],
        json!({ "in-flight": 8 })
    );
    let routes = &found["declared"]["measured"]["routes"];
    assert!(routes[3].as_u64() > Some(30), "{routes}");
}
