//! The commands: their arguments, their help, and which code they run.

mod ask;
mod bench;
mod build;
mod check;
mod dev;
mod doctor;
mod explain;
mod failures;
mod inspect;
mod new;
mod record;
mod replay;
mod run;
mod sign;
mod signed;
mod test;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use clap_complete::Shell;

use crate::output::Output;

/// Arguments of `msao policy`.
#[derive(Args, Debug)]
pub struct PolicyArgs {
    /// Answer with one JSON value on standard output; an error is {"error": "..."}.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: PolicyCommands,
}

/// The plug-in that a command works on.
#[derive(Args, Clone, Debug)]
struct Which {
    /// A plug-in's folder, its policy.toml, or its .wasm with the manifest beside it.
    #[arg(default_value = ".", value_name = "PLUG-IN")]
    path: PathBuf,
}

/// The subcommands of `msao policy` that need no node.
#[derive(Subcommand, Debug)]
#[allow(missing_docs)] // documentation of a variant would replace the help of its arguments
pub enum PolicyCommands {
    New(new::NewArgs),
    Build(build::BuildArgs),
    Dev(dev::DevArgs),
    Check(check::CheckArgs),
    Inspect(inspect::InspectArgs),
    Test(test::TestArgs),
    Run(run::RunArgs),
    Explain(explain::ExplainArgs),
    Bench(bench::BenchArgs),
    Record(record::RecordArgs),
    Replay(replay::ReplayArgs),
    Keygen(sign::KeygenArgs),
    Sign(sign::SignArgs),
    Failures(failures::FailuresArgs),
    Doctor(doctor::DoctorArgs),
    /// Print shell completions
    ///
    ///   msao policy completions bash > ~/.local/share/bash-completion/completions/msao
    #[command(verbatim_doc_comment)]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs a command. `root` is the whole program's command line, for completions.
///
/// # Errors
/// Those of [`PolicyCommands::run`].
pub fn run(args: PolicyArgs, root: clap::Command) -> anyhow::Result<ExitCode> {
    args.command.run(args.json, root)
}

impl PolicyCommands {
    /// The arguments with which the whole program asks a running node the same, where this is a question that one answers.
    pub fn of_running_node(&self, json: bool) -> Option<Vec<OsString>> {
        match self {
            PolicyCommands::Failures(args) => args.of_running_node(json),
            _ => None,
        }
    }

    /// Runs the command; `json`: the answer is one JSON value. `root` is the whole program's command line, for completions.
    ///
    /// # Errors
    /// What went wrong and what to do about it. Something that is not as it should be, but could be found out (a failed case,
    /// a budget that is exceeded), is no error: the exit code says so.
    pub fn run(self, json: bool, root: clap::Command) -> anyhow::Result<ExitCode> {
        let output = Output { json };
        output.or_error(run_command(self, output, root))
    }
}

fn run_command(
    command: PolicyCommands,
    output: Output,
    mut root: clap::Command,
) -> anyhow::Result<ExitCode> {
    let fine = match command {
        PolicyCommands::New(args) => new::run(&args, output)?,
        PolicyCommands::Build(args) => build::run(&args, output)?,
        PolicyCommands::Dev(args) => dev::run(&args, output)?,
        PolicyCommands::Check(args) => check::run(&args, output)?,
        PolicyCommands::Inspect(args) => inspect::run(&args, output)?,
        PolicyCommands::Test(args) => test::run(&args, output)?,
        PolicyCommands::Run(args) => run::run(&args, output)?,
        PolicyCommands::Explain(args) => explain::run(&args, output)?,
        PolicyCommands::Bench(args) => bench::run(&args, output)?,
        PolicyCommands::Record(args) => record::run(&args, output)?,
        PolicyCommands::Replay(args) => replay::run(&args, output)?,
        PolicyCommands::Keygen(args) => sign::keygen(&args, output)?,
        PolicyCommands::Sign(args) => sign::sign(&args, output)?,
        PolicyCommands::Failures(args) => failures::run(&args, output)?,
        PolicyCommands::Doctor(args) => doctor::run(&args, output)?,
        PolicyCommands::Completions { shell } => {
            let name = root.get_name().to_owned();
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut root, name, &mut script);
            std::io::Write::write_all(&mut std::io::stdout().lock(), &script)?;
            true
        }
    };
    Ok(match fine {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
