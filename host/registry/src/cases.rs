//! Inputs on which plug-ins failed, kept so that their authors can replay them.
//!
//! A file for each: `cases/<id>.json`. Its name is made of the component, the export and the input. A request's content that
//! fails again is not written down again, whatever its seed and time, and not even looked at. The oldest go when there are
//! too many.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use msao_core::digest::Digest;
use msao_core::offload::record::GenerationId;
use msao_core::offload::{
    Calibration, Node, Outcome, Part, Plan, PlanInput, Report, Request, StepInput,
};
use msao_sandbox::{Export, Limits};
use msao_state::Redact;
use serde::{Deserialize, Serialize};

use crate::config::CaseConfig;
use crate::files::{FileError, at, prepare, read, write_whole};

/// The version of [`Case`] that this program writes and reads.
const VERSION: u32 = 1;

/// All arguments of a call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseInput {
    /// Of `score`.
    #[serde(rename_all = "kebab-case")]
    Score {
        /// What the probe saw.
        report: Report,
        /// The request's seed.
        seed: u64,
        /// Values of the manifest's parameters.
        params: Vec<f64>,
        /// What was learned.
        calibration: Calibration,
    },
    /// Of `plan`.
    #[serde(rename_all = "kebab-case")]
    Plan {
        /// What was asked.
        request: Request,
        /// Media, then text.
        parts: Vec<Part>,
        /// This node, then each peer.
        nodes: Vec<Node>,
        /// Values of the manifest's parameters.
        params: Vec<f64>,
        /// What was learned.
        calibration: Calibration,
        /// Of `explain`: the plan that is to be explained.
        explained: Option<Plan>,
    },
    /// Of `step`.
    #[serde(rename_all = "kebab-case")]
    Step {
        /// What happened.
        input: StepInput,
        /// The plan's memo.
        memo: Vec<u8>,
    },
    /// Of `observe`.
    #[serde(rename_all = "kebab-case")]
    Observe {
        /// What became of the request.
        outcome: Outcome,
        /// Values of the manifest's parameters.
        params: Vec<f64>,
        /// What was learned.
        calibration: Calibration,
    },
}

impl CaseInput {
    /// Takes out what the operator does not want kept; returns what that was, as a replay does without it.
    pub fn redact(&mut self, redacts: impl Fn(Redact) -> bool) -> Vec<Redact> {
        match self {
            CaseInput::Score { report, .. } if redacts(Redact::Report) => {
                *report = Report::default();
                vec![Redact::Report]
            }
            CaseInput::Plan { request, .. } if redacts(Redact::Tenant) => {
                request.tenant = 0;
                vec![Redact::Tenant]
            }
            CaseInput::Step { input, .. } if redacts(Redact::Steps) => {
                // How sure the draft was of a token.
                *input = StepInput {
                    p_accept: 0.0,
                    top1: 0.0,
                    entropy_nats: 0.0,
                    margin: 0.0,
                    ..*input
                };
                vec![Redact::Steps]
            }
            _ => Vec::new(),
        }
    }

    /// The arguments of `plan`, owned.
    pub fn plan(input: PlanInput, explained: Option<&Plan>) -> CaseInput {
        CaseInput::Plan {
            request: input.request.clone(),
            parts: input.parts.to_vec(),
            nodes: input.nodes.to_vec(),
            params: input.params.to_vec(),
            calibration: input.calibration.clone(),
            explained: explained.cloned(),
        }
    }
}

/// What is told of a failure without its input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CaseSummary {
    /// Its name, 16 hexadecimal digits.
    pub id: String,
    /// When it failed first, in ms since 1970.
    pub at_ms: f64,
    /// The plug-in's name and version.
    pub plugin: String,
    /// Its component.
    pub artifact: Digest,
    /// The generation that it was part of.
    pub generation: GenerationId,
    /// What was called.
    pub export: String,
    /// The kind of failure, as metrics name it.
    pub kind: String,
    /// What happened, in a line.
    pub message: String,
    /// Functions that were running, innermost first.
    pub backtrace: Option<String>,
    /// Most bytes that the instance had.
    pub memory_peak: u64,
    /// How long the call ran, ms.
    pub elapsed_ms: f64,
    /// The limits that were in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What of the input was left out, by `records.redact`: a replay may go otherwise without it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<Redact>,
}

/// A failure with the input that led to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Case {
    /// 1.
    pub version: u32,
    /// What happened.
    pub failure: CaseSummary,
    /// The call's arguments.
    pub input: CaseInput,
}

impl Case {
    /// A case, named by what it is about.
    pub fn new(mut failure: CaseSummary, input: CaseInput) -> Case {
        let mut bytes = failure.artifact.0.to_vec();
        bytes.extend(failure.export.bytes());
        // What is plain numbers and lists can always be written.
        ciborium::into_writer(&input, &mut bytes).unwrap_or_default();
        failure.id = Digest::of(&bytes).to_string().chars().take(16).collect();
        Case {
            version: VERSION,
            failure,
            input,
        }
    }
}

/// A case as JSON of at most `most` bytes, which is sure to be readable again: JSON has no infinite numbers.
fn text_of(case: &Case, most: u64) -> io::Result<Vec<u8>> {
    let fits = |bytes: &Vec<u8>| bytes.len() as u64 <= most;
    let mut bytes = serde_json::to_vec_pretty(case)?;
    if !fits(&bytes) {
        // A probe's report has a number a line.
        bytes = serde_json::to_vec(case)?;
    }
    if !fits(&bytes) {
        let problem = format!("it would have more than the {most} bytes that are read again");
        return Err(io::Error::other(problem));
    }
    serde_json::from_slice::<Case>(&bytes)?;
    Ok(bytes)
}

/// Contents that are known to fail, at most; then it begins anew.
const MAX_KNOWN: usize = 4096;

#[derive(Debug, Default)]
struct Shelf {
    /// Oldest first: name and bytes.
    files: Vec<(String, u64)>,
    summaries: HashMap<String, CaseSummary>,
}

/// The folder of all cases.
#[derive(Debug)]
pub struct Cases {
    folder: PathBuf,
    config: CaseConfig,
    shelf: Mutex<Shelf>,
    /// Component, export and content of what was handed in since the start.
    known: Mutex<HashSet<(Digest, Export, Digest)>>,
}

impl Cases {
    /// Bytes that a case's file has at most, wherever it is read.
    pub const MAX_BYTES: u64 = 16 << 20;

    /// Opens the folder, or makes it. What cannot be read is left out.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(folder: &Path, config: CaseConfig) -> Result<Cases, FileError> {
        prepare(folder)?;
        let mut found: Vec<(SystemTime, String, u64)> = Vec::new();
        for entry in fs::read_dir(folder).map_err(at(folder, "read"))? {
            let entry = entry.map_err(at(folder, "read"))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (Some(id), Ok(metadata)) = (name.strip_suffix(".json"), entry.metadata()) else {
                continue;
            };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((modified, id.to_owned(), metadata.len()));
        }
        found.sort_unstable();
        let cases = Cases {
            folder: folder.to_owned(),
            config,
            shelf: Mutex::default(),
            known: Mutex::default(),
        };
        for (_, id, bytes) in found {
            if let Ok(Some(case)) = cases.get(&id) {
                let mut shelf = cases.shelf();
                shelf.summaries.insert(id.clone(), case.failure);
                shelf.files.push((id, bytes));
            }
        }
        cases.evict(&mut cases.shelf());
        Ok(cases)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.json"))
    }

    fn evict(&self, shelf: &mut Shelf) {
        let most = u64::from(self.config.mib) << 20;
        let mut total: u64 = shelf.files.iter().map(|(_, bytes)| bytes).sum();
        while shelf.files.len() > self.config.keep as usize || total > most {
            if shelf.files.is_empty() {
                break;
            }
            let (id, bytes) = shelf.files.remove(0);
            total -= bytes;
            shelf.summaries.remove(&id);
            // A file that stays is found, and evicted, at the next start.
            let _ = fs::remove_file(self.path(&id));
        }
    }

    /// Whether a failure of that component's export on that content is news. It is none from then on.
    pub fn is_news(&self, artifact: Digest, export: Export, content: Digest) -> bool {
        if self.config.keep == 0 {
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert((artifact, export, content))
    }

    /// It could not be kept: the next time it is news again.
    pub fn forget(&self, artifact: Digest, export: Export, content: Digest) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&(artifact, export, content));
    }

    /// Whether a case is kept already.
    pub fn has(&self, id: &str) -> bool {
        self.shelf().summaries.contains_key(id)
    }

    /// Keeps a case. Nothing is written for one that is kept already. Slow: off a request's path.
    ///
    /// # Errors
    /// [`FileError`]; also where what would be written could not be read again.
    pub fn keep(&self, case: &Case) -> Result<(), FileError> {
        let id = case.failure.id.clone();
        if self.config.keep == 0 || self.has(&id) {
            return Ok(());
        }
        let path = self.path(&id);
        let bytes = text_of(case, Self::MAX_BYTES).map_err(at(&path, "written"))?;
        write_whole(&path, &bytes)?;
        let mut shelf = self.shelf();
        shelf.summaries.insert(id.clone(), case.failure.clone());
        shelf.files.push((id, bytes.len() as u64));
        self.evict(&mut shelf);
        Ok(())
    }

    /// What is kept, newest first.
    pub fn list(&self) -> Vec<CaseSummary> {
        let shelf = self.shelf();
        let newest_first = shelf.files.iter().rev();
        newest_first
            .filter_map(|(id, _)| shelf.summaries.get(id).cloned())
            .collect()
    }

    /// One case. None: it is not kept, or cannot be read.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn get(&self, id: &str) -> Result<Option<Case>, FileError> {
        // A name is part of a path: nothing but its own digits.
        if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let bytes = read(&self.path(id), Self::MAX_BYTES)?;
        let case = bytes.and_then(|bytes| serde_json::from_slice::<Case>(&bytes).ok());
        Ok(case.filter(|case| case.version == VERSION && case.failure.id == id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(number: u32) -> Case {
        let failure = CaseSummary {
            id: String::new(),
            at_ms: 1.0,
            plugin: "p 1.0.0".into(),
            artifact: Digest::of(b"p"),
            generation: GenerationId {
                policy: Some(Digest::of(b"p")),
                postprocessor: None,
                revision: 1,
            },
            export: "step".into(),
            kind: "trap".into(),
            message: "unreachable".into(),
            backtrace: Some("p.wasm!step".into()),
            memory_peak: 65_536,
            elapsed_ms: 0.1,
            limits: Some(Limits::default()),
            redacted: vec![Redact::Steps],
        };
        let input = StepInput {
            committed: number,
            ..StepInput::default()
        };
        Case::new(
            failure,
            CaseInput::Step {
                input,
                memo: vec![1, 2],
            },
        )
    }

    #[test]
    fn a_content_is_news_once() {
        let folder = tempfile::tempdir().unwrap();
        let cases = Cases::open(folder.path(), CaseConfig::default()).unwrap();
        let (artifact, content) = (Digest::of(b"p"), Digest::of(b"c"));
        assert!(cases.is_news(artifact, Export::Plan, content));
        assert!(!cases.is_news(artifact, Export::Plan, content));
        assert!(cases.is_news(artifact, Export::Step, content));
        cases.forget(artifact, Export::Plan, content);
        assert!(cases.is_news(artifact, Export::Plan, content));
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let cases = Cases::open(folder.path(), CaseConfig::default()).unwrap();
        let mut endless = case(1);
        if let CaseInput::Step { input, .. } = &mut endless.input {
            input.waited_ms = f64::INFINITY;
        }
        assert!(cases.keep(&endless).is_err());
        assert_eq!(cases.list(), []);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // What is too long with a number a line is written on one.
        let whole = case(1);
        let pretty = text_of(&whole, Cases::MAX_BYTES).unwrap();
        let dense = text_of(&whole, pretty.len() as u64 - 1).unwrap();
        assert!(dense.len() < pretty.len());
        assert_eq!(serde_json::from_slice::<Case>(&dense).unwrap(), whole);
        let error = text_of(&whole, dense.len() as u64 - 1).unwrap_err();
        assert!(error.to_string().contains("more than the"), "{error}");
    }

    #[test]
    fn an_input_is_kept_once_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let config = CaseConfig { keep: 3, mib: 1 };
        let cases = Cases::open(folder.path(), config).unwrap();
        for number in [0, 0, 1, 2, 3] {
            cases.keep(&case(number)).unwrap();
        }
        let ids: Vec<String> = cases.list().into_iter().map(|it| it.id).collect();
        let expected: Vec<String> = [3, 2, 1].map(|it| case(it).failure.id).to_vec();
        assert_eq!(ids, expected);
        assert_eq!(cases.get(&ids[0]).unwrap(), Some(case(3)));
        assert_eq!(cases.get(&case(0).failure.id).unwrap(), None);
        assert_eq!(cases.get("../../etc/passwd").unwrap(), None);

        let again = Cases::open(folder.path(), config).unwrap();
        assert_eq!(again.list().len(), 3);
        assert_eq!(again.get(&ids[1]).unwrap(), Some(case(2)));
    }
}
