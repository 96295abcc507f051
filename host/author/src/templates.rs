//! What a new plug-in starts from, carried by the program itself: the templates and the Rust SDK.

use std::fs;
use std::path::Path;

use anyhow::Context;
use include_dir::{Dir, include_dir};

use crate::files;

/// The guest SDK for Rust.
pub static SDK: Dir = include_dir!("$CARGO_MANIFEST_DIR/../../plugins/sdk");
/// A folder a language, for policies.
pub static POLICIES: Dir = include_dir!("$CARGO_MANIFEST_DIR/../../plugins/templates");
/// A folder a language, for post-processors.
pub static POSTPROCESSORS: Dir = include_dir!("$CARGO_MANIFEST_DIR/templates/postprocessor");
/// First cases of a policy, whatever its language.
pub const POLICY_CASES: &str = include_str!("../templates/cases/offload-policy.toml");
/// First cases of a post-processor.
pub const POSTPROCESSOR_CASES: &str = include_str!("../templates/cases/probe-postprocessor.toml");
/// The workspace that the SDK belongs to, from which its manifest takes its version.
pub const SDK_WORKSPACE: &str = include_str!("../../../plugins/Cargo.toml");

/// Writes all files of `from` below `to`.
///
/// # Errors
/// When a file cannot be written.
pub fn unpack(from: &Dir, to: &Path) -> anyhow::Result<()> {
    for file in from.files() {
        let name = file.path().strip_prefix(from.path()).unwrap_or(file.path());
        let path = to.join(name);
        // What is there already keeps its time, so that build tools have nothing to do again.
        if fs::read(&path).ok().as_deref() != Some(file.contents()) {
            files::write(&path, file.contents())?;
        }
    }
    for folder in from.dirs() {
        let name = (folder.path().strip_prefix(from.path())).unwrap_or(folder.path());
        fs::create_dir_all(to.join(name))
            .with_context(|| format!("cannot make {}", to.join(name).display()))?;
        unpack(folder, &to.join(name))?;
    }
    Ok(())
}
