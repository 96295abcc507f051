//! Calibration as plug-ins and operators meet it: many writers, forks, restarts.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // a test's helpers may panic

use std::sync::Arc;
use std::time::Duration;

use msao_core::offload::{Calibration, MAX_CELLS, Operation, Update};
use msao_state::{CalibrationStore, CellsKey, MemoryStorage, SledStorage, Storage};

use crate::failing::Failing;

fn key(schema: u32) -> CellsKey {
    CellsKey {
        plugin: "patient".into(),
        state_schema: schema,
        models: "draft/target".into(),
        node: "edge-1".into(),
    }
}

fn add(key: u32, value: f64) -> Update {
    Update {
        operation: Operation::Add,
        key,
        value,
        weight: 1.0,
    }
}

fn sample(key: u32, value: f64, weight: f64) -> Update {
    Update {
        operation: Operation::Sample,
        key,
        value,
        weight,
    }
}

fn in_memory() -> (Arc<MemoryStorage>, CalibrationStore) {
    let storage = Arc::new(MemoryStorage::default());
    let store = CalibrationStore::open(Arc::clone(&storage) as Arc<dyn Storage>).unwrap();
    (storage, store)
}

#[test]
fn sixty_four_threads_lose_no_update() {
    const THREADS: u32 = 64;
    const CALLS: u32 = 500;
    let (_, store) = in_memory();
    let cells = store.live(&key(1));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let cells = cells.clone();
            scope.spawn(move || {
                for call in 0..CALLS {
                    // One cell that all share, one of the thread's own; reading goes on meanwhile.
                    assert!(cells.update(vec![add(0, 1.0), add(thread + 1, f64::from(call))]));
                    let seen = cells.snapshot();
                    assert!(seen.calibration().keys.is_sorted());
                }
            });
        }
    });
    store.settle();
    let end = cells.snapshot();
    let Calibration { keys, count, .. } = end.calibration();
    assert_eq!(keys.len() as u32, THREADS + 1);
    assert_eq!(count[0], f64::from(THREADS * CALLS));
    let each = f64::from(CALLS * (CALLS - 1) / 2);
    assert!(count[1..].iter().all(|&sum| sum == each));
    assert_eq!(store.counters().applied, u64::from(2 * THREADS * CALLS));
}

#[test]
fn updates_are_applied_in_the_order_in_which_they_complete() {
    let (_, store) = in_memory();
    let cells = store.live(&key(1));
    // A weight of 1 forgets what was before: the last one counts.
    for value in 0..1000 {
        cells.update(vec![sample(7, f64::from(value), 1.0)]);
    }
    store.settle();
    assert_eq!(cells.snapshot().calibration().mean, [999.0]);
}

#[test]
fn cells_beyond_the_4096th_are_refused_and_counted() {
    let (_, store) = in_memory();
    let cells = store.live(&key(1));
    for chunk in (0..MAX_CELLS as u32 + 10).collect::<Vec<_>>().chunks(256) {
        cells.update(chunk.iter().map(|&key| add(key, 1.0)).collect());
    }
    store.settle();
    assert_eq!(cells.snapshot().calibration().len(), MAX_CELLS);
    assert_eq!(store.counters().full, 10);
}

#[test]
fn a_snapshot_is_the_same_until_something_changes() {
    let (_, store) = in_memory();
    let cells = store.live(&key(1));
    cells.update(vec![add(1, 1.0)]);
    store.settle();
    let (first, second) = (cells.snapshot(), cells.snapshot());
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.digest(), first.calibration().digest());
    cells.update(vec![add(1, 1.0)]);
    store.settle();
    assert_ne!(cells.snapshot().digest(), first.digest());
}

#[test]
fn a_candidate_learns_apart_and_takes_its_learning_with_it() {
    let (_, store) = in_memory();
    let stable = store.live(&key(1));
    stable.update(vec![add(1, 1.0)]);
    let fork = store.fork(2, &key(1));
    let scratch = store.scratch(&key(1));
    let other_schema = store.fork(2, &key(2));
    assert!(other_schema.snapshot().calibration().is_empty());
    stable.update(vec![add(1, 10.0)]);
    fork.update(vec![add(1, 100.0)]);
    scratch.update(vec![add(1, 1000.0)]);
    store.settle();
    let count = |cells: &msao_state::Cells| cells.snapshot().calibration().count[0];
    assert_eq!(
        (count(&stable), count(&fork), count(&scratch)),
        (11.0, 101.0, 1001.0)
    );

    store.promote(2, &key(1));
    assert_eq!(count(&store.live(&key(1))), 101.0);
    // Requests under way on the old generation still learn, into what was displaced.
    stable.update(vec![add(1, 10.0)]);
    store.settle();
    assert_eq!(count(&store.displaced(2, &key(1)).unwrap()), 21.0);

    store.demote(2, &key(1));
    assert_eq!(count(&store.live(&key(1))), 21.0);
    assert!(store.displaced(2, &key(1)).is_none());
    store.demote(2, &key(1));
    assert_eq!(count(&store.live(&key(1))), 21.0, "once is enough");
}

#[test]
fn a_fork_that_was_dropped_begins_anew() {
    let (_, store) = in_memory();
    store.live(&key(1)).update(vec![add(1, 1.0)]);
    store.fork(2, &key(1)).update(vec![add(1, 5.0)]);
    store.forget(2, &key(1));
    assert_eq!(store.fork(3, &key(1)).snapshot().calibration().count, [1.0]);
}

#[test]
fn what_was_learned_survives_a_restart_forks_included() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let open = || {
        let opened = SledStorage::open(&path).unwrap();
        assert_eq!(opened.set_aside, None);
        CalibrationStore::open(Arc::new(opened.storage)).unwrap()
    };
    let expected = {
        let store = open();
        let live = store.live(&key(1));
        live.update(
            (0..300)
                .map(|i| sample(i, f64::from(i) / 7.0, 0.1))
                .collect(),
        );
        live.update(vec![sample(5, 0.3, 0.1), add(6, 2.0)]);
        let fork = store.fork(2, &key(1));
        fork.update(vec![add(1, 5.0)]);
        store.settle();
        (live.snapshot().digest(), fork.snapshot().digest())
        // Closing writes down what no checkpoint has seen yet.
    };
    let store = open();
    let found = (
        store.live(&key(1)).snapshot().digest(),
        store.fork(2, &key(1)).snapshot().digest(),
    );
    assert_eq!(found, expected);
    assert_eq!(store.counters().unreadable, 0);
}

#[test]
fn what_a_checkpoint_could_not_write_the_next_one_does() {
    let storage = Arc::new(Failing::default());
    // None but those that are asked for here.
    let open = || {
        let shared = Arc::clone(&storage) as Arc<dyn Storage>;
        CalibrationStore::open_every(shared, Duration::from_secs(3_600)).unwrap()
    };
    let store = open();
    store.live(&key(1)).update(vec![add(1, 1.0)]);
    store.fork(2, &key(1)).update(vec![add(1, 5.0)]);
    store.checkpoint().unwrap();
    // Cells that change, and a name that goes.
    store.live(&key(1)).update(vec![add(1, 2.0)]);
    store.forget(2, &key(1));
    storage.fail(true);
    let told = store.checkpoint().unwrap_err();
    assert!(told.contains("told to"), "{told}");
    assert_eq!(store.last_error(), Some(told));
    storage.fail(false);
    // Nothing has changed since, and yet there is something to write.
    store.checkpoint().unwrap();
    let counters = store.counters();
    assert_eq!((counters.checkpoints, counters.failed_checkpoints), (2, 1));
    drop(store);
    let store = open();
    let count = |cells: msao_state::Cells| cells.snapshot().calibration().count[0];
    assert_eq!(count(store.live(&key(1))), 3.0);
    // The fork is gone: another of its number begins where the live ones are.
    assert_eq!(count(store.fork(2, &key(1))), 3.0);
}

#[test]
fn a_stop_between_journal_and_calibration_is_mended() {
    let (storage, store) = in_memory();
    store.live(&key(1)).update(vec![add(1, 1.0)]);
    store.fork(2, &key(1)).update(vec![add(1, 10.0)]);
    store.settle();
    let restart = |store: CalibrationStore| {
        store.checkpoint().unwrap();
        drop(store);
        CalibrationStore::open(Arc::clone(&storage) as Arc<dyn Storage>).unwrap()
    };
    let count = |store: &CalibrationStore| store.live(&key(1)).snapshot().calibration().count[0];
    // The journal says that 2 is active; the stop came before its cells were.
    let store = restart(store);
    store.reconcile(2, vec![1, 2]);
    assert_eq!(count(&store), 11.0);
    // The journal says that 2 was rolled back; the stop came before its cells were.
    let store = restart(store);
    store.reconcile(1, vec![1]);
    assert_eq!(count(&store), 1.0);
    // A generation that left long ago leaves nothing.
    store.fork(3, &key(1));
    store.promote(3, &key(1));
    let store = restart(store);
    store.reconcile(5, vec![4, 5]);
    assert!(store.displaced(3, &key(1)).is_none());
}

#[test]
fn a_closed_store_says_that_it_learns_nothing() {
    let (_, store) = in_memory();
    let cells = store.live(&key(1));
    store.close();
    assert!(!cells.update(vec![add(1, 1.0)]));
    assert!(store.checkpoint().is_err());
    assert!(store.live(&key(1)).snapshot().calibration().is_empty());
}

#[test]
fn cells_from_elsewhere_take_the_place_of_what_was_there_and_are_kept() {
    let (storage, store) = in_memory();
    let cells = store.live(&key(1));
    cells.update(vec![add(1, 5.0), sample(2, 0.5, 1.0)]);
    let other = Calibration {
        keys: vec![2, 7],
        mean: vec![0.25, 3.0],
        variance: vec![0.0, 1.5],
        count: vec![4.0, 9.0],
    };
    assert_eq!(cells.replace(&other), Ok(true));
    // What comes after it counts on it.
    cells.update(vec![add(7, 1.0)]);
    store.settle();
    let seen = cells.snapshot();
    assert_eq!(seen.calibration().keys, [2, 7]);
    assert_eq!(seen.calibration().count, [4.0, 10.0]);
    let wrong = Calibration {
        mean: vec![f64::INFINITY, 3.0],
        ..other.clone()
    };
    assert!(cells.replace(&wrong).is_err());
    store.settle();
    assert_eq!(cells.snapshot().calibration().count, [4.0, 10.0]);
    drop(store);
    let store = CalibrationStore::open(storage as Arc<dyn Storage>).unwrap();
    let kept = store.live(&key(1)).snapshot();
    assert_eq!(kept.calibration().count, [4.0, 10.0]);
    store.close();
    assert_eq!(store.live(&key(1)).replace(&other), Ok(false));
}

#[test]
fn what_nothing_uses_any_more_is_listed_and_can_be_forgotten() {
    let (storage, store) = in_memory();
    let (used, other) = (store.live(&key(2)), store.live(&key(1)));
    used.update(vec![add(3, 1.0), add(4, 1.0)]);
    other.update(vec![add(3, 1.0)]);
    drop(other);
    // A candidate's own are no set in force.
    store.fork(9, &key(2)).update(vec![add(5, 1.0)]);
    let listed = |store: &CalibrationStore| -> Vec<(u32, usize)> {
        let kept = store.kept().into_iter();
        kept.map(|(key, cells)| (key.state_schema, cells.calibration().len()))
            .collect()
    };
    assert_eq!(listed(&store), [(1, 1), (2, 2)]);
    assert_eq!(store.erase(&key(1)), 1);
    assert_eq!(listed(&store), [(2, 2)]);
    // Who has a handle goes on with it.
    assert_eq!(store.erase(&key(2)), 2);
    assert!(used.snapshot().calibration().is_empty());
    used.update(vec![add(7, 1.0)]);
    assert_eq!(listed(&store), [(2, 1)]);
    assert_eq!(store.erase(&key(3)), 0);
    store.close();
    let store = CalibrationStore::open(storage).unwrap();
    assert_eq!(listed(&store), [(2, 1)]);
    assert_eq!(
        store.fork(9, &key(2)).snapshot().calibration().keys,
        [3, 4, 5]
    );
}
