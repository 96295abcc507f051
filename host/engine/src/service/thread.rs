//! The loop of the thread that owns a model.
//!
//! Each turn: take in what was sent, end what was dropped, let in what waits as far as there is room, go on with one medium
//! by some blocks of its encoder, then one pass over whatever is ready. Decoding and verifying come first, and prompts are
//! read in chunks beside them. Media come here hashed. What still makes others wait, for milliseconds, is embedding a
//! newcomer's text and one block of an encoder.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::choose::{Share, hand_out, untreated, with_scratch};
use super::client::{Client, Order, Reply, Rows};
use super::{COMMANDS, MediaBytes, Open, ServiceError, ServiceOptions, Shared, Ticket};
use crate::config::ModelConfig;
use crate::error::{EngineError, Result};
use crate::logits::Logits;
use crate::media_cache::MediaKeys;
use crate::model::{LoadOptions, Model};
use crate::runner::{Needs, Runner, SequenceId, Work};

/// How long the thread sleeps before it looks again at a reader that is behind.
const READER_POLL: Duration = Duration::from_millis(1);
/// How long it sleeps with nothing to do before it looks whether anyone has gone.
const IDLE_POLL: Duration = Duration::from_secs(1);
/// How long encoding goes on before it is looked whether anybody came, with nobody being answered.
const ENCODE_ALONE: Duration = Duration::from_millis(100);
/// Rows of logits that a session may keep.
const KEPT_ROWS: u64 = 2;
/// Most orders that may wait on one session.
const ORDERS: usize = 256;

/// What is sent to the thread.
pub(crate) enum Command {
    Open(Waiting),
    Order(u64, Order),
    /// Somebody has gone.
    Look,
}

/// What the thread tells once the model is there.
pub(super) struct Started {
    pub config: ModelConfig,
    pub capacity: usize,
    /// Whether media must be hashed.
    pub hashes: bool,
}

/// A prompt that is to be let in.
pub(super) struct Waiting {
    pub open: Box<Open>,
    /// The hashes of its media where the cache wants them.
    pub keys: Option<MediaKeys>,
    pub reply: Reply<Ticket>,
    /// Until it is let in or refused.
    pub _held: MediaBytes,
}

struct Engine {
    runner: Runner,
    options: ServiceOptions,
    clients: BTreeMap<u64, Client>,
    waiting: VecDeque<Waiting>,
    next: u64,
    shared: Arc<Shared>,
    /// Where the next pass starts to look, so that nobody is always last.
    turn: u64,
}

/// Loads the model, says so, and serves until nobody can send any more.
pub(super) fn run(
    dir: &Path,
    load: &LoadOptions,
    options: &ServiceOptions,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    started: oneshot::Sender<Result<Started, ServiceError>>,
) {
    if let Some(threads) = options.threads {
        crate::set_threads(threads);
    }
    let runner = Model::load(dir, load).and_then(|model| Runner::new(model, &options.runner));
    let runner = match runner {
        Ok(runner) => runner,
        Err(error) => {
            let _gone = started.send(Err(error.into()));
            return;
        }
    };
    let mut engine = Engine::new(runner, options, shared);
    if started.send(Ok(engine.started())).is_ok() {
        engine.serve(&inbox);
    }
}

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
            waiting: VecDeque::new(),
            next: 0,
            shared,
            turn: 0,
        }
    }

    fn started(&self) -> Started {
        Started {
            config: self.runner.model().config().clone(),
            capacity: self.runner.capacity(),
            hashes: self.runner.wants_hashes(),
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
            match self.step(inbox) {
                Some(turn) => last = turn,
                None => return,
            }
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
        Some(turn)
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

    fn take(&mut self, command: Command) {
        match command {
            Command::Look => {}
            Command::Open(waiting) => self.waiting.push_back(waiting),
            Command::Order(id, order) => {
                let tokens = match &order {
                    Order::Verify { drafts: tokens, .. } | Order::Append { tokens, .. } => tokens,
                    _ => &Vec::new(),
                };
                match self.stranger(tokens).or_else(|| self.too_long(&order)) {
                    // The session goes on: nothing of the order has been done.
                    Some(error) => {
                        let said = error.to_string();
                        order.refuse(|| EngineError::request(said.clone()).into());
                    }
                    None => self.queue(id, order),
                }
            }
        }
    }

    /// Why a draft is too long for one pass, if it is.
    fn too_long(&self, order: &Order) -> Option<EngineError> {
        let most = self.options.decode_rows;
        match order {
            Order::Verify { drafts, .. } if drafts.len() >= most => {
                Some(EngineError::request(format!(
                    "{} drafts at once, and fewer than {most} are allowed",
                    drafts.len()
                )))
            }
            _ => None,
        }
    }

    fn queue(&mut self, id: u64, order: Order) {
        match self.clients.get_mut(&id) {
            Some(client) if client.orders.len() < ORDERS => client.orders.push_back(order),
            Some(_) => {
                let most = ORDERS as u64;
                let limit = "orders that wait on one session";
                order.refuse(|| ServiceError::Overloaded { limit, most });
            }
            None => order.refuse(|| EngineError::request("the session is over").into()),
        }
    }

    /// Why tokens cannot be read, if one of them is none of the model's.
    fn stranger(&self, tokens: &[u32]) -> Option<EngineError> {
        let vocabulary = self.runner.model().config().text.vocab_size;
        let stranger = tokens.iter().find(|&&id| id as usize >= vocabulary)?;
        Some(EngineError::request(format!(
            "token id {stranger} is not below the model's vocabulary of {vocabulary}"
        )))
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
    }

    fn end(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            // Its account goes with it.
            let _ = self.runner.close(client.sequence);
        }
    }

    /// Ends a session by an error, which whoever waits on it is told.
    fn fail(&mut self, id: u64, error: EngineError) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.fail(error);
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

    /// Lets in what waits, first come first served, as long as there is room, and refuses those for whom there is not
    /// even room to wait.
    fn admit(&mut self) {
        // Who has given up keeps nobody else out.
        self.waiting.retain(|waiting| !waiting.reply.is_closed());
        while let Some(first) = self.waiting.front() {
            let tokens = first
                .open
                .inputs
                .input_ids
                .len()
                .saturating_add(first.open.reserve);
            // An empty runner takes whatever its cache can hold: `Service::open` has seen to that.
            let has_room = self.runner.fits(tokens) && self.logits_fit();
            if !self.clients.is_empty() && !has_room {
                break;
            }
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            let Waiting {
                open, keys, reply, ..
            } = waiting;
            let Open {
                inputs,
                sampler,
                reserve,
                options,
                end_of_sequence,
                top_logprobs,
            } = *open;
            let opened = self.guarded(|engine| {
                let runner = &mut engine.runner;
                runner.open_hashed(inputs, keys, reserve, &options)
            });
            match opened {
                Err(error) => drop(reply.send(Err(error.into()))),
                Ok(sequence) => {
                    let (client, gone) =
                        Client::new(sequence, sampler, end_of_sequence, top_logprobs, reserve);
                    let ticket = self.enter(client, gone);
                    // Where nobody takes the ticket its drop ends the session.
                    let _gone = reply.send(Ok(ticket));
                }
            }
        }
        let most = self.options.waiting;
        for refused in self.waiting.drain(most.min(self.waiting.len())..) {
            let full = ServiceError::Overloaded {
                limit: "requests that wait (waiting)",
                most: most as u64,
            };
            let _gone = refused.reply.send(Err(full));
        }
    }

    /// Bytes of logits that the open sessions keep at most: those to choose the next token by, and those after the
    /// prompt, to which an answer can be taken back.
    fn kept_logits(&self) -> u64 {
        self.clients.len() as u64 * self.session_logits()
    }

    fn session_logits(&self) -> u64 {
        let row = size_of::<f32>() * self.runner.model().config().text.vocab_size;
        KEPT_ROWS * row as u64
    }

    /// Whether one more session's logits fit.
    fn logits_fit(&self) -> bool {
        self.kept_logits() + self.session_logits() <= self.options.logits_bytes
    }

    fn enter(&mut self, client: Client, gone: Arc<std::sync::atomic::AtomicBool>) -> Ticket {
        let id = self.next;
        self.next += 1;
        self.clients.insert(id, client);
        Ticket { id, gone }
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
        let mut reading: Vec<(u64, SequenceId, usize)> = Vec::new();
        let mut ready: Vec<(u64, SequenceId, Rows)> = Vec::new();
        let mut rows_left = self.options.decode_rows;
        let mut skipped = None;
        let mut encoding: Option<(u64, SequenceId)> = None;
        for id in ids {
            let needs = self.guarded(|engine| {
                worked |= engine.settle(id);
                let client = engine.clients.get(&id);
                client
                    .map(|client| engine.runner.needs(client.sequence))
                    .transpose()
            });
            let needs = match needs {
                Ok(Some(needs)) => Ok(needs),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            let Some(client) = self.clients.get(&id) else {
                continue;
            };
            let sequence = client.sequence;
            match needs {
                Err(error) => self.fail(id, error),
                Ok(Needs::Encoding) => {
                    // First come first served, so that no second medium is begun before one is done.
                    if encoding.is_none_or(|(first, _)| id < first) {
                        encoding = Some((id, sequence));
                    }
                }
                Ok(Needs::Reading(left)) => reading.push((id, sequence, left)),
                Ok(Needs::Keeping) => {}
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
        if let Some((id, sequence)) = encoding {
            worked = true;
            self.encode(id, sequence, ready.is_empty());
        }
        // Prompts first come first served: sharing a chunk among them would delay them all.
        reading.sort_unstable_by_key(|(id, _, _)| *id);
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

    /// Goes on with one medium: to its end if nobody waits for a pass, else for a while.
    fn encode(&mut self, id: u64, sequence: SequenceId, alone: bool) {
        let started = Instant::now();
        loop {
            match self.guarded(|engine| engine.runner.encode_on(sequence)) {
                Ok(false) if alone && started.elapsed() < ENCODE_ALONE => {}
                Ok(false) if !alone && started.elapsed() < self.options.encode_slice => {}
                Ok(_) => return,
                Err(error) => {
                    self.fail(id, error);
                    return;
                }
            }
        }
    }

    /// Does everything on a session that needs no pass. True if something was done.
    fn settle(&mut self, id: u64) -> bool {
        let mut worked = false;
        loop {
            let Some(client) = self.clients.get_mut(&id) else {
                return true;
            };
            match with_scratch(|scratch| client.choose(scratch)) {
                Ok(true) => {
                    worked = true;
                    continue;
                }
                Ok(false) => {}
                Err(error) => {
                    self.fail(id, error);
                    return true;
                }
            }
            let needs = self.runner.needs(client.sequence);
            let read = matches!(needs, Ok(Needs::Nothing));
            let seen = matches!(needs, Ok(Needs::Keeping));
            if seen {
                // What is kept must be said before anything else can go on, whatever was ordered first.
                let about_probe =
                    |order: &Order| matches!(order, Order::Probed(_) | Order::Keep(..));
                if let Some(place) = client.orders.iter().position(about_probe)
                    && let Some(order) = client.orders.remove(place)
                {
                    client.orders.push_front(order);
                }
            }
            let now = match client.orders.front() {
                None | Some(Order::Generate { .. } | Order::Verify { .. }) => false,
                Some(Order::Probed(_) | Order::Keep(..)) => seen || read,
                Some(Order::Meter(_) | Order::Output(_)) => true,
                Some(_) => read,
            };
            if !now {
                return worked;
            }
            let Some(order) = client.orders.pop_front() else {
                return worked;
            };
            worked = true;
            self.carry_out(id, order);
        }
    }

    /// An order that needs no pass.
    fn carry_out(&mut self, id: u64, order: Order) {
        let logits_fit = self.logits_fit();
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let sequence = client.sequence;
        match order {
            Order::Probed(reply) => {
                let report = self.runner.probed(sequence);
                let _gone = reply.send(report.map_err(ServiceError::from));
            }
            Order::Keep(keep, reply) => {
                let kept = self.runner.keep(sequence, &keep);
                let _gone = reply.send(kept.map_err(ServiceError::from));
            }
            Order::Read(reply) => drop(reply.send(Ok(()))),
            Order::Append { tokens, reply } => {
                if let Some(error) = client.too_many(tokens.len()) {
                    let _gone = reply.send(Err(error.into()));
                    return;
                }
                client.append(&tokens);
                let _gone = reply.send(Ok(()));
            }
            Order::RollBack { tokens, reply } => {
                let forgotten = client
                    .roll_back(tokens)
                    .and_then(|forget| self.runner.roll_back(sequence, forget));
                let _gone = reply.send(forgotten.map_err(ServiceError::from));
            }
            Order::Fork { sampler, reply } => {
                if sampler.output() != client.sampler.output() {
                    let wrong = "a fork's sampler must have the session's output";
                    let _gone = reply.send(Err(EngineError::request(wrong).into()));
                    return;
                }
                // The answer's room is set aside for each choice.
                let full = if !self.runner.fits(client.unread()) {
                    Some((
                        "bytes of cache (cache_bytes)",
                        self.options.runner.cache_bytes,
                    ))
                } else if !logits_fit {
                    Some((
                        "bytes of kept logits (logits_bytes)",
                        self.options.logits_bytes,
                    ))
                } else {
                    None
                };
                if let Some((limit, most)) = full {
                    let _gone = reply.send(Err(ServiceError::Overloaded { limit, most }));
                    return;
                }
                match self.runner.fork(sequence) {
                    Err(error) => drop(reply.send(Err(error.into()))),
                    Ok(forked) => {
                        let (client, gone) = client.fork(forked, *sampler);
                        let ticket = self.enter(client, gone);
                        let _gone = reply.send(Ok(ticket));
                    }
                }
            }
            Order::Output(reply) => drop(reply.send(Ok(client.sampler.output().to_vec()))),
            Order::Meter(reply) => {
                let meter = self.runner.meter(sequence).cloned();
                let _gone = reply.send(meter.map_err(ServiceError::from));
            }
            // These wait for a pass.
            Order::Verify { .. } | Order::Generate { .. } => client.orders.push_front(order),
        }
    }

    /// One pass over what is ready and as much of the prompts as may go with it. True if there was anything to run.
    fn pass(
        &mut self,
        ready: &[(u64, SequenceId, Rows)],
        reading: &[(u64, SequenceId, usize)],
    ) -> bool {
        let mut batch: Vec<(SequenceId, Work)> = Vec::with_capacity(ready.len() + reading.len());
        for (_, sequence, rows) in ready {
            let work = match rows {
                Rows::Append(tokens) => Work::Append(tokens),
                Rows::Extend(tokens) => Work::Extend(tokens),
            };
            batch.push((*sequence, work));
        }
        let mut prompt_rows = if ready.is_empty() {
            self.options.idle_prompt_rows
        } else {
            self.options.prompt_rows
        }
        .max(1);
        let mut chunks = Vec::new();
        let mut probed = Vec::new();
        for &(id, sequence, left) in reading {
            if prompt_rows == 0 {
                break;
            }
            let rows = left.min(prompt_rows);
            prompt_rows -= rows;
            if self.runner.is_probed(sequence) {
                probed.push((id, sequence, rows));
            } else {
                chunks.push(id);
                batch.push((sequence, Work::Read(rows)));
            }
        }
        let owners: Vec<u64> = ready.iter().map(|(id, _, _)| *id).chain(chunks).collect();
        let any = !batch.is_empty() || !probed.is_empty();
        if !batch.is_empty() {
            self.run(&owners, &batch, ready);
        }
        for (id, sequence, rows) in probed {
            self.run(&[id], &[(sequence, Work::Read(rows))], &[]);
        }
        any
    }

    /// Runs a batch and hands out what it gave. Where the batch as a whole fails, as for want of device memory, each entry
    /// is tried by itself, and those that fail alone end. A panic ends all of them: what they hold may be half changed.
    fn run(
        &mut self,
        owners: &[u64],
        batch: &[(SequenceId, Work)],
        ready: &[(u64, SequenceId, Rows)],
    ) {
        let rows: usize = batch
            .iter()
            .map(|(_, work)| match work {
                Work::Read(rows) => *rows,
                Work::Extend(tokens) | Work::Append(tokens) => tokens.len(),
            })
            .sum();
        self.shared.passes.fetch_add(1, Ordering::Relaxed);
        self.shared.rows.fetch_add(rows as u64, Ordering::Relaxed);
        let done = self.guarded(|engine| engine.runner.run(batch));
        let done = match done {
            Ok(logits) => self.guarded(|engine| {
                engine.hand_out(owners, ready, &logits);
                Ok(())
            }),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {}
            Err(error @ EngineError::Panicked(_)) => self.fail_all(owners, error),
            Err(error) => match owners {
                [alone] => self.fail(*alone, error),
                _ => {
                    for (index, (id, entry)) in owners.iter().zip(batch).enumerate() {
                        let entry = std::slice::from_ref(entry);
                        let ready = ready.get(index).map(std::slice::from_ref);
                        self.run(&[*id], entry, ready.unwrap_or_default());
                    }
                }
            },
        }
    }

    /// Gives every owner the logits of its entry and takes back what it read in vain.
    fn hand_out(&mut self, owners: &[u64], ready: &[(u64, SequenceId, Rows)], logits: &Logits) {
        let width = self.runner.model().config().text.vocab_size;
        let places: BTreeMap<u64, usize> = owners.iter().copied().zip(0..).collect();
        let mut shares: Vec<Share> = self
            .clients
            .iter_mut()
            .filter_map(|(id, client)| {
                let place = *places.get(id)?;
                Some(Share {
                    id: *id,
                    client,
                    rows: ready.get(place).map(|(_, _, rows)| rows),
                    logits: logits.of(place),
                    forget: untreated(),
                })
            })
            .collect();
        let threads = tch::get_num_threads().max(1) as usize;
        hand_out(&mut shares, width, threads);
        let taken: Vec<_> = shares
            .into_iter()
            .map(|share| (share.id, share.client.sequence, share.forget))
            .collect();
        for (id, sequence, forget) in taken {
            let done = forget.and_then(|forget| match forget {
                0 => Ok(()),
                _ => self.runner.roll_back(sequence, forget),
            });
            if let Err(error) = done {
                self.fail(id, error);
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

#[cfg(test)]
mod tests;
