//! From the disk to a runtime: what was active is active again, or the next best thing, said aloud.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use msao_core::digest::Digest;
use thiserror::Error;

use super::generation::{Generation, Live};
use super::leftovers::{self, Leftovers};
use super::load::{From, Halves};
use super::table::Table;
use super::{Inner, Options, Plugins, Refused, Verbs, keeper, since_1970_ms};
use crate::bundle::{Bundle, BundleError};
use crate::cases::Cases;
use crate::config::ConfigError;
use crate::deployment::{Deployment, Event, Spec};
use crate::files::{FileError, at, make};
use crate::journal::{Damaged, Journal, JournalError};
use crate::parameters::{PINS, Values};
use crate::shadow;
use crate::signing::SignatureError;
use crate::store::{Release, Store, StoreError};

/// Notes that may wait for the keeper.
const NOTES: usize = 256;

/// Why the runtime cannot start.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another version of this program was here.
    #[error(
        "the journal in {} was written by another version of this program: start that one, or name another folder",
        .0.display()
    )]
    OtherVersion(PathBuf),
    /// Another process.
    #[error("{} is in use by another process; stop that one, or name another folder", .0.display())]
    Locked(PathBuf),
    /// What a fresh node is to start with cannot be read.
    #[error("policy.{field}: {error}")]
    BootFile {
        /// `boot` or `boot-postprocessor`.
        field: &'static str,
        /// Why.
        error: Box<BundleError>,
    },
    /// What a fresh node is to start with does not do.
    #[error("policy.boot: {0}")]
    Boot(Box<Refused>),
    /// The operator's pins do not fit what is active.
    #[error(transparent)]
    Pins(Box<Refused>),
    /// What is active cannot be run as configuration, disk or program are now, which somebody can mend.
    #[error(
        "generation {number} is active and cannot be run: {problem}. {mend}. It stays the active one until then"
    )]
    Unready {
        /// It.
        number: u64,
        /// Why.
        problem: Box<Refused>,
        /// What to do.
        mend: String,
    },
    /// No randomness for the salt.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// No thread.
    #[error("no thread could start: {0}")]
    Thread(std::io::Error),
}

/// A runtime, and what was found on the way.
pub struct Opened {
    /// It.
    pub plugins: Plugins,
    /// What an operator should know, a line each: files that were damaged, generations that could not be run any more.
    pub warnings: Vec<String>,
}

impl Plugins {
    /// Opens the folder, and runs what was active when the last process stopped, however that was. What is lost for good
    /// (damaged, missing, or signed by a revoked key) gives way to the generation before it, to `policy.boot`, or to the
    /// built-in fallback, in that order; the journal and the warnings say so.
    ///
    /// # Errors
    /// [`OpenError`]: a wrong configuration, no disk, or another process; and where what is active cannot be run for a
    /// reason that can be mended, as a key or a limit that is missing in the configuration. Nothing has changed then.
    pub fn open(options: Options) -> Result<Opened, OpenError> {
        options.config.check()?;
        let folder = options.folder;
        make(&folder)?;
        let lock = lock(&folder)?;
        let store = Store::open(&folder)?;
        let cases = Cases::open(&folder.join("cases"), options.config.failures)?;
        let (journal, newest, damaged) =
            Journal::open::<Event, Deployment>(&folder.join("journal"))?;
        let mut warnings: Vec<String> = damaged.iter().map(told).collect();
        if (newest.as_ref()).is_some_and(|entry| !entry.state.is_readable()) {
            return Err(OpenError::OtherVersion(folder));
        }
        // A node that only began has not started yet: what `boot` names could not be loaded, or a stop came first.
        let began = newest.is_some();
        let fresh = (newest.as_ref()).is_none_or(|entry| entry.event == Event::Began);
        if !began && !damaged.is_empty() {
            warnings.push(
                "no entry of the journal can be read: this node starts as a fresh one".into(),
            );
        }
        let deployment = match newest {
            Some(entry) => entry.state,
            None => Deployment::new(random()?),
        };
        let in_memory = Live::default();
        let mut fallback = Deployment::new(deployment.salt).active;
        fallback.number = 0;
        let builtin = Arc::new(Generation::new(fallback, None, None, &in_memory));
        let (notes, noted) = sync_channel(NOTES);
        let leftovers = Arc::new(Leftovers::default());
        let (queue, jobs) = sync_channel(options.config.shadow.queue as usize);
        let table = Table {
            stable: Arc::clone(&builtin),
            previous: None,
            canary: None,
            shadow: None,
            builtin,
        };
        let inner = Arc::new(Inner {
            trust: ArcSwap::from_pointee(options.config.trust()),
            loader: options.loader,
            calibration: options.calibration,
            records: options.records,
            site: options.site,
            store,
            cases,
            salt: deployment.salt,
            table: ArcSwap::from_pointee(table),
            in_memory,
            all: Mutex::default(),
            off: AtomicBool::new(false),
            verbs: Mutex::new(Verbs {
                deployment,
                journal,
                held: HashMap::new(),
                trial: None,
                shadow: None,
                unwritten: None,
            }),
            notes,
            leftovers,
            shadow_queue: Mutex::new(Some(queue)),
            busy: Arc::new(AtomicBool::new(false)),
            next_ticket: AtomicU64::new(0),
            dropped_cases: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            started: Instant::now(),
            ahead_ms: AtomicU64::new(0),
            watcher: OnceLock::new(),
            config: options.config,
            _lock: lock,
        });
        inner.resume((fresh, began), &mut warnings)?;
        let apart = leftovers::start(Arc::clone(&inner.leftovers)).map_err(OpenError::Thread)?;
        let keeper = keeper::start(Arc::clone(&inner), noted).map_err(OpenError::Thread)?;
        let beside = Arc::clone(&inner);
        let shadow = std::thread::Builder::new()
            .name("shadow".into())
            .spawn(move || shadow::work(&beside, &jobs))
            .map_err(OpenError::Thread)?;
        Ok(Opened {
            plugins: Plugins {
                inner,
                threads: vec![keeper, shadow, apart],
            },
            warnings,
        })
    }
}

const UNSIGNED: &str = "Set policy.allow-unsigned again if it was activated without a signature; if its signature is lost, \
                        put the file back into the folder signatures";
const UNKNOWN_KEY: &str = "Put the key back into policy.keys, or list it in policy.revoked if what it signed is not to run \
                           any more";
const UNREADABLE: &str =
    "Look at the disk and at who may read the folder, and start the node again";
const OTHER_PROGRAM: &str =
    "Start the version of this program that it ran under, and go back or turn plug-ins off there";

/// What to do about a generation that ran before and cannot be run now. None: it is lost for good.
pub(super) fn how_to_mend(error: &Refused) -> Option<String> {
    let fixed = match error {
        Refused::Signature(SignatureError::Unsigned) => UNSIGNED,
        Refused::Signature(SignatureError::UnknownKey(_)) => UNKNOWN_KEY,
        Refused::Store(StoreError::File(_)) => UNREADABLE,
        Refused::Store(StoreError::Manifest(..)) => OTHER_PROGRAM,
        // Its bytes are those that were loaded before: what has changed is around it.
        Refused::Load { name, .. } => {
            return Some(format!(
                "See whether sandbox.plugins.{name}, sandbox.limits, sandbox.instances or policy.warm have changed since \
                 it was activated, and start the node again; where the program has changed, start the version before and \
                 go back there"
            ));
        }
        _ => return None,
    };
    Some(fixed.to_owned())
}

fn boot(error: Refused) -> OpenError {
    OpenError::Boot(Box::new(error))
}

fn told(damaged: &Damaged) -> String {
    format!(
        "an entry of the journal was not taken ({}); it lies now at {}",
        damaged.reason,
        damaged.path.display()
    )
}

fn lock(folder: &Path) -> Result<std::fs::File, OpenError> {
    let path = folder.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(at(&path, "opened"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked(folder.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(at(&path, "locked")(error).into()),
    }
}

fn random() -> Result<Digest, OpenError> {
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(|error| OpenError::Random(error.to_string()))?;
    Ok(Digest(salt))
}

impl Inner {
    fn halves_of(&self, spec: &Spec) -> Result<Halves, Refused> {
        let halves = Halves {
            policy: spec
                .policy
                .map(|release| self.policy(release))
                .transpose()?,
            postprocessor: (spec.postprocessor)
                .map(|release| self.postprocessor(release))
                .transpose()?,
        };
        halves.check()?;
        self.warm(&halves)?;
        Ok(halves)
    }

    /// Makes the generations of the deployment that was found. `fresh`: nothing was active yet; `began`: but that is
    /// written down.
    fn resume(
        &self,
        (fresh, began): (bool, bool),
        warnings: &mut Vec<String>,
    ) -> Result<(), OpenError> {
        let mut verbs = self.verbs();
        let known: Vec<u64> = verbs.deployment.known().map(|spec| spec.number).collect();
        let active = verbs.deployment.active.number;
        self.calibration.reconcile(active, known);
        if fresh {
            let halves = self.boot_halves()?;
            if !began {
                let salt_and_fallback = verbs.deployment.clone();
                (verbs.journal)
                    .write(since_1970_ms(), Event::Began, salt_and_fallback)
                    .map_err(OpenError::File)?;
            }
            self.publish(&mut verbs);
            if let Some(halves) = halves {
                self.start_with(&mut verbs, &halves).map_err(boot)?;
            }
            return Ok(());
        }
        self.resume_active(&mut verbs, warnings)?;
        self.resume_others(&mut verbs, warnings)?;
        self.publish(&mut verbs);
        Ok(())
    }

    /// What `policy.boot` names, kept and loaded.
    fn boot_halves(&self) -> Result<Option<Halves>, OpenError> {
        let read =
            |field: &'static str, path: &Option<PathBuf>| -> Result<Option<Release>, OpenError> {
                let Some(path) = path else { return Ok(None) };
                let bundle = Bundle::read(path).map_err(|error| OpenError::BootFile {
                    field,
                    error: Box::new(error),
                })?;
                let pushed = self.store.push(&bundle);
                pushed.map(Some).map_err(|error| boot(error.into()))
            };
        let policy = read("boot", &self.config.boot)?;
        let postprocessor = read("boot-postprocessor", &self.config.boot_postprocessor)?;
        if policy.is_none() && postprocessor.is_none() {
            return Ok(None);
        }
        let spec = Spec {
            number: 0,
            policy,
            postprocessor,
            revision: 0,
            pins: Values::new(),
            tuned: Values::new(),
        };
        self.halves_of(&spec).map(Some).map_err(boot)
    }

    fn start_with(&self, verbs: &mut Verbs, halves: &Halves) -> Result<(), Refused> {
        let (spec, _) = self.draft(verbs, halves, None);
        let event = Event::Activated {
            spec: spec.clone(),
            claims: halves.claims(),
            why: None,
        };
        verbs.deployment.advance(&event)?;
        let generation = self.assemble(spec.clone(), halves, From::Fork)?;
        verbs.held.insert(spec.number, generation);
        self.commit(verbs, event, true).map(drop)
    }

    /// The active generation, or the best that can be had.
    fn resume_active(
        &self,
        verbs: &mut Verbs,
        warnings: &mut Vec<String>,
    ) -> Result<(), OpenError> {
        loop {
            let spec = verbs.deployment.active.clone();
            let why = match self.resume_one(verbs, &spec, From::Live, warnings)? {
                Ok(()) => return Ok(()),
                // The operator's mistake, not the generation's.
                Err(Refused::Parameter(error)) if error.from == PINS => {
                    return Err(OpenError::Pins(Box::new(error.into())));
                }
                Err(error) => match how_to_mend(&error) {
                    Some(mend) => {
                        return Err(OpenError::Unready {
                            number: spec.number,
                            problem: Box::new(error),
                            mend,
                        });
                    }
                    None => error.to_string(),
                },
            };
            warnings.push(format!(
                "generation {} was active and cannot be run any more: {why}",
                spec.number
            ));
            if verbs.deployment.previous.is_some() {
                let number = spec.number;
                self.note(verbs, Event::Left { number, why })?;
                continue;
            }
            let halves = match self.boot_halves() {
                Ok(halves) => halves.unwrap_or_default(),
                Err(error) => {
                    warnings.push(error.to_string());
                    Halves::default()
                }
            };
            let (mut spec, notes) = self.draft(verbs, &halves, None);
            warnings.extend(notes);
            let assembled = self.assemble(spec.clone(), &halves, From::Live);
            let generation = match assembled {
                Ok(generation) => generation,
                Err(error) => {
                    warnings.push(error.to_string());
                    spec.policy = None;
                    spec.postprocessor = None;
                    let bare = self.assemble(spec.clone(), &Halves::default(), From::Live);
                    bare.map_err(boot)?
                }
            };
            verbs.held.insert(spec.number, generation);
            return self.note(verbs, Event::Restarted { spec, why });
        }
    }

    /// Makes one generation, under the pins of today. The outer error is the disk's.
    fn resume_one(
        &self,
        verbs: &mut Verbs,
        spec: &Spec,
        from: From,
        warnings: &mut Vec<String>,
    ) -> Result<Result<(), Refused>, OpenError> {
        let repinned = |halves: &Halves| {
            (verbs.deployment).repinned(spec.number, &halves.pins(&self.config.pins))
        };
        let made = self.halves_of(spec).and_then(|halves| {
            let repinned = repinned(&halves);
            let spec = repinned.as_ref().unwrap_or(spec).clone();
            Ok((repinned, self.assemble(spec, &halves, from)?))
        });
        let (repinned, generation) = match made {
            Ok(made) => made,
            Err(error) => return Ok(Err(error)),
        };
        if let Some(spec) = repinned {
            warnings.push(format!(
                "the operator's pins have changed: generation {} goes on as revision {}",
                spec.number, spec.revision
            ));
            self.note(verbs, Event::Repinned { spec })?;
        }
        verbs.held.insert(spec.number, generation);
        Ok(Ok(()))
    }

    /// What is not active: what cannot be run any more is left.
    fn resume_others(
        &self,
        verbs: &mut Verbs,
        warnings: &mut Vec<String>,
    ) -> Result<(), OpenError> {
        if let Some(rollout) = &verbs.deployment.rollout
            && rollout.step >= self.config.canary.steps.len()
        {
            let number = rollout.candidate.number;
            let why = "the operator's steps no longer reach as far as it was".to_owned();
            warnings.push(format!(
                "the canary, generation {number}, is dropped: {why}"
            ));
            self.note(verbs, Event::Left { number, why })?;
        }
        if let Some(rollout) = &verbs.deployment.rollout
            && rollout.step > 0
            && rollout.step + 1 == self.config.canary.steps.len()
        {
            let (number, step) = (rollout.candidate.number, rollout.step - 1);
            warnings.push(format!(
                "the canary, generation {number}, goes back a step: with all sessions on it, nothing is left to compare it \
                 with"
            ));
            self.note(verbs, Event::CanaryStepped { number, step })?;
        }
        let deployment = verbs.deployment.clone();
        let active = deployment.active.number;
        let others = [
            (deployment.previous, From::DisplacedBy(active)),
            (deployment.rollout.map(|it| it.candidate), From::Fork),
            (deployment.shadow, From::Scratch),
        ];
        for (spec, from) in others {
            let Some(spec) = spec else { continue };
            if let Err(error) = self.resume_one(verbs, &spec, from, warnings)? {
                let why = error.to_string();
                warnings.push(format!(
                    "generation {} cannot be run any more: {why}",
                    spec.number
                ));
                let number = spec.number;
                self.note(verbs, Event::Left { number, why })?;
            }
        }
        Ok(())
    }

    /// Advances and writes down, without a table yet.
    fn note(&self, verbs: &mut Verbs, event: Event) -> Result<(), OpenError> {
        let next =
            (verbs.deployment.advance(&event)).map_err(|error| boot(Refused::NotNow(error)))?;
        verbs.journal.write(since_1970_ms(), &event, &next)?;
        verbs.deployment = next;
        Ok(())
    }
}
