//! `cargo xtask record`: decisions of real nodes, for `tests/data/decisions`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::places::{Places, target_folder};
use crate::run::{exit_code, run};
use crate::{demo, plugins, setup};

/// Sets up, builds, and has an edge and a cloud node decide by each policy. What the edge recorded replaces the recordings that
/// are there, each only once a replay gives the same answers.
pub fn command(places: &Places) -> Result<ExitCode> {
    setup::ensure(places, false)?;
    demo::build(places)?;
    let plugins = plugins::ensure_rust(places)?;
    let target = target_folder(places)?;
    println!("\nRecording. It takes about a minute a policy; leave the machine to it.");
    let mut recorder = Command::new(target.join("debug/msao-demo"));
    recorder
        .arg("--msao")
        .arg(target.join("debug/msao"))
        .arg("--plugins")
        .arg(&plugins)
        .arg("--work")
        .arg(target.join("record"))
        .arg("--policies")
        .arg(places.root.join("policies"))
        .arg("--record")
        .arg(places.root.join("tests/data/decisions"))
        .current_dir(&places.root);
    Ok(exit_code(run(&mut recorder)?))
}
