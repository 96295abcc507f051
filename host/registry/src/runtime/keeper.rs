//! The thread that does what must not be done on a request's path: it writes down what was left there, keeps failing
//! inputs, and judges canaries.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::{Inner, Note};
use crate::canary::Verdict;
use crate::cases::Case;
use crate::deployment::Event;

/// Between looks at canary and budgets.
const EVERY: Duration = Duration::from_millis(100);
/// Between tries to write down what could not be.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) fn keep(inner: &Inner, notes: &Receiver<Note>) {
    let mut look_at = Instant::now() + EVERY;
    let mut again_at = Instant::now() + AGAIN;
    while !inner.stopping.load(Ordering::SeqCst) {
        let wait = look_at.saturating_duration_since(Instant::now());
        match notes.recv_timeout(wait) {
            Ok(note) => take(inner, note),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if Instant::now() >= look_at {
            inner.write_down_condemned(None);
            inner.tick_budgets();
            inner.judge_canary();
            look_at = Instant::now() + EVERY;
        }
        if Instant::now() >= again_at {
            inner.write_down_again();
            again_at = Instant::now() + AGAIN;
        }
    }
    // What came before the stop is not lost.
    for note in notes.try_iter() {
        take(inner, note);
    }
    inner.write_down_condemned(None);
    inner.write_down_again();
}

fn take(inner: &Inner, note: Note) {
    match note {
        // Where it cannot be written down, it is tried again; where it is gone, an operator was faster.
        Note::Retreated { number } => inner.write_down_condemned(Some(number)),
        Note::Case(case) => {
            let (summary, input) = *case;
            let case = Case::new(summary, input);
            if inner.cases.keep(&case).is_err() {
                inner.dropped_cases.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Inner {
    /// A note may have found the queue full: what was left shows by itself.
    fn write_down_condemned(&self, only: Option<u64>) {
        let condemned: Vec<(u64, String)> = (self.verbs().held.values())
            .filter(|generation| only.is_none_or(|number| generation.spec.number == number))
            .filter_map(|generation| {
                Some((generation.spec.number, generation.condemned.get()?.clone()))
            })
            .collect();
        for (number, why) in condemned {
            let _ = self.leave(number, &why);
        }
    }

    fn tick_budgets(&self) {
        let now = self.now_ms();
        for generation in self.verbs().held.values() {
            generation.tick(now, &self.config.error_budget);
        }
    }

    fn judge_canary(&self) {
        let table = self.table.load_full();
        let Some(canary) = &table.canary else { return };
        let config = &self.config.canary;
        let number = canary.generation.spec.number;
        let (verdict, step) = {
            let mut trial = canary.trial.lock().unwrap_or_else(PoisonError::into_inner);
            trial.expire(self.now_ms(), config);
            (trial.look(config), trial.step())
        };
        match verdict {
            Verdict::Hold(_) => {}
            Verdict::Worse(why) => {
                let why = format!("it is worse: {why}");
                if self.retreat(&canary.generation, why.clone()) {
                    // As with a note.
                    let _ = self.leave(number, &why);
                }
            }
            Verdict::Fine if step + 1 < config.steps.len() => {
                let event = Event::CanaryStepped {
                    number,
                    step: step + 1,
                };
                // Where the journal cannot be written the canary stays where it is, and is judged again.
                if self.commit(&mut self.verbs(), event, true).is_ok() {
                    let mut trial = canary.trial.lock().unwrap_or_else(PoisonError::into_inner);
                    trial.next();
                }
            }
            Verdict::Fine => {
                let _ = self.commit(&mut self.verbs(), Event::Promoted { number }, true);
            }
        }
    }

    fn write_down_again(&self) {
        let mut verbs = self.verbs();
        if let Some((event, _)) = verbs.unwritten.take() {
            // A failure puts it back.
            let _ = self.write_down(&mut verbs, event);
        }
    }
}

/// Starts the keeper's thread.
pub(super) fn start(
    inner: Arc<Inner>,
    notes: Receiver<Note>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name("plugins".into())
        .spawn(move || keep(&inner, &notes))
}
