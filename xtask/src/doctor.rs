//! `cargo xtask doctor`: a row for each thing that a build or a run needs, and what to do where it is missing.

use std::process::{Command, ExitCode};

use anyhow::{Result, anyhow};

use crate::cuda;
use crate::guest_tools;
use crate::libtorch::{self, Source, VERSION};
use crate::pip::Pip;
use crate::places::Places;
use crate::run::{answer, cargo};
use crate::setup::row;
use crate::toolchain::{self, WASM_TARGET};

/// Looks at everything and ends with 1 if a build would fail.
pub fn command(places: &Places) -> Result<ExitCode> {
    let mut diagnosis = Diagnosis::default();
    diagnosis.must("platform", platform());
    diagnosis.must("rustc", rustc(places));
    diagnosis.must("C++ compiler", toolchain::compilers());
    diagnosis.libtorch(places);
    diagnosis.may(WASM_TARGET, toolchain::has_wasm_target(places), || {
        format!("missing; plug-ins and their tests need it: rustup target add {WASM_TARGET}")
    });
    for (tool, there) in guest_tools::state(places)? {
        diagnosis.may(&tool, there, || {
            "not fetched yet: `cargo xtask plugins` does it".to_owned()
        });
    }
    diagnosis.tool(
        "nextest",
        &["nextest", "--version"],
        "missing; `cargo test` serves as well",
    );
    diagnosis.tool(
        "cargo-deny",
        &["deny", "--version"],
        "missing; only .ci/run wants it, and installs it",
    );
    row("cache", &places.cache.display().to_string());
    Ok(diagnosis.conclude())
}

#[derive(Default)]
struct Diagnosis {
    /// What to do, in order, for all that is missing.
    to_do: Vec<String>,
}

impl Diagnosis {
    fn must(&mut self, what: &str, found: Result<String>) {
        match found {
            Ok(state) => row(what, &state),
            Err(error) => {
                row(what, "NOT READY");
                self.to_do.push(format!("{what}: {error:#}"));
            }
        }
    }

    fn may(&self, what: &str, there: bool, otherwise: impl FnOnce() -> String) {
        row(
            what,
            &if there {
                "there".to_owned()
            } else {
                otherwise()
            },
        );
    }

    fn tool(&self, what: &str, arguments: &[&str], otherwise: &str) {
        let version = answer(cargo().args(arguments));
        let line = version.as_deref().and_then(|text| text.lines().next());
        row(what, line.unwrap_or(otherwise));
    }

    fn libtorch(&mut self, places: &Places) {
        let what = format!("libtorch {VERSION}");
        match libtorch::look(places) {
            Ok(libtorch) => {
                row(&what, &libtorch.describe());
                self.must("CUDA libraries", cuda::state(&libtorch));
            }
            // Ours can be fetched, so what matters is whether it can be.
            Err(_) if libtorch::source(places) == Source::Ours => {
                row(&what, "not fetched yet: `cargo xtask setup` does it");
                self.must("pip", Pip::find().map(|pip| pip.version));
            }
            Err(error) => self.must(&what, Err(error)),
        }
    }

    fn conclude(self) -> ExitCode {
        if self.to_do.is_empty() {
            println!("\nNothing stands in the way of a build.");
            return ExitCode::SUCCESS;
        }
        println!("\nWhat to do:");
        for advice in &self.to_do {
            println!("- {advice}");
        }
        ExitCode::FAILURE
    }
}

fn platform() -> Result<String> {
    toolchain::check_platform()?;
    let glibc = answer(Command::new("getconf").arg("GNU_LIBC_VERSION"));
    let machine = std::env::consts::ARCH;
    Ok(format!(
        "Linux {machine}, {}",
        glibc.as_deref().unwrap_or("glibc of unknown version")
    ))
}

fn rustc(places: &Places) -> Result<String> {
    answer(
        Command::new("rustc")
            .arg("--version")
            .current_dir(&places.root),
    )
    .ok_or_else(|| anyhow!("rustc does not run here: install Rust from https://rustup.rs"))
}
