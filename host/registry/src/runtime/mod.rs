//! The runtime that a node calls.
//!
//! # What is durable when
//! Forward changes (activate, canary, step, promote, shadow) are written into the journal, synced, and then take
//! effect: no request is ever planned by a generation that a restart would not know.
//!
//! Going back and turning off are the other way round, because they must not wait for a disk: the pointer is exchanged first, within
//! microseconds and without a lock that anybody holds over a disk or a compiler; then the journal is written. A stop between
//! the two starts with the generation that was left, which loses its budget again; nothing in between can be lost, because
//! both generations were active before. [`Plugins::rollback`] returns only when the change is on the disk, or says that
//! it is not ([`Refused::NotDurable`]); what a request's own failure set off is written by the keeper's thread. As long as
//! a change is not on the disk, [`Status::not_durable`] says so, and the keeper tries again.

mod commit;
mod condition;
mod deploy;
mod ending;
mod explaining;
mod generation;
mod keeper;
mod learned;
mod leftovers;
mod load;
mod open;
mod remove;
mod status;
mod table;
mod ticket;
mod trust;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use msao_core::digest::Digest;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::record::GenerationId;
use msao_core::offload::{Operation, Update};
use msao_sandbox::{Export, Failure};
use msao_state::{CalibrationStore, RecordRing, Snapshot};
use thiserror::Error;

pub use self::condition::Conditional;
pub use self::explaining::NoWords;
pub(crate) use self::generation::Generation;
pub use self::learned::NotTaken;
pub use self::open::{OpenError, Opened};
pub use self::remove::{Described, InUse, Removed};
pub use self::status::{GenerationStatus, RolloutStatus, Status};
pub(crate) use self::ticket::no_probe;
pub use self::ticket::{Side, Ticket, with_scores};
pub use self::trust::KeysRefused;

use self::generation::Live;
use self::leftovers::Leftovers;
use self::table::Table;
use crate::bundle::Bundle;
use crate::canary::Trial;
use crate::cases::{Case, CaseInput, CaseSummary, Cases};
use crate::config::PolicyConfig;
use crate::deployment::{Deployment, Event, NotNow};
use crate::files::FileError;
use crate::journal::{Entry, Journal};
use crate::parameters::ParameterError;
use crate::plugin::Loader;
use crate::shadow::Queue;
use crate::signing::{SignatureError, Trust};
use crate::sticky::SessionKey;
use crate::store::{Release, Store, StoreError};

/// Where this node's learning belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The pair of models that it serves.
    pub models: String,
    /// Its name.
    pub node: String,
}

/// What the runtime is built on.
pub struct Options {
    /// The folder of releases, journal and failing inputs. One process at a time.
    pub folder: PathBuf,
    /// What the operator says.
    pub config: PolicyConfig,
    /// Makes plug-ins of components: the sandbox.
    pub loader: Arc<dyn Loader>,
    /// What plug-ins have learned.
    pub calibration: Arc<CalibrationStore>,
    /// Where decisions are recorded; None: nowhere.
    pub records: Option<Arc<RecordRing>>,
    /// Where this is.
    pub site: Site,
}

/// Is told of each call of a plug-in for a request: which export, how long it took, and by name what went wrong, if anything
/// did. It must be quick: the request waits for it.
pub type CallWatcher = Box<dyn Fn(Export, Duration, Option<&'static str>) + Send + Sync>;

/// A request that comes in. Who keeps it together with others is the first of these that is present: `session`,
/// `prompt_cache_key`, `user`, `api_key`, `request_id`.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Its own id, as the client gets it.
    pub request_id: &'a str,
    /// The header `x-msao-session`.
    pub session: Option<&'a str>,
    /// The body's `prompt_cache_key`.
    pub prompt_cache_key: Option<&'a str>,
    /// The body's `user`.
    pub user: Option<&'a str>,
    /// The client's API key.
    pub api_key: Option<&'a str>,
    /// A digest of what was asked, prompt and media, without ids, times and seeds: two requests of the same content are one
    /// input for the error budget.
    pub content: Digest,
}

impl<'a> Arrival<'a> {
    /// A request of which nothing else is known.
    pub fn new(request_id: &'a str, content: Digest) -> Arrival<'a> {
        Arrival {
            request_id,
            session: None,
            prompt_cache_key: None,
            user: None,
            api_key: None,
            content,
        }
    }

    /// What keeps it together with others.
    pub fn key(&self) -> SessionKey<'a> {
        (self.session.map(SessionKey::Session))
            .or(self.prompt_cache_key.map(SessionKey::PromptCacheKey))
            .or(self.user.map(SessionKey::User))
            .or(self.api_key.map(SessionKey::ApiKey))
            .unwrap_or(SessionKey::Request(self.request_id))
    }
}

/// One half of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// As it is in the active generation.
    #[default]
    Keep,
    /// This release.
    Take(Release),
    /// None: the built-in fallback takes its place.
    Nothing,
}

/// What a new generation is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The policy.
    pub policy: Pick,
    /// The post-processor.
    pub postprocessor: Pick,
}

impl Choice {
    /// Another policy, the same post-processor.
    pub fn policy(release: Release) -> Choice {
        Choice {
            policy: Pick::Take(release),
            postprocessor: Pick::Keep,
        }
    }
}

/// A change that took effect.
#[derive(Clone, Debug, PartialEq)]
pub struct Receipt {
    /// The generation that the change is about: for a rollback, the one that is active now.
    pub generation: GenerationId,
    /// Its number.
    pub number: u64,
    /// When it took effect: a forward change when it was on the disk, just before requests began to see it.
    pub effective: Instant,
    /// The journal's number of the change.
    pub sequence: u64,
    /// Things worth knowing, for instance tuned values that no longer fit.
    pub notes: Vec<String>,
}

/// Why a change was refused.
#[derive(Debug, Error)]
pub enum Refused {
    /// It may not be now.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// The signature does not do.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The release is not here, or damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The component does not do.
    #[error("{name} cannot be loaded: {problem}")]
    Load {
        /// The plug-in.
        name: String,
        /// Why.
        problem: String,
    },
    /// A policy in place of a post-processor, or the other way round.
    #[error("{name} is made for the world {world}; a {wanted} is wanted here")]
    World {
        /// The plug-in.
        name: String,
        /// Its world.
        world: msao_core::offload::manifest::World,
        /// `policy` or `post-processor`.
        wanted: &'static str,
    },
    /// A policy that wants scores, and nobody to make them.
    #[error("{0} asks for the probe, but the generation has no post-processor: name one")]
    NoPostProcessor(String),
    /// A parameter.
    #[error(transparent)]
    Parameter(#[from] ParameterError),
    /// The journal could not be written: nothing has changed.
    #[error("nothing has changed, because the change cannot be written down: {0}")]
    Journal(FileError),
    /// Another generation took over while the one that was active was being left.
    #[error(
        "generation {left} was left, but generation {active} had been activated meanwhile and is active now: go back again \
         if it is to go as well"
    )]
    Overtaken {
        /// What was active when the rollback was called.
        left: u64,
        /// What is active now.
        active: u64,
    },
    /// Another generation than the one that the change was meant for: nothing has changed.
    #[error(
        "nothing has changed: it was asked for generation {wanted} alone, and {what} is generation {is}; look again before \
         changing it"
    )]
    Changed {
        /// What the change was meant for.
        wanted: u64,
        /// Whose number is compared.
        what: &'static str,
        /// What is there.
        is: u64,
    },
    /// A release that is to be removed is needed.
    #[error("{what} stays: {why}")]
    InUse {
        /// The release.
        what: String,
        /// What for.
        why: InUse,
    },
    /// A release that is to be removed is not here.
    #[error("no release {}:{} is here, so there is nothing to remove", .0.artifact.short(), .0.manifest.short())]
    NotHere(Release),
    /// What was active before the last change would be active after a stop, so what that needs must stay.
    #[error(
        "nothing is removed as long as the last change cannot be written down: {0}. Look at the disk; the change is tried \
         again each second"
    )]
    Unsettled(String),
    /// The journal could not be written after the change had taken effect.
    #[error(
        "the change has taken effect, but cannot be written down: {0}. It is tried again; after a stop before that, the \
         state before it would be active"
    )]
    NotDurable(FileError),
}

/// What the keeper is told.
pub(crate) enum Note {
    /// A generation was left on a request's path; it is to be written down.
    Retreated { number: u64 },
    /// A failing input is to be kept.
    Case(Box<(CaseSummary, CaseInput)>),
}

/// What only one at a time may change.
pub(crate) struct Verbs {
    pub(crate) deployment: Deployment,
    pub(crate) journal: Journal,
    /// Generations of the deployment, by number.
    pub(crate) held: HashMap<u64, Arc<Generation>>,
    pub(crate) trial: Option<(u64, Arc<Mutex<Trial>>)>,
    pub(crate) shadow: Option<(u64, Arc<crate::shadow::Shadow>)>,
    /// A change that took effect and is not on the disk, and why.
    pub(crate) unwritten: Option<(Event, String)>,
}

pub(crate) struct Inner {
    pub(crate) config: PolicyConfig,
    /// The signing keys that count now. Exchanged under the lock of [`Verbs`].
    pub(crate) trust: ArcSwap<Trust>,
    pub(crate) loader: Arc<dyn Loader>,
    pub(crate) calibration: Arc<CalibrationStore>,
    pub(crate) records: Option<Arc<RecordRing>>,
    pub(crate) site: Site,
    pub(crate) store: Store,
    pub(crate) cases: Cases,
    pub(crate) salt: Digest,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) in_memory: Live,
    pub(crate) all: Mutex<Vec<Weak<Generation>>>,
    /// The operator has turned plug-ins off, and that is not in the deployment yet.
    pub(crate) off: AtomicBool,
    pub(crate) verbs: Mutex<Verbs>,
    pub(crate) notes: SyncSender<Note>,
    leftovers: Arc<Leftovers>,
    pub(crate) shadow_queue: Mutex<Option<Queue>>,
    pub(crate) busy: Arc<AtomicBool>,
    pub(crate) next_ticket: AtomicU64,
    pub(crate) dropped_cases: AtomicU64,
    pub(crate) stopping: AtomicBool,
    pub(crate) started: Instant,
    /// How much the clock of breakers, budgets and trials is ahead of that.
    pub(crate) ahead_ms: AtomicU64,
    pub(crate) watcher: OnceLock<CallWatcher>,
    // Held while the runtime lives: no second process works on the folder.
    pub(crate) _lock: std::fs::File,
}

pub(crate) fn since_1970_ms() -> f64 {
    (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH))
        .map_or(0.0, |since| since.as_secs_f64() * 1000.0)
        .round()
}

impl Inner {
    /// The clock of breakers, budgets and trials.
    pub(crate) fn now_ms(&self) -> u64 {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        passed.saturating_add(self.ahead_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn verbs(&self) -> MutexGuard<'_, Verbs> {
        self.verbs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a generation at once, without a lock that is held over a disk. False: somebody has done so already.
    pub(crate) fn retreat(&self, generation: &Generation, why: String) -> bool {
        let first = generation.condemned.set(why).is_ok();
        // Whoever publishes a table meanwhile looks at the mark as well: of two exchanges of the pointer the later one sees
        // what came before the earlier.
        if first {
            self.table.rcu(|table| self.allowed(Table::clone(table)));
        }
        first
    }

    /// `table` without what was left or turned off on a faster way than through the lock.
    pub(crate) fn allowed(&self, table: Table) -> Table {
        let table = table.without_condemned();
        if self.off.load(Ordering::SeqCst) {
            table.off()
        } else {
            table
        }
    }

    /// Has a failing input kept, off the request's path. `input` is only asked for where it is news.
    pub(crate) fn keep_case(
        &self,
        generation: &Generation,
        content: Digest,
        failure: Failure,
        input: impl FnOnce() -> CaseInput,
    ) {
        let artifact = match failure.export {
            Export::Score => generation.id.postprocessor,
            _ => generation.id.policy,
        };
        let Some(artifact) = artifact else { return };
        let export = failure.export;
        if !self.cases.is_news(artifact, export, content) {
            return;
        }
        let mut summary = CaseSummary {
            id: String::new(),
            at_ms: since_1970_ms(),
            plugin: failure.plugin.to_string(),
            artifact,
            generation: generation.id.clone(),
            export: export.name().to_owned(),
            kind: failure.kind.name().to_owned(),
            message: failure.message,
            backtrace: failure.backtrace,
            memory_peak: failure.memory_peak,
            elapsed_ms: failure.elapsed.as_secs_f64() * 1000.0,
            limits: match export {
                Export::Score => {
                    (generation.postprocessor.as_ref()).and_then(|it| it.plugin.limits())
                }
                _ => generation.policy.as_ref().and_then(|it| it.plugin.limits()),
            },
            redacted: Vec::new(),
        };
        let mut input = input();
        if let Some(records) = &self.records {
            summary.redacted = input.redact(|what| records.redacts(what));
        }
        let note = Note::Case(Box::new((summary, input)));
        if self.notes.try_send(note).is_err() {
            self.cases.forget(artifact, export, content);
            self.dropped_cases.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Generations that new requests get, and those that old ones are still under way on.
    pub(crate) fn live(&self) -> u64 {
        let table = self.table.load_full();
        let canary = table.canary.as_ref().map(|it| &it.generation);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|generation| generation.strong_count() > 0);
        let left = (all.iter().filter_map(Weak::upgrade))
            .filter(|it| it.in_flight.load(Ordering::Relaxed) > 0)
            .filter(|it| {
                let is = |other: &Arc<Generation>| Arc::ptr_eq(it, other);
                !is(&table.stable) && !canary.is_some_and(is)
            });
        1 + u64::from(canary.is_some()) + left.count() as u64
    }

    pub(crate) fn not_durable(&self) -> Option<String> {
        // A verb may hold the lock over a disk for a moment: that is no news.
        let verbs = self.verbs.try_lock().ok()?;
        verbs.unwritten.as_ref().map(|(_, why)| why.clone())
    }
}

/// All plug-ins of a node. Dropped, it writes down what is to be kept and ends its threads; tickets that are out still work.
pub struct Plugins {
    pub(crate) inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

impl Plugins {
    /// Lets a request in: it gets the stable generation or the canary's, by its session, and stays with it.
    pub fn admit(&self, arrival: &Arrival) -> Ticket {
        let inner = &self.inner;
        let number = inner.next_ticket.fetch_add(1, Ordering::Relaxed);
        let table = inner.table.load();
        let (generation, arm) = table.pick(arrival.key(), &inner.salt);
        Ticket::new(
            Arc::clone(inner),
            Arc::clone(generation),
            number,
            arrival.request_id,
            arrival.content,
            arm,
            table.shadow.clone(),
        )
    }

    /// Keeps a plug-in, once its signature and its component are found good. It is not active yet.
    ///
    /// # Errors
    /// [`Refused`]. Slow: compiles.
    pub fn push(&self, bundle: &Bundle) -> Result<Release, Refused> {
        let release = bundle.release();
        let signature = bundle.signature.as_ref();
        self.inner.trust.load().check(&release, signature)?;
        self.inner.load(bundle, &release)?;
        Ok(self.inner.store.push(bundle)?)
    }

    /// Tells whether the node is short of time: the shadow then gets nothing.
    pub fn set_busy(&self, busy: bool) {
        self.inner.busy.store(busy, Ordering::Relaxed);
    }

    /// Puts the clock of breakers, budgets and canaries ahead: for tests and drills, which have no minutes to wait.
    pub fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.inner.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Releases that are here, each with its manifest and whether it is signed. What cannot be read is left out;
    /// components are not read.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn releases(&self) -> Result<Vec<(Release, Manifest, bool)>, FileError> {
        let store = &self.inner.store;
        let read = |release: Release| {
            let (manifest, is_signed) = store.describe(&release).ok()??;
            Some((release, manifest, is_signed))
        };
        Ok(store.releases()?.into_iter().filter_map(read).collect())
    }

    /// What the active generation has learned: each plug-in's name and its cells.
    pub fn learned(&self) -> Vec<(String, Arc<Snapshot>)> {
        let table = self.inner.table.load_full();
        let policy = table.stable.policy.as_ref();
        let policy = policy.map(|it| (it.plugin.manifest().name.clone(), it.cells.snapshot()));
        let other = table.stable.postprocessor.as_ref();
        let other = other.map(|it| (it.plugin.manifest().name.clone(), it.cells.snapshot()));
        policy.into_iter().chain(other).collect()
    }

    /// Has a plug-in of the active generation forget what it has learned. Returns how many cells it had; None: it is not
    /// active.
    pub fn forget_learned(&self, plugin: &str) -> Option<usize> {
        let table = self.inner.table.load_full();
        let policy = table.stable.policy.as_ref();
        let policy = policy.map(|it| (&it.plugin.manifest().name, &it.cells));
        let other = table.stable.postprocessor.as_ref();
        let other = other.map(|it| (&it.plugin.manifest().name, &it.cells));
        let mut both = policy.into_iter().chain(other);
        let (_, cells) = both.find(|(name, _)| *name == plugin)?;
        let snapshot = cells.snapshot();
        let keys = snapshot.calibration().keys.iter();
        let clear = keys.map(|&key| Update {
            operation: Operation::Clear,
            key,
            value: 0.0,
            weight: 1.0,
        });
        // Like everything learned, through the one writer.
        cells.update(clear.collect());
        Some(snapshot.calibration().len())
    }

    /// The manifest of a component: of the active generation, the one before it, a candidate, or else of a release that was
    /// pushed here. None: it is not here, or with several manifests of which none is in use. May read the disk.
    pub fn manifest(&self, artifact: Digest) -> Option<Manifest> {
        self.manifest_in_use(artifact)
            .or_else(|| self.manifest_in_store(artifact))
    }

    fn manifest_in_store(&self, artifact: Digest) -> Option<Manifest> {
        let releases = self.releases().ok()?.into_iter();
        let mut found = releases.filter(|(release, ..)| release.artifact == artifact);
        let (_, manifest, _) = found.next()?;
        // Which of several the component ran under is not known, and the wrong one would name the wrong reasons.
        found.next().is_none().then_some(manifest)
    }

    fn manifest_in_use(&self, artifact: Digest) -> Option<Manifest> {
        let table = self.inner.table.load_full();
        let canary = table.canary.as_ref().map(|it| &it.generation);
        let held = [Some(&table.stable), table.previous.as_ref(), canary];
        held.into_iter().flatten().find_map(|generation| {
            if generation.id.policy == Some(artifact) {
                generation
                    .policy
                    .as_ref()
                    .map(|it| it.plugin.manifest().clone())
            } else if generation.id.postprocessor == Some(artifact) {
                let part = generation.postprocessor.as_ref();
                part.map(|it| it.plugin.manifest().clone())
            } else {
                None
            }
        })
    }

    /// Failing inputs that are kept, newest first.
    pub fn failures(&self) -> Vec<CaseSummary> {
        self.inner.cases.list()
    }

    /// One failing input.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn failure(&self, id: &str) -> Result<Option<Case>, FileError> {
        self.inner.cases.get(id)
    }

    /// The newest changes, newest first.
    pub fn history(&self, count: usize) -> Vec<Entry<Event, Deployment>> {
        self.inner.verbs().journal.history(count)
    }

    /// What is active, as it is written down.
    pub fn deployment(&self) -> Deployment {
        self.inner.verbs().deployment.clone()
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        let queue = &self.inner.shadow_queue;
        drop(queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.inner.leftovers.end();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
