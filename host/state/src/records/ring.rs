//! The ring of decisions: who serves hands a record over and goes on; a thread writes it down.

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use msao_core::digest::Digest;
use msao_core::offload::record::DecisionRecord;
use serde::{Deserialize, Serialize};

use super::RecordError;
use super::config::{RecordConfig, Redact, Wanted};
use super::finite::all_finite;
use super::jsonl::{Line, named, write_line};
use super::shelf::{Put, Shelf};
use crate::calibration::Snapshot;
use crate::priority::step_back;
use crate::queue::{Putter, Taker, queue};
use crate::storage::{Storage, StorageError};

/// Records come together for so long before they are written: each by itself would cost more than deciding does.
const GATHER: Duration = Duration::from_millis(50);
/// Records that are written together at most.
const TOGETHER: usize = 128;

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RecordStats {
    /// Kept now.
    pub kept: u64,
    /// Bytes of all that is kept, snapshots included.
    pub bytes: u64,
    /// Calibration snapshots kept with them.
    pub snapshots: u64,
    /// Written since the start.
    pub written: u64,
    /// Dropped since the start because too many waited to be written.
    pub dropped: u64,
    /// Not written because the database failed, because the record alone is larger than the ring, or because a number in it is
    /// not finite, so that it could not be read again.
    pub failed: u64,
    /// Found unreadable at the start, and taken away.
    pub unreadable: u64,
}

/// What an export holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Decisions.
    pub decisions: u64,
    /// Snapshots.
    pub snapshots: u64,
}

enum Message {
    Put(Box<DecisionRecord>, Vec<Arc<Snapshot>>),
    Settle(Sender<()>),
    Stop,
}

#[derive(Default)]
struct Counts {
    written: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// A bounded ring of decision records.
pub struct RecordRing {
    config: RecordConfig,
    /// Which requests are sampled is chosen with it.
    salt: Vec<u8>,
    shelf: Arc<Mutex<Shelf>>,
    counts: Arc<Counts>,
    writer: Putter<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl RecordRing {
    /// Opens the ring that `storage` keeps. Which requests are sampled is drawn anew: nobody outside can know.
    ///
    /// # Errors
    /// [`RecordError`]: a wrong configuration, a database that fails, or a system without random bytes.
    pub fn open(
        storage: Arc<dyn Storage>,
        config: RecordConfig,
    ) -> Result<RecordRing, RecordError> {
        let mut salt = vec![0; 32];
        getrandom::fill(&mut salt).map_err(|error| RecordError::Random(error.to_string()))?;
        RecordRing::open_salted(storage, config, salt)
    }

    /// [`Self::open`] with a given salt, so that the same requests are sampled each time: for recordings that are to be the
    /// same, byte by byte.
    ///
    /// # Errors
    /// As there.
    pub fn open_salted(
        storage: Arc<dyn Storage>,
        config: RecordConfig,
        salt: Vec<u8>,
    ) -> Result<RecordRing, RecordError> {
        config.check()?;
        let shelf = Shelf::open(storage, config.keep, config.mib << 20)?;
        let shelf = Arc::new(Mutex::new(shelf));
        let counts = Arc::new(Counts::default());
        let (writer, messages) = queue(config.queue as usize);
        let thread = {
            let (shelf, counts) = (Arc::clone(&shelf), Arc::clone(&counts));
            std::thread::Builder::new()
                .name("records".into())
                .spawn(move || write_down(&shelf, &counts, &messages))
                .map_err(|error| StorageError::Failed(format!("no thread could start: {error}")))?
        };
        Ok(RecordRing {
            config,
            salt,
            shelf,
            counts,
            writer,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// What of the request called `id` is to be recorded. Who records asks first, so that nothing is gathered in vain.
    pub fn wanted(&self, id: &str) -> Wanted {
        self.config.wanted(&self.salt, id)
    }

    /// Whether the operator wants `what` left out of everything that is kept of requests.
    pub fn redacts(&self, what: Redact) -> bool {
        self.config.redact.contains(&what)
    }

    /// Hands over a record with the snapshots that it names. Never waits; false: it was not wanted, a number in it is not
    /// finite, or too many wait already; the last two are counted.
    pub fn push(&self, mut record: DecisionRecord, snapshots: Vec<Arc<Snapshot>>) -> bool {
        if self.wanted(&record.id) == Wanted::Nothing {
            return false;
        }
        self.config.redact(&self.salt, &mut record);
        if !all_finite(&record) {
            self.counts.failed.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let put = Message::Put(Box::new(record), snapshots);
        let taken = self.writer.try_put(put);
        if !taken {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest record of the request called `id`.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn get(&self, id: &str) -> Result<Option<DecisionRecord>, RecordError> {
        let shelf = self.shelf();
        shelf.find(id).map_or(Ok(None), |number| shelf.read(number))
    }

    /// The calibration that a record names.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn snapshot(&self, digest: Digest) -> Result<Option<Arc<Snapshot>>, RecordError> {
        let found = self.shelf().snapshot(digest)?;
        Ok(found.map(|calibration| Arc::new(Snapshot::new(calibration))))
    }

    /// The newest `count` records, oldest first.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn tail(&self, count: usize) -> Result<Vec<DecisionRecord>, RecordError> {
        let shelf = self.shelf();
        (shelf.newest(count).into_iter())
            .filter_map(|number| shelf.read(number).transpose())
            .collect()
    }

    /// Writes the newest `count` records as JSON lines, oldest first, each snapshot before the first record that names
    /// it. Records that leave the ring meanwhile are left out.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn export(&self, out: &mut dyn Write, count: usize) -> Result<Exported, RecordError> {
        let numbers = self.shelf().newest(count);
        let mut exported = Exported::default();
        let mut written = HashSet::new();
        for number in numbers {
            // The lock is taken anew for each, so that an export does not hold up the writer.
            let (record, snapshots) = {
                let shelf = self.shelf();
                let Some(record) = shelf.read(number)? else {
                    continue;
                };
                let mut snapshots = Vec::new();
                for digest in named(&record) {
                    if written.insert(digest) {
                        let found = shelf.snapshot(digest)?.ok_or_else(|| {
                            RecordError::Unreadable(format!(
                                "the snapshot {} of the record {} is missing",
                                digest.short(),
                                record.id
                            ))
                        })?;
                        snapshots.push((digest, found));
                    }
                }
                (record, snapshots)
            };
            for (digest, calibration) in snapshots {
                let line = Line::Snapshot {
                    digest,
                    calibration,
                };
                write_line(out, &line)?;
                exported.snapshots += 1;
            }
            write_line(out, &Line::Decision(Box::new(record)))?;
            exported.decisions += 1;
        }
        out.flush()?;
        Ok(exported)
    }

    /// Returns when all records handed over before are written.
    ///
    /// # Errors
    /// [`RecordError::Closed`].
    pub fn settle(&self) -> Result<(), RecordError> {
        let (answer, answered) = channel();
        if !self.writer.put(Message::Settle(answer)) {
            return Err(RecordError::Closed);
        }
        answered.recv().map_err(|_| RecordError::Closed)
    }

    /// What became of the records.
    pub fn stats(&self) -> RecordStats {
        let shelf = self.shelf();
        RecordStats {
            kept: shelf.len(),
            bytes: shelf.bytes(),
            snapshots: shelf.snapshots(),
            written: self.counts.written.load(Ordering::Relaxed),
            dropped: self.counts.dropped.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
            unreadable: shelf.unreadable,
        }
    }
}

impl Drop for RecordRing {
    fn drop(&mut self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // Either it is refused because the thread is gone, or the thread ends when it reads this.
            self.writer.put(Message::Stop);
            let _ = thread.join();
        }
    }
}

fn write_down(shelf: &Mutex<Shelf>, counts: &Counts, messages: &Taker<Message>) {
    // Writing a record takes longer than deciding. Where there are more decisions than can be written, the rest is dropped
    // anyhow, and this thread would take the processor from those who decide. The database's threads, which it starts,
    // step back with it.
    step_back();
    let write = |together: &mut Vec<Put>| {
        if together.is_empty() {
            return;
        }
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let written = shelf.put(together);
        drop(shelf);
        let failed = together.len() - written;
        counts.written.fetch_add(written as u64, Ordering::Relaxed);
        counts.failed.fetch_add(failed as u64, Ordering::Relaxed);
        together.clear();
    };
    let mut together = Vec::new();
    while let Some(first) = messages.take() {
        if let Message::Put(..) = first {
            messages.gather(GATHER, TOGETHER);
        }
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Put(record, snapshots) => together.push((*record, snapshots)),
                Message::Settle(answer) => {
                    write(&mut together);
                    // Nobody may wait for the answer any more.
                    let _ = answer.send(());
                }
                Message::Stop => {
                    write(&mut together);
                    return;
                }
            }
            next = (together.len() < TOGETHER)
                .then(|| messages.try_take())
                .flatten();
        }
        write(&mut together);
    }
}
