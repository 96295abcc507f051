//! The thread that owns a model, and the handles by which the asynchronous side uses it.
//!
//! [`Service::start`] loads a model on a thread of its own, which owns all its tensors. [`Service::open`] hands over a
//! prompt and gives a [`Session`]: an answer is generated ([`Session::generate`]), drafts are verified
//! ([`Session::verify`]), given tokens are read ([`Session::append`]), tokens are taken back ([`Session::roll_back`])
//! and answers split off ([`Session::fork`]). Dropping a session ends it within one pass.
//!
//! All channels are bounded, and neither methods nor drops block: what the thread has no room for is refused at once
//! ([`ServiceError::Overloaded`]), and a client that reads its tokens slowly holds up nobody but itself.

mod choose;
mod client;
mod ending;
mod thread;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, Instant};

use msao_core::inputs::ModelInputs;
use msao_core::meter::{Meter, Spent};
use msao_core::probe::ProbeReport;
use msao_core::sampling::{Confidence, Pick, Sampler, TopLogprobs};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::generate::{Step, Stop};
use crate::keep::Keep;
use crate::media_cache::MediaKeys;
use crate::model::LoadOptions;
use crate::near::NearDuplicates;
use crate::runner::{OpenOptions, RunnerOptions};
use client::Order;
use ending::Thread;
use thread::{Command, Started, Waiting};

/// Limits of a service.
#[derive(Clone, Copy, Debug)]
pub struct ServiceOptions {
    /// What the model's cache may hold.
    pub runner: RunnerOptions,
    /// Threads that one operation may use; `None` leaves the process's setting.
    pub threads: Option<usize>,
    /// Most prompts that wait for room in the cache; more are refused.
    pub waiting: usize,
    /// Most bytes of pixels and sounds that prompts bring along until they have been encoded, whether they are hashed, wait
    /// for room or for the encoder; whose media would go beyond is refused. One prompt's are always taken.
    pub waiting_bytes: u64,
    /// Most rows of decoding and verifying in one pass.
    pub decode_rows: usize,
    /// Most rows of prompts in a pass that also decodes: the price in delay that a long prompt may put on others.
    pub prompt_rows: usize,
    /// How long such a pass may take, about: where a row of a prompt takes long, there are fewer in a pass, down to 16.
    pub prompt_slice: Duration,
    /// Most rows of prompts in a pass in which nobody decodes.
    pub idle_prompt_rows: usize,
    /// How long such a pass may take, about: who comes or leaves waits for its end. Again 16 rows at least.
    pub idle_prompt_slice: Duration,
    /// Longest that a medium is encoded between two passes while others are being answered, and that what a probe saw is
    /// worked out. A block of the encoder, a piece of the prompt, or some rows of text that have begun are finished.
    pub encode_slice: Duration,
    /// Most bytes of logits that open sessions keep, two rows each; who would go beyond waits as for room in the cache.
    /// One session is always let in.
    pub logits_bytes: u64,
    /// Tokens of one answer that may wait for their reader.
    pub unread_tokens: usize,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        ServiceOptions {
            runner: RunnerOptions::default(),
            threads: None,
            waiting: 64,
            waiting_bytes: 512 << 20,
            decode_rows: 256,
            prompt_rows: 128,
            prompt_slice: Duration::from_millis(100),
            idle_prompt_rows: 512,
            idle_prompt_slice: Duration::from_millis(500),
            encode_slice: Duration::from_millis(20),
            logits_bytes: 256 << 20,
            unread_tokens: 64,
        }
    }
}

/// Why a service did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no room, nor any to wait for it.
    #[error("the limit of {most} {limit} is reached: try again later")]
    Overloaded {
        /// What is limited, with the limit's name in [`ServiceOptions`] if it has one.
        limit: &'static str,
        /// The limit.
        most: u64,
    },
    /// The request would not fit an empty cache.
    #[error(
        "the request needs room for {tokens} tokens, and the whole cache holds {capacity}: shorten it, or give the \
         cache more memory"
    )]
    TooLarge {
        /// Prompt and reserve together.
        tokens: usize,
        /// Tokens that the cache holds.
        capacity: usize,
    },
    /// The model's thread has ended.
    #[error("the model's thread has ended")]
    Stopped,
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Something went wrong earlier, which has ended the session.
    #[error("the session is over: {0}")]
    Over(EngineError),
}

impl ServiceError {
    /// Whether it is only for want of room, so that the same may succeed later.
    pub fn is_want_of_room(&self) -> bool {
        match self {
            ServiceError::Overloaded { .. } => true,
            ServiceError::Engine(error) | ServiceError::Over(error) => error.is_want_of_room(),
            ServiceError::TooLarge { .. } | ServiceError::Stopped => false,
        }
    }
}

/// What a session is opened with.
#[derive(Clone, Debug)]
pub struct Open {
    /// The prompt.
    pub inputs: Arc<ModelInputs>,
    /// Chooses the tokens of the answer. Its output must be empty.
    pub sampler: Sampler,
    /// Most tokens of the answer, drafts in flight included: room for them is set aside.
    pub reserve: usize,
    /// What is read of the media.
    pub options: OpenOptions,
    /// Ids that end the answer. They are not part of it.
    pub end_of_sequence: Vec<u32>,
    /// What is told of each token besides the choice.
    pub tell: Tell,
}

/// What is told of each token besides the choice, by the model's own distribution. Each costs a walk over the vocabulary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tell {
    /// Its log-probability and those of so many of the most likely tokens in its place; `None` tells none.
    pub top_logprobs: Option<u32>,
    /// How sure the model is: in verdicts alone.
    pub confidence: bool,
}

/// One thing that happens while an answer is generated.
#[derive(Debug)]
pub enum Event {
    /// The next token.
    Token(Step),
    /// There are no more.
    End(Stop),
    /// Something went wrong; the session is over.
    Failed(ServiceError),
}

/// What the model says to a draft.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Drafted tokens, from the first, that it would have chosen itself.
    pub accepted: usize,
    /// Its choices: the accepted tokens and one more, which stands in the place of the first that was not accepted or
    /// behind them all. After an end of sequence the last choice is that id, which is not part of the answer.
    pub picks: Vec<Pick>,
    /// One for each pick, where [`Tell::top_logprobs`] asks for them.
    pub logprobs: Vec<TopLogprobs>,
    /// One for each pick, where [`Tell::confidence`] asks for it.
    pub confidence: Vec<Confidence>,
    /// Whether the answer has ended.
    pub ended: bool,
    /// What the session has cost so far, this verdict included: whoever wants to know need not ask and wait.
    pub spent: Spent,
}

/// How busy a service is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Open sessions.
    pub sessions: usize,
    /// Prompts that wait for room.
    pub waiting: usize,
    /// Bytes of media that came with prompts and have not been encoded yet.
    pub waiting_bytes: u64,
    /// Cache blocks held, prefixes kept for later included.
    pub held_blocks: usize,
    /// Of these, blocks that only kept prefixes hold.
    pub prefix_blocks: usize,
    /// Bytes of logits that the open sessions may keep.
    pub logits_bytes: u64,
    /// Passes run so far.
    pub passes: u64,
    /// Rows that went through them.
    pub rows: u64,
    /// What computes the language model's layers: `avx512` or `avx2` for our own kernels, or `libtorch`. Empty where nobody
    /// says.
    pub kernels: &'static str,
    /// Whether passes over a few tokens become CUDA graphs.
    pub graphs: bool,
    /// Nothing is computed any more: the device was lost, and only a new process gets it back.
    pub ended: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    sessions: AtomicUsize,
    waiting: AtomicUsize,
    waiting_bytes: AtomicU64,
    held_blocks: AtomicUsize,
    prefix_blocks: AtomicUsize,
    logits_bytes: AtomicU64,
    passes: AtomicU64,
    rows: AtomicU64,
    ended: AtomicBool,
}

/// A prompt's share of what media may wait; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MediaBytes {
    shared: Arc<Shared>,
    bytes: u64,
}

impl MediaBytes {
    /// Takes the share of a prompt's media, if there is room for it.
    fn take(shared: &Arc<Shared>, inputs: &ModelInputs, most: u64) -> Option<Self> {
        let media = [
            inputs.images.as_ref().map(|patches| &patches.values),
            inputs.videos.as_ref().map(|patches| &patches.values),
            inputs.audio.as_ref().map(|mels| &mels.features),
        ];
        let values = media.into_iter().flatten();
        let bytes = values.map(|values| size_of_val(values.data.as_slice()) as u64);
        let bytes = bytes.sum::<u64>();
        let with = |held: u64| {
            let together = held.saturating_add(bytes);
            (bytes == 0 || held == 0 || together <= most).then_some(together)
        };
        let held = &shared.waiting_bytes;
        held.fetch_update(Ordering::AcqRel, Ordering::Acquire, with)
            .ok()?;
        Some(MediaBytes {
            shared: Arc::clone(shared),
            bytes,
        })
    }
}

impl Drop for MediaBytes {
    fn drop(&mut self) {
        let held = &self.shared.waiting_bytes;
        held.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A model on its own thread. Clones speak to the same one, which ends when the last of them and of its sessions is gone:
/// soon after, and before the process does. [`Service::close`] waits for it.
#[derive(Clone, Debug)]
pub struct Service {
    commands: Arc<Line>,
    shared: Arc<Shared>,
    config: Arc<ModelConfig>,
    capacity: usize,
    kernels: &'static str,
    graphs: bool,
    unread_tokens: usize,
    waiting_bytes: u64,
    /// `None` where nobody wants hashes.
    hashing: Option<Arc<Hashing>>,
    near: Option<NearDuplicates>,
}

/// The way to the thread, which ends when this does.
#[derive(Debug)]
struct Line {
    commands: Option<SyncSender<Command>>,
    /// `None` where the caller is the thread.
    thread: Option<Thread>,
}

impl Line {
    fn send(&self, command: Command) -> Result<(), TrySendError<Command>> {
        match &self.commands {
            Some(commands) => commands.try_send(command),
            None => Err(TrySendError::Disconnected(command)),
        }
    }
}

impl Drop for Line {
    /// Has the thread end, within a pass, and waits for nothing.
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            thread.let_go();
        }
    }
}

/// Who may hash media.
#[derive(Debug)]
struct Hashing {
    /// Those who hash or wait for it; more are refused.
    places: Semaphore,
    most: usize,
    /// One at a time.
    turn: Arc<Semaphore>,
}

impl Service {
    /// Loads the checkpoint in `dir` on a new thread and waits for it.
    pub async fn start(
        dir: PathBuf,
        load: LoadOptions,
        options: ServiceOptions,
    ) -> Result<Self, ServiceError> {
        let (commands, inbox) = std::sync::mpsc::sync_channel(COMMANDS);
        let shared = Arc::new(Shared::default());
        let (loaded, started) = oneshot::channel();
        let for_thread = Arc::clone(&shared);
        let thread = Thread::start(move |stop| {
            thread::run(&dir, &load, &options, inbox, for_thread, loaded, stop);
        })
        .map_err(|e| {
            EngineError::request(format!("no thread could be started for the model: {e}"))
        })?;
        let line = Line {
            commands: Some(commands),
            thread: Some(thread),
        };
        let started = started.await.map_err(|_| ServiceError::Stopped)??;
        Ok(Service::new(line, shared, started, &options))
    }

    /// Lets go of this handle and waits until the thread has ended and given back its memory, which takes until the other
    /// handles and all sessions are gone as well.
    pub async fn close(self) {
        let ended = self.commands.thread.as_ref().map(Thread::ended);
        drop(self);
        if let Some(ended) = ended {
            ended.await;
        }
    }

    fn new(line: Line, shared: Arc<Shared>, started: Started, options: &ServiceOptions) -> Self {
        Service {
            commands: Arc::new(line),
            shared,
            config: Arc::new(started.config),
            capacity: started.capacity,
            kernels: started.kernels,
            graphs: started.graphs,
            unread_tokens: options.unread_tokens.max(1),
            waiting_bytes: options.waiting_bytes,
            hashing: started.hashes.then(|| {
                let most = options.waiting.saturating_add(1);
                Arc::new(Hashing {
                    places: Semaphore::new(most.min(Semaphore::MAX_PERMITS)),
                    most,
                    turn: Arc::new(Semaphore::new(1)),
                })
            }),
            near: options.runner.near_duplicates,
        }
    }

    /// The checkpoint's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Tokens that the cache can hold in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        let shared = &self.shared;
        Load {
            sessions: shared.sessions.load(Ordering::Relaxed),
            waiting: shared.waiting.load(Ordering::Relaxed),
            waiting_bytes: shared.waiting_bytes.load(Ordering::Relaxed),
            held_blocks: shared.held_blocks.load(Ordering::Relaxed),
            prefix_blocks: shared.prefix_blocks.load(Ordering::Relaxed),
            logits_bytes: shared.logits_bytes.load(Ordering::Relaxed),
            passes: shared.passes.load(Ordering::Relaxed),
            rows: shared.rows.load(Ordering::Relaxed),
            kernels: self.kernels,
            graphs: self.graphs,
            ended: shared.ended.load(Ordering::Relaxed),
        }
    }

    /// Hands over a prompt. Returns once there is room for it in the cache; reading goes on behind.
    ///
    /// Media are hashed first: on the blocking threads of the Tokio runtime that this is called from, one prompt's at a
    /// time, or in place where there is no runtime.
    pub async fn open(&self, open: Open) -> Result<Session, ServiceError> {
        let begun = open.sampler.output().len();
        if begun > 0 {
            return Err(EngineError::request(format!(
                "the sampler's output must be empty, and it has {begun} tokens: append them once the session is open"
            ))
            .into());
        }
        let tokens = open.options.tokens(&self.config, &open.inputs);
        // A probe's content-free text stands behind the prompt for a while, where the answer is going to.
        let probe = open.options.probe.as_ref();
        let beside = probe.map_or(0, |probe| probe.content_free.len());
        let tokens = tokens.saturating_add(open.reserve.max(beside));
        if tokens > self.capacity {
            return Err(ServiceError::TooLarge {
                tokens,
                capacity: self.capacity,
            });
        }
        let most = self.waiting_bytes;
        let full = ServiceError::Overloaded {
            limit: "bytes of media that wait (waiting_bytes)",
            most,
        };
        let held = MediaBytes::take(&self.shared, &open.inputs, most).ok_or(full)?;
        let keys = self.hashes(&open.inputs).await?;
        let (reply, opened) = oneshot::channel();
        self.send(Command::Open(Waiting {
            open: Box::new(open),
            tokens,
            keys,
            reply,
            held,
        }))?;
        let id = opened.await.map_err(|_| self.lost())??;
        Ok(Session::new(id, self))
    }

    async fn hashes(&self, inputs: &Arc<ModelInputs>) -> Result<Option<MediaKeys>, ServiceError> {
        let Some(hashing) = &self.hashing else {
            return Ok(None);
        };
        let media = inputs.images.is_some() || inputs.videos.is_some() || inputs.audio.is_some();
        let handle = tokio::runtime::Handle::try_current();
        let (true, Ok(handle)) = (media, handle) else {
            let keys = MediaKeys::of(&self.config, inputs, self.near.as_ref())?;
            return Ok(Some(keys));
        };
        let _place = hashing
            .places
            .try_acquire()
            .map_err(|_| ServiceError::Overloaded {
                limit: "requests whose media are hashed (waiting + 1)",
                most: hashing.most as u64,
            })?;
        let turn = Arc::clone(&hashing.turn).acquire_owned().await;
        let (config, inputs) = (Arc::clone(&self.config), Arc::clone(inputs));
        let near = self.near;
        let hashed = handle.spawn_blocking(move || {
            let keys = MediaKeys::of(&config, &inputs, near.as_ref());
            // Held to the end, whoever has given up waiting.
            drop(turn);
            keys
        });
        let keys = hashed.await.map_err(|_| ServiceError::Stopped)?;
        Ok(Some(keys?))
    }

    /// Why nobody answers any more.
    fn lost(&self) -> ServiceError {
        match self.send(Command::Look) {
            Err(ServiceError::Stopped) => ServiceError::Stopped,
            _ => EngineError::Panicked("a request was lost in it".into()).into(),
        }
    }

    fn send(&self, command: Command) -> Result<(), ServiceError> {
        self.commands.send(command).map_err(|e| match e {
            TrySendError::Full(_) => ServiceError::Overloaded {
                limit: "commands on their way to the model",
                most: COMMANDS as u64,
            },
            TrySendError::Disconnected(_) => ServiceError::Stopped,
        })
    }
}

/// Commands that may wait for the thread to look.
const COMMANDS: usize = 1024;

/// A session's place on the thread. When it is dropped before it was handed to anyone, the session ends.
#[derive(Debug)]
pub(crate) struct Ticket {
    id: u64,
    /// Set when the client has gone.
    gone: Arc<AtomicBool>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Release);
    }
}

/// One prompt and its answer. Orders run one after the other, in the order in which they were given.
#[derive(Debug)]
pub struct Session {
    ticket: Ticket,
    service: Service,
}

impl Session {
    fn new(ticket: Ticket, service: &Service) -> Self {
        Session {
            ticket,
            service: service.clone(),
        }
    }

    fn order(&self, order: Order) -> Result<(), ServiceError> {
        self.service
            .send(Command::Order(self.ticket.id, order, Instant::now()))
    }

    async fn ask<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, ServiceError>>) -> Order,
    ) -> Result<T, ServiceError> {
        let (reply, answer) = oneshot::channel();
        self.order(order(reply))?;
        answer.await.map_err(|_| self.service.lost())?
    }

    /// Waits for what the probe saw. The session must have been opened with one.
    pub async fn probed(&self) -> Result<ProbeReport, ServiceError> {
        self.ask(Order::Probed).await
    }

    /// Says what is kept behind the probe; reading then goes on.
    pub async fn keep(&self, keep: Keep) -> Result<(), ServiceError> {
        self.ask(|reply| Order::Keep(keep, reply)).await
    }

    /// Waits until the prompt has been read.
    pub async fn read(&self) -> Result<(), ServiceError> {
        self.ask(Order::Read).await
    }

    /// Generates up to `most` tokens. The receiver gets each as it is chosen and an end; dropping it stops early.
    pub fn generate(&self, most: usize) -> Result<mpsc::Receiver<Event>, ServiceError> {
        let (order, receiver) = Order::generate(most, self.service.unread_tokens)?;
        self.order(order)?;
        Ok(receiver)
    }

    /// Holds drafted tokens against the model's own choices. What is accepted and the choice behind it become part of the
    /// answer, so the reserve must have room for one token more than is drafted.
    pub async fn verify(&self, drafts: Vec<u32>) -> Result<Verdict, ServiceError> {
        self.ask(|reply| Order::Verify { drafts, reply }).await
    }

    /// Makes given tokens the next part of the answer, whatever the model would have chosen.
    pub async fn append(&self, tokens: Vec<u32>) -> Result<(), ServiceError> {
        self.ask(|reply| Order::Append { tokens, reply }).await
    }

    /// Takes the answer back to its first `tokens` tokens.
    pub async fn roll_back(&self, tokens: usize) -> Result<(), ServiceError> {
        self.ask(|reply| Order::RollBack { tokens, reply }).await
    }

    /// Another answer to the same prompt, which goes on from here with a sampler of its own, whose output must be this
    /// session's. What was read so far is shared.
    pub async fn fork(&self, sampler: Sampler) -> Result<Session, ServiceError> {
        let ticket = self
            .ask(|reply| Order::Fork {
                sampler: Box::new(sampler),
                reply,
            })
            .await?;
        Ok(Session::new(ticket, &self.service))
    }

    /// The answer so far.
    pub async fn output(&self) -> Result<Vec<u32>, ServiceError> {
        self.ask(Order::Output).await
    }

    /// What the session has cost so far. A fork's account starts with the fork.
    pub async fn meter(&self) -> Result<Meter, ServiceError> {
        self.ask(Order::Meter).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.ticket.gone.store(true, Ordering::Release);
        // So that an idle thread looks; a busy one looks anyway.
        let _ = self.service.commands.send(Command::Look);
    }
}
