//! One instance of a plug-in in a Store of its own: its memory, its deadline, its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::{Instance as Linked, InstancePre};
use wasmtime::{ResourceLimiter, Store, UpdateDeadline};

use crate::config::Limits;
use crate::cpu_time::processor_time;
use crate::engine::Engines;

/// Bytes of an element of a table.
const TABLE_ELEMENT: u64 = 8;
/// Handles to resources that an instance may hold at once: a few for the streams and clocks that its language opens.
const MAX_HANDLES: usize = 256;
/// Bytes that an instance may hand over while it is made. It has nothing to say yet.
const SAID_MEANWHILE: usize = 64 << 10;
/// Where the fixed sequence begins that stands for randomness.
const RANDOM_START: u64 = 0x6d73_616f;
/// Processor time that a call gets after its deadline before it is stopped: it is then known to be running, and not to have
/// been kept from the processor by others.
const GRACE: Duration = Duration::from_micros(500);

/// Instances of one plug-in, and the most memory that one of them ever had.
#[derive(Debug, Default)]
pub struct Counts {
    /// Instances now.
    pub live: AtomicU32,
    /// Bytes.
    pub memory_peak: AtomicU64,
}

/// What a Store knows of its plug-in.
pub struct State {
    /// Bytes of all memories and tables.
    memory: u64,
    memory_peak: u64,
    memory_limit: u64,
    table_elements: u64,
    table_limit: u64,
    /// Bytes and elements granted last, to be taken back if they are not used.
    granted: (u64, u64),
    /// Whether growth was refused since the call began.
    pub refused: bool,
    /// Processor time of this thread when the deadline was first noticed to be over.
    overdue: Option<Duration>,
    /// The end of what the plug-in wrote to standard error since the call began.
    pub last_words: Vec<u8>,
    random: u64,
    counts: Arc<Counts>,
}

impl State {
    fn new(limits: &Limits, counts: Arc<Counts>) -> State {
        State {
            memory: 0,
            memory_peak: 0,
            memory_limit: u64::from(limits.memory_mib) << 20,
            table_elements: 0,
            table_limit: u64::from(limits.table_elements),
            granted: (0, 0),
            refused: false,
            overdue: None,
            last_words: Vec::new(),
            random: RANDOM_START,
            counts,
        }
    }

    /// Forgets the call before.
    #[inline]
    fn begin(&mut self) {
        self.refused = false;
        self.overdue = None;
        self.random = RANDOM_START;
        if !self.last_words.is_empty() {
            self.last_words.clear();
        }
    }

    /// Most bytes so far, memories and tables.
    pub fn memory_peak(&self) -> u64 {
        self.memory_peak
    }

    /// The next number of the fixed sequence (SplitMix64, Steele et al. 2014).
    pub fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn grow(&mut self, bytes: u64, elements: u64) -> bool {
        self.granted = (0, 0);
        let memory = self.memory.saturating_add(bytes);
        let table_elements = self.table_elements.saturating_add(elements);
        if memory > self.memory_limit || table_elements > self.table_limit {
            self.refused = true;
            return false;
        }
        self.granted = (bytes, elements);
        (self.memory, self.table_elements) = (memory, table_elements);
        if memory > self.memory_peak {
            self.memory_peak = memory;
            self.counts.memory_peak.fetch_max(memory, Ordering::Relaxed);
        }
        true
    }

    fn take_back(&mut self) {
        let (bytes, elements) = std::mem::take(&mut self.granted);
        self.memory = self.memory.saturating_sub(bytes);
        self.table_elements = self.table_elements.saturating_sub(elements);
        self.refused = true;
    }

    /// What becomes of a call whose deadline is over. It is stopped once it has run on for [`GRACE`] of processor time; one
    /// that other threads have kept from the processor gets to finish.
    fn overdue(&mut self) -> UpdateDeadline {
        let now = processor_time();
        match self.overdue {
            Some(since) if now.saturating_sub(since) >= GRACE => UpdateDeadline::Interrupt,
            Some(_) => UpdateDeadline::Continue(1),
            None => {
                self.overdue = Some(now);
                UpdateDeadline::Continue(1)
            }
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.counts.live.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ResourceLimiter for State {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The module's own maximum: refused by its own wish, and no failure of ours.
        if maximum.is_some_and(|maximum| desired > maximum && maximum as u64 <= self.memory_limit) {
            return Ok(false);
        }
        Ok(self.grow(desired.saturating_sub(current) as u64, 0))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current) as u64;
        Ok(self.grow(elements.saturating_mul(TABLE_ELEMENT), elements))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }
}

/// A plug-in's functions `F` in their Store.
pub struct Instance<F> {
    pub store: Store<State>,
    pub functions: F,
}

/// Why there is no instance, with the Store's last state.
pub struct Stillborn {
    pub error: wasmtime::Error,
    pub refused: bool,
    pub memory_peak: u64,
}

impl<F> Instance<F> {
    /// Instantiates within `deadline_ms`. `functions` finds the exports.
    pub fn new(
        engines: &Engines,
        pre: &InstancePre<State>,
        limits: &Limits,
        counts: &Arc<Counts>,
        deadline_ms: u32,
        functions: impl FnOnce(&mut Store<State>, &Linked) -> wasmtime::Result<F>,
    ) -> Result<Instance<F>, Box<Stillborn>> {
        counts.live.fetch_add(1, Ordering::Relaxed);
        let mut store = Store::new(engines.engine(), State::new(limits, Arc::clone(counts)));
        store.limiter(|state| state);
        store.set_max_component_handles(MAX_HANDLES);
        store.set_hostcall_fuel(SAID_MEANWHILE);
        if !engines.deterministic() {
            store.epoch_deadline_callback(|mut store| Ok(store.data_mut().overdue()));
        }
        let made = begin(&mut store, engines.deterministic(), deadline_ms)
            .and_then(|()| pre.instantiate(&mut store))
            .and_then(|linked| functions(&mut store, &linked));
        match made {
            Ok(functions) => Ok(Instance { store, functions }),
            Err(error) => Err(Box::new(Stillborn {
                error,
                refused: store.data().refused,
                memory_peak: store.data().memory_peak,
            })),
        }
    }
}

/// Instructions that stand for a millisecond in a deterministic sandbox: about what a slow core executes in one.
const FUEL_PER_MS: u64 = 1_000_000;

/// The fuel of a deadline.
pub fn fuel(deadline_ms: u32) -> u64 {
    u64::from(deadline_ms) * FUEL_PER_MS
}

/// Starts the clock of a call.
#[inline]
pub fn begin(
    store: &mut Store<State>,
    deterministic: bool,
    deadline_ms: u32,
) -> wasmtime::Result<()> {
    store.data_mut().begin();
    if deterministic {
        return store.set_fuel(fuel(deadline_ms));
    }
    // The current tick has partly gone: this many later the deadline is not quite over, and one more is the grace.
    store.set_epoch_deadline(u64::from(deadline_ms));
    Ok(())
}
