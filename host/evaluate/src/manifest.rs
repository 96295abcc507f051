//! `manifest.json`: what was run, on what. A folder holds one of each; what does not match is refused by name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::spec::Spec;

const FILE: &str = "manifest.json";
/// Of the format.
const FORMAT: u32 = 1;
/// Differences that a message lists.
const MOST_TOLD: usize = 12;

/// Why a manifest does not do.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// It cannot be read or written.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none of this version's.
    #[error("{path}: {problem}; it is no manifest of this version: name another folder", path = .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// It is of something else.
    #[error(
        "the folder's results are of something else: {}; restore that, or name another folder",
        .0.iter().map(Difference::to_string).collect::<Vec<_>>().join("; ")
    )]
    Differs(Vec<Difference>),
    /// It would shrink.
    #[error("{key} is {now}, but the folder's run has {before}; it may be raised, not lowered")]
    Lowered {
        /// The specification's key.
        key: &'static str,
        /// In the folder.
        before: u32,
        /// In the specification at hand.
        now: u32,
    },
}

/// Something in which two manifests differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// For instance `machine.kernel`.
    pub what: String,
    /// In the first, or in the folder.
    pub before: String,
    /// In the other, or now.
    pub now: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, out: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(out, "{} was {}, is {}", self.what, self.before, self.now)
    }
}

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Of the operating system.
    pub kernel: String,
}

impl Machine {
    /// This one. What cannot be found out is empty.
    pub fn here() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Machine {
            cpu: value(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores: std::thread::available_parallelism().map_or(0, Into::into),
            memory_bytes: kib << 10,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

/// What only those know who ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// Of the source.
    pub commit: String,
    /// For instance of `msao` and `libtorch`.
    pub versions: BTreeMap<String, String>,
    /// SHA-256 of models, components and data sets, by name.
    pub digests: BTreeMap<String, String>,
    /// What is not real, a sentence each: links, for instance.
    pub emulated: Vec<String>,
    /// Cores of each node, for its models and all else that it does. None: not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_cores: Option<u32>,
}

/// One start of the program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// As rows name it.
    pub id: String,
    /// In ms since 1970.
    pub began_unix_ms: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of this file.
    pub format: u32,
    /// What was to be evaluated.
    pub spec: Spec,
    /// [`Spec::digest`].
    pub spec_digest: String,
    /// On what.
    pub machine: Machine,
    /// With what.
    pub facts: Facts,
    /// Each start, in their order.
    pub runs: Vec<Run>,
}

impl Manifest {
    /// Of a run that begins.
    pub fn new(spec: Spec, spec_digest: String, machine: Machine, facts: Facts) -> Manifest {
        Manifest {
            format: FORMAT,
            spec,
            spec_digest,
            machine,
            facts,
            runs: Vec::new(),
        }
    }

    /// That of a folder; None: it has none.
    ///
    /// # Errors
    /// [`ManifestError`]: it cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Manifest>, ManifestError> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ManifestError::Io { path, source }),
        };
        let broken = |problem: String| ManifestError::Broken {
            path: path.clone(),
            problem,
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        let format = value.get("format").and_then(Value::as_u64);
        if format != Some(u64::from(FORMAT)) {
            let told = format.map_or("none".to_owned(), |format| format.to_string());
            return Err(broken(format!("format is {told}, known is {FORMAT}")));
        }
        let manifest = serde_json::from_value(value).map_err(|error| broken(error.to_string()))?;
        Ok(Some(manifest))
    }

    /// Writes it into a folder: whole or not at all.
    ///
    /// # Errors
    /// [`ManifestError::Io`]; what was there is as it was.
    pub fn write(&self, folder: &Path) -> Result<(), ManifestError> {
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(self).map_err(|error| ManifestError::Broken {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        write_whole(&path, &text).map_err(|source| ManifestError::Io { path, source })
    }

    /// Goes on with what a folder has: its runs come before this one's, and what may be raised is.
    ///
    /// # Errors
    /// [`ManifestError::Differs`] or [`ManifestError::Lowered`].
    pub fn goes_on_with(&mut self, before: &Manifest) -> Result<(), ManifestError> {
        let (mut differences, with) = (self.differences_from(before), self);
        differences.truncate(MOST_TOLD);
        if !differences.is_empty() {
            return Err(ManifestError::Differs(differences));
        }
        let requests = |spec: &Spec| spec.accuracy.as_ref().map_or(0, |it| it.requests);
        for (key, before, now) in [
            ("repeats", before.spec.repeats, with.spec.repeats),
            (
                "accuracy.requests",
                requests(&before.spec),
                requests(&with.spec),
            ),
        ] {
            if now < before {
                return Err(ManifestError::Lowered { key, before, now });
            }
        }
        with.runs.splice(0..0, before.runs.iter().cloned());
        Ok(())
    }

    /// In what it differs, but for runs and for what may be raised.
    pub fn differences_from(&self, before: &Manifest) -> Vec<Difference> {
        let mut differences = Vec::new();
        let (Ok(mut old), Ok(mut new)) = (serde_json::to_value(before), serde_json::to_value(self))
        else {
            return differences;
        };
        for value in [&mut old, &mut new] {
            if let Some(all) = value.as_object_mut() {
                all.remove("runs");
                // The parts of the specification tell more.
                all.remove("spec_digest");
            }
            if let Some(spec) = value.pointer_mut("/spec").and_then(Value::as_object_mut) {
                spec.remove("repeats");
            }
            if let Some(accuracy) = value
                .pointer_mut("/spec/accuracy")
                .and_then(Value::as_object_mut)
            {
                accuracy.remove("requests");
            }
        }
        differ("", &old, &new, &mut differences);
        differences
    }
}

/// Adds what differs between two values, leaf by leaf.
fn differ(place: &str, old: &Value, new: &Value, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let inner = |key: &str| match place {
        "" => key.to_owned(),
        place => format!("{place}.{key}"),
    };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let more = new.keys().filter(|key| !old.contains_key(*key));
            for key in old.keys().chain(more) {
                let of = |all: &serde_json::Map<String, Value>| {
                    all.get(key).cloned().unwrap_or(Value::Null)
                };
                differ(&inner(key), &of(old), &of(new), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (number, (old, new)) in old.iter().zip(new).enumerate() {
                differ(&format!("{place}[{number}]"), old, new, found);
            }
        }
        _ => found.push(Difference {
            what: place.replace('_', "-"),
            before: told(old),
            now: told(new),
        }),
    }
}

/// A value in few words.
fn told(value: &Value) -> String {
    const MOST: usize = 60;
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Object(_) => "a section".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(MOST) {
                Some((end, _)) => format!("{}...", text.get(..end).unwrap_or("")),
                None => text,
            }
        }
    }
}

/// Writes a file beside its place, and then puts it there.
pub(crate) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let write = || {
        let mut file = File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| {
        let _gone = fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = "name = \"t\"\nrepeats = 2\nrequests = 2\npair = \"demo\"\naccuracy = { requests = 5 }\n\
                    data = [{ set = \"demo\", n = 5 }]\npolicies = [{ name = \"cloud-only\", policy = \"cloud-only\" }]\n\
                    links = [{ name = \"a\", up-mbit = 1, down-mbit = 1, rtt-ms = 1 }]\n\
                    arrivals = [{ kind = \"closed\", concurrency = 1 }]\n";
        let spec = Spec::parse(text).unwrap();
        let facts = Facts {
            commit: "abc".to_owned(),
            digests: BTreeMap::from([("target".to_owned(), "1".to_owned())]),
            ..Facts::default()
        };
        let digest = spec.digest().unwrap();
        let mut manifest = Manifest::new(spec, digest, Machine::here(), facts);
        manifest.runs.push(Run {
            id: "r1".to_owned(),
            began_unix_ms: 7,
        });
        manifest
    }

    #[test]
    fn what_is_written_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Manifest::read(folder.path()).unwrap().is_none());
        let mut first = manifest();
        first.facts.node_cores = Some(1);
        first.write(folder.path()).unwrap();
        let read = Manifest::read(folder.path()).unwrap().unwrap();
        assert_eq!(read, first);
        let mut second = manifest();
        second.runs[0].id = "r2".to_owned();
        second.spec.repeats = 3;
        second.spec.accuracy.as_mut().unwrap().requests = 9;
        let told = second.goes_on_with(&read).unwrap_err().to_string();
        assert!(told.contains("node-cores was 1, is nothing"), "{told}");
        second.facts.node_cores = Some(1);
        second.goes_on_with(&read).unwrap();
        let ids: Vec<&str> = second.runs.iter().map(|it| &*it.id).collect();
        assert_eq!(ids, ["r1", "r2"]);
        let mut fewer = manifest();
        fewer.facts.node_cores = Some(1);
        let told = fewer.goes_on_with(&second).unwrap_err().to_string();
        assert!(
            told.contains("repeats is 2, but the folder's run has 3"),
            "{told}"
        );
    }

    #[test]
    fn a_full_disk_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let first = manifest();
        first.write(folder.path()).unwrap();
        // What is written beside it comes to a device that is always full.
        let beside = folder.path().join(format!("{FILE}.new"));
        std::os::unix::fs::symlink("/dev/full", &beside).unwrap();
        let mut second = manifest();
        second.spec.repeats = 3;
        match second.write(folder.path()).unwrap_err() {
            ManifestError::Io { path, source } => {
                assert_eq!(path, folder.path().join(FILE));
                assert_eq!(source.kind(), io::ErrorKind::StorageFull);
            }
            other => panic!("{other}"),
        }
        assert!(fs::symlink_metadata(&beside).is_err());
        let read = Manifest::read(folder.path()).unwrap().unwrap();
        assert_eq!(read, first);
        // There is room again.
        second.write(folder.path()).unwrap();
        let read = Manifest::read(folder.path()).unwrap().unwrap();
        assert_eq!(read, second);
    }

    #[test]
    fn what_differs_is_named() {
        let before = manifest();
        type Change = fn(&mut Manifest);
        let changes: [(Change, &str); 6] = [
            (
                |it| it.spec.accuracy.as_mut().unwrap().rounds = vec![100],
                "spec.accuracy.rounds was a list of 0, is a list of 1",
            ),
            (
                |it| it.machine.kernel = "other".to_owned(),
                "machine.kernel was ",
            ),
            (
                |it| it.facts.commit = "def".to_owned(),
                "facts.commit was \"abc\", is \"def\"",
            ),
            (
                |it| it.facts.digests.clear(),
                "facts.digests.target was \"1\", is nothing",
            ),
            (
                |it| it.spec.links[0].rtt_ms = 2.0,
                "spec.links[0].rtt-ms was 1.0, is 2.0",
            ),
            (
                |it| it.facts.emulated.push("x".to_owned()),
                "facts.emulated was a list of 0, is a list of 1",
            ),
        ];
        for (change, told) in changes {
            let mut now = manifest();
            change(&mut now);
            let error = now.goes_on_with(&before).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{", "{}", "{\"format\": 99}", "{\"format\": 1}"] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let told = Manifest::read(folder.path()).unwrap_err().to_string();
            assert!(told.contains("no manifest of this version"), "{told}");
        }
        let machine = Machine::here();
        assert!(machine.cores > 0);
    }
}
