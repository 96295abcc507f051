//! The loop of the thread that owns a model.
//!
//! Each turn: take in what was sent, end what was dropped, let in what waits as far as there is room, go on with one medium
//! by some blocks of its encoder and with one probe's report by some rows of its text, then one pass over whatever is
//! ready. Decoding and verifying come first, and prompts are read in chunks beside them. Media come here hashed. What
//! still makes others wait, for milliseconds, is embedding a newcomer's text, one block of an encoder, and one of a report.

mod admission;
mod orders;
mod passes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::client::{Client, Order, Rows};
use super::ending::wait_at_exit;
use super::{COMMANDS, ServiceError, ServiceOptions, Shared};
use crate::config::ModelConfig;
use crate::error::{EngineError, Result};
use crate::model::{LoadOptions, Model};
use crate::runner::{Needs, Runner, SequenceId};

pub(super) use admission::Waiting;

/// How long the thread sleeps before it looks again at a reader that is behind.
const READER_POLL: Duration = Duration::from_millis(1);
/// How long it sleeps with nothing to do before it looks whether anyone has gone.
const IDLE_POLL: Duration = Duration::from_secs(1);
/// How long encoding goes on before it is looked whether anybody came, with nobody being answered.
const ENCODE_ALONE: Duration = Duration::from_millis(100);

/// How long a pass waits for those whom the last one served, at most.
const PATIENCE: Duration = Duration::from_millis(2);

/// What is sent to the thread.
pub(crate) enum Command {
    Open(Waiting),
    /// An order of a session's, and when it was given.
    Order(u64, Order, Instant),
    /// Somebody has gone.
    Look,
}

/// What the thread tells once the model is there.
pub(super) struct Started {
    pub config: ModelConfig,
    pub capacity: usize,
    /// Whether media must be hashed.
    pub hashes: bool,
    /// What computes: see [`Model::kernels`].
    pub kernels: &'static str,
    /// Whether passes become CUDA graphs.
    pub graphs: bool,
}

struct Engine {
    runner: Runner,
    options: ServiceOptions,
    clients: BTreeMap<u64, Client>,
    /// Sessions that an error has ended and that somebody still holds, so that whoever asks later is told why.
    failed: BTreeMap<u64, Failed>,
    waiting: VecDeque<Waiting>,
    next: u64,
    shared: Arc<Shared>,
    /// Where the next pass starts to look, so that nobody is always last.
    turn: u64,
    /// How long the last pass took.
    took: Duration,
    /// How long a row of a prompt takes through all layers, in seconds, learned from passes with prompts; 0 before the
    /// first.
    row_seconds: f64,
    /// The device does nothing any more.
    lost: bool,
}

/// A session that an error has ended.
struct Failed {
    gone: Arc<AtomicBool>,
    why: EngineError,
}

/// Loads the model, says so, and serves until nobody can send any more. Loading ends early once `stop` is true.
pub(super) fn run(
    dir: &Path,
    load: &LoadOptions,
    options: &ServiceOptions,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    started: oneshot::Sender<Result<Started, ServiceError>>,
    stop: Arc<AtomicBool>,
) {
    if let Some(threads) = options.threads {
        crate::set_threads(threads);
    }
    let runner = Model::load_until(dir, load, Some(stop))
        .and_then(|model| Runner::new(model, &options.runner));
    let runner = match runner {
        Ok(runner) => runner,
        Err(error) => {
            let _gone = started.send(Err(error.into()));
            return;
        }
    };
    // A GPU's libraries have been opened by now.
    wait_at_exit();
    let mut engine = Engine::new(runner, options, shared);
    if started.send(Ok(engine.started())).is_ok() {
        engine.serve(&inbox);
        engine.shared.ended.store(true, Ordering::Relaxed);
    }
}

/// A session whose prompt is being read, and the tokens that are left of it.
type Reading = (u64, SequenceId, usize);
/// Likewise, or `None` while a medium comes first.
type Reader = (u64, SequenceId, Option<usize>);

/// What a turn of the loop came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Something was done; there may be more.
    Worked,
    /// Only readers that are behind are waited for.
    HeldUp,
    /// There is nothing to do.
    Idle,
}

impl Engine {
    fn new(runner: Runner, options: &ServiceOptions, shared: Arc<Shared>) -> Self {
        Engine {
            runner,
            options: ServiceOptions {
                decode_rows: options.decode_rows.max(2),
                ..*options
            },
            clients: BTreeMap::new(),
            failed: BTreeMap::new(),
            waiting: VecDeque::new(),
            next: 0,
            shared,
            turn: 0,
            took: Duration::ZERO,
            row_seconds: 0.0,
            lost: false,
        }
    }

    fn started(&self) -> Started {
        Started {
            config: self.runner.model().config().clone(),
            capacity: self.runner.capacity(),
            hashes: self.runner.wants_hashes(),
            kernels: self.runner.model().kernels(),
            graphs: self.runner.has_graphs(),
        }
    }

    fn serve(&mut self, inbox: &Receiver<Command>) {
        let mut last = Turn::Idle;
        loop {
            let first = match last {
                Turn::Worked => None,
                Turn::HeldUp => match inbox.recv_timeout(READER_POLL) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                // With sessions open it looks up now and then: one may have been dropped before anyone held it.
                Turn::Idle if !self.clients.is_empty() => match inbox.recv_timeout(IDLE_POLL) {
                    Ok(command) => Some(command),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                Turn::Idle => match inbox.recv() {
                    Ok(command) => Some(command),
                    Err(_) => return,
                },
            };
            if let Some(command) = first {
                self.take(command);
            }
            self.gather(inbox);
            match self.step(inbox) {
                Some(turn) => last = turn,
                None => return,
            }
        }
    }

    /// Waits a little for those who were just given a verdict and will order again at once: a pass without them would be
    /// followed by one for them alone, and so on by turns, at nearly twice the cost.
    fn gather(&mut self, inbox: &Receiver<Command>) {
        let patience = self.patience();
        loop {
            let expected = self.clients.values().filter(|client| client.quick);
            let until = expected
                .filter(|client| !client.is_gone())
                .filter_map(|client| Some(client.served? + patience))
                .max();
            let left = until.and_then(|until| until.checked_duration_since(Instant::now()));
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                return;
            };
            match inbox.recv_timeout(left) {
                Ok(command) => self.take(command),
                // That nobody can send any more is noticed by the turn.
                Err(_) => return,
            }
        }
    }

    /// How long the next pass may wait for those whom the last one served.
    fn patience(&self) -> Duration {
        (self.took / 4).min(PATIENCE)
    }

    /// Notes that a session has ordered.
    fn returned(&mut self, id: u64, given: Instant) {
        let patience = self.patience();
        if let Some(client) = self.clients.get_mut(&id)
            && let Some(served) = client.served.take()
        {
            client.quick = given.saturating_duration_since(served) < patience;
        }
    }

    /// Takes in what was sent and does one turn; `None` once nobody can send any more.
    fn step(&mut self, inbox: &Receiver<Command>) -> Option<Turn> {
        // No more than the channel holds, so that the turn begins however fast they come.
        for _ in 0..COMMANDS {
            match inbox.try_recv() {
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        let turn = self.guarded(|engine| {
            engine.end_gone();
            engine.admit();
            Ok(engine.turn())
        });
        let turn = turn.unwrap_or_else(|error| {
            // It was nobody's own work, so nobody's state is known to be whole.
            let all: Vec<u64> = self.clients.keys().copied().collect();
            self.fail_all(&all, error);
            Turn::Worked
        });
        self.tell();
        // Those who wait or ask are told that the thread has ended.
        (!self.lost).then_some(turn)
    }

    /// Does some work. A panic in it becomes an error, after which the sessions that it was done for must be ended.
    ///
    /// Others are not harmed by what was left half done, since only this thread sees the engine, and of what it holds
    /// the model is only read; kept prefixes and media are put in and taken out whole; and who holds which block of the
    /// cache is counted anew from the tables that are left. Frames of C++ are never unwound: neither libtorch nor our
    /// kernels call back, and `team` catches what its own work does.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(done) => done,
            Err(panic) => {
                self.runner.recover();
                Err(EngineError::panicked(panic.as_ref()))
            }
        }
    }

    /// As [`Engine::guarded`]; where the device has no memory for it and it may be tried again, once more when what is
    /// kept for later has been given up: that goes before anybody does.
    fn with_room<T>(
        &mut self,
        again: bool,
        mut work: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<T> {
        match self.guarded(&mut work) {
            Err(EngineError::DeviceFull { .. }) if again => {
                self.runner.make_room();
                self.guarded(work)
            }
            done => done,
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Look => {}
            Command::Open(waiting) => self.waiting.push_back(waiting),
            Command::Order(id, order, given) => {
                self.returned(id, given);
                let tokens = match &order {
                    Order::Verify { drafts: tokens, .. } | Order::Append { tokens, .. } => tokens,
                    _ => &Vec::new(),
                };
                match self.stranger(tokens).or_else(|| self.too_long(&order)) {
                    // The session goes on: nothing of the order has been done.
                    Some(error) => order.refuse(|| error.into()),
                    None => self.queue(id, order),
                }
            }
        }
    }

    fn end_gone(&mut self) {
        let gone: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| client.is_gone())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.end(id);
        }
        (self.failed).retain(|_, failed| !failed.gone.load(Ordering::Acquire));
    }

    fn end(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            // Its account goes with it.
            let _ = self.runner.close(client.sequence);
        }
    }

    /// Ends a session by an error, which whoever waits on it is told, and whoever asks it for something later.
    fn fail(&mut self, id: u64, error: EngineError) {
        // After such an error a process gets nothing from a GPU any more.
        if let EngineError::Device(_) = error {
            self.lost = true;
            // Before anybody is told.
            self.shared.ended.store(true, Ordering::Relaxed);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.fail(&error);
            let failed = Failed {
                gone: Arc::clone(&client.gone),
                why: error,
            };
            self.failed.insert(id, failed);
        }
        self.end(id);
    }

    /// Ends several sessions by one panic.
    fn fail_all(&mut self, ids: &[u64], error: EngineError) {
        let said = match error {
            EngineError::Panicked(said) => said,
            error => error.to_string(),
        };
        for id in ids {
            self.fail(*id, EngineError::Panicked(said.clone()));
        }
    }

    /// One encoder run and one pass, as far as somebody wants them.
    fn turn(&mut self) -> Turn {
        let ids: Vec<u64> = {
            let all: Vec<u64> = self.clients.keys().copied().collect();
            let start = all.partition_point(|id| *id < self.turn);
            let (before, from) = all.split_at(start);
            from.iter().chain(before).copied().collect()
        };
        let mut worked = false;
        let mut held_up = false;
        let mut readers: Vec<Reader> = Vec::new();
        let mut ready: Vec<(u64, SequenceId, Rows)> = Vec::new();
        let mut rows_left = self.options.decode_rows;
        let mut skipped = None;
        let mut reported: Option<(u64, SequenceId)> = None;
        for id in ids {
            let needs = self.guarded(|engine| {
                worked |= engine.settle(id);
                let Some(client) = engine.clients.get(&id) else {
                    return Ok(None);
                };
                engine.runner.share(client.sequence)?;
                engine.runner.needs(client.sequence).map(Some)
            });
            let needs = match needs {
                Ok(Some(needs)) => Ok(needs),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            let Some(client) = self.clients.get_mut(&id) else {
                continue;
            };
            let sequence = client.sequence;
            if !matches!(needs, Ok(Needs::Encoding)) {
                client.media = None;
            }
            match needs {
                Err(error) => self.fail(id, error),
                Ok(Needs::Encoding) => readers.push((id, sequence, None)),
                Ok(Needs::Reading(left)) => readers.push((id, sequence, Some(left))),
                Ok(Needs::Keeping) => {
                    if client.waits_for_report() && reported.is_none_or(|(first, _)| id < first) {
                        reported = Some((id, sequence));
                    }
                }
                Ok(Needs::Nothing) => {
                    held_up |= client.held_up();
                    if rows_left > 0
                        && let Some(rows) = client.rows(rows_left)
                    {
                        let (Rows::Append(tokens) | Rows::Extend(tokens)) = &rows;
                        if tokens.len() <= rows_left {
                            rows_left -= tokens.len();
                            ready.push((id, sequence, rows));
                        } else if ready.is_empty() {
                            // More drafts than a pass may have by itself: it gets a pass of its own.
                            rows_left = 0;
                            ready.push((id, sequence, rows));
                        } else {
                            skipped.get_or_insert(id);
                        }
                    } else if rows_left == 0 {
                        skipped.get_or_insert(id);
                    }
                }
            }
        }
        let (encoding, reading) = self.in_order(readers);
        if let Some((id, sequence)) = encoding {
            worked = true;
            self.encode(id, sequence, ready.is_empty());
        }
        if let Some((id, sequence)) = reported {
            worked = true;
            self.report(id, sequence, ready.is_empty());
        }
        worked |= self.pass(&ready, &reading);
        if worked {
            // Who was left out for want of rows comes first in the next turn.
            let behind = ready.last().map_or(self.turn, |(id, _, _)| id + 1);
            self.turn = skipped.unwrap_or(behind);
            Turn::Worked
        } else if held_up {
            Turn::HeldUp
        } else {
            Turn::Idle
        }
    }

    /// The medium that is encoded next and the prompts that are read next.
    ///
    /// First come first served: no second medium is begun before one is done, and sharing a chunk among prompts would delay
    /// them all. Who asks for much the same as somebody ahead waits for that one, and then shares it: the choices of one
    /// request have one prompt.
    fn in_order(&self, mut readers: Vec<Reader>) -> (Option<(u64, SequenceId)>, Vec<Reading>) {
        readers.sort_unstable_by_key(|(id, _, _)| *id);
        let mut ahead = Vec::with_capacity(readers.len());
        let mut encoding = None;
        let mut reading = Vec::with_capacity(readers.len());
        for (id, sequence, left) in readers {
            if self.runner.had_better_wait(sequence, &ahead) {
                continue;
            }
            ahead.push(sequence);
            match left {
                Some(left) => reading.push((id, sequence, left)),
                None => drop(encoding.get_or_insert((id, sequence))),
            }
        }
        (encoding, reading)
    }

    /// Goes on with one medium: to its end if nobody waits for a pass, else for a while.
    fn encode(&mut self, id: u64, sequence: SequenceId, alone: bool) {
        let done = self.piece_by_piece(id, alone, |runner| runner.encode_on(sequence));
        if let Err(error) = done {
            self.fail(id, error);
        }
    }

    /// Goes on with what a probe saw, likewise.
    fn report(&mut self, id: u64, sequence: SequenceId, alone: bool) {
        let done = self.piece_by_piece(id, alone, |runner| {
            runner.report_on(sequence)?;
            Ok(runner.report(sequence)?.is_some())
        });
        match done {
            Ok(()) => {}
            Err(error @ (EngineError::Panicked(_) | EngineError::Device(_))) => {
                self.fail(id, error);
            }
            // The session goes on: what is kept may be said all the same.
            Err(error) => {
                let client = self.clients.get_mut(&id);
                if let Some(order) = client.and_then(|client| client.orders.pop_front()) {
                    order.refuse(|| error.into());
                }
            }
        }
    }

    /// Goes on with a session's work piece by piece, until it is done or has taken as long as it may.
    fn piece_by_piece(
        &mut self,
        id: u64,
        alone: bool,
        mut piece: impl FnMut(&mut Runner) -> Result<bool>,
    ) -> Result<()> {
        let started = Instant::now();
        let slice = if alone {
            ENCODE_ALONE
        } else {
            self.options.encode_slice
        };
        loop {
            // What fails is begun anew, so that it could fail for ever.
            let again = self
                .clients
                .get(&id)
                .is_some_and(|client| !client.begun_anew);
            let mut tries = 0;
            let done = self.with_room(again, |engine| {
                tries += 1;
                piece(&mut engine.runner)
            })?;
            let Some(client) = self.clients.get_mut(&id) else {
                return Ok(());
            };
            client.begun_anew = !done && (client.begun_anew || tries > 1);
            // Who leaves is not worked for any longer.
            if done || client.is_gone() || started.elapsed() >= slice {
                return Ok(());
            }
        }
    }

    fn tell(&self) {
        let shared = &self.shared;
        shared.sessions.store(self.clients.len(), Ordering::Relaxed);
        shared.waiting.store(self.waiting.len(), Ordering::Relaxed);
        shared
            .logits_bytes
            .store(self.kept_logits(), Ordering::Relaxed);
        shared
            .held_blocks
            .store(self.runner.held_blocks(), Ordering::Relaxed);
        shared
            .prefix_blocks
            .store(self.runner.prefix_blocks(), Ordering::Relaxed);
    }
}
