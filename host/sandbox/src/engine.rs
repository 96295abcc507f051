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
use crate::pool::Pools;
use crate::priority;
use crate::turns::Turns;

/// The unit of deadlines.
pub const TICK: Duration = Duration::from_millis(1);
/// Bytes of stack that a plug-in may use of its calling thread.
pub const MAX_STACK: usize = 512 << 10;
/// One plug-in's idle instances are this part of all that may be.
const IDLE_SHARE: u32 = 4;
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
    pools: Pools,
    keep_idle: usize,
    turns: Turns,
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
            pools: Pools::default(),
            keep_idle: config.instances.div_ceil(IDLE_SHARE) as usize,
            turns: Turns::new(config.score_threads, config.score_queue),
        })
    }

    /// wasmtime's engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The pools of all plug-ins.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Whose turn it is to `score`.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Idle instances that a plug-in keeps which nobody has asked for, beside those of threads.
    pub fn keep_idle(&self) -> usize {
        self.keep_idle
    }

    /// Whether deadlines are in instructions.
    pub fn deterministic(&self) -> bool {
        self.deterministic
    }

    /// Ticks since the clock was started, which no run of a program exhausts.
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
    // A clock of ordinary priority is a clock all the same.
    let _ = priority::raise();
    let start = Instant::now();
    let mut told = 0;
    loop {
        thread::sleep(until_next(start.elapsed(), told));
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let due = due(start.elapsed(), told);
        for _ in 0..due {
            engine.increment_epoch();
        }
        ticks.fetch_add(due, Ordering::Relaxed);
        told += due;
    }
}

/// Ticks that are to be told after `elapsed`, when `told` have been.
fn due(elapsed: Duration, told: u64) -> u64 {
    // Of nanoseconds in 64 bits there are 584 years.
    let passed = elapsed.as_nanos() / TICK.as_nanos();
    u64::try_from(passed)
        .unwrap_or(u64::MAX)
        .saturating_sub(told)
}

/// Time to the tick after `told`.
fn until_next(elapsed: Duration, told: u64) -> Duration {
    ticks(told.saturating_add(1)).saturating_sub(elapsed)
}

/// How long so many ticks are.
pub fn ticks(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// What a sandbox of `config` tells wasmtime.
pub fn settings(config: &SandboxConfig) -> Config {
    let mut settings = Config::new();
    settings
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)))
        // A synchronous call costs three times as much with it.
        .concurrency_support(false)
        .max_wasm_stack(MAX_STACK)
        .wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES))
        // wasmtime finds its way by frame pointers; the tables are for debuggers, and registering them takes time at each load.
        .native_unwind_info(false)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_milliseconds() {
        assert_eq!(ticks(7), 7 * TICK);
        for (elapsed_us, told, expected) in [
            (0, 0, 0),
            (999, 0, 0),
            (1000, 0, 1),
            (5500, 2, 3),
            (5500, 5, 0),
            (5500, 9, 0),
        ] {
            let elapsed = Duration::from_micros(elapsed_us);
            assert_eq!(due(elapsed, told), expected, "{elapsed:?}, {told}");
        }
        assert_eq!(
            until_next(Duration::from_micros(5300), 5),
            Duration::from_micros(700)
        );
        assert_eq!(until_next(Duration::from_micros(5300), 2), Duration::ZERO);
    }

    /// 49.7 days are 2^32 milliseconds.
    #[test]
    fn the_clock_goes_on_after_months() {
        let edge = u64::from(u32::MAX);
        for count in [edge - 1, edge, edge + 1, 2 * edge + 7, edge * 1000] {
            assert_eq!(due(ticks(count + 1), count), 1, "{count}");
            let before = ticks(count + 1) - Duration::from_nanos(1);
            assert_eq!(due(before, count), 0, "{count}");
            assert_eq!(until_next(ticks(count), count), TICK, "{count}");
        }
    }
}
