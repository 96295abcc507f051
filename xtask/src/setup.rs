//! Set-up: what every other command begins with. Does nothing when all is there.

use std::process::ExitCode;

use anyhow::Result;

use crate::clients;
use crate::cuda;
use crate::guest_tools;
use crate::libtorch::{self, VERSION};
use crate::places::Places;
use crate::toolchain::{self, WASM_TARGET};

/// `cargo xtask setup`.
pub fn command(places: &Places, cuda: bool) -> Result<ExitCode> {
    ensure(places, cuda)?;
    guest_tools::ensure(places)?;
    clients::ensure(places)?;
    row("guest tools", "there");
    println!(
        "\nAll is there. Next: `cargo xtask demo`, `cargo xtask test`, or plain cargo, for instance `cargo build`."
    );
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that the workspace can be built, fetching what is missing.
pub fn ensure(places: &Places, with_cuda: bool) -> Result<()> {
    toolchain::check_platform()?;
    // Asked first: it is quick, and no one wants to hear of it after half a gigabyte.
    row("C++ compiler", &toolchain::compilers()?);

    let wasm = if toolchain::ensure_wasm_target(places) {
        "there".to_owned()
    } else {
        format!(
            "missing; plug-ins and their tests need it. When there is a network: rustup target add {WASM_TARGET}"
        )
    };
    row(WASM_TARGET, &wasm);

    let libtorch = libtorch::ensure_there(places)?;
    row(&format!("libtorch {VERSION}"), &libtorch.describe());
    if with_cuda {
        row("CUDA libraries", &cuda::ensure_there(&libtorch)?);
    }
    Ok(())
}

/// One line of the report: what, and its state.
pub fn row(what: &str, state: &str) {
    println!("  {what:<16} {state}");
}
