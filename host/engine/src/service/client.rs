//! One session as the thread sees it: its sampler, what it has yet to read, and the orders that wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use msao_core::meter::{Meter, Spent};
use msao_core::probe::ProbeReport;
use msao_core::sampling::{Pick, Sampler, Scratch};
use tokio::sync::{mpsc, oneshot};

use super::{Event, MediaBytes, ServiceError, Tell, Ticket, Verdict};
use crate::error::{EngineError, Result};
use crate::generate::{Step, Stop};
use crate::keep::Keep;
use crate::runner::SequenceId;

/// Events that an answer's channel can hold at all.
const MOST_UNREAD: usize = tokio::sync::Semaphore::MAX_PERMITS;

pub(crate) type Reply<T> = oneshot::Sender<Result<T, ServiceError>>;

/// What a session is asked to do.
pub(crate) enum Order {
    Probed(Reply<ProbeReport>),
    Keep(Keep, Reply<()>),
    Read(Reply<()>),
    Generate {
        most: usize,
        events: mpsc::Sender<Event>,
        /// The place of a failure among the events, which is told however far behind the reader is.
        failure: mpsc::OwnedPermit<Event>,
    },
    Verify {
        drafts: Vec<u32>,
        reply: Reply<Verdict>,
    },
    Append {
        tokens: Vec<u32>,
        reply: Reply<()>,
    },
    RollBack {
        tokens: usize,
        reply: Reply<()>,
    },
    Fork {
        sampler: Box<Sampler>,
        reply: Reply<Ticket>,
    },
    Output(Reply<Vec<u32>>),
    Meter(Reply<Meter>),
}

impl Order {
    /// To generate up to `most` tokens, of which `unread` may wait for their reader.
    pub fn generate(most: usize, unread: usize) -> Result<(Order, mpsc::Receiver<Event>)> {
        let (events, receiver) = mpsc::channel(unread.saturating_add(1).min(MOST_UNREAD));
        let failure = events
            .clone()
            .try_reserve_owned()
            .map_err(|_| EngineError::request("an answer's channel has no place"))?;
        let order = Order::Generate {
            most,
            events,
            failure,
        };
        Ok((order, receiver))
    }

    /// Tells whoever waits for this order that it will not be done.
    pub fn refuse(self, why: impl FnOnce() -> ServiceError) {
        // Nobody waits any more where sending fails.
        match self {
            Order::Probed(reply) => drop(reply.send(Err(why()))),
            Order::Keep(_, reply) | Order::Read(reply) => drop(reply.send(Err(why()))),
            Order::Append { reply, .. } | Order::RollBack { reply, .. } => {
                drop(reply.send(Err(why())));
            }
            Order::Generate { failure, .. } => drop(failure.send(Event::Failed(why()))),
            Order::Verify { reply, .. } => drop(reply.send(Err(why()))),
            Order::Fork { reply, .. } => drop(reply.send(Err(why()))),
            Order::Output(reply) => drop(reply.send(Err(why()))),
            Order::Meter(reply) => drop(reply.send(Err(why()))),
        }
    }
}

/// Rows that a session wants in the next pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    /// Tokens of which only the logits after the last are needed.
    Append(Vec<u32>),
    /// Tokens of which all logits are needed.
    Extend(Vec<u32>),
}

/// See the module.
pub(crate) struct Client {
    pub sequence: SequenceId,
    pub gone: Arc<AtomicBool>,
    pub orders: VecDeque<Order>,
    pub sampler: Sampler,
    end_of_sequence: Vec<u32>,
    tell: Tell,
    /// Logits after the last token read, while no choice has been made by them.
    last: Option<Arc<[f32]>>,
    /// Logits after the prompt, to which the answer can be taken back.
    after_prompt: Option<Arc<[f32]>>,
    /// Tokens of the answer that the model has not read yet.
    pending: Vec<u32>,
    /// Tokens chosen by the order that is under way.
    chosen: usize,
    /// Most tokens of the answer.
    reserve: usize,
    /// What it has cost, as verdicts tell it: set ahead of each.
    pub spent: Spent,
    /// When it was last given a verdict, as long as it has ordered nothing since.
    pub served: Option<Instant>,
    /// Its media's share of what may wait, until they have been encoded.
    pub media: Option<MediaBytes>,
    /// Whether what is done for it piece by piece was begun anew for want of device memory.
    pub begun_anew: bool,
    /// Whether it ordered again so soon after its last verdict that the next pass may wait for it.
    pub quick: bool,
}

impl Client {
    pub fn new(
        sequence: SequenceId,
        sampler: Sampler,
        end_of_sequence: Vec<u32>,
        tell: Tell,
        reserve: usize,
    ) -> (Self, Arc<AtomicBool>) {
        let gone = Arc::new(AtomicBool::new(false));
        let client = Client {
            sequence,
            gone: Arc::clone(&gone),
            orders: VecDeque::new(),
            sampler,
            end_of_sequence,
            tell,
            last: None,
            after_prompt: None,
            pending: Vec::new(),
            chosen: 0,
            reserve,
            spent: Spent::default(),
            served: None,
            media: None,
            begun_anew: false,
            quick: false,
        };
        (client, gone)
    }

    /// The same answer so far, on a forked sequence.
    pub fn fork(&self, sequence: SequenceId, sampler: Sampler) -> (Self, Arc<AtomicBool>) {
        let ends = self.end_of_sequence.clone();
        let (mut client, gone) = Client::new(sequence, sampler, ends, self.tell, self.reserve);
        client.last = self.last.clone();
        client.after_prompt = self.after_prompt.clone();
        client.pending = self.pending.clone();
        (client, gone)
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Whether the order at the front is for a verdict.
    pub fn wants_verdict(&self) -> bool {
        matches!(self.orders.front(), Some(Order::Verify { .. }))
    }

    /// Whether the order at the front is for what the probe saw, and somebody still waits for it.
    pub fn waits_for_report(&self) -> bool {
        matches!(self.orders.front(), Some(Order::Probed(reply)) if !reply.is_closed())
    }

    /// The prompt has been read: `logits` follow it.
    pub fn has_read_prompt(&mut self, logits: &[f32]) {
        let logits: Arc<[f32]> = logits.into();
        self.after_prompt = Some(Arc::clone(&logits));
        self.last = Some(logits);
    }

    /// Tokens for which there is still room in the answer.
    pub fn room(&self) -> usize {
        self.reserve.saturating_sub(self.sampler.output().len())
    }

    /// Tokens that its sequence may still come to read: those for which there is room, and those of the answer that the
    /// model has not read yet.
    pub fn unread(&self) -> usize {
        self.room() + self.pending.len()
    }

    /// Why so many tokens cannot follow, if they cannot.
    pub fn too_many(&self, tokens: usize) -> Option<EngineError> {
        (tokens > self.room()).then(|| {
            EngineError::request(format!(
                "{tokens} tokens do not fit: of the {} that room was set aside for (reserve), {} are left",
                self.reserve,
                self.room()
            ))
        })
    }

    /// Why so many drafts cannot be verified, if they cannot: the choice behind them becomes part of the answer as well.
    fn too_many_drafts(&self, drafts: usize) -> Option<EngineError> {
        (drafts >= self.room()).then(|| {
            EngineError::request(format!(
                "{drafts} drafts and the choice behind them do not fit: of the {} tokens that room was set aside for \
                 (reserve), {} are left",
                self.reserve,
                self.room()
            ))
        })
    }

    /// Refuses the draft at the front if there is no room for it and the choice behind it. True if so.
    fn refuse_long_draft(&mut self) -> bool {
        let Some(Order::Verify { drafts, .. }) = self.orders.front() else {
            return false;
        };
        let Some(error) = self.too_many_drafts(drafts.len()) else {
            return false;
        };
        if let Some(Order::Verify { reply, .. }) = self.orders.pop_front() {
            let _gone = reply.send(Err(error.into()));
        }
        true
    }

    /// Makes tokens part of the answer.
    pub fn append(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.sampler.commit(token);
        }
        if !tokens.is_empty() {
            self.last = None;
            self.pending.extend_from_slice(tokens);
        }
    }

    /// Takes the answer back to `tokens` tokens. Returns how many the sequence must forget.
    pub fn roll_back(&mut self, tokens: usize) -> Result<usize> {
        let had = self.sampler.output().len();
        let in_cache = had - self.pending.len();
        self.sampler.rollback_to(tokens)?;
        if tokens == had {
            return Ok(0);
        }
        // The logits that follow are those of the last token that stays, which is read again.
        self.last = None;
        self.pending.clear();
        match tokens.checked_sub(1) {
            None => {
                self.last = self.after_prompt.clone();
                Ok(in_cache)
            }
            Some(before) => {
                let stays = before.min(in_cache);
                let output = self.sampler.output();
                self.pending = output.get(stays..).unwrap_or_default().to_vec();
                Ok(in_cache - stays)
            }
        }
    }

    /// What the order at the front wants read in the next pass, at most `most` rows; nothing if it can go on without or
    /// its reader is behind.
    pub fn rows(&self, most: usize) -> Option<Rows> {
        let capped = |tokens: &[u32]| {
            let capped = tokens.get(..most.min(tokens.len())).unwrap_or_default();
            Rows::Append(capped.to_vec())
        };
        match self.orders.front()? {
            Order::Generate { events, .. } if self.last.is_none() => {
                (events.capacity() > 0 || events.is_closed()).then(|| capped(&self.pending))
            }
            Order::Verify { drafts, .. } => {
                if self.pending.len() + drafts.len() > most && self.pending.len() > 1 {
                    // Too long for one pass: what is not drafted goes first.
                    let most = most.min(self.pending.len() - 1);
                    let first = self.pending.get(..most).unwrap_or_default();
                    return Some(Rows::Append(first.to_vec()));
                }
                let mut tokens = self.pending.clone();
                tokens.extend_from_slice(drafts);
                (!tokens.is_empty()).then_some(Rows::Extend(tokens))
            }
            _ => None,
        }
    }

    /// Whether a reader that is behind holds the order at the front up.
    pub fn held_up(&self) -> bool {
        match self.orders.front() {
            Some(Order::Generate { events, .. }) => events.capacity() == 0 && !events.is_closed(),
            _ => false,
        }
    }

    /// Takes in what a pass gave for [`Client::rows`]: `logits` of `width` values a row. Returns how many of the tokens
    /// read the sequence must forget.
    pub fn take(
        &mut self,
        rows: &Rows,
        logits: &[f32],
        width: usize,
        scratch: &mut Scratch,
    ) -> Result<usize> {
        match rows {
            Rows::Append(tokens) => {
                self.pending.drain(..tokens.len().min(self.pending.len()));
                if self.pending.is_empty() && !self.choose_by(logits, scratch)? {
                    self.last = Some(logits.into());
                }
                Ok(0)
            }
            Rows::Extend(_) => self.judge(logits, width, scratch),
        }
    }

    /// Holds the drafts of the order at the front against the model's choices.
    fn judge(&mut self, logits: &[f32], width: usize, scratch: &mut Scratch) -> Result<usize> {
        let Some(Order::Verify { drafts, reply }) = self.orders.pop_front() else {
            return Err(EngineError::request("no draft waits for a verdict"));
        };
        // The rows that choices are made by: after all that was committed, then after each draft.
        let own: Option<Arc<[f32]>> = self.last.take();
        let skip = self.pending.len().saturating_sub(1);
        let read = logits.chunks_exact(width.max(1)).skip(skip);
        let mut rows = own.as_deref().into_iter().chain(read);
        self.pending.clear();
        let mut verdict = Verdict {
            accepted: 0,
            picks: Vec::new(),
            logprobs: Vec::new(),
            confidence: Vec::new(),
            ended: false,
            spent: self.spent,
        };
        loop {
            let pick = match rows.next() {
                Some(row) => self
                    .choose_and_tell(row, scratch, &mut verdict)
                    .map(|pick| (row, pick)),
                None => Err(EngineError::request(
                    "a pass gave fewer logits than there were drafts",
                )),
            };
            let (row, pick) = match pick {
                Ok(pick) => pick,
                Err(error) => {
                    // Whoever waits for the verdict is told why there is none.
                    let _gone = reply.send(Err(error.again().into()));
                    return Err(error);
                }
            };
            if self.end_of_sequence.contains(&pick.id) {
                verdict.ended = true;
                // Read again if somebody goes on all the same.
                self.last = Some(row.into());
                break;
            }
            self.sampler.commit(pick.id);
            if drafts.get(verdict.accepted) == Some(&pick.id) {
                verdict.accepted += 1;
            } else {
                self.pending.push(pick.id);
                break;
            }
        }
        let forget = drafts.len() - verdict.accepted;
        let _gone = reply.send(Ok(verdict));
        Ok(forget)
    }

    /// Adds a choice to the verdict, with what is told of it.
    fn choose_and_tell(
        &self,
        logits: &[f32],
        scratch: &mut Scratch,
        verdict: &mut Verdict,
    ) -> Result<Pick> {
        let pick = self.pick(logits, scratch)?;
        if let Some(count) = self.tell.top_logprobs {
            let told = self.sampler.top_logprobs(logits, pick.id, count)?;
            verdict.logprobs.push(told);
        }
        if self.tell.confidence {
            verdict.confidence.push(self.sampler.confidence(logits)?);
        }
        verdict.picks.push(pick);
        Ok(pick)
    }

    fn pick(&self, logits: &[f32], scratch: &mut Scratch) -> Result<Pick> {
        let index = self.sampler.output().len() as u32;
        Ok(self.sampler.pick(logits, index, None, scratch)?)
    }

    /// Goes on with the order at the front as far as it can without a pass. True if it is done: the next may be looked
    /// at.
    pub fn choose(&mut self, scratch: &mut Scratch) -> Result<bool> {
        if self.refuse_long_draft() {
            return Ok(true);
        }
        if let (Some(Order::Verify { drafts, .. }), Some(last)) = (self.orders.front(), &self.last)
        {
            // A choice that stands already may settle the verdict with nothing read.
            if drafts.first() == Some(&self.pick(last, scratch)?.id) {
                return Ok(false);
            }
            self.judge(&[], 1, scratch)?;
            return Ok(true);
        }
        let Some(Order::Generate { most, events, .. }) = self.orders.front() else {
            return Ok(false);
        };
        let (most, events) = (*most, events.clone());
        if self.drop_if_closed(&events) {
            return Ok(true);
        }
        if self.chosen >= most || self.room() == 0 {
            // An end always has its place: it is waited for like a token.
            let Ok(place) = events.try_reserve() else {
                return Ok(self.drop_if_closed(&events));
            };
            place.send(Event::End(Stop::Length));
            self.end_order();
            return Ok(true);
        }
        let Some(logits) = self.last.take() else {
            return Ok(false);
        };
        if !self.choose_by(&logits, scratch)? {
            self.last = Some(logits);
        }
        Ok(self.chosen >= most
            || self.room() == 0
            || !matches!(self.orders.front(), Some(Order::Generate { .. })))
    }

    /// Chooses the next token by logits if an answer is being generated and its reader has room. False if nothing has
    /// become of the logits.
    fn choose_by(&mut self, logits: &[f32], scratch: &mut Scratch) -> Result<bool> {
        let Some(Order::Generate { most, events, .. }) = self.orders.front() else {
            return Ok(false);
        };
        if self.chosen >= *most || self.room() == 0 {
            return Ok(false);
        }
        let events = events.clone();
        let Ok(place) = events.try_reserve() else {
            self.drop_if_closed(&events);
            return Ok(false);
        };
        let pick = self.pick(logits, scratch)?;
        if self.end_of_sequence.contains(&pick.id) {
            place.send(Event::End(Stop::EndOfSequence));
            self.end_order();
            return Ok(false);
        }
        let index = self.sampler.output().len() as u32;
        let logprobs = match self.tell.top_logprobs {
            Some(count) => {
                let told = self.sampler.top_logprobs(logits, pick.id, count)?;
                Some((told.chosen, told.top))
            }
            None => None,
        };
        self.append(&[pick.id]);
        self.chosen += 1;
        place.send(Event::Token(Step {
            index,
            pick,
            logprobs,
        }));
        Ok(true)
    }

    /// Ends an order that nobody reads any more; true if so.
    fn drop_if_closed(&mut self, events: &mpsc::Sender<Event>) -> bool {
        if events.is_closed() {
            self.end_order();
        }
        events.is_closed()
    }

    fn end_order(&mut self) {
        self.orders.pop_front();
        self.chosen = 0;
    }

    /// Tells everyone who waits why the session is over.
    pub fn fail(&mut self, error: &EngineError) {
        for order in self.orders.drain(..) {
            order.refuse(|| error.again().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::discriminant;

    use msao_core::sampling::SamplingParams;

    use super::*;

    /// Reads what one who waits was told.
    type Told = Box<dyn FnOnce() -> ServiceError>;

    fn asked<T: 'static>(order: impl FnOnce(Reply<T>) -> Order) -> (Order, Told) {
        let (reply, mut answer) = oneshot::channel();
        let told = move || match answer.try_recv() {
            Ok(Err(error)) => error,
            Ok(Ok(_)) => panic!("it was done"),
            Err(error) => panic!("nothing was told: {error}"),
        };
        (order(reply), Box::new(told))
    }

    /// An order to generate, whose reader has not read what fills its channel.
    fn unread() -> (Order, Told) {
        let (order, mut receiver) = Order::generate(9, 1).unwrap();
        if let Order::Generate { events, .. } = &order {
            events.try_send(Event::End(Stop::Length)).unwrap();
            assert!(events.try_reserve().is_err());
        }
        let told = move || {
            assert!(matches!(receiver.try_recv(), Ok(Event::End(_))));
            match receiver.try_recv() {
                Ok(Event::Failed(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        (order, Box::new(told))
    }

    fn sampler() -> Sampler {
        Sampler::new(SamplingParams::default(), 16, &[]).unwrap()
    }

    /// One order of every kind.
    fn all() -> Vec<(Order, Told)> {
        vec![
            asked(Order::Probed),
            asked(|reply| Order::Keep(Keep::default(), reply)),
            asked(Order::Read),
            unread(),
            asked(|reply| Order::Verify {
                drafts: vec![1],
                reply,
            }),
            asked(|reply| Order::Append {
                tokens: vec![1],
                reply,
            }),
            asked(|reply| Order::RollBack { tokens: 0, reply }),
            asked(|reply| Order::Fork {
                sampler: Box::new(sampler()),
                reply,
            }),
            asked(Order::Output),
            asked(Order::Meter),
        ]
    }

    #[test]
    fn whoever_waits_is_told_the_error_itself() {
        let said = || "on purpose".to_owned();
        for error in [
            EngineError::DeviceFull { said: said() },
            EngineError::Panicked(said()),
            EngineError::Device(said()),
        ] {
            // Each kind of order waits first once, and behind all others.
            for first in 0..all().len() {
                let mut orders = all();
                orders.rotate_left(first);
                let (mut client, _gone) =
                    Client::new(SequenceId::FIRST, sampler(), Vec::new(), Tell::default(), 8);
                let mut waiting = Vec::new();
                for (order, told) in orders {
                    client.orders.push_back(order);
                    waiting.push(told);
                }
                client.fail(&error);
                for told in waiting {
                    match told() {
                        ServiceError::Engine(told) => {
                            assert_eq!(discriminant(&told), discriminant(&error), "{told}");
                            assert_eq!(told.to_string(), error.to_string());
                        }
                        other => panic!("{other}"),
                    }
                }
            }
        }
    }
}
