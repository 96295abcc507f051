//! `msao-prove-plugins`: measures what must be shown of the plug-in platform. `cargo xtask prove plugins` builds and runs it.
#![forbid(unsafe_code)]
// A prover's business is to print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use msao_bench::plugins::shipped::Shelf;
use msao_bench::plugins::{
    costs, guests, hostile, instances, languages, mutations, replays, runaway, stops, swaps,
};
use msao_bench::proof::{Part, prove};

/// Costs beside native Rust and bare wasmtime, exchanges under load, runaways, the hostile corpus, replay, kills at random,
/// four languages. Exit code 1 while an aim is missed.
#[derive(Parser)]
#[command(name = "msao-prove-plugins", version)]
struct Cli {
    /// What is proved; for `cargo xtask prove`.
    #[arg(value_parser = ["plugins"])]
    proof: String,
    /// Show this part only: costs, beginnings, instances, language-costs, swaps, runaway, hostile, mutations, replay, stops,
    /// languages or observe. May be given several times.
    #[arg(long, value_name = "PART", value_parser = PARTS)]
    only: Vec<String>,
    /// Minutes of random damage.
    #[arg(long, value_name = "MINUTES", default_value_t = 5.0)]
    minutes: f64,
    /// Seed of the random damage.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// The folder of components that `cargo xtask plugins` makes [default: plugins in cargo's target folder].
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Where the figures are written [default: target/prove/plugins.json; plugins-partial.json for a part].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Be the process that changes what is active in this folder until it is killed.
    #[arg(long, value_name = "DIR", hide = true)]
    child: Option<PathBuf>,
}

const PARTS: [&str; 12] = [
    "costs",
    "beginnings",
    "instances",
    "language-costs",
    "swaps",
    "runaway",
    "hostile",
    "mutations",
    "replay",
    "stops",
    "languages",
    "observe",
];

fn run(cli: &Cli) -> Result<bool> {
    let shelf = Shelf::new(cli.plugins.as_deref())?;
    if let Some(folder) = &cli.child {
        let child = stops::Child {
            folder: folder.clone(),
            seed: cli.seed,
        };
        stops::child(&child, &shelf)?;
        return Ok(true);
    }
    let policy = guests::build("policy")?;
    let other = guests::build("other")?;
    let post = guests::build("postprocessor")?;
    let damage = Duration::try_from_secs_f64(60.0 * cli.minutes)
        .with_context(|| format!("--minutes {}: a number from 0 on is expected", cli.minutes))?;
    let parts: [Part; 12] = [
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
            "language-costs",
            "The same policy in four languages: costs",
            Box::new(|| languages::costs(&shelf)),
        ),
        (
            "swaps",
            "Generations exchanged while requests are decided",
            Box::new(|| swaps::rows(&policy, &other, &post)),
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
            Box::new(|| mutations::rows(&policy, damage, cli.seed)),
        ),
        (
            "replay",
            "Recorded decisions on the policies that made them",
            Box::new(|| replays::rows(&shelf)),
        ),
        (
            "stops",
            "Processes killed at random moments",
            Box::new(|| stops::rows(cli.plugins.as_deref())),
        ),
        (
            "languages",
            "The same policy in four languages: answers",
            Box::new(|| languages::same(&shelf)),
        ),
        (
            "observe",
            "Calibration that many threads teach",
            Box::new(|| swaps::teaching(&policy)),
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
