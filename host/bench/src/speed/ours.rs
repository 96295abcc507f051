//! Our side of the comparison, in a process of its own so that its memory can be told apart.

use std::io::{BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use msao_core::inputs::ModelInputs;
use msao_engine::{
    LoadOptions, Model, OpenOptions, Place, Precision, Quantize, Runner, RunnerOptions, SequenceId,
    Work,
};

use super::child::{Modes, Ready, Request, Told};
use crate::loading::anonymous_bytes;

/// The hidden command that measures.
pub const COMMAND: &str = "serving-speed";

/// Loads a model and answers each [`Request`] on standard input with a [`Told`] on standard output.
///
/// # Errors
/// The model cannot be loaded, or the pipes have gone.
pub fn serve(
    dir: &Path,
    precision: &str,
    weights: &str,
    threads: usize,
    place: Place,
) -> Result<()> {
    // Before anything else with libtorch: see there.
    place.open()?;
    msao_engine::set_threads(threads);
    let bare = anonymous_bytes()?;
    let options = LoadOptions {
        place,
        precision: precision.parse::<Precision>().map_err(|e| anyhow!(e))?,
        quantize: (weights == "int8").then_some(Quantize::Int8),
        ..Default::default()
    };
    let model = Model::load(dir, &options)?;
    // Every run reads its prompts anew, as the reference does.
    let caches = RunnerOptions {
        media_cache_bytes: 0,
        prefixes: 0,
        ..RunnerOptions::default()
    };
    let mut runner = Runner::new(model, &caches)?;
    say(&Ready {
        weight_bytes: runner.model().weight_bytes(),
        cache_bytes: match place {
            Place::Cpu => 0,
            Place::Cuda(_) => caches.cache_bytes,
        },
    })?;
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        match answer(&mut runner, &request, bare, place) {
            Ok(told) => say(&told)?,
            Err(error) => say(&serde_json::json!({ "error": format!("{error:#}") }))?,
        }
    }
    Ok(())
}

fn say(value: &impl serde::Serialize) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(value)?)?;
    Ok(out.flush()?)
}

/// A run that warms up and is watched for its memory, then the fastest of the others: as the reference is measured.
fn answer(runner: &mut Runner, request: &Request, bare: u64, place: Place) -> Result<Told> {
    place.memory(true);
    let peak = watched(|| run(runner, request))?;
    let mut best: Option<Told> = None;
    for _ in 0..request.repeats {
        let told = run(runner, request)?;
        best = Some(match best {
            None => told,
            Some(best) => best.best(told),
        });
    }
    let mut told = best.ok_or_else(|| anyhow!("nothing was to be repeated"))?;
    told.peak_anonymous_bytes = peak.saturating_sub(bare);
    told.peak_device_bytes = place.memory(false).map_or(0, |memory| memory.peak);
    Ok(told)
}

/// The peak of anonymous memory while `work` runs.
fn watched(work: impl FnOnce() -> Result<Told>) -> Result<u64> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_bytes().unwrap_or(0));
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        let worked = work();
        done.store(true, Ordering::Relaxed);
        let peak = watcher.join().map_err(|_| anyhow!("the watcher failed"))?;
        worked?;
        Ok(peak.max(anonymous_bytes()?))
    })
}

/// All prompts in one batch, through the engine's [`Runner`]; nothing is kept from an earlier run.
fn run(runner: &mut Runner, request: &Request) -> Result<Told> {
    let (prompts, new_tokens) = (&request.prompts, request.new_tokens);
    let length = prompts.first().map_or(0, Vec::len);
    ensure!(
        new_tokens >= 2,
        "new_tokens is {new_tokens}; 2 are needed to time a step"
    );
    ensure!(
        prompts.iter().all(|prompt| prompt.len() == length),
        "the prompts of a batch must be equally long"
    );
    let started = Instant::now();
    let mut ids = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let inputs = ModelInputs {
            input_ids: prompt.clone(),
            ..ModelInputs::default()
        };
        ids.push(runner.open(Arc::new(inputs), new_tokens, &OpenOptions::default())?);
    }
    let read: Vec<(SequenceId, Work)> = ids.iter().map(|&id| (id, Work::Read(length))).collect();
    let logits = runner.run(&read)?;
    let mut answers: Vec<Vec<u32>> = logits.iter().map(|row| vec![largest(row)]).collect();
    let first = started.elapsed();
    for _ in 1..new_tokens {
        let last: Vec<[u32; 1]> = answers
            .iter()
            .filter_map(|answer| answer.last().map(|&id| [id]))
            .collect();
        let step: Vec<(SequenceId, Work)> = ids
            .iter()
            .zip(&last)
            .map(|(&id, token)| (id, Work::Extend(token)))
            .collect();
        let rows = runner.run(&step)?;
        for (answer, row) in answers.iter_mut().zip(rows.iter()) {
            answer.push(largest(row));
        }
    }
    let decode = started.elapsed() - first;
    for id in ids {
        runner.close(id)?;
    }
    Ok(told(answers, length, first, decode))
}

fn told(tokens: Vec<Vec<u32>>, prompt: usize, first: Duration, decode: Duration) -> Told {
    let batch = tokens.len() as f64;
    let steps = tokens.first().map_or(0, Vec::len).saturating_sub(1) as f64;
    Told {
        modes: Modes::default(),
        prompt_tokens: prompt,
        new_tokens: steps as usize + 1,
        decode_tokens_per_s: batch * steps / decode.as_secs_f64(),
        prefill_tokens_per_s: batch * prompt as f64 / first.as_secs_f64(),
        first_token_ms: 1e3 * first.as_secs_f64(),
        peak_anonymous_bytes: 0,
        peak_device_bytes: 0,
        tokens,
    }
}

/// The index of the largest logit, the first of equal ones, as `argmax` chooses.
fn largest(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, &value) in (0u32..).zip(logits) {
        if value > best.1 {
            best = (index, value);
        }
    }
    best.0
}
