//! Idle instances of one plug-in.
//!
//! Each thread has a slot of its own (threads beyond the number of slots share), so that a call takes and returns its
//! instance with two atomic exchanges and without waiting for other threads. What does not fit goes to a list behind a
//! lock. An instance is here or with a caller, never both; one whose call failed never comes back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use crossbeam_utils::atomic::AtomicCell;

const SLOTS: usize = 32;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SLOT: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SLOTS;
}

/// A place for one idle instance.
type Slot<T> = CachePadded<AtomicCell<Option<Box<T>>>>;

/// A pool of `T`.
pub struct Pool<T> {
    slots: Box<[Slot<T>]>,
    others: Mutex<Vec<Box<T>>>,
}

impl<T: Send> Pool<T> {
    /// An empty pool.
    pub fn new() -> Pool<T> {
        Pool {
            slots: (0..SLOTS)
                .map(|_| CachePadded::new(AtomicCell::new(None)))
                .collect(),
            others: Mutex::new(Vec::new()),
        }
    }

    fn slot(&self) -> Option<&AtomicCell<Option<Box<T>>>> {
        // A thread that is ending has no slot any more.
        let slot = SLOT.try_with(|slot| *slot).unwrap_or(0);
        self.slots.get(slot).map(|slot| &**slot)
    }

    fn others(&self) -> MutexGuard<'_, Vec<Box<T>>> {
        // A list of boxes is whole at every moment.
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An idle one, if there is any.
    #[inline]
    pub fn take(&self) -> Option<Box<T>> {
        self.slot()
            .and_then(AtomicCell::take)
            .or_else(|| self.take_other())
    }

    #[cold]
    fn take_other(&self) -> Option<Box<T>> {
        if let Some(other) = self.others().pop() {
            return Some(other);
        }
        self.slots.iter().find_map(|slot| slot.take())
    }

    /// Brings one back.
    #[inline]
    pub fn put(&self, it: Box<T>) {
        let displaced = match self.slot() {
            Some(slot) => slot.swap(Some(it)),
            None => Some(it),
        };
        if let Some(other) = displaced {
            self.put_other(other);
        }
    }

    /// Brings one back for whichever thread needs it.
    #[cold]
    pub fn put_other(&self, it: Box<T>) {
        self.others().push(it);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn an_instance_is_never_with_two_callers() {
        struct Mine(AtomicBool);
        let pool = Pool::new();
        for _ in 0..4 {
            pool.put_other(Box::new(Mine(AtomicBool::new(false))));
        }
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Some(it) = pool.take() {
                            assert!(!it.0.swap(true, Ordering::SeqCst));
                            assert!(it.0.swap(false, Ordering::SeqCst));
                            pool.put(it);
                        }
                    }
                });
            }
        });
        let left = std::iter::from_fn(|| pool.take()).count();
        assert_eq!(left, 4);
    }
}
