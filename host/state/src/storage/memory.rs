//! A database that is gone with the process: for tools that replay, and for nodes that are to remember nothing.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use super::{Batch, Storage, StorageError, Visit};

/// Keys and values in memory.
#[derive(Debug, Default)]
pub struct MemoryStorage {
    // A panic cannot leave a map half changed: each change is one call.
    values: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl Storage for MemoryStorage {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        Ok(values.get(key).cloned())
    }

    fn apply(&self, batch: Batch) -> Result<(), StorageError> {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch.changes {
            match value {
                Some(value) => values.insert(key, value),
                None => values.remove(&key),
            };
        }
        Ok(())
    }

    fn scan(&self, prefix: &[u8], visit: &mut Visit) -> Result<(), StorageError> {
        let values = self.values.read().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in values.range(prefix.to_vec()..) {
            if !key.starts_with(prefix) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StorageError> {
        Ok(())
    }
}
