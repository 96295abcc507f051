//! sled, with what its users report in mind: a database may not open after an abrupt stop, it may panic while it reads what
//! is damaged, and it may wait for ever in a flush. All of that ends here.

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::seal::{seal, unseal};
use super::{Batch, Storage, StorageError, Visit};
use crate::priority::step_back;

/// Memory for sled's cache of pages.
const CACHE_BYTES: u64 = 32 << 20;
/// What is written lies on the disk after so long at the latest, without a flush.
const FLUSH_EVERY_MS: u64 = 500;
/// A flush that takes longer is taken for one that will never end. Seen once of sled 0.34.7, when a database was closed: it waited
/// for minutes, and none of its threads was at work.
const FLUSHED_WITHIN: Duration = Duration::from_secs(30);
/// The same for the flush when a database is closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
/// Where sled keeps its log within the folder.
const LOG_FILE: &str = "db";
const MARK_TREE: &[u8] = b"mark";
const MARK: &[u8] = b"format";
const FORMAT: &[u8] = b"1";

/// Keys and values in a sled database.
#[derive(Debug)]
pub struct SledStorage {
    db: sled::Db,
}

impl Drop for SledStorage {
    fn drop(&mut self) {
        // The last one that has the database flushes it, and who waits for that may wait for ever. sled writes by itself what
        // is left, every half second, as long as the one that waits has it.
        let db = self.db.clone();
        // An error says that it is slow, or that there is no thread: either way it is closed when the process ends.
        let _ = within(CLOSED_WITHIN, move || db.flush().map(drop).map_err(failed));
    }
}

/// Does `work` on a thread of its own, and waits for so long.
fn within(
    time: Duration,
    work: impl FnOnce() -> Result<(), StorageError> + Send + 'static,
) -> Result<(), StorageError> {
    let (done, ended) = channel();
    std::thread::Builder::new()
        .name("database".into())
        // Nobody may wait for it any more.
        .spawn(move || drop(done.send(guarded(work))))
        .map_err(|error| StorageError::Failed(format!("no thread could start: {error}")))?;
    ended.recv_timeout(time).unwrap_or_else(|error| {
        Err(StorageError::Failed(match error {
            RecvTimeoutError::Timeout => format!("it has not answered for {} s", time.as_secs()),
            RecvTimeoutError::Disconnected => "its thread has ended".to_owned(),
        }))
    })
}

/// A database that could not be read, and where it lies now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its new name.
    pub path: PathBuf,
    /// What was wrong with it.
    pub reason: String,
}

/// An open database.
#[derive(Debug)]
pub struct Opened {
    /// It.
    pub storage: SledStorage,
    /// The one before it, where that could not be read: this one is empty then.
    pub set_aside: Option<SetAside>,
}

impl SledStorage {
    /// Opens the database in the folder `path`, or makes one. Every value is held against its checksum; where
    /// something is damaged the folder is renamed and an empty database takes its place.
    ///
    /// # Errors
    /// [`StorageError::Locked`] where another process has it, [`StorageError::Folder`] where the folder cannot be made
    /// or renamed, or the system lets nothing be read or written there: what was learned is not set aside for a full disk.
    pub fn open(path: &Path) -> Result<Opened, StorageError> {
        let folder = |problem: io::Error| StorageError::Folder {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(folder)?;
        }
        let reason = match in_background(path) {
            Ok(storage) => {
                return Ok(Opened {
                    storage,
                    set_aside: None,
                });
            }
            Err(error @ (StorageError::Locked { .. } | StorageError::Folder { .. })) => {
                return Err(error);
            }
            Err(error) => error.to_string(),
        };
        let aside = free_name(path);
        std::fs::rename(path, &aside).map_err(folder)?;
        let storage = in_background(path).map_err(|error| StorageError::Folder {
            path: path.to_owned(),
            problem: error.to_string(),
        })?;
        Ok(Opened {
            storage,
            set_aside: Some(SetAside {
                path: aside,
                reason,
            }),
        })
    }
}

/// The first of `path.damaged-1`, `path.damaged-2`, ... that is free.
fn free_name(path: &Path) -> PathBuf {
    let mut number = 1_u64;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".damaged-{number}"));
        let name = PathBuf::from(name);
        if !name.exists() {
            return name;
        }
        number += 1;
    }
}

/// sled panics on some damage; a panic is an error like any other here.
fn guarded<T>(work: impl FnOnce() -> Result<T, StorageError>) -> Result<T, StorageError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = (panic.downcast_ref::<String>().cloned())
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(StorageError::Failed(format!(
            "it panicked: {}",
            text.as_deref().unwrap_or("without a message")
        )))
    })
}

/// [`open_and_verify`] on a thread that steps back, as then the threads do that sled starts while it opens: they flush and
/// collect for as long as the database is open, and nobody waits for them.
fn in_background(path: &Path) -> Result<SledStorage, StorageError> {
    std::thread::scope(|scope| {
        let opening = std::thread::Builder::new()
            .name("database".into())
            .spawn_scoped(scope, || {
                step_back();
                guarded(|| open_and_verify(path))
            });
        let opening = opening.map_err(|error| StorageError::Folder {
            path: path.to_owned(),
            problem: format!("no thread could start: {error}"),
        })?;
        (opening.join()).unwrap_or_else(|_| Err(StorageError::Failed("it panicked".to_owned())))
    })
}

fn open_and_verify(path: &Path) -> Result<SledStorage, StorageError> {
    let existed = path.join(LOG_FILE).exists();
    let db = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(FLUSH_EVERY_MS))
        .open()
        .map_err(|error| match &error {
            // What sled says of a lock that is taken has no kind of its own.
            sled::Error::Io(io) if io.to_string().contains("could not acquire lock") => {
                StorageError::Locked {
                    path: path.to_owned(),
                }
            }
            _ => at_open(path, error),
        })?;
    // Where its log is damaged from the start sled opens as if nothing had ever been there. This mark tells it from a
    // database that is new.
    let at_open = |error| at_open(path, error);
    let mark = db.open_tree(MARK_TREE).map_err(at_open)?;
    if mark.get(MARK).map_err(at_open)?.is_none() {
        if existed {
            return Err(StorageError::Failed("its contents are gone".into()));
        }
        mark.insert(MARK, FORMAT).map_err(at_open)?;
        mark.flush().map_err(at_open)?;
    }
    let storage = SledStorage { db };
    storage.scan(&[], &mut |_, _| ControlFlow::Continue(()))?;
    Ok(storage)
}

/// Whether the system refuses, whatever lies there.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{
        FileTooLarge, OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    /// Too many open files, of the system and of the process, on every unix.
    const FILES: [i32; 2] = [23, 24];
    matches!(
        error.kind(),
        FileTooLarge
            | OutOfMemory
            | PermissionDenied
            | QuotaExceeded
            | ReadOnlyFilesystem
            | StorageFull
    ) || error
        .raw_os_error()
        .is_some_and(|code| FILES.contains(&code))
}

/// What an error while opening means: the system's refusal says nothing of the database.
fn at_open(path: &Path, error: sled::Error) -> StorageError {
    match &error {
        sled::Error::Io(io) if is_refusal(io) => StorageError::Folder {
            path: path.to_owned(),
            problem: io.to_string(),
        },
        _ => failed(error),
    }
}

fn failed(error: sled::Error) -> StorageError {
    StorageError::Failed(error.to_string())
}

fn damaged(key: &[u8], problem: &'static str) -> StorageError {
    StorageError::Damaged {
        key: key.escape_ascii().take(120).map(char::from).collect(),
        problem,
    }
}

impl Storage for SledStorage {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        guarded(|| {
            let Some(sealed) = self.db.get(key).map_err(failed)? else {
                return Ok(None);
            };
            unseal(key, &sealed)
                .map(|content| Some(content.to_vec()))
                .map_err(|problem| damaged(key, problem))
        })
    }

    fn apply(&self, batch: Batch) -> Result<(), StorageError> {
        guarded(|| {
            let mut changes = sled::Batch::default();
            for (key, value) in batch.changes {
                match value {
                    Some(value) => {
                        let sealed = seal(&key, &value);
                        changes.insert(key, sealed);
                    }
                    None => changes.remove(key),
                }
            }
            self.db.apply_batch(changes).map_err(failed)
        })
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit) -> Result<(), StorageError> {
        guarded(|| {
            for entry in self.db.scan_prefix(prefix) {
                let (key, sealed) = entry.map_err(failed)?;
                let content = unseal(&key, &sealed).map_err(|problem| damaged(&key, problem))?;
                if visit(&key, content).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn flush(&self) -> Result<(), StorageError> {
        let db = self.db.clone();
        within(FLUSHED_WITHIN, move || db.flush().map(drop).map_err(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_database_does_not_wait_for_ever() {
        let soon = Duration::from_millis(20);
        let (never, wait) = channel::<()>();
        let ended = within(soon, move || {
            let _ended = wait.recv();
            Ok(())
        });
        assert!(matches!(ended, Err(StorageError::Failed(_))), "{ended:?}");
        drop(never);
        assert!(within(Duration::from_secs(60), || Ok(())).is_ok());
        let panicked = within(Duration::from_secs(60), || panic!("in this test"));
        assert!(panicked.unwrap_err().to_string().contains("in this test"));
    }

    #[test]
    fn a_full_disk_and_a_closed_folder_are_no_damage() {
        let path = Path::new("state");
        for (error, refused) in [
            // ENOSPC, EACCES, EROFS, EMFILE; EIO and what sled itself finds.
            (io::Error::from_raw_os_error(28), true),
            (io::Error::from_raw_os_error(13), true),
            (io::Error::from_raw_os_error(30), true),
            (io::Error::from_raw_os_error(24), true),
            (io::Error::from_raw_os_error(5), false),
            (io::Error::from(io::ErrorKind::UnexpectedEof), false),
            (io::Error::other("corrupted"), false),
        ] {
            let told = error.to_string();
            let found = at_open(path, sled::Error::Io(error));
            let folder = matches!(found, StorageError::Folder { .. });
            assert_eq!(folder, refused, "{told}");
        }
        let damage = sled::Error::Unsupported("x".into());
        assert!(matches!(at_open(path, damage), StorageError::Failed(_)));
    }
}
