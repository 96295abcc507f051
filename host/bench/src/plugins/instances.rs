//! Memory of many instances.

use anyhow::{Context, Result};
use msao_sandbox::{Sandbox, SandboxConfig};

use super::costs::policy;
use super::inputs::Inputs;
use super::measure::proc_bytes;
use crate::report::Row;

const INSTANCES: u32 = 2000;

/// 2,000 instances of a Rust policy, each of which has planned once.
///
/// # Errors
/// A call fails, or the machine has no room for the pool.
pub fn rows(wasm: &[u8]) -> Result<Vec<Row>> {
    let mut config = SandboxConfig {
        instances: INSTANCES,
        ..SandboxConfig::default()
    };
    // The threads below all wait within a call's time for each other.
    config.limits.plan_ms = 1000;
    let inputs = Inputs::default();
    let sandbox = Sandbox::new(&config)?;
    let policy = policy(&sandbox, wasm)?;
    policy.plan(inputs.plan()).context("a first plan")?;
    let before = proc_bytes("status", "VmRSS")?;
    policy.warm(INSTANCES)?;
    let made = proc_bytes("status", "VmRSS")?;
    // Idle ones are taken from the end of a list; a call that always takes the same would leave the others untouched.
    policy.each_idle(|policy| policy.plan(inputs.plan()).map(drop))?;
    let used = proc_bytes("status", "VmRSS")?;
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Ok(vec![
        Row::told(
            format!("{INSTANCES} Rust instances, just made"),
            mib(made.saturating_sub(before)),
            " MiB",
        ),
        Row::at_most(
            format!("{INSTANCES} Rust instances, each called once"),
            mib(used.saturating_sub(before)),
            100.0,
            " MiB",
        ),
    ])
}
