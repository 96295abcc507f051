//! What a search leaves behind after each point, so that it can be taken up again.

use std::path::Path;

use anyhow::{Context, bail};
use msao_adapt::tune::Dimension;
use msao_operate::files;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::judge::Wanted;
use crate::scene::Played;
use crate::search::Trials;

/// Of the file.
const VERSION: u32 = 1;
/// Bytes of the file at most: 511 trials have some hundred KB.
const MAX_FILE: u64 = 64 << 20;

/// All that a trace is a function of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// What is played.
    pub played: Played,
    /// What is tuned, and within which ranges.
    pub parameters: Vec<(String, Dimension)>,
    /// What is wanted.
    pub wanted: Wanted,
    /// Of all draws.
    pub seed: u64,
}

/// A search as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct State {
    version: u32,
    /// What it is a search of.
    pub settings: Settings,
    /// As far as it has got.
    pub trials: Trials,
    /// It has come to its end.
    pub finished: bool,
}

impl State {
    /// To be kept.
    pub fn new(settings: Settings, trials: Trials, finished: bool) -> State {
        State {
            version: VERSION,
            settings,
            trials,
            finished,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Naming the file: it cannot be read, is of another version, or is none.
    pub fn read(path: &Path) -> anyhow::Result<State> {
        let text = files::read_text(path, MAX_FILE)?;
        let named = || {
            format!(
                "{} is no search of this program's; name another folder with --out",
                path.display()
            )
        };
        let value: Value = serde_json::from_str(&text).with_context(named)?;
        let version = value.get("version").and_then(Value::as_u64);
        if version.is_some_and(|version| version != u64::from(VERSION)) {
            bail!(
                "{} was written by another version of this program: begin anew, with another folder for --out",
                path.display()
            );
        }
        serde_json::from_value(value).with_context(named)
    }

    /// Writes a file, over what is there, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written; what was there is as it was.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        files::write_with(path, |out| Ok(serde_json::to_writer(&mut *out, self)?))
    }

    /// What it is a search of, if that is what is wanted now.
    ///
    /// # Errors
    /// Naming what differs.
    pub fn trials_for(self, settings: &Settings, path: &Path) -> anyhow::Result<Trials> {
        match differs(&self.settings, settings)? {
            None => Ok(self.trials),
            Some(what) => bail!(
                "{} holds a search with another {what}: give what it was begun with, or name another folder with --out",
                path.display()
            ),
        }
    }
}

/// The first field in which two differ.
fn differs(one: &Settings, other: &Settings) -> anyhow::Result<Option<String>> {
    if one == other {
        return Ok(None);
    }
    let (one, other) = (serde_json::to_value(one)?, serde_json::to_value(other)?);
    Ok(Some(
        place(&one, &other).unwrap_or_else(|| "setting".to_owned()),
    ))
}

fn place(one: &Value, other: &Value) -> Option<String> {
    let (Value::Object(one), Value::Object(other)) = (one, other) else {
        return None;
    };
    let (key, mine) = one
        .iter()
        .find(|(key, mine)| other.get(*key) != Some(*mine))?;
    let inner = other.get(key).and_then(|theirs| place(mine, theirs));
    Some(match inner {
        Some(inner) => format!("{key}.{inner}"),
        None => key.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use msao_core::offload::manifest::Value as Parameter;

    use super::*;

    fn settings() -> Settings {
        let digest = "00".repeat(32);
        let content = serde_json::json!({ "component": digest, "manifest": digest });
        let played = serde_json::json!({
            "policy": content, "postprocessor": null, "records": digest, "world": digest, "requests": 100, "pace": 1.5,
            "held": { "gamma": 4 },
        });
        Settings {
            played: serde_json::from_value(played).unwrap(),
            parameters: vec![("in-flight".to_owned(), Dimension::int(1.0, 8.0))],
            wanted: Wanted {
                weight: 0.1,
                delta: 0.05,
                budget: None,
            },
            seed: u64::MAX,
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_belongs_to_its_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let state = State::new(settings(), Trials::default(), false);
        state.write(&path).unwrap();
        let again = State::read(&path).unwrap();
        assert_eq!(again, state);
        assert!(again.trials_for(&settings(), &path).is_ok());
        type Change = fn(&mut Settings);
        let changed: [(Change, &str); 4] = [
            (|it| it.seed = 1, "another seed:"),
            (|it| it.wanted.budget = Some(0.1), "another wanted.budget:"),
            (|it| it.played.pace = 2.0, "another played.pace:"),
            (
                |it| it.played.held = BTreeMap::from([("gamma".to_owned(), Parameter::Int(5))]),
                "another played.held.gamma:",
            ),
        ];
        for (change, told) in changed {
            let mut other = settings();
            change(&mut other);
            let error = state.clone().trials_for(&other, &path).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert!(State::read(&path).is_err());
        for (text, told) in [
            ("{", "is no search"),
            ("{\"version\": 1}", "is no search"),
            ("{\"version\": 2}", "another version"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = State::read(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
