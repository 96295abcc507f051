//! Exchanges generations of plug-ins in plain Rust under load, and prints the figures: what the runtime itself costs.
//!
//! `exchange SWAPS ROLLBACKS CALLS`. With WebAssembly in place of plain Rust: `cargo xtask prove plugins`.

#![allow(clippy::print_stderr)] // a program's business is to print

#[path = "../tests/it/common/mod.rs"]
mod common;

use msao_registry::proof::{Belongs, SwapFigures, SwapRun, swaps};
use msao_registry::state::RecordConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let mut next = |what: &str| numbers.next().ok_or(format!("{what} is missing"));
    let run = SwapRun {
        before: 0,
        swaps: next("SWAPS")??,
        rollbacks: next("ROLLBACKS")??,
        calls: next("CALLS")??,
        threads: 8,
        steps: 4,
    };
    // Small, so that it is full long before the first look at the memory.
    let records = RecordConfig {
        keep: 1000,
        mib: 8,
        ..RecordConfig::default()
    };
    let bench = common::Bench::recording("", records);
    let plugins = bench.plugins();
    let choices = common::two_choices(&plugins);
    plugins.activate(choices[1])?;
    let belongs = Belongs {
        plan: &common::plan_belongs,
        scores: &common::scores_belong,
    };
    let figures = swaps(&plugins, &choices, &belongs, run)?;
    let shown = |name: &str, times: &[f64]| {
        let quantile = |share| SwapFigures::quantile(times, share);
        let (p50, p99, worst) = (quantile(0.5), quantile(0.99), quantile(1.0));
        eprintln!("{name}: p50 {p50:.3} ms, p99 {p99:.3} ms, worst {worst:.3} ms");
    };
    eprintln!(
        "{} swaps, {} requests, {} calls, {} failed, {} mixed, live at the end {} (in memory {}), memory {:?} MiB",
        figures.swaps,
        figures.requests,
        figures.calls,
        figures.failed,
        figures.mixed,
        figures.live_at_end,
        figures.in_memory_at_end,
        figures.memory_mib
    );
    shown("commit to first decision", &figures.first_decision_ms);
    shown("rollback to first decision", &figures.rollback_ms);
    shown("rollback until on the disk", &figures.durable_ms);
    Ok(())
}
