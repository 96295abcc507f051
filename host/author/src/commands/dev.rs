//! `msao policy dev`.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::Which;
use super::build::build;
use super::test::{Tested, test};
use crate::output::Output;
use crate::plugin::{Project, TARGET};

/// How often the sources are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Files that are looked at, at most: a plug-in has a dozen.
const MAX_FILES: usize = 10_000;

/// Build and test a plug-in each time that a file of it is saved
///
/// Ends with Ctrl-C. With --json each round is a line.
///
///   msao policy dev
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct DevArgs {
    #[command(flatten)]
    which: Which,
    /// Stop after this many rounds, for scripts.
    #[arg(long, value_name = "N", hide = true)]
    rounds: Option<u32>,
}

/// The newest time and the number of the plug-in's own files.
fn look(folder: &Path, seen: &mut (Option<SystemTime>, usize)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // What builds and editors leave behind is no source.
        let passed = [TARGET, "node_modules", "__pycache__", "Cargo.lock"].contains(&&*name);
        if passed || name.starts_with('.') || name.ends_with('~') || seen.1 >= MAX_FILES {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            look(&path, seen);
        } else if let Ok(time) = entry.metadata().and_then(|it| it.modified()) {
            seen.0 = seen.0.max(Some(time));
            seen.1 += 1;
        }
    }
}

fn state(folder: &Path) -> (Option<SystemTime>, usize) {
    let mut seen = (None, 0);
    look(folder, &mut seen);
    seen
}

fn round(path: &Path) -> anyhow::Result<Tested> {
    // The manifest may have been what was saved.
    let project = Project::open(path)?;
    build(&project)?;
    test(&project, None, None)
}

pub fn run(args: &DevArgs, output: Output) -> anyhow::Result<bool> {
    let folder = Project::open(&args.which.path)?.folder;
    let mut rounds = 0;
    loop {
        let before = state(&folder);
        let fine = match round(&args.which.path) {
            Ok(tested) => {
                output.line(&tested, Tested::text)?;
                tested.is_fine()
            }
            Err(error) => {
                // What is wrong now may be right after the next save.
                output.line(
                    &serde_json::json!({ "error": format!("{error:#}") }),
                    |_| format!("{error:#}\n"),
                )?;
                false
            }
        };
        rounds += 1;
        if args.rounds.is_some_and(|most| rounds >= most) {
            return Ok(fine);
        }
        output.note(format_args!("watching {}; Ctrl-C ends", folder.display()));
        while state(&folder) == before {
            std::thread::sleep(LOOK);
        }
    }
}
