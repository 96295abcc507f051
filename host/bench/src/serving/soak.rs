//! Hours of an unkind day in minutes: clients that come at random, leave in the middle, draft wrongly, take back, split.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use msao_core::inputs::ModelInputs;
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::service::{Event, Open, Service, ServiceError, ServiceOptions, Session, Tell};
use msao_engine::{LoadOptions, OpenOptions, Place, Precision, ProbeOptions, RunnerOptions};
use msao_processor::Processor;

use super::{prepare, questions};
use crate::loading::anonymous_bytes;
use crate::report::Row;

/// Prompts that are asked again and again.
const PROMPTS: usize = 40;
/// Tokens of an answer.
const ANSWER: usize = 32;
/// A visit that is not over after so many passes is stuck: it needs some hundred, and others are let in before it. Time says
/// nothing about it on a machine that others use too.
const STUCK_PASSES: u64 = 5_000;
/// So is everybody when no pass is made for so long.
const STUCK: Duration = Duration::from_secs(120);
/// Mean time between arrivals: more than the model can serve, so that queues fill and refuse.
const ARRIVAL: Duration = Duration::from_millis(25);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    refused: AtomicUsize,
    left: AtomicUsize,
    stuck: AtomicUsize,
    /// Passes during the longest visit.
    longest: AtomicU64,
    failed: AtomicUsize,
    /// Answers to a prompt that were not the first answer to it.
    other: AtomicUsize,
}

/// What everybody shares.
struct Shared {
    service: Service,
    prompts: Vec<Arc<ModelInputs>>,
    vocabulary: u32,
    /// The first answer to each prompt.
    answers: std::sync::Mutex<Vec<Option<Vec<u32>>>>,
    counts: Counts,
}

/// Rows for the demo target in `models`, under load for `duration`.
pub fn rows(models: &Path, place: Place, duration: Duration) -> Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(soak(models, place, duration))
}

async fn soak(models: &Path, place: Place, duration: Duration) -> Result<Vec<Row>> {
    let dir = models.join("demo-target");
    let processor = Processor::load(&dir)?;
    let all = questions(models)?;
    let picked = all.iter().step_by((all.len() / PROMPTS).max(1));
    let prompts = picked
        .take(PROMPTS)
        .map(|question| Ok(Arc::new(prepare(&processor, question)?.inputs)))
        .collect::<Result<Vec<_>>>()?;
    let load = LoadOptions {
        place,
        precision: Precision::F32,
        ..Default::default()
    };
    let options = ServiceOptions {
        // Small enough that admission, eviction and refusal all happen.
        runner: RunnerOptions {
            cache_bytes: 24 << 20,
            media_cache_bytes: 2 << 20,
            prefixes: 24,
            ..Default::default()
        },
        waiting: 16,
        ..Default::default()
    };
    let shared = Arc::new(Shared {
        service: Service::start(dir, load, options).await?,
        vocabulary: processor.tokenizer().vocab_size() as u32,
        answers: std::sync::Mutex::new(vec![None; prompts.len()]),
        prompts,
        counts: Counts::default(),
    });
    let filled = fill(&shared).await?;
    let started = Instant::now();
    let mut random = Random(0x9e37_79b9);
    let mut memory: Vec<(f64, f64)> = Vec::new();
    let mut next_look = started;
    let mut next_word = started + Duration::from_secs(60);
    let mut clients = tokio::task::JoinSet::new();
    while started.elapsed() < duration {
        let wait = ARRIVAL.mul_f64(-(1.0 - random.unit()).ln());
        tokio::time::sleep(wait).await;
        clients.spawn(client(Arc::clone(&shared), random.next()));
        while clients.try_join_next().is_some() {}
        if Instant::now() >= next_look {
            next_look += LOOK;
            let held = match place.memory(false) {
                Some(memory) => memory.now,
                None => anonymous_bytes()?,
            };
            memory.push((started.elapsed().as_secs_f64(), held as f64));
        }
        if Instant::now() >= next_word {
            next_word += Duration::from_secs(60);
            let left = duration.saturating_sub(started.elapsed());
            eprintln!(
                "  soak: {} answered, {:.0} MB, {} s left",
                shared.counts.answered.load(Ordering::Relaxed),
                memory.last().map_or(0.0, |(_, bytes)| bytes / 1e6),
                left.as_secs()
            );
        }
    }
    while clients.join_next().await.is_some() {}
    // Whoever left is noticed at the next pass.
    let waited = Instant::now();
    let mut end = shared.service.load();
    // The figures are told apart and some only when the thread is idle: settled is what two looks see alike.
    while waited.elapsed() < STUCK {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = std::mem::replace(&mut end, shared.service.load());
        if end.sessions == 0 && end.held_blocks == end.prefix_blocks && end == before {
            break;
        }
    }
    let counts = &shared.counts;
    let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed) as f64;
    let minutes = duration.as_secs_f64() / 60.0;
    let mean = |from: f64, to: f64| {
        let span = duration.as_secs_f64();
        let within: Vec<f64> = memory
            .iter()
            .filter(|(at, _)| (from * span..to * span).contains(at))
            .map(|(_, bytes)| *bytes)
            .collect();
        within.iter().sum::<f64>() / within.len().max(1) as f64
    };
    // The first quarter fills caches and the allocator's pools.
    let (early, late) = (mean(0.25, 0.5), mean(0.75, 1.0));
    Ok(vec![
        Row::told("minutes", minutes, ""),
        Row::told("answers", count(&counts.answered), ""),
        Row::told("clients that left in the middle", count(&counts.left), ""),
        Row::told(
            "clients refused for want of room",
            count(&counts.refused),
            "",
        ),
        Row::told("passes", end.passes as f64, ""),
        Row::told(
            "rows a pass",
            end.rows as f64 / end.passes.max(1) as f64,
            "",
        ),
        Row::told(
            "of the cache, filled once before the first look",
            100.0 * filled as f64 / shared.service.capacity().max(1) as f64,
            " %",
        ),
        Row::told(
            match place {
                Place::Cpu => "anonymous memory, second quarter",
                Place::Cuda(_) => "device memory that tensors hold, second quarter",
            },
            early / 1e6,
            " MB",
        ),
        Row::at_most(
            "its growth to the last quarter",
            100.0 * (late / early - 1.0),
            2.0,
            " %",
        ),
        Row::at_most("sessions left open", end.sessions as f64, 0.0, ""),
        Row::at_most(
            "cache blocks that nobody owns",
            end.held_blocks.abs_diff(end.prefix_blocks) as f64,
            0.0,
            "",
        ),
        Row::at_most("stuck sessions", count(&counts.stuck), 0.0, "").with_details(vec![format!(
            "the longest visit took {} passes, prompts and waiting included; one of more than {STUCK_PASSES} counts as stuck",
            counts.longest.load(Ordering::Relaxed)
        )]),
        Row::at_most("sessions that failed", count(&counts.failed), 0.0, ""),
        // Numerical ties are this rare; anything more is an error.
        Row::at_most(
            "answers that differ from the first to the same prompt",
            100.0 * count(&counts.other) / count(&counts.answered).max(1.0),
            0.1,
            " %",
        ),
    ])
}

/// Fills the whole cache once: its memory is taken as it fills, and what is used for the first time in the last minute
/// would pass for a leak. Returns the tokens held at once.
async fn fill(shared: &Shared) -> Result<usize> {
    const TEXT: usize = 16;
    let service = &shared.service;
    let limit = service.config().text.max_positions;
    let mut sessions = Vec::new();
    let mut filled = 0;
    loop {
        let left = service.capacity() - filled;
        let reserve = left.saturating_sub(4 * TEXT).min(limit - 2 * TEXT);
        if reserve < TEXT {
            return Ok(filled);
        }
        let inputs = ModelInputs {
            input_ids: (0..TEXT as u32).map(|place| 30 + place).collect(),
            ..Default::default()
        };
        let open = Open {
            sampler: Sampler::new(
                SamplingParams::default(),
                shared.vocabulary,
                &inputs.input_ids,
            )?,
            inputs: Arc::new(inputs),
            reserve,
            options: OpenOptions::default(),
            end_of_sequence: Vec::new(),
            tell: Tell::default(),
        };
        // Room that only the estimate of admission misses is not waited for.
        let Ok(session) = tokio::time::timeout(Duration::from_secs(2), service.open(open)).await
        else {
            return Ok(filled);
        };
        let session = session?;
        session.append(vec![31; reserve - 1]).await?;
        generate(&session, 1).await?;
        filled += TEXT + reserve;
        sessions.push(session);
    }
}

async fn client(shared: Arc<Shared>, seed: u64) {
    let counts = &shared.counts;
    match patiently(&shared, visit(&shared, seed)).await {
        None => counts.stuck.fetch_add(1, Ordering::Relaxed),
        Some(Ok(true)) => counts.answered.fetch_add(1, Ordering::Relaxed),
        Some(Ok(false)) => counts.left.fetch_add(1, Ordering::Relaxed),
        Some(Err(error)) => match error.downcast_ref() {
            Some(ServiceError::Overloaded { .. }) => counts.refused.fetch_add(1, Ordering::Relaxed),
            _ => {
                eprintln!("  soak: {error:#}");
                counts.failed.fetch_add(1, Ordering::Relaxed)
            }
        },
    };
}

/// The visit's end; `None` where it is stuck.
async fn patiently<T>(shared: &Shared, visit: impl Future<Output = T>) -> Option<T> {
    let passes = || shared.service.load().passes;
    let began = passes();
    let (mut last, mut moved) = (began, Instant::now());
    let mut visit = std::pin::pin!(visit);
    loop {
        let done = tokio::time::timeout(LOOK, &mut visit).await;
        let now = passes();
        let longest = &shared.counts.longest;
        longest.fetch_max(now.saturating_sub(began), Ordering::Relaxed);
        if let Ok(done) = done {
            return Some(done);
        }
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        if now.saturating_sub(began) > STUCK_PASSES || moved.elapsed() > STUCK {
            return None;
        }
    }
}

/// One client. True if it stayed for a whole answer.
async fn visit(shared: &Shared, seed: u64) -> Result<bool> {
    let mut random = Random(seed | 1);
    let number = random.below(shared.prompts.len());
    let inputs = shared.prompts.get(number).context("no such prompt")?;
    let sampler = |choice| {
        let params = SamplingParams {
            temperature: 0.7,
            seed: number as u64,
            choice,
            ..Default::default()
        };
        Sampler::new(params, shared.vocabulary, &inputs.input_ids)
    };
    let kind = random.below(10);
    let open = Open {
        inputs: Arc::clone(inputs),
        sampler: sampler(0)?,
        // Hardly more than is used, drafts included.
        reserve: ANSWER + 8 + 8 * random.below(4),
        options: OpenOptions {
            keep: None,
            probe: (kind == 9).then(|| ProbeOptions {
                content_free: (30..42).collect(),
                seed: 1,
            }),
        },
        end_of_sequence: Vec::new(),
        tell: Tell::default(),
    };
    let session = shared.service.open(open).await?;
    match kind {
        // Leaves before or while it is answered.
        0 => return Ok(false),
        1 => {
            let mut events = session.generate(ANSWER)?;
            for _ in 0..random.below(ANSWER) {
                events.recv().await;
            }
            return Ok(false);
        }
        2 => {
            // Leaves while a verdict is under way.
            let drafts = vec![30; 1 + random.below(8)];
            let hurry = Duration::from_millis(random.below(20) as u64);
            let _ = tokio::time::timeout(hurry, session.verify(drafts)).await;
            return Ok(false);
        }
        // Drafts, rightly as far as the first answer is known and then not.
        3 | 4 => {
            let known = shared
                .answers
                .lock()
                .ok()
                .and_then(|answers| answers.get(number).cloned().flatten());
            let mut length = 0;
            while length + 10 < ANSWER {
                let mut drafts: Vec<u32> = known
                    .iter()
                    .flat_map(|answer| answer.iter().skip(length))
                    .take(random.below(8))
                    .copied()
                    .collect();
                drafts.push(30);
                length += session.verify(drafts).await?.picks.len();
                if random.below(4) == 0 {
                    length = length.saturating_sub(random.below(6));
                    session.roll_back(length).await?;
                }
            }
            generate(&session, ANSWER - length).await?;
        }
        5 => {
            session.read().await?;
            let fork = session.fork(sampler(1)?).await?;
            let other = fork.generate(ANSWER)?;
            generate(&session, ANSWER).await?;
            if random.below(2) == 0 {
                drop(fork);
            }
            drop(other);
        }
        9 => {
            let report = session.probed().await?;
            let items = report.items.iter().map(|item| {
                let tokens = item.saliency.len() as u32;
                Some((0..tokens).step_by(2).collect())
            });
            let keep = msao_engine::Keep {
                items: items.collect(),
            };
            session.keep(keep).await?;
            generate(&session, ANSWER).await?;
            // It saw less than the others: its answer is its own.
            return Ok(true);
        }
        _ => generate(&session, ANSWER).await?,
    }
    let answer = session.output().await?;
    if let Ok(mut answers) = shared.answers.lock()
        && let Some(first) = answers.get_mut(number)
    {
        match first {
            None => *first = Some(answer),
            Some(first) if *first != answer => {
                shared.counts.other.fetch_add(1, Ordering::Relaxed);
            }
            Some(_) => {}
        }
    }
    Ok(true)
}

/// Reads an answer of so many tokens.
async fn generate(session: &Session, most: usize) -> Result<()> {
    let mut events = session.generate(most)?;
    loop {
        match events.recv().await.context("the answer broke off")? {
            Event::Token(_) => {}
            Event::End(_) => return Ok(()),
            Event::Failed(error) => return Err(error.into()),
        }
    }
}

/// Xorshift64 (Marsaglia 2003): the soak wants variety, not quality.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 11) as usize % limit.max(1)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
