//! On which line of a TOML text a key stands.

use toml::de::{DeTable, DeValue};

/// The line of a key such as `links[1].rtt-ms`, from 1; if it is not there, that of the nearest that is around it. None: not
/// even that.
pub(super) fn line(text: &str, key: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = Some(document.get_ref());
    let mut found = None;
    for part in key.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, index)) => (name, index.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let entry = table.and_then(|table| table.iter().find(|(key, _)| key.get_ref() == name));
        let Some((key, mut value)) = entry else {
            break;
        };
        found = Some(key.span().start);
        if let (Some(index), DeValue::Array(values)) = (index, value.get_ref())
            && let Some(inner) = values.get(index)
        {
            value = inner;
            found = Some(value.span().start);
        }
        table = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
    }
    let before = text.get(..found?)?;
    Some(1 + before.matches('\n').count())
}
