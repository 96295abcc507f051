//! The guests that are measured, built for WebAssembly with cargo.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Builds `host/bench/guests` with one feature: `policy`, `other` (the same with another memo) or `postprocessor`.
///
/// # Errors
/// cargo fails, for instance because the target wasm32-wasip2 is not installed.
pub fn build(feature: &str) -> Result<Vec<u8>> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("guests/Cargo.toml");
    let target = std::env::current_exe()
        .context("this program's own path")?
        .with_file_name("prove-guests");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(["--target", "wasm32-wasip2", "--features", feature])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(target.join(feature))
        // The host's own flags are not for WebAssembly.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("cargo")?;
    ensure!(
        built.success(),
        "the guest was not built; `rustup target add wasm32-wasip2` may help"
    );
    let file = target.join(feature).join("wasm32-wasip2/release/bare.wasm");
    std::fs::read(&file).with_context(|| file.display().to_string())
}
