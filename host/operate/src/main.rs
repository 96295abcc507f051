//! The operator's commands without the engine: the same as in `msao`, from a program that builds without libtorch.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use msao_operate::{ExplainArgs, NodeCommands, PolicyCommands, TopArgs};

/// What an operator does: the commands that ask running nodes.
#[derive(Parser)]
#[command(name = "msao-operate", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring plug-ins to nodes and change what is active.
    #[command(subcommand)]
    Policy(PolicyCommands),
    /// Look at a node, or drain it.
    #[command(subcommand)]
    Node(NodeCommands),
    Explain(ExplainArgs),
    Top(TopArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Policy(command) => command.run(),
        Command::Node(command) => command.run(),
        Command::Explain(args) => args.run(),
        Command::Top(args) => args.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) if msao_operate::output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            msao_operate::output::warn(format_args!("msao-operate: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
