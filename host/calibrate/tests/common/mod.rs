//! The real program, on real components and recorded decisions.
#![allow(dead_code)] // each test binary uses a part
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

/// The checkout.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// Decisions of a shipped policy.
pub fn records(name: &str) -> PathBuf {
    root().join(format!("tests/data/decisions/{name}.jsonl.zst"))
}

/// How many of them are of requests that got a token of an answer.
pub fn answered(name: &str) -> usize {
    let packed = File::open(records(name)).unwrap();
    let text = String::from_utf8(zstd::decode_all(packed).unwrap()).unwrap();
    let lines = text.lines().map(|line| {
        let value: Value = serde_json::from_str(line).unwrap();
        value["decision"]["outcome"].clone()
    });
    let is_answered = |outcome: &Value| {
        let number = |key: &str| outcome[key].as_u64();
        number("status").is_some_and(|it| it <= 1) && number("tokens").is_some_and(|it| it > 0)
    };
    lines.filter(is_answered).count()
}

/// The component of a shipped policy: as `cargo xtask plugins` has put it beside what is built here, or built now.
pub fn shipped(name: &str) -> PathBuf {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = std::env::var_os("MSAO_PLUGINS")
        .map_or_else(|| temporary.join("../plugins"), PathBuf::from);
    let component = folder.join(format!("{name}.wasm"));
    if component.is_file() && component.with_extension("toml").is_file() {
        return component;
    }
    // One process at a time.
    let lock = File::create(temporary.join("calibrated-guests.lock")).unwrap();
    lock.lock().unwrap();
    let target = temporary.join("calibrated-guests");
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--release",
            "--locked",
            "--package",
            name,
        ])
        .args(["--target", "wasm32-wasip2", "--manifest-path"])
        .arg(root().join("plugins/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .unwrap();
    assert!(built.success(), "{name} cannot be built");
    let file = format!("wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    let component = target.join(format!("{name}.wasm"));
    fs::copy(target.join(file), &component).unwrap();
    let manifest = root().join("policies").join(name).join("policy.toml");
    fs::copy(manifest, component.with_extension("toml")).unwrap();
    component
}

/// The program.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msao-calibrate"));
    for name in [
        "MSAO_OPERATOR_TOKEN",
        "MSAO_OPERATOR_TOKEN_FILE",
        "MSAO_OPERATOR_CA",
    ] {
        command.env_remove(name);
    }
    command
}

/// A few requests of the smallest set of decisions with steps, on engines of given speed, at few points.
pub fn small(out: &Path) -> Command {
    let mut command = program();
    command
        .arg("--policy")
        .arg(shipped("fixed-speculate"))
        .arg("--records")
        .arg(records("fixed-speculate"))
        .args(["--draft", "paced-draft", "--target", "paced-target"])
        .args(["--requests", "30", "--evaluations", "6", "--seed", "3"])
        .args(["--pace", "0.2"])
        .arg("--out")
        .arg(out);
    command
}

/// What it printed on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output of a run that must succeed.
pub fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", said(output));
    text
}

/// The error of a run that must fail.
pub fn wrong<I: AsRef<OsStr>>(command: &mut Command, more: &[I]) -> String {
    let output = command.args(more).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    said(&output)
}

/// A JSON file.
pub fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// What a trace says that does not depend on where it was written.
pub fn trace(folder: &Path) -> Value {
    let mut trace = read(&folder.join("trace.json"));
    let object = trace.as_object_mut().unwrap();
    object.remove("files");
    object.remove("next");
    trace
}

/// A node's operator API, played: it takes everything, or answers everything with a status, and writes down what it was asked.
pub struct Fake {
    pub url: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Fake {
    pub fn start(status_of_changes: u16) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let noted = Arc::clone(&asked);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let path = line
                    .split_whitespace()
                    .nth(1)
                    .unwrap_or_default()
                    .to_owned();
                let mut length = 0;
                loop {
                    let mut header = String::new();
                    reader.read_line(&mut header).unwrap();
                    let Some((name, value)) = header.trim().split_once(':') else {
                        break;
                    };
                    if name.eq_ignore_ascii_case("content-length") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let change = line.starts_with("POST");
                noted.lock().unwrap().push((path, body));
                let (status, text) = match change && status_of_changes != 200 {
                    true => (
                        status_of_changes,
                        r#"{"error": {"message": "it is not active."}}"#,
                    ),
                    false => (200, r#"{"notes": ["worth knowing"]}"#),
                };
                let _gone = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                    text.len()
                );
            }
        });
        Fake { url, asked }
    }

    /// Bodies of what was asked at a path.
    pub fn bodies(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        let there = asked.iter().filter(|(at, _)| at == path);
        there.map(|(_, body)| body.clone()).collect()
    }
}
