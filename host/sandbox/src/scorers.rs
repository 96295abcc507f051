//! The threads on which `score` runs.
//!
//! A post-processor may take ten times as long as a policy. So that slow ones delay other scores and nothing else, a few
//! threads of one sandbox run all of them; who asks waits. When all are at work and enough callers wait already, the next
//! one is told at once that there is no room, and its request goes on with the fallback.
//!
//! Waking a thread takes tens of microseconds, on a virtual machine more, and a score about a hundred. So a caller looks for
//! its answer for a moment before it sleeps, and a thread looks for the next job for a moment after one. They do so only where
//! there are processors for both ends, and give theirs to whoever wants it between looks.

use std::collections::VecDeque;
use std::hint;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crate::priority;

/// How long a caller looks for its answer before it sleeps: a large picture is scored in half of it.
const LOOK_FOR_ANSWER: Duration = Duration::from_micros(200);
/// How long a thread that has run a job looks for another one before it sleeps.
const LOOK_FOR_JOB: Duration = Duration::from_micros(50);
/// Looks before the processor is offered to others, which costs more than a look: one or two microseconds of them.
const LOOKS: u32 = 64;

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

/// Looks whether it is `done` until it is, for so long at most.
fn look(at_most: Duration, done: impl Fn() -> bool) -> bool {
    let began = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if done() {
                return true;
            }
            hint::spin_loop();
        }
        if began.elapsed() >= at_most {
            return false;
        }
        thread::yield_now();
    }
}

/// Where the answer to a job is left for the thread that waits for it.
struct Answer<T> {
    /// The job is over, however it ended.
    over: AtomicBool,
    /// None: it panicked, or nobody ran it.
    value: Mutex<Option<T>>,
    caller: Thread,
}

impl<T> Answer<T> {
    /// For this thread.
    fn new() -> Answer<T> {
        Answer {
            over: AtomicBool::new(false),
            value: Mutex::new(None),
            caller: thread::current(),
        }
    }

    fn value(&self) -> MutexGuard<'_, Option<T>> {
        // It is exchanged as a whole.
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for it, on the thread that it is for. With `looks` it does not sleep at first.
    fn wait(&self, looks: bool) -> Option<T> {
        let over = || self.over.load(Ordering::Acquire);
        if !(looks && look(LOOK_FOR_ANSWER, over)) {
            // Somebody else's wake may come in between.
            while !over() {
                thread::park();
            }
        }
        self.value().take()
    }
}

/// Who runs a job owes its answer. Dropped without one it says so: nobody waits for a job that has gone.
struct Owed<T>(Arc<Answer<T>>);

impl<T> Owed<T> {
    fn give(self, value: Option<T>) {
        *self.0.value() = value;
    }
}

impl<T> Drop for Owed<T> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
        // Asks the system for nothing where the caller does not sleep.
        self.0.caller.unpark();
    }
}

/// Jobs that wait, behind a lock: who waits for one sleeps, whereas a channel's ends spin for each other.
#[derive(Default)]
struct Jobs {
    waiting: Mutex<Waiting>,
    more: Condvar,
    /// How many wait: for who looks without the lock.
    count: AtomicUsize,
    /// Whether a thread may look before it sleeps.
    looks: bool,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// A thread looks for the next job, and nobody need be woken for it.
    looking: bool,
    /// There will be no more.
    ended: bool,
}

impl Jobs {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // A list is whole at every moment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, job: Job) {
        let mut waiting = self.waiting();
        waiting.jobs.push_back(job);
        self.count.store(waiting.jobs.len(), Ordering::Relaxed);
        // Who looks takes one job: for the next one somebody is woken.
        let is_seen = std::mem::take(&mut waiting.looking);
        drop(waiting);
        if !is_seen {
            self.more.notify_one();
        }
    }

    /// Waits for the next; None: there will be no more. `has_run`: this thread has just run one, so that callers are about.
    fn next(&self, has_run: bool) -> Option<Job> {
        let mut may_look = self.looks && has_run;
        let mut waiting = self.waiting();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                self.count.store(waiting.jobs.len(), Ordering::Relaxed);
                return Some(job);
            }
            if waiting.ended {
                return None;
            }
            // One that looks is enough.
            if may_look && !waiting.looking {
                may_look = false;
                waiting.looking = true;
                drop(waiting);
                look(LOOK_FOR_JOB, || self.count.load(Ordering::Relaxed) > 0);
                waiting = self.waiting();
                waiting.looking = false;
            } else {
                waiting = (self.more.wait(waiting)).unwrap_or_else(PoisonError::into_inner);
            }
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
    /// Of them, those that may look for their answers: who looks and the job that it waits for want a processor each, and a job
    /// that others are before is not run at once.
    lookers: u32,
    callers: Arc<AtomicU32>,
    jobs: OnceLock<Option<Arc<Jobs>>>,
}

impl Scorers {
    /// `threads` that run, and at most `queue` callers more that wait for them.
    pub fn new(threads: u32, queue: u32) -> Scorers {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let pairs = u32::try_from(processors / 2).unwrap_or(u32::MAX);
        Scorers {
            threads,
            most: threads.saturating_add(queue),
            lookers: threads.min(pairs),
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
        let looks = self.lookers > 0;
        let jobs = self.jobs.get_or_init(|| start(self.threads, looks));
        let jobs = jobs.as_ref().ok_or(NotRun::NoThread)?;
        let room = |callers: u32| (callers < self.most).then_some(callers + 1);
        let order = Ordering::Relaxed;
        let before = self.callers.fetch_update(order, order, room);
        let before = before.map_err(|_| NotRun::Full)?;
        let callers = Arc::clone(&self.callers);
        let answer = Arc::new(Answer::new());
        let owed = Owed(Arc::clone(&answer));
        // The threads are there as long as this is.
        jobs.put(Box::new(move || {
            let ran = catch_unwind(AssertUnwindSafe(job));
            // Before its caller goes on: who calls one after the other always finds room.
            callers.fetch_sub(1, order);
            owed.give(ran.ok());
        }));
        answer.wait(before < self.lookers).ok_or(NotRun::Panicked)
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
fn start(threads: u32, looks: bool) -> Option<Arc<Jobs>> {
    let jobs = Arc::new(Jobs {
        looks,
        ..Jobs::default()
    });
    let started = (0..threads).filter(|_| {
        let jobs = Arc::clone(&jobs);
        let thread = thread::Builder::new().name("plugin-score".to_owned());
        thread.spawn(move || work(&jobs)).is_ok()
    });
    (started.count() > 0).then_some(jobs)
}

fn work(jobs: &Jobs) {
    priority::in_short_turns();
    let mut has_run = false;
    while let Some(job) = jobs.next(has_run) {
        job();
        has_run = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

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

    #[test]
    fn each_caller_gets_its_own_answer_whether_ends_look_or_sleep() {
        for lookers in [0, 2, 8] {
            let mut scorers = Scorers::new(2, 64);
            scorers.lookers = lookers;
            let scorers = &scorers;
            thread::scope(|scope| {
                for caller in 0..8_u64 {
                    scope.spawn(move || {
                        for call in 0..500 {
                            let number = caller * 1000 + call;
                            let ran = scorers.run(move || {
                                // Now and then longer than anybody looks.
                                if number.is_multiple_of(97) {
                                    thread::sleep(2 * LOOK_FOR_ANSWER);
                                }
                                number
                            });
                            assert_eq!(ran, Ok(number));
                            // And a thread may have gone to sleep.
                            if number.is_multiple_of(89) {
                                thread::sleep(2 * LOOK_FOR_JOB);
                            }
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn a_job_that_nobody_runs_is_no_answer() {
        for looks in [false, true] {
            let answer = Arc::new(Answer::<u32>::new());
            let owed = Owed(Arc::clone(&answer));
            let dropping = thread::spawn(move || drop(owed));
            assert_eq!(answer.wait(looks), None);
            dropping.join().unwrap();
        }
    }
}
