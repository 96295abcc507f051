//! A node's operator API, played: just enough of what a node does for its clients to be tried against it.
//!
//! It keeps releases, generations and a canary as a node does, counts requests each time that its state is asked, and writes
//! down what it was asked. Answers have the shapes of the real ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use msao_core::digest::Digest;
use serde_json::{Value, json};

/// What a node is, for its operators.
pub struct Node {
    pub name: String,
    pub releases: Vec<Value>,
    pub active: Value,
    pub previous: Value,
    pub canary: Value,
    pub next: u64,
    pub answered: u64,
    pub failed: u64,
    /// Requests that are over between two looks.
    pub traffic: u64,
    /// A policy's name with which every request fails.
    pub harmful: Option<String>,
    /// A policy's name that the node leaves by itself at the second look.
    pub leaves: Option<(String, u32)>,
    /// A path that is answered with this status and message.
    pub fault: Option<(String, u16, String)>,
    /// After so many more requests it answers none.
    pub dies_after: Option<u32>,
    /// Tokens and their roles; empty: everybody may.
    pub tokens: BTreeMap<String, &'static str>,
    pub under_way: u64,
    pub draining: bool,
    /// Method, path, body.
    pub asked: Vec<(String, String, Value)>,
}

/// A picture that the node was asked about.
pub const PICTURE: &[u8] = include_bytes!("../../data/overlay.png");

/// A node that listens. It goes on until the test ends.
pub struct Fake {
    pub url: String,
    node: Arc<Mutex<Node>>,
}

fn generation(number: u64, policy: &Value, name: Option<&str>) -> Value {
    json!({
        "number": number,
        "policy-release": policy,
        "id": {"policy": policy.get("artifact"), "postprocessor": null, "revision": 1},
        "policy": name,
        "postprocessor": null,
        "requests": 0, "in-flight": 0, "error-budget": [0, 8],
        "exports": {"plan": {"breaker": "closed", "calls": 0, "failures": 0, "skipped": 0}}
    })
}

impl Fake {
    /// A node on which the built-in fallback is active.
    pub fn start(name: &str) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = Arc::new(Mutex::new(Node {
            name: name.to_owned(),
            releases: Vec::new(),
            active: generation(1, &Value::Null, None),
            previous: Value::Null,
            canary: Value::Null,
            next: 2,
            answered: 1000,
            failed: 0,
            traffic: 50,
            harmful: None,
            leaves: None,
            fault: None,
            dies_after: None,
            tokens: BTreeMap::new(),
            under_way: 0,
            draining: false,
            asked: Vec::new(),
        }));
        let served = Arc::clone(&node);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = Arc::clone(&served);
                thread::spawn(move || answer(stream, &served));
            }
        });
        Fake { url, node }
    }

    pub fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap()
    }

    /// What was asked to be changed, in order.
    pub fn changes(&self) -> Vec<String> {
        let node = self.node();
        let changes = node.asked.iter().filter(|(method, _, _)| method == "POST");
        changes.map(|(_, path, _)| path.clone()).collect()
    }

    /// The body of the last change at `path`.
    pub fn body(&self, path: &str) -> Value {
        let node = self.node();
        let mut found = node.asked.iter().filter(|(_, at, _)| at == path);
        found.next_back().unwrap().2.clone()
    }

    /// The policy that plans.
    pub fn policy(&self) -> Option<String> {
        self.node().active["policy"].as_str().map(str::to_owned)
    }
}

fn answer(stream: TcpStream, node: &Mutex<Node>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let (mut length, mut token) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).unwrap();
        let Some((name, value)) = header.trim().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => token = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut node = node.lock().unwrap();
    if let Some(left) = &mut node.dies_after {
        if *left == 0 {
            return;
        }
        *left -= 1;
    }
    let (status, kind, text) = node.handle(&method, &path, token.as_deref(), body);
    drop(node);
    let mut stream = stream;
    let _gone = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nlocation: http://127.0.0.1:1/\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
}

fn error(status: u16, message: &str) -> (u16, &'static str, String) {
    error_of(status, message, "x")
}

fn error_of(status: u16, message: &str, code: &str) -> (u16, &'static str, String) {
    let body = json!({"error": {"message": message, "type": "x", "param": null, "code": code}});
    (status, "application/json", body.to_string())
}

impl Node {
    fn handle(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Value,
    ) -> (u16, &'static str, String) {
        self.asked
            .push((method.to_owned(), path.to_owned(), body.clone()));
        if let Some((_, status, message)) = self.fault.clone().filter(|(at, ..)| at == path) {
            return error(status, &message);
        }
        if !self.tokens.is_empty() {
            let needed = match (method, path) {
                ("GET", _) => 0,
                (_, "/v1/policies" | "/v1/remove") => 1,
                _ => 2,
            };
            let Some(role) = token.and_then(|token| self.tokens.get(token)) else {
                return error(401, "No valid operator token was given.");
            };
            let has = ["read", "push", "activate"]
                .iter()
                .position(|it| it == role);
            if has.unwrap() < needed {
                let what = ["read", "push", "activate"][needed];
                return error_of(
                    403,
                    &format!(
                        "This operator token does not allow this: its role is {role}, and {what} is needed."
                    ),
                    "permission_denied",
                );
            }
        }
        if let Some(wanted) = body["generation"].as_u64() {
            let is = self.about(path);
            if wanted != is {
                return error(
                    409,
                    &format!("it was asked for generation {wanted} alone, and {is} is there."),
                );
            }
        }
        let value = match (method, path.split('?').next().unwrap()) {
            ("GET", "/v1/whoami") => {
                let role = token.and_then(|token| self.tokens.get(token));
                Ok(json!({"name": "local", "role": role.unwrap_or(&"activate")}))
            }
            ("GET", "/v1/state") => Ok(self.state()),
            ("GET", "/v1/policies") => Ok(self.policies()),
            ("GET", "/v1/history") => Ok(json!({"history": [
                {"sequence": 2, "at-ms": 1.0e12, "event": {"left": {"number": 3, "why": "too slow"}}, "state": {"active": {"number": 2}}, "by": "alice"},
                {"sequence": 1, "at-ms": 1.0e12, "event": "began", "state": {"active": {"number": 1}}, "by": null}
            ]})),
            ("GET", "/v1/decisions") if path.ends_with("as=jsonl") => {
                return (
                    200,
                    "application/jsonl",
                    "{\"snapshot\": 1.50}\n{\"decision\":  {}}\n".into(),
                );
            }
            ("GET", "/v1/decisions") => {
                Ok(json!({"decisions": [{"id": "req_1", "ran": {"route": "edge"}}]}))
            }
            ("GET", "/v1/decisions/req_1") => Ok(json!({"id": "req_1"})),
            // A picture of 1 x 2 tokens, of which the target has read the second.
            ("GET", "/v1/decisions/req_seen") => Ok(json!({
                "id": "req_seen",
                "parts": [{ "modality": 1 }, { "modality": 0 }],
                "media": [{
                    "digest": Digest::of(PICTURE),
                    "extent": { "frames": 1, "rows": 1, "columns": 2 },
                    "target": { "kept": { "tokens": 2, "bits": "02" } },
                }],
            })),
            ("GET", "/v1/decisions/req_seen/account") => {
                Ok(json!({ "decided": { "reason": { "name": "quick" } } }))
            }
            ("GET", "/v1/decisions/req_seen/words") => {
                return (200, "text/plain", "Request req_seen\n".into());
            }
            ("GET", "/v1/decisions/req_1/words") => {
                return (200, "text/plain", "Request req_1\n".into());
            }
            ("GET", "/v1/failures") => Ok(json!({"failures": [
                {"id": "3f9a12bc00d4e561", "at-ms": 1.0e12, "plugin": "bad 0.1.0", "export": "plan", "kind": "trap",
                 "message": "unreachable", "memory-peak": 65536, "elapsed-ms": 0.5}
            ]})),
            ("GET", "/v1/failures/3f9a12bc00d4e561") => {
                return (
                    200,
                    "application/json",
                    "{\"version\":1, \"n\": 0.10}".into(),
                );
            }
            ("GET", "/v1/calibration") => Ok(
                json!({"patient": {"keys": [3], "mean": [0.5], "variance": [0.1], "count": [9.0]}}),
            ),
            ("GET", "/v1/calibration/acceptance") => Ok(json!({"budget": 0.02, "pairs": [
                {"pair": {"draft": "0123456789abcdef", "target": "fedcba9876543210", "held": "f32/none on cpu"},
                 "drafts": 12, "alarms": 0},
            ]})),
            ("GET", "/v1/calibration/kept") => Ok(json!({"kept": [
                {"key": {"plugin": "patient", "state-schema": 1, "models": "a/b", "node": "edge-1"},
                 "cells": 7, "active": false},
                {"key": {"plugin": "patient", "state-schema": 2, "models": "a/b", "node": "edge-1"},
                 "cells": 1, "active": true},
            ]})),
            ("GET", "/v1/calibration/export") => {
                // Not as any program of ours would write it.
                return (
                    200,
                    "application/json",
                    "{\"version\": 1, \"plugins\":  [0.10]}".into(),
                );
            }
            ("POST", "/v1/calibration/import") if body["version"] == 1 => Ok(json!({
                "taken": [{"what": "the cells of patient", "cells": 3}],
                "refused": [{"what": "the acceptance of a/b", "why": "it was learned of other models"}],
            })),
            ("POST", "/v1/calibration/import") => Err("another version"),
            ("POST", "/v1/calibration/reset") if body["acceptance"] == true => {
                Ok(json!({"pairs": 1, "drafts": 12}))
            }
            ("POST", "/v1/calibration/reset") => Ok(json!({"plugin": body["plugin"], "cells": 1})),
            ("POST", "/v1/drain") => {
                self.draining = true;
                Ok(json!({"draining": true, "under-way": self.under_way}))
            }
            ("POST", "/v1/undrain") => {
                self.draining = false;
                Ok(json!({"draining": false, "under-way": self.under_way}))
            }
            ("POST", "/v1/policies") => Ok(self.push(&body)),
            ("POST", "/v1/remove") => self.remove(&body),
            ("POST", "/v1/activate" | "/v1/rollback-to") => self.take(&body, false),
            ("POST", "/v1/canary") => self.take(&body, true),
            ("POST", "/v1/promote") => self.promote(),
            ("POST", "/v1/rollback") => self.rollback(),
            ("POST", "/v1/shadow" | "/v1/shadow-off" | "/v1/off" | "/v1/tune") => {
                Ok(self.receipt(self.next))
            }
            _ => return error(404, "There is nothing here."),
        };
        match value {
            Ok(value) => (200, "application/json", value.to_string()),
            Err(message) => error(409, message),
        }
    }

    /// The generation that a change is about.
    fn about(&self, path: &str) -> u64 {
        let canary = matches!(path, "/v1/promote" | "/v1/rollback") && !self.canary.is_null();
        let about = if canary { &self.canary } else { &self.active };
        about["number"].as_u64().unwrap()
    }

    fn receipt(&self, number: u64) -> Value {
        json!({"generation": {}, "number": number, "sequence": 1, "notes": ["worth knowing"]})
    }

    fn push(&mut self, body: &Value) -> Value {
        use base64::Engine as _;
        let wasm = base64::engine::general_purpose::STANDARD
            .decode(body["component"].as_str().unwrap())
            .unwrap();
        let text = body["manifest"].as_str().unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let release =
            json!({"artifact": Digest::of(&wasm), "manifest": Digest::of(text.as_bytes())});
        let entry = json!({
            "release": release, "name": manifest["name"].as_str(), "version": manifest["version"].as_str(),
            "world": manifest["world"].as_str(), "description": "", "signed": body["signature"].is_string()
        });
        if !self.releases.contains(&entry) {
            self.releases.push(entry.clone());
        }
        entry
    }

    fn remove(&mut self, body: &Value) -> Result<Value, &'static str> {
        let used =
            [&self.active, &self.previous, &self.canary].map(|it| it["policy-release"].clone());
        let is_meant = |it: &Value| body["unused"] == true || it["release"] == body["release"];
        let (removed, mut kept): (Vec<Value>, Vec<Value>) = (self.releases.iter())
            .filter(|it| is_meant(it))
            .cloned()
            .partition(|it| !used.contains(&it["release"]));
        if removed.is_empty() && body["unused"] != true {
            return Err("patient 0.1.0 stays: it is active (generation 2).");
        }
        for it in &mut kept {
            it["why"] = json!("it is active");
        }
        self.releases.retain(|it| !removed.contains(it));
        Ok(json!({ "bytes": 1024 * removed.len(), "removed": removed, "kept": kept }))
    }

    fn take(&mut self, body: &Value, canary: bool) -> Result<Value, &'static str> {
        let release = &body["policy"];
        let known = self.releases.iter().find(|it| it["release"] == *release);
        let known = known.ok_or("it is not here; push the release again.")?;
        if !self.canary.is_null() {
            return Err("a canary is under way (generation 9): promote it or roll it back first.");
        }
        if self.active["policy-release"] == *release {
            return Err("that is what is active already.");
        }
        let name = format!(
            "{} {}",
            known["name"].as_str().unwrap(),
            known["version"].as_str().unwrap()
        );
        let made = generation(self.next, release, Some(&name));
        self.next += 1;
        let number = made["number"].as_u64().unwrap();
        if canary {
            self.canary = made;
        } else {
            self.previous = std::mem::replace(&mut self.active, made);
        }
        Ok(self.receipt(number))
    }

    fn promote(&mut self) -> Result<Value, &'static str> {
        if self.canary.is_null() {
            return Err("no canary is under way.");
        }
        self.previous = std::mem::replace(&mut self.active, self.canary.take());
        Ok(self.receipt(self.active["number"].as_u64().unwrap()))
    }

    fn rollback(&mut self) -> Result<Value, &'static str> {
        if self.canary.take().is_null() {
            if self.previous.is_null() {
                return Err("the built-in fallback is active: there is nothing to go back to.");
            }
            self.active = self.previous.take();
        }
        Ok(self.receipt(self.active["number"].as_u64().unwrap()))
    }

    fn policies(&self) -> Value {
        let spec = |it: &Value| match it {
            Value::Null => Value::Null,
            it => {
                json!({"number": it["number"], "policy": it["policy-release"], "postprocessor": null})
            }
        };
        let rollout = match &self.canary {
            Value::Null => Value::Null,
            canary => json!({"candidate": spec(canary), "step": 0}),
        };
        json!({
            "releases": self.releases,
            "deployment": {"active": spec(&self.active), "previous": spec(&self.previous), "rollout": rollout, "shadow": null}
        })
    }

    fn state(&mut self) -> Value {
        let runs =
            |it: &Value, name: &str| it["policy"].as_str().is_some_and(|it| it.starts_with(name));
        let harmed = self
            .harmful
            .as_ref()
            .is_some_and(|it| runs(&self.active, it) || runs(&self.canary, it));
        match harmed {
            true => self.failed += self.traffic,
            false => self.answered += self.traffic,
        }
        if let Some((name, looks)) = &mut self.leaves
            && runs(&self.active, name)
        {
            *looks = looks.saturating_sub(1);
            if *looks == 0 {
                self.active = self.previous.take();
            }
        }
        if self.draining {
            self.under_way = self.under_way.saturating_sub(1);
        }
        let rollout = match &self.canary {
            Value::Null => Value::Null,
            canary => {
                json!({"candidate": canary, "step": 0, "share": 0.01, "verdict-kind": "hold", "verdict": "it waits for requests"})
            }
        };
        json!({
            "node": self.name, "role": "edge", "version": "0.1.0", "started-s": 1_767_225_600, "draining": self.draining,
            "requests": {"under-way": self.under_way, "most": 64, "over": self.answered + self.failed},
            "models": {"draft": null, "target": null},
            "totals": {"routes": {"edge": {"answered": self.answered, "failed": self.failed}}},
            "plugins": {"active": self.active, "previous": self.previous, "rollout": rollout, "shadow": null}
        })
    }
}

/// A plug-in's folder, as `msao policy build` leaves it.
pub fn plugin(folder: &Path, name: &str, version: &str) -> PathBuf {
    let at = folder.join(format!("{name}-{version}"));
    std::fs::create_dir_all(at.join("target")).unwrap();
    let manifest = format!(
        "name = \"{name}\"\nversion = \"{version}\"\nworld = \"offload-policy\"\ndescription = \"d\"\nstate-schema = 1\n"
    );
    std::fs::write(at.join("policy.toml"), manifest).unwrap();
    let wasm = format!("\0asm {name} {version}");
    std::fs::write(at.join("target").join(format!("{name}.wasm")), wasm).unwrap();
    at
}

/// The program, without what this machine's environment would tell it.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msao-operate"));
    for name in ["URL", "TOKEN", "TOKEN_FILE", "CA"] {
        command.env_remove(format!("MSAO_OPERATOR_{name}"));
    }
    command
}

/// Runs the program on a node.
pub fn run(node: &Fake, line: &[&str]) -> Output {
    program()
        .args(line)
        .env("MSAO_OPERATOR_URL", &node.url)
        .output()
        .unwrap()
}

/// What a command that did well said.
pub fn text(output: &Output) -> String {
    let (out, told) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{out}\n{told}");
    out
}

/// The error of a command that failed: on standard error, or with `--json` the answer.
pub fn wrong(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(&output.stdout));
    match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(told) => told["error"].as_str().unwrap().to_owned(),
        Err(_) => said(&output.stderr),
    }
}

pub fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}\n{}",
            said(&output.stdout),
            said(&output.stderr)
        )
    })
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
