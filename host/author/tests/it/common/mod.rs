//! The real program on real components.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // a test's helpers may panic

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The policies that are shipped.
pub const SHIPPED: [&str; 7] = [
    "msao",
    "cloud-only",
    "edge-only",
    "cloud-draft",
    "fixed-speculate",
    "perllm",
    "threshold-router",
];

/// The program.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_msao-policy"));
    // What a test builds is the same with and without a coverage run, and never built anew for each folder.
    command
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command.env("CARGO_TARGET_DIR", guest_target());
    command
}

/// Where guests are compiled: once for all tests.
fn guest_target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests")
}

/// Runs the program in `folder`.
pub fn run_in(folder: &Path, args: &[impl AsRef<OsStr>]) -> Output {
    program().current_dir(folder).args(args).output().unwrap()
}

/// Runs the program in the checkout.
pub fn run(args: &[impl AsRef<OsStr>]) -> Output {
    run_in(&root(), args)
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

/// The JSON that a run prints, whatever its exit code.
pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {}\n{}",
            String::from_utf8_lossy(&output.stdout),
            said(output)
        )
    })
}

/// Only one process at a time goes on after this; the others find what it made.
fn alone() -> File {
    let file = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests.lock")).unwrap();
    file.lock().unwrap();
    file
}

/// The folder of a shipped policy with its component built, and nothing of it written in the checkout.
pub fn shipped(name: &str) -> PathBuf {
    built(&Path::new("policies").join(name))
}

/// How `record` is told of the post-processor that a shipped policy asks the probe with. Reports would be most of the file.
pub fn beside(name: &str) -> Vec<String> {
    match name {
        "msao" => {
            let scores = built(Path::new("plugins/mas-joint"));
            let scores = scores.display().to_string();
            ["--reports", "0", "--postprocessor", &scores]
                .map(str::to_owned)
                .into()
        }
        _ => Vec::new(),
    }
}

/// A plug-in's folder in the checkout, with its component built.
pub fn built(folder: &Path) -> PathBuf {
    let _alone = alone();
    let folder = root().join(folder);
    // Built beside its sources, as an author's is: `target` is ignored by git.
    text(&run(&[OsStr::new("build"), folder.as_os_str()]));
    folder
}

/// A copy of a shipped policy's manifest, cases and component, to be spoiled.
pub fn copied(name: &str) -> (tempfile::TempDir, PathBuf) {
    let from = shipped(name);
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join(name);
    std::fs::create_dir_all(to.join("target")).unwrap();
    std::fs::copy(from.join("policy.toml"), to.join("policy.toml")).unwrap();
    let component = format!("target/{name}.wasm");
    std::fs::copy(from.join(&component), to.join(&component)).unwrap();
    (folder, to)
}
