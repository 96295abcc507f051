//! Where records lie in the database, and which of them may stay.
//!
//! A record and its entry in the index have a number each, counted up; the oldest goes first. Snapshots lie under their
//! digest as long as a record names them.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::Calibration;
use msao_core::offload::record::DecisionRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::jsonl::named;
use crate::calibration::Snapshot;
use crate::storage::{Batch, Storage};

const RECORDS: &[u8] = b"records/record/";
const INDEX: &[u8] = b"records/index/";
const SNAPSHOTS: &[u8] = b"records/snapshot/";
/// The version of [`Entry`] that this program writes and reads.
const VERSION: u32 = 1;

/// What is known of a record without reading it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    version: u32,
    id: String,
    snapshots: Vec<Digest>,
    bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Held {
    records: u64,
    bytes: u64,
}

/// A record with the snapshots that it names.
pub(super) type Put = (DecisionRecord, Vec<Arc<Snapshot>>);

/// The index as it was, should what follows from it not be written.
struct Before {
    next: u64,
    bytes: u64,
    snapshots: HashMap<Digest, Held>,
    /// What has left it since, oldest first.
    gone: Vec<(u64, Entry)>,
}

pub(super) struct Shelf {
    storage: Arc<dyn Storage>,
    keep: u64,
    bytes_most: u64,
    entries: VecDeque<(u64, Entry)>,
    snapshots: HashMap<Digest, Held>,
    bytes: u64,
    next: u64,
    /// Entries that could not be read at the start, and were taken away.
    pub(super) unreadable: u64,
}

fn place(table: &[u8], number: u64) -> Vec<u8> {
    [table, &number.to_be_bytes()].concat()
}

fn snapshot_place(digest: Digest) -> Vec<u8> {
    [SNAPSHOTS, &digest.0].concat()
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, RecordError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes)
        .map_err(|error| RecordError::Unreadable(error.to_string()))?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    ciborium::from_reader(bytes).map_err(|error| RecordError::Unreadable(error.to_string()))
}

impl Shelf {
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        keep: u64,
        bytes_most: u64,
    ) -> Result<Shelf, RecordError> {
        let mut shelf = Shelf {
            storage: Arc::clone(&storage),
            keep,
            bytes_most,
            entries: VecDeque::new(),
            snapshots: HashMap::new(),
            bytes: 0,
            next: 0,
            unreadable: 0,
        };
        let mut sizes = HashMap::new();
        storage.scan(SNAPSHOTS, &mut |key, value| {
            let digest = key
                .strip_prefix(SNAPSHOTS)
                .and_then(|it| it.try_into().ok());
            if let Some(digest) = digest {
                sizes.insert(Digest(digest), value.len() as u64);
            }
            ControlFlow::Continue(())
        })?;
        let mut batch = Batch::default();
        storage.scan(INDEX, &mut |key, value| {
            let number = key.strip_prefix(INDEX).and_then(|it| it.try_into().ok());
            let number = number.map(u64::from_be_bytes);
            match (number, decode::<Entry>(value)) {
                (Some(number), Ok(entry)) if entry.version == VERSION => {
                    shelf.next = number + 1;
                    shelf.hold(&entry, |digest| sizes.get(&digest).copied().unwrap_or(0));
                    shelf.entries.push_back((number, entry));
                }
                (number, _) => {
                    shelf.unreadable += 1;
                    batch.remove(key);
                    if let Some(number) = number {
                        shelf.next = number + 1;
                        batch.remove(&place(RECORDS, number));
                    }
                }
            }
            ControlFlow::Continue(())
        })?;
        for digest in sizes.keys() {
            if !shelf.snapshots.contains_key(digest) {
                batch.remove(&snapshot_place(*digest));
            }
        }
        shelf.shrink(&mut batch, &mut Vec::new());
        storage.apply(batch)?;
        Ok(shelf)
    }

    fn hold(&mut self, entry: &Entry, size: impl Fn(Digest) -> u64) {
        self.bytes += entry.bytes;
        for &digest in &entry.snapshots {
            let held = self.snapshots.entry(digest).or_default();
            if held.records == 0 {
                held.bytes = size(digest);
                self.bytes += held.bytes;
            }
            held.records += 1;
        }
    }

    /// Takes the oldest away until the bounds hold.
    fn shrink(&mut self, batch: &mut Batch, gone: &mut Vec<(u64, Entry)>) {
        while self.entries.len() as u64 > self.keep || self.bytes > self.bytes_most {
            let Some((number, entry)) = self.entries.pop_front() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(entry.bytes);
            batch.remove(&place(RECORDS, number));
            batch.remove(&place(INDEX, number));
            for &digest in &entry.snapshots {
                let Some(held) = self.snapshots.get_mut(&digest) else {
                    continue;
                };
                held.records -= 1;
                if held.records == 0 {
                    self.bytes = self.bytes.saturating_sub(held.bytes);
                    self.snapshots.remove(&digest);
                    batch.remove(&snapshot_place(digest));
                }
            }
            gone.push((number, entry));
        }
    }

    /// Keeps records, all that can be kept or none. Gives how many were: not one that is larger than all that may be kept,
    /// or that cannot be written down.
    pub(super) fn put(&mut self, records: &[Put]) -> usize {
        let mut before = Before {
            next: self.next,
            bytes: self.bytes,
            snapshots: self.snapshots.clone(),
            gone: Vec::new(),
        };
        let mut batch = Batch::default();
        let added = (records.iter())
            .filter(|(record, snapshots)| self.add(record, snapshots, &mut batch, &mut before.gone))
            .count();
        match self.storage.apply(batch) {
            Ok(()) => added,
            Err(_) => {
                self.restore(before);
                0
            }
        }
    }

    /// Adds one to the index and to what is to be written.
    fn add(
        &mut self,
        record: &DecisionRecord,
        snapshots: &[Arc<Snapshot>],
        batch: &mut Batch,
        gone: &mut Vec<(u64, Entry)>,
    ) -> bool {
        let Ok(bytes) = encode(record) else {
            return false;
        };
        let mut new = HashMap::new();
        for digest in named(record) {
            let snapshot = snapshots.iter().find(|it| it.digest() == digest);
            let Some(snapshot) = snapshot else {
                // It could not be replayed.
                return false;
            };
            if !self.snapshots.contains_key(&digest) {
                let Ok(encoded) = encode(snapshot.calibration()) else {
                    return false;
                };
                new.insert(digest, encoded);
            }
        }
        let size = bytes.len() as u64;
        let more = new.values().map(|it| it.len() as u64).sum::<u64>();
        if self.keep == 0 || size + more > self.bytes_most {
            return false;
        }
        let entry = Entry {
            version: VERSION,
            id: record.id.clone(),
            snapshots: named(record),
            bytes: size,
        };
        let Ok(encoded) = encode(&entry) else {
            return false;
        };
        let number = self.next;
        self.next += 1;
        batch.put(&place(RECORDS, number), &bytes);
        batch.put(&place(INDEX, number), &encoded);
        for (digest, encoded) in &new {
            batch.put(&snapshot_place(*digest), encoded);
        }
        self.hold(&entry, |digest| {
            new.get(&digest).map_or(0, |it| it.len() as u64)
        });
        self.entries.push_back((number, entry));
        self.shrink(batch, gone);
        true
    }

    /// The index says what is in the database.
    fn restore(&mut self, before: Before) {
        for entry in before.gone.into_iter().rev() {
            self.entries.push_front(entry);
        }
        let is_new = |entry: &(u64, Entry)| entry.0 >= before.next;
        while self.entries.back().is_some_and(is_new) {
            self.entries.pop_back();
        }
        self.next = before.next;
        self.bytes = before.bytes;
        self.snapshots = before.snapshots;
    }

    /// The newest record of that id.
    pub(super) fn find(&self, id: &str) -> Option<u64> {
        let mut newest_first = self.entries.iter().rev();
        newest_first
            .find(|(_, entry)| entry.id == id)
            .map(|(number, _)| *number)
    }

    /// The newest `count` numbers, oldest first.
    pub(super) fn newest(&self, count: usize) -> Vec<u64> {
        let skipped = self.entries.len().saturating_sub(count);
        self.entries.iter().skip(skipped).map(|it| it.0).collect()
    }

    pub(super) fn read(&self, number: u64) -> Result<Option<DecisionRecord>, RecordError> {
        let bytes = self.storage.get(&place(RECORDS, number))?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }

    pub(super) fn snapshot(&self, digest: Digest) -> Result<Option<Calibration>, RecordError> {
        let bytes = self.storage.get(&snapshot_place(digest))?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }

    pub(super) fn len(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn snapshots(&self) -> u64 {
        self.snapshots.len() as u64
    }
}
