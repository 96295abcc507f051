//! What verifying and batching cost, beside what the machine allows.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use msao_core::inputs::ModelInputs;
use msao_engine::{
    LoadOptions, Model, OpenOptions, Padding, Place, Precision, Runner, RunnerOptions, SequenceId,
    Work,
};

use crate::machine::{BELIEVABLE, Machine};
use crate::report::Row;

/// Tokens drafted; a verifying pass reads these and the last committed one.
const DRAFT: usize = 8;
/// Sequences in the batch.
const BATCH: usize = 16;
/// Random tokens of each prompt.
const PROMPT: usize = 64;
/// How often each pass is timed; the fastest counts.
const REPEATS: usize = 12;

/// Rows for the twin in `dir`. In anything but bf16, which the aims are for, the figures are told and not judged.
pub fn rows(dir: &Path, place: Place, precision: Precision, threads: usize) -> Result<Vec<Row>> {
    let mut machine = Machine::measure(place, threads)?;
    let Passes {
        seconds,
        flops,
        bytes,
    } = passes(dir, place, precision, Padding::Auto)?;
    let [step, verify, batch] = seconds;
    let [step_flops, verify_flops, batch_flops] = flops;
    let bf16 = precision == Precision::Bf16;
    let rate = if bf16 {
        machine.bf16_flops_per_s
    } else {
        machine.f32_flops_per_s
    };
    let verify_floor = step.max(verify_flops / rate);
    let judged = place == Place::Cpu && bf16;
    let step_share = machine.share(step, bytes, step_flops, bf16)?;
    let batch_share = machine.share(batch, bytes, batch_flops, bf16)?;
    let mut rows = machine.rows();
    let step_row = Row::told("one decode step, batch 1", 1e3 * step, " ms");
    rows.push(step_row.with_details(vec![format!("{precision:?} on {place}, {threads} threads")]));
    rows.push(
        Row::told("share of the limit, one step", step_share, " %")
            .with_details(vec![machine.memory_limit()]),
    );
    rows.push(Row::told(
        format!("verify of {DRAFT} drafted tokens"),
        1e3 * verify,
        " ms",
    ));
    let name = "verify over the larger of a step and its FLOPs at the matrix rate";
    rows.push(if judged {
        Row::at_most(name, verify / verify_floor, 1.5, "")
    } else {
        Row::told(name, verify / verify_floor, "")
    });
    rows.push(Row::told(
        format!("one step of {BATCH} sequences"),
        1e3 * batch,
        " ms",
    ));
    let name = format!("{BATCH} sequences: share of the roofline");
    rows.push(if judged {
        Row::between(name, batch_share, 70.0, BELIEVABLE, " %")
    } else {
        Row::told(name, batch_share, " %")
    });
    if place == Place::Cpu && !bf16 {
        let why = "the aims are for bf16, which this processor has no instructions for";
        rows.push(Row::failed("verify and batch", "judged", why));
    }
    if place != Place::Cpu {
        // The same, each operation asked for by itself.
        let [step, verify, batch] = passes(dir, place, precision, Padding::Never)?.seconds;
        for (what, seconds) in [
            ("one decode step", step),
            ("verify", verify),
            ("one step of the batch", batch),
        ] {
            let name = format!("{what} without CUDA graphs");
            rows.push(Row::told(name, 1e3 * seconds, " ms"));
        }
    }
    Ok(rows)
}

/// What passes over the same sequences take.
struct Passes {
    /// Of one step, of a verify, of a step of the batch.
    seconds: [f64; 3],
    flops: [f64; 3],
    /// Bytes that each pass over text reads.
    bytes: f64,
}

fn passes(dir: &Path, place: Place, precision: Precision, padding: Padding) -> Result<Passes> {
    let options = LoadOptions {
        place,
        precision,
        ..Default::default()
    };
    let model = Model::load(dir, &options)?;
    let caches = RunnerOptions {
        prefixes: 0,
        media_cache_bytes: 0,
        padding,
        ..Default::default()
    };
    let mut runner = Runner::new(model, &caches)?;
    let mut ids = Vec::with_capacity(BATCH);
    for number in 0..BATCH {
        let input_ids = (0..PROMPT)
            .map(|place| (20 + (place * 31 + number * 7) % 500) as u32)
            .collect();
        let inputs = Arc::new(ModelInputs {
            input_ids,
            ..Default::default()
        });
        let id = runner.open(inputs, 64, &OpenOptions::default())?;
        runner.run(&[(id, Work::Read(PROMPT))])?;
        ids.push(id);
    }
    let first = *ids.first().context("no sequence")?;
    let tokens: Vec<u32> = (30..31 + DRAFT as u32).collect();
    let one = tokens.get(..1).context("no token")?;
    let mut seconds = [f64::INFINITY; 3];
    let mut flops = [0f64; 3];
    // In turn, so that whatever disturbs the machine disturbs all three.
    for _ in 0..REPEATS {
        let batches: [Vec<(SequenceId, Work)>; 3] = [
            vec![(first, Work::Extend(one))],
            vec![(first, Work::Extend(&tokens))],
            ids.iter().map(|&id| (id, Work::Extend(one))).collect(),
        ];
        for ((batch, best), flops) in batches.iter().zip(&mut seconds).zip(&mut flops) {
            let before = spent(&mut runner, &ids)?;
            let started = Instant::now();
            runner.run(batch)?;
            *best = best.min(started.elapsed().as_secs_f64());
            *flops = spent(&mut runner, &ids)? - before;
            for (id, work) in batch {
                let Work::Extend(tokens) = work else { continue };
                runner.roll_back(*id, tokens.len())?;
            }
        }
    }
    Ok(Passes {
        seconds,
        flops,
        bytes: runner.model().language_bytes() as f64,
    })
}

/// Operations charged to all sequences together.
fn spent(runner: &mut Runner, ids: &[SequenceId]) -> Result<f64> {
    let mut flops = 0.0;
    for &id in ids {
        flops += runner.meter(id)?.flops() as f64;
    }
    Ok(flops)
}
