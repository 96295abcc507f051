//! What must be on the machine besides libtorch: compilers, and the WebAssembly target of plugins.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::places::Places;
use crate::run::{answer, run};

/// The target that plugins are built for.
pub const WASM_TARGET: &str = "wasm32-wasip2";

const COMPILER_HINT: &str = "\
Install a C and a C++ compiler, then run this again:
  Debian, Ubuntu   sudo apt-get install g++
  Fedora           sudo dnf install gcc-c++
  elsewhere        any that knows C++17; name them with CC and CXX if they are not `cc` and `c++`";

/// Fails where no libtorch of ours can run.
pub fn check_platform() -> Result<()> {
    let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
    if system != "linux" || !["x86_64", "aarch64"].contains(&machine) {
        bail!(
            "{system} on {machine} is not supported yet: MSAO runs on Linux, x86-64 and aarch64. \
             On Windows use WSL 2, on macOS a Linux container or virtual machine"
        );
    }
    if cfg!(target_env = "musl") {
        bail!(
            "torch's libraries want glibc, and this system uses musl: use a distribution with glibc 2.28 or newer"
        );
    }
    Ok(())
}

/// The version line of the C++ compiler that build scripts will call; fails if there is none, or no C compiler.
pub fn compilers() -> Result<String> {
    version("CC", "cc")?;
    version("CXX", "c++")
}

fn version(variable: &str, default: &str) -> Result<String> {
    let named = std::env::var(variable)
        .ok()
        .filter(|value| !value.trim().is_empty());
    let words = named.as_deref().unwrap_or(default);
    // The value may be a wrapper and a compiler, such as `ccache g++`.
    let mut parts = words.split_whitespace();
    let mut command = Command::new(parts.next().unwrap_or(default));
    match answer(command.args(parts).arg("--version")) {
        Some(text) => Ok(text.lines().next().unwrap_or(words).to_owned()),
        None => bail!("no compiler answers to `{words}` ({variable}). {COMPILER_HINT}"),
    }
}

/// Whether this toolchain has the library of the WebAssembly target.
pub fn has_wasm_target(places: &Places) -> bool {
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--print", "target-libdir", "--target", WASM_TARGET])
        .current_dir(&places.root);
    answer(&mut rustc).is_some_and(|folder| Path::new(&folder).is_dir())
}

/// Adds the WebAssembly target if it is missing. rustup would do so by itself from `rust-toolchain.toml`, unless
/// its automatic installation is switched off. Returns whether the target is there: only plug-ins are built for it, so a
/// machine without network can go on without it.
pub fn ensure_wasm_target(places: &Places) -> bool {
    if has_wasm_target(places) {
        return true;
    }
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", WASM_TARGET])
        .current_dir(&places.root);
    run(&mut rustup).is_ok_and(|status| status.success()) && has_wasm_target(places)
}
