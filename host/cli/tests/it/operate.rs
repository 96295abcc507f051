//! The operators' commands against a node that is a process, from the first push to the drain.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use msao_hostile::build::{Core, Decision};
use serde_json::{Value, json};

/// Routes as the contract numbers them.
const EDGE: u8 = 0;
const CLOUD: u8 = 1;

/// A node with both models of the demo.
struct Node {
    child: Child,
    api: String,
    operator: String,
    folder: tempfile::TempDir,
}

impl Node {
    fn start() -> Node {
        Node::with(tempfile::tempdir().unwrap(), "")
    }

    /// In a folder; `operator` are more lines of that section.
    fn with(folder: tempfile::TempDir, operator: &str) -> Node {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let model = |role: &str| {
            format!(
                "[models.{role}]\npath = \"{}\"\nprecision = \"f32\"\ncache-mib = 64\n",
                models.join(format!("demo-{role}")).display()
            )
        };
        let text = format!(
            "[node]\nrole = \"both\"\nstate = \"state\"\n{}{}[api]\nlisten = \"127.0.0.1:0\"\nmodel = \"demo\"\n[sessions]\n\
             listen = \"127.0.0.1:0\"\n[operator]\nlisten = \"127.0.0.1:0\"\n{operator}[policy]\nallow-unsigned = true\nwarm = 2\n",
            model("draft"),
            model("target")
        );
        let config = folder.path().join("node.toml");
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_msao"))
            .args(["serve", "--json", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let up: Value = serde_json::from_str(&line).unwrap();
        let place = |key: &str| up[key].as_str().unwrap().to_owned();
        Node {
            child,
            api: place("api"),
            operator: place("operator"),
            folder,
        }
    }

    /// A component that always plans this route, with its manifest beside it.
    fn component(&self, name: &str, route: u8) -> PathBuf {
        let decision = Decision {
            route,
            ..Decision::default()
        };
        self.built(name, &Core::deciding(&decision))
    }

    fn built(&self, name: &str, core: &Core) -> PathBuf {
        let file = self.folder.path().join(format!("{name}.wasm"));
        std::fs::write(&file, core.build().unwrap()).unwrap();
        let manifest = format!(
            "name = \"{name}\"\nversion = \"0.1.0\"\nworld = \"offload-policy\"\ndescription = \"\"\nstate-schema = 1\n"
        );
        std::fs::write(file.with_extension("toml"), manifest).unwrap();
        file
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_msao"))
            .args(words)
            .env("MSAO_OPERATOR_URL", &self.operator)
            .output()
            .unwrap()
    }

    /// What a command that succeeds says.
    fn said(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(output.status.success(), "{words:?}: {out}{err}");
        out
    }

    /// The same as JSON.
    fn json(&self, words: &[&str]) -> Value {
        let said = self.said(&[words, &["--json"]].concat());
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
    }

    /// Asks as a client does: the request's id, and the answer.
    fn ask(&self) -> (u16, String, Value) {
        let body = json!({ "model": "demo", "messages": [{ "role": "user", "content": "7 + 6 = ?" }], "max_tokens": 4 });
        let body = body.to_string();
        let address = self.api.trim_start_matches("http://");
        let address = address.split('/').next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let id = head
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "))
            .unwrap();
        (status, id.to_owned(), serde_json::from_str(body).unwrap())
    }

    /// Where a request runs now, and its id.
    fn route(&self) -> (String, String) {
        let (status, id, answer) = self.ask();
        assert_eq!(status, 200, "{answer}");
        (answer["msao"]["route"].as_str().unwrap().to_owned(), id)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_operator_takes_a_policy_through_its_life() {
    let node = Node::start();
    let (here, there) = (node.component("here", EDGE), node.component("there", CLOUD));
    let (here, there) = (here.to_str().unwrap(), there.to_str().unwrap());

    node.said(&["policy", "activate", here]);
    let (route, id) = node.route();
    assert_eq!(route, "edge");
    let why = node.said(&["explain", &id]);
    assert!(why.contains("here") && why.contains("edge"), "{why}");
    let decision = node.json(&["explain", &id]);
    assert!(decision.is_object(), "{decision}");

    node.said(&["policy", "push", there]);
    let listed = node.said(&["policy", "list"]);
    assert!(
        listed.contains("here") && listed.contains("there"),
        "{listed}"
    );
    node.said(&["policy", "shadow", "there@0.1.0"]);
    node.said(&["policy", "shadow", "--off"]);
    node.said(&["policy", "canary", "there@0.1.0"]);
    node.said(&["policy", "promote"]);
    assert_eq!(node.route().0, "cloud");
    node.said(&["policy", "rollback", "--why", "answers got slower"]);
    assert_eq!(node.route().0, "edge");
    let history = node.said(&["policy", "history"]);
    assert!(
        history.contains("answers got slower") && history.contains("local"),
        "{history}"
    );
    assert_eq!(
        node.json(&["node", "whoami"]),
        json!({ "name": "local", "role": "activate" })
    );
    node.said(&["policy", "off"]);
    // A rollback would bring back what was active.
    let removed = node.said(&["policy", "remove", "--unused"]);
    assert!(
        removed.contains("removed  there@0.1.0") && removed.contains("kept     here@0.1.0"),
        "{removed}"
    );
    let state = node.json(&["node", "state"]);
    assert!(state.to_string().contains("totals"), "{state}");
    assert_eq!(node.ask().0, 200);

    // Without a terminal it prints one frame.
    let frame = node.said(&["top"]);
    assert!(
        frame.contains("edge") && frame.lines().count() > 5,
        "{frame}"
    );
    let decisions = node.said(&["node", "decisions"]);
    assert!(decisions.contains(&id), "{decisions}");

    node.said(&["node", "drain"]);
    let (status, _, refused) = node.ask();
    assert_eq!(
        (status, &refused["error"]["code"]),
        (503, &json!("draining"))
    );
    node.said(&["node", "drain", "--undo"]);
    assert_eq!(node.ask().0, 200);
}

#[test]
fn what_a_policy_failed_on_is_asked_of_the_running_node() {
    let node = Node::start();
    let mut core = Core::policy();
    core.plan = "unreachable".to_owned();
    let traps = node.built("traps", &core);
    let traps = traps.to_str().unwrap();
    assert_eq!(node.json(&["policy", "failures"])["failures"], json!([]));
    node.said(&["policy", "activate", traps]);
    // The client gets its answer all the same.
    let (status, _, answer) = node.ask();
    assert_eq!(status, 200, "{answer}");
    // No folder is named, so the node that runs is asked; the case is written when its thread comes to it.
    let kept = (0..100).find_map(|_| {
        let kept = node.json(&["policy", "failures"])["failures"].take();
        let case = kept.get(0).cloned();
        if case.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        case
    });
    let case = kept.unwrap();
    let id = case["id"].as_str().unwrap();
    let listed = node.said(&["policy", "failures"]);
    assert!(
        listed.contains("traps") && listed.contains(&id[..4]),
        "{listed}"
    );
    // It is pulled and fails here as it did there.
    let pulled = node.folder.path().join("case.json");
    let pulled = pulled.to_str().unwrap();
    node.said(&["policy", "failures", "--pull", &id[..6], "--out", pulled]);
    let again = node.run(&["policy", "run", traps, pulled]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(!again.status.success() && said.contains("plan"), "{said}");
}

#[test]
fn what_an_operator_gets_wrong_is_told_with_what_to_do() {
    let node = Node::start();
    for (words, said) in [
        (&["policy", "activate", "nobody@9.9.9"][..], "nobody"),
        (&["policy", "promote"], "canary"),
        (&["policy", "rollback"], "nothing to go back to"),
        (&["explain", "req_none"], "req_none"),
    ] {
        let output = node.run(words);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && err.contains(said),
            "{words:?}: {err}"
        );
        let output = node.run(&[words, &["--json"]].concat());
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(answer["error"].is_string(), "{words:?}: {answer}");
    }
    let operator = node.operator.clone();
    drop(node);
    let output = Command::new(env!("CARGO_BIN_EXE_msao"))
        .args(["node", "state", "--node", &operator])
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && err.contains(operator.trim_start_matches("http://")),
        "{err}"
    );
}

/// The certificates of `msao node init` do for operators as well, and are exchanged while the node runs.
#[test]
fn operators_speak_tls_where_the_node_has_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str| {
        let dir = folder.path().join(name);
        let made = Command::new(env!("CARGO_BIN_EXE_msao"))
            .args(["node", "init", "--host", "127.0.0.1", "--dir"])
            .arg(&dir)
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        dir
    };
    let (first, second) = (made("first"), made("second"));
    let ca = |dir: &Path| dir.join("ca.pem").to_str().unwrap().to_owned();
    let (trusted, other) = (ca(&first), ca(&second));
    let lines = "tls-cert = \"first/node.pem\"\ntls-key = \"first/node.key\"\n";
    let node = Node::with(folder, lines);
    assert!(node.operator.starts_with("https://"), "{}", node.operator);
    let state = node.json(&["node", "state", "--ca", &trusted]);
    assert_eq!(state["role"], "both", "{state}");
    // Who trusts others is told so, and who speaks in the clear gets nothing.
    let refused = |words: &[&str], url: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_msao"))
            .args(words)
            .env("MSAO_OPERATOR_URL", url)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&["node", "state", "--ca", &other], &node.operator);
    assert!(said.contains("certificate"), "{said}");
    let said = refused(&["node", "state"], &node.operator);
    assert!(said.contains("--ca"), "{said}");
    refused(&["node", "state"], &node.operator.replace("https", "http"));
    // Another certificate in the same place takes effect on SIGHUP.
    for name in ["node.pem", "node.key"] {
        std::fs::copy(second.join(name), first.join(name)).unwrap();
    }
    let hup = Command::new("kill")
        .args(["-HUP", &node.child.id().to_string()])
        .status()
        .unwrap();
    assert!(hup.success());
    let renewed = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        node.run(&["node", "state", "--ca", &other])
            .status
            .success()
    });
    assert!(renewed, "the node kept its first certificate for operators");
}
