//! What clients of [`Service`] see: the speed of many answers at once with the sampler in the loop, and how long a running
//! answer stands still while others bring large pictures.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use msao_core::inputs::{Grid, ModelInputs};
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::service::{Event, Open, Service, ServiceOptions, Session, Tell};
use msao_engine::{LoadOptions, OpenOptions, Place, Precision, RunnerOptions};

use super::noise_prompt;
use crate::report::Row;

/// Answers at once.
const BATCH: usize = 16;
/// Tokens of a prompt.
const PROMPT: usize = 64;
/// Tokens of an answer.
const ANSWER: usize = 48;
/// Pictures that come together.
const BURST: usize = 8;
/// Side of a picture in patches: 1,024 tokens where four patches make one.
const SIDE: usize = 64;
/// Most tokens of the answer that runs meanwhile.
const RUNNING: usize = 3000;

/// Rows for the checkpoint in `dir`.
pub fn rows(dir: &Path, name: &str, place: Place, precision: Precision) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let load = LoadOptions {
            place,
            precision,
            ..Default::default()
        };
        let options = ServiceOptions {
            runner: RunnerOptions {
                cache_bytes: 2 << 30,
                ..Default::default()
            },
            ..Default::default()
        };
        let service = Service::start(dir.to_owned(), load, options).await?;
        let mut rows = Vec::new();
        for temperature in [0.0, 1.0] {
            let rate = batch(&service, temperature).await?;
            rows.push(Row::told(
                format!("{name}: {BATCH} answers at once, temperature {temperature}"),
                rate,
                " tokens/s",
            ));
        }
        let (rate, rows_a_pass) = one_by_one(&service).await?;
        let what = format!("{name}: {BATCH} answers at once, each token ordered by itself");
        rows.push(Row::told(what.clone(), rate, " tokens/s"));
        rows.push(Row::told(format!("{what}: rows a pass"), rows_a_pass, ""));
        rows.extend(burst(&service, name).await?);
        Ok(rows)
    })
}

fn open(service: &Service, inputs: ModelInputs, temperature: f64, reserve: usize) -> Result<Open> {
    let params = SamplingParams {
        temperature,
        seed: 11,
        ..Default::default()
    };
    let vocabulary = service.config().text.vocab_size as u32;
    Ok(Open {
        sampler: Sampler::new(params, vocabulary, &inputs.input_ids)?,
        inputs: Arc::new(inputs),
        reserve,
        options: OpenOptions::default(),
        end_of_sequence: Vec::new(),
        tell: Tell::default(),
    })
}

/// A batch of sessions whose prompts have been read.
async fn all_read(service: &Service, temperature: f64) -> Result<Vec<Session>> {
    let mut sessions = Vec::with_capacity(BATCH);
    for number in 0..BATCH {
        let inputs = ModelInputs {
            input_ids: (0..PROMPT)
                .map(|place| (20 + (place * 31 + number * 7) % 50) as u32)
                .collect(),
            ..Default::default()
        };
        let open = open(service, inputs, temperature, ANSWER)?;
        let session = service.open(open).await?;
        session.read().await?;
        sessions.push(session);
    }
    Ok(sessions)
}

/// Tokens a second of all answers together, once all prompts have been read.
async fn batch(service: &Service, temperature: f64) -> Result<f64> {
    let mut best: f64 = 0.0;
    for _ in 0..2 {
        let sessions = all_read(service, temperature).await?;
        let started = Instant::now();
        let receivers: Vec<_> = sessions
            .iter()
            .map(|session| session.generate(ANSWER))
            .collect::<Result<_, _>>()?;
        for mut events in receivers {
            while let Event::Token(_) = events.recv().await.context("an answer broke off")? {}
        }
        let seconds = started.elapsed().as_secs_f64();
        best = best.max((BATCH * ANSWER) as f64 / seconds);
    }
    Ok(best)
}

/// Tokens a second of all answers together and rows a pass, where whoever wants a token says so when it has the one before:
/// as a node decodes.
async fn one_by_one(service: &Service) -> Result<(f64, f64)> {
    let mut best = (0.0, 0.0);
    for _ in 0..2 {
        let sessions = all_read(service, 0.0).await?;
        let (before, started) = (service.load(), Instant::now());
        let answers: Vec<_> = sessions
            .into_iter()
            .map(|session| {
                tokio::spawn(async move {
                    // The last place is for the choice behind the drafts, of which there are none.
                    for _ in 1..ANSWER {
                        session.verify(Vec::new()).await?;
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        for answer in answers {
            answer.await??;
        }
        let seconds = started.elapsed().as_secs_f64();
        let after = service.load();
        let rate = (BATCH * (ANSWER - 1)) as f64 / seconds;
        if rate > best.0 {
            let passes = (after.passes - before.passes).max(1);
            best = (rate, (after.rows - before.rows) as f64 / passes as f64);
        }
    }
    Ok(best)
}

/// A picture like no other, with a question behind it.
fn picture(service: &Service, number: usize) -> ModelInputs {
    let grid = Grid {
        t: 1,
        h: SIDE,
        w: SIDE,
    };
    let mut inputs = noise_prompt(service.config(), grid, 32);
    if let Some(images) = &mut inputs.images
        && let Some(first) = images.values.data.first_mut()
    {
        *first = number as f32 / BURST as f32;
    }
    inputs
}

/// Gaps between the tokens of an answer, alone and while pictures come in.
async fn burst(service: &Service, name: &str) -> Result<Vec<Row>> {
    let inputs = ModelInputs {
        input_ids: (0..PROMPT).map(|place| 20 + place as u32 % 50).collect(),
        ..Default::default()
    };
    let running = service.open(open(service, inputs, 0.0, RUNNING)?).await?;
    running.read().await?;
    let mut events = running.generate(RUNNING)?;
    let mut alone = Vec::new();
    let mut last = Instant::now();
    while alone.len() < 32 {
        gap(&mut events, &mut last, &mut alone).await?;
    }
    let started = Instant::now();
    let mut newcomers = tokio::task::JoinSet::new();
    for number in 0..BURST {
        let open = open(service, picture(service, number), 0.0, 8)?;
        let service = service.clone();
        newcomers.spawn(async move {
            let session: Session = service.open(open).await?;
            session.read().await?;
            Ok::<_, anyhow::Error>(())
        });
    }
    let mut meanwhile = Vec::new();
    last = Instant::now();
    while !newcomers.is_empty() {
        tokio::select! {
            biased;
            done = newcomers.join_next() => {
                done.context("a newcomer went missing")???;
            }
            more = gap(&mut events, &mut last, &mut meanwhile) => more?,
        }
    }
    let until_read = started.elapsed().as_secs_f64();
    // What was held up to the end counts too.
    meanwhile.push(last.elapsed());
    alone.sort_unstable();
    meanwhile.sort_unstable();
    let ms = |gaps: &[Duration], share: f64| {
        let place = ((gaps.len() as f64 * share) as usize).min(gaps.len().saturating_sub(1));
        gaps.get(place).map_or(0.0, |gap| 1e3 * gap.as_secs_f64())
    };
    let during = format!("{name}: while {BURST} pictures of 1,024 tokens come in");
    Ok(vec![
        Row::told(
            format!("{name}: between two tokens of an answer alone, median"),
            ms(&alone, 0.5),
            " ms",
        ),
        Row::told(format!("{during}, median"), ms(&meanwhile, 0.5), " ms"),
        Row::told(format!("{during}, largest"), ms(&meanwhile, 1.0), " ms"),
        Row::told(format!("{during}, tokens"), meanwhile.len() as f64, ""),
        Row::told(format!("{during}, until all are read"), until_read, " s"),
    ])
}

/// Waits for the next token and notes how long it took.
async fn gap(
    events: &mut tokio::sync::mpsc::Receiver<Event>,
    last: &mut Instant,
    gaps: &mut Vec<Duration>,
) -> Result<()> {
    match events.recv().await.context("the answer broke off")? {
        Event::Token(_) => {
            gaps.push(last.elapsed());
            *last = Instant::now();
            Ok(())
        }
        Event::End(_) => anyhow::bail!("the running answer ended before the pictures were read"),
        Event::Failed(error) => Err(error.into()),
    }
}
