//! How far something is, on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often it is told on a terminal, and in a file.
const OFTEN: Duration = Duration::from_millis(300);
const SELDOM: Duration = Duration::from_secs(15);

/// Tells how many of how many are done, and how long the rest will take.
#[derive(Debug)]
pub struct Progress {
    what: String,
    all: usize,
    /// Done, and done by an earlier run.
    done: usize,
    before: usize,
    began: Instant,
    told: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Of `what`, in the plural: `before` of `all` were done by an earlier run.
    pub fn new(what: impl Into<String>, all: usize, before: usize) -> Progress {
        let progress = Progress {
            what: what.into(),
            all,
            done: before,
            before,
            began: Instant::now(),
            told: None,
            terminal: std::io::stderr().is_terminal(),
        };
        if before > 0 {
            let (what, all) = (&progress.what, progress.all);
            eprintln!(
                "  {before} of {all} {what} were done by an earlier run; --fresh does them again"
            );
        }
        progress
    }

    /// One more is done.
    pub fn step(&mut self) {
        self.done += 1;
        let pause = if self.terminal { OFTEN } else { SELDOM };
        if self.told.is_none_or(|told| told.elapsed() >= pause) {
            self.tell();
        }
    }

    fn tell(&mut self) {
        self.told = Some(Instant::now());
        let left = left(
            self.began.elapsed(),
            self.done - self.before,
            self.all - self.done,
        );
        let line = format!("  {} of {} {}{left}", self.done, self.all, self.what);
        let mut out = std::io::stderr().lock();
        // Nobody to tell it to is no reason to stop.
        let _ = match self.terminal {
            true => write!(out, "\r{line:<72}"),
            false => writeln!(out, "{line}"),
        };
        let _ = out.flush();
    }

    /// All that will be done is.
    pub fn end(mut self) {
        self.tell();
        if self.terminal {
            eprintln!();
        }
    }
}

/// How long what is left will take if it goes on so; empty where that is not known yet.
fn left(took: Duration, done: usize, left: usize) -> String {
    if done == 0 || left == 0 {
        return String::new();
    }
    let seconds = (took.as_secs_f64() / done as f64 * left as f64).round() as u64;
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!(", {seconds} s left"),
        (minutes, seconds) => format!(", {minutes} min {seconds} s left"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let took = Duration::from_secs(30);
        assert_eq!(left(took, 10, 20), ", 1 min 0 s left");
        assert_eq!(left(took, 30, 7), ", 7 s left");
        assert_eq!(left(took, 0, 7), "");
        assert_eq!(left(took, 7, 0), "");
    }
}
