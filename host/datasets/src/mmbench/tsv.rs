//! Tables with tabs, as pandas and Python's `csv` write them.
//!
//! A field that begins with a quote goes on to the next single one, over tabs and newlines; two quotes within are one. A quote
//! elsewhere is a quote. Rows end with `\n` or `\r\n`; empty lines do not count.

use std::io::{self, BufRead};

use thiserror::Error;

/// Fields of a row at most.
const MAX_FIELDS: usize = 1_000;

/// What is wrong with a table, and where.
#[derive(Debug, Error)]
pub(super) enum TsvError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error(
        "column {column} opens a quote that nothing closes: the file ends too early, fetch it again"
    )]
    Open { column: usize },
    #[error("column {column} goes on after its closing quote: quotes within are written twice")]
    AfterQuote { column: usize },
    #[error("column {column} is larger than {} MiB; is a quote not closed?", .limit >> 20)]
    Large { column: usize, limit: usize },
    #[error("there are more than {MAX_FIELDS} columns: is this a table with tabs?")]
    Wide,
    #[error("column {column} is not UTF-8: save the table as UTF-8")]
    Encoding { column: usize },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a field's first byte.
    Start,
    Plain,
    Quoted,
    /// After a quote within quotes: its end, or the first half of a quote.
    Closing,
}

/// Reads rows one by one; of the file only one row is held.
pub(super) struct Rows<R> {
    from: R,
    /// The line, from 1, that the next row begins in.
    next_line: u64,
    /// The line that the last row began in.
    line: u64,
    limit: usize,
}

impl<R: BufRead> Rows<R> {
    /// Fields are no larger than `limit` bytes.
    pub(super) fn new(from: R, limit: usize) -> Rows<R> {
        Rows {
            from,
            next_line: 1,
            line: 1,
            limit,
        }
    }

    /// The line, from 1, that the row read last (or being read) begins in.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next row's fields; none at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<Vec<String>>, TsvError> {
        loop {
            self.line = self.next_line;
            match self.read_row()? {
                None => return Ok(None),
                Some(fields) if fields.iter().all(String::is_empty) && fields.len() == 1 => {}
                Some(fields) => return Ok(Some(fields)),
            }
        }
    }

    fn read_row(&mut self) -> Result<Option<Vec<String>>, TsvError> {
        let mut fields: Vec<String> = Vec::new();
        let mut field: Vec<u8> = Vec::new();
        let mut state = State::Start;
        let mut any = false;
        loop {
            let buffer = self.from.fill_buf()?;
            if buffer.is_empty() {
                if state == State::Quoted {
                    let column = fields.len() + 1;
                    return Err(TsvError::Open { column });
                }
                if any {
                    finish(&mut fields, &mut field, state)?;
                }
                return Ok(any.then_some(fields));
            }
            any = true;
            let mut used = 0;
            let mut ended = false;
            while let Some(rest) = buffer.get(used..).filter(|rest| !rest.is_empty()) {
                // Bytes that mean nothing here are taken at once: most of a table is base64.
                let plain = rest.iter().position(|&byte| match state {
                    State::Quoted => byte == b'"',
                    State::Plain => matches!(byte, b'\t' | b'\n'),
                    State::Start | State::Closing => true,
                });
                let run = rest.get(..plain.unwrap_or(rest.len())).unwrap_or_default();
                if state == State::Quoted {
                    self.next_line += run.iter().filter(|&&byte| byte == b'\n').count() as u64;
                }
                field.extend_from_slice(run);
                if field.len() > self.limit {
                    return Err(TsvError::Large {
                        column: fields.len() + 1,
                        limit: self.limit,
                    });
                }
                used += run.len();
                let Some(&byte) = rest.get(run.len()) else {
                    break;
                };
                used += 1;
                state = match (state, byte) {
                    (State::Quoted, _) => State::Closing,
                    (State::Closing, b'"') => {
                        field.push(b'"');
                        State::Quoted
                    }
                    (_, b'\t') => {
                        finish(&mut fields, &mut field, state)?;
                        State::Start
                    }
                    (_, b'\n') => {
                        self.next_line += 1;
                        ended = true;
                        break;
                    }
                    // Half of a line's end.
                    (State::Closing, b'\r') => State::Closing,
                    (State::Closing, _) => {
                        let column = fields.len() + 1;
                        return Err(TsvError::AfterQuote { column });
                    }
                    (State::Start, b'"') => State::Quoted,
                    (State::Start | State::Plain, other) => {
                        field.push(other);
                        State::Plain
                    }
                };
            }
            self.from.consume(used);
            if ended {
                finish(&mut fields, &mut field, state)?;
                return Ok(Some(fields));
            }
        }
    }
}

fn finish(fields: &mut Vec<String>, field: &mut Vec<u8>, state: State) -> Result<(), TsvError> {
    let column = fields.len() + 1;
    let mut bytes = std::mem::take(field);
    if state == State::Plain && bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    if column > MAX_FIELDS {
        return Err(TsvError::Wide);
    }
    let mut text = String::from_utf8(bytes).map_err(|_| TsvError::Encoding { column })?;
    text.shrink_to_fit();
    fields.push(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    fn rows(text: &[u8], capacity: usize) -> Result<Vec<Vec<String>>, TsvError> {
        let mut rows = Rows::new(BufReader::with_capacity(capacity, text), 1 << 20);
        let mut all = Vec::new();
        while let Some(row) = rows.next_row()? {
            all.push(row);
        }
        Ok(all)
    }

    #[test]
    fn quotes_tabs_and_ends_of_lines() {
        let text = b"a\tb\r\n\n\"x\ty\"\t\"say \"\"no\"\"\r\nnow\"\r\nin\"side\t\n\t\n\"\"\tlast";
        for capacity in [1, 2, 7, 4096] {
            assert_eq!(
                rows(text, capacity).unwrap(),
                [
                    ["a", "b"],
                    ["x\ty", "say \"no\"\r\nnow"],
                    ["in\"side", ""],
                    ["", ""],
                    ["", "last"],
                ]
            );
        }
    }

    #[test]
    fn lines_are_those_that_rows_begin_in() {
        let text: &[u8] = b"a\n\"b\nb\"\n\nc\nd";
        let mut all = Rows::new(text, 100);
        let mut lines = Vec::new();
        while all.next_row().unwrap().is_some() {
            lines.push(all.line());
        }
        assert_eq!(lines, [1, 2, 5, 6]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let says = |text: &[u8]| rows(text, 4).unwrap_err().to_string();
        assert!(says(b"a\t\"b\nc").contains("column 2 opens a quote"));
        assert!(says(b"a\t\"b\"c\n").contains("column 2 goes on"));
        assert!(says(b"a\t\xff\n").contains("column 2 is not UTF-8"));
        assert!(says(&[b'\t'; 2_000]).contains("1000 columns"));
        let mut small = Rows::new(b"12345\t123456".as_slice(), 5);
        assert!(
            small
                .next_row()
                .unwrap_err()
                .to_string()
                .contains("column 2 is larger")
        );
    }

    proptest! {
        #[test]
        fn what_is_written_quoted_is_read_back(
            table in prop::collection::vec(prop::collection::vec("[a\"\t\r\n,é]{0,6}", 2), 1..6),
            capacity in 1_usize..40,
        ) {
            let quoted = |field: &String| format!("\"{}\"", field.replace('"', "\"\""));
            let row = |fields: &Vec<String>| fields.iter().map(quoted).collect::<Vec<_>>().join("\t");
            let text = table.iter().map(row).collect::<Vec<_>>().join("\n");
            prop_assert_eq!(rows(text.as_bytes(), capacity).unwrap(), table);
        }

        #[test]
        fn any_bytes_give_rows_or_an_error(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = rows(&text, 16);
        }
    }
}
