//! docs/dependencies.md has a row for every direct dependency, and for nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names under `[workspace.dependencies]`, without the workspace's own crates.
fn declared(manifest: &str) -> BTreeSet<String> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#') && !line.contains("path ="))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The names in the first column of the tables, written as `| `name` |`.
fn explained(page: &str) -> BTreeSet<String> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[test]
fn every_dependency_is_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let declared = declared(&read("Cargo.toml"));
    let explained = explained(&read("docs/dependencies.md"));
    assert!(!declared.is_empty());
    let missing: Vec<_> = declared.difference(&explained).collect();
    let stale: Vec<_> = explained.difference(&declared).collect();
    assert!(
        missing.is_empty() && stale.is_empty(),
        "docs/dependencies.md lacks a row for {missing:?} and still has one for {stale:?}"
    );
}
