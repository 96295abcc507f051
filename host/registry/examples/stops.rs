//! Kills `torture` at random moments, and prints what was found.
//!
//! `stops STOPS SEED` runs the `torture` that lies beside it.

#![allow(clippy::print_stderr)] // a program's business is to print

use std::process::Command;
use std::time::Duration;

use msao_registry::proof::stop_at_random;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |what: &str| numbers.next().ok_or(format!("{what} is missing"));
    let (stops, seed) = (next("STOPS")??, next("SEED")??);
    let torture = std::env::current_exe()?.with_file_name("torture");
    let folder = tempfile::tempdir()?;
    let (registry, state) = (folder.path().join("registry"), folder.path().join("state"));
    let mut spawn = |seed: u64| {
        let mut command = Command::new(&torture);
        command.arg(&registry).arg(&state).arg(seed.to_string());
        command
    };
    let longest = Duration::from_millis(600);
    let figures = stop_at_random(&mut spawn, &registry, &state, stops, seed, longest)?;
    eprintln!("{figures:#?}");
    Ok(())
}
