//! `msao calibrate` without the engine: the same command, from a program that builds without libtorch.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use msao_calibrate::CalibrateArgs;
use msao_operate::output::{is_broken_pipe, warn};

// What it is for, the arguments themselves say.
#[derive(Parser)]
#[command(name = "msao-calibrate", version)]
struct Cli {
    #[command(flatten)]
    calibrate: CalibrateArgs,
}

fn main() -> ExitCode {
    match Cli::parse().calibrate.run() {
        Ok(code) => code,
        // Whoever reads our output has had enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            warn(format_args!("msao-calibrate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
