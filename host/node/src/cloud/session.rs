//! One session: the cloud's state machine, driven.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};

use msao_core::digest::Digest;
use msao_core::sampling::Sampler;
use msao_engine::service::{Open as OpenSeat, ServiceError, Tell, Verdict};
use msao_engine::{EngineError, OpenOptions};
use msao_session::cloud::{Choice, Cloud, Config, Effect, Event};
use msao_session::depth::Acceptance;
use msao_session::frame::{Frame, Open, Refused, RefusedCode, Wanted};
use prometheus_client::metrics::histogram::Histogram;

use super::Sessions;
use super::account::{Account, Beside};
use super::attached::Attached;
use super::pair::{Pair, Rounds};
use super::words::Teller;
use crate::answer::Channel;
use crate::metrics::Work;
use crate::models::{Done, Model, Opening, Order, Orders};
use crate::request::{Cargo, Given, Laid, lay_out};

/// Drafts that one pass verifies for a session at most.
const MOST_DRAFTS: usize = 64;

/// Orders that may wait for the target beside those that an edge which commits its own drafts gives it cause for.
const MORE_ORDERS: usize = 1024;

/// What a session holds.
struct Served {
    sessions: Arc<Sessions>,
    cloud: Cloud,
    seat: Orders,
    channel: Option<Channel>,
    /// The orders under way, by stamp: where in the answer, and with how many drafts.
    orders: HashMap<u64, (u32, usize)>,
    /// Of the prompt, those that are read.
    prompt_tokens: u32,
    /// Whether the target works for it and it is counted among those.
    busy: bool,
    /// Any work of the target's is wanted, drafts or not.
    decodes: bool,
    passes: Passes,
    /// Of this answer's drafts.
    acceptance: Acceptance,
    /// Tells the edge what ids say, where it has another tokenizer.
    words: Option<Teller>,
    /// Tells the edge what it costs, where it wants to know.
    account: Option<Account>,
    /// The seat is of both models: it makes drafts of its own, and says here what they took.
    rounds: Option<Rounds>,
}

/// Where the times of its passes go.
struct Passes {
    verify: Histogram,
    decode: Histogram,
}

impl Sessions {
    /// Runs a session from its OPEN to its end.
    pub(super) async fn run(
        self: Arc<Self>,
        open: Open,
        mut channel: Channel,
        attached: Attached,
        known: Option<Arc<Cargo>>,
    ) {
        let read = match self.read(&open, known).await {
            Ok(read) => read,
            Err((code, message)) => {
                let mut message = message;
                message.truncate(message.floor_char_boundary(250));
                channel.send(Frame::Refused(Refused {
                    session: open.session,
                    code,
                    retry_after_ms: 0.0,
                    message,
                }));
                return;
            }
        };
        let config = Config {
            lease_ms: self.limits.lease_ms,
            batch_max: MOST_DRAFTS,
            ..Config::default()
        };
        let (beside, rounds) = (Beside::default(), Rounds::default());
        let seat = self.seat(&open, &read, &beside, &rounds);
        let account = open.cost.then(|| Account::new(beside));
        let decodes = open.wanted != Wanted::Verify;
        let both = open.wanted == Wanted::DecodeWithDraft && self.models_are_alike();
        // Each place of the answer is committed once: then the target takes back what it had, appends the place, and goes on.
        let most_waiting = 4 * open.max_tokens as usize + MORE_ORDERS;
        let foreign = open
            .tokenizer
            .is_some_and(|it| it != self.target.identity.tokenizer);
        let words = foreign.then(|| Teller::new(&self.target.processor));
        let (cloud, effects) = Cloud::open(open, config, self.clock.now_ms());
        let mut busy = self.busy.subscribe();
        // What is so already is news to this session.
        busy.mark_changed();
        let mut served = Served {
            cloud,
            seat: Orders::new(seat, true),
            channel: Some(channel),
            orders: HashMap::new(),
            prompt_tokens: read.tokens(),
            busy: false,
            decodes,
            acceptance: Acceptance::default(),
            words,
            account,
            rounds: both.then_some(rounds),
            passes: Passes {
                verify: self.metrics.passes(Work::Verify),
                decode: self.metrics.passes(Work::Decode),
            },
            sessions: Arc::clone(&self),
        };
        let mut effects = VecDeque::from(effects);
        loop {
            while let Some(effect) = effects.pop_front() {
                if let Effect::Free = effect {
                    let counters = served.cloud.counters();
                    tracing::info!(
                        tokens = served.cloud.chosen().len(),
                        passes = counters.passes,
                        drafts = counters.drafts,
                        accepted = counters.accepted,
                        "served"
                    );
                    return;
                }
                served.apply(effect);
            }
            if served.seat.waiting() > most_waiting {
                let overrun = Event::Failed {
                    code: RefusedCode::Protocol,
                    retry_after_ms: 0.0,
                    message: "what was committed is changed again and again".to_owned(),
                };
                effects.extend(served.cloud.advance(self.clock.now_ms(), overrun));
                continue;
            }
            let due_ms = served.cloud.due_ms();
            let event = tokio::select! {
                biased;
                frame = receive(&mut served.channel) => match served.heard(frame) {
                    Some(event) => event,
                    None => continue,
                },
                attach = attached.next() => {
                    served.channel = Some(attach.channel);
                    // What was told last may not have come through.
                    if let Some(words) = &mut served.words {
                        words.begin_anew();
                    }
                    if let Some(account) = &mut served.account {
                        account.begin_anew();
                    }
                    served.decodes = attach.open.wanted != Wanted::Verify;
                    Event::Reopened(attach.open)
                }
                done = served.seat.done() => served.done(done),
                Ok(()) = busy.changed() => {
                    let others = busy.borrow_and_update().saturating_sub(usize::from(served.busy));
                    Event::Spare(others == 0)
                }
                () = self.clock.until(due_ms) => Event::Tick,
            };
            effects.extend(served.cloud.advance(self.clock.now_ms(), event));
        }
    }

    /// What the target reads: laid out before by a model that does it alike, or here.
    async fn read(
        &self,
        open: &Open,
        known: Option<Arc<Cargo>>,
    ) -> Result<Laid, (RefusedCode, String)> {
        let own = &self.target.identity;
        let wanted = &open.prompt.media;
        let refused = |why| (RefusedCode::Request, why);
        if let Some(prompt) = known.as_ref().map(|known| known.prompt())
            && prompt.identity.tokenizer == own.tokenizer
            && prompt.identity.processor == own.processor
            && wanted.iter().all(|medium| medium.made.is_none())
        {
            let media = prompt.media.iter().map(|medium| Some(medium.tokens));
            let media: Vec<Option<u32>> = media.collect();
            return Laid::new(Arc::clone(&prompt.inputs), &media, wanted).map_err(refused);
        }
        let held = |digest: &Digest| known.as_ref().and_then(|known| known.bytes(digest));
        let mut given = Vec::with_capacity(wanted.len());
        for medium in wanted {
            let needed = medium.is_uploaded();
            let bytes = needed
                .then(|| held(&medium.digest).or_else(|| (self.media)(&medium.digest)))
                .flatten();
            if needed && bytes.is_none() {
                let why = format!("medium {} is not here", medium.digest.short());
                return Err((RefusedCode::MediaMissing, why));
            }
            let medium = medium.clone();
            given.push(Given { medium, bytes });
        }
        let failed = || {
            let why = "the prompt could not be laid out";
            (RefusedCode::Failed, why.to_owned())
        };
        // Text alone waits for nobody's media.
        let decoder = match given.iter().any(|one| one.bytes.is_some()) {
            true => Some(Arc::clone(&self.limits.decoders).acquire_owned().await),
            false => None,
        };
        let decoder = decoder.transpose().map_err(|_| failed())?;
        let processor = Arc::clone(&self.target.processor);
        let (messages, limits) = (open.prompt.messages.clone(), self.limits.media.clone());
        let laid_out = tokio::task::spawn_blocking(move || {
            let _decoder = decoder;
            lay_out(&processor, &messages, &given, &limits)
        });
        match laid_out.await {
            Ok(laid) => laid.map_err(refused),
            Err(_) => Err(failed()),
        }
    }

    fn models_are_alike(&self) -> bool {
        let own = self.target.identity.tokenizer;
        (self.draft.as_ref()).is_some_and(|draft| draft.identity.tokenizer == own)
    }

    fn seat(&self, open: &Open, read: &Laid, beside: &Beside, rounds: &Rounds) -> Opening {
        let on = |model: &Model, top_logprobs| seat_on(model, open, read, top_logprobs);
        let target = on(&self.target, open.top_logprobs);
        match (open.wanted, &self.draft) {
            (Wanted::DecodeWithDraft, Some(draft)) if self.models_are_alike() => {
                let (draft, reserve) = (on(draft, None), open.max_tokens as usize);
                let (beside, rounds) = (Arc::clone(beside), Arc::clone(rounds));
                Box::pin(async move {
                    let (target, draft) = tokio::try_join!(target, draft)?;
                    Ok(Box::new(Pair::new(target, draft, reserve, beside, rounds)) as _)
                })
            }
            _ => target,
        }
    }
}

/// A seat for a session on one model. A session names one keep list a medium, so that a draft model beside the target reads
/// what the target reads.
fn seat_on(model: &Model, open: &Open, read: &Laid, top_logprobs: Option<u32>) -> Opening {
    let (engine, inputs) = (Arc::clone(&model.engine), Arc::clone(&read.inputs));
    let options = OpenOptions {
        keep: read.kept.pruning(read.media.len()),
        probe: None,
    };
    let (waits, tokens) = (Arc::clone(&model.waits), read.tokens());
    let (params, reserve) = (open.sampling.clone(), open.max_tokens as usize);
    let (vocabulary, end_of_sequence) = (model.vocabulary(), model.ends().to_vec());
    Box::pin(async move {
        let sampler = Sampler::new(params, vocabulary, &inputs.input_ids)
            .map_err(|error| EngineError::Request(error.to_string()))?;
        let open = OpenSeat {
            inputs,
            sampler,
            reserve,
            options,
            end_of_sequence,
            tell: Tell {
                top_logprobs,
                confidence: false,
            },
        };
        let _waits = waits.begin(tokens);
        engine.open(open).await
    })
}

impl Served {
    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Verify {
                stamp,
                position,
                drafts,
            } => {
                // What is decoded because nobody else wants the target is no work that others wait for.
                self.set_busy(self.decodes || !drafts.is_empty());
                self.orders.insert(stamp, (position, drafts.len()));
                self.seat.give(Order::Verify { stamp, drafts });
            }
            Effect::RollBack { to } => self.seat.give(Order::RollBack(to)),
            Effect::Append { ids } => self.seat.give(Order::Append(ids)),
            Effect::Send(frame) => {
                if let Some(channel) = &mut self.channel {
                    if let Frame::Verdict(verdict) = &frame {
                        let words = self.words.iter_mut().flat_map(|words| words.tell(verdict));
                        let cost = self.account.as_mut().and_then(|it| it.tell(verdict));
                        for ahead in words.map(Frame::Words).chain(cost.map(Frame::Cost)) {
                            channel.send(ahead);
                        }
                    }
                    channel.send(frame);
                }
            }
            // The loop's.
            Effect::Free => {}
        }
    }

    fn heard(&mut self, frame: Option<Frame>) -> Option<Event> {
        match frame {
            Some(Frame::Draft(draft)) => {
                self.decodes |= draft.last;
                Some(Event::Draft(draft))
            }
            Some(Frame::Open(open)) => {
                self.decodes = open.wanted != Wanted::Verify;
                Some(Event::Reopened(open))
            }
            Some(Frame::Cancel(_) | Frame::Close(_)) => Some(Event::Done),
            // Of no meaning here, or of a later version.
            Some(_) => None,
            None => {
                self.channel = None;
                Some(Event::Lost)
            }
        }
    }

    fn done(&mut self, done: Done) -> Event {
        match done {
            Done::Ready { waited_ms, took_ms } => {
                let now_ms = self.sessions.clock.now_ms();
                let mut speeds = self.sessions.speeds();
                speeds.began(now_ms, waited_ms);
                self.sessions.metrics.waited("target", waited_ms);
                speeds.prefilled(self.prompt_tokens, took_ms);
                Event::Ready
            }
            Done::Verified {
                stamp,
                verdict,
                took_ms,
            } => {
                self.set_busy(false);
                if let Some(account) = &mut self.account {
                    account.charge(verdict.spent);
                }
                match self.orders.remove(&stamp) {
                    // The prompt's own logits chose it: that was no pass.
                    Some((0, 0)) | None => {}
                    Some((_, drafts)) => self.learn(drafts as u32, &verdict, took_ms),
                }
                Event::Verified {
                    stamp,
                    ended: verdict.ended,
                    choices: choices(verdict),
                }
            }
            Done::Failed(error) => {
                self.set_busy(false);
                let (code, retry_after_ms) = match &error {
                    error if error.is_want_of_room() => {
                        (RefusedCode::Overloaded, self.sessions.retry_after_ms())
                    }
                    ServiceError::TooLarge { .. }
                    | ServiceError::Engine(EngineError::Request(_) | EngineError::TooLong { .. })
                    | ServiceError::Over(EngineError::Request(_)) => (RefusedCode::Request, 0.0),
                    _ => (RefusedCode::Failed, 0.0),
                };
                Event::Failed {
                    code,
                    retry_after_ms,
                    message: error.to_string(),
                }
            }
        }
    }

    fn learn(&mut self, drafts: u32, verdict: &Verdict, took_ms: f64) {
        if self.rounds.is_none() {
            let mut times = self.sessions.times();
            times.saw(drafts as usize, took_ms);
            self.acceptance.saw(drafts as usize, verdict.accepted);
            let best = self.acceptance.best(&times, 0.0, MOST_DRAFTS);
            self.cloud.limit_batch(best);
        }
        let passes = &self.passes;
        let work = if drafts > 0 {
            &passes.verify
        } else {
            &passes.decode
        };
        work.observe(took_ms / 1000.0);
        let took = |rounds: &Rounds| rounds.lock().unwrap_or_else(PoisonError::into_inner).take();
        let round = self.rounds.as_ref().and_then(took);
        let accepted = verdict.accepted as u32;
        let mut speeds = self.sessions.speeds();
        match round {
            // Both models made it: each is as fast as it was by itself.
            Some(round) if round.drafted > 0 => {
                speeds.drafted(round.drafted, round.draft_ms);
                speeds.verified(round.drafted, accepted, round.verify_ms);
            }
            Some(round) => speeds.decoded(verdict.picks.len() as u32, round.verify_ms),
            None if drafts > 0 => speeds.verified(drafts, accepted, took_ms),
            None => speeds.decoded(verdict.picks.len() as u32, took_ms),
        }
    }

    fn set_busy(&mut self, busy: bool) {
        if std::mem::replace(&mut self.busy, busy) != busy {
            self.sessions.busy.send_modify(|count| {
                *count = if busy {
                    *count + 1
                } else {
                    count.saturating_sub(1)
                };
            });
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.set_busy(false);
    }
}

/// The target's choices without the id that ends the sequence.
fn choices(verdict: Verdict) -> Vec<Choice> {
    let count = verdict.picks.len() - usize::from(verdict.ended && !verdict.picks.is_empty());
    let mut logprobs = verdict.logprobs.into_iter();
    let picks = verdict.picks.into_iter().take(count);
    picks
        .map(|pick| Choice {
            id: pick.id,
            logprobs: logprobs.next(),
        })
        .collect()
}

async fn receive(channel: &mut Option<Channel>) -> Option<Frame> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}
