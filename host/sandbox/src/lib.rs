//! Runs plug-ins: the only crate that knows wasmtime.
//!
//! A plug-in is a WebAssembly component that somebody else has written. It gets what is in its arguments and nothing else:
//! no files, no clock, no network. What this crate promises, whatever the component does:
//!
//! - A call ends: at its answer, at a failure, or soon after its deadline. The aim is 2 ms; `cargo xtask prove plugins` measures it.
//!   One instruction that fills a whole memory is not interrupted, and a new instance has a limit of its own (20 ms), so
//!   [`Plugin::warm`] what requests will call.
//! - Its memory, over all its memories and tables, stays within its limit; what it answers is bounded before it is copied.
//! - An answer that is handed out keeps every rule of the contract ([`msao_core::offload::check`]).
//! - One call's failure touches no other: each instance has a Store of its own, which is dropped on any failure.
//! - The same input gives the same answer: floating point is canonical, time and randomness are arguments.
//!
//! Read first: [`Sandbox`] (loads), [`Policy`] and [`PostProcessor`] (are called), [`Failure`] (what went wrong).
//!
//! # Threads
//! Everything here is synchronous. [`Sandbox::load`] compiles, which takes from milliseconds to seconds: never on a
//! request's path. Calls run on the thread that makes them, which needs 1 MiB of stack: `step`, `plan` and `observe` are
//! short enough to be called from a task directly, `explain`, which may run for 100 ms, is not. `score` may run for 50 ms,
//! so only a few threads score at once, the others wait, and when too many wait already the next one fails at once as
//! overloaded. Called from a thread that tasks do not need (`tokio::task::block_in_place`), a slow post-processor delays
//! other scores and never a plan.
//!
//! The clock of deadlines is a thread of its own. It asks for real-time priority, else for a raised one, and does without
//! where the system gives neither: then a runaway on a busy machine is stopped later.
//!
//! ```no_run
//! use msao_core::offload::manifest::Manifest;
//! use msao_core::offload::{Calibration, Decision, PlanInput, Request};
//! use msao_sandbox::{Plugin, Sandbox, SandboxConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let sandbox = Sandbox::new(&SandboxConfig::default())?;
//! let manifest = Manifest::parse(&std::fs::read_to_string("policy.toml")?)?;
//! let Plugin::Policy(policy) = sandbox.load(&std::fs::read("target/patient.wasm")?, &manifest)? else {
//!     return Err("a policy is wanted".into());
//! };
//! let decision = policy.plan(PlanInput {
//!     request: &Request::default(),
//!     parts: &[],
//!     nodes: &[],
//!     params: &manifest.defaults(),
//!     calibration: &Calibration::default(),
//! })?;
//! # let _: Decision = decision;
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

mod cache;
mod call;
mod config;
mod cpu_time;
mod engine;
mod error;
mod inspect;
mod instance;
mod policy;
mod pool;
mod postprocessor;
mod priority;
mod turns;
mod typed;
mod wasi;
// The contract says what its records mean.
#[allow(missing_docs)]
mod wire;

use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::manifest::{Manifest, World};
use wasmtime::component::Linker;

pub use crate::call::{Meter, Usage};
pub use crate::config::{LimitOverrides, Limits, SandboxConfig};
pub use crate::error::{Export, Failure, FailureKind, LoadError, OtherType, SandboxError};
pub use crate::inspect::{CONTRACT, Inspection, inspect};
pub use crate::policy::Policy;
pub use crate::postprocessor::PostProcessor;

/// What a sandbox of this configuration tells wasmtime: for a prover that measures bare wasmtime beside it.
#[doc(hidden)]
pub use crate::engine::settings as engine_settings;

use crate::cache::{Cache, Compiled};
use crate::call::{Loaded, text};
use crate::engine::Engines;

/// Where plug-ins are loaded. A clone is the same sandbox.
#[derive(Clone)]
pub struct Sandbox {
    inner: Arc<Inner>,
}

struct Inner {
    config: SandboxConfig,
    engines: Arc<Engines>,
    cache: Option<Cache>,
}

/// A plug-in that can be called.
#[derive(Clone)]
pub enum Plugin {
    /// World `offload-policy`.
    Policy(Arc<Policy>),
    /// World `probe-postprocessor`.
    PostProcessor(Arc<PostProcessor>),
}

impl Plugin {
    /// The component's digest.
    pub fn digest(&self) -> &Digest {
        match self {
            Plugin::Policy(it) => it.digest(),
            Plugin::PostProcessor(it) => it.digest(),
        }
    }

    /// The manifest that it was loaded with.
    pub fn manifest(&self) -> &Manifest {
        match self {
            Plugin::Policy(it) => it.manifest(),
            Plugin::PostProcessor(it) => it.manifest(),
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        match self {
            Plugin::Policy(it) => it.limits(),
            Plugin::PostProcessor(it) => it.limits(),
        }
    }

    /// Makes instances until there are `count` of them, so that the first calls need not.
    ///
    /// # Errors
    /// [`LoadError::Instantiate`].
    pub fn warm(&self, count: u32) -> Result<(), LoadError> {
        match self {
            Plugin::Policy(it) => it.warm(count),
            Plugin::PostProcessor(it) => it.warm(count),
        }
    }

    /// What it uses now.
    pub fn usage(&self) -> Usage {
        match self {
            Plugin::Policy(it) => it.usage(),
            Plugin::PostProcessor(it) => it.usage(),
        }
    }
}

impl Sandbox {
    /// Sets up an engine with room for `config.instances` instances, and opens the cache.
    ///
    /// # Errors
    /// [`SandboxError`]: a value that may not be, no room, or a cache that cannot be used.
    pub fn new(config: &SandboxConfig) -> Result<Sandbox, SandboxError> {
        config.check()?;
        let engines = Engines::new(config)?;
        let cache = (config.cache.as_deref())
            .map(|folder| {
                let most = u64::from(config.cache_mib) << 20;
                Cache::open(folder, most, engines.engine())
            })
            .transpose()?;
        Ok(Sandbox {
            inner: Arc::new(Inner {
                config: config.clone(),
                engines: Arc::new(engines),
                cache,
            }),
        })
    }

    /// Checks a component against `manifest` and the contract, compiles it or takes it from the cache, and makes a first
    /// instance. Slow: never on a request's path.
    ///
    /// # Errors
    /// [`LoadError`]: what is wrong and how to mend it.
    pub fn load(&self, wasm: &[u8], manifest: &Manifest) -> Result<Plugin, LoadError> {
        let limits = self.limits(wasm, manifest)?;
        self.load_within(wasm, &Digest::of(wasm), manifest, limits)
    }

    /// Like [`Sandbox::load`], for a caller that has verified that `digest` is the digest of `wasm`, as a store does that reads
    /// files named by their content: where compiled code is kept, the component's own bytes are then not looked at again. A
    /// wrong digest would name another component's code.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load_named(
        &self,
        wasm: &[u8],
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<Plugin, LoadError> {
        let limits = self.limits(wasm, manifest)?;
        self.load_within(wasm, digest, manifest, limits)
    }

    /// What a plug-in may use; that it is not too large comes first, before anything reads all of it.
    fn limits(&self, wasm: &[u8], manifest: &Manifest) -> Result<Limits, LoadError> {
        let limits = self.inner.config.limits_for(manifest)?;
        let limit = u64::from(limits.artifact_mib) << 20;
        let bytes = wasm.len() as u64;
        if bytes > limit {
            return Err(LoadError::TooLarge { bytes, limit });
        }
        Ok(limits)
    }

    fn load_within(
        &self,
        wasm: &[u8],
        digest: &Digest,
        manifest: &Manifest,
        limits: Limits,
    ) -> Result<Plugin, LoadError> {
        let inner = &*self.inner;
        inner.engines.start_clock()?;
        let engine = inner.engines.engine();
        let kept = (inner.cache.as_ref()).and_then(|cache| cache.get(engine, digest));
        let Compiled {
            component,
            inspection,
            compared,
            fresh,
        } = match kept {
            Some(kept) => {
                kept.inspection.check(manifest.world)?;
                kept
            }
            None => {
                let inspection = inspect(wasm)?;
                inspection.check(manifest.world)?;
                cache::compile(engine, wasm, inspection, inner.cache.is_some())?
            }
        };
        let mut linker = Linker::new(engine);
        let pre = wasi::link(&mut linker, &component)
            .and_then(|()| linker.instantiate_pre(&component))
            .map_err(|error| LoadError::Compile(text(&format!("{error:#}"))))?;
        let loaded = Loaded {
            engines: Arc::clone(&inner.engines),
            pre,
            limits,
            digest: *digest,
            manifest: manifest.clone(),
        };
        // A component may serve both worlds: what was compared for one says nothing of the other.
        let compared = compared == Some(manifest.world);
        let plugin = match manifest.world {
            World::OffloadPolicy => {
                Plugin::Policy(Arc::new(Policy::new(loaded, &inspection, compared)?))
            }
            World::ProbePostprocessor => {
                let made = PostProcessor::new(loaded, &inspection, compared)?;
                Plugin::PostProcessor(Arc::new(made))
            }
        };
        if let (Some(cache), Some(code)) = (&inner.cache, fresh) {
            cache.keep(digest, &code, &inspection, manifest.world);
        }
        Ok(plugin)
    }

    /// What the operator allows the plug-in called `name`.
    pub fn limits_of(&self, name: &str) -> Limits {
        self.inner.config.limits_of(name)
    }

    /// Whether deadlines are in instructions.
    pub fn deterministic(&self) -> bool {
        self.inner.config.deterministic
    }
}
