//! Every command through the real program, on real components.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::Stdio;

use msao_guests::Language;
use serde_json::{Value, json};

use crate::common::{built, copied, json, program, root, run, run_in, said, shipped, text};

#[test]
fn a_new_policy_builds_and_its_cases_pass() {
    let folder = tempfile::tempdir().unwrap();
    let made = text(&run_in(
        folder.path(),
        &["new", "first-try", "--lang", "rust"],
    ));
    assert!(made.contains("cd first-try"), "{made}");
    let plugin = folder.path().join("first-try");
    let built = json(&run_in(&plugin, &["build", "--json"]));
    assert_eq!(built["language"], "rust");
    assert!(plugin.join("target/first-try.wasm").is_file());
    let tested = json(&run_in(&plugin, &["test", "--json"]));
    assert_eq!(
        (&tested["passed"], &tested["failed"]),
        (&json!(6), &json!(0)),
        "{tested}"
    );
    let checked = json(&run_in(&plugin, &["check", "--json"]));
    assert_eq!(checked["fine"], true, "{checked}");
    // Nothing is left over from making it.
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["first-try"]);
    // `dev` is build and test, each time that something is saved.
    let mut dev = program()
        .current_dir(&plugin)
        .args(["dev", "--rounds", "2", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut rounds = BufReader::new(dev.stdout.take().unwrap()).lines();
    let mut round = || serde_json::from_str::<Value>(&rounds.next().unwrap().unwrap()).unwrap();
    let first = round();
    assert_eq!((&first["passed"], &first["failed"]), (&json!(6), &json!(0)));
    let cases = fs::read_dir(plugin.join("cases")).unwrap();
    let case = cases.map(|entry| entry.unwrap().path()).next().unwrap();
    let spoiled = fs::read_to_string(&case)
        .unwrap()
        .replace("rtt = 20 }", "rtt = 21 }");
    fs::write(&case, spoiled).unwrap();
    let second = round();
    assert_eq!(
        (&second["passed"], &second["failed"]),
        (&json!(5), &json!(1))
    );
    assert!(rounds.next().is_none());
    assert_eq!(dev.wait().unwrap().code(), Some(1));
}

#[test]
fn the_template_of_every_language_builds_passes_its_cases_and_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for language in Language::ALL {
            let folder = folder.path();
            scope.spawn(move || {
                let name = format!("try-{language}");
                text(&run_in(folder, &["new", &name, "--lang", language.name()]));
                let plugin = folder.join(&name);
                // A tool that is missing is a failure: `cargo xtask plugins` fetches all of them.
                let built = json(&run_in(&plugin, &["build", "--json"]));
                assert_eq!(built["language"], language.name(), "{built}");
                let tested = json(&run_in(&plugin, &["test", "--json"]));
                assert_eq!(
                    (&tested["passed"], &tested["failed"]),
                    (&json!(6), &json!(0)),
                    "{tested}"
                );
                let checked = json(&run_in(&plugin, &["check", "--json"]));
                assert_eq!(checked["fine"], true, "{checked}");
                let limits = checked["checks"].as_array().unwrap().iter();
                let limits = limits.filter(|row| row["at"] == "limits").count();
                assert_eq!(limits, 1, "{checked}");
            });
        }
    });
}

/// Folders of plug-ins that have cases.
fn with_cases() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for group in ["policies", "plugins", "plugins/examples"] {
        for entry in fs::read_dir(root().join(group)).unwrap() {
            let path = entry.unwrap().path();
            if path.join("cases").is_dir() {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn every_plugin_that_has_cases_passes_them() {
    let folders = with_cases();
    // Seven policies, four post-processors, an example in each language.
    assert_eq!(folders.len(), 15, "{folders:?}");
    for folder in folders {
        let plugin = built(&folder);
        let tested = json(&run(&[
            "test".as_ref(),
            plugin.as_os_str(),
            "--json".as_ref(),
        ]));
        assert_eq!(tested["failed"], json!(0), "{}: {tested}", folder.display());
        assert!(tested["passed"].as_u64() > Some(0), "{tested}");
    }
}

#[test]
fn a_new_postprocessor_builds_and_its_cases_pass() {
    let folder = tempfile::tempdir().unwrap();
    let args = [
        "new",
        "scores",
        "--lang",
        "rust",
        "--world",
        "probe-postprocessor",
    ];
    text(&run_in(folder.path(), &args));
    let plugin = folder.path().join("scores");
    text(&run_in(&plugin, &["build"]));
    assert!(text(&run_in(&plugin, &["test"])).contains("2 passed, 0 failed"));
    let benched = json(&run_in(&plugin, &["bench", "--json", "--seconds", "0.05"]));
    assert_eq!(benched["figures"][0]["call"], "score");
    let run = run_in(&plugin, &["run", ".", "--call", "plan"]);
    assert!(
        said(&run).contains("has no such function"),
        "{}",
        said(&run)
    );
}

#[test]
fn a_failing_case_shows_what_differs_and_fails_the_command() {
    let (_keep, plugin) = copied("fixed-speculate");
    fs::create_dir(plugin.join("cases")).unwrap();
    fs::write(
        plugin.join("cases/a.toml"),
        r#"
        [[case]]
        name = "right"
        expect = { route = "speculate", gamma-max = { min = 1, max = 64 } }
        [[case]]
        name = "wrong"
        params = { gamma = 7 }
        expect = { route = "cloud", gamma-max = 4 }
        [[case]]
        name = "no case at all"
        params = { gama = 7 }
        expect = {}
        "#,
    )
    .unwrap();
    let output = run_in(&plugin, &["test"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    for wanted in [
        "ok    right",
        "FAIL  wrong",
        "- gamma-max = 4\n      + gamma-max = 7",
        "- route = \"cloud\"\n      + route = \"speculate\"",
        "the case is wrong: params: there is no \"gama\"; did you mean \"gamma\"?",
        "1 passed, 2 failed",
    ] {
        assert!(text.contains(wanted), "{text}\nshould have {wanted}");
    }
    // JSON says the same, and a filter leaves the rest out.
    let tested = json(&run_in(&plugin, &["test", "--json", ".", "wrong"]));
    assert_eq!(tested["cases"][0]["mismatches"][0]["at"], "gamma-max");
    assert_eq!(tested["cases"].as_array().unwrap().len(), 1);
    let none = run_in(&plugin, &["test", ".", "nothing like it"]);
    assert!(said(&none).contains("no case of"));
    // A file of cases in JSON.
    let cases =
        json!({ "case": [{ "name": "as JSON", "peer": [], "expect": { "route": "edge" } }] });
    fs::write(plugin.join("more.json"), cases.to_string()).unwrap();
    assert!(text_of(&run_in(&plugin, &["test", "--cases", "more.json"])).contains("1 passed"));
}

fn text_of(output: &std::process::Output) -> String {
    text(output)
}

#[test]
fn an_input_is_answered_from_a_file_or_standard_input() {
    let plugin = shipped("fixed-speculate");
    let answer = json(&run_in(&plugin, &["run", "--json"]));
    assert_eq!(
        (&answer["route"], &answer["reason"]),
        (&json!("speculate"), &json!("speculates"))
    );
    assert_eq!(answer["terms"]["rtt"], 20.0);
    let mut child = program()
        .current_dir(&plugin)
        .args(["run", ".", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"peer = []").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(json(&output)["route"], "edge");
    let whole = json(&run_in(&plugin, &["run", "--defaults", "--json"]));
    assert_eq!(whole["nodes"].as_array().unwrap().len(), 2);
    let word = json(&run_in(&plugin, &["run", "--call", "step", "--json"]));
    assert!(word.is_string(), "{word}");
    let text = text(&run_in(&plugin, &["explain"]));
    assert!(
        text.contains("because speculates:") && text.contains("rtt = 20"),
        "{text}"
    );
}

#[test]
fn figures_are_measured_and_held_against_a_budget() {
    let plugin = shipped("fixed-speculate");
    let bench = |budget: &str| {
        run_in(
            &plugin,
            &["bench", "--json", "--seconds", "0.05", "--budget", budget],
        )
    };
    let output = bench("memory=16MiB,plan=1s".replace("1s", "1000ms").as_str());
    assert!(output.status.success(), "{}", said(&output));
    let benched = json(&output);
    for figures in benched["figures"].as_array().unwrap() {
        assert!(figures["p50-ns"].as_f64().unwrap() > 0.0);
        assert!(figures["p99-ns"].as_f64() >= figures["p50-ns"].as_f64());
        assert!(figures["fuel"].as_u64().unwrap() > 0, "{figures}");
        assert!(figures["memory-peak"].as_u64().unwrap() > 0);
    }
    // Fuel does not depend on the machine's mood.
    assert_eq!(
        json(&bench("memory=1GiB".replace("1GiB", "1024MiB").as_str()))["figures"][0]["fuel"],
        benched["figures"][0]["fuel"]
    );
    let output = bench("plan.fuel=1");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json(&output)["exceeded"][0]["name"], "plan.fuel");
    let refused = json(&bench("speed=1ms"));
    let why = refused["error"].as_str().unwrap();
    assert!(why.contains("nothing is called speed"), "{why}");
    // An input is measured as the call that it names, or not at all.
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input.toml");
    let of_input = |text: &str| {
        fs::write(&input, text).unwrap();
        let file = input.to_str().unwrap();
        json(&run_in(
            &plugin,
            &["bench", "--json", "--seconds", "0.05", "--input", file],
        ))
    };
    let step = of_input("call = \"step\"");
    assert_eq!(step["figures"][0]["call"], "step", "{step}");
    let refused = of_input("call = \"score\"");
    let why = refused["error"].as_str().unwrap();
    assert!(
        why.contains("a offload-policy has no such function"),
        "{why}"
    );
}

#[test]
fn a_signature_holds_until_component_or_manifest_change() {
    let (keep, plugin) = copied("cloud-only");
    let key = keep.path().join("keys/author.pem");
    let key = key.to_str().unwrap();
    let made = json(&run(&["keygen", key, "--json"]));
    assert_eq!(made["public"].as_str().unwrap().len(), 64);
    assert!(said(&run(&["keygen", key])).contains("never overwritten"));

    let state = |args: &[&str]| {
        let checked = json(&run_in(&plugin, &[&["check", "--json"], args].concat()));
        let signature = checked["checks"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone();
        (
            checked["fine"].clone(),
            signature["said"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(state(&[]).0, true);
    assert_eq!(state(&["--signed"]).0, false);
    let signed = json(&run_in(&plugin, &["sign", "--key", key, "--json"]));
    assert_eq!(
        (&signed["serial"], &signed["key"]),
        (&json!(1), &made["public"])
    );
    assert!(state(&["--signed"]).1.starts_with("serial 1, by"));
    // The next release's number follows by itself.
    assert_eq!(
        json(&run_in(&plugin, &["sign", "--key", key, "--json"]))["serial"],
        2
    );

    let manifest = plugin.join("policy.toml");
    let before = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, format!("{before}\n# changed\n")).unwrap();
    let (fine, said) = state(&[]);
    assert_eq!(fine, false);
    assert!(said.contains("the signature is for the manifest"), "{said}");
}

#[test]
fn a_components_file_is_told_without_a_manifest() {
    let plugin = shipped("cloud-only");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some.wasm");
    fs::copy(plugin.join("target/cloud-only.wasm"), &file).unwrap();
    let told = json(&run_in(folder.path(), &["inspect", "some.wasm", "--json"]));
    assert_eq!(told["worlds"], json!(["offload-policy"]));
    assert_eq!(told["imports"], json!(["msao:offload/types@0.1.0"]));
    assert!(
        told["contract"]
            .as_array()
            .unwrap()
            .contains(&json!("msao:offload/policy@0.1.0"))
    );
    assert!(text(&run_in(folder.path(), &["inspect", "some.wasm"])).contains("sha-256"));
}

#[test]
fn a_kept_failure_is_listed_pulled_and_run_again() {
    let plugin = shipped("cloud-only");
    let whole = json(&run_in(&plugin, &["run", "--defaults", "--json"]));
    // As a node writes it.
    let case = json!({
        "version": 1,
        "failure": {
            "id": "00ff00ff00ff00ff", "at-ms": 1.75e12, "plugin": "cloud-only 0.1.0",
            "artifact": "0".repeat(64),
            "generation": { "policy": null, "postprocessor": null, "revision": 1 },
            "export": "plan", "kind": "trap", "message": "unreachable", "backtrace": "  0: choose",
            "memory-peak": 1000, "elapsed-ms": 1.5,
            "limits": { "memory-mib": 32, "plan-ms": 7 }, "redacted": ["tenant"],
        },
        "input": { "plan": {
            "request": whole["request"], "parts": whole["parts"], "nodes": whole["nodes"],
            "params": whole["params"], "calibration": whole["calibration"], "explained": null,
        } },
    });
    let node = tempfile::tempdir().unwrap();
    fs::create_dir(node.path().join("cases")).unwrap();
    fs::write(
        node.path().join("cases/00ff00ff00ff00ff.json"),
        case.to_string(),
    )
    .unwrap();
    let at = node.path().to_str().unwrap();
    // One that cannot be read hides none of the others.
    fs::write(
        node.path().join("cases/0000000000000000.json"),
        "{\"version\":",
    )
    .unwrap();
    let listed = run(&["failures", "--node", at]);
    assert!(said(&listed).contains("left out: "), "{}", said(&listed));
    let listed = json(&run(&["failures", "--node", at, "--json"]));
    assert_eq!(listed["failures"].as_array().unwrap().len(), 1);
    assert_eq!(listed["failures"][0]["message"], "unreachable");
    let unread = listed["unread"].as_array().unwrap();
    assert_eq!(unread.len(), 1);
    assert!(
        unread[0]
            .as_str()
            .unwrap()
            .contains("0000000000000000.json"),
        "{unread:?}"
    );
    assert!(
        said(&run(&["failures", "--node", at, "--pull", "77"])).contains("no failure's id begins")
    );
    let pulled = text(&run_in(
        node.path(),
        &["failures", "--node", ".", "--pull", "00ff"],
    ));
    for words in [
        "replay it: msao policy run",
        "limits on that node: 32 MiB, 7 ms",
        "left out by the node's operator: the tenant",
    ] {
        assert!(pulled.contains(words), "{pulled}\nshould say {words}");
    }
    let file = node.path().join("00ff00ff00ff00ff.json");
    let answer: Value = json(&run(&[
        "run",
        plugin.to_str().unwrap(),
        file.to_str().unwrap(),
        "--json",
    ]));
    assert_eq!(answer["route"], "cloud");
    // It answers here, where it trapped on the node.
    let (plugin, file) = (plugin.to_str().unwrap(), file.to_str().unwrap());
    let warned = said(&run(&["run", plugin, file, "--json"]));
    assert!(
        warned.contains("on the node plan failed as trap after 1.5 ms; here it answers"),
        "{warned}"
    );
    // Its own limits are in force: nothing keeps to this one.
    let small = fs::read_to_string(file).unwrap();
    let small = small.replace("\"memory-mib\":32", "\"memory-mib\":32,\"artifact-mib\":0");
    fs::write(file, small).unwrap();
    let refused = said(&run(&["run", plugin, file]));
    assert!(refused.contains("artifact-mib"), "{refused}");
}

#[test]
fn the_doctor_and_the_completions_speak() {
    let rows = json(&run(&["doctor", "--json", "--lang", "rust"]));
    assert_eq!(
        (&rows[0]["language"], &rows[0]["ready"]),
        (&json!("rust"), &json!(true))
    );
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            text(&run(&["completions", shell])).contains("replay"),
            "{shell}"
        );
    }
    let help = text(&run(&["--help"]));
    for command in [
        "new", "build", "dev", "check", "inspect", "test", "run", "bench", "replay", "sign",
    ] {
        assert!(help.contains(command), "{command}");
        let taught = text(&run(&[command, "--help"]));
        assert!(
            taught.contains(&format!("msao policy {command}")),
            "{command} shows no example"
        );
    }
}
