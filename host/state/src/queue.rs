//! A bounded queue between many threads and one.
//!
//! The channel of the standard library does the same without a lock, and that is what is wrong with it here: where the one
//! that takes is kept from the processor in the middle of taking from a full queue, those that put wait for it by spinning,
//! on the very processors that it needs. All of them stood still for milliseconds then, and where it stood back by
//! its priority, for half a second. Who waits for a lock sleeps.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Items<T> {
    items: VecDeque<T>,
    /// Nobody takes any more.
    closed: bool,
    /// Who takes is woken once there are so many.
    wake_at: usize,
    /// Somebody waits for what was put: it is not to lie.
    hurried: bool,
    /// Threads that wait for room.
    waiting: usize,
}

#[derive(Debug)]
struct Shared<T> {
    items: Mutex<Items<T>>,
    most: usize,
    item: Condvar,
    room: Condvar,
}

impl<T> Shared<T> {
    fn items(&self) -> MutexGuard<'_, Items<T>> {
        // A list is whole at every moment.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end into which is put. A clone is the same end.
#[derive(Debug)]
pub(crate) struct Putter<T>(Arc<Shared<T>>);

impl<T> Clone for Putter<T> {
    fn clone(&self) -> Self {
        Putter(Arc::clone(&self.0))
    }
}

/// The end from which is taken: the queue is closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Taker<T>(Arc<Shared<T>>);

/// A queue of at most `most`.
pub(crate) fn queue<T>(most: usize) -> (Putter<T>, Taker<T>) {
    let shared = Arc::new(Shared {
        items: Mutex::new(Items {
            items: VecDeque::new(),
            closed: false,
            wake_at: 1,
            hurried: false,
            waiting: 0,
        }),
        most: most.max(1),
        item: Condvar::new(),
        room: Condvar::new(),
    });
    (Putter(Arc::clone(&shared)), Taker(shared))
}

impl<T> Putter<T> {
    /// Puts it where there is room. False: there is none, or nobody takes any more.
    pub(crate) fn try_put(&self, item: T) -> bool {
        let mut items = self.0.items();
        if items.closed || items.items.len() >= self.0.most {
            return false;
        }
        items.items.push_back(item);
        let enough = items.items.len() >= items.wake_at;
        drop(items);
        if enough {
            self.0.item.notify_one();
        }
        true
    }

    /// Waits for room. What is put so ends [`Taker::gather`]. False: nobody takes any more.
    pub(crate) fn put(&self, item: T) -> bool {
        let mut items = self.0.items();
        while !items.closed && items.items.len() >= self.0.most {
            items.waiting += 1;
            items = (self.0.room.wait(items)).unwrap_or_else(PoisonError::into_inner);
            items.waiting -= 1;
        }
        if items.closed {
            return false;
        }
        items.items.push_back(item);
        items.hurried = true;
        drop(items);
        self.0.item.notify_one();
        true
    }
}

impl<T> Taker<T> {
    fn taken(&self, mut items: MutexGuard<'_, Items<T>>) -> Option<T> {
        let item = items.items.pop_front();
        let waited_for = items.waiting > 0;
        drop(items);
        if waited_for {
            self.0.room.notify_one();
        }
        item
    }

    /// The next one, if there is any.
    pub(crate) fn try_take(&self) -> Option<T> {
        self.taken(self.0.items())
    }

    /// Waits for the next one.
    pub(crate) fn take(&self) -> Option<T> {
        let mut items = self.0.items();
        while items.items.is_empty() {
            items = (self.0.item.wait(items)).unwrap_or_else(PoisonError::into_inner);
        }
        self.taken(items)
    }

    /// Lets more come, and sleeps meanwhile: for so long, until there are `most`, or until one was put that somebody waits
    /// for. Waking a thread costs whoever puts as much as all else does.
    pub(crate) fn gather(&self, time: Duration, most: usize) {
        let until = Instant::now() + time;
        let mut items = self.0.items();
        items.wake_at = most.clamp(1, self.0.most);
        while items.items.len() < items.wake_at && !items.hurried {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.0.item.wait_timeout(items, left);
            items = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        items.wake_at = 1;
        items.hurried = false;
    }

    /// Waits for the next one, at most so long.
    pub(crate) fn take_within(&self, time: Duration) -> Option<T> {
        let until = Instant::now() + time;
        let mut items = self.0.items();
        while items.items.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let waited = self.0.item.wait_timeout(items, left);
            items = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.taken(items)
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        let left = {
            let mut items = self.0.items();
            items.closed = true;
            std::mem::take(&mut items.items)
        };
        self.0.room.notify_all();
        // What is dropped may itself lock something.
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn all_that_is_put_is_taken_in_order_and_never_more_than_fit() {
        let (putter, taker) = queue(3);
        thread::scope(|scope| {
            for thread in 0..4u64 {
                let putter = putter.clone();
                scope.spawn(move || {
                    for number in 0..5000u64 {
                        assert!(putter.put((thread, number)));
                    }
                });
            }
            let mut next = [0; 4];
            for _ in 0..20_000 {
                let (thread, number) = taker.take().unwrap();
                assert_eq!(number, next[thread as usize]);
                next[thread as usize] += 1;
                assert!(taker.0.items().items.len() <= 3);
            }
        });
        assert_eq!(taker.try_take(), None);
        assert_eq!(taker.take_within(Duration::from_millis(2)), None);
    }

    #[test]
    fn what_is_gathered_waits_for_enough_and_for_nothing_where_somebody_waits() {
        let (putter, taker) = queue(100);
        let long = Duration::from_secs(600);
        thread::scope(|scope| {
            scope.spawn(|| (0..10).for_each(|number| assert!(putter.try_put(number))));
            taker.gather(long, 10);
            assert_eq!(taker.0.items().items.len(), 10);
            scope.spawn(|| assert!(putter.put(10)));
            taker.gather(long, 100);
            assert_eq!(taker.0.items().items.len(), 11);
        });
        taker.gather(Duration::from_millis(2), 100);
        assert!((0..=10).all(|number| taker.try_take() == Some(number)));
    }

    #[test]
    fn a_full_one_refuses_at_once_and_a_closed_one_refuses_who_waits() {
        let (putter, taker) = queue(1);
        assert!(putter.try_put(1));
        assert!(!putter.try_put(2));
        thread::scope(|scope| {
            let waits = scope.spawn(|| putter.put(3));
            while taker.0.items().waiting == 0 {
                thread::yield_now();
            }
            drop(taker);
            assert!(!waits.join().unwrap());
        });
        assert!(!putter.put(4) && !putter.try_put(4));
    }
}
