//! Whatever a sequence shares its passes with, it gets the logits of one that runs alone, token by token.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use msao_core::inputs::ModelInputs;
use msao_core::sampling::{Sampler, SamplingParams, Scratch};
use msao_engine::{
    Keep, Kernels, LoadOptions, Model, Needs, OpenOptions, Padding, Place, Precision, ProbeOptions,
    Quantize, Runner, RunnerOptions, SequenceId, Work, items,
};
use msao_processor::Processor;

use super::{prepare, questions};
use crate::report::Row;

/// How the way in which the noise is measured is called.
const BATCHED: &str = "many sequences in one batch";
/// Largest difference of a logit in f32.
const AIM: f64 = 1e-4;
/// Prompts, spread over the held-out questions.
const PROMPTS: usize = 24;
/// Tokens of each answer.
const ANSWER: usize = 24;
/// Drafted tokens in a pass.
const DRAFT: usize = 8;

/// A prompt, and what it gets alone.
struct Alone {
    inputs: Arc<ModelInputs>,
    /// The greedy answer.
    tokens: Vec<u32>,
    /// Logits after the prompt and after each token.
    rows: Vec<Vec<f32>>,
}

/// What a way of running came to.
#[derive(Default)]
struct Tally {
    /// Largest difference of a logit.
    worst: f64,
    rows: usize,
    /// Margins (of logits at temperature 1, with noise) where another token was chosen.
    differing: Vec<f64>,
}

impl Tally {
    fn compare(
        &mut self,
        ours: &[f32],
        alone: &[f32],
        sampler: &Sampler,
        index: u32,
    ) -> Result<()> {
        self.rows += 1;
        if ours.len() != alone.len() {
            self.worst = f64::INFINITY;
            return Ok(());
        }
        for (a, b) in ours.iter().zip(alone) {
            let difference = f64::from((a - b).abs());
            if difference.is_nan() || difference > self.worst {
                self.worst = if difference.is_nan() {
                    f64::INFINITY
                } else {
                    difference
                };
            }
        }
        let mut scratch = Scratch::default();
        let expected = sampler.pick(alone, index, None, &mut scratch)?;
        if sampler.pick(ours, index, None, &mut scratch)?.id != expected.id {
            self.differing.push(expected.margin);
        }
        Ok(())
    }
}

/// Rows for the demo target in `models`, on the processor by our own kernels and by libtorch, or on a GPU.
pub fn rows(models: &Path, place: Place) -> Result<Vec<Row>> {
    let dir = models.join("demo-target");
    let mut rows = Vec::new();
    let ways: &[(Kernels, Padding, &str)] = match place {
        Place::Cpu => &[
            (Kernels::Best, Padding::Auto, "own kernels"),
            (Kernels::Libtorch, Padding::Auto, "libtorch"),
            (Kernels::Libtorch, Padding::Always, "libtorch, padded"),
        ],
        Place::Cuda(_) => &[
            (Kernels::Best, Padding::Never, "cuda"),
            (Kernels::Best, Padding::Auto, "cuda, graphs"),
        ],
    };
    for (kernels, padding, name) in ways {
        let options = LoadOptions {
            place,
            precision: Precision::F32,
            kernels: *kernels,
            ..Default::default()
        };
        rows.extend(held_to_the_aim(models, &dir, &options, *padding, name)?);
    }
    let (padding, name) = match place {
        Place::Cpu => (Padding::Auto, "own kernels"),
        Place::Cuda(_) => (Padding::Auto, "cuda, graphs"),
    };
    for (quantize, held) in [(None, "bf16"), (Some(Quantize::Int8), "int8 and bf16")] {
        let options = LoadOptions {
            place,
            precision: Precision::Bf16,
            quantize,
            ..Default::default()
        };
        rows.extend(divergence(
            models,
            &dir,
            &options,
            padding,
            &format!("{name}, {held}"),
        )?);
    }
    Ok(rows)
}

/// How often another token is chosen where numbers are coarse: told, as system.md has it.
fn divergence(
    models: &Path,
    dir: &Path,
    options: &LoadOptions,
    padding: Padding,
    name: &str,
) -> Result<Vec<Row>> {
    let (tallies, _) = all_ways(models, dir, options, padding)?;
    let rows = tallies.into_iter().map(|(what, tally)| {
        let share = 100.0 * tally.differing.len() as f64 / tally.rows.max(1) as f64;
        let largest = tally.differing.iter().copied().fold(0.0, f64::max);
        Row::told(format!("{name}: {what}, another token at temperature 1"), share, " %").with_details(vec![format!(
            "{} of {}; largest difference of a logit {:.1e}, largest margin where the token was another {largest:.1e}",
            tally.differing.len(),
            tally.rows,
            tally.worst,
        )])
    });
    Ok(rows.collect())
}

fn held_to_the_aim(
    models: &Path,
    dir: &Path,
    options: &LoadOptions,
    padding: Padding,
    name: &str,
) -> Result<Vec<Row>> {
    let (tallies, leaked) = all_ways(models, dir, options, padding)?;
    // The noise is what batches show, as system.md has it: an error elsewhere must not excuse itself.
    let noise = tallies
        .iter()
        .find(|(what, _)| *what == BATCHED)
        .map_or(0.0, |(_, tally)| tally.worst);
    let mut rows: Vec<Row> = tallies
        .iter()
        .map(|(what, tally)| {
            Row::at_most(
                format!(
                    "{name}: {what}, largest difference of {} logit rows",
                    tally.rows
                ),
                tally.worst,
                AIM,
                "",
            )
        })
        .collect();
    let differing = tallies.iter().flat_map(|(_, tally)| &tally.differing);
    let (ties, real): (Vec<f64>, Vec<f64>) = differing.partition(|&&margin| margin < 2.0 * noise);
    let checked: usize = tallies.iter().map(|(_, tally)| tally.rows).sum();
    let failures = real
        .iter()
        .map(|margin| format!("another token where the margin is {margin:.2e}"))
        .collect();
    rows.push(Row::all(
        format!("{name}: the same token at temperature 1, numerical ties apart"),
        checked,
        failures,
    ));
    rows.push(Row::told(
        format!("{name}: numerical ties (margin below twice {noise:.1e})"),
        ties.len() as f64,
        "",
    ));
    rows.push(Row::at_most(
        format!("{name}: cache blocks still held at the end"),
        leaked as f64,
        0.0,
        "",
    ));
    Ok(rows)
}

/// Runs all ways; gives what each came to, and the cache blocks that are left over.
fn all_ways(
    models: &Path,
    dir: &Path,
    options: &LoadOptions,
    padding: Padding,
) -> Result<(Vec<(&'static str, Tally)>, usize)> {
    let processor = Processor::load(dir)?;
    let all = questions(models)?;
    let model = Model::load(dir, options)?;
    let mut alone = Vec::with_capacity(PROMPTS);
    for question in all
        .iter()
        .step_by((all.len() / PROMPTS).max(1))
        .take(PROMPTS)
    {
        let inputs = Arc::new(prepare(&processor, question)?.inputs);
        alone.push(run_alone(&model, inputs)?);
    }
    let vocabulary = processor.tokenizer().vocab_size() as u32;
    let params = SamplingParams {
        temperature: 1.0,
        seed: 11,
        ..Default::default()
    };
    let sampler = Sampler::new(params, vocabulary, &[])?;
    let plain = RunnerOptions {
        cache_bytes: 512 << 20,
        media_cache_bytes: 0,
        prefixes: 0,
        padding,
        ..Default::default()
    };
    let mut runner = Runner::new(model, &plain)?;
    let mut tallies = vec![
        (
            "verifying drafts in one pass",
            verified(&mut runner, &alone, &sampler)?,
        ),
        (
            "drafting, rolling back, then decoding",
            rolled_back(&mut runner, &alone, &sampler)?,
        ),
        (
            "prompts read in chunks",
            chunked(&mut runner, &alone, &sampler)?,
        ),
        (BATCHED, batched(&mut runner, &alone, &sampler)?),
        (
            "answers split off from one another",
            split_off(&mut runner, &alone, &sampler)?,
        ),
        (
            "a full keep list before the first layer",
            kept(&mut runner, &alone, &sampler, false)?,
        ),
        (
            "a full keep list behind the probe",
            kept(&mut runner, &alone, &sampler, true)?,
        ),
    ];
    let leaked = runner.occupancy().held_blocks;
    drop(runner);
    let caching = RunnerOptions {
        cache_bytes: 512 << 20,
        padding,
        ..RunnerOptions::default()
    };
    let mut runner = Runner::new(Model::load(dir, options)?, &caching)?;
    tallies.push((
        "a cached prefix and cached media",
        cached(&mut runner, &alone, &sampler)?,
    ));
    runner.clear_caches();
    let leaked = leaked + runner.occupancy().held_blocks;
    Ok((tallies, leaked))
}

/// Prefill at once, then token by token, with a cache of its own.
fn run_alone(model: &Model, inputs: Arc<ModelInputs>) -> Result<Alone> {
    let mut sequence = model.start()?;
    let mut rows = vec![model.prefill(&inputs, &mut sequence)?];
    let mut tokens = Vec::with_capacity(ANSWER);
    for _ in 0..ANSWER {
        let row = rows.last().context("no logits")?;
        let best = (0u32..)
            .zip(row)
            .fold((0, f32::NEG_INFINITY), |best, (id, &x)| {
                if x > best.1 { (id, x) } else { best }
            });
        tokens.push(best.0);
        rows.push(model.extend(&[best.0], &mut sequence)?);
    }
    Ok(Alone {
        inputs,
        tokens,
        rows,
    })
}

/// Encodes and reads a prompt in pieces.
fn read(runner: &mut Runner, id: SequenceId, piece: usize) -> Result<Vec<f32>> {
    loop {
        match runner.needs(id)? {
            Needs::Encoding => runner.encode(id)?,
            Needs::Reading(_) => {
                let rows = runner.run(&[(id, Work::Read(piece))])?;
                if !rows.of(0).is_empty() {
                    return Ok(rows.of(0).to_vec());
                }
            }
            Needs::Keeping | Needs::Nothing => return Ok(Vec::new()),
        }
    }
}

fn open(runner: &mut Runner, alone: &Alone, options: &OpenOptions) -> Result<SequenceId> {
    let reserve = ANSWER + 2 * DRAFT;
    Ok(runner.open(Arc::clone(&alone.inputs), reserve, options)?)
}

/// Compares rows that follow the answer's token number `first` - 1 and after.
fn compare(
    tally: &mut Tally,
    sampler: &Sampler,
    alone: &Alone,
    first: usize,
    ours: &[f32],
) -> Result<()> {
    let width = alone.rows.first().map_or(1, Vec::len);
    for (place, row) in (first..).zip(ours.chunks(width)) {
        let expected = alone.rows.get(place).context("too many rows")?;
        tally.compare(row, expected, sampler, place as u32)?;
    }
    Ok(())
}

fn verified(runner: &mut Runner, all: &[Alone], sampler: &Sampler) -> Result<Tally> {
    let mut tally = Tally::default();
    for alone in all {
        let id = open(runner, alone, &OpenOptions::default())?;
        read(runner, id, usize::MAX)?;
        for (round, draft) in alone.tokens.chunks(DRAFT).enumerate() {
            let rows = runner.run(&[(id, Work::Extend(draft))])?;
            let ours = rows.of(0);
            compare(&mut tally, sampler, alone, round * DRAFT + 1, ours)?;
        }
        runner.close(id)?;
    }
    Ok(tally)
}

fn rolled_back(runner: &mut Runner, all: &[Alone], sampler: &Sampler) -> Result<Tally> {
    let mut tally = Tally::default();
    for alone in all {
        let id = open(runner, alone, &OpenOptions::default())?;
        read(runner, id, usize::MAX)?;
        for (place, &token) in alone.tokens.iter().enumerate() {
            // A draft that is wrong, forgotten at once.
            let wrong: Vec<u32> = (0..1 + place % DRAFT).map(|n| 30 + n as u32).collect();
            runner.run(&[(id, Work::Extend(&wrong))])?;
            runner.roll_back(id, wrong.len())?;
            let rows = runner.run(&[(id, Work::Extend(&[token]))])?;
            let ours = rows.of(0);
            compare(&mut tally, sampler, alone, place + 1, ours)?;
        }
        runner.close(id)?;
    }
    Ok(tally)
}

fn chunked(runner: &mut Runner, all: &[Alone], sampler: &Sampler) -> Result<Tally> {
    let mut tally = Tally::default();
    for alone in all {
        for piece in [17, 64] {
            let id = open(runner, alone, &OpenOptions::default())?;
            let ours = read(runner, id, piece)?;
            compare(&mut tally, sampler, alone, 0, &ours)?;
            runner.close(id)?;
        }
    }
    Ok(tally)
}

/// All at once, each one token further along than the one before; prompts still being read ride along.
fn batched(runner: &mut Runner, all: &[Alone], sampler: &Sampler) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut open_now: Vec<(SequenceId, usize)> = Vec::new();
    let mut waiting = all.iter().enumerate();
    let mut running: Vec<usize> = Vec::new();
    loop {
        for (index, alone) in waiting.by_ref().take(2) {
            let id = open(runner, alone, &OpenOptions::default())?;
            while runner.needs(id)? == Needs::Encoding {
                runner.encode(id)?;
            }
            open_now.push((id, 0));
            running.push(index);
        }
        if open_now.is_empty() {
            return Ok(tally);
        }
        let mut batch = Vec::with_capacity(open_now.len());
        for ((id, place), index) in open_now.iter().zip(&running) {
            let alone = all.get(*index).context("no such prompt")?;
            let work = match runner.needs(*id)? {
                Needs::Reading(_) => Work::Read(50),
                _ => Work::Extend(alone.tokens.get(*place..*place + 1).context("no token")?),
            };
            batch.push((*id, work));
        }
        let rows = runner.run(&batch)?;
        for (((_, place), index), ((_, work), ours)) in open_now
            .iter_mut()
            .zip(&running)
            .zip(batch.iter().zip(rows.iter()))
        {
            let alone = all.get(*index).context("no such prompt")?;
            match work {
                Work::Read(_) => compare(&mut tally, sampler, alone, 0, ours)?,
                _ => {
                    *place += 1;
                    compare(&mut tally, sampler, alone, *place, ours)?;
                }
            }
        }
        let mut still = Vec::new();
        let mut still_running = Vec::new();
        for ((id, place), index) in open_now.drain(..).zip(running.drain(..)) {
            if place == ANSWER {
                runner.close(id)?;
            } else {
                still.push((id, place));
                still_running.push(index);
            }
        }
        open_now = still;
        running = still_running;
    }
}

/// Two answers to one prompt part in the middle; both go on as the one alone does, by turns.
fn split_off(runner: &mut Runner, all: &[Alone], sampler: &Sampler) -> Result<Tally> {
    let mut tally = Tally::default();
    for alone in all {
        let id = open(runner, alone, &OpenOptions::default())?;
        read(runner, id, usize::MAX)?;
        let (begun, rest) = alone.tokens.split_at(ANSWER / 3);
        runner.run(&[(id, Work::Extend(begun))])?;
        let other = runner.fork(id)?;
        for (place, token) in (begun.len() + 1..).zip(rest) {
            for sequence in [id, other] {
                let rows = runner.run(&[(sequence, Work::Extend(std::slice::from_ref(token)))])?;
                compare(&mut tally, sampler, alone, place, rows.of(0))?;
            }
        }
        runner.close(id)?;
        runner.close(other)?;
    }
    Ok(tally)
}

fn kept(runner: &mut Runner, all: &[Alone], sampler: &Sampler, probe: bool) -> Result<Tally> {
    let mut tally = Tally::default();
    for alone in all {
        let found = items(runner.model().config(), &alone.inputs)?;
        let keep = Keep {
            items: found
                .iter()
                .map(|item| Some((0..item.places.len() as u32).collect()))
                .collect(),
        };
        let options = OpenOptions {
            keep: (!probe).then(|| keep.clone()),
            probe: probe.then(|| ProbeOptions {
                content_free: vec![30, 31, 32],
                seed: 1,
            }),
        };
        let id = open(runner, alone, &options)?;
        let mut ours = read(runner, id, 64)?;
        if probe {
            runner.probed(id)?;
            runner.keep(id, &keep)?;
            ours = read(runner, id, 64)?;
        }
        compare(&mut tally, sampler, alone, 0, &ours)?;
        let rows = runner.run(&[(id, Work::Extend(&alone.tokens))])?;
        compare(&mut tally, sampler, alone, 1, rows.of(0))?;
        runner.close(id)?;
    }
    Ok(tally)
}

fn cached(runner: &mut Runner, all: &[Alone], sampler: &Sampler) -> Result<Tally> {
    let mut tally = Tally::default();
    for alone in all {
        for turn in 0..2 {
            let id = open(runner, alone, &OpenOptions::default())?;
            if turn == 1 && runner.needs(id)? != Needs::Reading(1) {
                // Nothing was found where everything should have been.
                tally.worst = f64::INFINITY;
            }
            let ours = read(runner, id, 64)?;
            compare(&mut tally, sampler, alone, 0, &ours)?;
            let rows = runner.run(&[(id, Work::Extend(&alone.tokens))])?;
            compare(&mut tally, sampler, alone, 1, rows.of(0))?;
            runner.close(id)?;
        }
    }
    Ok(tally)
}
