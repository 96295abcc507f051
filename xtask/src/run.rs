//! Running other programs: shown as they start, with their exit code passed on.

use std::io;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program in the foreground and returns how it ended.
pub fn run(command: &mut Command) -> Result<ExitStatus> {
    println!("$ {}", shown(command));
    command.status().with_context(|| not_started(command))
}

/// Runs a program in the foreground and fails unless it succeeds.
pub fn must(command: &mut Command) -> Result<()> {
    let status = run(command)?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// What a program prints on its standard output, without its last line end; `None` when it is not there or fails.
pub fn answer(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output.status.success().then(|| {
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    })
}

/// The exit code to end with when a program's result is the result of the whole command.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code() {
        Some(code) => u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from),
        // Ended by a signal.
        None => ExitCode::FAILURE,
    }
}

/// `cargo`, the same toolchain that runs this program.
pub fn cargo() -> Command {
    Command::new("cargo")
}

/// The command line, for people: without the quoting that a shell would want.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn not_started(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    format!("cannot run `{program}`: is it installed and on PATH?")
}

/// True for the error of an operation on something that is not there.
pub fn is_missing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}
