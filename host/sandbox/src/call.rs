//! One call from its arguments to a checked answer, or to a failure that says all that is known.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use msao_core::digest::Digest;
use msao_core::offload::check::Violation;
use msao_core::offload::manifest::Manifest;
use wasmtime::component::{
    Component, ComponentNamedList, Instance as Linked, InstancePre, Lift, Lower,
};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, WasmBacktrace};

use crate::config::Limits;
use crate::engine::{self, Engines, MAX_STACK};
use crate::error::{Export, Failure, FailureKind, LoadError, OtherType};
use crate::inspect::Inspection;
use crate::instance::{self, Counts, Instance, State, Stillborn};
use crate::pool::{Idle, Pool};
use crate::turns::NotRun;
use crate::typed::{self, OtherTypes};

/// Time in which an instance must be there when a plug-in is loaded or warmed, which no request waits for: a guest in
/// Python has megabytes to be laid out.
const PREPARE_MS: u32 = 200;
/// The same where a request waits for it.
const INSTANTIATE_MS: u32 = 20;
/// Characters of a message from inside a plug-in.
const MAX_MESSAGE: usize = 2048;
/// Characters of a backtrace.
const MAX_BACKTRACE: usize = 8192;
/// Bytes that an answer may be longer than an honest one, so that one that is a little too long is refused by the rule
/// that it breaks.
pub const ANSWER_SLACK: usize = 64 << 10;

/// What a call used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Meter {
    /// Instructions, about; None unless the sandbox is deterministic.
    pub fuel: Option<u64>,
    /// Most bytes that the instance ever had, memories and tables.
    pub memory_peak: u64,
    /// Wall time from arguments to checked answer.
    pub elapsed: Duration,
}

/// What a plug-in uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Instances, idle ones too.
    pub instances: u32,
    /// Most bytes that one of its instances ever had, memories and tables.
    pub memory_peak: u64,
}

/// What is the same for all instances of a plug-in.
pub struct Loaded {
    pub engines: Arc<Engines>,
    pub pre: InstancePre<State>,
    pub limits: Limits,
    pub digest: Digest,
    pub manifest: Manifest,
}

/// The functions that a world exports.
pub trait Functions: Sized + Send + 'static {
    /// Where they are in the component.
    type Indices: Send + Sync;

    /// Finds out where they are.
    fn indices(found: &Found) -> Result<Self::Indices, LoadError>;

    /// Finds them in an instance.
    fn find(
        indices: &Self::Indices,
        store: &mut Store<State>,
        instance: &Linked,
    ) -> wasmtime::Result<Self>;
}

/// What is known of a component.
pub struct Found<'a> {
    pub component: &'a Component,
    pub inspection: &'a Inspection,
    /// The types of what it exports have been held against the contract's before.
    pub compared: bool,
}

impl Found<'_> {
    /// Where `interface.function` is.
    pub fn export<Args, Answer>(
        &self,
        interface: &str,
        function: &'static str,
        full: &'static str,
    ) -> Result<typed::Export<Args, Answer>, LoadError>
    where
        Args: ComponentNamedList + Lower,
        Answer: ComponentNamedList + Lift,
    {
        let component = self.component;
        let name = self.inspection.full_name(interface).unwrap_or_default();
        component
            .get_export_index(None, name.as_str())
            .and_then(|interface| component.get_export_index(Some(&interface), function))
            .map(|index| typed::Export::new(index, full, self.compared))
            .ok_or_else(|| {
                LoadError::Types(vec![OtherType {
                    export: full,
                    problem: "it is missing".to_owned(),
                }])
            })
    }
}

/// A plug-in whose functions are `F`.
pub struct Plug<F: Functions> {
    pub loaded: Loaded,
    name: Arc<str>,
    counts: Arc<Counts>,
    indices: F::Indices,
    pool: Arc<Pool<Instance<F>>>,
    /// The same, as other plug-ins know it.
    idle: Weak<dyn Idle>,
}

impl<F: Functions> Plug<F> {
    /// Makes a first instance, which shows that it can be called: all its exports are there, and have the contract's types.
    /// `compared`: the types are known to be those.
    pub fn new(
        loaded: Loaded,
        inspection: &Inspection,
        compared: bool,
    ) -> Result<Plug<F>, LoadError> {
        let name = format!("{} {}", loaded.manifest.name, loaded.manifest.version);
        let pool = Arc::new(Pool::new(loaded.engines.keep_idle()));
        let idle: Weak<dyn Idle> = Arc::downgrade(&pool) as _;
        let plug = Plug {
            indices: F::indices(&Found {
                component: loaded.pre.component(),
                inspection,
                compared,
            })?,
            name: name.into(),
            counts: Arc::default(),
            pool,
            idle,
            loaded,
        };
        plug.loaded.engines.pools().add(Weak::clone(&plug.idle));
        plug.warm(1)?;
        Ok(plug)
    }

    /// Makes instances until there are `count` of them.
    pub fn warm(&self, count: u32) -> Result<(), LoadError> {
        self.pool.keep_at_least(count as usize);
        while self.counts.live.load(Ordering::Relaxed) < count {
            let instance = self.instantiate(PREPARE_MS).map_err(|stillborn| {
                match stillborn.error.downcast_ref::<OtherTypes>() {
                    Some(OtherTypes(types)) => LoadError::Types(types.clone()),
                    None => LoadError::Instantiate(self.describe(&stillborn, PREPARE_MS).1),
                }
            })?;
            self.pool.put_other(Box::new(instance));
        }
        Ok(())
    }

    /// Where its functions are.
    pub fn indices(&self) -> &F::Indices {
        &self.indices
    }

    /// Calls `f` once for each idle instance, which is the one that a call from within gets.
    pub fn each_idle<E>(&self, mut f: impl FnMut() -> Result<(), E>) -> Result<(), E> {
        let all: Vec<_> = std::iter::from_fn(|| self.pool.take()).collect();
        let mut result = Ok(());
        let mut done = Vec::with_capacity(all.len());
        for instance in all {
            self.pool.put(instance);
            result = result.and_then(|()| f());
            done.extend(self.pool.take());
        }
        done.into_iter().for_each(|it| self.pool.put_other(it));
        result
    }

    pub fn usage(&self) -> Usage {
        Usage {
            instances: self.counts.live.load(Ordering::Relaxed),
            memory_peak: self.counts.memory_peak.load(Ordering::Relaxed),
        }
    }

    /// Makes an instance. Where there is no room, idle ones of other plug-ins make it.
    fn instantiate(&self, deadline_ms: u32) -> Result<Instance<F>, Box<Stillborn>> {
        match self.try_instantiate(deadline_ms) {
            Err(stillborn)
                if stillborn.error.is::<PoolConcurrencyLimitError>()
                    && self.loaded.engines.pools().make_room(&self.idle) =>
            {
                self.try_instantiate(deadline_ms)
            }
            made => made,
        }
    }

    fn try_instantiate(&self, deadline_ms: u32) -> Result<Instance<F>, Box<Stillborn>> {
        Instance::new(
            &self.loaded.engines,
            &self.loaded.pre,
            &self.loaded.limits,
            &self.counts,
            deadline_ms,
            |store, linked| F::find(&self.indices, store, linked),
        )
    }

    /// Calls `export`: `run` does so in an instance, `check` turns its answer into a checked one. `answer_bytes`: what an
    /// honest answer has at most.
    #[inline]
    pub fn call<Raw, Answer>(
        &self,
        export: Export,
        deadline_ms: u32,
        answer_bytes: usize,
        meter: Option<&mut Meter>,
        run: impl FnOnce(&mut Store<State>, &mut F) -> wasmtime::Result<Raw>,
        check: impl FnOnce(Raw) -> Result<Answer, Violation>,
    ) -> Result<Answer, Failure> {
        let deterministic = self.loaded.engines.deterministic();
        let started = Started {
            ticks: self.loaded.engines.ticks(),
            // Reading the clock costs as much as a third of an empty call: only where somebody wants to know.
            at: (deterministic || meter.is_some()).then(Instant::now),
        };
        let mut instance = match self.pool.take() {
            Some(instance) => instance,
            None => self
                .instantiate(INSTANTIATE_MS)
                .map(Box::new)
                .map_err(|stillborn| self.stillborn(export, &stillborn, started))?,
        };
        let Instance { store, functions } = &mut *instance;
        store.set_hostcall_fuel(answer_bytes.saturating_add(ANSWER_SLACK));
        let answer = instance::begin(store, deterministic, deadline_ms)
            .and_then(|()| run(store, functions))
            .map_err(|error| self.failed(export, deadline_ms, answer_bytes, &error, store, started))
            .and_then(|raw| {
                check(raw).map_err(|violation| self.refused(export, violation, store, started))
            })?;
        if let Some(meter) = meter {
            let left = store.get_fuel().ok();
            *meter = Meter {
                fuel: left.map(|left| instance::fuel(deadline_ms).saturating_sub(left)),
                memory_peak: store.data().memory_peak(),
                elapsed: self.elapsed(started),
            };
        }
        self.pool.put(instance);
        Ok(answer)
    }

    fn elapsed(&self, started: Started) -> Duration {
        match started.at {
            Some(at) => at.elapsed(),
            None => engine::ticks(self.loaded.engines.ticks().saturating_sub(started.ticks)),
        }
    }

    #[cold]
    fn failed(
        &self,
        export: Export,
        deadline_ms: u32,
        answer_bytes: usize,
        error: &wasmtime::Error,
        store: &Store<State>,
        started: Started,
    ) -> Failure {
        let (kind, message) = self.explain(error, store.data().refused, deadline_ms, answer_bytes);
        let words = text(&String::from_utf8_lossy(&store.data().last_words));
        let message = if words.is_empty() {
            message
        } else {
            format!("{message}; it wrote: {words}")
        };
        Failure {
            plugin: Arc::clone(&self.name),
            export,
            kind,
            message,
            backtrace: backtrace(error),
            memory_peak: store.data().memory_peak(),
            elapsed: self.elapsed(started),
        }
    }

    #[cold]
    fn refused(
        &self,
        export: Export,
        violation: Violation,
        store: &Store<State>,
        started: Started,
    ) -> Failure {
        Failure {
            plugin: Arc::clone(&self.name),
            export,
            message: format!("its answer was refused: {violation}"),
            kind: FailureKind::Answer(Box::new(violation)),
            backtrace: None,
            memory_peak: store.data().memory_peak(),
            elapsed: self.elapsed(started),
        }
    }

    #[cold]
    fn stillborn(&self, export: Export, stillborn: &Stillborn, started: Started) -> Failure {
        let (kind, message) = self.describe(stillborn, INSTANTIATE_MS);
        Failure {
            plugin: Arc::clone(&self.name),
            export,
            kind,
            message: format!("no instance: {message}"),
            backtrace: backtrace(&stillborn.error),
            memory_peak: stillborn.memory_peak,
            elapsed: self.elapsed(started),
        }
    }

    /// The failure of a call that did not get its turn, or took the host's code down.
    #[cold]
    pub fn not_run(&self, export: Export, why: NotRun) -> Failure {
        let (kind, message) = match why {
            NotRun::Full => (
                FailureKind::Overloaded,
                "`score-threads` score already, and `score-queue` callers wait for them",
            ),
            NotRun::Panicked => (
                FailureKind::Host,
                "the host's own code panicked during the call: a fault of this program, not of the plug-in",
            ),
        };
        Failure {
            plugin: Arc::clone(&self.name),
            export,
            kind,
            message: message.to_owned(),
            backtrace: None,
            memory_peak: 0,
            elapsed: Duration::ZERO,
        }
    }

    fn describe(&self, stillborn: &Stillborn, deadline_ms: u32) -> (FailureKind, String) {
        match self.explain(&stillborn.error, stillborn.refused, deadline_ms, 0) {
            (FailureKind::Answer(_) | FailureKind::Trap, message) => {
                (FailureKind::Instantiate, message)
            }
            other => other,
        }
    }

    /// What kind of failure `error` is, and what it says in a line.
    fn explain(
        &self,
        error: &wasmtime::Error,
        refused: bool,
        deadline_ms: u32,
        answer_bytes: usize,
    ) -> (FailureKind, String) {
        let trap = error.downcast_ref::<Trap>();
        match trap {
            Some(Trap::Interrupt) => {
                let message = format!("ran past its deadline of {deadline_ms} ms");
                return (FailureKind::Deadline, message);
            }
            Some(Trap::OutOfFuel) => {
                let fuel = instance::fuel(deadline_ms);
                let message = format!(
                    "ran past its deadline of {deadline_ms} ms, which is {fuel} instructions here"
                );
                return (FailureKind::Deadline, message);
            }
            _ => {}
        }
        if error.is::<PoolConcurrencyLimitError>() {
            let message = "all instances that `instances` allows are in use".to_owned();
            return (FailureKind::Overloaded, message);
        }
        if refused {
            let message = format!(
                "wanted more memory than its {} MiB or more table elements than its {}",
                self.loaded.limits.memory_mib, self.loaded.limits.table_elements
            );
            return (FailureKind::Memory, message);
        }
        match trap {
            Some(Trap::StackOverflow) => {
                let message = format!("recursed deeper than {} KiB of stack", MAX_STACK >> 10);
                (FailureKind::Trap, message)
            }
            Some(trap) => (FailureKind::Trap, text(&trap.to_string())),
            None if error.is::<WasmBacktrace>() => {
                (FailureKind::Trap, text(&error.root_cause().to_string()))
            }
            // No code of the plug-in was running: what it returned cannot be read.
            None => {
                let cause = error.root_cause().to_string();
                let rule = if cause.starts_with(TOO_MUCH) {
                    format!(
                        "is longer than {} bytes",
                        answer_bytes.saturating_add(ANSWER_SLACK)
                    )
                } else {
                    format!("cannot be read: {}", text(&cause))
                };
                let violation = Violation {
                    field: "answer".to_owned(),
                    rule,
                };
                let message = format!("its answer was refused: {violation}");
                (FailureKind::Answer(Box::new(violation)), message)
            }
        }
    }
}

/// How wasmtime begins to say that lists are longer than `set_hostcall_fuel` allows; the error's type is private.
const TOO_MUCH: &str = "too much data";

#[derive(Clone, Copy)]
struct Started {
    ticks: u64,
    at: Option<Instant>,
}

fn backtrace(error: &wasmtime::Error) -> Option<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>()?;
    let all = backtrace.to_string();
    // Its first line says that it is one.
    let frames = all
        .split_once('\n')
        .map_or(all.as_str(), |(_, frames)| frames);
    Some(lines(frames))
}

/// Lines that hold names from inside a plug-in: bounded, and without what would steer a terminal.
fn lines(from_inside: &str) -> String {
    let bounded = from_inside.chars().take(MAX_BACKTRACE);
    let plain = bounded.map(|c| if c.is_control() && c != '\n' { ' ' } else { c });
    plain.collect()
}

/// What comes from inside a plug-in, fit for a log: one line, bounded.
pub fn text(from_inside: &str) -> String {
    let line = from_inside.trim().chars().take(MAX_MESSAGE);
    line.map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_inside_steers_no_terminal() {
        let name = "0: p.wasm!\x1b[2Jplan\r\n1: p.wasm!\u{9b}31m";
        assert_eq!(lines(name), "0: p.wasm! [2Jplan \n1: p.wasm! 31m");
        assert_eq!(text(name), "0: p.wasm! [2Jplan  1: p.wasm! 31m");
        assert_eq!(lines(&"x".repeat(10_000)).len(), MAX_BACKTRACE);
    }
}
