//! The one thread that changes cells. Updates come through a channel, which gives them their order: that in which requests
//! complete.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use msao_core::offload::Update;
use serde::{Deserialize, Serialize};

use super::cell::CellMap;
use super::key::{CellsKey, Name, PREFIX};
use super::snapshot::Snapshot;
use super::store::{Counts, Shared};
use crate::storage::{Batch, Storage, StorageError};

/// Between checkpoints.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
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

    pub(super) fn run(mut self, messages: &Receiver<Message>) {
        let mut checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
        loop {
            let wait = checkpoint_at.saturating_duration_since(Instant::now());
            let going_on = match messages.recv_timeout(wait) {
                Ok(message) => self.take(message, messages),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            if !going_on {
                break;
            }
            if Instant::now() >= checkpoint_at {
                // A failure is counted and told; the sets stay unwritten for the next time.
                let _ = self.checkpoint();
                self.sweep();
                checkpoint_at = Instant::now() + CHECKPOINT_EVERY;
            }
        }
        let _ = self.checkpoint();
    }

    /// Takes a message and those that wait behind it, then lets readers see.
    fn take(&mut self, first: Message, messages: &Receiver<Message>) -> bool {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(message) = next {
            if !self.one(message) {
                self.publish();
                return false;
            }
            taken += 1;
            next = (taken < TOGETHER)
                .then(|| messages.try_recv().ok())
                .flatten();
        }
        self.publish();
        true
    }

    fn one(&mut self, message: Message) -> bool {
        match message {
            Message::Update { id, updates } => self.update(id, &updates),
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

    fn checkpoint(&mut self) -> Result<(), String> {
        self.publish();
        let written = self.write();
        match &written {
            Ok(false) => {}
            Ok(true) => add(&self.counts.checkpoints, 1),
            Err(problem) => {
                add(&self.counts.failed_checkpoints, 1);
                let last = &self.counts.last_error;
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem.clone());
            }
        }
        written.map(drop)
    }

    /// Writes what changed, renames included, as one batch. Returns whether there was anything.
    fn write(&mut self) -> Result<bool, String> {
        let mut batch = Batch::default();
        for name in &self.gone {
            batch.remove(&name.place());
        }
        for set in self.sets.values().filter(|set| set.unwritten) {
            let Some(name) = &set.name else { continue };
            let kept = Kept {
                version: VERSION,
                name: name.clone(),
                cells: set.cells.clone(),
            };
            let mut bytes = Vec::new();
            ciborium::into_writer(&kept, &mut bytes).map_err(|error| error.to_string())?;
            batch.put(&name.place(), &bytes);
        }
        if batch.is_empty() {
            return Ok(false);
        }
        let done = self.storage.apply(batch);
        done.and_then(|()| self.storage.flush())
            .map_err(|error| error.to_string())?;
        self.gone.clear();
        self.sets.values_mut().for_each(|set| set.unwritten = false);
        Ok(true)
    }
}
