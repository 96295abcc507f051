//! The subcommands of `msao node` that ask a running node.

mod acceptance;
mod calibration;
mod decisions;
mod drain;
mod failures;
mod state;
mod whoami;

use std::process::ExitCode;

use clap::Subcommand;

pub(crate) use self::state::troubles;

use crate::output::{Output, code};

/// What looks at a running node, or sends it off.
#[derive(Subcommand, Debug)]
#[non_exhaustive]
#[allow(missing_docs)] // documentation of a variant would replace the help of its arguments
pub enum NodeCommands {
    State(state::StateArgs),
    Drain(drain::DrainArgs),
    Whoami(whoami::WhoamiArgs),
    Decisions(decisions::DecisionsArgs),
    Calibration(calibration::CalibrationArgs),
    Failures(failures::FailuresArgs),
}

impl NodeCommands {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong and what to do about it. Something that is not as it should be, but could be found out, is no error:
    /// the exit code says so.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let output = self.output();
        output.or_error(self.ask().map(code))
    }

    fn output(&self) -> Output {
        match self {
            NodeCommands::State(args) => args.common.output(),
            NodeCommands::Drain(args) => args.common.output(),
            NodeCommands::Whoami(args) => args.common.output(),
            NodeCommands::Decisions(args) => args.common.output(),
            NodeCommands::Calibration(args) => args.common.output(),
            NodeCommands::Failures(args) => args.common.output(),
        }
    }

    fn ask(self) -> anyhow::Result<bool> {
        Ok(match self {
            NodeCommands::State(args) => state::run(&args)?,
            NodeCommands::Drain(args) => drain::run(&args)?,
            NodeCommands::Whoami(args) => whoami::run(&args)?,
            NodeCommands::Decisions(args) => decisions::run(&args)?,
            NodeCommands::Calibration(args) => calibration::run(&args)?,
            NodeCommands::Failures(args) => failures::run(&args)?,
        })
    }
}
