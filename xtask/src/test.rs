//! `cargo xtask test`.

use std::process::ExitCode;

use anyhow::Result;

use crate::places::Places;
use crate::run::{answer, cargo, exit_code, run};
use crate::setup;

/// Sets up and runs the tests: all of the workspace, or what `args` tell the runner.
pub fn command(places: &Places, args: &[String]) -> Result<ExitCode> {
    setup::ensure(places, false)?;
    let everything = args.is_empty();
    let nextest = answer(cargo().args(["nextest", "--version"])).is_some();
    println!();

    // nextest does not run the documentation's examples. They go first, so that the summary comes last.
    if nextest && everything {
        let status = run(cargo()
            .args(["test", "--workspace", "--doc"])
            .current_dir(&places.root))?;
        if !status.success() {
            return Ok(exit_code(status));
        }
    }
    let mut tests = cargo();
    if nextest {
        tests.args(["nextest", "run"]);
    } else {
        tests.arg("test");
    }
    if everything {
        tests.arg("--workspace");
    }
    Ok(exit_code(run(tests.args(args).current_dir(&places.root))?))
}
