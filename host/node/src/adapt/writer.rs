//! The one thread that learns, and writes down what was learned.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use msao_adapt::acceptance::Mix;

use super::Shared;
use super::known::Lesson;
use super::pair::Pair;

/// Messages taken together before readers see the result.
const TOGETHER: usize = 64;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Drafts were judged.
    Learn {
        pair: Arc<Pair>,
        mix: Mix,
        lessons: Vec<Lesson>,
    },
    /// All that was told before is to be learned and on the disk.
    Checkpoint(Sender<Result<(), String>>),
    /// It is to end.
    Stop,
}

/// Learns until it is told to stop, or nobody can tell it anything any more; writes down every `every`, and at the end.
pub(super) fn run(shared: &Shared, messages: &Receiver<Message>, every: Duration) {
    let mut due = Instant::now() + every;
    loop {
        let wait = due.saturating_duration_since(Instant::now());
        match messages.recv_timeout(wait) {
            Ok(first) => {
                if !take(shared, first, messages) {
                    break;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() >= due {
            // What went wrong is counted and told, and tried again the next time.
            let _failed = shared.checkpoint();
            due = Instant::now() + every;
        }
    }
    let _failed = shared.checkpoint();
}

/// Takes a message and those that wait behind it, then lets readers see. False: it is to end.
fn take(shared: &Shared, first: Message, messages: &Receiver<Message>) -> bool {
    let mut next = Some(first);
    let mut taken = 0;
    let mut goes_on = true;
    while let Some(message) = next {
        match message {
            Message::Learn { pair, mix, lessons } => shared.learn(&pair, mix, &lessons),
            Message::Checkpoint(answer) => {
                shared.publish();
                // Whoever does not wait any more need not know.
                let _gone = answer.send(shared.checkpoint());
            }
            Message::Stop => {
                goes_on = false;
                break;
            }
        }
        taken += 1;
        next = (taken < TOGETHER)
            .then(|| messages.try_recv().ok())
            .flatten();
    }
    shared.publish();
    goes_on
}
