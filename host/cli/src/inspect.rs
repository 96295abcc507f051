//! `msao model inspect`: what a model directory holds, without loading its weights.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use msao_engine::weights::{StoredTensor, Weights};
use msao_engine::{ModelConfig, Precision};
use msao_processor::Processor;
use serde_json::{Value, json};

use crate::format::{bytes, si};
use crate::{Holding, loss};

/// Tell what a model directory holds: family, sizes, precision, limits, sampling defaults.
///
/// With --quantize int8 the model is loaded with its language matrices held as 8-bit integers and what that loses is told:
///
///   msao model inspect DIR --quantize int8 --against f32
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct InspectArgs {
    /// A Hugging Face model directory.
    dir: PathBuf,
    #[command(flatten)]
    holding: Holding,
    /// With --quantize: the precision of the plain model that it is held against: stored (as the files are), f32 or
    /// bf16. Both are loaded, one after the other, which takes a minute or more for models of gigabytes.
    #[arg(
        long,
        value_name = "PRECISION",
        default_value = "f32",
        requires = "quantize"
    )]
    against: Precision,
    /// List every stored tensor too.
    #[arg(long, conflicts_with = "quantize")]
    tensors: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Parameters of the parts of a model, by the tensors' names.
fn parts(stored: &[StoredTensor]) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::new();
    for tensor in stored {
        let name = tensor.name.strip_prefix("thinker.").unwrap_or(&tensor.name);
        let part = if name.starts_with("visual.") || name.starts_with("model.visual.") {
            "vision"
        } else if name.starts_with("audio_tower.") {
            "audio"
        } else if name.starts_with("model.")
            || name.starts_with("language_model.")
            || name.starts_with("lm_head.")
        {
            "language"
        } else {
            "not used"
        };
        *counts.entry(part).or_default() += tensor.shape.iter().product::<usize>() as u64;
    }
    counts
}

/// Stored values by type.
fn types(stored: &[StoredTensor]) -> BTreeMap<&str, u64> {
    let mut counts = BTreeMap::new();
    for tensor in stored {
        *counts.entry(tensor.dtype.as_str()).or_default() +=
            tensor.shape.iter().product::<usize>() as u64;
    }
    counts
}

pub fn run(args: &InspectArgs) -> Result<()> {
    if args.holding.quantize.is_some() {
        let loss = loss::measure(&args.dir, &args.holding, args.against)?;
        let mut text = if args.json {
            serde_json::to_string_pretty(&loss)?
        } else {
            loss.describe()?
        };
        text.push('\n');
        return Ok(std::io::stdout().write_all(text.as_bytes())?);
    }
    let config = ModelConfig::load(&args.dir)?;
    let stored = Weights::open(&args.dir)?.stored();
    let processor = Processor::load(&args.dir)?;
    let mut text = if args.json {
        serde_json::to_string_pretty(&as_json(args, &config, &stored, &processor))?
    } else {
        let mut text = String::new();
        describe(&mut text, args, &config, &stored, &processor)?;
        text.trim_end().to_owned()
    };
    text.push('\n');
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// Bytes of key-value cache that one token takes in 16-bit precision.
fn cache_per_token(config: &ModelConfig) -> u64 {
    (2 * 2 * config.text.layers * config.text.kv_heads * config.text.head_dim) as u64
}

fn describe(
    out: &mut String,
    args: &InspectArgs,
    config: &ModelConfig,
    stored: &[StoredTensor],
    processor: &Processor,
) -> std::fmt::Result {
    let parts = parts(stored);
    let used: u64 = parts
        .iter()
        .filter(|(part, _)| **part != "not used")
        .map(|(_, count)| count)
        .sum();
    let text = &config.text;
    writeln!(
        out,
        "{}: {}, {} parameters",
        args.dir.display(),
        config.family.name(),
        si(used as f64)
    )?;
    for (part, count) in &parts {
        writeln!(out, "  {part:<11}{}", si(*count as f64))?;
    }
    let kinds: Vec<String> = types(stored)
        .iter()
        .map(|(kind, count)| format!("{} {kind}", si(*count as f64)))
        .collect();
    writeln!(out, "stored       {}", kinds.join(", "))?;
    writeln!(
        out,
        "weights take {} in f32, {} in bf16 or f16",
        bytes(used * 4),
        bytes(used * 2)
    )?;
    writeln!(
        out,
        "language     {} layers of width {} (MLP {}), {} heads on {} key heads of {}, vocabulary {}{}",
        text.layers,
        text.hidden_size,
        text.intermediate_size,
        text.heads,
        text.kv_heads,
        text.head_dim,
        text.vocab_size,
        if config.tied == Some(true) {
            ", output tied to the embedding"
        } else {
            ""
        }
    )?;
    writeln!(
        out,
        "context      {} tokens, {} of cache a token in 16 bit",
        text.max_positions,
        bytes(cache_per_token(config))
    )?;
    if let Some(window) = text.windows.iter().flatten().next() {
        let windowed = text.windows.iter().flatten().count();
        writeln!(
            out,
            "window       {windowed} of {} layers see the last {window} tokens only",
            text.layers
        )?;
    }
    let vision = &config.vision;
    writeln!(
        out,
        "vision       {} blocks of width {}, patches of {} pixels and {} frames, {}x{} to a token{}",
        vision.depth,
        vision.hidden_size,
        vision.patch_size,
        vision.temporal_patch_size,
        vision.merge_size,
        vision.merge_size,
        match &vision.windows {
            Some(windows) => format!(
                ", windows of {} pixels but in blocks {:?}",
                windows.size, windows.full_blocks
            ),
            None => String::new(),
        }
    )?;
    if let Some(audio) = &config.audio {
        writeln!(
            out,
            "audio        {} layers of width {}, {} mel bins, chunks of {} ms",
            audio.layers,
            audio.hidden_size,
            audio.mel_bins,
            20 * audio.half_chunk
        )?;
    }
    let generation = processor.generation();
    writeln!(
        out,
        "generation   ends at {:?}, {}",
        generation.eos_token_ids,
        if generation.do_sample {
            format!(
                "samples at temperature {}, top-k {}, top-p {}, repetition penalty {}",
                generation.temperature,
                generation.top_k,
                generation.top_p,
                generation.repetition_penalty
            )
        } else {
            format!(
                "greedy, repetition penalty {}",
                generation.repetition_penalty
            )
        }
    )?;
    writeln!(
        out,
        "tokenizer    {} ids",
        processor.tokenizer().vocab_size()
    )?;
    if args.tensors {
        for tensor in stored {
            writeln!(
                out,
                "{:<5} {:<20} {}",
                tensor.dtype,
                format!("{:?}", tensor.shape),
                tensor.name
            )?;
        }
    }
    Ok(())
}

fn as_json(
    args: &InspectArgs,
    config: &ModelConfig,
    stored: &[StoredTensor],
    processor: &Processor,
) -> Value {
    let text = &config.text;
    let generation = processor.generation();
    let tensors: Option<Vec<Value>> = args.tensors.then(|| {
        let each = stored.iter();
        each.map(|t| json!({ "name": t.name, "dtype": t.dtype, "shape": t.shape }))
            .collect()
    });
    json!({
        "family": config.family.name(),
        "parameters": parts(stored),
        "stored": types(stored),
        "language": {
            "layers": text.layers,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "heads": text.heads,
            "kv_heads": text.kv_heads,
            "head_dim": text.head_dim,
            "vocab_size": text.vocab_size,
            "tied": config.tied,
            "windows": text.windows,
        },
        "context": text.max_positions,
        "cache_bytes_per_token_16bit": cache_per_token(config),
        "vision": {
            "blocks": config.vision.depth,
            "hidden_size": config.vision.hidden_size,
            "patch_size": config.vision.patch_size,
            "merge_size": config.vision.merge_size,
        },
        "audio": config.audio.as_ref().map(|audio| json!({ "layers": audio.layers, "hidden_size": audio.hidden_size })),
        "generation": {
            "eos_token_ids": generation.eos_token_ids,
            "do_sample": generation.do_sample,
            "temperature": generation.temperature,
            "top_k": generation.top_k,
            "top_p": generation.top_p,
            "repetition_penalty": generation.repetition_penalty,
        },
        "tokenizer_ids": processor.tokenizer().vocab_size(),
        "tensors": tensors,
    })
}
