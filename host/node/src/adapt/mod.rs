//! What a node learns by itself of its drafts: how probably targets accept them, and what may be committed without asking.
//!
//! Plug-ins learn too, each for itself, through `msao-state`'s calibration; this is the host's own, which they only read:
//! `p_accept` of `step`, `acceptance` and `confidence-floor` of a node's row.
//!
//! - [`Judge`] tells an answer the acceptance probability of each of its drafts, and takes in what the target said to
//!   them. It reads a snapshot: no lock, well below a microsecond. One thread ([`writer`](self)) learns from what all
//!   answers hand in, exchanges the snapshots, and writes everything down now and then.
//! - [`Adapt::admit`] asks the audits about a request: whether it is one, and what may be committed unverified. That
//!   takes a lock for a moment, once a request, never while anything is awaited.
//! - An [`Auditing`] that is dropped has not ended, and counts as disagreement.
//!
//! What is learned belongs to a [`Pair`] of models, and of audits to a [`Class`] of requests; a stop at any moment loses
//! what was learned since the last checkpoint, and what cannot be read again is learned anew.

mod class;
mod exchange;
mod figures;
mod judge;
mod known;
mod pair;
mod store;
mod ticket;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use msao_adapt::acceptance::Mix;
use msao_adapt::audit::{Audited, Change};
use msao_link::estimate::{Bandwidth, Figures, Speeds};
use msao_registry::state::{Batch, Storage, StorageError};

pub use self::class::{Class, Heat, Retained};
pub use self::exchange::{Exported, NotTaken};
pub use self::figures::{ClassFigures, Counted, MixFigures, PairFigures};
pub use self::judge::{Judge, Sure};
pub use self::known::CLOSED;
use self::known::{Known, Lesson, Terms};
pub use self::pair::Pair;
use self::store::KeptPair;
pub use self::ticket::{Admitted, Auditing};
use self::writer::Message;
use crate::config::Confident;
use crate::metrics::Metrics;

/// Pairs that are held: a node has one draft model, and few peers. Beyond that the one asked for longest ago is forgotten.
const MOST_PAIRS: usize = 64;
/// Handfuls of lessons that may wait for the thread.
const QUEUE: usize = 1024;
/// Of 64 random bits, 24 are left to tell a run of the node from others.
const BOOT_SHIFT: u32 = 40;

/// A model whose speed is kept over restarts.
pub struct Watched {
    /// Tells it from others: its digest, and how and where it is held.
    pub model: String,
    /// How fast it is.
    pub speeds: Arc<Mutex<Speeds>>,
}

impl Watched {
    /// How fast it is, without the queue: who waits now does not after a restart.
    fn figures(&self) -> Figures {
        let speeds = self.speeds.lock().unwrap_or_else(PoisonError::into_inner);
        Figures {
            queue_ms: Figures::UNKNOWN.queue_ms,
            kv_free: Figures::UNKNOWN.kv_free,
            ..speeds.at_rest()
        }
    }
}

/// A link whose bandwidth is kept over restarts.
pub trait WatchedLink: Send + Sync {
    /// Tells it from others: the peer's name, and where it is.
    fn name(&self) -> String;
    /// What is known of it.
    fn bandwidth(&self) -> Bandwidth;
    /// What was known before the restart.
    fn remember(&self, before: Bandwidth);
}

/// What learning is set up with.
pub struct Options {
    /// Where what is learned is kept.
    pub storage: Arc<dyn Storage>,
    /// What the operator says of confident mode.
    pub confident: Confident,
    /// Between two checkpoints.
    pub checkpoint_every: Duration,
    /// Models whose speeds are kept.
    pub watched: Vec<Watched>,
    /// Links whose bandwidth is kept.
    pub links: Vec<Arc<dyn WatchedLink>>,
    /// Where audits are counted.
    pub metrics: Metrics,
}

/// Lessons that found no room.
#[derive(Debug, Default)]
struct Lost(AtomicU64);

impl Lost {
    fn add(&self, lessons: u64) {
        self.0.fetch_add(lessons, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All pairs.
#[derive(Default)]
struct Learned {
    pairs: BTreeMap<Pair, Known>,
    /// Those that are to be taken from the database.
    gone: BTreeSet<Pair>,
    /// Counts questions.
    asked: u64,
}

impl Learned {
    /// What is known of a pair; nothing yet where it was never seen.
    fn of(&mut self, pair: &Pair) -> &mut Known {
        self.asked += 1;
        if !self.pairs.contains_key(pair) {
            self.make_room();
            self.gone.remove(pair);
        }
        let known = self.pairs.entry(pair.clone()).or_default();
        known.used = self.asked;
        known
    }

    fn make_room(&mut self) {
        while self.pairs.len() >= MOST_PAIRS {
            let oldest = self.pairs.iter().min_by_key(|(_, known)| known.used);
            let Some(oldest) = oldest.map(|(pair, _)| pair.clone()) else {
                return;
            };
            if let Some(mut known) = self.pairs.remove(&oldest) {
                known.shut();
            }
            self.gone.insert(oldest);
        }
    }
}

#[derive(Default)]
struct Counts {
    checkpoints: AtomicU64,
    failed_checkpoints: AtomicU64,
    unreadable: AtomicU64,
}

/// What lies in the database of what changes all the time.
struct Written {
    /// By model.
    speeds: BTreeMap<String, Figures>,
    /// By link.
    links: BTreeMap<String, Bandwidth>,
}

/// What requests, the thread and operators share.
struct Shared {
    learned: Mutex<Learned>,
    terms: Option<Terms>,
    storage: Arc<dyn Storage>,
    watched: Vec<Watched>,
    links: Vec<Arc<dyn WatchedLink>>,
    /// Speeds and bandwidths as they were written down last.
    written: Mutex<Written>,
    metrics: Metrics,
    /// Tells this run of the node from others, in 24 bits.
    boot: u64,
    /// Of coins.
    seed: u64,
    lost: Arc<Lost>,
    counts: Counts,
}

impl Shared {
    fn learned(&self) -> MutexGuard<'_, Learned> {
        // Nobody panics halfway through a change of it: each is a call of pure code.
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, pair: &Pair, mix: Mix, lessons: &[Lesson]) {
        let mut learned = self.learned();
        learned.of(pair).learn(mix, lessons, self.terms.as_ref());
    }

    fn publish(&self) {
        self.learned().pairs.values_mut().for_each(Known::publish);
    }

    /// An audit has ended.
    fn audited(&self, pair: &Pair, class: Class, revision: u64, number: u64, audited: Audited) {
        let mut learned = self.learned();
        // A pair that was forgotten has no audits, and need not come back for this one.
        let Some(known) = learned.pairs.get_mut(pair) else {
            return;
        };
        let change = known.finished(class, revision, number, audited);
        drop(learned);
        self.metrics.audited(match audited {
            Audited::Agreed => "agreed",
            Audited::Rejected { .. } => "rejected",
            Audited::Unfinished => "unfinished",
        });
        match change {
            Some(Change::Opened { threshold }) => {
                tracing::info!(%pair, %class, threshold, "drafts from this acceptance probability on may be committed unverified");
            }
            Some(Change::Closed) => self.alarm(pair, class),
            None => {}
        }
    }

    fn alarm(&self, pair: &Pair, class: Class) {
        self.metrics.drifted();
        tracing::warn!(%pair, %class, "audits disagree more often than the budget allows: nothing is committed unverified until new ones have shown that it may be");
    }

    /// Writes down what has changed.
    fn checkpoint(&self) -> Result<(), String> {
        let (kept, gone) = {
            let mut learned = self.learned();
            let changed = learned.pairs.iter_mut().filter(|(_, it)| it.unwritten);
            let kept: Vec<KeptPair> = changed
                .map(|(pair, known)| {
                    known.unwritten = false;
                    KeptPair::of(pair, known)
                })
                .collect();
            (kept, std::mem::take(&mut learned.gone))
        };
        let written = self.write(&kept, &gone);
        match &written {
            Ok(()) => {
                self.counts.checkpoints.fetch_add(1, Ordering::Relaxed);
            }
            Err(problem) => {
                let failed = &self.counts.failed_checkpoints;
                failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    problem,
                    "what was learned of drafts could not be written down"
                );
                let mut learned = self.learned();
                for kept in &kept {
                    if let Some(known) = learned.pairs.get_mut(&kept.pair) {
                        known.unwritten = true;
                    }
                }
                let back = gone.into_iter();
                let back: Vec<Pair> = back
                    .filter(|pair| !learned.pairs.contains_key(pair))
                    .collect();
                learned.gone.extend(back);
            }
        }
        written
    }

    fn write(&self, kept: &[KeptPair], gone: &BTreeSet<Pair>) -> Result<(), String> {
        let mut batch = Batch::default();
        for pair in gone {
            store::remove_pair(&mut batch, pair);
        }
        for kept in kept {
            store::put_pair(&mut batch, kept)?;
        }
        // Held over the disk: nobody else takes it.
        let mut before = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let speeds: Vec<(&String, Figures)> = (self.watched.iter())
            .map(|watched| (&watched.model, watched.figures()))
            .filter(|(model, now)| *now != *before.speeds.get(*model).unwrap_or(&Figures::UNKNOWN))
            .collect();
        for (model, figures) in &speeds {
            store::put_speeds(&mut batch, model, *figures)?;
        }
        let links: Vec<(String, Bandwidth)> = (self.links.iter())
            .map(|link| (link.name(), link.bandwidth()))
            .filter(|(name, now)| *now != *before.links.get(name).unwrap_or(&Bandwidth::UNKNOWN))
            .collect();
        for (name, bandwidth) in &links {
            store::put_link(&mut batch, name, *bandwidth)?;
        }
        if batch.is_empty() {
            return Ok(());
        }
        let written = self.storage.apply(batch);
        let written = written.and_then(|()| self.storage.flush());
        written.map_err(|error| error.to_string())?;
        let speeds = speeds.into_iter();
        let speeds = speeds.map(|(model, figures)| (model.clone(), figures));
        before.speeds.extend(speeds);
        before.links.extend(links);
        Ok(())
    }
}

/// See the module.
pub struct Adapt {
    shared: Arc<Shared>,
    lessons: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Adapt {
    /// Goes on from what is kept, and starts the thread. What cannot be read is learned anew, and told in the log.
    ///
    /// # Errors
    /// [`StorageError`]: the database cannot be read at all, or no thread starts.
    pub fn start(options: Options) -> Result<Adapt, StorageError> {
        let confident = &options.confident;
        let terms = confident.budget.map(|budget| Terms {
            budget,
            delta: confident.delta,
            rate: confident.audit_rate,
            settle: u64::from(confident.settle_drafts),
        });
        let loaded = store::load(&*options.storage)?;
        if loaded.unreadable > 0 {
            tracing::warn!(
                values = loaded.unreadable,
                "some of what was learned of drafts could not be read, and is learned anew"
            );
        }
        for watched in &options.watched {
            if let Some(figures) = loaded.speeds.get(&watched.model) {
                let mut speeds = watched
                    .speeds
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                speeds.restore(*figures);
            }
        }
        for link in &options.links {
            if let Some(bandwidth) = loaded.links.get(&link.name()) {
                link.remember(*bandwidth);
            }
        }
        let mut learned = Learned {
            pairs: loaded.pairs,
            ..Learned::default()
        };
        for known in learned.pairs.values_mut() {
            known.restart(terms.as_ref());
        }
        // Without randomness the coins are still fixed before anything is known of a request.
        let random = || getrandom::u64().unwrap_or_default();
        let shared = Arc::new(Shared {
            learned: Mutex::new(learned),
            terms,
            storage: options.storage,
            watched: options.watched,
            links: options.links,
            written: Mutex::new(Written {
                speeds: loaded.speeds,
                links: loaded.links,
            }),
            metrics: options.metrics,
            boot: random() >> BOOT_SHIFT,
            seed: random(),
            lost: Arc::default(),
            counts: Counts {
                unreadable: AtomicU64::new(loaded.unreadable),
                ..Counts::default()
            },
        });
        let (lessons, handed_in) = sync_channel(QUEUE);
        let (learner, every) = (Arc::clone(&shared), options.checkpoint_every);
        let thread = std::thread::Builder::new()
            .name("acceptance".into())
            .spawn(move || writer::run(&learner, &handed_in, every))
            .map_err(|error| StorageError::Failed(format!("no thread could start: {error}")))?;
        Ok(Adapt {
            shared,
            lessons,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Whether the operator has set a budget. Without, nothing is ever committed unverified in a session.
    pub fn has_budget(&self) -> bool {
        self.shared.terms.is_some()
    }

    /// Judges the drafts of an answer by a pair of models, of a request of this mix of modalities and this MAS. `sure`: what
    /// [`Adapt::admit`] gave.
    pub fn judge(&self, pair: &Arc<Pair>, mix: Mix, mas: f64, sure: Option<Sure>) -> Judge {
        let map = Arc::clone(&self.shared.learned().of(pair).live);
        let school = judge::School {
            pair: Arc::clone(pair),
            mix,
            lessons: self.lessons.clone(),
            lost: Arc::clone(&self.shared.lost),
        };
        Judge::new(map, sure, mas, school)
    }

    /// A request of a class has come, of which nothing else is known yet. Each that could run in confident mode is to be
    /// asked about, whatever the load, and once.
    pub fn admit(&self, pair: &Arc<Pair>, class: Class) -> Admitted {
        let Some(terms) = &self.shared.terms else {
            return Admitted::closed();
        };
        let (boot, seed) = (self.shared.boot, self.shared.seed);
        let mut learned = self.shared.learned();
        let known = learned.of(pair);
        let alarms = known.alarms;
        let stand = known.admit(pair, class, terms, boot, seed);
        let alarm = known.alarms != alarms;
        drop(learned);
        if alarm {
            self.shared.alarm(pair, class);
        }
        let Some(stand) = stand else {
            return Admitted::closed();
        };
        if let Some(number) = stand.audited {
            let audit = Auditing {
                shared: Arc::clone(&self.shared),
                pair: Arc::clone(pair),
                class,
                map: stand.map,
                revision: stand.revision,
                number,
                ended: false,
            };
            return Admitted {
                audit: Some(audit),
                ..Admitted::closed()
            };
        }
        if stand.floor > 1.0 {
            return Admitted::closed();
        }
        Admitted {
            floor: stand.floor,
            sure: Some(Sure {
                map: stand.map,
                shut: stand.shut,
            }),
            audit: None,
        }
    }

    /// What a pair's row tells policies: the floor, above 1 where nothing may be committed unverified, and the share of
    /// drafts accepted of late, where any were judged. `text_alone`: the request has no media.
    pub fn row(
        &self,
        pair: &Pair,
        mix: Mix,
        temperature: f64,
        text_alone: bool,
    ) -> (f64, Option<f64>) {
        let mut learned = self.shared.learned();
        let known = learned.of(pair);
        let floor = match self.shared.terms {
            Some(_) => known.floor(temperature, text_alone),
            None => CLOSED,
        };
        (floor, known.acceptance(mix))
    }

    /// Returns when all that was handed in before is learned, to be seen, and on the disk.
    ///
    /// # Errors
    /// What the database said; it is tried again at the next checkpoint.
    pub fn checkpoint(&self) -> Result<(), String> {
        let closed = || "nothing is learned any more: the node stops".to_owned();
        let (answer, answered) = channel();
        let sent = self.lessons.send(Message::Checkpoint(answer));
        sent.map_err(|_| closed())?;
        answered.recv().map_err(|_| closed())?
    }

    /// Learns what was handed in, writes it down, and stops the thread. Lessons are lost from then on.
    pub fn close(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else {
            return;
        };
        let mut stop = Message::Stop;
        // A full queue is emptied soon, unless the thread is gone.
        while let Err(TrySendError::Full(again)) = self.lessons.try_send(stop) {
            stop = again;
            std::thread::sleep(Duration::from_millis(1));
        }
        // One that panicked has said so.
        let _ended = thread.join();
    }
}

impl Drop for Adapt {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
