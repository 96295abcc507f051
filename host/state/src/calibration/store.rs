//! Cells for everyone else: handles that read without waiting and hand updates to the one writer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use msao_core::offload::{Calibration, Update};

use super::cell::{CellMap, CellsError};
use super::key::{CellsKey, Name};
use super::snapshot::Snapshot;
use super::writer::{Message, Writer};
use crate::queue::{Putter, queue};
use crate::storage::{Storage, StorageError};

/// Calls whose updates may wait for the writer. Who comes later waits in [`Cells::update`]: nothing is dropped.
const QUEUE: usize = 1024;

/// What the writer has done since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Updates that were applied.
    pub applied: u64,
    /// Updates refused because the plug-in has 4,096 cells.
    pub full: u64,
    /// Updates refused because the cell would have left the finite numbers.
    pub overflow: u64,
    /// Checkpoints that reached the disk.
    pub checkpoints: u64,
    /// Checkpoints that failed; the next one tries it again.
    pub failed_checkpoints: u64,
    /// Kept cells that could not be read at the start, and began empty.
    pub unreadable: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) applied: AtomicU64,
    pub(super) full: AtomicU64,
    pub(super) overflow: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) failed_checkpoints: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) last_error: Mutex<Option<String>>,
}

/// What handles and the writer share of one set of cells.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: u64,
    pub(super) snapshot: ArcSwap<Snapshot>,
}

/// A set of cells: cheap to clone, read by many, changed by the store's one writer.
#[derive(Clone, Debug)]
pub struct Cells {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Putter<Message>,
}

impl Cells {
    /// The cells as they are now. Costs a pointer's copy.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// Has `updates` applied after all that were handed in before, to this set or any other. They show in a later
    /// [`Self::snapshot`]. Waits while a thousand calls' updates are queued. Returns false, and nothing is applied, once
    /// the store is closed.
    pub fn update(&self, updates: Vec<Update>) -> bool {
        if updates.is_empty() {
            return true;
        }
        let message = Message::Update {
            id: self.shared.id,
            updates,
        };
        self.writer.put(message)
    }

    /// Has `cells` take the place of all that are there, after all updates that were handed in before. Returns false, as
    /// [`Self::update`].
    ///
    /// # Errors
    /// [`CellsError`]: they cannot have been learned, and nothing has changed.
    pub fn replace(&self, cells: &Calibration) -> Result<bool, CellsError> {
        let message = Message::Replace {
            id: self.shared.id,
            cells: CellMap::checked(cells)?,
        };
        Ok(self.writer.put(message))
    }
}

/// Between checkpoints, unless who opens a store says otherwise.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// All cells of a node. One thread changes and checkpoints them, each second or as it was told, and at the end.
#[derive(Debug)]
pub struct CalibrationStore {
    writer: Putter<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
    counts: Arc<Counts>,
}

impl CalibrationStore {
    /// Reads what `storage` keeps and starts the writer.
    ///
    /// # Errors
    /// [`StorageError`] where the database cannot be scanned, or no thread started. A single set that cannot be read
    /// starts empty and is counted.
    pub fn open(storage: Arc<dyn Storage>) -> Result<CalibrationStore, StorageError> {
        CalibrationStore::open_every(storage, CHECKPOINT_EVERY)
    }

    /// The same with so long between two checkpoints.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_every(
        storage: Arc<dyn Storage>,
        every: Duration,
    ) -> Result<CalibrationStore, StorageError> {
        let counts = Arc::new(Counts::default());
        let (sender, receiver) = queue(QUEUE);
        let writer = Writer::load(storage, Arc::clone(&counts))?;
        let thread = std::thread::Builder::new()
            .name("calibration".into())
            .spawn(move || writer.run(&receiver, every))
            .map_err(|error| StorageError::Failed(format!("no thread could start: {error}")))?;
        Ok(CalibrationStore {
            writer: sender,
            thread: Mutex::new(Some(thread)),
            counts,
        })
    }

    fn ask<T: Default>(&self, question: impl FnOnce(Sender<T>) -> Message) -> T {
        let (answer, answered) = channel();
        if !self.writer.put(question(answer)) {
            return T::default();
        }
        answered.recv().unwrap_or_default()
    }

    /// What is told is done before all that is asked later. A store that is closed changes nothing any more.
    fn tell(&self, message: Message) {
        self.writer.put(message);
    }

    fn handle(&self, shared: Option<Arc<Shared>>) -> Cells {
        // None: the store is closed. Then a handle reads nothing and its updates are refused.
        let shared = shared.unwrap_or_else(|| {
            Arc::new(Shared {
                id: u64::MAX,
                snapshot: ArcSwap::from(Snapshot::empty()),
            })
        });
        Cells {
            shared,
            writer: self.writer.clone(),
        }
    }

    fn named(&self, name: Name, copy_of: Option<Name>) -> Cells {
        let shared = self.ask(|answer| Message::Open {
            name,
            copy_of,
            answer,
        });
        self.handle(shared)
    }

    /// The cells in force under `key`; empty ones where nothing was learned yet.
    pub fn live(&self, key: &CellsKey) -> Cells {
        self.named(Name::Live(key.clone()), None)
    }

    /// The cells of the candidate generation `number`: as they were left, or else a copy of those in force now. Under
    /// another schema or name there are none in force, and it starts empty.
    pub fn fork(&self, number: u64, key: &CellsKey) -> Cells {
        self.named(
            Name::Fork(number, key.clone()),
            Some(Name::Live(key.clone())),
        )
    }

    /// The cells that promoting generation `number` put out of force, while they are kept.
    pub fn displaced(&self, number: u64, key: &CellsKey) -> Option<Cells> {
        let name = Name::Displaced(number, key.clone());
        self.ask(|answer| Message::Find { name, answer })
            .map(|shared| self.handle(Some(shared)))
    }

    /// A copy of the cells in force that is never kept: a shadow's. Gone with its last handle.
    pub fn scratch(&self, key: &CellsKey) -> Cells {
        let name = Name::Live(key.clone());
        let shared = self.ask(|answer| Message::Scratch { name, answer });
        self.handle(shared)
    }

    /// Puts the fork of generation `number` in force; those it displaces are kept beside it. Handles stay what they
    /// were. Does nothing where there is no such fork, so that it may be repeated after a restart. Does not wait: whatever
    /// is asked of the store later comes after it.
    pub fn promote(&self, number: u64, key: &CellsKey) {
        let key = key.clone();
        self.tell(Message::Promote { number, key });
    }

    /// Undoes [`Self::promote`]: what was displaced is in force again, and what generation `number` learned since its
    /// fork is dropped.
    pub fn demote(&self, number: u64, key: &CellsKey) {
        let key = key.clone();
        self.tell(Message::Demote { number, key });
    }

    /// Drops what is kept for generation `number`: its fork, and what it displaced.
    pub fn forget(&self, number: u64, key: &CellsKey) {
        let key = key.clone();
        self.tell(Message::Forget { number, key });
    }

    /// Every set in force that is kept, be it of a plug-in, a schema and models that are in use or not: with its cells after
    /// all updates that were handed in before. In the order of their keys.
    pub fn kept(&self) -> Vec<(CellsKey, Arc<Snapshot>)> {
        let kept: Vec<(CellsKey, Arc<Shared>)> = self.ask(|answer| Message::Kept { answer });
        let kept = kept.into_iter();
        let mut kept: Vec<(CellsKey, Arc<Snapshot>)> = kept
            .map(|(key, shared)| (key, shared.snapshot.load_full()))
            .collect();
        kept.sort_by(|(one, _), (other, _)| one.cmp(other));
        kept
    }

    /// Has the set in force under `key` forget all, after all updates that were handed in before; handles stay what they
    /// were. Returns how many cells it had. What is kept for candidates stays.
    pub fn erase(&self, key: &CellsKey) -> usize {
        let key = key.clone();
        self.ask(|answer| Message::Erase { key, answer })
    }

    /// After a restart: has what is kept agree with what is active. Of the generations that are not in `known`, those after
    /// `active` were rolled back just before the stop, and what they displaced is in force again; what else is kept for
    /// them is dropped. `active` itself is promoted, where the stop came before that.
    pub fn reconcile(&self, active: u64, known: Vec<u64>) {
        self.ask(|answer| Message::Reconcile {
            active,
            known,
            answer,
        })
    }

    /// Returns when all updates handed in before are applied and to be seen.
    pub fn settle(&self) {
        self.ask(|answer| Message::Settle { answer })
    }

    /// Returns when all updates handed in before are on the disk.
    ///
    /// # Errors
    /// What the database said; the next checkpoint tries it again.
    pub fn checkpoint(&self) -> Result<(), String> {
        let failed = self.ask(|answer| Message::Checkpoint { answer });
        match failed {
            Some(Ok(())) => Ok(()),
            Some(Err(problem)) => Err(problem),
            None => Err("the calibration store is closed".into()),
        }
    }

    /// What the writer has done.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            applied: read(&self.counts.applied),
            full: read(&self.counts.full),
            overflow: read(&self.counts.overflow),
            checkpoints: read(&self.counts.checkpoints),
            failed_checkpoints: read(&self.counts.failed_checkpoints),
            unreadable: read(&self.counts.unreadable),
        }
    }

    /// What the last failed checkpoint said.
    pub fn last_error(&self) -> Option<String> {
        let last = &self.counts.last_error;
        last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies what is queued, writes it down and stops the writer. Handles refuse updates from then on.
    pub fn close(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // Either send fails because the thread is gone, or the thread ends when it reads this.
            self.writer.put(Message::Stop);
            let _ = thread.join();
        }
    }
}

impl Drop for CalibrationStore {
    fn drop(&mut self) {
        self.close();
    }
}
