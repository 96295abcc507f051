//! A revision of parameters as a file: what `msao calibrate` writes, and `msao policy tune --from` asks a node for.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use msao_core::offload::manifest::Value as Parameter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{Client, ClientError};
use crate::files;

/// Bytes of such a file at most.
const MAX_FILE: u64 = 1 << 20;

/// Values for some of a plug-in's parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Revision {
    /// The plug-in's name.
    pub plugin: String,
    /// The version that they were found for; for people.
    #[serde(default)]
    pub version: String,
    /// By parameter, as a manifest writes them. A node refuses what its plug-in's manifest does not allow.
    pub values: BTreeMap<String, Parameter>,
    /// How they were found; for people.
    #[serde(default)]
    pub found: Value,
}

impl Revision {
    /// Reads a file.
    ///
    /// # Errors
    /// Naming the file: it cannot be read, or is no revision.
    pub fn read(path: &Path) -> anyhow::Result<Revision> {
        let text = files::read_text(path, MAX_FILE)?;
        let revision: Revision = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is no revision of parameters, as `msao calibrate` writes them",
                path.display()
            )
        })?;
        if revision.values.is_empty() {
            bail!("{} names no parameter", path.display());
        }
        Ok(revision)
    }

    /// Writes a file, over what is there.
    ///
    /// # Errors
    /// It cannot be written; what was there is as it was.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        files::write_with(path, |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            Ok(writeln!(out)?)
        })
    }

    /// Asks a node to take it: at once, or as a canary, for a share of the sessions first. Gives the node's receipt.
    ///
    /// # Errors
    /// [`ClientError`]: the plug-in is not active there, or a value is not allowed, in the node's words.
    pub fn push(&self, client: &Client, gradually: bool) -> Result<Value, ClientError> {
        client.post("/v1/tune", &self.body(gradually))
    }

    /// What a node is sent.
    pub(crate) fn body(&self, gradually: bool) -> Value {
        json!({ "plugin": self.plugin, "values": self.values, "gradually": gradually })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("revision.json");
        let revision = Revision {
            plugin: "patient".to_owned(),
            version: "0.1.0".to_owned(),
            values: BTreeMap::from([
                ("mode".to_owned(), Parameter::Text("exact".to_owned())),
                ("rtt-limit".to_owned(), Parameter::Float(300.0)),
                ("gamma".to_owned(), Parameter::Int(4)),
            ]),
            found: json!({ "evaluations": 3 }),
        };
        revision.write(&path).unwrap();
        // A number with a fraction stays one.
        assert_eq!(Revision::read(&path).unwrap(), revision);
        let body = revision.body(true);
        assert_eq!(
            body,
            json!({"plugin": "patient", "values": {"mode": "exact", "rtt-limit": 300.0, "gamma": 4}, "gradually": true})
        );
        for (text, told) in [
            ("{}", "is no revision"),
            (r#"{"plugin": "a", "values": {}}"#, "names no parameter"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Revision::read(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
