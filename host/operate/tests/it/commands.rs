//! Every command but the rollout through the real program, on a played node.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::TcpListener;

use serde_json::json;

use crate::common::{Fake, PICTURE, json_of, plugin, program, run, text, wrong};

#[test]
fn a_plugin_is_pushed_listed_activated_and_left() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    let at = plugin(folder.path(), "patient", "0.1.0");
    let at = at.to_str().unwrap();
    let pushed = text(&run(&node, &["policy", "push", at]));
    assert!(
        pushed.contains("patient@0.1.0") && pushed.contains("not signed"),
        "{pushed}"
    );
    let listed = text(&run(&node, &["policy", "list"]));
    assert!(
        listed.contains("patient@0.1.0") && listed.contains("the built-in fallback"),
        "{listed}"
    );
    let active = text(&run(&node, &["policy", "activate", "patient@0.1.0"]));
    assert!(
        active.contains("generation 2: patient 0.1.0") && active.contains("worth knowing"),
        "{active}"
    );
    assert!(text(&run(&node, &["policy", "list"])).contains("active"));
    // By digest, and a folder that is pushed first.
    let digest =
        json_of(&run(&node, &["policy", "list", "--json"]))["releases"][0]["release"]["artifact"]
            .clone();
    let newer = plugin(folder.path(), "patient", "0.2.0");
    text(&run(&node, &["policy", "canary", newer.to_str().unwrap()]));
    text(&run(&node, &["policy", "promote"]));
    assert_eq!(node.policy().unwrap(), "patient 0.2.0");
    let back = ["policy", "rollback", "--to", &digest.as_str().unwrap()[..8]];
    assert!(text(&run(&node, &back)).contains("gone back to patient@0.1.0"));
    let receipt = json_of(&run(
        &node,
        &["policy", "rollback", "--why", "slow", "--json"],
    ));
    assert_eq!(receipt["number"], 3);
    assert_eq!(node.body("/v1/rollback"), json!({"why": "slow"}));
    let history = text(&run(&node, &["policy", "history"]));
    assert!(
        history.contains("generation 3 was left: too slow") && history.contains("alice"),
        "{history}"
    );
}

#[test]
fn a_change_can_be_bound_to_what_was_seen() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    let at = plugin(folder.path(), "patient", "0.1.0");
    let at = at.to_str().unwrap();
    text(&run(
        &node,
        &["policy", "activate", at, "--if-generation", "1"],
    ));
    let release = node.node().releases[0]["release"].clone();
    assert_eq!(
        node.body("/v1/activate"),
        json!({ "policy": release, "generation": 1 })
    );
    for line in [
        &["policy", "rollback", "--why", "slow"][..],
        &["policy", "rollback", "--to", "patient"],
        &["policy", "canary", "patient"],
        &["policy", "shadow", "patient"],
        &["policy", "off"],
        &["policy", "tune", "patient", "a=1"],
    ] {
        let error = wrong(&run(&node, &[line, &["--if-generation", "1"]].concat()));
        assert!(
            error.contains("generation 1 alone, and 2"),
            "{line:?}: {error}"
        );
    }
    assert_eq!(node.policy().unwrap(), "patient 0.1.0");
    let back = [
        "policy",
        "rollback",
        "--why",
        "slow",
        "--if-generation",
        "2",
    ];
    text(&run(&node, &back));
    assert_eq!(
        node.body("/v1/rollback"),
        json!({ "why": "slow", "generation": 2 })
    );
    // A reason goes along with what is gone back to, too.
    let to = ["policy", "rollback", "--to", "patient", "--why", "slow"];
    text(&run(&node, &to));
    assert_eq!(
        node.body("/v1/rollback-to"),
        json!({ "policy": release, "why": "slow" })
    );
}

#[test]
fn a_token_is_told_whose_it_is() {
    let node = Fake::start("edge-1");
    let told = text(&run(&node, &["node", "whoami"]));
    assert!(told.starts_with("local, role activate, at http"), "{told}");
    node.node().tokens = [("t".to_owned(), "read")].into();
    let told = json_of(&run(&node, &["node", "whoami", "--token", "t", "--json"]));
    assert_eq!(told["role"], "read");
}

#[test]
fn a_refusal_that_is_not_about_the_role_is_told_as_it_is() {
    let node = Fake::start("edge-1");
    let why = "The request has the Host 'x'.".to_owned();
    node.node().fault = Some(("/v1/state".into(), 403, why.clone()));
    let error = wrong(&run(&node, &["node", "state"]));
    assert!(error.contains(&why) && !error.contains("role"), "{error}");
}

#[test]
fn a_component_takes_the_manifest_of_its_name_before_any_other() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    for name in ["cloud-only", "edge-only"] {
        let from = plugin(folder.path(), name, "0.3.0");
        let wasm = format!("target/{name}.wasm");
        std::fs::create_dir_all(folder.path().join("target")).unwrap();
        std::fs::copy(from.join(&wasm), folder.path().join(&wasm)).unwrap();
        let manifest = format!("target/{name}.toml");
        std::fs::copy(from.join("policy.toml"), folder.path().join(manifest)).unwrap();
    }
    // That of another plug-in does not come first.
    let other = plugin(folder.path(), "other", "9.0.0").join("policy.toml");
    std::fs::copy(&other, folder.path().join("target/policy.toml")).unwrap();
    for name in ["cloud-only", "edge-only"] {
        let at = folder.path().join("target").join(format!("{name}.wasm"));
        let pushed = text(&run(&node, &["policy", "push", at.to_str().unwrap()]));
        assert!(pushed.contains(&format!("{name}@0.3.0")), "{pushed}");
    }
    // Without one of its name the folder's counts, as before.
    std::fs::remove_file(folder.path().join("target/edge-only.toml")).unwrap();
    let at = folder.path().join("target/edge-only.wasm");
    let pushed = text(&run(&node, &["policy", "push", at.to_str().unwrap()]));
    assert!(pushed.contains("other@9.0.0"), "{pushed}");
}

#[test]
fn each_change_is_asked_for_as_the_node_wants_it() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    let at = plugin(folder.path(), "patient", "0.1.0");
    let at = at.to_str().unwrap();
    text(&run(&node, &["policy", "shadow", at]));
    let release = node.node().releases[0]["release"].clone();
    assert_eq!(node.body("/v1/shadow"), json!({ "policy": release }));
    text(&run(&node, &["policy", "shadow", "--off"]));
    assert_eq!(node.body("/v1/shadow-off"), json!({}));
    text(&run(&node, &["policy", "off"]));
    assert_eq!(node.body("/v1/off"), json!({}));
    text(&run(
        &node,
        &["policy", "activate", "patient", "--no-postprocessor"],
    ));
    assert_eq!(
        node.body("/v1/activate"),
        json!({ "policy": release, "postprocessor": "nothing" })
    );
    text(&run(
        &node,
        &[
            "policy",
            "tune",
            "patient",
            "rtt-limit=80",
            "mode=exact",
            "old=",
            "--gradually",
        ],
    ));
    assert_eq!(
        node.body("/v1/tune"),
        json!({"plugin": "patient", "values": {"rtt-limit": 80, "mode": "exact", "old": null}, "gradually": true})
    );
    // The same from a file that `msao calibrate` has written; either that or names on the line.
    let file = folder.path().join("revision.json");
    let file = file.to_str().unwrap();
    let revision = r#"{"plugin": "patient", "version": "0.1.0", "values": {"gamma": 6}, "found": {"objective": 1.0}}"#;
    std::fs::write(file, revision).unwrap();
    text(&run(&node, &["policy", "tune", "--from", file]));
    assert_eq!(
        node.body("/v1/tune"),
        json!({"plugin": "patient", "values": {"gamma": 6}, "gradually": false})
    );
    for line in [
        &["policy", "tune", "--from", file, "patient", "a=1"][..],
        &["policy", "tune", "patient"],
        &["policy", "tune"],
    ] {
        assert_eq!(run(&node, line).status.code(), Some(2), "{line:?}");
    }
}

#[test]
fn what_a_node_does_not_need_is_removed() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    for version in ["0.1.0", "0.2.0", "0.3.0"] {
        let at = plugin(folder.path(), "patient", version);
        text(&run(&node, &["policy", "push", at.to_str().unwrap()]));
    }
    text(&run(&node, &["policy", "activate", "patient@0.1.0"]));
    let release = node.node().releases[1]["release"].clone();
    let told = text(&run(&node, &["policy", "remove", "patient@0.2.0"]));
    assert!(
        told.contains("1 release was removed: 1.0 KiB freed") && told.contains("patient@0.2.0 ("),
        "{told}"
    );
    assert_eq!(node.body("/v1/remove"), json!({ "release": release }));
    let error = wrong(&run(&node, &["policy", "remove", "patient@0.1.0"]));
    assert!(
        error.contains("not now: ") && error.contains("it is active"),
        "{error}"
    );
    let error = wrong(&run(&node, &["policy", "remove", "patient@0.2.0"]));
    assert!(error.contains("has no release patient@0.2.0"), "{error}");
    let error = wrong(&run(&node, &["policy", "remove", "./patient"]));
    assert!(error.contains("./patient is a path"), "{error}");
    let told = json_of(&run(&node, &["policy", "remove", "--unused", "--json"]));
    assert_eq!(
        (&told["bytes"], &told["kept"][0]["version"]),
        (&json!(1024), &json!("0.1.0"))
    );
    assert_eq!(node.body("/v1/remove"), json!({ "unused": true }));
    assert_eq!(node.node().releases.len(), 1);
    // Either one or all that nothing needs.
    for line in [
        &["policy", "remove"][..],
        &["policy", "remove", "patient", "--unused"],
    ] {
        assert_eq!(run(&node, line).status.code(), Some(2), "{line:?}");
    }
    node.node().tokens = [("reader".to_owned(), "read")].into();
    let error = wrong(&run(
        &node,
        &["policy", "remove", "--unused", "--token", "reader"],
    ));
    assert!(
        error.contains("its role is read, and push is needed"),
        "{error}"
    );
}

#[test]
fn a_name_that_may_mean_two_changes_nothing() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    for version in ["0.1.0", "0.2.0"] {
        let at = plugin(folder.path(), "patient", version);
        text(&run(&node, &["policy", "push", at.to_str().unwrap()]));
    }
    let error = wrong(&run(&node, &["policy", "activate", "patient"]));
    assert!(
        error.contains("patient@0.1.0") && error.contains("patient@0.2.0"),
        "{error}"
    );
    assert_eq!(node.changes(), ["/v1/policies", "/v1/policies"]);
}

#[test]
fn with_json_an_error_is_the_answer() {
    let node = Fake::start("edge-1");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let lines: [&[&str]; 6] = [
        &["policy", "activate", "nothing"],
        &["policy", "push", "no-such-folder"],
        &["policy", "list", "--node", &nobody],
        &["node", "state", "--node", &nobody],
        &["explain", "no/id"],
        &["top", "--node", &nobody],
    ];
    for line in lines {
        let output = run(&node, &[line, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        let told = json_of_failed(&output);
        assert!(
            told["error"].as_str().is_some_and(|it| !it.is_empty()),
            "{told}"
        );
        assert_eq!(told.as_object().unwrap().len(), 1);
        assert!(output.stderr.is_empty(), "{line:?}");
        // Without it the words go to standard error, as ever.
        let plain = run(&node, line);
        assert!(
            plain.stdout.is_empty() && !plain.stderr.is_empty(),
            "{line:?}"
        );
    }
}

fn json_of_failed(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn errors_say_what_to_do_next() {
    let node = Fake::start("edge-1");
    let tokens = [("reader", "read"), ("boss", "activate")];
    node.node().tokens = tokens.map(|(token, role)| (token.into(), role)).into();
    let off = |token: &str| {
        let mut command = program();
        command.args(["policy", "off", "--node", &node.url]);
        if !token.is_empty() {
            command.args(["--token", token]);
        }
        command.output().unwrap()
    };
    let error = wrong(&off(""));
    assert!(
        error.contains("wants a token") && error.contains("--token-file"),
        "{error}"
    );
    assert!(wrong(&off("stranger")).contains("does not know this token"));
    let error = wrong(&off("reader"));
    assert!(
        error.contains("its role is read, and activate is needed"),
        "{error}"
    );
    node.node().fault = Some((
        "/v1/off".into(),
        409,
        "that is what is active already.".into(),
    ));
    let error = wrong(&off("boss"));
    assert!(
        error.contains("not now: that is what is active already.")
            && error.contains("msao policy list --node http"),
        "{error}"
    );
    node.node().fault = Some(("/v1/off".into(), 500, "Something broke.".into()));
    assert!(wrong(&off("boss")).contains("Its log says more"));
    node.node().fault = None;
    text(&off("boss"));
}

#[test]
fn whoever_is_no_node_is_told_apart_from_one_that_is_not_there() {
    let node = Fake::start("edge-1");
    node.node().fault = Some(("/v1/state".into(), 404, "There is nothing here.".into()));
    let error = wrong(&run(&node, &["node", "state"]));
    assert!(
        error.contains("operator.listen (8081 by default)"),
        "{error}"
    );
    // A redirect is not followed: the token would go with it.
    node.node().fault = Some(("/v1/state".into(), 302, String::new()));
    assert!(wrong(&run(&node, &["node", "state"])).contains("not as a node's operator API"));
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = wrong(
        &program()
            .args(["node", "state", "--node", &gone.to_string()])
            .output()
            .unwrap(),
    );
    assert!(
        error.contains("no node answers") && error.contains("msao serve"),
        "{error}"
    );
    // It takes the connection and says nothing.
    node.node().dies_after = Some(0);
    let error = wrong(&run(&node, &["node", "state"]));
    assert!(error.contains("no node answers"), "{error}");
}

#[test]
fn a_node_is_looked_at() {
    let node = Fake::start("edge-1");
    let state = text(&run(&node, &["node", "state"]));
    assert!(state.contains("edge-1 (edge), msao 0.1.0"), "{state}");
    assert_eq!(
        json_of(&run(&node, &["node", "state", "--json"]))["node"],
        "edge-1"
    );
    assert!(text(&run(&node, &["node", "calibration"])).contains("patient: 1 cells"));
    let reset = text(&run(&node, &["node", "calibration", "--reset", "patient"]));
    assert_eq!(reset, "patient has forgotten 1 cells\n");
    let own = text(&run(&node, &["node", "calibration", "--acceptance"]));
    assert!(own.starts_with("budget: 2% of requests"), "{own}");
    let forgotten = text(&run(&node, &["node", "calibration", "--reset-acceptance"]));
    assert!(forgotten.contains("12 drafts is forgotten"), "{forgotten}");
    assert_eq!(
        node.body("/v1/calibration/reset"),
        json!({ "acceptance": true })
    );
    let one = ["node", "calibration", "--reset-acceptance", "0123/fedc"];
    assert!(text(&run(&node, &one)).contains("is forgotten"));
    assert_eq!(
        node.body("/v1/calibration/reset")["pair"],
        json!({ "draft": "0123456789abcdef", "target": "fedcba9876543210", "held": "f32/none on cpu" })
    );
    let kept = text(&run(&node, &["node", "calibration", "--kept"]));
    assert!(kept.contains("patient"), "{kept}");
    assert_eq!(kept.matches("active").count(), 1, "{kept}");
    let only = "node calibration --reset patient --kept --schema 1 --models a/b";
    let words: Vec<&str> = only.split(' ').collect();
    assert!(text(&run(&node, &words)).contains("has forgotten"));
    assert_eq!(
        node.body("/v1/calibration/reset"),
        json!({ "plugin": "patient", "kept": true, "state-schema": 1, "models": "a/b" })
    );
    assert!(text(&run(&node, &["node", "decisions"])).contains("req_1"));
    assert_eq!(text(&run(&node, &["explain", "req_1"])), "Request req_1\n");
    assert_eq!(
        json_of(&run(&node, &["explain", "req_1", "--json"]))["id"],
        "req_1"
    );
    let error = wrong(&run(&node, &["explain", "req_2"]));
    assert!(error.contains("There is nothing here"), "{error}");
}

#[test]
fn what_was_learned_goes_from_node_to_node() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("learned.json");
    let path = file.to_str().unwrap();
    let told = text(&run(&node, &["node", "calibration", "--export", path]));
    assert!(told.contains("bytes"), "{told}");
    let exported = std::fs::read_to_string(&file).unwrap();
    assert_eq!(exported, "{\"version\": 1, \"plugins\":  [0.10]}");
    // Not all of it fits: that is told, and the exit code says so.
    let output = run(&node, &["node", "calibration", "--import", path]);
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(
        said,
        "the cells of patient: 3 cells\nthe acceptance of a/b not taken: it was learned of other models\n"
    );
    std::fs::write(&file, "{}").unwrap();
    let error = wrong(&run(&node, &["node", "calibration", "--import", path]));
    assert!(error.contains("another version"), "{error}");
    std::fs::write(&file, "no JSON").unwrap();
    let error = wrong(&run(&node, &["node", "calibration", "--import", path]));
    assert!(error.contains("is no export"), "{error}");
    let error = wrong(&run(
        &node,
        &["node", "calibration", "--export", path, "--plugin", "a&b"],
    ));
    assert!(error.contains("is no plug-in's name"), "{error}");
}

#[test]
fn what_was_kept_is_drawn_over_the_very_medium() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let names = [at("seen.png"), at("other.png"), at("out.png")];
    let [seen, other, out] = [0, 1, 2].map(|it: usize| names[it].as_str());
    std::fs::write(seen, PICTURE).unwrap();
    std::fs::write(other, [PICTURE, &b"!"[..]].concat()).unwrap();
    let drawn = || {
        let bytes = std::fs::read(out).unwrap();
        msao_media::decode_image(&bytes, &msao_media::Limits::default()).unwrap()
    };

    // Without the medium on grey: around two cells of 28 pixels a frame of 3 and a ground of 8.
    let output = run(&node, &["explain", "req_seen", "--overlay", out]);
    assert_eq!(text(&output), "Request req_seen\n");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("out.png: 78 x 50 pixels; one medium"),
        "{told}"
    );
    let pixel = |x: usize| {
        let image = drawn();
        assert_eq!((image.width, image.height), (78, 50));
        let place = 3 * (25 * 78 + x);
        [
            image.data[place],
            image.data[place + 1],
            image.data[place + 2],
        ]
    };
    let grey = [pixel(0), pixel(8), pixel(20), pixel(50)];
    assert_eq!(grey, [[255; 3], [244, 160, 0], [76; 3], [208; 3]]);

    // Over the medium, whose left half is dimmed.
    let line = ["explain", "req_seen", "--overlay", out, "--media", seen];
    let told = json_of(&run(&node, &[&line[..], &["--json"]].concat()));
    assert_eq!(told["id"], "req_seen");
    assert_eq!(told["account"]["decided"]["reason"]["name"], "quick");
    assert_eq!(told["overlay"]["unseen"], 0);
    assert_eq!(told["overlay"]["file"], json!(out));
    assert_ne!(pixel(50), [208; 3]);

    // Another file is not drawn over, and what was drawn before stays.
    let before = std::fs::read(out).unwrap();
    let line = ["explain", "req_seen", "--overlay", out, "--media", other];
    let error = wrong(&run(&node, &line));
    let wanted = msao_core::digest::Digest::of(PICTURE).to_string();
    assert!(
        error.contains("other.png is not medium 1") && error.contains(&wanted),
        "{error}"
    );
    assert_eq!(std::fs::read(out).unwrap(), before);
    // A record that says nothing of media.
    let error = wrong(&run(&node, &["explain", "req_1", "--overlay", out]));
    assert!(error.contains("no media"), "{error}");
    // A medium is given to be drawn over.
    let line = ["explain", "req_seen", "--media", seen];
    assert_eq!(run(&node, &line).status.code(), Some(2));
}

#[test]
fn what_is_taken_along_is_taken_to_the_byte() {
    let node = Fake::start("edge-1");
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |line: &[&str]| {
        let mut command = program();
        command.args(line).current_dir(folder.path());
        command
            .env("MSAO_OPERATOR_URL", &node.url)
            .output()
            .unwrap()
    };
    let lines = "{\"snapshot\": 1.50}\n{\"decision\":  {}}\n";
    let last = ["node", "decisions", "--last", "7", "--jsonl"];
    assert_eq!(text(&in_folder(&last)), lines);
    text(&in_folder(&[&last[..], &["--out", "d.jsonl"]].concat()));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("d.jsonl"), lines);
    assert!(text(&in_folder(&["node", "failures"])).contains("unreachable"));
    let pulled = text(&in_folder(&["node", "failures", "--pull", "3f9a"]));
    assert!(
        pulled.contains("msao policy run PLUG-IN 3f9a12bc00d4e561.json"),
        "{pulled}"
    );
    assert_eq!(
        read("3f9a12bc00d4e561.json"),
        "{\"version\":1, \"n\": 0.10}"
    );
}

#[test]
fn draining_waits_for_what_is_under_way() {
    let node = Fake::start("edge-1");
    node.node().under_way = 2;
    let told = text(&run(&node, &["node", "drain", "--wait"]));
    assert_eq!(told, "draining: no request is under way any more\n");
    node.node().under_way = 1_000_000;
    let still = run(&node, &["node", "drain", "--wait", "--within", "0.1"]);
    assert_eq!(still.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&still.stdout).contains("still under way"));
    assert_eq!(
        text(&run(&node, &["node", "drain", "--undo"])),
        "takes requests again\n"
    );
    assert!(!node.node().draining);
}

#[test]
fn a_dashboard_without_a_terminal_is_one_frame_of_text() {
    let node = Fake::start("edge-1");
    let frame = text(&run(&node, &["top"]));
    assert!(
        frame.contains("edge-1 (edge)") && frame.contains("Plug-ins") && !frame.contains('\u{1b}'),
        "{frame}"
    );
    // There were two looks, so there is a rate.
    let over = frame.lines().find(|line| line.contains("over "));
    assert!(
        over.is_some_and(|line| line.contains("/s, ") && !line.contains("-")),
        "{frame}"
    );
    node.node().dies_after = Some(0);
    assert!(wrong(&run(&node, &["top"])).contains("no node answers"));
}
