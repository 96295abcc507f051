//! A model's service, asked as a node asks it: one order after the other, and several answers at once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use msao_core::inputs::ModelInputs;
use msao_core::meter::{Meter, Phase};
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::service::{Open, Tell};
use msao_engine::{ModelConfig, OpenOptions, ProbeOptions};
use msao_media::Limits;
use msao_node::models::{Model, Seat};
use tokio::task::JoinSet;

use crate::questions::{Group, Kind, Questions, prompt};
use crate::{Job, median, ms, pause, since};

/// Tokens of a prompt where passes are timed.
const PROMPT: usize = 64;
/// Tokens of an answer before passes are timed.
const BEGUN: usize = 8;
/// Drafts that a pass is timed with.
pub(crate) const DRAFTS: usize = 8;
/// Answers at once.
pub(crate) const ANSWERS: usize = 8;
/// How often each kind of pass is timed.
pub(crate) const PASSES: usize = 60;
/// Prompts of a kind are read until it has taken so long, but for the first few.
const LONG_ENOUGH: Duration = Duration::from_secs(60);
const FEWEST: usize = 3;

/// What a model was found to cost.
#[derive(Clone, Debug)]
pub(crate) struct EngineFigures {
    /// What computes: a name for people.
    pub kernels: &'static str,
    /// A pass over one row, by the service alone.
    pub pass_ms: f64,
    pub row_ms: f64,
    /// Rows of the passes that it was found by.
    pub rows: f64,
    pub draft_ms: f64,
    pub prefill_tok_per_s: f64,
    /// Prompts that were read.
    pub prompts: usize,
    /// By kind, for what becomes a token, in ms. None: the model has no such encoder.
    pub encoders: Vec<(Kind, f64)>,
    pub probe_share: f64,
    pub probe_ms: f64,
    pub kv_bytes_per_token: f64,
    pub flops_per_token: f64,
    pub prefill_flops_per_token: f64,
    pub flops_per_token_pair: f64,
    pub encoder_flops_per_token: f64,
}

/// Measures one of two models, `role` by name, whose files lie in `folder`.
///
/// # Errors
/// The model cannot be asked, or somebody wants it to end.
pub(crate) async fn measure(
    role: &str,
    model: &Model,
    folder: &Path,
    (questions, limits): (&Questions, &Limits),
    job: &mut Job<'_>,
) -> Result<EngineFigures> {
    let config = ModelConfig::load(folder)?;
    let text = &config.text;
    // `msao_engine`'s probe runs through max(1, layers / 8), and one less than all at most.
    let looked = (text.layers / 8).max(1).min(text.layers.saturating_sub(1));
    let probe_share = looked as f64 / text.layers as f64;
    let pair = (4 * text.layers * text.heads * text.head_dim) as f64;
    let asked = Asked {
        model,
        // A draft model's say is wanted of each of its tokens.
        confidence: role == "draft",
    };
    job.tell(&format!("{role} model: passes"))?;
    let passes = passes(&asked, job).await?;
    job.tell(&format!("{role} model: {ANSWERS} answers at once"))?;
    let (pass_ms, rows) = together(&asked).await?;
    ensure!(
        rows > 1.5,
        "the {role} model: {ANSWERS} answers at once had {rows:.1} rows a pass, too few to say what one more costs"
    );
    let mut read = Read::default();
    let mut encoders = Vec::new();
    for group in &questions.groups {
        if group.kind == Kind::Sound && config.audio.is_none() {
            continue;
        }
        let found = prompts(&asked, (group, limits), (role, probe_share), &mut read, job).await?;
        encoders.extend(found.map(|per_token_ms| (group.kind, per_token_ms)));
    }
    let held = f64::from(msao_pair::pair::CACHE_MIB) * 1_048_576.0;
    let engine = &model.engine;
    Ok(EngineFigures {
        kernels: engine.load().kernels,
        pass_ms: passes.alone_ms,
        row_ms: ((pass_ms - passes.alone_ms) / (rows - 1.0)).max(0.0),
        rows,
        draft_ms: ((passes.drafted_ms - passes.alone_ms) / DRAFTS as f64).max(0.0),
        prefill_tok_per_s: read.tokens / read.seconds.max(1e-9),
        prompts: read.prompts,
        encoders,
        probe_share,
        probe_ms: median(&mut read.reports_ms)?.max(0.0),
        kv_bytes_per_token: held / engine.capacity().max(1) as f64,
        flops_per_token: passes.flops - pair * passes.length,
        prefill_flops_per_token: (read.flops - pair * read.pairs) / read.new_tokens.max(1.0),
        flops_per_token_pair: pair,
        encoder_flops_per_token: read.encoder_flops / read.media_tokens.max(1.0),
    })
}

/// A model, and how it is asked.
struct Asked<'a> {
    model: &'a Model,
    confidence: bool,
}

impl Asked<'_> {
    async fn open(
        &self,
        inputs: &Arc<ModelInputs>,
        reserve: usize,
        probe: Option<ProbeOptions>,
    ) -> Result<Box<dyn Seat>> {
        let params = SamplingParams {
            temperature: 0.0,
            ..self.model.defaults.clone()
        };
        let vocabulary = self.model.vocabulary();
        let open = Open {
            sampler: Sampler::new(params, vocabulary, &inputs.input_ids)?,
            inputs: Arc::clone(inputs),
            reserve,
            options: OpenOptions { keep: None, probe },
            // It goes on, whatever it says.
            end_of_sequence: Vec::new(),
            tell: Tell {
                top_logprobs: None,
                confidence: self.confidence,
            },
        };
        Ok(self.model.engine.open(open).await?)
    }
}

/// Words of no meaning, others for each number.
fn words(number: usize) -> Arc<ModelInputs> {
    let ids = (0..PROMPT).map(|place| (20 + (place * 31 + number * 7) % 50) as u32);
    Arc::new(ModelInputs {
        input_ids: ids.collect(),
        ..ModelInputs::default()
    })
}

/// Passes over one answer.
struct Passes {
    /// Over its next token alone.
    alone_ms: f64,
    /// With drafts that stand.
    drafted_ms: f64,
    /// Operations of the first kind, over an answer that was so long with its prompt.
    flops: f64,
    length: f64,
}

async fn passes(asked: &Asked<'_>, job: &mut Job<'_>) -> Result<Passes> {
    let most = BEGUN + DRAFTS + 1;
    let seat = asked.open(&words(0), most + 1, None).await?;
    seat.read().await?;
    let mut ids: Vec<u32> = Vec::new();
    while ids.len() < most {
        let verdict = seat.verify(Vec::new()).await?;
        ids.extend(verdict.picks.iter().map(|pick| pick.id));
    }
    let drafts: Vec<u32> = ids.iter().skip(BEGUN).take(DRAFTS).copied().collect();
    let none = Vec::new();
    let (mut alone, mut drafted) = (Vec::new(), Vec::new());
    let before = seat.meter().await?;
    // By turns, so that what disturbs the machine disturbs both.
    for _ in 0..PASSES {
        job.tell("passes")?;
        for (drafts, times) in [(&none, &mut alone), (&drafts, &mut drafted)] {
            seat.roll_back(BEGUN).await?;
            let began = Instant::now();
            seat.verify(drafts.clone()).await?;
            times.push(since(began));
        }
    }
    // Each turn reads a row alone, and one and the drafts.
    let rows = (PASSES * (2 + DRAFTS)) as f64;
    let flops = seat.meter().await?.flops() - before.flops();
    Ok(Passes {
        alone_ms: median(&mut alone)?,
        drafted_ms: median(&mut drafted)?,
        flops: flops as f64 / rows,
        length: (PROMPT + BEGUN) as f64 + mean_place(),
    })
}

/// How far behind the answer's beginning the rows of both kinds of pass stand, in the mean.
fn mean_place() -> f64 {
    let drafted = (0..=DRAFTS).sum::<usize>() as f64;
    drafted / (2 + DRAFTS) as f64
}

/// What a pass takes, and how many rows it has, with several answers at once whose next token is asked for as soon as the one before is
/// there.
async fn together(asked: &Asked<'_>) -> Result<(f64, f64)> {
    let mut seats = Vec::with_capacity(ANSWERS);
    for number in 1..=ANSWERS {
        let seat = asked.open(&words(number), PASSES + BEGUN + 2, None).await?;
        seat.read().await?;
        for _ in 0..BEGUN {
            seat.verify(Vec::new()).await?;
        }
        seats.push(seat);
    }
    let engine = &asked.model.engine;
    let (before, began) = (engine.load(), Instant::now());
    let mut answers = JoinSet::new();
    for seat in seats {
        answers.spawn(async move {
            for _ in 0..PASSES {
                seat.verify(Vec::new()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(answered) = answers.join_next().await {
        answered??;
    }
    let (took_ms, after) = (since(began), engine.load());
    let passes = after.passes.saturating_sub(before.passes).max(1) as f64;
    let rows = after.rows.saturating_sub(before.rows) as f64;
    Ok((took_ms / passes, rows / passes))
}

/// Sums over prompts.
#[derive(Default)]
struct Read {
    prompts: usize,
    tokens: f64,
    /// Those of them that no earlier prompt had read.
    new_tokens: f64,
    seconds: f64,
    flops: f64,
    /// For each new token those before it.
    pairs: f64,
    media_tokens: f64,
    encoder_flops: f64,
    /// What working out the probe's report took, prompt by prompt.
    reports_ms: Vec<f64>,
    /// Tokens of the words of a question, in the middle.
    words: f64,
}

/// Reads a kind's prompts, those that count and those that do not. What encoding took for a token, where there is anything to encode.
async fn prompts(
    asked: &Asked<'_>,
    (group, limits): (&Group, &Limits),
    (role, probe_share): (&str, f64),
    read: &mut Read,
    job: &mut Job<'_>,
) -> Result<Option<f64>> {
    let processor = &asked.model.processor;
    let modality = group.kind.modality();
    for item in &group.warm {
        let inputs = prompt(processor, item, limits)?;
        asked.open(&inputs, 1, None).await?.read().await?;
    }
    let began = Instant::now();
    let (mut lengths, mut encoded_ms, mut media_tokens) = (Vec::new(), 0.0, 0.0);
    for (number, item) in group.short.iter().enumerate() {
        if number >= FEWEST && began.elapsed() > LONG_ENOUGH {
            break;
        }
        let (kind, all) = (group.kind.name(), group.short.len());
        job.tell(&format!(
            "{role} model: {kind}, prompt {} of {all}",
            number + 1
        ))?;
        let inputs = prompt(processor, item, limits)?;
        let tokens = inputs.input_ids.len() as f64;
        pause().await;
        let seat = asked.open(&inputs, 1, None).await?;
        seat.read().await?;
        let meter = seat.meter().await?;
        drop(seat);
        let prefill = meter.cost(Phase::Prefill);
        let cached = meter.cached_tokens as f64;
        read.prompts += 1;
        read.tokens += tokens;
        read.new_tokens += tokens - cached;
        read.seconds += prefill.time.as_secs_f64();
        read.flops += prefill.flops as f64;
        read.pairs += (tokens * tokens - cached * cached) / 2.0;
        lengths.push(tokens);
        let Some(modality) = modality else {
            continue;
        };
        let media = (tokens - read.words).max(1.0);
        media_tokens += media;
        encoded_ms += encoding_ms(&meter);
        read.media_tokens += media;
        let of = |phase| meter.cost(phase).flops as f64;
        read.encoder_flops += of(Phase::Vision) + of(Phase::Audio);
        // The same once more with the probe in front: its media are there, and so is what reading takes.
        let content_free = processor.content_free(modality)?;
        let began = Instant::now();
        let probe = ProbeOptions {
            content_free,
            seed: 1,
        };
        let seat = asked.open(&inputs, 1, Some(probe)).await?;
        seat.probed().await?;
        let looked_ms = since(began);
        let again = seat.meter().await?;
        let reading_ms = probe_share * ms(prefill.time);
        (read.reports_ms).push(looked_ms - encoding_ms(&again) - reading_ms);
    }
    if modality.is_none() {
        read.words = median(&mut lengths)?;
        return Ok(None);
    }
    ensure!(media_tokens > 0.0, "no {} was read", group.kind.name());
    Ok(Some(encoded_ms / media_tokens))
}

fn encoding_ms(meter: &Meter) -> f64 {
    ms(meter.cost(Phase::Vision).time) + ms(meter.cost(Phase::Audio).time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_passes_stand_where_they_are_reckoned_to() {
        // Alone: one row at the beginning. With drafts: nine, at 0 to 8 behind it.
        assert!((mean_place() - 36.0 / 10.0).abs() < 1e-12);
        assert_eq!(words(1).input_ids.len(), PROMPT);
        assert_ne!(words(1).input_ids, words(2).input_ids);
    }
}
