//! sled, and what becomes of a database that cannot be read.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;

use msao_state::{Batch, Opened, SledStorage, Storage, StorageError};

fn fill(path: &Path) {
    let Opened { storage, set_aside } = SledStorage::open(path).unwrap();
    assert_eq!(set_aside, None);
    for number in 0..2000_u32 {
        let value = number.to_le_bytes().repeat(50);
        storage.put(&number.to_be_bytes(), &value).unwrap();
    }
    storage.flush().unwrap();
}

fn count(storage: &SledStorage) -> usize {
    let mut count = 0;
    storage
        .scan(&[], &mut |_, _| {
            count += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
    count
}

#[test]
fn values_come_back_in_order_and_batches_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    fill(&path);
    let storage = SledStorage::open(&path).unwrap().storage;
    assert_eq!(count(&storage), 2000);
    let mut batch = Batch::default();
    batch.remove(&0_u32.to_be_bytes());
    batch.put(b"a/2", b"two");
    batch.put(b"a/1", b"one");
    storage.apply(batch).unwrap();
    assert_eq!(storage.get(&0_u32.to_be_bytes()).unwrap(), None);
    let mut seen = Vec::new();
    storage
        .scan(b"a/", &mut |key, value| {
            seen.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(
        seen,
        [
            (b"a/1".to_vec(), b"one".to_vec()),
            (b"a/2".to_vec(), b"two".to_vec())
        ]
    );
}

#[test]
fn a_database_in_use_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let first = SledStorage::open(&path).unwrap();
    first.storage.put(b"key", b"value").unwrap();
    assert!(matches!(
        SledStorage::open(&path),
        Err(StorageError::Locked { .. })
    ));
    assert_eq!(first.storage.get(b"key").unwrap(), Some(b"value".to_vec()));
}

/// Every file of the folder, largest first.
fn files(path: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            found.push((entry.metadata().unwrap().len(), entry.path()));
        }
    }
    found.sort();
    found.into_iter().rev().map(|it| it.1).collect()
}

#[test]
fn a_damaged_database_is_set_aside_and_the_node_starts_cold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    fill(&path);
    let log = files(&path).remove(0);
    let mut bytes = fs::read(&log).unwrap();
    // Garbage all over the log.
    for place in (0..bytes.len()).step_by(97) {
        bytes[place] ^= 0x5a;
    }
    fs::write(&log, &bytes).unwrap();
    let opened = SledStorage::open(&path).unwrap();
    let aside = opened.set_aside.expect("the damage was not found");
    assert!(aside.path.exists() && !aside.reason.is_empty());
    assert_eq!(count(&opened.storage), 0);
    opened.storage.put(b"key", b"value").unwrap();
    drop(opened.storage);
    // And it stays usable.
    let again = SledStorage::open(&path).unwrap();
    assert_eq!(again.set_aside, None);
    assert_eq!(again.storage.get(b"key").unwrap(), Some(b"value".to_vec()));
}

#[test]
fn whatever_single_byte_is_damaged_no_wrong_value_comes_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    fill(&path);
    let log = files(&path).remove(0);
    let whole = fs::read(&log).unwrap();
    for part in 1..8 {
        let copy = folder.path().join(format!("copy-{part}"));
        fs::create_dir(&copy).unwrap();
        for file in files(&path) {
            fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
        }
        let mut bytes = whole.clone();
        let place = bytes.len() * part / 8 + 13;
        bytes[place] ^= 1;
        fs::write(copy.join(log.file_name().unwrap()), &bytes).unwrap();
        let opened = SledStorage::open(&copy).unwrap();
        // sled may have thrown away a part of its log, or all was set aside; what is there must be right.
        for number in 0..2000_u32 {
            if let Some(value) = opened.storage.get(&number.to_be_bytes()).unwrap() {
                assert_eq!(value, number.to_le_bytes().repeat(50));
            }
        }
    }
}
