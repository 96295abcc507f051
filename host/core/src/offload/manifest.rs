//! `policy.toml`: what an author says of a plug-in, beside the component itself.
//!
//! ```
//! use msao_core::offload::manifest::Manifest;
//!
//! let manifest = Manifest::parse(
//!     r#"
//!     name = "patient"
//!     version = "0.1.0"
//!     world = "offload-policy"
//!     description = "Speculates while the link is good."
//!     state-schema = 1
//!
//!     [[parameter]]
//!     name = "rtt-limit"
//!     type = "float"
//!     default = 60.0
//!     min = 1.0
//!     max = 1000.0
//!     unit = "ms"
//!     meaning = "Round trip above which nothing is drafted"
//!     tune = true
//!
//!     [[reason]]
//!     name = "link-good"
//!     meaning = "The round trip is short enough"
//!     "#,
//! )?;
//! assert_eq!(manifest.defaults(), [60.0]);
//! # Ok::<(), msao_core::offload::manifest::ManifestError>(())
//! ```

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Parameters, reasons or terms that a manifest may list.
const MAX_LISTED: usize = 64;
/// Characters of a name.
const MAX_NAME: usize = 63;
/// Bytes of a manifest.
const MAX_BYTES: usize = 64 << 10;

/// Why a manifest was refused.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// Larger than any honest one.
    #[error("the manifest has {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLarge(usize),
    /// No TOML, a key that does not exist, or a value of the wrong type.
    #[error("the manifest cannot be read: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A value that may not be.
    #[error("{field}: {problem}")]
    Value {
        /// The key, for instance `parameter[2].default`.
        field: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

/// The world of `wit/worlds.wit` that a component is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum World {
    /// Scores what the probe saw.
    ProbePostprocessor,
    /// Decides how requests run.
    OffloadPolicy,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            World::ProbePostprocessor => "probe-postprocessor",
            World::OffloadPolicy => "offload-policy",
        })
    }
}

/// Whether a policy wants the probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Probe {
    /// Never: it does not pay for it, and sees scores of -1.
    #[default]
    None,
    /// Always.
    Full,
    /// `plan` runs first without it and may ask.
    Ask,
}

/// What is begun at a peer for a policy while the probe runs, before there is a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ahead {
    /// Nothing: the first byte goes out by the plan.
    #[default]
    None,
    /// A session is opened: media go up, and the target reads the whole prompt. A plan for that peer and the whole prompt, on
    /// route `cloud` or `speculate`, goes on with it; by any other plan it is cancelled, and what it took was for nothing.
    Session,
}

/// What kind of number a parameter is. Plug-ins get all of them as f64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterType {
    /// Any number in the range.
    Float,
    /// A whole number in the range.
    Int,
    /// 0 or 1.
    Bool,
    /// The number of one of `choices`.
    Choice,
}

/// A parameter's value as it is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any number.
    Float(f64),
    /// A choice by name.
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => write!(f, "{value}"),
            Value::Text(value) => write!(f, "\"{value}\""),
        }
    }
}

/// A number that an operator may set and calibration may tune.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What kind of number it is.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// Its value where nobody says otherwise.
    pub default: Value,
    /// Lowest value; `float` and `int` only, which need it.
    pub min: Option<f64>,
    /// Highest value; `float` and `int` only, which need it.
    pub max: Option<f64>,
    /// The names of a `choice`.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Its unit, for people.
    #[serde(default)]
    pub unit: String,
    /// What it does, for people.
    pub meaning: String,
    /// Whether calibration may change it.
    #[serde(default)]
    pub tune: bool,
}

/// Something that a plan names by number: a reason, or a term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// What it says, for people.
    pub meaning: String,
    /// The unit of a term.
    #[serde(default)]
    pub unit: String,
    /// Of a reason: the term that decides where it is given. For people: `msao explain` points it out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub term: String,
}

/// Limits that a plug-in sets itself. They may only be lower than the operator's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OwnLimits {
    /// Memory of an instance, all its memories together, MiB.
    pub memory_mib: Option<u32>,
    /// Elements of all its tables together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_elements: Option<u32>,
    /// Size of its component, MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_mib: Option<u32>,
    /// Deadline of `score`, ms.
    pub score_ms: Option<u32>,
    /// Deadline of `plan`, ms.
    pub plan_ms: Option<u32>,
    /// Deadline of `step`, ms.
    pub step_ms: Option<u32>,
    /// Deadline of `observe`, ms.
    pub observe_ms: Option<u32>,
    /// Deadline of `explain`, ms.
    pub explain_ms: Option<u32>,
}

/// What an author says of a plug-in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// Its name: lower-case letters, digits and hyphens. Calibration is kept under it.
    pub name: String,
    /// Its version, as semver.org has it.
    pub version: semver::Version,
    /// The world that it is made for.
    pub world: World,
    /// What it does, in a line.
    pub description: String,
    /// The meaning of its calibration cells, by number. Cells of another number are not taken over.
    pub state_schema: u32,
    /// Whether a policy wants the probe.
    #[serde(default)]
    pub probe: Probe,
    /// What is begun at a peer for a policy while the probe runs.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub ahead: Ahead,
    /// Lower limits.
    #[serde(default)]
    pub limits: OwnLimits,
    /// Parameters, in the order in which plug-ins get them.
    #[serde(default, rename = "parameter")]
    pub parameters: Vec<Parameter>,
    /// Reasons, numbered from 0.
    #[serde(default, rename = "reason")]
    pub reasons: Vec<Named>,
    /// Terms of a plan, in their order.
    #[serde(default, rename = "term")]
    pub terms: Vec<Named>,
}

/// Whether the key may be left out: manifests that do not have it are written as they always were.
fn is_nothing(ahead: &Ahead) -> bool {
    *ahead == Ahead::None
}

fn wrong<T>(field: impl Into<String>, problem: impl Into<String>) -> Result<T, ManifestError> {
    Err(ManifestError::Value {
        field: field.into(),
        problem: problem.into(),
    })
}

/// Checks a name: a lower-case letter, then letters, digits and hyphens.
fn check_name(field: &str, name: &str) -> Result<(), ManifestError> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if starts && rest && name.len() <= MAX_NAME {
        return Ok(());
    }
    wrong(
        field,
        format!(
            "\"{name}\" is no name; allowed: a lower-case letter, then lower-case letters, digits and hyphens, at \
             most {MAX_NAME} in all"
        ),
    )
}

fn check_names<'a>(
    list: &str,
    names: impl ExactSizeIterator<Item = &'a str>,
) -> Result<(), ManifestError> {
    if names.len() > MAX_LISTED {
        return wrong(
            list,
            format!(
                "has {} entries; at most {MAX_LISTED} are allowed",
                names.len()
            ),
        );
    }
    let mut seen = HashSet::new();
    for (i, name) in names.enumerate() {
        let field = format!("{list}[{i}].name");
        check_name(&field, name)?;
        if !seen.insert(name) {
            return wrong(field, format!("\"{name}\" is there twice"));
        }
    }
    Ok(())
}

impl Parameter {
    /// `value` as the number that plug-ins get.
    ///
    /// # Errors
    /// What is wrong with it and what is allowed.
    pub fn number(&self, value: &Value) -> Result<f64, String> {
        let in_range = |x: f64| {
            let (min, max) = (
                self.min.unwrap_or(f64::NEG_INFINITY),
                self.max.unwrap_or(f64::INFINITY),
            );
            if x >= min && x <= max {
                Ok(x)
            } else {
                Err(format!("{value} is out of range; allowed: {min} to {max}"))
            }
        };
        match (self.kind, value) {
            (ParameterType::Float, &Value::Float(x)) => in_range(x),
            (ParameterType::Float | ParameterType::Int, &Value::Int(x)) => in_range(x as f64),
            (ParameterType::Bool, &Value::Bool(x)) => Ok(f64::from(u8::from(x))),
            (ParameterType::Choice, Value::Text(name)) => (self.choices.iter())
                .position(|choice| choice == name)
                .map(|number| number as f64)
                .ok_or_else(|| {
                    format!("{value} is no choice; allowed: {}", self.choices.join(", "))
                }),
            (kind, _) => Err(format!(
                "{value} is no {}",
                match kind {
                    ParameterType::Float => "number",
                    ParameterType::Int => "whole number",
                    ParameterType::Bool => "bool; allowed: true, false",
                    ParameterType::Choice => "name of a choice",
                }
            )),
        }
    }

    fn check(&self, at: &str) -> Result<(), ManifestError> {
        let numeric = matches!(self.kind, ParameterType::Float | ParameterType::Int);
        match (numeric, self.min, self.max) {
            (true, Some(min), Some(max)) if min.is_finite() && max.is_finite() && min <= max => {}
            (true, _, _) => {
                return wrong(
                    format!("{at}.min"),
                    "min and max are needed, both finite and min at most max",
                );
            }
            (false, None, None) => {}
            (false, _, _) => return wrong(format!("{at}.min"), "only float and int have a range"),
        }
        if (self.kind == ParameterType::Choice) != (self.choices.len() >= 2) {
            return wrong(
                format!("{at}.choices"),
                "a choice names at least two, other types none",
            );
        }
        self.number(&self.default)
            .map(drop)
            .or_else(|problem| wrong(format!("{at}.default"), problem))
    }
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`ManifestError`], naming the key and what is allowed.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        if text.len() > MAX_BYTES {
            return Err(ManifestError::TooLarge(text.len()));
        }
        let manifest: Manifest = toml::from_str(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ManifestError> {
        check_name("name", &self.name)?;
        if self.world == World::ProbePostprocessor && self.probe != Probe::None {
            return wrong("probe", "only a policy asks for the probe");
        }
        if self.ahead != Ahead::None && self.probe == Probe::None {
            let problem = "beside the probe only, and this plug-in has none; allowed with probe = \"full\" or \"ask\"";
            return wrong("ahead", problem);
        }
        check_names("parameter", self.parameters.iter().map(|p| p.name.as_str()))?;
        check_names("reason", self.reasons.iter().map(|r| r.name.as_str()))?;
        check_names("term", self.terms.iter().map(|t| t.name.as_str()))?;
        let is_term = |name: &str| self.terms.iter().any(|term| term.name == name);
        for (i, reason) in self.reasons.iter().enumerate() {
            if !(reason.term.is_empty() || is_term(&reason.term)) {
                let problem = format!("\"{}\" is none of the manifest's terms", reason.term);
                return wrong(format!("reason[{i}].term"), problem);
            }
        }
        if let Some(i) = self.terms.iter().position(|term| !term.term.is_empty()) {
            return wrong(format!("term[{i}].term"), "only a reason names a term");
        }
        for (i, parameter) in self.parameters.iter().enumerate() {
            parameter.check(&format!("parameter[{i}]"))?;
        }
        let limits = &self.limits;
        let own = [
            ("limits.memory-mib", limits.memory_mib),
            ("limits.table-elements", limits.table_elements),
            ("limits.artifact-mib", limits.artifact_mib),
            ("limits.score-ms", limits.score_ms),
            ("limits.plan-ms", limits.plan_ms),
            ("limits.step-ms", limits.step_ms),
            ("limits.observe-ms", limits.observe_ms),
            ("limits.explain-ms", limits.explain_ms),
        ];
        match own.iter().find(|(_, value)| *value == Some(0)) {
            Some((field, _)) => wrong(*field, "is 0; allowed: 1 or more"),
            None => Ok(()),
        }
    }

    /// Parameters at their defaults, as plug-ins get them.
    pub fn defaults(&self) -> Vec<f64> {
        // A default that is no number has been refused by `parse`.
        (self.parameters.iter())
            .map(|parameter| parameter.number(&parameter.default).unwrap_or(0.0))
            .collect()
    }

    /// The number of the parameter called `name`.
    pub fn parameter(&self, name: &str) -> Option<usize> {
        self.parameters
            .iter()
            .position(|parameter| parameter.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "name = \"a\"\nversion = \"1.0.0\"\nworld = \"offload-policy\"\ndescription = \"\"\n\
                         state-schema = 0\n";

    #[test]
    fn what_is_wrong_is_named() {
        assert!(Manifest::parse(PLAIN).is_ok());
        let parameter =
            |lines: &str| format!("{PLAIN}[[parameter]]\nname = \"p\"\nmeaning = \"\"\n{lines}\n");
        for (text, named) in [
            (PLAIN.replace("\"a\"", "\"A\""), "name: \"A\" is no name"),
            (PLAIN.replace("1.0.0", "1"), "version"),
            (PLAIN.replace("offload-policy", "other"), "world"),
            (format!("{PLAIN}colour = 1"), "colour"),
            (
                PLAIN
                    .replace("offload-policy", "probe-postprocessor")
                    .replace("state", "probe = \"full\"\nstate"),
                "probe:",
            ),
            (
                PLAIN.replace("state", "ahead = \"session\"\nstate"),
                "ahead: beside the probe only",
            ),
            (
                PLAIN.replace("state", "ahead = \"media\"\nstate"),
                "unknown variant `media`, expected `none` or `session`",
            ),
            (
                parameter("type = \"float\"\ndefault = 1.0"),
                "parameter[0].min",
            ),
            (
                parameter("type = \"float\"\ndefault = nan\nmin = 0\nmax = 1"),
                "parameter[0].default",
            ),
            (
                parameter("type = \"int\"\ndefault = 0.5\nmin = 0\nmax = 1"),
                "parameter[0].default: 0.5 is no whole number",
            ),
            (
                parameter("type = \"choice\"\ndefault = \"c\"\nchoices = [\"a\", \"b\"]"),
                "allowed: a, b",
            ),
            (
                format!(
                    "{PLAIN}[[term]]\nname = \"t\"\nmeaning = \"\"\n[[term]]\nname = \"t\"\nmeaning = \"\""
                ),
                "term[1].name: \"t\" is there twice",
            ),
            (
                format!("{PLAIN}[limits]\nplan-ms = 0"),
                "limits.plan-ms: is 0",
            ),
            (
                format!("{PLAIN}[[reason]]\nname = \"r\"\nmeaning = \"\"\nterm = \"t\""),
                "reason[0].term: \"t\" is none of the manifest's terms",
            ),
            (
                format!("{PLAIN}[[term]]\nname = \"t\"\nmeaning = \"\"\nterm = \"t\""),
                "term[0].term: only a reason",
            ),
        ] {
            let error = Manifest::parse(&text).unwrap_err().to_string();
            assert!(error.contains(named), "{error}\nshould name {named}");
        }
    }
}
