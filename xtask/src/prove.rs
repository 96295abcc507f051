//! `cargo xtask prove NAME`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::places::{Places, target_folder};
use crate::run::{cargo, exit_code, must, run};
use crate::setup;

/// Sets up, builds the prover optimised, runs it and ends as it ended: 1 while an aim is missed.
pub fn command(
    places: &Places,
    name: &str,
    device: Option<&str>,
    args: &[String],
) -> Result<ExitCode> {
    setup::ensure(places, device == Some("cuda"))?;
    println!();
    must(
        cargo()
            .args([
                "build",
                "--release",
                "--package",
                "msao-bench",
                "--bin",
                "msao-prove",
            ])
            .current_dir(&places.root),
    )?;
    let target = target_folder(places)?;
    let mut prover = Command::new(target.join("release/msao-prove"));
    prover.arg(name).current_dir(&places.root);
    if let Some(device) = device {
        prover.args(["--device", device]);
    }
    let status = run(prover.args(args))?;
    let figures = places
        .root
        .join("target/prove")
        .join(format!("{name}.json"));
    if figures.is_file() {
        println!("\nThe figures as JSON: {}", figures.display());
    }
    Ok(exit_code(status))
}
