//! Comma-separated values as RFC 4180 has them: fields with commas, quotes or line ends are quoted, quotes are doubled.

/// Adds a record and its line end.
pub(crate) fn write<'a>(text: &mut String, fields: impl IntoIterator<Item = &'a str>) {
    for (number, field) in fields.into_iter().enumerate() {
        if number > 0 {
            text.push(',');
        }
        if field.contains(['"', ',', '\n', '\r']) {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(field);
        }
    }
    text.push('\n');
}

/// Records one after the other, each with the line on which it begins, from 1. A line of nothing is no record.
pub(crate) struct Records<'a> {
    rest: &'a str,
    line: usize,
}

/// What is no record: on which line, and why.
pub(crate) type Broken = (usize, &'static str);

impl<'a> Records<'a> {
    pub(crate) fn new(text: &'a str) -> Records<'a> {
        Records {
            rest: text.strip_prefix('\u{feff}').unwrap_or(text),
            line: 1,
        }
    }

    /// The field at the beginning of what is left, and whether another one follows in its record.
    fn field(&mut self) -> Result<(String, bool), Broken> {
        let line = self.line;
        let mut field = String::new();
        let after = match self.rest.strip_prefix('"') {
            None => {
                let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
                let (bare, after) = self.rest.split_at(end);
                if bare.contains('"') {
                    return Err((line, "has a quote within a field that is not quoted"));
                }
                let ends = !after.starts_with(',');
                field.push_str(match bare.strip_suffix('\r') {
                    Some(bare) if ends => bare,
                    _ => bare,
                });
                after
            }
            Some(mut rest) => loop {
                let Some((part, after)) = rest.split_once('"') else {
                    return Err((line, "has a quote that is not closed"));
                };
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(after) => {
                        field.push('"');
                        rest = after;
                    }
                    None => break after,
                }
            },
        };
        self.line += field.matches('\n').count();
        let after = match after.strip_prefix("\r\n") {
            Some(_) => after.get(1..).unwrap_or(after),
            None => after,
        };
        let more = after.starts_with(',');
        if !more {
            self.line += 1;
        }
        self.rest = match after.strip_prefix([',', '\n']) {
            Some(rest) => rest,
            None if after.is_empty() => after,
            None => return Err((line, "has something behind a quoted field")),
        };
        Ok((field, more))
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(usize, Vec<String>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = (self.rest.strip_prefix('\n')).or(self.rest.strip_prefix("\r\n")) {
            self.rest = rest;
            self.line += 1;
        }
        if self.rest.is_empty() {
            return None;
        }
        let (line, mut fields) = (self.line, Vec::new());
        loop {
            match self.field() {
                Ok((field, more)) => {
                    fields.push(field);
                    if !more {
                        return Some(Ok((line, fields)));
                    }
                }
                Err(broken) => {
                    self.rest = "";
                    return Some(Err(broken));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(usize, Vec<String>)>, Broken> {
        Records::new(text).collect()
    }

    #[test]
    fn what_others_write_is_read() {
        let records = read("\u{feff}a,b\r\n\r\n\"1,\"\"x\"\"\r\n\",2\r\n,\n3,4").unwrap();
        let told: Vec<(usize, Vec<&str>)> = (records.iter())
            .map(|(line, fields)| (*line, fields.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(
            told,
            [
                (1, vec!["a", "b"]),
                (3, vec!["1,\"x\"\r\n", "2"]),
                (5, vec!["", ""]),
                (6, vec!["3", "4"])
            ]
        );
        assert_eq!(read("").unwrap(), []);
    }

    #[test]
    fn what_is_broken_is_told_with_its_line() {
        assert_eq!(read("a\nb,\"c").unwrap_err().0, 2);
        assert_eq!(read("a\nb,c\"d\"").unwrap_err().0, 2);
        assert_eq!(read("\"a\"b").unwrap_err().0, 1);
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(records in prop::collection::vec(prop::collection::vec(any::<String>(), 2..5), 0..6)) {
            // A byte order mark at the very beginning is no part of the text.
            prop_assume!(records.first().and_then(|it| it.first()).is_none_or(|it| !it.starts_with('\u{feff}')));
            let mut text = String::new();
            for record in &records {
                write(&mut text, record.iter().map(String::as_str));
            }
            let again: Vec<Vec<String>> = read(&text).unwrap().into_iter().map(|(_, it)| it).collect();
            prop_assert_eq!(again, records);
        }

        #[test]
        fn nothing_makes_it_panic(text in any::<String>(), odd in "[\",\r\n a]{0,40}") {
            let _either = read(&text);
            let _either = read(&odd);
        }
    }
}
