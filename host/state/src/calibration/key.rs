//! Under which names cells are kept.

use msao_core::digest::Digest;
use serde::{Deserialize, Serialize};

/// What cells belong to. Cells of one key mean nothing under another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CellsKey {
    /// The plug-in's name.
    pub plugin: String,
    /// The manifest's number for the meaning of its cells.
    pub state_schema: u32,
    /// The pair of models that was served meanwhile.
    pub models: String,
    /// The node on which it was learned.
    pub node: String,
}

/// Cells that are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Name {
    /// Those in force.
    Live(CellsKey),
    /// A candidate's, by its generation's number.
    Fork(u64, CellsKey),
    /// Those that were in force until the generation of this number was promoted.
    Displaced(u64, CellsKey),
}

/// Where all cells lie in the database.
pub(super) const PREFIX: &[u8] = b"cells/";

impl Name {
    /// Its place in the database.
    pub(super) fn place(&self) -> Vec<u8> {
        let (kind, key) = match self {
            Name::Live(key) => ("live".to_owned(), key),
            Name::Fork(number, key) => (format!("fork {number}"), key),
            Name::Displaced(number, key) => (format!("displaced {number}"), key),
        };
        // Names of models and nodes are the operator's: with lengths, no two names can run into one.
        let text = format!(
            "{kind}\n{}\n{}\n{} {}\n{} {}",
            key.plugin,
            key.state_schema,
            key.models.len(),
            key.models,
            key.node.len(),
            key.node
        );
        let mut place = PREFIX.to_vec();
        place.extend(Digest::of(text.as_bytes()).to_string().into_bytes());
        place
    }
}
