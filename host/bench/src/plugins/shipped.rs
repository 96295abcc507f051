//! The components that `cargo xtask plugins` makes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use msao_core::offload::manifest::Manifest;
use msao_registry::Bundle;

/// Policies that are shipped, in Rust.
pub const POLICIES: [&str; 7] = [
    "msao",
    "cloud-only",
    "edge-only",
    "cloud-draft",
    "fixed-speculate",
    "perllm",
    "threshold-router",
];
/// Languages of the worked example.
pub const LANGUAGES: [&str; 4] = ["rust", "c", "javascript", "python"];

/// A folder of components and their manifests.
pub struct Shelf(PathBuf);

impl Shelf {
    /// `folder`, or the one beside the folder of this program.
    ///
    /// # Errors
    /// This program's own path is not known.
    pub fn new(folder: Option<&Path>) -> Result<Shelf> {
        if let Some(folder) = folder {
            return Ok(Shelf(folder.to_owned()));
        }
        let program = std::env::current_exe().context("this program's own path")?;
        let target = program.parent().and_then(Path::parent);
        Ok(Shelf(target.unwrap_or(Path::new("")).join("plugins")))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    fn read(&self, name: &str, ending: &str) -> Result<Vec<u8>> {
        let path = self.0.join(format!("{name}.{ending}"));
        std::fs::read(&path).with_context(|| {
            format!(
                "no {}: `cargo xtask plugins` makes it, and --plugins names another folder",
                path.display()
            )
        })
    }

    /// A component and its manifest.
    ///
    /// # Errors
    /// They are not there, or the manifest is wrong.
    pub fn get(&self, name: &str) -> Result<(Vec<u8>, Manifest)> {
        let manifest = Manifest::parse(&String::from_utf8(self.read(name, "toml")?)?)?;
        Ok((self.read(name, "wasm")?, manifest))
    }

    /// A component and its manifest, as they are written.
    ///
    /// # Errors
    /// They are not there.
    pub fn files(&self, name: &str) -> Result<(Vec<u8>, String)> {
        let manifest = String::from_utf8(self.read(name, "toml")?)?;
        Ok((self.read(name, "wasm")?, manifest))
    }

    /// The same as a node takes it, unsigned.
    ///
    /// # Errors
    /// As [`Shelf::get`].
    pub fn bundle(&self, name: &str) -> Result<Bundle> {
        let manifest = String::from_utf8(self.read(name, "toml")?)?;
        Ok(Bundle::new(self.read(name, "wasm")?, manifest, None)?)
    }
}
