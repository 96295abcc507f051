//! The one thread that changes cells. Updates come through a channel, which gives them their order: that in which requests
//! complete. It does not wait for the disk, which another thread writes to; only who asks for a checkpoint does.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use msao_core::offload::Update;
use serde::{Deserialize, Serialize};

use super::cell::CellMap;
use super::key::{CellsKey, Name, PREFIX};
use super::snapshot::Snapshot;
use super::store::{Counts, Shared};
use crate::priority::step_back;
use crate::queue::Taker;
use crate::storage::{Batch, Storage, StorageError};

/// Messages taken together before readers see the result.
const TOGETHER: usize = 256;
/// The version of [`Kept`] that this program writes and reads.
const VERSION: u32 = 1;

/// What the writer is asked for. An answer that nobody waits for any more is no error.
#[derive(Debug)]
pub(super) enum Message {
    Update {
        id: u64,
        updates: Vec<Update>,
    },
    Replace {
        id: u64,
        cells: CellMap,
    },
    Open {
        name: Name,
        copy_of: Option<Name>,
        answer: Sender<Option<Arc<Shared>>>,
    },
    Find {
        name: Name,
        answer: Sender<Option<Arc<Shared>>>,
    },
    Scratch {
        name: Name,
        answer: Sender<Option<Arc<Shared>>>,
    },
    Promote {
        number: u64,
        key: CellsKey,
    },
    Demote {
        number: u64,
        key: CellsKey,
    },
    Forget {
        number: u64,
        key: CellsKey,
    },
    Reconcile {
        active: u64,
        known: Vec<u64>,
        answer: Sender<()>,
    },
    Kept {
        answer: Sender<Vec<(CellsKey, Arc<Shared>)>>,
    },
    Erase {
        key: CellsKey,
        answer: Sender<usize>,
    },
    Settle {
        answer: Sender<()>,
    },
    Checkpoint {
        answer: Sender<Option<Result<(), String>>>,
    },
    Stop,
}

/// A set of cells as the database keeps it.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    name: Name,
    cells: CellMap,
}

#[derive(Debug)]
struct Set {
    cells: CellMap,
    shared: Arc<Shared>,
    /// Under which it is kept; None: it is not.
    name: Option<Name>,
    /// Changed since readers were last shown it, and since it was last written down.
    unseen: bool,
    unwritten: bool,
}

pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    counts: Arc<Counts>,
    sets: HashMap<u64, Set>,
    names: HashMap<Name, u64>,
    next_id: u64,
    /// Names that are to be taken from the database.
    gone: HashSet<Name>,
    /// None: no thread could start, and checkpoints are written by this one.
    disk: Option<Disk>,
}

/// What a checkpoint writes: it is taken back where that fails.
#[derive(Debug, Default)]
struct Written {
    gone: HashSet<Name>,
    sets: Vec<u64>,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

impl Writer {
    pub(super) fn load(
        storage: Arc<dyn Storage>,
        counts: Arc<Counts>,
    ) -> Result<Writer, StorageError> {
        let mut writer = Writer {
            storage: Arc::clone(&storage),
            counts,
            sets: HashMap::new(),
            names: HashMap::new(),
            next_id: 0,
            gone: HashSet::new(),
            disk: Disk::start(Arc::clone(&storage)).ok(),
        };
        storage.scan(PREFIX, &mut |place, value| {
            match ciborium::from_reader::<Kept, _>(value) {
                Ok(kept) if kept.version == VERSION && kept.name.place() == place => {
                    let id = writer.add(kept.cells, Some(kept.name.clone()));
                    if let Some(set) = writer.sets.get_mut(&id) {
                        set.unwritten = false;
                    }
                }
                _ => add(&writer.counts.unreadable, 1),
            }
            ControlFlow::Continue(())
        })?;
        Ok(writer)
    }

    fn add(&mut self, cells: CellMap, name: Option<Name>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let snapshot = Snapshot::new(cells.to_calibration());
        if let Some(name) = &name {
            self.gone.remove(name);
            self.names.insert(name.clone(), id);
        }
        self.sets.insert(
            id,
            Set {
                cells,
                shared: Arc::new(Shared {
                    id,
                    snapshot: ArcSwap::from_pointee(snapshot),
                }),
                unwritten: name.is_some(),
                name,
                unseen: false,
            },
        );
        id
    }

    pub(super) fn run(mut self, messages: &Taker<Message>, every: Duration) {
        let mut checkpoint_at = Instant::now() + every;
        loop {
            let wait = checkpoint_at.saturating_duration_since(Instant::now());
            if let Some(message) = messages.take_within(wait)
                && !self.take(message, messages)
            {
                break;
            }
            self.look_at_disk(false);
            if Instant::now() >= checkpoint_at {
                self.begin_checkpoint();
                self.sweep();
                checkpoint_at = Instant::now() + every;
            }
        }
        let _ = self.checkpoint();
    }

    /// Takes a message and those that wait behind it, then lets readers see.
    fn take(&mut self, first: Message, messages: &Taker<Message>) -> bool {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(message) = next {
            if !self.one(message) {
                self.publish();
                return false;
            }
            taken += 1;
            next = (taken < TOGETHER).then(|| messages.try_take()).flatten();
        }
        self.publish();
        true
    }

    fn one(&mut self, message: Message) -> bool {
        match message {
            Message::Update { id, updates } => self.update(id, &updates),
            Message::Replace { id, cells } => {
                if let Some(set) = self.sets.get_mut(&id) {
                    set.cells = cells;
                    set.unseen = true;
                    set.unwritten = set.name.is_some();
                }
            }
            Message::Open {
                name,
                copy_of,
                answer,
            } => {
                let id = self.open(name, copy_of.as_ref());
                let _ = answer.send(self.shared(id));
            }
            Message::Find { name, answer } => {
                let found = self.names.get(&name).copied();
                let _ = answer.send(found.and_then(|id| self.shared(id)));
            }
            Message::Scratch { name, answer } => {
                let cells = self.cells_of(&name);
                let id = self.add(cells, None);
                let _ = answer.send(self.shared(id));
            }
            Message::Promote { number, key } => self.promote(number, key),
            Message::Demote { number, key } => self.demote(number, key),
            Message::Forget { number, key } => {
                self.unname(&Name::Fork(number, key.clone()));
                self.unname(&Name::Displaced(number, key));
            }
            Message::Reconcile {
                active,
                known,
                answer,
            } => {
                self.reconcile(active, &known);
                let _ = answer.send(());
            }
            Message::Kept { answer } => {
                self.publish();
                let in_force = self.names.iter().filter_map(|(name, id)| match name {
                    Name::Live(key) => Some((key.clone(), self.shared(*id)?)),
                    Name::Fork(..) | Name::Displaced(..) => None,
                });
                let _ = answer.send(in_force.collect());
            }
            Message::Erase { key, answer } => {
                let cells = self.erase(key);
                // Who asked for it is to see it.
                self.publish();
                let _ = answer.send(cells);
            }
            Message::Settle { answer } => {
                self.publish();
                let _ = answer.send(());
            }
            Message::Checkpoint { answer } => {
                let _ = answer.send(Some(self.checkpoint()));
            }
            Message::Stop => return false,
        }
        true
    }

    fn update(&mut self, id: u64, updates: &[Update]) {
        let Some(set) = self.sets.get_mut(&id) else {
            return;
        };
        let mut counted = [0; 3];
        for update in updates {
            let fold = set.cells.apply(update);
            if let Some(count) = counted.get_mut(fold as usize) {
                *count += 1;
            }
        }
        let [applied, full, overflow] = counted;
        add(&self.counts.applied, applied);
        add(&self.counts.full, full);
        add(&self.counts.overflow, overflow);
        if applied > 0 {
            set.unseen = true;
            set.unwritten = set.name.is_some();
        }
    }

    fn open(&mut self, name: Name, copy_of: Option<&Name>) -> u64 {
        if let Some(&id) = self.names.get(&name) {
            return id;
        }
        let cells = copy_of.map(|from| self.cells_of(from)).unwrap_or_default();
        self.add(cells, Some(name))
    }

    fn cells_of(&self, name: &Name) -> CellMap {
        let set = self.names.get(name).and_then(|id| self.sets.get(id));
        set.map(|set| set.cells.clone()).unwrap_or_default()
    }

    fn shared(&self, id: u64) -> Option<Arc<Shared>> {
        self.sets.get(&id).map(|set| Arc::clone(&set.shared))
    }

    /// Whoever has a handle goes on with an empty set under the same name; where nobody has one, the name goes too.
    fn erase(&mut self, key: CellsKey) -> usize {
        let name = Name::Live(key);
        let id = self.names.get(&name).copied();
        let Some(set) = id.and_then(|id| self.sets.get_mut(&id)) else {
            return 0;
        };
        let cells = std::mem::take(&mut set.cells).to_calibration().len();
        set.unseen = true;
        set.unwritten = true;
        if Arc::strong_count(&set.shared) == 1 {
            self.unname(&name);
        }
        cells
    }

    fn promote(&mut self, number: u64, key: CellsKey) {
        let fork = Name::Fork(number, key.clone());
        if !self.names.contains_key(&fork) {
            return;
        }
        let live = Name::Live(key.clone());
        // Even nothing is displaced: that is how `demote` tells it from a promotion that never was.
        self.open(live.clone(), None);
        self.rename(&live, Name::Displaced(number, key));
        self.rename(&fork, live);
    }

    fn demote(&mut self, number: u64, key: CellsKey) {
        let displaced = Name::Displaced(number, key.clone());
        if self.names.contains_key(&displaced) {
            let live = Name::Live(key);
            self.unname(&live);
            self.rename(&displaced, live);
        }
    }

    fn reconcile(&mut self, active: u64, known: &[u64]) {
        // Newest first: of two rollbacks in a row the later generation's is undone first.
        let mut numbered: Vec<(u64, Name)> = (self.names.keys())
            .filter_map(|name| match name {
                Name::Live(_) => None,
                Name::Fork(number, _) | Name::Displaced(number, _) => Some((*number, name.clone())),
            })
            .collect();
        numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        for (number, name) in numbered {
            match name {
                Name::Fork(_, key) if number == active => self.promote(number, key),
                _ if known.contains(&number) => {}
                Name::Displaced(_, key) if number > active => self.demote(number, key),
                name => self.unname(&name),
            }
        }
    }

    fn rename(&mut self, from: &Name, to: Name) {
        let Some(id) = self.names.remove(from) else {
            return;
        };
        self.unname(&to);
        self.gone.insert(from.clone());
        self.gone.remove(&to);
        if let Some(set) = self.sets.get_mut(&id) {
            set.name = Some(to.clone());
            set.unwritten = true;
        }
        self.names.insert(to, id);
    }

    /// Who still has a handle goes on with it; it is not kept any more.
    fn unname(&mut self, name: &Name) {
        let Some(id) = self.names.remove(name) else {
            return;
        };
        self.gone.insert(name.clone());
        if let Some(set) = self.sets.get_mut(&id) {
            set.name = None;
            set.unwritten = false;
        }
    }

    fn publish(&mut self) {
        for set in self.sets.values_mut().filter(|set| set.unseen) {
            let snapshot = Snapshot::new(set.cells.to_calibration());
            set.shared.snapshot.store(Arc::new(snapshot));
            set.unseen = false;
        }
    }

    /// Drops sets that are neither kept nor held by anyone.
    fn sweep(&mut self) {
        self.sets
            .retain(|_, set| set.name.is_some() || Arc::strong_count(&set.shared) > 1);
    }

    /// Has what changed written down by the disk's thread. Where that is still at work, it is done the next time.
    fn begin_checkpoint(&mut self) {
        self.publish();
        if self.disk.as_ref().is_some_and(Disk::is_at_work) {
            return;
        }
        let taken = self.take_batch();
        let result = match (taken, &mut self.disk) {
            (Ok(None), _) => return,
            (Ok(Some((batch, written))), Some(disk)) => match disk.begin(batch, written) {
                Ok(()) => return,
                Err(written) => (written, Err("the thread for the disk has ended".to_owned())),
            },
            (Ok(Some((batch, written))), None) => (written, write(&*self.storage, batch)),
            (Err(problem), _) => (Written::default(), Err(problem)),
        };
        self.finish_checkpoint(result);
    }

    /// Takes what the disk's thread says; `wait`: until it says something, where it is at work.
    fn look_at_disk(&mut self, wait: bool) {
        let done = self.disk.as_mut().and_then(|disk| disk.done(wait));
        if let Some(result) = done {
            self.finish_checkpoint(result);
        }
    }

    /// Counts a checkpoint; of one that failed everything is to be written the next time.
    fn finish_checkpoint(&mut self, (written, result): (Written, Result<(), String>)) {
        let Err(problem) = result else {
            add(&self.counts.checkpoints, 1);
            return;
        };
        add(&self.counts.failed_checkpoints, 1);
        let last = &self.counts.last_error;
        *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
        let Writer { names, gone, .. } = self;
        // A name that is in use again is not gone any more.
        gone.extend((written.gone.into_iter()).filter(|name| !names.contains_key(name)));
        for id in written.sets {
            if let Some(set) = self.sets.get_mut(&id) {
                set.unwritten = set.name.is_some();
            }
        }
    }

    /// Writes down what changed, after all that is being written, and waits for it.
    fn checkpoint(&mut self) -> Result<(), String> {
        self.publish();
        self.look_at_disk(true);
        let (written, result) = match self.take_batch() {
            Ok(None) => return Ok(()),
            Ok(Some((batch, written))) => (written, write(&*self.storage, batch)),
            Err(problem) => (Written::default(), Err(problem)),
        };
        self.finish_checkpoint((written, result.clone()));
        result
    }

    /// What changed, renames included, as one batch, which from now on counts as written. None: nothing.
    fn take_batch(&mut self) -> Result<Option<(Batch, Written)>, String> {
        let mut batch = Batch::default();
        for name in &self.gone {
            batch.remove(&name.place());
        }
        let mut sets = Vec::new();
        for (id, set) in self.sets.iter().filter(|(_, set)| set.unwritten) {
            let Some(name) = &set.name else { continue };
            let kept = Kept {
                version: VERSION,
                name: name.clone(),
                cells: set.cells.clone(),
            };
            let mut bytes = Vec::new();
            ciborium::into_writer(&kept, &mut bytes).map_err(|error| error.to_string())?;
            batch.put(&name.place(), &bytes);
            sets.push(*id);
        }
        if batch.is_empty() {
            return Ok(None);
        }
        let gone = std::mem::take(&mut self.gone);
        self.sets.values_mut().for_each(|set| set.unwritten = false);
        Ok(Some((batch, Written { gone, sets })))
    }
}

fn write(storage: &dyn Storage, batch: Batch) -> Result<(), String> {
    (storage.apply(batch))
        .and_then(|()| storage.flush())
        .map_err(|error| error.to_string())
}

/// The thread that waits for the disk, so that the writer need not: whoever hands in updates waits for the writer when a
/// thousand are queued, and a disk may take longer than that.
#[derive(Debug)]
struct Disk {
    jobs: Option<Sender<Batch>>,
    results: Receiver<Result<(), String>>,
    /// What is being written.
    at_work: Option<Written>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    fn start(storage: Arc<dyn Storage>) -> std::io::Result<Disk> {
        let (jobs, batches) = channel();
        let (done, results) = channel();
        let thread = Builder::new()
            .name("calibration-disk".into())
            .spawn(move || {
                step_back();
                for batch in batches {
                    if done.send(write(&*storage, batch)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Disk {
            jobs: Some(jobs),
            results,
            at_work: None,
            thread: Some(thread),
        })
    }

    fn is_at_work(&self) -> bool {
        self.at_work.is_some()
    }

    /// Hands over a batch. An error gives back what it was about.
    fn begin(&mut self, batch: Batch, written: Written) -> Result<(), Written> {
        match &self.jobs {
            Some(jobs) if jobs.send(batch).is_ok() => {
                self.at_work = Some(written);
                Ok(())
            }
            _ => Err(written),
        }
    }

    /// What was being written, and how it went. None: nothing was, or, unless it is to be waited for, it still is.
    fn done(&mut self, wait: bool) -> Option<(Written, Result<(), String>)> {
        self.at_work.as_ref()?;
        let result = if wait {
            self.results.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            self.results.try_recv()
        };
        let result = match result {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("the thread for the disk has ended".to_owned()),
        };
        Some((self.at_work.take()?, result))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The thread ends when nobody can hand it anything any more.
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
