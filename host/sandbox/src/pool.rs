//! Idle instances of one plug-in.
//!
//! Each thread has a slot of its own (threads beyond the number of slots share), so that a call takes and returns its
//! instance with two atomic exchanges and without waiting for other threads. What does not fit goes to a list behind a
//! lock, which keeps so many and no more. An instance is here or with a caller, never both; one whose call failed never
//! comes back.
//!
//! All plug-ins share the engine's room. One that finds it full has the others' idle instances dropped ([`Pools`]): a burst
//! that is over, or a generation that is only kept warm, must not keep a busy one from answering.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

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
    /// How many `others` may be.
    keep: AtomicUsize,
}

impl<T: Send> Pool<T> {
    /// An empty pool that keeps `keep` idle ones beside those of threads.
    pub fn new(keep: usize) -> Pool<T> {
        Pool {
            slots: (0..SLOTS)
                .map(|_| CachePadded::new(AtomicCell::new(None)))
                .collect(),
            others: Mutex::new(Vec::new()),
            keep: AtomicUsize::new(keep),
        }
    }

    /// From now on keeps `count` at least: somebody wants them ready.
    pub fn keep_at_least(&self, count: usize) {
        self.keep.fetch_max(count, Ordering::Relaxed);
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

    /// Brings one back for whichever thread needs it. Where enough are idle it is dropped.
    #[cold]
    pub fn put_other(&self, it: Box<T>) {
        let mut others = self.others();
        if others.len() < self.keep.load(Ordering::Relaxed) {
            others.push(it);
            return;
        }
        // What is dropped gives memory back to the system: not under the lock.
        drop(others);
        drop(it);
    }
}

/// A pool that can be emptied, whatever it holds.
pub trait Idle: Send + Sync {
    /// Drops all idle ones. How many they were.
    fn drop_idle(&self) -> usize;
}

impl<T: Send> Idle for Pool<T> {
    fn drop_idle(&self) -> usize {
        let others = std::mem::take(&mut *self.others());
        let own = self.slots.iter().filter_map(|slot| slot.take());
        others.len() + own.count()
    }
}

/// The pools of all plug-ins of one engine.
#[derive(Default)]
pub struct Pools {
    all: Mutex<Vec<Weak<dyn Idle>>>,
}

impl Pools {
    fn all(&self) -> MutexGuard<'_, Vec<Weak<dyn Idle>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets to know a pool, for as long as it is there.
    pub fn add(&self, pool: Weak<dyn Idle>) {
        let mut all = self.all();
        all.retain(|pool| pool.strong_count() > 0);
        all.push(pool);
    }

    /// Drops what is idle in all pools but `own`. Whether that made room.
    pub fn make_room(&self, own: &Weak<dyn Idle>) -> bool {
        let others: Vec<_> = (self.all().iter())
            .filter(|pool| !Weak::ptr_eq(pool, own))
            .filter_map(Weak::upgrade)
            .collect();
        others.iter().map(|pool| pool.drop_idle()).sum::<usize>() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn an_instance_is_never_with_two_callers() {
        struct Mine(AtomicBool);
        let pool = Pool::new(8);
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

    #[test]
    fn what_is_idle_is_bounded_and_can_be_dropped() {
        let counted = Arc::new(());
        let pool = Pool::new(3);
        for _ in 0..10 {
            pool.put(Box::new(Arc::clone(&counted)));
        }
        // One in this thread's slot, three beside it.
        assert_eq!(Arc::strong_count(&counted), 1 + 4);
        pool.keep_at_least(6);
        for _ in 0..10 {
            pool.put(Box::new(Arc::clone(&counted)));
        }
        assert_eq!(Arc::strong_count(&counted), 1 + 7);
        assert_eq!(pool.drop_idle(), 7);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn room_is_made_by_others() {
        let pools = Pools::default();
        let made = [(); 3].map(|()| {
            let pool = Arc::new(Pool::new(9));
            pool.put(Box::new(()));
            let weak: Weak<dyn Idle> = Arc::downgrade(&pool) as _;
            pools.add(Weak::clone(&weak));
            (pool, weak)
        });
        let [(first, own), (second, _), (third, _)] = made;
        drop(third);
        assert!(pools.make_room(&own));
        assert!(second.take().is_none());
        assert!(first.take().is_some(), "its own stay");
        assert!(!pools.make_room(&own));
    }
}
