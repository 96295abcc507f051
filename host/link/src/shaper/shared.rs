//! What all handles and streams of a link share: both directions behind one lock, and the task that keeps time.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::pipe::Pipe;
use super::timeline::{Event, Timeline};
use super::{Direction, NANOS_PER_MS, Nanos, nanos};

/// Half of a tick of tokio's timer: what is due within it is done now, so that nothing is late on average.
const HALF_TICK: Nanos = NANOS_PER_MS / 2;

/// Who belongs to a connection: its stream and its pump. The last one takes the lanes away.
pub(super) struct Member {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
}

impl Member {
    /// Opens a connection; while the link is down, one that is reset already.
    pub(super) fn join(shared: &Arc<Shared>) -> Member {
        let number = shared.with(|state, now| {
            state.connections += 1;
            let (number, down) = (state.connections, !state.is_up(now));
            for pipe in state.both() {
                pipe.open(number);
                if down {
                    pipe.fail(number, io::ErrorKind::ConnectionReset);
                }
            }
            number
        });
        Member {
            shared: Arc::clone(shared),
            number,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.with(|state, _| {
            state.up.remove(self.number);
            state.down.remove(self.number);
        });
    }
}

pub(super) struct Shared {
    begun: Instant,
    pub(super) runtime: Handle,
    state: Mutex<State>,
    /// Something is due earlier than the task that keeps time knows, or nobody needs it any more.
    kick: Arc<Notify>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.kick.notify_one();
    }
}

pub(super) struct State {
    up: Pipe,
    down: Pipe,
    timeline: Timeline,
    connections: u64,
    /// No connection before.
    down_until: Nanos,
    /// When the task that keeps time wakes up.
    armed: Nanos,
}

impl State {
    pub(super) fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    pub(super) fn is_up(&self, now: Nanos) -> bool {
        self.down_until <= now
    }

    /// Lets connections be had again.
    pub(super) fn bring_up(&mut self) {
        self.down_until = 0;
    }

    pub(super) fn both(&mut self) -> [&mut Pipe; 2] {
        [&mut self.up, &mut self.down]
    }

    fn advance(&mut self, now: Nanos) {
        while let Some((at, event)) = self.timeline.pop(now) {
            match event {
                Event::Stall(lasts) => {
                    let until = at.saturating_add(lasts);
                    self.both()
                        .into_iter()
                        .for_each(|pipe| pipe.stall(at, until));
                }
                Event::Cut(lasts) => self.cut(at.saturating_add(lasts)),
            }
        }
        self.both().into_iter().for_each(|pipe| pipe.advance(now));
    }

    /// Resets all connections; none can be had before `down_until`.
    pub(super) fn cut(&mut self, down_until: Nanos) {
        self.down_until = self.down_until.max(down_until);
        let reset = io::ErrorKind::ConnectionReset;
        self.both()
            .into_iter()
            .for_each(|pipe| pipe.fail_all(reset));
    }

    fn due(&self) -> Nanos {
        self.up.due().min(self.down.due()).min(self.timeline.due())
    }
}

impl Shared {
    /// Starts the task that keeps time. Time begins now.
    pub(super) fn start(runtime: Handle, up: Pipe, down: Pipe, timeline: Timeline) -> Arc<Shared> {
        let kick = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            runtime: runtime.clone(),
            state: Mutex::new(State {
                up,
                down,
                timeline,
                connections: 0,
                down_until: 0,
                armed: Nanos::MAX,
            }),
            kick: Arc::clone(&kick),
        });
        runtime.spawn(keep_time(Arc::downgrade(&shared), kick));
        shared
    }

    fn now(&self) -> Nanos {
        nanos(self.begun.elapsed())
    }

    /// Runs `change` at the present moment, then does what is due and wakes whom it concerns.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State, Nanos) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        state.advance(now);
        let result = change(&mut state, now);
        if self.settle(state, now, Who::Other).1 {
            self.kick.notify_one();
        }
        result
    }

    /// Does what is due for the task that keeps time, and tells when it is wanted next.
    fn keep(&self) -> Option<Nanos> {
        let (due, _) = self.settle(self.lock(), self.now(), Who::Keeper);
        (due < Nanos::MAX).then(|| due.saturating_sub(HALF_TICK))
    }

    /// Does what is due. Returns when something is next, and whether that is earlier than the keeper knew.
    fn settle(&self, mut state: MutexGuard<State>, now: Nanos, who: Who) -> (Nanos, bool) {
        state.advance(now.saturating_add(HALF_TICK));
        let due = state.due();
        let earlier = due < state.armed;
        if earlier || who == Who::Keeper {
            state.armed = due;
        }
        let woken: Vec<Waker> = (state.both().into_iter())
            .flat_map(|pipe| pipe.wake.drain(..))
            .collect();
        // Who is woken may come back at once.
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        (due, earlier)
    }

    /// A panic in a waker or a stream of another crate must not take the link's other connections with it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who does what is due.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Keeper,
    Other,
}

/// Keeps time until the link is gone.
async fn keep_time(link: Weak<Shared>, kick: Arc<Notify>) {
    while let Some(shared) = link.upgrade() {
        let due = shared.keep();
        let at = due
            .map(Duration::from_nanos)
            .and_then(|due| shared.begun.checked_add(due));
        drop(shared);
        match at {
            // A kick or the time: what is due is looked at anew either way.
            Some(at) => drop(timeout_at(at, kick.notified()).await),
            None => kick.notified().await,
        }
    }
}
