//! Where generations go that nothing goes back to any more, and the thread that takes them apart.
//!
//! Giving back the memory of their instances takes a good part of a millisecond, and while the kernel does that others wait
//! who need memory. The moment in which a generation is left is the moment in which another one takes over: requests are to
//! have the processor then. So the thread waits a while, and for the last request of a generation, which would else do the
//! work on its own way; and then it steps back. On a machine without a moment to spare it may not get to it: so whoever
//! brings the next generation in, which is slow anyhow, does it first.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use msao_state::step_back;

use super::Generation;

/// From being left to being taken apart, unless another one is brought in.
const AFTER: Duration = Duration::from_millis(100);
/// Between looks.
const EVERY: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Waiting {
    generations: Vec<(Instant, Arc<Generation>)>,
    ended: bool,
}

/// Generations that wait to be taken apart.
#[derive(Default)]
pub(crate) struct Leftovers {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

impl Leftovers {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A list is whole at every moment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a generation taken apart.
    pub(super) fn leave(&self, generation: Arc<Generation>) {
        let mut waiting = self.waiting();
        waiting.generations.push((Instant::now(), generation));
        self.more.notify_one();
    }

    /// Takes apart those that no request holds, and that have waited so long at least.
    pub(super) fn take_apart(&self, waited: Duration) {
        let is_due = |(left, generation): &mut (Instant, Arc<Generation>)| {
            Arc::strong_count(generation) == 1 && left.elapsed() >= waited
        };
        let due: Vec<_> = self.waiting().generations.extract_if(.., is_due).collect();
        // Not under the lock.
        drop(due);
    }

    /// Has the thread end. What requests still hold is taken apart by the last of them.
    pub(super) fn end(&self) {
        let mut waiting = self.waiting();
        waiting.ended = true;
        let left = std::mem::take(&mut waiting.generations);
        self.more.notify_one();
        drop(waiting);
        drop(left);
    }

    /// Waits until something may be due. False: the thread is to end.
    fn wait(&self) -> bool {
        let mut waiting = self.waiting();
        if !waiting.ended && !waiting.generations.is_empty() {
            let waited = self.more.wait_timeout(waiting, EVERY);
            waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        while !waiting.ended && waiting.generations.is_empty() {
            waiting = (self.more.wait(waiting)).unwrap_or_else(PoisonError::into_inner);
        }
        !waiting.ended
    }
}

/// Starts the thread.
pub(super) fn start(leftovers: Arc<Leftovers>) -> std::io::Result<JoinHandle<()>> {
    Builder::new().name("leftovers".into()).spawn(move || {
        step_back();
        while leftovers.wait() {
            leftovers.take_apart(AFTER);
        }
    })
}
