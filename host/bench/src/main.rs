//! `msao-prove NAME`: measures what must be shown. `cargo xtask prove NAME` sets up, builds and runs it.
#![forbid(unsafe_code)]
// A prover's business is to print.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use msao_bench::report::{Report, Row, Section, print};
use msao_bench::{hostile, loading, pair, parity, sampler};
use msao_engine::Place;

/// Measures what must be shown: a row a figure, with its aim and whether it is met. Exit code 1 while one is missed.
#[derive(Parser)]
#[command(name = "msao-prove", version)]
struct Cli {
    #[command(subcommand)]
    proof: Proof,
}

#[derive(Subcommand)]
enum Proof {
    /// Parity with Hugging Face, the demo pair's figures, the sampler, bad input, memory while loading.
    Engine(EngineArgs),
    #[command(name = sampler::TOKENS_COMMAND, hide = true)]
    SamplerTokens,
    #[command(name = loading::LOAD_COMMAND, hide = true)]
    LoadMemory { dir: PathBuf, precision: String },
}

#[derive(clap::Args)]
struct EngineArgs {
    /// Where the demo pair computes: cpu, cuda or cuda:N. Parity is always judged on the processor.
    #[arg(long, default_value = "cpu")]
    device: Place,
    /// Show these parts only: parity, pair, sampler, input, loading. May be given several times.
    #[arg(long, value_name = "PART", value_parser = PARTS)]
    only: Vec<String>,
    /// Ask the demo pair only each N-th held-out question.
    #[arg(long, value_name = "N", default_value_t = 1)]
    every: usize,
    /// The folder that holds demo-target, demo-draft and heldout [default: this checkout's models].
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Where the figures are written [default: target/prove/engine.json; engine-partial.json for a part].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const PARTS: [&str; 5] = ["parity", "pair", "sampler", "input", "loading"];

fn main() -> ExitCode {
    let result = match Cli::parse().proof {
        Proof::Engine(args) => engine(&args),
        Proof::SamplerTokens => sampler::tokens().map(|tokens| {
            println!("{tokens}");
            true
        }),
        Proof::LoadMemory { dir, precision } => {
            loading::load_and_tell(&dir, &precision).map(|()| true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("msao-prove: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn engine(args: &EngineArgs) -> Result<bool> {
    // Before anything else with libtorch: see there.
    args.device.open()?;
    let prover = std::env::current_exe().context("this program's own path")?;
    let msao = prover.with_file_name("msao");
    let own = || msao_golden::root().join("../../models");
    let models = args.models.clone().unwrap_or_else(own);
    let omni = msao_golden::root().join("models/omni-thinker");
    type Part<'a> = (&'a str, &'a str, Box<dyn Fn() -> Result<Vec<Row>> + 'a>);
    let parts: [Part; 5] = [
        (
            "parity",
            "Parity with Hugging Face transformers on tiny random checkpoints",
            Box::new(parity::rows),
        ),
        (
            "sampler",
            "The coupled sampler against the softmax",
            Box::new(|| sampler::rows(&prover)),
        ),
        (
            "input",
            "Bad input",
            Box::new(|| hostile::rows(need(&msao)?, &omni)),
        ),
        (
            "loading",
            "Memory while loading",
            Box::new(|| loading::rows(&prover)),
        ),
        (
            "pair",
            "The demo pair on held-out questions",
            Box::new(|| pair::rows(&models, args.device, args.every)),
        ),
    ];
    let mut sections = Vec::new();
    for (name, title, run) in &parts {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        let rows = run()
            .unwrap_or_else(|error| vec![Row::failed(*title, "measured", format!("{error:#}"))]);
        let section = Section {
            title: (*title).to_owned(),
            rows,
        };
        print(&section);
        sections.push(section);
    }
    let command = std::env::args()
        .skip(1)
        .fold("cargo xtask prove".to_owned(), |all, word| {
            all + " " + &word
        });
    // Part of a proof proves nothing: it is told and written down as such, beside the whole one.
    let partial = !args.only.is_empty() || args.every > 1;
    let out = match &args.out {
        Some(out) => out.clone(),
        None if partial => "target/prove/engine-partial.json".into(),
        None => "target/prove/engine.json".into(),
    };
    let report = Report::new("engine", command, partial, sections);
    report.write(&out)?;
    let rows = report.sections.iter().flat_map(|section| &section.rows);
    let missed = rows.filter(|row| !row.met).count();
    let verdict = match (missed, partial) {
        (0, false) => "every aim is met".to_owned(),
        (0, true) => "every aim of this part is met".to_owned(),
        _ => format!("{missed} missed"),
    };
    println!("\n{verdict}; written to {}", out.display());
    Ok(report.met)
}

/// The path, if there is such a file.
fn need(path: &Path) -> Result<&Path> {
    anyhow::ensure!(
        path.is_file(),
        "{} is missing: cargo build --release --package msao-cli",
        path.display()
    );
    Ok(path)
}
