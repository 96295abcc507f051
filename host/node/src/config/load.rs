//! Reading: the file, the environment over it, and every error with its place.

use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::NodeConfig;
use super::check::{self, Problem};
use super::origin::{Origin, Origins};

/// Before each variable that overrides a key: `MSAO_API__LISTEN` is `api.listen`, `MSAO_POLICY__CANARY__MIN_SAMPLES` is
/// `policy.canary.min-samples`. Two underscores stand for a dot, one for a hyphen.
pub const PREFIX: &str = "MSAO_";

/// Between a section and what is in it. A variable without it names no key: so do build and test settings.
const BETWEEN: &str = "__";

/// Why a configuration is not taken.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is no TOML, or a key is not known, or a value has the wrong type.
    #[error("{}:{line}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Where, from 1 on.
        line: usize,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// A variable of the environment.
    #[error("{variable}: {message}")]
    Environment {
        /// Which.
        variable: String,
        /// What is wrong and what is allowed.
        message: String,
    },
}

/// A configuration that was checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in force. Paths are as written, taken from the file's folder where they are relative.
    pub config: NodeConfig,
    /// Where each key's value comes from.
    pub origins: Origins,
}

/// Reads `path`, lays `environment` over it, and checks everything.
///
/// # Errors
/// [`ConfigError`]: the first thing that is wrong, its place, and what is allowed.
pub fn load(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })?;
    parse(&text, path, environment)
}

/// The same for a file's text.
///
/// # Errors
/// As [`load`].
pub fn parse(
    text: &str,
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let at = |offset: usize, message: String| ConfigError::File {
        path: path.to_owned(),
        line: line_of(text, offset),
        message,
    };
    let wrong = |error: toml::de::Error| {
        let offset = error.span().map_or(0, |span| span.start);
        at(offset, error.message().to_owned())
    };
    // For itself first, so that what is wrong in the file is told with its line.
    toml::from_str::<NodeConfig>(text).map_err(wrong)?;
    let mut table: toml::Table = toml::from_str(text).map_err(wrong)?;
    let mut origins = Origins::of_file(text);
    let mut variables: Vec<(String, String)> = (environment.into_iter())
        .filter(|(name, _)| name.starts_with(PREFIX) && name.contains(BETWEEN))
        .collect();
    variables.sort();
    for (variable, value) in variables {
        let key = key_of(&variable);
        let refused = |message: String| ConfigError::Environment {
            variable: variable.clone(),
            message,
        };
        set(&mut table, &key, value_of(&value)).map_err(&refused)?;
        // One at a time, so that it is known which one is wrong.
        let tried = NodeConfig::deserialize_table(&table);
        if tried.is_err() {
            // A word that reads as a number or a truth may have been meant as a word.
            set(&mut table, &key, Value::String(value.clone())).map_err(&refused)?;
            NodeConfig::deserialize_table(&table)
                .map_err(|_| refused(tried.err().unwrap_or_default()))?;
        }
        origins.set(key, Origin::Environment(variable));
    }
    let mut config = NodeConfig::deserialize_table(&table).map_err(|message| at(0, message))?;
    check::check(&config).map_err(|Problem { key, problem }| {
        let message = format!("{key} {problem}");
        match origins.of(&key) {
            Origin::Environment(variable) => ConfigError::Environment { variable, message },
            Origin::File(line) => ConfigError::File {
                path: path.to_owned(),
                line,
                message,
            },
            Origin::Default => at(offset_of(text, &key), message),
        }
    })?;
    if let Some(folder) = path.parent() {
        config.relative_to(folder);
    }
    Ok(Loaded { config, origins })
}

impl NodeConfig {
    fn deserialize_table(table: &toml::Table) -> Result<NodeConfig, String> {
        (table.clone().try_into()).map_err(|error: toml::de::Error| error.message().to_owned())
    }

    /// Takes relative paths from `folder`.
    fn relative_to(&mut self, folder: &Path) {
        let own = |path: &mut PathBuf| *path = folder.join(&*path);
        own(&mut self.node.state);
        for model in [&mut self.models.draft, &mut self.models.target]
            .into_iter()
            .flatten()
        {
            own(&mut model.path);
        }
        for path in [
            &mut self.api.tls_cert,
            &mut self.api.tls_key,
            &mut self.operator.tls_cert,
            &mut self.operator.tls_key,
            &mut self.sessions.tls,
            &mut self.policy.boot,
            &mut self.policy.boot_postprocessor,
            &mut self.sandbox.cache,
        ]
        .into_iter()
        .flatten()
        {
            own(path);
        }
        let shapes = self.peers.iter_mut().filter_map(|peer| peer.shape.as_mut());
        let traces = shapes.flat_map(|shape| [&mut shape.up.trace, &mut shape.down.trace]);
        for trace in traces.flatten() {
            own(&mut trace.file);
        }
    }
}

/// `MSAO_API__BODY_MIB` -> `api.body-mib`.
fn key_of(variable: &str) -> String {
    let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
    name.to_ascii_lowercase()
        .replace(BETWEEN, ".")
        .replace('_', "-")
}

/// A value as TOML writes it; anything else is a word.
fn value_of(text: &str) -> Value {
    let parsed = toml::from_str::<toml::Table>(&format!("value = {text}\n"));
    (parsed.ok())
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut toml::Table, key: &str, value: Value) -> Result<(), String> {
    let (sections, last) = match key.rsplit_once('.') {
        Some((sections, last)) => (sections, last),
        None => ("", key),
    };
    let mut here = table;
    let mut names = sections.split('.').filter(|name| !name.is_empty());
    while let Some(section) = names.next() {
        let mut next = (here.entry(section)).or_insert_with(|| Value::Table(toml::Table::new()));
        if let Value::Array(entries) = next {
            // `peers.0.address`: of several, by their order.
            let count = entries.len();
            let place = names.next().and_then(|place| place.parse::<usize>().ok());
            next = (place.and_then(|place| entries.get_mut(place))).ok_or_else(|| {
                format!(
                    "{section} has {count} entries: {key} must name one by its number, from 0 on"
                )
            })?;
        }
        here = (next.as_table_mut())
            .ok_or_else(|| format!("{section} is no section: {key} cannot be set"))?;
    }
    here.insert(last.to_owned(), value);
    Ok(())
}

/// The line of a byte, from 1 on.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Where the longest part of `key` that the file has stands: a key that is left out is told where it should be.
fn offset_of(text: &str, key: &str) -> usize {
    let Ok(document) = DeTable::parse(text) else {
        return 0;
    };
    let mut offset = 0;
    let mut here = Some(document.get_ref());
    for word in key.split('.') {
        let found = here.and_then(|table| {
            table
                .iter()
                .find(|(name, _)| name.get_ref().as_ref() == word)
        });
        let Some((name, value)) = found else { break };
        offset = name.span().start;
        here = match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        };
    }
    offset
}
