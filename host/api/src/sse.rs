//! Answers as text: JSON, and the events of a stream (the `text/event-stream` of the HTML standard).
//!
//! Every event is one line of data: `data: {...}` and an empty line. JSON has its newlines escaped anyway; U+0085, U+2028 and
//! U+2029 are as well, since there are clients that take them for the ends of lines.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use crate::error::ApiError;

/// Ends a stream.
pub const DONE: &str = "data: [DONE]\n\n";

/// Says that the node is still at it, without saying anything: clients skip comments.
pub const PING: &str = ": ping\n\n";

/// What is said where a value cannot be written, which no type of this crate brings about.
const UNWRITTEN: &str = r#"{"error":{"message":"The node could not write its answer.","type":"server_error","param":null,"code":"internal_error"}}"#;

/// One event: a [`Chunk`](crate::Chunk), or an [`ApiError`].
///
/// ```
/// let event = msao_api::sse::event(&"a\nb\u{2028}c");
/// assert_eq!(event, "data: \"a\\nb\\u2028c\"\n\n");
/// ```
pub fn event<T: Serialize>(value: &T) -> String {
    let mut text = b"data: ".to_vec();
    write(&mut text, value);
    text.extend_from_slice(b"\n\n");
    into_text(text)
}

/// How a stream ends when something goes wrong within it: the error, and no `[DONE]` behind it.
pub fn error(error: &ApiError) -> String {
    event(error)
}

/// A body: a [`ChatCompletion`](crate::ChatCompletion), a [`ModelList`](crate::ModelList), an [`ApiError`].
pub fn json<T: Serialize>(value: &T) -> String {
    let mut text = Vec::new();
    write(&mut text, value);
    into_text(text)
}

fn write<T: Serialize>(text: &mut Vec<u8>, value: &T) {
    let begin = text.len();
    let mut serializer = Serializer::with_formatter(&mut *text, OneLine);
    if value.serialize(&mut serializer).is_err() {
        text.truncate(begin);
        text.extend_from_slice(UNWRITTEN.as_bytes());
    }
}

/// serde_json writes nothing but UTF-8.
fn into_text(text: Vec<u8>) -> String {
    String::from_utf8(text)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Compact JSON without anything that anyone takes for the end of a line.
struct OneLine;

const BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for piece in fragment.split_inclusive(BREAKS) {
            match piece
                .chars()
                .next_back()
                .filter(|last| BREAKS.contains(last))
            {
                Some(last) => {
                    writer.write_all(piece.trim_end_matches(last).as_bytes())?;
                    write!(writer, "\\u{:04x}", u32::from(last))?;
                }
                None => writer.write_all(piece.as_bytes())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn json_is_read_back_as_it_was() {
        let text = "\u{2028}\u{2028}x\u{85}\r\n\u{1f}\u{7f}\"\\é😀\u{2029}";
        let event = event(&text);
        let data = event.strip_prefix("data: ").unwrap();
        let data = data.strip_suffix("\n\n").unwrap();
        assert!(
            !data.contains(|c: char| c.is_control() && c != '\u{7f}'),
            "{data:?}"
        );
        assert!(!data.contains(BREAKS), "{data:?}");
        assert_eq!(serde_json::from_str::<String>(data).unwrap(), text);
    }

    #[test]
    fn what_cannot_be_written_is_an_error_as_well() {
        let odd = BTreeMap::from([((1, 2), 3)]);
        assert_eq!(json(&odd), UNWRITTEN);
        assert_eq!(event(&odd), format!("data: {UNWRITTEN}\n\n"));
    }
}
