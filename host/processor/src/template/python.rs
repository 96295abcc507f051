//! Where Jinja shows that it is Python: how values print, and `tojson`.

use std::fmt::Write as _;
use std::io::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind, Output};
use serde::Serialize;

/// Lists within lists that are printed; deeper ones are an error.
const MAX_DEPTH: usize = 32;

/// Prints a value as Python's `str` does: `True`, `None`, and lists and mappings by their `repr`.
pub(super) fn format_as_python(
    out: &mut Output,
    state: &minijinja::State,
    value: &Value,
) -> Result<(), Error> {
    match value.kind() {
        ValueKind::Bool | ValueKind::None | ValueKind::Seq | ValueKind::Map => {
            write_repr(out, value, 0)
        }
        _ => minijinja::escape_formatter(out, state, value),
    }
}

fn write_repr(out: &mut Output, value: &Value, depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("it prints lists nested more than {MAX_DEPTH} deep"),
        ));
    }
    match value.kind() {
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" })?,
        ValueKind::None => out.write_str("None")?,
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            let quote = if text.contains('\'') && !text.contains('"') {
                '"'
            } else {
                '\''
            };
            out.write_char(quote)?;
            for c in text.chars() {
                match c {
                    '\n' => out.write_str("\\n")?,
                    '\t' => out.write_str("\\t")?,
                    '\r' => out.write_str("\\r")?,
                    '\\' => out.write_str("\\\\")?,
                    c if c == quote => write!(out, "\\{c}")?,
                    c => out.write_char(c)?,
                }
            }
            out.write_char(quote)?;
        }
        ValueKind::Seq => {
            out.write_char('[')?;
            for (i, item) in value.try_iter()?.enumerate() {
                out.write_str(if i > 0 { ", " } else { "" })?;
                write_repr(out, &item, depth + 1)?;
            }
            out.write_char(']')?;
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (i, key) in value.try_iter()?.enumerate() {
                out.write_str(if i > 0 { ", " } else { "" })?;
                write_repr(out, &key, depth + 1)?;
                out.write_str(": ")?;
                write_repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.write_char('}')?;
        }
        _ => write!(out, "{value}")?,
    }
    Ok(())
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
pub(super) fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    // Accepted where they ask for what is done anyway.
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut out = Vec::new();
    let spaces = " ".repeat(indent.unwrap_or(0).min(64));
    let done = match indent {
        Some(_) => {
            let format = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut out, format,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out, OneLine,
        )),
    };
    let fail = |error: String| Error::new(ErrorKind::BadSerialization, error);
    done.map_err(|error| fail(error.to_string()))?;
    String::from_utf8(out)
        .map(Value::from_safe_string)
        .map_err(|error| fail(error.to_string()))
}

/// JSON on one line with a blank after each comma and colon, as Python writes it.
struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
