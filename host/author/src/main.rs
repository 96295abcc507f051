//! `msao policy` without the engine: the same commands, from a program that builds without libtorch.
#![forbid(unsafe_code)]
// A command's business is to print.
#![allow(clippy::print_stderr)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use msao_author::PolicyArgs;

/// What a plug-in's author does: the commands of `msao policy`.
#[derive(Parser)]
#[command(name = "msao-policy", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    policy: PolicyArgs,
}

fn main() -> ExitCode {
    match msao_author::run(Cli::parse().policy, Cli::command()) {
        Ok(code) => code,
        Err(error)
            if error.downcast_ref::<std::io::Error>().is_some_and(|error| {
                // Whoever reads our output has had enough.
                error.kind() == std::io::ErrorKind::BrokenPipe
            }) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let told = msao_author::output::tame(&format!("{error:#}"));
            eprintln!("msao-policy: {told}");
            ExitCode::FAILURE
        }
    }
}
