//! `msao-prove-plugins`: measures what must be shown of the plug-in platform. `cargo xtask prove plugins` builds and runs it.
#![forbid(unsafe_code)]
// A prover's business is to print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use msao_bench::plugins::{costs, guests, hostile, instances, mutations, runaway};
use msao_bench::proof::{Part, prove};

/// Costs beside native Rust and bare wasmtime, runaways, the hostile corpus. Exit code 1 while an aim is missed.
#[derive(Parser)]
#[command(name = "msao-prove-plugins", version)]
struct Cli {
    /// What is proved; for `cargo xtask prove`.
    #[arg(value_parser = ["plugins"])]
    proof: String,
    /// Show these parts only: costs, beginnings, instances, runaway, hostile, mutations. May be given several times.
    #[arg(long, value_name = "PART", value_parser = PARTS)]
    only: Vec<String>,
    /// Minutes of random damage.
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    minutes: f64,
    /// Where the figures are written [default: target/prove/plugins.json; plugins-partial.json for a part].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const PARTS: [&str; 6] = [
    "costs",
    "beginnings",
    "instances",
    "runaway",
    "hostile",
    "mutations",
];

fn run(cli: &Cli) -> Result<bool> {
    let policy = guests::build("policy")?;
    let post = guests::build("postprocessor")?;
    let parts: [Part; 6] = [
        (
            "costs",
            "What a call costs (medians, by turns in one run)",
            Box::new(|| costs::exports(&policy, &post)),
        ),
        (
            "beginnings",
            "What comes before a first call",
            Box::new(|| costs::beginnings(&policy)),
        ),
        (
            "instances",
            "Memory of many instances",
            Box::new(|| instances::rows(&policy)),
        ),
        (
            "runaway",
            "Plug-ins that do not end",
            Box::new(|| runaway::rows(&policy)),
        ),
        (
            "hostile",
            "The hostile corpus",
            Box::new(|| hostile::rows(&policy)),
        ),
        (
            "mutations",
            "Random damage to real components",
            Box::new(|| {
                let length = Duration::from_secs_f64(60.0 * cli.minutes.clamp(0.01, 1e4));
                mutations::rows(&policy, length)
            }),
        ),
    ];
    prove(
        &cli.proof,
        &parts,
        &cli.only,
        cli.minutes < 5.0,
        cli.out.as_deref(),
    )
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("msao-prove-plugins: {error:#}");
            ExitCode::FAILURE
        }
    }
}
