//! Builds plug-ins that are not Rust, for `cargo xtask plugins`. Authors use `msao policy build`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use msao_core::offload::manifest::Manifest;
use msao_guests::{Source, Tools, build};

/// Makes a component of a plug-in's sources.
#[derive(Parser)]
struct Cli {
    /// The plug-in's folder
    folder: PathBuf,
    /// Where the component goes
    component: PathBuf,
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let manifest = Manifest::parse(&std::fs::read_to_string(cli.folder.join("policy.toml"))?)?;
    let source = Source {
        folder: &cli.folder,
        world: manifest.world,
    };
    build(&source, &cli.component, &Tools::find())?;
    Ok(())
}

#[allow(
    clippy::print_stderr,
    reason = "a command-line tool speaks by printing"
)]
fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
