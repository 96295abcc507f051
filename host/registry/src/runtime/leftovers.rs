//! The thread that takes generations apart which nothing goes back to any more.
//!
//! Giving back the memory of their instances takes a good part of a millisecond, and while the kernel does that others wait
//! who need memory. The moment in which a generation is left is the moment in which another one takes over: requests are to
//! have the processor then. So this thread waits a while, and for the last request of a generation, which would else do the
//! work on its own way; and then it steps back.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use msao_state::step_back;

use super::Generation;

/// From being told of a generation to taking it apart, at least.
const AFTER: Duration = Duration::from_millis(100);
/// Between looks whether its last request has ended.
const EVERY: Duration = Duration::from_millis(20);

/// What the thread is told: a generation that is left; None: that it is to end.
pub(super) type Left = Option<Arc<Generation>>;

/// Starts the thread.
pub(super) fn start() -> std::io::Result<(Sender<Left>, JoinHandle<()>)> {
    let (leave, left) = channel();
    let thread = Builder::new().name("leftovers".into()).spawn(move || {
        step_back();
        take_apart(&left);
    })?;
    Ok((leave, thread))
}

fn take_apart(left: &Receiver<Left>) {
    let mut waiting: Vec<(Instant, Arc<Generation>)> = Vec::new();
    loop {
        let next = if waiting.is_empty() {
            left.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            left.recv_timeout(EVERY)
        };
        match next {
            Ok(Some(generation)) => waiting.push((Instant::now() + AFTER, generation)),
            Err(RecvTimeoutError::Timeout) => {}
            // Those that still have requests are taken apart by the last of them.
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return,
        }
        waiting
            .retain(|(at, generation)| Instant::now() < *at || Arc::strong_count(generation) > 1);
    }
}
