//! Rollouts over several played nodes, through the real program.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{self, Fake, json_of, plugin, program, text, wrong};

/// Nodes, their list, and two plug-ins; the older one is active everywhere.
struct Fleet {
    nodes: Vec<Fake>,
    folder: tempfile::TempDir,
    new: PathBuf,
}

impl Fleet {
    fn start(count: usize) -> Fleet {
        let folder = tempfile::tempdir().unwrap();
        let nodes: Vec<Fake> = (1..=count)
            .map(|it| Fake::start(&format!("edge-{it}")))
            .collect();
        let old = plugin(folder.path(), "old", "1.0.0");
        let new = plugin(folder.path(), "new", "2.0.0");
        let mut list = String::new();
        for node in &nodes {
            let line = ["policy", "activate", old.to_str().unwrap()];
            text(&common::run(node, &line));
            node.node().asked.clear();
            let name = node.node().name.clone();
            writeln!(list, "[[node]]\nname = \"{name}\"\nurl = \"{}\"", node.url).unwrap();
        }
        std::fs::write(folder.path().join("nodes.toml"), list).unwrap();
        Fleet { nodes, folder, new }
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = program();
        command.args(["policy", "rollout", self.new.to_str().unwrap(), "--nodes"]);
        command.arg(self.folder.path().join("nodes.toml"));
        command.args(["--every", "0.05", "--json"]).args(more);
        command
    }

    fn run(&self, more: &[&str]) -> Output {
        self.command(more).output().unwrap()
    }

    fn policies(&self) -> Vec<String> {
        self.nodes
            .iter()
            .map(|it| it.policy().unwrap_or_default())
            .collect()
    }
}

fn standings(report: &Value) -> Vec<&str> {
    report["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["standing"]["is"].as_str().unwrap())
        .collect()
}

#[test]
fn a_harmless_plugin_reaches_every_node_wave_by_wave() {
    let fleet = Fleet::start(4);
    let done = fleet.run(&["--wave", "1,50%,100%", "--watch", "0.2"]);
    assert!(done.status.success(), "{}", json_of(&done));
    let report = json_of(&done);
    assert_eq!(fleet.policies(), ["new 2.0.0"; 4]);
    assert_eq!(standings(&report), ["active"; 4]);
    let waves: Vec<u64> = report["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["wave"].as_u64().unwrap())
        .collect();
    assert_eq!(waves, [1, 2, 3, 3]);
    assert_eq!(
        (&report["waves-done"], &report["stopped"]),
        (&3.into(), &Value::Null)
    );
    assert!(
        report["nodes"][0]["watched"].as_u64().unwrap()
            > report["nodes"][3]["watched"].as_u64().unwrap()
    );
    for node in &fleet.nodes {
        assert_eq!(node.changes(), ["/v1/policies", "/v1/activate"]);
    }
    // Once more is nothing to do.
    assert!(wrong(&fleet.run(&[])).contains("has it already"));
}

#[test]
fn harm_on_one_node_takes_it_back_everywhere() {
    let fleet = Fleet::start(4);
    fleet.nodes[1].node().harmful = Some("new".into());
    let stopped = fleet.run(&["--wave", "1,3,4", "--watch", "0.5"]);
    assert_eq!(stopped.status.code(), Some(1));
    let report = json_of(&stopped);
    assert_eq!(report["stopped"]["node"], "edge-2");
    assert_eq!(report["stopped"]["guardrail"], "failed");
    assert_eq!(report["stopped"]["wave"], 2);
    assert_eq!(
        standings(&report),
        ["rolled-back", "rolled-back", "rolled-back", "untouched"]
    );
    assert_eq!(fleet.policies(), ["old 1.0.0"; 4]);
    assert!(fleet.nodes[3].changes().is_empty());
    let why = fleet.nodes[0].body("/v1/rollback");
    assert_eq!(
        why["why"],
        "rollout stopped: on edge-2 the guardrail failed gave way"
    );
}

#[test]
fn keep_leaves_it_where_it_is() {
    let fleet = Fleet::start(2);
    fleet.nodes[0].node().harmful = Some("new".into());
    let report = json_of(&fleet.run(&["--wave", "1,2", "--watch", "60", "--keep"]));
    assert_eq!(standings(&report), ["active", "untouched"]);
    assert_eq!(fleet.policies(), ["new 2.0.0", "old 1.0.0"]);
}

#[test]
fn a_canary_is_watched_before_and_after_it_is_promoted() {
    let fleet = Fleet::start(2);
    let done = fleet.run(&["--wave", "1,2", "--watch", "0.1", "--canary"]);
    assert!(done.status.success(), "{}", json_of(&done));
    assert_eq!(standings(&json_of(&done)), ["active"; 2]);
    for node in &fleet.nodes {
        assert_eq!(
            node.changes(),
            ["/v1/policies", "/v1/canary", "/v1/promote"]
        );
    }
    let harmed = Fleet::start(2);
    harmed.nodes[0].node().harmful = Some("new".into());
    let report = json_of(&harmed.run(&["--wave", "1,2", "--watch", "60", "--canary"]));
    assert_eq!(standings(&report), ["rolled-back", "untouched"]);
    assert_eq!(harmed.policies(), ["old 1.0.0"; 2]);
    assert_eq!(
        harmed.nodes[0].changes(),
        ["/v1/policies", "/v1/canary", "/v1/rollback"]
    );
}

#[test]
fn nothing_is_changed_unless_every_node_can_take_it() {
    let fleet = Fleet::start(3);
    fleet.nodes[1].node().draining = true;
    fleet.nodes[2].node().dies_after = Some(0);
    let error = wrong(&fleet.run(&[]));
    for told in [
        "nothing was changed",
        "edge-2: it is draining",
        "edge-3: no node answers",
    ] {
        assert!(error.contains(told), "{error}");
    }
    assert!(fleet.nodes.iter().all(|it| it.changes().is_empty()));
    let busy = Fleet::start(2);
    let other = plugin(busy.folder.path(), "other", "1.0.0");
    text(&common::run(
        &busy.nodes[1],
        &["policy", "canary", other.to_str().unwrap()],
    ));
    let error = wrong(&busy.run(&[]));
    assert!(
        error.contains("edge-2: a canary is under way, generation 3: other 1.0.0"),
        "{error}"
    );
}

#[test]
fn a_node_that_leaves_it_by_itself_or_dies_stops_the_rollout() {
    let fleet = Fleet::start(2);
    fleet.nodes[0].node().leaves = Some(("new".into(), 3));
    let report = json_of(&fleet.run(&["--wave", "1,2", "--watch", "60"]));
    assert_eq!(report["stopped"]["guardrail"], "left");
    assert_eq!(standings(&report), ["left", "untouched"]);
    // Nobody rolls back what is not there any more.
    assert_eq!(fleet.nodes[0].changes(), ["/v1/policies", "/v1/activate"]);

    let fleet = Fleet::start(2);
    // Two looks before, a push, a look, the activation, a look.
    fleet.nodes[0].node().dies_after = Some(6);
    let report = json_of(&fleet.run(&["--wave", "1,2", "--watch", "60"]));
    assert_eq!(report["stopped"]["guardrail"], "unreachable");
    assert_eq!(standings(&report), ["not-rolled-back", "untouched"]);
}

#[test]
fn a_refused_release_changes_nothing_there_and_is_taken_back_elsewhere() {
    let fleet = Fleet::start(2);
    let refusal = "new is signed by no key that is trusted here.";
    fleet.nodes[1].node().fault = Some(("/v1/activate".into(), 400, refusal.into()));
    let report = json_of(&fleet.run(&["--wave", "1,2", "--watch", "0.1"]));
    assert_eq!(report["stopped"]["guardrail"], "refused");
    assert!(
        report["stopped"]["why"].as_str().unwrap().contains(refusal),
        "{report}"
    );
    assert_eq!(standings(&report), ["rolled-back", "refused"]);
    assert_eq!(fleet.policies(), ["old 1.0.0"; 2]);
}

#[test]
fn what_somebody_else_has_changed_since_is_left_alone() {
    let fleet = Fleet::start(2);
    let mut running = fleet
        .command(&["--wave", "2", "--watch", "60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(|| fleet.policies() == ["new 2.0.0"; 2]);
    // Another operator's canary beside what the rollout has activated.
    let other = plugin(fleet.folder.path(), "other", "1.0.0");
    let canary = ["policy", "canary", other.to_str().unwrap()];
    text(&common::run(&fleet.nodes[0], &canary));
    fleet.nodes[1].node().harmful = Some("new".into());
    let mut out = String::new();
    std::io::Read::read_to_string(&mut running.stdout.take().unwrap(), &mut out).unwrap();
    running.wait().unwrap();
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(standings(&report), ["not-rolled-back", "rolled-back"]);
    assert!(
        !fleet.nodes[0]
            .changes()
            .contains(&"/v1/rollback".to_owned())
    );
}

#[test]
fn two_rollouts_do_not_undo_each_other() {
    let fleet = Fleet::start(2);
    let mut running = fleet
        .command(&["--wave", "1,2", "--watch", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(|| fleet.nodes[0].policy().as_deref() == Some("new 2.0.0"));
    // Another rollout comes to the second node first.
    let other = plugin(fleet.folder.path(), "other", "1.0.0");
    let activate = ["policy", "activate", other.to_str().unwrap()];
    text(&common::run(&fleet.nodes[1], &activate));
    let mut out = String::new();
    std::io::Read::read_to_string(&mut running.stdout.take().unwrap(), &mut out).unwrap();
    running.wait().unwrap();
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(standings(&report), ["rolled-back", "refused"]);
    assert_eq!(report["stopped"]["node"], "edge-2");
    assert_eq!(fleet.policies(), ["old 1.0.0", "other 1.0.0"]);
    // What it took back was its own, by number.
    assert_eq!(fleet.nodes[0].body("/v1/rollback")["generation"], 3);
}

#[test]
fn an_interrupted_rollout_stays_as_it_stands_and_goes_on_later() {
    let fleet = Fleet::start(3);
    let running = fleet
        .command(&["--wave", "1,2,3", "--watch", "60"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until(|| fleet.nodes[0].policy().as_deref() == Some("new 2.0.0"));
    let interrupted = Command::new("kill")
        .args(["-INT", &running.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    let done = running.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    let report = json_of(&done);
    assert_eq!(report["interrupted"], true);
    assert_eq!(standings(&report), ["active", "untouched", "untouched"]);
    assert_eq!(fleet.policies(), ["new 2.0.0", "old 1.0.0", "old 1.0.0"]);
    let done = fleet.run(&["--wave", "1,2,3", "--watch", "0.1"]);
    assert!(done.status.success());
    assert_eq!(standings(&json_of(&done)), ["already", "active", "active"]);
    assert_eq!(fleet.nodes[0].changes(), ["/v1/policies", "/v1/activate"]);
}

#[test]
fn a_release_that_nodes_have_is_found_on_each() {
    let fleet = Fleet::start(2);
    let run = |name: &str| {
        let mut command = program();
        command.args(["policy", "rollout", name, "--nodes"]);
        command.arg(fleet.folder.path().join("nodes.toml"));
        command
            .args(["--every", "0.05", "--watch", "0.1", "--wave", "2"])
            .output()
            .unwrap()
    };
    assert!(wrong(&run("new@2.0.0")).contains("edge-1: the node has no release new@2.0.0"));
    push(&fleet.nodes[0], &fleet.new);
    assert!(wrong(&run("new@2.0.0")).contains("edge-2: the node has no release new@2.0.0"));
    push(&fleet.nodes[1], &fleet.new);
    let told = text(&run("new@2.0.0"));
    assert!(
        told.contains("rolled out in 1 waves") && told.contains("active, generation 3"),
        "{told}"
    );
}

fn push(node: &Fake, plugin: &Path) {
    text(&common::run(
        node,
        &["policy", "push", plugin.to_str().unwrap()],
    ));
}

fn until(so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "it did not come to that");
        std::thread::sleep(Duration::from_millis(10));
    }
}
