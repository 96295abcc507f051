//! The engine that compiles and runs, and the thread that tells it the time.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::{
    Config, Engine, EngineWeak, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

use crate::config::SandboxConfig;
use crate::error::SandboxError;

/// The unit of deadlines.
pub const TICK: Duration = Duration::from_millis(1);
/// Bytes of stack that a plug-in may use of its calling thread.
pub const MAX_STACK: usize = 512 << 10;
/// Core modules' instances in one component: those of Python have some thirty.
const CORE_INSTANCES: u32 = 64;
/// Memories in one component.
const MEMORIES: u32 = 8;
/// Tables in one component.
const TABLES: u32 = 16;
/// Frames of a backtrace.
const FRAMES: usize = 32;

/// An engine with its clock.
pub struct Engines {
    engine: Engine,
    deterministic: bool,
    ticks: Arc<AtomicU64>,
    ticking: OnceLock<()>,
}

impl Engines {
    /// Reserves the pool that `config` asks for; memory is taken only as instances use it.
    ///
    /// # Errors
    /// [`SandboxError::Engine`] where the machine cannot.
    pub fn new(config: &SandboxConfig) -> Result<Engines, SandboxError> {
        let engine = Engine::new(&settings(config))
            .map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        Ok(Engines {
            engine,
            deterministic: config.deterministic,
            ticks: Arc::default(),
            ticking: OnceLock::new(),
        })
    }

    /// wasmtime's engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Whether deadlines are in instructions.
    pub fn deterministic(&self) -> bool {
        self.deterministic
    }

    /// Ticks since the clock was started.
    #[inline]
    pub fn ticks(&self) -> u64 {
        self.ticks.load(Ordering::Relaxed)
    }

    /// Starts the clock, once. It ends with the engine.
    pub fn start_clock(&self) -> Result<(), SandboxError> {
        if self.deterministic || self.ticking.get().is_some() {
            return Ok(());
        }
        let mut started = Ok(());
        self.ticking.get_or_init(|| {
            let (engine, ticks) = (self.engine.weak(), Arc::clone(&self.ticks));
            started = thread::Builder::new()
                .name("plugin-clock".to_owned())
                .spawn(move || tick(&engine, &ticks))
                .map(drop);
        });
        started.map_err(|error| SandboxError::Engine(format!("no thread for its clock: {error}")))
    }
}

/// Advances the epoch once a millisecond of wall time for as long as the engine is there. When this thread was kept from
/// the processor it catches up, so that deadlines stay true.
fn tick(engine: &EngineWeak, ticks: &AtomicU64) {
    let start = Instant::now();
    let mut told = 0;
    loop {
        let next = TICK.saturating_mul(told + 1);
        thread::sleep(next.saturating_sub(start.elapsed()));
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let now = u32::try_from(start.elapsed().as_millis()).unwrap_or(u32::MAX);
        while told < now {
            engine.increment_epoch();
            ticks.fetch_add(1, Ordering::Relaxed);
            told += 1;
        }
    }
}

fn settings(config: &SandboxConfig) -> Config {
    let mut settings = Config::new();
    settings
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)))
        // A synchronous call costs three times as much with it.
        .concurrency_support(false)
        .max_wasm_stack(MAX_STACK)
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES))
        .cranelift_opt_level(OptLevel::Speed)
        // The same bits on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(true)
        .relaxed_simd_deterministic(true)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_memory(true)
        .wasm_memory64(false)
        .wasm_tail_call(false);
    if config.deterministic {
        settings.consume_fuel(true);
    } else {
        settings.epoch_interruption(true);
    }
    settings
}

fn pool(config: &SandboxConfig) -> PoolingAllocationConfig {
    let most = |count: u32| config.instances.saturating_mul(count);
    let memory = config.largest(|limits| limits.memory_mib) as usize;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(config.instances)
        // Most components have one memory and a few small modules; a pool of the largest for all would be wasted.
        .total_core_instances(most(8).max(CORE_INSTANCES))
        .total_memories(most(2).max(MEMORIES))
        .total_tables(most(4).max(TABLES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_memories_per_component(MEMORIES)
        .max_memories_per_module(MEMORIES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .max_memory_size(memory << 20)
        .table_elements(config.largest(|limits| limits.table_elements) as usize);
    pool
}
