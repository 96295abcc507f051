//! A database that fails when it is told to.

use std::sync::atomic::{AtomicBool, Ordering};

use msao_state::{Batch, MemoryStorage, Storage, StorageError, Visit};

/// See the module.
#[derive(Default)]
pub struct Failing {
    storage: MemoryStorage,
    fails: AtomicBool,
}

impl Failing {
    /// From here on writes fail, or do so no more.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::SeqCst);
    }
}

impl Storage for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.storage.get(key)
    }

    fn apply(&self, batch: Batch) -> Result<(), StorageError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(StorageError::Failed("told to".into()));
        }
        self.storage.apply(batch)
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit) -> Result<(), StorageError> {
        self.storage.scan(prefix, visit)
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.storage.flush()
    }
}
