//! The loop around the machine.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use msao_api::{FinishReason, Piece};
use msao_core::meter::Spent;
use msao_core::offload::{Action, StepInput, overrides};
use msao_core::sampling::TopLogprobs;
use msao_engine::service::{ServiceError, Verdict};
use msao_processor::Processor;
use msao_registry::Ticket;
use msao_session::edge::{
    Committed, Config, Counters, Drafted, Edge, Effect, Ending, Event, Start,
};
use msao_session::frame::{Finish, Frame, Refused, RefusedCode};
use prometheus_client::metrics::histogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::bill::{Bill, Charges};
use super::channel::Channel;
use super::passes::Passes;
use super::replay::{Replay, confidence};
use super::target::{Elsewhere, Finding, Found, NoWay, Traffic, Way};
use super::text::Writer;
use crate::adapt::Judge;
use crate::clock::Clock;
use crate::models::{Done, Opening, Order, Orders};
use crate::peers::Ahead;
use crate::request::Cargo;

/// The request's policy, as its answers ask it.
pub type Steps = Arc<Mutex<Option<Ticket>>>;

/// A model that is asked what an answer has cost says so within.
const COUNTED_WITHIN: Duration = Duration::from_millis(200);

/// After a way was lost, the next is tried after so long.
const RETRY: Duration = Duration::from_millis(50);

/// One answer to be given.
pub struct Job {
    /// Which of the request's answers, from 0 on.
    pub choice: u32,
    /// What the machine is run with.
    pub config: Config,
    /// The way on which a session was opened before, where the machine is told so ([`Config::opened`]), or the way to say OPEN
    /// on.
    pub opened: Option<Result<Channel, Finding>>,
    /// Takes the draft model's seat; `None`: there is no draft model.
    pub draft: Option<Opening>,
    /// How long that seat has been looking at the prompt before, in ms.
    pub looked_ms: f64,
    /// Where the target is; `None`: nowhere.
    pub way: Option<Way>,
    /// Where it is too, for when that one is gone.
    pub elsewhere: Elsewhere,
    /// What it counts as where the policy escalates and there is no target: a bit of
    /// [`msao_core::offload::overrides`].
    pub withheld: u32,
    /// What goes to the target of the prompt.
    pub cargo: Arc<Cargo>,
    /// Its media are brought there at once, though nobody may be asked to answer there.
    pub brings: bool,
    /// Reads the answer's tokens.
    pub processor: Arc<Processor>,
    /// Texts that end the answer.
    pub stops: Vec<String>,
    /// Log-probabilities are told.
    pub logprobs: bool,
    /// Asked as drafting goes on.
    pub steps: Steps,
    /// Says how probably the target accepts a draft, and learns what it said to it.
    pub judge: Judge,
    /// The draft model is to be asked about every place of the answer once it is whole.
    pub audited: bool,
    /// Counts as work that the target is going to get, until it says something.
    pub ahead: Ahead,
    /// Takes the answer's pieces.
    pub pieces: mpsc::UnboundedSender<(u32, Piece)>,
    /// The client has gone.
    pub gone: CancellationToken,
    /// What went over the link.
    pub traffic: Arc<Traffic>,
    /// The node's clock.
    pub clock: Clock,
    /// Where the times of the draft model's passes go, in seconds.
    pub passes: Histogram,
}

/// How an answer ended.
#[derive(Debug)]
pub enum Ended {
    /// It is whole.
    Whole(FinishReason),
    /// The client has gone.
    Gone,
    /// It had to be exact, and the target is out of reach.
    NotExact,
    /// The peer refused before the first token: somebody else may be asked.
    Refused(Refused),
    /// The model failed, or has no room, and there is no other.
    Failed(ServiceError),
}

/// An answer that has ended.
#[derive(Debug)]
pub struct Driven {
    /// How.
    pub ended: Ended,
    /// What it took.
    pub counters: Counters,
    /// On the node's clock, in ms.
    pub first_token_ms: Option<f64>,
    /// Likewise.
    pub last_token_ms: Option<f64>,
    /// Passes of the draft model for it, and the time that they took, in ms.
    pub draft_passes: (u32, f64),
    /// Time until the draft model had a seat for it, in ms.
    pub queued_ms: Option<f64>,
    /// Time from then on until it had read the prompt, in ms, and before it in the probe.
    pub prefill_ms: Option<f64>,
    /// What the draft model has cost, so far as it has told, and what of it was for drafts that were thrown away; `None` where it
    /// took no part.
    pub here: Option<Spent>,
    /// What the node with the target has cost.
    pub there: Charges,
    /// What the host did otherwise than the policy said on the way: bits of [`msao_core::offload::overrides`].
    pub overrides: u32,
    /// In which row of the nodes the target was in the end.
    pub row: Option<usize>,
    /// For the audit, where there is one: the answer is whole, and there is a draft model.
    pub replay: Option<Replay>,
}

struct Driver {
    job: Job,
    edge: Edge,
    writer: Writer,
    draft: Option<Orders>,
    channel: Option<Channel>,
    connecting: Option<Finding>,
    /// What is to be said once there is a way.
    outbox: Vec<Frame>,
    /// What was said on the way that there is, until the other side says something: should it miss media, all of it is said
    /// again behind them.
    unheard: Option<Vec<Frame>>,
    /// Media were sent again, and nothing was heard since.
    resent: bool,
    /// The way was lost: the machine is told when another stands.
    parted: bool,
    /// Places of the drafts under way, by stamp, and what the draft model said at places not committed yet.
    places: HashMap<u64, u32>,
    told: BTreeMap<u32, TopLogprobs>,
    refused: Option<Refused>,
    failure: Option<ServiceError>,
    /// The target has said something.
    begun: bool,
    finish: Option<Finish>,
    bill: Bill,
    /// What the draft model had cost at its last choice.
    drafting: Option<Spent>,
    /// What each of its passes has cost.
    passes: Passes,
    cancelled: bool,
    first_token_ms: Option<f64>,
    last_token_ms: Option<f64>,
    draft_passes: (u32, f64),
    queued_ms: Option<f64>,
    prefill_ms: Option<f64>,
    overrides: u32,
    /// The machine has been told that nothing may be committed unverified any more.
    shut: bool,
}

/// Runs one answer to its end.
pub async fn drive(mut job: Job) -> Driven {
    let draft = job.draft.take().map(|opening| Orders::new(opening, false));
    // Who has no draft model cannot finish alone.
    job.config.exact_only |= draft.is_none();
    let (edge, effects) = Edge::start(job.config.clone(), job.clock.now_ms());
    let mut driver = Driver {
        writer: Writer::new(&job.processor, &job.stops, job.logprobs),
        job,
        edge,
        draft,
        channel: None,
        connecting: None,
        outbox: Vec::new(),
        unheard: None,
        resent: false,
        parted: false,
        places: HashMap::new(),
        told: BTreeMap::new(),
        refused: None,
        failure: None,
        begun: false,
        finish: None,
        bill: Bill::default(),
        drafting: None,
        passes: Passes::default(),
        cancelled: false,
        first_token_ms: None,
        last_token_ms: None,
        draft_passes: (0, 0.0),
        queued_ms: None,
        prefill_ms: None,
        overrides: 0,
        shut: false,
    };
    driver.take_over();
    // Let go of with the answer.
    let _bringing = driver.bring();
    let ended = driver.run(effects.into()).await;
    let here = match &mut driver.draft {
        // Nobody waits long for a figure.
        Some(draft) => tokio::time::timeout(COUNTED_WITHIN, draft.meter()).await,
        None => Ok(None),
    };
    let here = (here.ok().flatten().map(|meter| meter.spent())).or(driver.drafting);
    let here = here.map(|spent| Spent {
        wasted_flops: driver.passes.thrown_away(spent.flops),
        ..spent
    });
    let replay = driver.replay(&ended);
    Driven {
        replay,
        ended,
        here,
        there: driver.bill.total(),
        counters: driver.edge.counters().clone(),
        first_token_ms: driver.first_token_ms,
        last_token_ms: driver.last_token_ms,
        draft_passes: driver.draft_passes,
        queued_ms: driver.queued_ms,
        prefill_ms: driver.prefill_ms,
        overrides: driver.overrides,
        row: driver.job.way.map(|way| way.row),
    }
}

impl Driver {
    async fn run(&mut self, mut effects: VecDeque<Effect>) -> Ended {
        loop {
            while let Some(effect) = effects.pop_front() {
                if let Effect::End(ending) = effect {
                    return self.end(ending);
                }
                effects.extend(self.apply(effect));
            }
            let event = self.next().await;
            if let (Some(refused), 0) = (&self.refused, self.edge.committed().len()) {
                return Ended::Refused(refused.clone());
            }
            effects.extend(self.tell(event));
        }
    }

    /// Goes on with a session that was opened before there was an answer, as if OPEN had been said here.
    fn take_over(&mut self) {
        let open = || Frame::Open(Box::new(self.job.config.open.clone()));
        match self.job.opened.take() {
            Some(Ok(channel)) => {
                self.channel = Some(channel);
                self.unheard = Some(vec![open()]);
            }
            Some(Err(finding)) => {
                self.outbox.push(open());
                self.connecting = Some(finding);
            }
            None => {}
        }
    }

    /// Has media brought to where the answer may be left to.
    fn bring(&self) -> JoinSet<()> {
        let mut bringing = JoinSet::new();
        if let Some(way) = self.job.way.as_ref().filter(|_| self.job.brings) {
            bringing.spawn(way.target.bring(&self.job.cargo, &self.job.traffic));
        }
        bringing
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = self.shut();
        effects.extend(self.edge.advance(self.job.clock.now_ms(), event));
        for judged in self.edge.take_judged() {
            self.job.judge.saw(&judged);
            if judged.accepted {
                self.passes.accepted(judged.drafted.stamp);
            }
        }
        effects
    }

    /// Passes on, once, that what audits had opened is open no more. The machine commits only when it is told something, and
    /// hears of this first.
    fn shut(&mut self) -> Vec<Effect> {
        if self.shut || !self.job.judge.is_shut() {
            return Vec::new();
        }
        self.shut = true;
        if self.job.config.confidence_floor <= 1.0 {
            self.overrides |= overrides::EXACT;
        }
        self.edge.advance(self.job.clock.now_ms(), Event::Shut)
    }

    /// What an audit has yet to ask the draft model about.
    fn replay(&mut self, ended: &Ended) -> Option<Replay> {
        let whole = matches!(ended, Ended::Whole(_)) && self.job.audited;
        let draft = self.draft.take().filter(|_| whole)?;
        let tokens = self.edge.committed().to_vec();
        let by_itself = self.finish == Some(Finish::EndOfSequence);
        let most = self.job.config.open.max_tokens as usize;
        Some(Replay::new(draft, tokens, by_itself, most))
    }

    /// Does what the machine asks for; gives what it asks for in turn.
    fn apply(&mut self, effect: Effect) -> Vec<Effect> {
        match effect {
            Effect::Send(frame) => self.send(frame),
            Effect::Draft { stamp, position } => {
                self.places.insert(stamp, position);
                self.order(Order::Verify {
                    stamp,
                    drafts: Vec::new(),
                });
            }
            Effect::RollBack { to } => {
                self.passes.taken_back(to);
                // One that is under way is not waited for.
                self.places.retain(|_, place| *place < to);
                self.order(Order::RollBack(to));
            }
            Effect::Append { ids } => self.order(Order::Append(ids)),
            Effect::Commit(tokens) => return self.commit(tokens),
            Effect::Ask(input) => {
                let action = self.ask(&input);
                return self.tell(Event::Action(action));
            }
            Effect::GiveUpStream(violation) => {
                tracing::warn!(%violation, "the peer contradicts itself");
                self.lose_way();
            }
            // The loop's.
            Effect::End(_) => {}
        }
        Vec::new()
    }

    fn order(&self, order: Order) {
        if let Some(draft) = &self.draft {
            draft.give(order);
        }
    }

    fn ask(&mut self, input: &StepInput) -> Action {
        match self.policy(input) {
            Action::Escalate if self.job.way.is_none() => {
                self.overrides |= self.job.withheld;
                Action::Draft
            }
            action => action,
        }
    }

    fn policy(&self, input: &StepInput) -> Action {
        if let Start::Cloud { .. } = self.job.config.start {
            // These routes have no steps: they wait for the target, and finish here when the machine's time is up, or
            // nobody is going to be asked again.
            return match (&self.refused, &self.connecting) {
                (Some(_), None) => Action::Finish,
                _ => Action::Wait,
            };
        }
        let mut steps = self
            .job
            .steps
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match steps.as_mut() {
            Some(ticket) => ticket.step(input),
            None => Action::Wait,
        }
    }

    fn commit(&mut self, tokens: Vec<Committed>) -> Vec<Effect> {
        let now_ms = self.job.clock.now_ms();
        self.first_token_ms.get_or_insert(now_ms);
        self.last_token_ms = Some(now_ms);
        let first = self.edge.committed().len() - tokens.len();
        for (place, token) in (first as u32..).zip(tokens) {
            if !token.verified {
                self.passes.stands(place);
            }
            let drafted = self.told.remove(&place);
            let logprobs = token.logprobs.or(drafted.filter(|_| !token.verified));
            let piece = self.writer.push(token.id, logprobs.as_ref());
            self.emit(piece);
            if self.writer.stopped() {
                return self.tell(Event::Stop);
            }
        }
        Vec::new()
    }

    fn emit(&self, piece: Option<Piece>) {
        if let Some(piece) = piece {
            // Whoever does not listen has gone, and is noticed elsewhere.
            let _gone = self.job.pieces.send((self.job.choice, piece));
        }
    }

    fn send(&mut self, frame: Frame) {
        match &mut self.channel {
            Some(channel) => {
                if let Some(unheard) = &mut self.unheard {
                    unheard.push(frame.clone());
                }
                channel.send(addressed(&self.job.cargo, frame));
            }
            None => {
                self.outbox.push(frame);
                if self.connecting.is_none() {
                    self.connect(Duration::ZERO);
                }
            }
        }
    }

    /// Looks for a way to the target, after so long.
    fn connect(&mut self, after: Duration) {
        if let Some(way) = &self.job.way {
            let elsewhere = Arc::clone(&self.job.elsewhere);
            let (cargo, traffic) = (&self.job.cargo, &self.job.traffic);
            // Who has not been told that the way is lost waits for a word of a target that may never be back.
            let patient = self.parted;
            self.connecting = Some(way.find(after, patient, elsewhere, cargo, traffic));
        }
    }

    /// The other side has forgotten media that it had, or is another process than before: they are sent again, and behind them
    /// what was said. The machine need not know of it. Where they are missing again something is wrong, and the way is lost.
    fn send_media_again(&mut self) -> Option<Event> {
        if let Some(way) = &self.job.way {
            way.target.forget(&self.job.cargo);
        }
        let unheard = self.unheard.take().filter(|_| !self.resent);
        let Some(unheard) = unheard else {
            self.lose_way();
            return Some(Event::PeerLost);
        };
        tracing::info!("the peer does not have the media any more");
        self.resent = true;
        self.channel = None;
        self.outbox = unheard;
        self.connect(Duration::ZERO);
        None
    }

    /// The way is lost: another is looked for.
    fn lose_way(&mut self) {
        self.channel = None;
        self.outbox.clear();
        self.parted = true;
        self.connect(RETRY);
    }

    /// Waits for what happens next.
    async fn next(&mut self) -> Event {
        loop {
            let due_ms = self.edge.due_ms();
            tokio::select! {
                biased;
                () = self.job.gone.cancelled(), if !self.cancelled => {
                    self.cancelled = true;
                    return Event::Stop;
                }
                frame = receive(&mut self.channel) => {
                    if let Some(event) = self.heard(frame) {
                        return event;
                    }
                }
                done = finish(&mut self.draft) => {
                    if let Some(event) = self.drafted(done) {
                        return event;
                    }
                }
                (other, way) = made(&mut self.connecting) => {
                    self.connecting = None;
                    if let Some(other) = other {
                        tracing::info!(row = other.row, "the target's node is gone, and another has it too");
                        self.overrides |= overrides::PEER;
                        self.job.way = Some(other);
                    }
                    match way {
                        Ok(channel) => {
                            self.channel = Some(channel);
                            self.unheard = Some(Vec::new());
                            for frame in std::mem::take(&mut self.outbox) {
                                self.send(frame);
                            }
                            self.refused = None;
                            if std::mem::take(&mut self.parted) {
                                return Event::PeerBack;
                            }
                        }
                        Err(NoWay::Lost(why)) => {
                            tracing::info!(%why, "no way to the peer");
                            self.lose_way();
                            return Event::PeerLost;
                        }
                        Err(NoWay::Refused { code, retry_after_ms, message }) => {
                            let session = self.job.config.open.session;
                            return self.turned_away(Refused { session, code, retry_after_ms, message });
                        }
                    }
                }
                () = self.job.clock.until(due_ms) => return Event::Tick,
            }
        }
    }

    fn heard(&mut self, frame: Option<Frame>) -> Option<Event> {
        if let Some(Frame::Refused(refused)) = &frame
            && refused.code == RefusedCode::MediaMissing
        {
            return self.send_media_again();
        }
        self.unheard = None;
        match frame {
            Some(Frame::Verdict(verdict)) => {
                self.resent = false;
                if !std::mem::replace(&mut self.begun, true) {
                    self.job.ahead.settle();
                }
                if let Some(way) = &self.job.way {
                    let (rtt_ms, queue_ms) = way.target.figures();
                    let peer = Event::Peer { rtt_ms, queue_ms };
                    let _nothing = self.edge.advance(self.job.clock.now_ms(), peer);
                }
                Some(Event::Verdict(verdict))
            }
            Some(Frame::Refused(refused)) => Some(self.turned_away(refused)),
            Some(Frame::Words(words)) => {
                self.writer.learn(words.words);
                // The target's ids mean nothing to the draft model: it cannot go on from them.
                self.draft.take().map(|_| Event::DraftLost)
            }
            Some(Frame::Cost(cost)) => {
                self.bill.take(cost);
                None
            }
            // Of no meaning here, or of a later version.
            Some(_) => None,
            None => {
                self.lose_way();
                Some(Event::PeerLost)
            }
        }
    }

    /// The peer will not. Before the first token somebody else is asked; later it is tried again where that has sense.
    fn turned_away(&mut self, refused: Refused) -> Event {
        tracing::info!(code = ?refused.code, message = refused.message, "the peer refused");
        self.job.ahead.settle();
        self.channel = None;
        self.outbox.clear();
        self.parted = true;
        if refused.code == RefusedCode::Overloaded {
            let wait =
                Duration::from_secs_f64(refused.retry_after_ms.clamp(0.0, 60_000.0) / 1000.0);
            self.connect(wait.max(RETRY));
        }
        self.refused = Some(refused);
        Event::Refused
    }

    fn drafted(&mut self, done: Done) -> Option<Event> {
        match done {
            Done::Ready { waited_ms, took_ms } => {
                self.queued_ms = Some(waited_ms);
                self.prefill_ms = Some(self.job.looked_ms + took_ms);
                None
            }
            Done::Verified {
                stamp,
                verdict,
                took_ms,
            } => {
                self.drafting = Some(verdict.spent);
                self.draft_passes.0 += 1;
                self.draft_passes.1 += took_ms;
                self.job.passes.observe(took_ms / 1000.0);
                let place = self.places.remove(&stamp);
                self.passes
                    .ran(stamp, place, verdict.ended, verdict.spent.flops);
                self.draft_of(stamp, place, verdict)
            }
            Done::Failed(error) => {
                tracing::warn!(%error, "the draft model is lost to an answer");
                self.failure = Some(error);
                self.draft = None;
                Some(Event::DraftLost)
            }
        }
    }

    fn draft_of(&mut self, stamp: u64, place: Option<u32>, verdict: Verdict) -> Option<Event> {
        let pick = verdict.picks.first()?;
        if let (Some(place), Some(told)) = (place, verdict.logprobs.into_iter().next()) {
            self.told.insert(place, told);
        }
        let said = confidence(&verdict.confidence, 0, pick);
        let (p_accept, sure) = self.job.judge.of(&said);
        Some(Event::Drafted(Drafted {
            stamp,
            id: pick.id,
            ends: verdict.ended,
            p_accept,
            sure,
            top1: said.top1,
            entropy_nats: said.entropy,
            margin: said.margin,
        }))
    }

    fn end(&mut self, ending: Ending) -> Ended {
        if let Ending::Finished(finish) = ending {
            self.finish = Some(finish);
        }
        if self.finish == Some(Finish::EndOfSequence) {
            self.passes.ended(self.edge.committed().len() as u32);
        }
        let reason = match ending {
            Ending::Finished(Finish::EndOfSequence) => FinishReason::Stop,
            Ending::Finished(Finish::Length) => FinishReason::Length,
            Ending::Stopped if self.cancelled => return Ended::Gone,
            Ending::Stopped => FinishReason::Stop,
            Ending::NotExact | Ending::NoModel => {
                return match (self.failure.take(), self.refused.take()) {
                    (Some(error), _) => Ended::Failed(error),
                    (None, Some(refused)) => Ended::Refused(refused),
                    (None, None) => Ended::NotExact,
                };
            }
        };
        let rest = self.writer.finish();
        self.emit(rest);
        self.emit(Some(Piece::Finish(reason)));
        Ended::Whole(reason)
    }
}

/// The frame as it goes out: an OPEN says what is sent of the prompt, which has been made once there is a way.
pub(super) fn addressed(cargo: &Cargo, mut frame: Frame) -> Frame {
    if let (Frame::Open(open), Some(sent)) = (&mut frame, cargo.made()) {
        open.prompt.clone_from(&sent.prompt);
        open.target_input = sent.target_input;
    }
    frame
}

async fn receive(channel: &mut Option<Channel>) -> Option<Frame> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

async fn finish(draft: &mut Option<Orders>) -> Done {
    match draft {
        Some(draft) => draft.done().await,
        None => std::future::pending().await,
    }
}

async fn made(connecting: &mut Option<Finding>) -> Found {
    match connecting {
        Some(connecting) => connecting.await,
        None => std::future::pending().await,
    }
}
