//! The subcommands of `msao policy` that ask a running node: their arguments, their help, and which code they run.

mod change;
mod choose;
mod list;
mod push;
mod remove;
mod tune;

use std::process::ExitCode;

use clap::Subcommand;

pub(crate) use self::change::{canary_words, plans};
pub(crate) use self::choose::{choice_of, find};
use crate::output::{Output, code};
use crate::rollout::RolloutArgs;

/// What changes, or tells, which plug-ins plan a node's requests.
#[derive(Subcommand, Debug)]
#[non_exhaustive]
#[allow(missing_docs)] // documentation of a variant would replace the help of its arguments
pub enum PolicyCommands {
    Push(push::PushArgs),
    List(list::ListArgs),
    Activate(change::ActivateArgs),
    Canary(change::CanaryArgs),
    Promote(change::PromoteArgs),
    Shadow(change::ShadowArgs),
    Rollback(change::RollbackArgs),
    Off(change::OffArgs),
    Tune(tune::TuneArgs),
    History(list::HistoryArgs),
    Remove(remove::RemoveArgs),
    Rollout(Box<RolloutArgs>),
}

impl PolicyCommands {
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
            PolicyCommands::Push(args) => args.common.output(),
            PolicyCommands::List(args) => args.common.output(),
            PolicyCommands::Activate(args) => args.common.output(),
            PolicyCommands::Canary(args) => args.common.output(),
            PolicyCommands::Promote(args) => args.common.output(),
            PolicyCommands::Shadow(args) => args.common.output(),
            PolicyCommands::Rollback(args) => args.common.output(),
            PolicyCommands::Off(args) => args.common.output(),
            PolicyCommands::Tune(args) => args.common.output(),
            PolicyCommands::History(args) => args.common.output(),
            PolicyCommands::Remove(args) => args.common.output(),
            PolicyCommands::Rollout(args) => args.output(),
        }
    }

    fn ask(self) -> anyhow::Result<bool> {
        Ok(match self {
            PolicyCommands::Push(args) => push::run(&args)?,
            PolicyCommands::List(args) => list::list(&args)?,
            PolicyCommands::Activate(args) => change::activate(&args)?,
            PolicyCommands::Canary(args) => change::canary(&args)?,
            PolicyCommands::Promote(args) => change::promote(&args)?,
            PolicyCommands::Shadow(args) => change::shadow(&args)?,
            PolicyCommands::Rollback(args) => change::rollback(&args)?,
            PolicyCommands::Off(args) => change::off(&args)?,
            PolicyCommands::Tune(args) => tune::run(&args)?,
            PolicyCommands::History(args) => list::history(&args)?,
            PolicyCommands::Remove(args) => remove::run(&args)?,
            PolicyCommands::Rollout(args) => crate::rollout::run(&args)?,
        })
    }
}
