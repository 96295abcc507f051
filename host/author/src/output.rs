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
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, value)?;
            writeln!(out)?;
        } else {
            out.write_all(tame(&text(value)).as_bytes())?;
        }
        out.flush()
    }

    /// Prints one of many answers: with `--json` as one line.
    ///
    /// # Errors
    /// When standard output cannot be written to.
    pub fn line<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, value)?;
            writeln!(out)?;
        } else {
            out.write_all(tame(&text(value)).as_bytes())?;
        }
        out.flush()
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

    /// Prints a line that belongs to an answer without being part of it: on standard error, with `--json` too.
    pub fn warn(self, text: impl std::fmt::Display) {
        // As with a note.
        let _ = writeln!(io::stderr().lock(), "{}", tame(&text.to_string()));
    }

    /// Prints a line of progress for people: on standard error, so that answers can be piped.
    pub fn note(self, text: impl std::fmt::Display) {
        if !self.json {
            // Progress that nobody can read is no reason to stop.
            let _ = writeln!(io::stderr().lock(), "{}", tame(&text.to_string()));
        }
    }
}

/// Text without what would steer a terminal: components, manifests and kept failures that somebody else has written have
/// their words in it. Lines stay.
pub fn tame(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { ' ' } else { c })
        .collect()
}

/// The same on one line, for what is to be one: a cell of a table, a name.
pub fn plain(text: &str) -> String {
    tame(text).replace('\n', " ")
}

/// Whether whoever reads our output has had enough.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|it| {
        let io = it.downcast_ref::<io::Error>();
        io.is_some_and(|it| it.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// A table for people: columns as wide as their widest cell, numbers to the right.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let numeric: Vec<bool> = (0..head.len())
        .map(|column| {
            rows.iter().all(|row| {
                row.get(column)
                    .is_none_or(|cell| !cell.starts_with(|c: char| c.is_alphabetic()))
            })
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, &width), &right) in cells.zip(&widths).zip(&numeric) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            text.push_str("  ");
            if right {
                text.push_str(&padding);
                text.push_str(cell);
            } else {
                text.push_str(cell);
                text.push_str(&padding);
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Nanoseconds for people: `840 ns`, `3.1 us`, `12.0 ms`.
pub fn nanoseconds(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

/// Bytes for people: `840 B`, `47.1 KiB`, `1.6 MiB`.
pub fn bytes(count: u64) -> String {
    let count = count as f64;
    match count {
        count if count < 1024.0 => format!("{count:.0} B"),
        count if count < 1024.0 * 1024.0 => format!("{:.1} KiB", count / 1024.0),
        count => format!("{:.1} MiB", count / (1024.0 * 1024.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_words_to_the_left() {
        let rows = vec![
            vec!["plan".to_owned(), "9".to_owned()],
            vec!["observe".to_owned(), "123".to_owned()],
        ];
        assert_eq!(
            table(&["export", "n"], &rows),
            "  export     n\n  plan       9\n  observe  123\n"
        );
        assert_eq!(plain("a\n\x1bb"), "a  b");
        assert_eq!(tame("a\tb\x1b[2J\u{9b}\nc"), "a b [2J \nc");
        assert_eq!(nanoseconds(1234.0), "1.2 us");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
