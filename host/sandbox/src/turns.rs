//! Whose turn it is to score.
//!
//! A post-processor may take ten times as long as a policy. So that slow ones delay other scores and nothing else, only so
//! many callers of one sandbox score at once; the others wait, first come, first served. When enough wait already, the next
//! one is told at once that there is no room, and its request goes on with the fallback.
//!
//! The work is done on the thread of who calls, which would do nothing but wait for another thread's answer: to wake one,
//! and to be woken, takes as long as half a score.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

/// Why a job was not run to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// It is nobody's turn soon, and enough callers wait.
    Full,
    /// The job panicked.
    Panicked,
}

/// One caller that waits.
struct Waiter {
    called: AtomicBool,
    thread: Thread,
}

#[derive(Default)]
struct State {
    /// Turns that are taken.
    running: u32,
    waiting: VecDeque<Arc<Waiter>>,
}

/// The turns of one sandbox.
pub struct Turns {
    at_once: u32,
    queue: usize,
    state: Mutex<State>,
}

/// A turn, until it is dropped.
struct Turn<'a>(&'a Turns);

impl Turns {
    /// `at_once` that run, one at least, and at most `queue` callers more that wait for them.
    pub fn new(at_once: u32, queue: u32) -> Turns {
        Turns {
            at_once: at_once.max(1),
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A number and a list, each whole at every moment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn.
    fn take(&self) -> Result<Turn<'_>, NotRun> {
        let mut state = self.state();
        if state.running < self.at_once {
            state.running += 1;
            return Ok(Turn(self));
        }
        if state.waiting.len() >= self.queue {
            return Err(NotRun::Full);
        }
        let own = Arc::new(Waiter {
            called: AtomicBool::new(false),
            thread: thread::current(),
        });
        state.waiting.push_back(Arc::clone(&own));
        drop(state);
        // Somebody else's wake may come in between.
        while !own.called.load(Ordering::Acquire) {
            thread::park();
        }
        Ok(Turn(self))
    }

    /// Runs `job` on this thread, when it is its turn.
    ///
    /// # Errors
    /// [`NotRun`].
    pub fn run<T>(&self, job: impl FnOnce() -> T) -> Result<T, NotRun> {
        let turn = self.take()?;
        let ran = catch_unwind(AssertUnwindSafe(job));
        drop(turn);
        ran.map_err(|_| NotRun::Panicked)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.running -= 1;
        }
        drop(state);
        // The turn is handed on as it is: nobody who comes now is before those that wait.
        if let Some(next) = next {
            next.called.store(true, Ordering::Release);
            next.thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicU32;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    /// Waits until so many wait for a turn.
    fn until_waiting(turns: &Turns, count: usize) {
        let end = Instant::now() + Duration::from_secs(30);
        while turns.state().waiting.len() < count {
            assert!(Instant::now() < end);
            thread::yield_now();
        }
    }

    #[test]
    fn a_full_queue_answers_at_once() {
        let turns = &Turns::new(2, 1);
        let (busy, free) = (&Barrier::new(3), &Barrier::new(3));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let ran = turns.run(|| {
                        busy.wait();
                        free.wait();
                    });
                    assert_eq!(ran, Ok(()));
                });
            }
            busy.wait();
            let waits = scope.spawn(|| turns.run(|| 7));
            until_waiting(turns, 1);
            assert_eq!(turns.run(|| 8), Err(NotRun::Full));
            assert!(!waits.is_finished());
            free.wait();
            assert_eq!(waits.join().unwrap(), Ok(7));
        });
        assert_eq!(turns.run(|| 9), Ok(9));
        assert_eq!(turns.state().running, 0);
    }

    #[test]
    fn a_panic_is_no_result_and_keeps_no_turn() {
        let turns = Turns::new(1, 0);
        for _ in 0..3 {
            assert_eq!(
                turns.run(|| -> u32 { panic!("a job of this test") }),
                Err(NotRun::Panicked)
            );
        }
        assert_eq!(turns.run(|| 1), Ok(1));
    }

    #[test]
    fn who_came_first_goes_first() {
        let turns = &Turns::new(1, 8);
        let (told, order) = mpsc::channel();
        thread::scope(|scope| {
            let first = turns.take().unwrap();
            for number in 0..8 {
                let told = told.clone();
                scope.spawn(move || turns.run(|| told.send(number).unwrap()).unwrap());
                until_waiting(turns, number + 1);
            }
            drop(first);
        });
        drop(told);
        assert_eq!(order.iter().collect::<Vec<_>>(), Vec::from_iter(0..8));
    }

    #[test]
    fn never_more_at_once_than_there_are_turns() {
        let turns = &Turns::new(3, 64);
        let at_work = &AtomicU32::new(0);
        thread::scope(|scope| {
            for caller in 0..8_u64 {
                scope.spawn(move || {
                    for call in 0..2_000 {
                        let number = caller * 10_000 + call;
                        let ran = turns.run(|| {
                            assert!(at_work.fetch_add(1, Ordering::SeqCst) < 3);
                            if number.is_multiple_of(97) {
                                thread::yield_now();
                            }
                            at_work.fetch_sub(1, Ordering::SeqCst);
                            number
                        });
                        assert_eq!(ran, Ok(number));
                    }
                });
            }
        });
        assert_eq!(turns.state().running, 0);
    }
}
