//! The official OpenAI clients, which the tests ask a node with: fetched once, kept in the user's cache folder under their
//! version, linked to from `.deps/clients`.
//!
//! ```text
//! ~/.cache/msao/
//!   openai-python-3.57.0/packages       from PyPI, with all that it needs
//!   openai-node-7.57.0/node_modules     from npm
//! ```

use anyhow::{Context, Result};

use crate::guest_tools;
use crate::lock::made_once;
use crate::pip::Pip;
use crate::places::{Places, relink};
use crate::run::must;

const PYTHON: &str = "openai-python-3.57.0";
const NODE: &str = "openai-node-7.57.0";
/// What they are pinned by; the folders above move with them.
const REQUIREMENTS: &str = "tests/clients/requirements.txt";
const PACKAGE: &str = "tests/clients/package.json";

/// Makes sure that both clients are there, and that the tests find them.
pub fn ensure(places: &Places) -> Result<()> {
    let python = made_once(
        &places.cache,
        PYTHON,
        "OpenAI's Python client, for tests: 60 MB",
        |folder| {
            Pip::find()?.install(
                &places.root.join(REQUIREMENTS),
                &folder.join("packages"),
                false,
            )
        },
    )?;
    let node = made_once(
        &places.cache,
        NODE,
        "OpenAI's Node.js client, for tests: 30 MB",
        |folder| {
            let package = places.root.join(PACKAGE);
            std::fs::copy(&package, folder.join("package.json"))
                .with_context(|| format!("cannot copy {}", package.display()))?;
            let mut npm = guest_tools::npm(places)?;
            npm.args([
                "install",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--loglevel=error",
            ])
            .arg("--prefix")
            .arg(folder);
            must(&mut npm)
                .context("OpenAI's client could not be fetched; npm's own message is above")
        },
    )?;
    let links = places.root.join(".deps/clients");
    relink(&python, &links.join("python"))?;
    relink(&node, &links.join("node"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn folders_are_named_after_what_is_pinned() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        let version = |folder: &str| folder.rsplit('-').next().unwrap().to_owned();
        assert!(read(REQUIREMENTS).contains(&format!("openai=={}", version(PYTHON))));
        assert!(read(PACKAGE).contains(&format!("\"openai\": \"{}\"", version(NODE))));
    }
}
