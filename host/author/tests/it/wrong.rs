//! What authors get wrong: each is told with what to do about it, and nothing is left half-written.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;

use crate::common::{copied, json, program, run, run_in, said, shipped};

fn fails(args: &[&str], wanted: &str) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    assert!(
        output.stdout.is_empty(),
        "{args:?} prints an answer and fails"
    );
    assert!(
        said(&output).contains(wanted),
        "{args:?}: {}\nshould say {wanted}",
        said(&output)
    );
}

#[test]
fn what_is_not_there_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_str().unwrap();
    fails(&["build", at], "msao policy new NAME");
    fails(&["test", &format!("{at}/none.wasm")], "there is no file");
    let manifest = "name = \"a\"\nversion = \"1.0.0\"\nworld = \"offload-policy\"\ndescription = \"\"\nstate-schema = 0\n";
    fs::write(folder.path().join("policy.toml"), manifest).unwrap();
    fails(
        &["build", at],
        "expected: Cargo.toml (Rust), policy.c, policy.js or policy.py",
    );
    fails(&["run", at], "build it with `msao policy build");
    fails(&["test", at], "there are no cases in");
    fails(&["replay", "none.jsonl", at], "build it with");
    fails(&["new", "policies"], "is there already");
    fails(
        &["new", "Upper", "--folder", &format!("{at}/x")],
        "cannot be a plug-in's name",
    );
    fails(
        &[
            "new",
            "x",
            "--lang",
            "python",
            "--world",
            "probe-postprocessor",
            "--folder",
            &format!("{at}/x"),
        ],
        "there is one in rust",
    );
    assert!(!folder.path().join("x").exists());
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "something is left over");
}

#[test]
fn with_json_an_error_is_the_answer() {
    for line in [
        &["build", "no-such-folder"][..],
        &["replay", "none.jsonl", "policies/cloud-only"],
        &["new", "Not A Name"],
    ] {
        let output = run(&[line, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        let told = json(&output);
        assert!(
            told["error"].as_str().is_some_and(|it| !it.is_empty()),
            "{told}"
        );
        assert_eq!(said(&output), "", "{line:?}");
        let plain = run(line);
        assert!(
            plain.stdout.is_empty() && !plain.stderr.is_empty(),
            "{line:?}"
        );
    }
}

#[test]
fn a_missing_tool_is_named_with_the_way_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    for (language, tool) in [
        ("c", "zig"),
        ("javascript", "componentize-qjs"),
        ("python", "componentize-py"),
    ] {
        let name = format!("no-{language}");
        let new = program()
            .current_dir(folder.path())
            .args(["new", &name, "--lang", language, "--json"])
            .env("PATH", empty.path())
            .env("XDG_CACHE_HOME", empty.path())
            .output()
            .unwrap();
        assert!(json(&new)["missing"].as_str().unwrap().contains(tool));
        let output = program()
            .current_dir(folder.path())
            .args(["build", &name])
            .env("PATH", empty.path())
            .env("XDG_CACHE_HOME", empty.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(
            said.contains(&format!("{tool} is missing")) && said.contains("install"),
            "{said}"
        );
        assert!(
            !folder
                .path()
                .join(&name)
                .join(format!("target/{name}.wasm"))
                .exists()
        );
    }
    let doctor = program()
        .args(["doctor", "--json"])
        .env("PATH", empty.path())
        .env("XDG_CACHE_HOME", empty.path())
        .output()
        .unwrap();
    assert_eq!(doctor.status.code(), Some(1));
    assert!(
        json(&doctor)
            .as_array()
            .unwrap()
            .iter()
            .all(|row| row["ready"] == false)
    );
}

#[test]
fn wrong_files_are_told_apart() {
    let (_keep, plugin) = copied("cloud-only");
    let component = plugin.join("target/cloud-only.wasm");
    let good = fs::read(&component).unwrap();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x40;
    let check = || {
        let output = run_in(&plugin, &["check", "--json"]);
        let checked = json(&output);
        assert_eq!(output.status.success(), checked["fine"] == true);
        let wrong = checked["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|look| look["fine"] == false)
            .cloned();
        wrong.map_or_else(String::new, |look| {
            look["said"].as_str().unwrap().to_owned()
        })
    };
    assert_eq!(check(), "");
    for (bytes, wanted) in [
        (Vec::new(), "the file is empty"),
        (b"#!/bin/sh\n".to_vec(), "no WebAssembly component"),
        (b"\0asm\x01\0\0\0".to_vec(), "core WebAssembly module"),
        (good[..good.len() - 7].to_vec(), "damaged"),
    ] {
        fs::write(&component, bytes).unwrap();
        assert!(check().contains(wanted), "{}\nshould say {wanted}", check());
    }
    // A flipped bit is damage, or another component that does not do; never a panic.
    fs::write(&component, flipped).unwrap();
    check();
    // The right file under a manifest of the other world.
    fs::write(&component, good).unwrap();
    let manifest = plugin.join("policy.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    // What a node does not give by default is no fault, and told with the lines that allow it.
    let limits = || {
        let checked = json(&run_in(&plugin, &["check", "--json"]));
        assert_eq!(checked["fine"], true, "{checked}");
        let rows = checked["checks"].as_array().unwrap().clone();
        let row = rows.into_iter().find(|row| row["at"] == "limits").unwrap();
        row["said"].as_str().unwrap().to_owned()
    };
    assert_eq!(limits(), "a node's defaults suffice");
    let greedy = format!("{text}\n[limits]\nmemory-mib = 64\nplan-ms = 2\nstep-ms = 3\n");
    fs::write(&manifest, greedy).unwrap();
    let told = limits();
    for line in [
        "[sandbox.plugins.cloud-only]",
        "memory-mib = 64",
        "step-ms = 3",
        "gives 16",
    ] {
        assert!(told.contains(line), "{told}\nshould say {line}");
    }
    assert!(!told.contains("plan-ms"), "{told}");
    fs::write(
        &manifest,
        text.replace("offload-policy", "probe-postprocessor"),
    )
    .unwrap();
    assert!(check().contains("world"), "{}", check());
    fs::write(&manifest, format!("{text}\ncolour = 1\n")).unwrap();
    assert!(check().contains("colour"), "{}", check());
}

#[test]
fn wrong_recordings_and_parameters_are_named() {
    let plugin = shipped("fixed-speculate");
    let at = plugin.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some.jsonl");
    let name = file.to_str().unwrap();
    fails(&["replay", name, at], "cannot read");
    fs::write(&file, "").unwrap();
    fails(&["replay", name, at], "has no decisions");
    fs::write(&file, "{\"decision\": 1}\n").unwrap();
    fails(&["replay", name, at], "line 1");
    fails(
        &["record", at, "--count", "2000000", "--out", name],
        "allowed: 1 to 200000",
    );
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        "{\"decision\": 1}\n",
        "the old file is gone"
    );
    let good = run(&["record", at, "--count", "3", "--out", name]);
    assert!(good.status.success(), "{}", said(&good));
    fails(
        &["replay", name, at, "--param", "gamma=100"],
        "params.gamma: 100 is out of range; allowed: 1 to 64",
    );
    fails(
        &["replay", name, at, "--param", "gamma"],
        "NAME=VALUE is expected",
    );
    fails(
        &["explain", at, "--recorded", name, "--id", "nobody"],
        "has no decision nobody",
    );
    let explained = run(&["explain", at, "--recorded", name, "--id", "sim-1-1"]);
    assert!(explained.status.success(), "{}", said(&explained));
}
