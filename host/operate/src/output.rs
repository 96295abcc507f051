//! How commands speak: text for people on standard output, or one JSON value with `--json`.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

/// Where a command's answer goes.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Whether the answer is one JSON value rather than text.
    pub json: bool,
}

impl Output {
    /// Prints `value` as JSON, or what `text` makes of it.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn answer<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> io::Result<()> {
        if self.json {
            let mut line = serde_json::to_string_pretty(value)?;
            line.push('\n');
            say(&line)
        } else {
            say(&text(value))
        }
    }

    /// With `--json`, what went wrong is the answer: `{"error": "..."}` on standard output, and exit code 1. Otherwise, and
    /// where nobody reads any more, it is for the program to tell.
    ///
    /// # Errors
    /// That of `done`.
    pub fn or_error(self, done: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
        let error = match done {
            Err(error) if self.json && !is_broken_pipe(&error) => error,
            done => return done,
        };
        let told = serde_json::json!({ "error": format!("{error:#}") });
        self.answer(&told, |_| String::new())?;
        Ok(ExitCode::FAILURE)
    }

    /// Prints a line of progress for people: on standard error, so that answers can be piped.
    pub fn note(self, text: impl std::fmt::Display) {
        if !self.json {
            warn(text);
        }
    }
}

/// Whether whoever reads our output has had enough.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|it| {
        let io = it.downcast_ref::<io::Error>();
        io.is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Prints a line on standard error, with `--json` too.
pub fn warn(text: impl std::fmt::Display) {
    // What nobody can read is no reason to stop.
    let _unread = writeln!(io::stderr().lock(), "{text}");
}

/// Prints text on standard output.
///
/// # Errors
/// It cannot be written to.
pub fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The exit code of what could be found out.
pub fn code(fine: bool) -> ExitCode {
    if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A table for people: columns as wide as their widest cell, columns of numbers to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(String::as_str);
        let cells = cells.chain(head.get(column).copied());
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let number = |cell: &String| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit());
    let numeric = |column: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(column));
        !rows.is_empty() && cells.all(number)
    };
    let layout: Vec<(usize, bool)> = (0..head.len())
        .map(|column| (width(column), numeric(column)))
        .collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut row = String::new();
        for (cell, &(width, right)) in cells.zip(&layout) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            let (before, after) = if right {
                (&*padding, "")
            } else {
                ("", &*padding)
            };
            row.extend(["  ", before, cell, after]);
        }
        text.push_str(row.trim_end());
        text.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// Bytes for people: `840 B`, `47.1 KiB`, `1.6 MiB`.
pub fn bytes(count: f64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024.0 {
        return format!("{count:.0} B");
    }
    let mut value = count / 1024.0;
    let mut unit = "KiB";
    for next in units.into_iter().skip(1) {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A time span for people: `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub fn span(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// A share for people: `12.5%`; `-` of nothing.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        "-".to_owned()
    } else {
        format!("{:.1}%", 100.0 * part as f64 / whole as f64)
    }
}

/// Text that a node sent, on one line and without what would steer a terminal.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Seconds since 1970, now.
pub fn now_s() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}

/// How long ago something was, by its ms since 1970 and the seconds now: `12 s ago`.
pub fn ago(at_ms: f64, now_s: f64) -> String {
    format!("{} ago", span(now_s - at_ms / 1000.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let rows = [["plan", "9"], ["observe", "123"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            table(&["export", "n"], &rows),
            "  export     n\n  plan       9\n  observe  123\n"
        );
    }

    #[test]
    fn figures_have_their_units() {
        assert_eq!(
            [bytes(840.0), bytes(1536.0), bytes(3.5e9)],
            ["840 B", "1.5 KiB", "3.3 GiB"]
        );
        assert_eq!(
            [span(12.9), span(185.0), span(7800.0)],
            ["12 s", "3 min 5 s", "2 h 10 min"]
        );
        assert_eq!([share(1, 8), share(0, 0)], ["12.5%", "-"]);
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a [2Jb ");
    }
}
