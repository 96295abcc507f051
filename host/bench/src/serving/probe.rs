//! What a look at the media costs: on top of a prefill that goes on from it, and alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use msao_core::inputs::{Grid, ModelInputs};
use msao_engine::{
    Keep, LoadOptions, Model, Needs, OpenOptions, Place, Precision, ProbeOptions, Runner,
    RunnerOptions, SequenceId, Work,
};

use super::noise_prompt;
use crate::report::Row;

/// Text tokens behind the item.
const TEXT: usize = 24;
/// How often each is timed; the fastest counts.
const REPEATS: usize = 5;

/// Pictures of 256, 576 and 1,024 tokens, and a clip of 30 frames (15 pairs of 64 tokens), as grids of patches.
const ITEMS: [(&str, Grid); 4] = [
    ("picture of 256 tokens", Grid { t: 1, h: 32, w: 32 }),
    ("picture of 576 tokens", Grid { t: 1, h: 48, w: 48 }),
    ("picture of 1,024 tokens", Grid { t: 1, h: 64, w: 64 }),
    (
        "clip of 30 frames, 960 tokens",
        Grid {
            t: 15,
            h: 16,
            w: 16,
        },
    ),
];

/// Seconds and operations of something.
#[derive(Clone, Copy)]
struct Cost {
    seconds: f64,
    flops: f64,
}

/// Rows for the model in `dir`.
pub fn rows(dir: &Path, name: &str, place: Place, precision: Precision) -> Result<Vec<Row>> {
    let options = LoadOptions {
        place,
        precision,
        ..Default::default()
    };
    let caches = RunnerOptions {
        prefixes: 0,
        media_cache_bytes: 0,
        ..Default::default()
    };
    let mut runner = Runner::new(Model::load(dir, &options)?, &caches)?;
    let mut rows = Vec::new();
    for (what, grid) in ITEMS {
        let inputs = Arc::new(noise_prompt(runner.model().config(), grid, TEXT));
        let mut plain = Cost::worst();
        let mut reused = Cost::worst();
        let mut alone = Cost::worst();
        for _ in 0..REPEATS {
            plain.better(prefill(&mut runner, &inputs)?);
            let (looked, whole) = probe(&mut runner, &inputs)?;
            alone.better(looked);
            reused.better(whole);
        }
        let added = |with: f64, without: f64| 100.0 * (with / without - 1.0);
        rows.push(Row::told(
            format!("{name}, {what}: prefill, encoder included"),
            1e3 * plain.seconds,
            " ms",
        ));
        rows.push(Row::told(
            format!("{name}, {what}: probe adds to a prefill that goes on from it, time"),
            added(reused.seconds, plain.seconds),
            " %",
        ));
        rows.push(Row::told(
            format!("{name}, {what}: probe adds, FLOPs"),
            added(reused.flops, plain.flops),
            " %",
        ));
        rows.push(Row::told(
            format!("{name}, {what}: probe alone, of a prefill's time"),
            100.0 * alone.seconds / plain.seconds,
            " %",
        ));
        rows.push(Row::told(
            format!("{name}, {what}: probe alone, of a prefill's FLOPs"),
            100.0 * alone.flops / plain.flops,
            " %",
        ));
    }
    Ok(rows)
}

impl Cost {
    fn worst() -> Self {
        Cost {
            seconds: f64::INFINITY,
            flops: 0.0,
        }
    }

    fn better(&mut self, other: Cost) {
        self.seconds = self.seconds.min(other.seconds);
        self.flops = other.flops;
    }
}

fn read(runner: &mut Runner, id: SequenceId) -> Result<()> {
    loop {
        match runner.needs(id)? {
            Needs::Encoding => runner.encode(id)?,
            Needs::Reading(left) => drop(runner.run(&[(id, Work::Read(left))])?),
            Needs::Keeping | Needs::Nothing => return Ok(()),
        }
    }
}

fn prefill(runner: &mut Runner, inputs: &Arc<ModelInputs>) -> Result<Cost> {
    let started = Instant::now();
    let id = runner.open(Arc::clone(inputs), 8, &OpenOptions::default())?;
    read(runner, id)?;
    let seconds = started.elapsed().as_secs_f64();
    let flops = runner.close(id)?.flops() as f64;
    Ok(Cost { seconds, flops })
}

/// The cost of looking alone, and of looking and going on with everything kept.
fn probe(runner: &mut Runner, inputs: &Arc<ModelInputs>) -> Result<(Cost, Cost)> {
    let options = OpenOptions {
        keep: None,
        probe: Some(ProbeOptions {
            content_free: (30..42).collect(),
            seed: 1,
        }),
    };
    let started = Instant::now();
    let id = runner.open(Arc::clone(inputs), 8, &options)?;
    read(runner, id)?;
    let report = runner.probed(id)?;
    let looked = Cost {
        seconds: started.elapsed().as_secs_f64(),
        flops: runner.meter(id)?.flops() as f64,
    };
    let keep = Keep {
        items: vec![None; report.items.len()],
    };
    runner.keep(id, &keep)?;
    read(runner, id)?;
    let seconds = started.elapsed().as_secs_f64();
    let flops = runner.close(id)?.flops() as f64;
    Ok((looked, Cost { seconds, flops }))
}
