//! `cargo xtask test`.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::places::{Places, target_folder};
use crate::run::{answer, cargo, exit_code, run};
use crate::{clients, plugins, setup};

const WAIT_POLICY: &str = "OMP_WAIT_POLICY";

/// Sets up and runs the tests: all of the workspace, or what `args` tell the runner.
pub fn command(places: &Places, args: &[String]) -> Result<ExitCode> {
    setup::ensure(places, false)?;
    plugins::ensure(places)?;
    clients::ensure(places)?;
    let everything = args.is_empty();
    let nextest = answer(cargo().args(["nextest", "--version"])).is_some();
    println!();

    // nextest does not run the documentation's examples. They go first, so that the summary comes last.
    if nextest && everything {
        let status = run(tester(places).args(["test", "--workspace", "--doc"]))?;
        if !status.success() {
            return Ok(exit_code(status));
        }
    }
    if everything {
        // A plug-in's own tests are plain Rust. Their number is no part of the summary.
        let status = run(plugins::guest_cargo(places, "test")
            .args(["--workspace", "--quiet", "--target-dir"])
            .arg(target_folder(places)?.join("guests")))?;
        if !status.success() {
            return Ok(exit_code(status));
        }
    }
    let mut tests = tester(places);
    if nextest {
        tests.args(["nextest", "run"]);
    } else {
        tests.arg("test");
    }
    if everything {
        tests.arg("--workspace");
    }
    Ok(exit_code(run(tests.args(args))?))
}

/// cargo, for tests. Those run side by side, each with an OpenMP team as large as the machine. Threads that spin while
/// they wait then take the processor from the ones that they wait for: on a busy machine a thousandfold slowdown was
/// measured. So they sleep, unless the user has said otherwise.
fn tester(places: &Places) -> Command {
    let mut cargo = cargo();
    cargo.current_dir(&places.root);
    if env::var_os(WAIT_POLICY).is_none() {
        cargo.env(WAIT_POLICY, "passive");
    }
    cargo
}
