//! What comes before a first call, beside bare wasmtime with the sandbox's own settings: an instance, and what is made of a
//! file of compiled code.
#![allow(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use msao_core::digest::Digest;
use msao_sandbox::{Policy, Sandbox, SandboxConfig, engine_settings};
use wasmtime::component::{Component, Instance, InstancePre, Linker};
use wasmtime::{Engine, Store};

use super::costs::load_named;
use super::measure::median;
use crate::report::Row;

/// How much more than bare wasmtime the sandbox may take.
const RATIO: f64 = 1.3;
/// What the same takes on the machine of facts.md, on which the empty call takes 0.15 us. To compare with, and no aim here.
const INSTANTIATE_US: f64 = 20.0;
/// Instances of each side.
const INSTANCES: u32 = 40;
/// Loads of each side.
const LOADS: u32 = 50;

fn wasmtime_error(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}

/// wasmtime with the sandbox's settings and nothing around it: no authentication, no limits, no deadline, no search for the
/// contract's functions.
struct Bare {
    engine: Engine,
    file: PathBuf,
}

impl Bare {
    /// `cache`: where a sandbox of the same settings keeps the component called `digest`.
    fn new(config: &SandboxConfig, cache: &Path, digest: &Digest) -> Result<Bare> {
        let engine = Engine::new(&engine_settings(config)).map_err(wasmtime_error)?;
        let name = digest.to_string();
        let kept = std::fs::read_dir(cache)?.filter_map(|entry| Some(entry.ok()?.path()));
        let file = kept
            .filter(|path| path.extension().is_some_and(|it| it == "cwasm"))
            .find(|path| {
                let own = path.file_name().unwrap_or_default().to_string_lossy();
                own.starts_with(&name)
            })
            .with_context(|| format!("no compiled code of {name} in {}", cache.display()))?;
        Ok(Bare { engine, file })
    }

    fn prepare(&self) -> Result<InstancePre<()>> {
        // SAFETY: this process's own sandbox has compiled it with the same settings, in a folder that nobody else knows.
        let component = unsafe { Component::deserialize_file(&self.engine, &self.file) };
        let component = component.map_err(wasmtime_error)?;
        let mut linker = Linker::new(&self.engine);
        linker
            .define_unknown_imports_as_traps(&component)
            .and_then(|()| linker.instantiate_pre(&component))
            .map_err(wasmtime_error)
    }

    fn instantiate(&self, pre: &InstancePre<()>) -> Result<(Store<()>, Instance)> {
        let mut store = Store::new(&self.engine, ());
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = pre.instantiate(&mut store).map_err(wasmtime_error)?;
        Ok((store, instance))
    }
}

fn us(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// A policy from the cache, and another instance of it, each by turns with bare wasmtime: medians. `sandbox` keeps compiled
/// code in `cache` by `config`, and `policy` in it. `orientation_ms`: what a load takes on the machine of facts.md.
///
/// # Errors
/// The component is refused.
pub fn rows(
    name: &str,
    (sandbox, config, cache): (&Sandbox, &SandboxConfig, &Path),
    (wasm, policy): (&[u8], &Policy),
    orientation_ms: Option<f64>,
) -> Result<Vec<Row>> {
    let digest = policy.digest();
    let bare = Bare::new(config, cache, digest)?;
    let mut loads = (Vec::new(), Vec::new());
    for _ in 0..LOADS {
        let start = Instant::now();
        // As a node does: its store has read the component by its digest, and found it whole.
        let loaded = load_named(sandbox, wasm, digest, policy.manifest())?;
        loads.0.push(us(start) / 1000.0);
        drop(loaded);
        let start = Instant::now();
        let made = bare.instantiate(&bare.prepare()?)?;
        loads.1.push(us(start) / 1000.0);
        drop(made);
    }
    let start = Instant::now();
    Digest::of(wasm);
    let digesting = us(start) / 1000.0;
    let mut instances = (Vec::new(), Vec::new());
    let pre = bare.prepare()?;
    let mut kept = vec![bare.instantiate(&pre)?];
    let first = policy.usage().instances;
    for count in 1..=INSTANCES.min(config.instances.saturating_sub(first)) {
        let start = Instant::now();
        policy.warm(first + count)?;
        instances.0.push(us(start));
        let start = Instant::now();
        kept.push(bare.instantiate(&pre)?);
        instances.1.push(us(start));
    }
    let [loaded, bare_loaded] = [loads.0, loads.1].map(median);
    let [made, bare_made] = [instances.0, instances.1].map(median);
    let orientation = |value: Option<f64>, unit: &str| match value {
        Some(value) => format!("for orientation: {value}{unit}; "),
        None => String::new(),
    };
    let rust_or_c = orientation_ms == Some(1.0);
    let loading = format!("{name}: from the ahead-of-time cache to callable");
    let making = format!("{name}: instantiate");
    Ok(vec![
        Row::told(loading.clone(), loaded, " ms").with_details(vec![
            format!(
                "{}bare wasmtime {bare_loaded:.3} ms, which believes the file",
                orientation(orientation_ms, " ms")
            ),
            format!(
                "and {digesting:.1} ms for the digest of {} bytes where the caller does not know it",
                wasm.len()
            ),
        ]),
        Row::at_most(format!("{loading}, sandbox / bare"), loaded / bare_loaded, RATIO, ""),
        Row::told(making.clone(), made, " us").with_details(vec![format!(
            "{}bare wasmtime {bare_made:.1} us",
            orientation(rust_or_c.then_some(INSTANTIATE_US), " us")
        )]),
        Row::at_most(format!("{making}, sandbox / bare"), made / bare_made, RATIO, ""),
    ])
}
