//! How far a search is, on standard error: a line that is written over on a terminal, elsewhere a line now and then.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use msao_operate::output::span;

/// Between two looks of a terminal's line.
const REDRAWN: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const REPEATED: Duration = Duration::from_secs(5);

/// See the module.
pub struct Progress {
    /// None: nobody wants to know.
    terminal: Option<bool>,
    began: Instant,
    told: Option<Instant>,
    /// Points that were there before.
    before: usize,
    done: usize,
    all: usize,
    /// What is known of the best so far.
    best: String,
    /// A line stands on the terminal.
    open: bool,
}

impl Progress {
    /// Of so many points, of which some are there. `quiet`: nothing is shown.
    pub fn new(quiet: bool, done: usize, all: usize) -> Progress {
        Progress {
            terminal: (!quiet).then(|| std::io::stderr().is_terminal()),
            began: Instant::now(),
            told: None,
            before: done,
            done,
            all,
            best: String::new(),
            open: false,
        }
    }

    /// A point is tried; of its requests that share has ended.
    pub fn within(&mut self, what: &str, share: f64) {
        let Some(terminal) = self.terminal else {
            return;
        };
        let often = if terminal { REDRAWN } else { REPEATED };
        if self.told.is_some_and(|told| told.elapsed() < often) {
            return;
        }
        self.told = Some(Instant::now());
        let share = share.clamp(0.0, 1.0);
        let now = self.done as f64 + share;
        let elapsed_s = self.began.elapsed().as_secs_f64();
        let left = match left_s(elapsed_s, now - self.before as f64, self.all as f64 - now) {
            Some(left_s) => format!("{} left", span(left_s)),
            None => "the time left is not known yet".to_owned(),
        };
        let line = format!(
            "point {} of {} ({what}), {:.0}% of it; {left}{}",
            (self.done + 1).min(self.all),
            self.all,
            100.0 * share,
            self.best
        );
        let mut out = std::io::stderr().lock();
        // What nobody can read is no reason to stop.
        let _unread = if terminal {
            self.open = true;
            write!(out, "\r\u{1b}[K{line}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
    }

    /// A point has been tried. `best`: the lowest objective so far.
    pub fn tried(&mut self, best: Option<f64>) {
        self.done += 1;
        if let Some(best) = best {
            self.best = format!("; best so far {best:.2}");
        }
    }

    /// Ends the line that stands on a terminal.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            let _unread = writeln!(std::io::stderr().lock());
        }
    }
}

/// Time for what is left, in s, if what is done took so long. None before anything is done.
fn left_s(elapsed_s: f64, done: f64, left: f64) -> Option<f64> {
    (done > 0.0).then(|| elapsed_s / done * left.max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_is_done() {
        assert_eq!(left_s(30.0, 1.5, 4.5), Some(90.0));
        assert_eq!(left_s(30.0, 0.0, 4.5), None);
        assert_eq!(left_s(30.0, 2.0, -0.1), Some(0.0));
    }
}
