//! Cases: what a plug-in is given, told as differences from documented defaults, and what is expected of its answer.
//!
//! A file of cases is TOML or JSON and lies in the folder `cases` beside the manifest:
//!
//! ```toml
//! [[case]]
//! name = "a slow link keeps an image at the edge"
//! part = [{ modality = "image", tokens = 400, necessity = 0.9, mas = 0.2 }]
//! peer = [{ uplink-bps = 1e6, rtt-ms = 200 }]
//! expect = { route = "edge", reason = "link-slow", terms = { upload-ms = { min = 900, max = 1000 } } }
//! ```
//!
//! [`Case`] says which keys there are, [`situation`] what stands where a case is silent, [`expect`] how an answer is held
//! against `expect`.

pub mod answer;
pub mod expect;
pub mod situation;
mod sparse;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use msao_core::offload::Calibration;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::files;

/// Cases that one file may hold.
const MAX_CASES: usize = 10_000;

/// Which function of the contract a case calls.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Decides how a request runs.
    #[default]
    Plan,
    /// Says how drafting goes on.
    Step,
    /// Learns from an outcome.
    Observe,
    /// Says in words why a plan is as it is.
    Explain,
    /// Scores what the probe saw.
    Score,
}

impl Call {
    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Call::Plan => "plan",
            Call::Step => "step",
            Call::Observe => "observe",
            Call::Explain => "explain",
            Call::Score => "score",
        }
    }
}

/// One cell of calibration, as a case gives it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cell {
    /// What the plug-in calls it.
    pub key: u32,
    /// Mean of its samples.
    #[serde(default)]
    pub mean: f64,
    /// Their variance.
    #[serde(default)]
    pub variance: f64,
    /// How many there were, or what `add` has summed up.
    #[serde(default = "one")]
    pub count: f64,
}

fn one() -> f64 {
    1.0
}

/// What a plug-in is given, as a file tells it. Everything may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Given {
    /// The function that is called; `score` is the default for a post-processor.
    pub call: Option<Call>,
    /// Fields of the request.
    #[serde(default)]
    pub request: Map<String, Value>,
    /// Media, in prompt order.
    #[serde(default)]
    pub part: Vec<Map<String, Value>>,
    /// The part of all text, which is always the last.
    #[serde(default)]
    pub text: Map<String, Value>,
    /// This node.
    #[serde(default)]
    pub here: Map<String, Value>,
    /// The peers; one at its defaults where nothing is said, none where the list is empty.
    pub peer: Option<Vec<Map<String, Value>>>,
    /// Parameters by name, as the manifest writes them.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// What was learned.
    #[serde(default)]
    pub cell: Vec<Cell>,
    /// The scalars of `step`.
    #[serde(default)]
    pub step: Map<String, Value>,
    /// What became of the request, for `observe`.
    #[serde(default)]
    pub outcome: Map<String, Value>,
    /// What the probe saw, for `score`.
    #[serde(default)]
    pub report: Map<String, Value>,
    /// The plan's memo, for `step` and `observe`. Left out: the plug-in is asked for a plan first.
    pub memo: Option<Vec<u8>>,
    /// The plan that `explain` explains. Left out: the plug-in is asked for one first.
    #[serde(default)]
    pub plan: Map<String, Value>,
}

/// A case: what is given, and what is expected.
#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Why, for people.
    #[serde(default)]
    pub about: String,
    /// What the answer is held against.
    pub expect: Value,
    /// What is given.
    #[serde(flatten)]
    pub given: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    case: Vec<Case>,
}

/// A text as JSON, whether it is TOML or JSON: by the file's ending, or by how it begins.
///
/// # Errors
/// Where it stops being either.
pub fn parse<T: serde::de::DeserializeOwned>(text: &str, name: &Path) -> anyhow::Result<T> {
    let json = match name.extension().and_then(|ending| ending.to_str()) {
        Some("json") => true,
        Some("toml") => false,
        _ => text.trim_start().starts_with('{'),
    };
    let parsed = if json {
        serde_json::from_str(text).map_err(anyhow::Error::from)
    } else {
        toml::from_str(text).map_err(anyhow::Error::from)
    };
    parsed.with_context(|| format!("{} cannot be read", name.display()))
}

/// What a case or an input file gives.
///
/// # Errors
/// Naming a key that does not exist, or a value of the wrong type.
pub fn given(map: Map<String, Value>) -> anyhow::Result<Given> {
    Ok(serde_json::from_value(Value::Object(map))?)
}

/// Finds the files of cases in `folder`, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn find(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if matches!(
            path.extension().and_then(|e| e.to_str()),
            Some("toml" | "json")
        ) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Reads a file of cases.
///
/// # Errors
/// Naming the file and what is wrong with it.
pub fn read(path: &Path) -> anyhow::Result<Vec<Case>> {
    let file: File = parse(&files::read_text(path)?, path)?;
    if file.case.is_empty() {
        bail!("{} has no case: write `[[case]]`", path.display());
    }
    if file.case.len() > MAX_CASES {
        bail!(
            "{} has {} cases; at most {MAX_CASES} are allowed",
            path.display(),
            file.case.len()
        );
    }
    Ok(file.case)
}

/// Cells as a snapshot: sorted by key.
///
/// # Errors
/// When a key is there twice.
pub fn calibration(cells: &[Cell]) -> anyhow::Result<Calibration> {
    let mut cells: Vec<&Cell> = cells.iter().collect();
    cells.sort_by_key(|cell| cell.key);
    if let Some([first, _]) = cells
        .array_windows()
        .find(|[first, second]| first.key == second.key)
    {
        bail!("cell: key {} is there twice", first.key);
    }
    Ok(Calibration {
        keys: cells.iter().map(|cell| cell.key).collect(),
        mean: cells.iter().map(|cell| cell.mean).collect(),
        variance: cells.iter().map(|cell| cell.variance).collect(),
        count: cells.iter().map(|cell| cell.count).collect(),
    })
}
