//! Where a key's value comes from.

use std::collections::BTreeMap;
use std::fmt;

use toml::de::{DeTable, DeValue};

use super::load::line_of;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// This line of the file.
    File(usize),
    /// This variable.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(line) => write!(f, "line {line}"),
            Origin::Environment(variable) => f.write_str(variable),
        }
    }
}

/// The origins of all keys that are not at their default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// The keys of a file; lists are one key, lists of sections are numbered from 0.
    pub(super) fn of_file(text: &str) -> Origins {
        let mut origins = Origins::default();
        if let Ok(document) = DeTable::parse(text) {
            origins.table(text, "", document.get_ref());
        }
        origins
    }

    fn table(&mut self, text: &str, above: &str, table: &DeTable) {
        for (name, value) in table.iter() {
            let key = match above {
                "" => name.get_ref().to_string(),
                _ => format!("{above}.{}", name.get_ref()),
            };
            let line = line_of(text, name.span().start);
            self.value(text, key, line, value.get_ref());
        }
    }

    fn value(&mut self, text: &str, key: String, line: usize, value: &DeValue) {
        match value {
            DeValue::Table(table) => self.table(text, &key, table),
            DeValue::Array(items)
                if !items.is_empty()
                    && (items.iter()).all(|item| matches!(item.get_ref(), DeValue::Table(_))) =>
            {
                for (number, item) in items.iter().enumerate() {
                    let line = line_of(text, item.span().start);
                    self.value(text, format!("{key}.{number}"), line, item.get_ref());
                }
            }
            _ => self.set(key, Origin::File(line)),
        }
    }

    pub(super) fn set(&mut self, key: String, origin: Origin) {
        self.0.insert(key, origin);
    }

    /// Where a key's value comes from.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }
}
