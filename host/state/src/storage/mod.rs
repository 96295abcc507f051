//! Keys and values behind a small trait, so that what stores them can be exchanged.

mod memory;
mod seal;
mod sled;

use std::ops::ControlFlow;
use std::path::PathBuf;

use thiserror::Error;

pub use self::memory::MemoryStorage;
pub use self::sled::{Opened, SetAside, SledStorage};

/// Why a database did not do what it was asked.
#[derive(Debug, Error)]
pub enum StorageError {
    /// Another process has it.
    #[error(
        "the database {} is in use by another process; stop that one, or name another folder",
        .path.display()
    )]
    Locked {
        /// Its folder.
        path: PathBuf,
    },
    /// Its folder cannot be made, read or renamed.
    #[error("the database {} cannot be opened: {problem}", .path.display())]
    Folder {
        /// Its folder.
        path: PathBuf,
        /// What the operating system says.
        problem: String,
    },
    /// A value does not match its checksum, or is of a format that this program does not know.
    #[error(
        "the value of {key} is damaged ({problem}); at the next start the database is set aside"
    )]
    Damaged {
        /// Its key, as far as it is text.
        key: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// The database itself failed.
    #[error("the database failed: {0}; at the next start it is set aside if it cannot be read")]
    Failed(String),
}

/// Looks at a key and its value; may end the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Keys and values, in the order of their keys' bytes.
pub trait Storage: Send + Sync {
    /// The value of `key`.
    ///
    /// # Errors
    /// [`StorageError`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Does all of `batch` or nothing.
    ///
    /// # Errors
    /// [`StorageError`].
    fn apply(&self, batch: Batch) -> Result<(), StorageError>;

    /// Shows every key that begins with `prefix`, in order.
    ///
    /// # Errors
    /// [`StorageError`].
    fn scan(&self, prefix: &[u8], visit: &mut Visit) -> Result<(), StorageError>;

    /// Returns when everything is on the disk.
    ///
    /// # Errors
    /// [`StorageError`].
    fn flush(&self) -> Result<(), StorageError>;

    /// Gives `key` a value.
    ///
    /// # Errors
    /// [`StorageError`].
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.put(key, value);
        self.apply(batch)
    }

    /// Takes `key` away.
    ///
    /// # Errors
    /// [`StorageError`].
    fn remove(&self, key: &[u8]) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        batch.remove(key);
        self.apply(batch)
    }
}

/// Changes that happen together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    changes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Gives `key` a value.
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.changes.push((key.to_vec(), Some(value.to_vec())));
    }

    /// Takes `key` away.
    pub fn remove(&mut self, key: &[u8]) {
        self.changes.push((key.to_vec(), None));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
