//! Components that ship, for tests that want the real one beside those that misbehave.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A component and its manifest: as `cargo xtask plugins` has put them beside what is built, or built now. `temporary`: the
/// test's own `CARGO_TARGET_TMPDIR`.
///
/// # Errors
/// There is no such plug-in, or it cannot be built.
pub fn shipped(temporary: &Path, name: &str) -> Result<(Vec<u8>, String)> {
    let folder = std::env::var_os("MSAO_PLUGINS")
        .map_or_else(|| temporary.with_file_name("plugins"), PathBuf::from);
    let there = folder.join(format!("{name}.wasm"));
    if there.is_file() {
        return read(&there, &there.with_extension("toml"));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = temporary.join("shipped-guests");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--package", name, "--target", "wasm32-wasip2"])
        .arg("--manifest-path")
        .arg(root.join("plugins/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("cargo")?;
    ensure!(built.success(), "{name} cannot be built");
    let file = format!("wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    let shelves = ["plugins", "policies"].map(|shelf| root.join(shelf).join(name));
    let manifests = shelves.map(|folder| folder.join("policy.toml"));
    let manifest = manifests.iter().find(|manifest| manifest.is_file());
    let manifest = manifest.with_context(|| format!("{name} has no policy.toml"))?;
    read(&target.join(file), manifest)
}

fn read(component: &Path, manifest: &Path) -> Result<(Vec<u8>, String)> {
    let component = std::fs::read(component).with_context(|| component.display().to_string())?;
    let manifest =
        std::fs::read_to_string(manifest).with_context(|| manifest.display().to_string())?;
    Ok((component, manifest))
}
