//! Many sequences on one model: what a serving loop drives, one pass at a time.
//!
//! A [`Runner`] owns a [`Model`] and a cache of fixed size. [`Runner::open`] takes a prompt; [`Runner::run`] takes a
//! *batch*: for each of some sequences either a piece of its prompt or tokens to go on with (one to decode, several to
//! verify drafts or to go on from given ones), all in one pass. Sequences roll back ([`Runner::roll_back`]) and split
//! ([`Runner::fork`]) without copying what they share.
//!
//! Nothing here waits or chooses: order, fairness and sampling are the caller's.

mod batch;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use msao_core::inputs::ModelInputs;
use msao_core::meter::Meter;
use msao_core::probe::ProbeReport;

use crate::config::ModelConfig;
use crate::error::{EngineError, Result};
use crate::fixed::Shapes;
use crate::keep::Keep;
use crate::media_cache::{MediaCache, MediaKeys};
use crate::model::Model;
use crate::near::NearDuplicates;
use crate::pass::State;
use crate::pool::{BLOCK, Capacity, Pool};
use crate::prefix_cache::{Chain, PrefixCache};
use crate::probe::{Probe, ProbeOptions};
use crate::prompt::{Item, items};
use crate::repeats::Repeats;

pub(crate) use reading::Piece;
use reading::Reading;

/// What a runner may hold.
#[derive(Clone, Copy, Debug)]
pub struct RunnerOptions {
    /// Bytes of keys and values, prefixes kept for later included. On a processor memory is taken as it fills, on a
    /// GPU at once.
    pub cache_bytes: u64,
    /// Bytes of encoded media kept for later requests with the same content; 0 keeps none.
    pub media_cache_bytes: u64,
    /// Prompts whose keys and values are kept for later requests that begin alike, as long as nobody needs the room;
    /// 0 keeps none.
    pub prefixes: usize,
    /// Whether passes over a few tokens of each sequence are padded to one of a few shapes.
    pub padding: Padding,
    /// Which temporal patches of a clip take their predecessor's features instead of being encoded. `None`: those alone
    /// that are equal to another to the bit, which changes no answer. For a draft model: what it saw a little less
    /// exactly costs acceptance, not accuracy.
    pub near_duplicates: Option<NearDuplicates>,
}

/// Whether passes over a few tokens of each sequence (decoding, verifying) are padded to one of a few shapes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// On a GPU, where each shape becomes a CUDA graph.
    #[default]
    Auto,
    /// Nowhere.
    Never,
    /// Everywhere but on our own kernels, and without graphs: only to see that it changes nothing.
    Always,
}

impl Default for RunnerOptions {
    fn default() -> Self {
        RunnerOptions {
            cache_bytes: 1 << 30,
            media_cache_bytes: 64 << 20,
            prefixes: 64,
            padding: Padding::Auto,
            near_duplicates: None,
        }
    }
}

/// Names a sequence of one runner; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(u64);

#[cfg(test)]
impl SequenceId {
    /// Of the first sequence of a runner.
    pub(crate) const FIRST: SequenceId = SequenceId(0);
}

/// How a prompt is read.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Tokens dropped before the first layer. With a probe: see [`Runner::keep`].
    pub keep: Option<Keep>,
    /// Whether to look at the prompt first: the first layers run over all tokens, [`Runner::probed`] tells what they
    /// saw, and the other layers wait for [`Runner::keep`].
    pub probe: Option<ProbeOptions>,
}

impl OpenOptions {
    /// Tokens of a prompt that the first layers see, and that so take room in the cache.
    pub(crate) fn tokens(&self, config: &ModelConfig, inputs: &ModelInputs) -> usize {
        let all = inputs.input_ids.len();
        // A probe looks at all of them.
        let (Some(keep), None) = (&self.keep, &self.probe) else {
            return all;
        };
        // What is wrong with the prompt is said when it is opened.
        let items = items(config, inputs).unwrap_or_default();
        let dropped = items.iter().zip(&keep.items).map(|(item, keep)| {
            let kept = keep.as_ref().map_or(item.places.len(), Vec::len);
            item.places.len().saturating_sub(kept)
        });
        all.saturating_sub(dropped.sum())
    }
}

/// One sequence's work in a batch. A prompt that is probed is read in a batch of its own.
#[derive(Clone, Copy, Debug)]
pub enum Work<'a> {
    /// Read on in the prompt: at most so many tokens (at least 1). All media before them must be encoded.
    Read(usize),
    /// Go on with given tokens and tell the logits after each.
    Extend(&'a [u32]),
    /// Go on with given tokens and tell the logits after the last of them alone.
    Append(&'a [u32]),
}

/// What a sequence needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// [`Runner::encode`]: a media item is not encoded yet.
    Encoding,
    /// [`Work::Read`], so many tokens in all.
    Reading(usize),
    /// [`Runner::keep`]: the probe has run.
    Keeping,
    /// The prompt is read; [`Work::Extend`] goes on.
    Nothing,
}

#[derive(Debug)]
struct Running {
    state: State,
    reading: Option<Reading>,
    /// Most tokens behind the prompt that it may come to hold.
    reserve: usize,
}

/// How full a runner is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Open sequences.
    pub sequences: usize,
    /// Cache blocks that sequences and kept prefixes hold.
    pub held_blocks: usize,
    /// Of these, blocks that only kept prefixes hold.
    pub prefix_blocks: usize,
    /// Bytes of encoded media kept.
    pub media_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Runner {
    model: Model,
    pool: Pool,
    sequences: BTreeMap<SequenceId, Running>,
    next: u64,
    media: MediaCache,
    prefixes: PrefixCache,
    near: Option<NearDuplicates>,
    /// Work on this sequence panics half way.
    #[cfg(test)]
    pub(crate) trip: Option<SequenceId>,
    /// Whether this kind of work finds no memory on the device, time after time.
    #[cfg(test)]
    pub(crate) full: (Task, std::collections::VecDeque<bool>),
}

/// Work that takes memory on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Open,
    Encode,
    Pass,
    Report,
}

impl Runner {
    /// Makes the cache for a model.
    pub fn new(model: Model, options: &RunnerOptions) -> Result<Self> {
        let mut pool = model.new_pool(Capacity::Bytes(options.cache_bytes))?;
        match options.padding {
            Padding::Auto => {}
            Padding::Never => pool.shapes = None,
            Padding::Always => {
                pool.shapes = (!model.language().is_native()).then(Shapes::padded);
            }
        }
        Ok(Runner {
            pool,
            model,
            sequences: BTreeMap::new(),
            next: 0,
            media: MediaCache::new(options.media_cache_bytes),
            prefixes: PrefixCache::new(options.prefixes),
            near: options.near_duplicates,
            #[cfg(test)]
            trip: None,
            #[cfg(test)]
            full: (Task::Pass, Default::default()),
        })
    }

    /// Gives back device memory that only makes things faster: encoded media that are kept for later, and the graphs of
    /// passes, which are made anew as their shapes come again. Kept prefixes stay: the cache's memory was taken at once.
    pub(crate) fn make_room(&mut self) {
        self.media.clear();
        if let Some(shapes) = &mut self.pool.shapes {
            shapes.clear();
        }
        crate::cuda::release();
    }

    /// Fails where a test has taken the device's memory away.
    fn check_memory(&mut self, _task: Task) -> Result<()> {
        #[cfg(test)]
        if self.full.0 == _task && self.full.1.pop_front() == Some(true) {
            let said = "CUDA out of memory. Tried to allocate on purpose".into();
            return Err(tch::TchError::Torch(said).into());
        }
        Ok(())
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Whether passes over a few tokens become CUDA graphs.
    pub fn has_graphs(&self) -> bool {
        self.pool.shapes.as_ref().is_some_and(Shapes::have_graphs)
    }

    /// Tokens that the cache can hold in all.
    pub fn capacity(&self) -> usize {
        self.pool.capacity_tokens()
    }

    /// How full it is.
    pub fn occupancy(&self) -> Occupancy {
        Occupancy {
            sequences: self.sequences.len(),
            held_blocks: self.pool.held_blocks(),
            prefix_blocks: self.prefix_blocks(),
            media_bytes: self.media.bytes(),
        }
    }

    /// Cache blocks that sequences and kept prefixes hold.
    pub fn held_blocks(&self) -> usize {
        self.pool.held_blocks()
    }

    /// Cache blocks that only kept prefixes hold.
    pub fn prefix_blocks(&self) -> usize {
        debug_assert!(self.kept_are_counted());
        self.pool.kept_blocks()
    }

    /// Whether the count of blocks that only kept prefixes hold is what a walk over them finds.
    fn kept_are_counted(&self) -> bool {
        self.pool.kept_blocks() == self.pool.held_only_by(self.prefixes.tables())
    }

    /// Whether a sequence of so many tokens in all would fit beside what the open sequences may still come to hold.
    pub fn fits(&self, tokens: usize) -> bool {
        debug_assert!(self.kept_are_counted());
        let promised: usize = self
            .sequences
            .values()
            .map(|running| running.promised(&self.pool))
            .sum();
        promised + tokens.div_ceil(BLOCK) < self.pool.blocks_to_be_had()
    }

    /// Takes in a prompt. `reserve` is the most tokens that will be added behind it; nothing is computed yet.
    pub fn open(
        &mut self,
        inputs: Arc<ModelInputs>,
        reserve: usize,
        options: &OpenOptions,
    ) -> Result<SequenceId> {
        self.open_hashed(inputs, None, reserve, options)
    }

    /// Whether the media of a prompt must be hashed before it is opened.
    pub fn wants_hashes(&self) -> bool {
        self.media.keeps_any() || self.prefixes.keeps_any()
    }

    /// As [`Runner::open`], with the hashes of the prompt's media where somebody has made them already, with this
    /// runner's near duplicates.
    pub fn open_hashed(
        &mut self,
        inputs: Arc<ModelInputs>,
        keys: Option<MediaKeys>,
        reserve: usize,
        options: &OpenOptions,
    ) -> Result<SequenceId> {
        self.check_memory(Task::Open)?;
        let tokens = inputs.input_ids.len();
        if reserve > self.capacity() {
            return Err(EngineError::request(format!(
                "room for {reserve} tokens behind the prompt is asked for, and the whole cache holds {}",
                self.capacity()
            )));
        }
        self.model.check_room(inputs.extent(), reserve.max(1))?;
        let mut prompt = self.model.prompt(&inputs)?;
        if options.probe.is_none()
            && let Some(keep) = &options.keep
        {
            prompt.keep = keep.places(&prompt.items, tokens)?;
        }
        if prompt.keep.is_empty() {
            return Err(EngineError::request("the keep list leaves nothing to read"));
        }
        let keys = match keys {
            Some(keys) if keys.keys.len() != prompt.items.len() => {
                return Err(EngineError::request(format!(
                    "the prompt has {} media, and {} hashes were given",
                    prompt.items.len(),
                    keys.keys.len()
                )));
            }
            Some(keys) => Some(keys),
            None if self.wants_hashes() => {
                let config = self.model.config();
                Some(MediaKeys::of(config, &inputs, self.near.as_ref())?)
            }
            None => None,
        };
        let repeats = match &keys {
            Some(keys) => keys.repeats.clone(),
            None => {
                let (config, near) = (self.model.config(), self.near.as_ref());
                let of = |item| Repeats::of(config, &inputs, item, near);
                prompt.items.iter().map(of).collect::<Result<_>>()?
            }
        };
        let probe = match &options.probe {
            Some(options) => Some(Probe::new(&self.model, &inputs, &prompt, options)?),
            None => None,
        };
        // What the probe looks at must run; everything else may have been read before.
        let chain = match &keys {
            Some(keys) if probe.is_none() && self.prefixes.keeps_any() => {
                Some(Chain::new(&inputs, &prompt, keys))
            }
            _ => None,
        };
        let mut reading = Reading {
            inputs,
            prompt,
            keys,
            repeats,
            encoding: None,
            skip: Vec::new(),
            read: 0,
            shared: 0,
            looked: 0,
            chain,
            probe,
        };
        reading.share(0);
        let id = SequenceId(self.next);
        self.next += 1;
        let running = Running {
            state: State::new(),
            reading: Some(reading),
            reserve,
        };
        self.sequences.insert(id, running);
        self.share(id)?;
        Ok(id)
    }

    /// Takes over the beginning of a prompt from one that has been read since it was last looked, as long as nothing of it
    /// has been read for itself.
    pub fn share(&mut self, id: SequenceId) -> Result<()> {
        let running = self.sequences.get_mut(&id).ok_or_else(|| unknown(id))?;
        let Some(reading) = &mut running.reading else {
            return Ok(());
        };
        let edition = self.prefixes.edition();
        let Some(chain) = &reading.chain else {
            return Ok(());
        };
        if reading.looked == edition || reading.read > reading.shared {
            return Ok(());
        }
        reading.looked = edition;
        let mut tables = Default::default();
        let found = self.prefixes.find(chain, &mut self.pool, &mut tables);
        if found > reading.read {
            // Up to now it held what it had before.
            running.state.charge_cache(&self.pool);
            std::mem::swap(&mut running.state.tables, &mut tables);
            reading.share(found);
            running.state.meter.cached_tokens = found as u64;
        }
        self.pool.release(&mut tables);
        Ok(())
    }

    /// Whether a prompt had better wait for one of those `ahead`, which are being read: most of it will then be shared
    /// ([`Runner::share`]) instead of being read twice.
    pub fn had_better_wait(&self, id: SequenceId, ahead: &[SequenceId]) -> bool {
        let reading = |id: &SequenceId| self.sequences.get(id)?.reading.as_ref();
        reading(&id).is_some_and(|own| {
            let mut others = ahead.iter().filter_map(reading);
            others.any(|other| own.had_better_wait(other))
        })
    }

    /// What a sequence needs next.
    pub fn needs(&self, id: SequenceId) -> Result<Needs> {
        Ok(match &self.get(id)?.reading {
            None => Needs::Nothing,
            Some(reading) => reading.needs(),
        })
    }

    /// The media items of a prompt that is being read.
    pub fn items(&self, id: SequenceId) -> Result<&[Item]> {
        match &self.get(id)?.reading {
            Some(reading) => Ok(&reading.prompt.items),
            None => Err(EngineError::request("the prompt has been read")),
        }
    }

    /// Encodes the next media item of a prompt, or takes it from those kept.
    pub fn encode(&mut self, id: SequenceId) -> Result<()> {
        while !self.encode_on(id)? {}
        Ok(())
    }

    /// Goes on with the next media item of a prompt by one block of its encoder. True once the item is there, or if
    /// there was none to encode.
    ///
    /// When it fails the item is begun anew the next time.
    pub fn encode_on(&mut self, id: SequenceId) -> Result<bool> {
        #[cfg(test)]
        assert!(self.trip != Some(id), "on purpose");
        self.check_memory(Task::Encode)?;
        let running = self.sequences.get_mut(&id).ok_or_else(|| unknown(id))?;
        let Some(reading) = &mut running.reading else {
            return Ok(true);
        };
        reading.pass_over();
        let Some(item) = reading.prompt.next_item().cloned() else {
            return Ok(true);
        };
        let number = reading.prompt.encoded;
        let keys = reading.keys.as_ref();
        let key = keys.and_then(|keys| keys.keys.get(number));
        let repeats = reading.repeats.get(number).and_then(Option::as_ref);
        let meter = &mut running.state.meter;
        let features = match reading.encoding.take() {
            Some(mut encoding) => match self.model.encode_on(&mut encoding, meter)? {
                Some(features) => {
                    self.media.put(key.copied(), &features);
                    features
                }
                None => {
                    reading.encoding = Some(encoding);
                    return Ok(false);
                }
            },
            None => match self.media.get(key) {
                Some(features) => features,
                None => {
                    let encoding =
                        (self.model).start_encoding(&reading.inputs, &item, repeats, meter)?;
                    reading.encoding = Some(encoding);
                    return Ok(false);
                }
            },
        };
        if let Some(probe) = &mut reading.probe {
            probe.see(number, &features, repeats, meter)?;
        }
        tch::no_grad(|| reading.prompt.put(&features))?;
        reading.pass_over();
        Ok(true)
    }

    /// What the probe saw, once all of the prompt has been looked at ([`Needs::Keeping`]).
    pub fn probed(&mut self, id: SequenceId) -> Result<ProbeReport> {
        loop {
            if let Some(report) = self.report(id)? {
                return Ok(report.clone());
            }
            self.report_on(id)?;
        }
    }

    /// What the probe saw, if that has been worked out ([`Runner::report_on`]).
    pub fn report(&self, id: SequenceId) -> Result<Option<&ProbeReport>> {
        let probe = self.get(id)?.reading.as_ref();
        match probe.and_then(|reading| reading.probe.as_ref()) {
            Some(probe) => probe.report(),
            None => Err(unprobed()),
        }
    }

    /// Goes on working out what the probe saw, by a piece of the prompt or some rows of the content-free text. When it fails it
    /// is begun anew the next time.
    pub fn report_on(&mut self, id: SequenceId) -> Result<()> {
        self.check_memory(Task::Report)?;
        let running = self.sequences.get_mut(&id).ok_or_else(|| unknown(id))?;
        let Some(Reading {
            probe: Some(probe),
            prompt,
            ..
        }) = &mut running.reading
        else {
            return Err(unprobed());
        };
        // What rides along shares the block in which the item ends, and so copies it.
        let blocks = match probe.beside() {
            0 => 0,
            tokens => tokens.div_ceil(BLOCK) + 1,
        };
        let (pool, prefixes) = (&mut self.pool, &mut self.prefixes);
        give_way(prefixes, pool, |_| [blocks, 0]);
        probe.report_on(&self.model, pool, &mut running.state, prompt)
    }

    /// Goes on behind the probe with what is to be kept: the layers after the probe's see these tokens only. When it
    /// fails nothing has changed.
    pub fn keep(&mut self, id: SequenceId, keep: &Keep) -> Result<()> {
        let running = self.sequences.get_mut(&id).ok_or_else(|| unknown(id))?;
        match &mut running.reading {
            Some(Reading {
                probe: Some(probe),
                prompt,
                read,
                ..
            }) if probe.waiting() => {
                let tokens = prompt.positions.axes.first().map_or(0, Vec::len);
                let places = keep.places(&prompt.items, tokens)?;
                if places.is_empty() {
                    return Err(EngineError::request("the keep list leaves nothing to read"));
                }
                prompt.x = probe.go_on()?;
                prompt.keep = places;
                *read = 0;
                Ok(())
            }
            _ => Err(EngineError::request(
                "this sequence does not wait for a keep list",
            )),
        }
    }

    /// Whether a sequence's prompt is read with a probe, in batches of its own.
    pub fn is_probed(&self, id: SequenceId) -> bool {
        self.sequences.get(&id).is_some_and(Running::probing)
    }

    /// The share of the model's layers that the next piece of a prompt goes through: those of one region where a probe
    /// is in it.
    pub fn share_of_layers(&self, id: SequenceId) -> f64 {
        let [lower, upper] = self
            .pool
            .regions
            .each_ref()
            .map(|region| region.layers().len());
        let probe = |running: &Running| {
            let probe = running.reading.as_ref()?.probe.as_ref()?;
            Some(if probe.going_on() { upper } else { lower })
        };
        match self.sequences.get(&id).and_then(probe) {
            Some(layers) => layers as f64 / (lower + upper).max(1) as f64,
            None => 1.0,
        }
    }

    /// Tokens that a sequence has in the cache.
    pub fn tokens(&self, id: SequenceId) -> Result<usize> {
        Ok(self.get(id)?.state.tokens())
    }

    /// What a sequence has cost so far. A fork's account starts with the fork.
    pub fn meter(&mut self, id: SequenceId) -> Result<&Meter> {
        let running = self.sequences.get_mut(&id).ok_or_else(|| unknown(id))?;
        running.state.charge_cache(&self.pool);
        Ok(&running.state.meter)
    }

    /// Forgets the last `count` tokens that were added behind the prompt.
    pub fn roll_back(&mut self, id: SequenceId, count: usize) -> Result<()> {
        let running = self.sequences.get_mut(&id).ok_or_else(|| unknown(id))?;
        if running.reading.is_some() {
            return Err(EngineError::request(
                "a prompt that is being read cannot be taken back: close the sequence",
            ));
        }
        running.state.roll_back(count, &mut self.pool)
    }

    /// A sequence that goes on from the same tokens, sharing what has been read. The prompt must have been read.
    pub fn fork(&mut self, id: SequenceId) -> Result<SequenceId> {
        let running = self.sequences.get(&id).ok_or_else(|| unknown(id))?;
        if running.reading.is_some() {
            return Err(EngineError::request(
                "a sequence can be forked once its prompt has been read",
            ));
        }
        let forked = Running {
            state: running.state.fork(&mut self.pool),
            reading: None,
            reserve: running.reserve,
        };
        let new = SequenceId(self.next);
        self.next += 1;
        self.sequences.insert(new, forked);
        Ok(new)
    }

    /// Ends a sequence, frees what it held and gives its account.
    pub fn close(&mut self, id: SequenceId) -> Result<Meter> {
        let mut running = self.sequences.remove(&id).ok_or_else(|| unknown(id))?;
        running.state.charge_cache(&self.pool);
        self.pool.release(&mut running.state.tables);
        Ok(running.state.meter)
    }

    /// Puts the cache in order after a panic in any method here was caught. Sequences that the method was called for may
    /// be gone or half changed and must be closed; all else is as it was.
    pub fn recover(&mut self) {
        let running = self.sequences.values().map(|running| &running.state.tables);
        self.pool.recount(running.chain(self.prefixes.tables()));
    }

    /// Forgets prefixes and media that are kept for later.
    pub fn clear_caches(&mut self) {
        while self.prefixes.evict(&mut self.pool) {}
        self.media.clear();
    }

    fn get(&self, id: SequenceId) -> Result<&Running> {
        self.sequences.get(&id).ok_or_else(|| unknown(id))
    }
}

/// Has kept prefixes give way until each region has as many free blocks as are wanted, as far as that helps.
fn give_way(prefixes: &mut PrefixCache, pool: &mut Pool, wanted: impl Fn(&Pool) -> [usize; 2]) {
    while let Some(region) = pool.short_of(wanted(pool))
        && prefixes.evict_from(pool, region)
    {}
}

fn unprobed() -> EngineError {
    EngineError::request("this sequence was opened without a probe")
}

fn unknown(id: SequenceId) -> EngineError {
    EngineError::request(format!(
        "there is no sequence {} here, or it is in the batch twice",
        id.0
    ))
}

impl Running {
    /// Whether its next piece runs one region's layers alone.
    fn probing(&self) -> bool {
        self.reading
            .as_ref()
            .is_some_and(|reading| reading.probe.is_some())
    }

    /// Blocks that it may still come to take in either region.
    fn promised(&self, pool: &Pool) -> usize {
        let Some(reading) = &self.reading else {
            let more = self.reserve.saturating_sub(self.state.added());
            return pool.blocks_for(&self.state.tables, [more; 2]);
        };
        let unread = reading.prompt.keep.len() - reading.read;
        let more = match &reading.probe {
            // While it is looked at, the later layers still have all of it before them.
            Some(probe) if !probe.going_on() => [
                unread + probe.beside().max(self.reserve),
                reading.prompt.keep.len() + self.reserve,
            ],
            Some(_) => [self.reserve, unread + self.reserve],
            None => [unread + self.reserve; 2],
        };
        pool.blocks_for(&self.state.tables, more)
    }
}
