//! `msao chat`: one question about any media, answered as it is generated.

use std::io::{IsTerminal, Read, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use msao_core::chat::{Content, Message, Modality, Part};
use msao_core::meter::{Meter, Phase};
use msao_core::sampling::{Sampler, SamplingParams};
use msao_engine::{GenerateOptions, Generated, Model, Stop, generate};
use msao_processor::{GenerationDefaults, Media, Prepared, Processor, StopStrings, VideoSampling};
use serde_json::{Value, json};

use crate::format::{anonymous_memory, bytes, duration, si};
use crate::{Holding, ModelDir, media};

/// Ask a model about images, clips and sounds; the answer streams, then what it cost.
///
/// Media stand before the question: images, then clips, then sounds, each kind in the order given. Without a
/// question it is read from standard input. Sampling follows the model's generation_config.json unless you say
/// otherwise. The answer goes to standard output, the figures to standard error.
#[derive(Args)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelDir,
    /// A picture: PNG, JPEG, WebP or GIF. May be given several times.
    #[arg(long, value_name = "FILE")]
    image: Vec<PathBuf>,
    /// A clip: MP4 with H.264, animated GIF or WebP. May be given several times.
    #[arg(long, value_name = "FILE")]
    video: Vec<PathBuf>,
    /// Frames a second to look at in clips [default: the model's, else 2].
    #[arg(long, value_name = "FPS")]
    fps: Option<f64>,
    /// A sound: WAV, MP3 or FLAC. May be given several times.
    #[arg(long, value_name = "FILE")]
    audio: Vec<PathBuf>,
    /// A system message.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The question.
    question: Option<String>,
    /// Most tokens to generate.
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// 0 always takes the most likely token [default: the model's].
    #[arg(long, value_name = "T")]
    temperature: Option<f64>,
    /// Sample from the K most likely tokens only [default: the model's].
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Sample from the most likely tokens that sum to P only [default: the model's].
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Above 1 discourages what the prompt or the answer already holds [default: the model's].
    #[arg(long, value_name = "R")]
    repetition_penalty: Option<f64>,
    /// Makes sampling repeatable [default: drawn, and told].
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// End the answer before this text. May be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Tell each token's log-probability and the N most likely tokens in its place: --logprobs=5. With --json in the
    /// object, else on standard error.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "0",
          value_parser = clap::value_parser!(u32).range(0..=20))]
    logprobs: Option<u32>,
    /// Print one JSON object instead of streaming.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    holding: Holding,
}

pub fn run(args: &ChatArgs) -> Result<()> {
    let question = question(args)?;
    let processor = Processor::load(&args.model.model)?;
    // Hugging Face keeps every frame of a clip where the model's files say nothing, which nobody wants to wait for.
    let silent = processor.options().sampling == VideoSampling::Model
        && !processor.media_config().video.sample;
    let processor = media::sample_at(processor, args.fps.or(silent.then_some(media::USUAL_FPS)))?;
    let files = files(args);
    let messages = messages(args, &files, question);
    let started = Instant::now();
    let media: Vec<Media> = files
        .iter()
        .map(|(modality, path)| media::load(&processor, *modality, path))
        .collect::<Result<_>>()?;
    let prepared = processor.prepare(&messages, &media).map_err(|error| {
        let names: Vec<String> = files
            .iter()
            .map(|(_, path)| path.display().to_string())
            .collect();
        media::name_file(error, &names)
    })?;
    let preparing = started.elapsed();
    for note in &prepared.notes {
        eprintln!("note: {note}");
    }
    let model = args.holding.load(&args.model.model)?;
    let vocabulary = processor
        .tokenizer()
        .vocab_size()
        .min(model.config().text.vocab_size) as u32;
    let params = sampling(args, processor.generation())?;
    let mut sampler = Sampler::new(params, vocabulary, &prepared.inputs.input_ids)?;
    let mut answer = Answer::new(args, &processor);
    let options = GenerateOptions {
        max_new_tokens: args.max_new_tokens,
        end_of_sequence: processor.generation().eos_token_ids.clone(),
        top_logprobs: args.logprobs,
    };
    let mut failed = None;
    let generated = generate(
        &model,
        &prepared.inputs,
        &mut sampler,
        &options,
        &mut |step| match answer.push(step, &processor) {
            Ok(flow) => flow,
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        },
    )?;
    if let Some(error) = failed {
        return Err(error);
    }
    answer.finish()?;
    let report = Report {
        prepared: &prepared,
        generated: &generated,
        model: &model,
        seed: sampler.params().seed,
        sampled: sampler.params().temperature > 0.0,
        preparing,
        stop: answer.stopped_by.clone(),
    };
    if args.json {
        let text = serde_json::to_string_pretty(&report.json(&answer))?;
        writeln!(std::io::stdout(), "{text}")?;
    } else {
        report.print(&answer);
    }
    Ok(())
}

fn question(args: &ChatArgs) -> Result<String> {
    if let Some(question) = &args.question {
        return Ok(question.clone());
    }
    if std::io::stdin().is_terminal() {
        bail!("no question: write it as the last argument, in quotes, or pipe it in");
    }
    let mut text = String::new();
    std::io::stdin()
        .take(1 << 20)
        .read_to_string(&mut text)
        .context("the question on standard input")?;
    if text.trim().is_empty() {
        bail!("the question on standard input is empty");
    }
    Ok(text.trim_end().to_owned())
}

/// The media files in the order of the prompt.
fn files(args: &ChatArgs) -> Vec<(Modality, &Path)> {
    let kinds = [
        (Modality::Image, &args.image),
        (Modality::Video, &args.video),
        (Modality::Audio, &args.audio),
    ];
    let each = kinds
        .into_iter()
        .flat_map(|(modality, paths)| paths.iter().map(move |path| (modality, path.as_path())));
    each.collect()
}

fn messages(args: &ChatArgs, files: &[(Modality, &Path)], question: String) -> Vec<Message> {
    let mut parts: Vec<Part> = files
        .iter()
        .map(|(modality, path)| {
            let reference = path.display().to_string();
            match modality {
                Modality::Video => Part::Video { video: reference },
                Modality::Audio => Part::Audio { audio: reference },
                _ => Part::Image { image: reference },
            }
        })
        .collect();
    parts.push(Part::Text { text: question });
    let system = args.system.clone().map(|text| Message {
        role: "system".into(),
        content: Content::Text(text),
    });
    system
        .into_iter()
        .chain([Message {
            role: "user".into(),
            content: Content::Parts(parts),
        }])
        .collect()
}

/// The model's own sampling settings, with what the command line says instead.
fn sampling(args: &ChatArgs, defaults: &GenerationDefaults) -> Result<SamplingParams> {
    // A wish to sample without a temperature samples at 1, as in Hugging Face.
    let own_temperature = if defaults.do_sample {
        f64::from(defaults.temperature)
    } else {
        0.0
    };
    let asked = args.top_k.is_some() || args.top_p.is_some();
    let temperature = args
        .temperature
        .unwrap_or(if asked && own_temperature == 0.0 {
            1.0
        } else {
            own_temperature
        });
    let own_top_k = u32::try_from(defaults.top_k)
        .ok()
        .filter(|&k| k > 0 && defaults.do_sample);
    let own_top_p = if defaults.do_sample {
        f64::from(defaults.top_p)
    } else {
        1.0
    };
    Ok(SamplingParams {
        temperature,
        top_k: args.top_k.or(own_top_k),
        top_p: args.top_p.unwrap_or(own_top_p),
        repetition_penalty: args
            .repetition_penalty
            .unwrap_or(f64::from(defaults.repetition_penalty)),
        seed: match args.seed {
            Some(seed) => seed,
            None => getrandom::u64()
                .map_err(|error| anyhow::anyhow!("drawing a seed: {error}; give --seed"))?,
        },
        ..SamplingParams::default()
    })
}

/// The growing answer: tokens to text, held back while a stop string may be coming.
struct Answer {
    stream: msao_processor::DetokenStream,
    stops: StopStrings,
    live: bool,
    text: String,
    stopped_by: Option<String>,
    logprobs: Vec<Value>,
}

impl Answer {
    fn new(args: &ChatArgs, processor: &Processor) -> Self {
        Answer {
            stream: processor.tokenizer().stream(true),
            stops: StopStrings::new(args.stop.iter().cloned()),
            live: !args.json,
            text: String::new(),
            stopped_by: None,
            logprobs: Vec::new(),
        }
    }

    fn push(&mut self, step: &msao_engine::Step, processor: &Processor) -> Result<ControlFlow<()>> {
        if let Some((chosen, top)) = &step.logprobs {
            let named = |token: &msao_core::sampling::TokenLogprob| json!({ "token": processor.tokenizer().token_text(token.id), "id": token.id, "logprob": token.logprob });
            let mut entry = named(chosen);
            if let Value::Object(entry) = &mut entry {
                entry.insert("top_logprobs".into(), top.iter().map(named).collect());
            }
            self.logprobs.push(entry);
        }
        let Some(text) = self.stream.push(step.pick.id) else {
            return Ok(ControlFlow::Continue(()));
        };
        let emitted = self.stops.push(&text);
        self.emit(&emitted.text)?;
        self.stopped_by = emitted.stop;
        Ok(if self.stops.stopped() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    fn finish(&mut self) -> Result<()> {
        if !self.stops.stopped() {
            let rest = self.stream.finish();
            let emitted = self.stops.push(&rest);
            self.emit(&emitted.text)?;
            self.stopped_by = emitted.stop;
        }
        let last = self.stops.finish();
        self.emit(&last.text)?;
        if self.live {
            writeln!(std::io::stdout())?;
        }
        Ok(())
    }

    fn emit(&mut self, text: &str) -> Result<()> {
        self.text.push_str(text);
        if self.live && !text.is_empty() {
            let mut out = std::io::stdout();
            out.write_all(text.as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }
}

/// What is told after the answer.
struct Report<'a> {
    prepared: &'a Prepared,
    generated: &'a Generated,
    model: &'a Model,
    seed: u64,
    sampled: bool,
    preparing: Duration,
    stop: Option<String>,
}

impl Report<'_> {
    fn tokens_per_second(&self) -> Option<f64> {
        let after_first = self
            .generated
            .tokens
            .len()
            .checked_sub(1)
            .filter(|&tokens| tokens > 0)?;
        Some(after_first as f64 / self.generated.decode_time.as_secs_f64())
    }

    fn media_tokens(&self, modality: Modality) -> usize {
        let spans = self
            .prepared
            .spans
            .iter()
            .filter(|span| span.modality == modality);
        spans.map(|span| span.tokens.len()).sum()
    }

    fn finish_reason(&self) -> &'static str {
        match self.generated.stop {
            Stop::Length => "length",
            Stop::EndOfSequence | Stop::Caller => "stop",
        }
    }

    fn meter(&self) -> &Meter {
        &self.generated.meter
    }

    fn print(&self, answer: &Answer) {
        for entry in &answer.logprobs {
            eprintln!("{entry}");
        }
        let prompt = self.prepared.inputs.input_ids.len();
        let media: Vec<String> = [Modality::Image, Modality::Video, Modality::Audio]
            .into_iter()
            .map(|modality| {
                (
                    self.media_tokens(modality),
                    format!("{modality:?}").to_lowercase(),
                )
            })
            .filter(|(count, _)| *count > 0)
            .map(|(count, name)| format!("{count} {name}"))
            .collect();
        let of_which = if media.is_empty() {
            String::new()
        } else {
            format!(" ({})", media.join(", "))
        };
        let end = match (&self.stop, self.generated.stop) {
            (Some(text), _) => format!("ended by stop text {text:?}"),
            (None, Stop::EndOfSequence) => "ended by the model".to_owned(),
            (None, _) => "ended by the limit of tokens".to_owned(),
        };
        eprintln!(
            "\n  tokens      {prompt} prompt{of_which}, {} answer, {end}",
            self.generated.tokens.len()
        );
        let speed = self
            .tokens_per_second()
            .map(|rate| format!(", then {rate:.1} tokens/s"))
            .unwrap_or_default();
        eprintln!(
            "  time        {} to the first token{speed}; decoding media took {} before",
            duration(self.generated.time_to_first_token),
            duration(self.preparing)
        );
        let phases: Vec<String> = Phase::ALL
            .into_iter()
            .map(|phase| (phase, self.meter().cost(phase)))
            .filter(|(_, cost)| cost.flops > 0)
            .map(|(phase, cost)| {
                format!(
                    "{} {} in {}",
                    phase.name(),
                    si(cost.flops as f64),
                    duration(cost.time)
                )
            })
            .collect();
        eprintln!(
            "  FLOPs       {}: {}",
            si(self.meter().flops() as f64),
            phases.join(", ")
        );
        let process = anonymous_memory()
            .map(|held| format!("; process {}", bytes(held)))
            .unwrap_or_default();
        eprintln!(
            "  memory      weights {} ({}), cache {}, activations {}{process}",
            bytes(self.model.weight_bytes()),
            self.model.precision(),
            bytes(self.meter().cache_bytes),
            bytes(self.meter().activation_bytes()),
        );
        if self.sampled {
            eprintln!("  seed        {}", self.seed);
        }
    }

    fn json(&self, answer: &Answer) -> Value {
        let meter = self.meter();
        let phases: serde_json::Map<String, Value> = Phase::ALL
            .into_iter()
            .map(|phase| {
                let cost = meter.cost(phase);
                let value = json!({
                    "flops": cost.flops,
                    "ms": cost.time.as_secs_f64() * 1e3,
                    "activation_bytes": cost.activation_bytes,
                });
                (phase.name().to_owned(), value)
            })
            .collect();
        json!({
            "answer": answer.text,
            "finish_reason": self.finish_reason(),
            "stop": self.stop,
            "seed": self.seed,
            "tokens": {
                "prompt": self.prepared.inputs.input_ids.len(),
                "image": self.media_tokens(Modality::Image),
                "video": self.media_tokens(Modality::Video),
                "audio": self.media_tokens(Modality::Audio),
                "answer": self.generated.tokens.len(),
            },
            "prepare_ms": self.preparing.as_secs_f64() * 1e3,
            "time_to_first_token_ms": self.generated.time_to_first_token.as_secs_f64() * 1e3,
            "tokens_per_second": self.tokens_per_second(),
            "flops": meter.flops(),
            "phases": phases,
            "memory": {
                "weight_bytes": self.model.weight_bytes(),
                "cache_bytes": meter.cache_bytes,
                "cache_byte_seconds": meter.cache_byte_seconds,
                "activation_bytes": meter.activation_bytes(),
                "process_anonymous_bytes": anonymous_memory(),
            },
            "precision": self.model.precision(),
            "device": self.model.place().to_string(),
            "logprobs": answer.logprobs,
        })
    }
}
