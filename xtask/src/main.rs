//! `cargo xtask`: everything a checkout needs beyond what cargo itself does.
//!
//! It promises that a fresh machine with rustup, a C++ compiler and Python 3 with pip needs two commands,
//! `cargo xtask demo` and `cargo xtask test`; that every command may be interrupted and run again; and that what
//! was fetched once is found again by every other clone of the same user. Read [`setup`] first: the other
//! commands begin with it. [`libtorch`] knows what is fetched and how it is laid out, [`places`] where it lies.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool speaks by printing"
)]

mod clients;
mod cuda;
mod data;
mod demo;
mod doctor;
mod guest_tools;
mod libtorch;
mod lock;
mod metadata;
mod pip;
mod places;
mod plugins;
mod prove;
mod record;
mod reference;
mod run;
mod setup;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::places::Places;

/// Set-up, demo, tests and proofs of MSAO.
///
/// On a fresh machine start with `cargo xtask demo`: it fetches what is missing, builds, lets a small model
/// answer questions about an image, a clip and a sound, and then an edge and a cloud node together. Each command does the set-up it needs by itself, so
/// `setup` is only for those who want it apart (before going off-line, or before opening an editor).
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Environment:
  LIBTORCH               a libtorch of your own, used instead of fetching one
  LIBTORCH_USE_PYTORCH   1: use the PyTorch of the active Python environment
  MSAO_REFERENCE_PYTHON  a Python with transformers of your own, for `prove serving`
  XDG_CACHE_HOME         where fetched things are kept, in `msao/` (default ~/.cache)

After the set-up plain cargo works too: cargo build, cargo test -p msao-core, rust-analyzer.";

#[derive(Subcommand)]
enum Command {
    /// Fetch and check what the build needs; does nothing when all is there
    Setup {
        /// Fetch the CUDA libraries as well (some 2 GB), so that the same binary runs on a GPU
        #[arg(long)]
        cuda: bool,
    },
    /// Set up, build, and ask questions about committed media: one model, then an edge and a cloud node together
    Demo {
        /// Leave both nodes running at the end, until Ctrl-C
        #[arg(long)]
        stay: bool,
    },
    /// Record decisions of real nodes by each policy into tests/data/decisions, in place of those that are there
    ///
    /// Two nodes with a slow link between them, each policy in turn: tests/data/README.md says what is asked.
    #[command(verbatim_doc_comment)]
    Record,
    /// Build every policy, post-processor and example into target/plugins, fetching what that needs
    Plugins,
    /// Draw the questions that evaluations tell accuracy by into target/data/accuracy, fetching what draws them
    ///
    /// 20,000 of them, each about a picture, a clip or a sound of its own, or about none: some minutes and 150 MB. An interrupted
    /// one is gone on with. `prove bench` does it by itself.
    #[command(verbatim_doc_comment)]
    Data,
    /// Set up, build the plug-ins and run the tests of the workspace
    ///
    /// With cargo-nextest installed it runs the tests and cargo the documentation's examples; without it cargo
    /// runs both. Arguments go to nextest or cargo as they are, and with nextest the examples are then left out:
    ///
    ///   cargo xtask test -p msao-core          one crate
    ///   cargo xtask test coupled               the tests whose name contains "coupled"
    #[command(verbatim_doc_comment)]
    Test {
        /// Passed on to `cargo nextest run` or `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Set up and show that an aim is met: a row a figure, exit code 1 while one is missed
    ///
    /// Builds optimised, runs `msao-prove` with all that follows, and writes the figures as JSON under target/prove:
    ///
    ///   cargo xtask prove engine                  on the processor
    ///   cargo xtask prove engine --device cuda    on a GPU, fetching the CUDA libraries if need be
    ///   cargo xtask prove serving                 speed beside Hugging Face's, which is fetched for it
    ///   cargo xtask prove adaptive                scores, pruning, changing links, the guarantee, tuning: docs/adaptive.md
    ///   cargo xtask prove bench                   the evaluation against baselines, half an hour: docs/evaluation.md
    ///   cargo xtask prove engine -- --help        what else this proof takes
    #[command(verbatim_doc_comment)]
    Prove {
        /// What to prove, for instance `engine`
        name: String,
        /// Passed on to `msao-prove`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Say what is there, what is missing and what to do about it; changes nothing
    Doctor,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = Places::find().and_then(|places| match cli.command {
        Command::Setup { cuda } => setup::command(&places, cuda),
        Command::Demo { stay } => demo::command(&places, stay),
        Command::Record => record::command(&places),
        Command::Plugins => plugins::command(&places),
        Command::Data => data::command(&places),
        Command::Test { args } => test::command(&places, &args),
        Command::Prove { name, args } => prove::command(&places, &name, &args),
        Command::Doctor => doctor::command(&places),
    });
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
