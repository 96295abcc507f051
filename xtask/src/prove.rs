//! `cargo xtask prove NAME`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::data;
use crate::places::{Places, target_folder};
use crate::plugins;
use crate::reference;
use crate::run::{cargo, exit_code, must, run};
use crate::setup;

/// Sets up, builds the prover optimised, runs it and ends as it ended: 1 while an aim is missed. The prover itself says
/// where it has written its figures.
pub fn command(places: &Places, name: &str, args: &[String]) -> Result<ExitCode> {
    setup::ensure(places, wants_cuda(args))?;
    let reference = if wants_reference(name, args) {
        reference::ensure_there(places, wants_cuda(args))?
    } else {
        Vec::new()
    };
    if let Some(set) = wanted_data(name, args) {
        data::ensure_there(places, &set)?;
    }
    println!();
    let program = if name == "plugins" {
        "msao-prove-plugins"
    } else {
        "msao-prove"
    };
    match name {
        "plugins" => drop(plugins::ensure(places)?),
        "nodes" | "adaptive" | "bench" => drop(plugins::ensure_rust(places)?),
        _ => {}
    }
    must(build(name).current_dir(&places.root))?;
    let mut prover = Command::new(target_folder(places)?.join("release").join(program));
    prover
        .arg(name)
        .args(args)
        .envs(reference)
        .current_dir(&places.root);
    Ok(exit_code(run(&mut prover)?))
}

/// How the prover is built. What plug-ins do can be shown without a model, and so without compiling for libtorch.
fn build(name: &str) -> Command {
    let mut build = cargo();
    build.args(["build", "--release"]);
    if name == "plugins" {
        build.args(["--package", "msao-bench", "--no-default-features"]);
        build.args(["--bin", "msao-prove-plugins"]);
    } else {
        // Some proofs run `msao` too, and look for it beside the prover.
        build.args(["--workspace", "--bin", "msao-prove", "--bin", "msao"]);
    }
    build
}

/// Speed is compared with Hugging Face's; no other part needs it.
fn wants_reference(name: &str, args: &[String]) -> bool {
    let only: Vec<&str> = args
        .windows(2)
        .filter_map(|pair| match pair {
            [option, part] if option == "--only" => Some(part.as_str()),
            _ => None,
        })
        .chain(args.iter().filter_map(|arg| arg.strip_prefix("--only=")))
        .collect();
    let help = args.iter().any(|arg| arg == "--help" || arg == "-h");
    name == "serving" && !help && (only.is_empty() || only.contains(&"speed"))
}

/// What a proof asks that is drawn for it: of `bench` its own grid is known to, of `adaptive` whatever calibrates.
fn wanted_data(name: &str, args: &[String]) -> Option<data::Set> {
    let gives = |option: &str| {
        let with_value = format!("{option}=");
        let is_it = |arg: &String| arg == option || arg.starts_with(&with_value);
        args.iter().any(is_it)
    };
    if gives("--help") || gives("-h") {
        return None;
    }
    match name {
        "bench" if !gives("--spec") => Some(data::ACCURACY),
        "adaptive" if !gives("--calibration") => Some(data::CALIBRATION),
        _ => None,
    }
}

/// `--device cuda`, `--device cuda:1` or `--device=cuda`.
fn wants_cuda(args: &[String]) -> bool {
    let devices = args.windows(2).filter_map(|pair| match pair {
        [option, device] if option == "--device" => Some(device.as_str()),
        _ => None,
    });
    devices
        .chain(args.iter().filter_map(|arg| arg.strip_prefix("--device=")))
        .any(|device| device.starts_with("cuda"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_fetched_for_the_comparison_alone() {
        let wants = |name: &str, line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            wants_reference(name, &args)
        };
        assert!(wants("serving", ""));
        assert!(wants("serving", "--only soak --only speed"));
        assert!(wants("serving", "--only=speed"));
        assert!(!wants("serving", "--only soak"));
        assert!(!wants("serving", "--help"));
        assert!(!wants("engine", ""));
    }

    #[test]
    fn questions_are_drawn_for_those_who_ask_them_alone() {
        let wants = |name: &str, line: &str| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            wanted_data(name, &args).is_some()
        };
        assert!(wants("bench", ""));
        assert!(wants("bench", "--fresh --out figures.json"));
        assert!(!wants("bench", "--spec configs/bench/quick.toml"));
        assert!(!wants("bench", "--spec=quick.toml"));
        assert!(!wants("bench", "--help"));
        assert!(wants("adaptive", "--only scores"));
        assert!(!wants("adaptive", "--calibration=other"));
        assert!(!wants("nodes", ""));
    }

    #[test]
    fn a_cuda_device_is_noticed_however_it_is_written() {
        let wants =
            |line: &str| wants_cuda(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(wants("--device cuda"));
        assert!(wants("--only pair --device cuda:1"));
        assert!(wants("--device=cuda"));
        assert!(!wants("--device cpu"));
        assert!(!wants("--out cuda"));
    }
}
