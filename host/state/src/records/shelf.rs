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

#[derive(Debug, Default)]
struct Held {
    records: u64,
    bytes: u64,
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
        let count = shelf.too_many(None, 0, &mut batch);
        storage.apply(batch)?;
        shelf.forget(count);
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

    /// How many of the oldest have to go so that the bounds hold, with one more entry and `more` bytes of snapshots that
    /// only it names. What goes is put into `batch`; the index is as it was.
    fn too_many(&self, added: Option<&Entry>, more: u64, batch: &mut Batch) -> usize {
        let mut left = self.entries.len() as u64 + u64::from(added.is_some());
        let mut bytes = self.bytes + added.map_or(0, |entry| entry.bytes) + more;
        let mut released: HashMap<Digest, u64> = HashMap::new();
        let mut count = 0;
        for (number, entry) in &self.entries {
            if left <= self.keep && bytes <= self.bytes_most {
                break;
            }
            count += 1;
            left -= 1;
            bytes = bytes.saturating_sub(entry.bytes);
            batch.remove(&place(RECORDS, *number));
            batch.remove(&place(INDEX, *number));
            for digest in &entry.snapshots {
                let named_anew = added.is_some_and(|entry| entry.snapshots.contains(digest));
                let (Some(held), false) = (self.snapshots.get(digest), named_anew) else {
                    continue;
                };
                let released = released.entry(*digest).or_default();
                *released += 1;
                if *released == held.records {
                    bytes = bytes.saturating_sub(held.bytes);
                    batch.remove(&snapshot_place(*digest));
                }
            }
        }
        count
    }

    /// Takes the oldest out of the index.
    fn forget(&mut self, count: usize) {
        for (_, entry) in self.entries.drain(..count.min(self.entries.len())) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
            for digest in entry.snapshots {
                let Some(held) = self.snapshots.get_mut(&digest) else {
                    continue;
                };
                held.records -= 1;
                if held.records == 0 {
                    self.bytes = self.bytes.saturating_sub(held.bytes);
                    self.snapshots.remove(&digest);
                }
            }
        }
    }

    /// Keeps a record with the snapshots that it names. False: it is larger than all that may be kept.
    pub(super) fn put(
        &mut self,
        record: &DecisionRecord,
        snapshots: &[Arc<Snapshot>],
    ) -> Result<bool, RecordError> {
        let bytes = encode(record)?;
        let mut batch = Batch::default();
        let mut sizes = HashMap::new();
        for digest in named(record) {
            let snapshot = snapshots
                .iter()
                .find(|snapshot| snapshot.digest() == digest);
            let Some(snapshot) = snapshot else {
                return Err(RecordError::Unreadable(format!(
                    "the record {} names the snapshot {}, which did not come with it",
                    record.id,
                    digest.short()
                )));
            };
            if !self.snapshots.contains_key(&digest) {
                let encoded = encode(snapshot.calibration())?;
                sizes.insert(digest, encoded.len() as u64);
                batch.put(&snapshot_place(digest), &encoded);
            }
        }
        let size = bytes.len() as u64;
        let more = sizes.values().sum::<u64>();
        if self.keep == 0 || size + more > self.bytes_most {
            return Ok(false);
        }
        let entry = Entry {
            version: VERSION,
            id: record.id.clone(),
            snapshots: named(record),
            bytes: size,
        };
        let number = self.next;
        batch.put(&place(RECORDS, number), &bytes);
        batch.put(&place(INDEX, number), &encode(&entry)?);
        let count = self.too_many(Some(&entry), more, &mut batch);
        // The index says what is in the database: it changes after that.
        self.storage.apply(batch)?;
        self.next += 1;
        self.hold(&entry, |digest| sizes.get(&digest).copied().unwrap_or(0));
        self.entries.push_back((number, entry));
        self.forget(count);
        Ok(true)
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
