//! The threads on which `score` runs.
//!
//! A post-processor may take ten times as long as a policy. So that slow ones delay other scores and nothing else, a few
//! threads of one sandbox run all of them; who asks waits. When all are at work and enough callers wait already, the next
//! one is told at once that there is no room, and its request goes on with the fallback.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use crate::priority;

type Job = Box<dyn FnOnce() + Send>;

/// Why a job was not run to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// All threads are at work, and enough callers wait.
    Full,
    /// The system gives no threads.
    NoThread,
    /// The job panicked.
    Panicked,
}

/// Jobs that wait, behind a lock: who waits for one sleeps, whereas a channel's ends spin for each other.
#[derive(Default)]
struct Jobs {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// There will be no more.
    ended: bool,
}

impl Jobs {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A list is whole at every moment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, job: Job) {
        self.waiting().jobs.push_back(job);
        self.more.notify_one();
    }

    /// Waits for the next; None: there will be no more.
    fn next(&self) -> Option<Job> {
        let mut waiting = self.waiting();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.ended {
                return None;
            }
            waiting = (self.more.wait(waiting)).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self) {
        self.waiting().ended = true;
        self.more.notify_all();
    }
}

/// The threads, started when they are first needed. They end when this is gone.
pub struct Scorers {
    threads: u32,
    /// Callers that are run or wait, at most.
    most: u32,
    callers: Arc<AtomicU32>,
    jobs: OnceLock<Option<Arc<Jobs>>>,
}

impl Scorers {
    /// `threads` that run, and at most `queue` callers more that wait for them.
    pub fn new(threads: u32, queue: u32) -> Scorers {
        Scorers {
            threads,
            most: threads.saturating_add(queue),
            callers: Arc::default(),
            jobs: OnceLock::new(),
        }
    }

    /// Runs `job` on one of the threads and waits for it.
    ///
    /// # Errors
    /// [`NotRun`].
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotRun> {
        let jobs = self.jobs.get_or_init(|| start(self.threads));
        let jobs = jobs.as_ref().ok_or(NotRun::NoThread)?;
        let room = |callers: u32| (callers < self.most).then_some(callers + 1);
        let order = Ordering::Relaxed;
        (self.callers.fetch_update(order, order, room)).map_err(|_| NotRun::Full)?;
        let callers = Arc::clone(&self.callers);
        let (done, result) = sync_channel(1);
        let job: Job = Box::new(move || {
            let ran = catch_unwind(AssertUnwindSafe(job));
            // Before its caller goes on: who calls one after the other always finds room.
            callers.fetch_sub(1, order);
            let _ = done.send(ran.ok());
        });
        // The threads are there as long as this is.
        jobs.put(job);
        // A sender that is gone went with a thread that panicked outside the job.
        let ran = result.recv().ok().flatten();
        ran.ok_or(NotRun::Panicked)
    }
}

impl Drop for Scorers {
    fn drop(&mut self) {
        if let Some(Some(jobs)) = self.jobs.get() {
            jobs.end();
        }
    }
}

/// None: the system gives no threads at all.
fn start(threads: u32) -> Option<Arc<Jobs>> {
    let jobs = Arc::new(Jobs::default());
    let started = (0..threads).filter(|_| {
        let jobs = Arc::clone(&jobs);
        let thread = thread::Builder::new().name("plugin-score".to_owned());
        thread.spawn(move || work(&jobs)).is_ok()
    });
    (started.count() > 0).then_some(jobs)
}

fn work(jobs: &Jobs) {
    priority::in_short_turns();
    while let Some(job) = jobs.next() {
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::time::{Duration, Instant};

    #[test]
    fn a_full_queue_answers_at_once() {
        let scorers = &Scorers::new(2, 1);
        let (busy, free) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let (busy, free) = (Arc::clone(&busy), Arc::clone(&free));
                    let ran = scorers.run(move || {
                        busy.wait();
                        free.wait();
                    });
                    assert!(ran.is_ok());
                });
            }
            busy.wait();
            // Of two more one waits, and the other is told that there is no room.
            let more = [7, 7].map(|answer| scope.spawn(move || scorers.run(move || answer)));
            let end = Instant::now() + Duration::from_secs(30);
            while !more.iter().any(|it| it.is_finished()) {
                assert!(Instant::now() < end);
                thread::yield_now();
            }
            assert!(!more.iter().all(|it| it.is_finished()));
            free.wait();
            let mut answers = more.map(|it| it.join().unwrap());
            answers.sort_unstable_by_key(Result::is_err);
            assert_eq!(answers, [Ok(7), Err(NotRun::Full)]);
        });
        assert_eq!(scorers.run(|| 9), Ok(9));
    }

    #[test]
    fn a_panic_is_no_result_and_ends_no_thread() {
        let scorers = Scorers::new(1, 4);
        assert_eq!(
            scorers.run(|| -> u32 { panic!("a job of this test") }),
            Err(NotRun::Panicked)
        );
        assert_eq!(scorers.run(|| 1), Ok(1));
    }
}
