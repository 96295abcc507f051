//! Twins: a random target whose draft is its own first layers, agreeing as often as asked.
//!
//! Speculation, serving and placement can be measured at real sizes without anyone's weights: a twin computes what a
//! trained model of its shape computes, and how often its draft is right is a dial. **Twins claim speed only, at
//! retention 1**: their text means nothing, so nothing can be said about quality.
//!
//! [`make`] writes two ordinary Hugging Face directories. The draft has the target's embedding, towers, first layers,
//! last norm and head. What the target's other layers add to the residual stream (the outputs of `o_proj` and
//! `down_proj`) is scaled: at 0 both models are the same, and the more it is the less often they agree. [`search`]
//! finds the scale holding one layer at a time, so that no size needs its whole model in memory; [`agreement`] then
//! measures the written pair with the engine itself.
//!
//! The weights are a function of seed and tensor name (Philox), so the same seed writes the same bytes.

mod agree;
mod card;
mod search;
mod shape;
mod tensors;
mod tokens;

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

pub use self::agree::{Agreement, agreement};
pub use self::shape::SHAPES;
use self::shape::Shape;
use self::tensors::{Dtype, Plan};
use crate::config::ModelConfig;
use crate::device::Precision;
use crate::error::{EngineError, Result};
use crate::model::{LoadOptions, Model};

/// What to make.
#[derive(Clone, Debug)]
pub struct TwinOptions {
    /// A name of [`SHAPES`], or a directory whose `config.json` gives the sizes.
    pub shape: String,
    /// Layers of the draft: at least 1, fewer than the target's.
    pub draft_layers: usize,
    /// How often draft and target should choose the same token: above 0, at most 1.
    pub agreement: f64,
    /// Which twin.
    pub seed: u64,
    /// Whether the files hold bf16 rather than f32.
    pub bf16: bool,
    /// A Qwen2.5-Omni thinker's directory for tokenizer, template, preprocessors and small towers.
    pub tokenizer: PathBuf,
    /// The folder to write `target`, `draft` and `twin.json` into.
    pub out: PathBuf,
}

/// What was made; `twin.json` holds the same.
#[derive(Clone, Debug, Serialize)]
pub struct Twin {
    /// What a twin is good for.
    pub claim: &'static str,
    /// The shape as it was asked for.
    pub shape: String,
    /// Which twin of the shape.
    pub seed: u64,
    /// Type of the stored weights.
    pub dtype: &'static str,
    /// Layers of the target.
    pub target_layers: usize,
    /// Layers of the draft.
    pub draft_layers: usize,
    /// Parameters of the target, towers included.
    pub target_parameters: u64,
    /// Parameters of the draft, towers included.
    pub draft_parameters: u64,
    /// The agreement asked for.
    pub asked: f64,
    /// The agreement reached: as measured on the target's greedy answers where that was done, else as estimated.
    pub reached: f64,
    /// What the layers behind the draft's add to the residual stream, in units of what the draft's add.
    pub scale: f64,
    /// Agreement on random tokens, f32, one layer at a time.
    pub estimate: Estimate,
    /// Agreement on the target's greedy answers, the written files run by the engine as they are stored; absent where
    /// the memory would not hold both models.
    pub measured: Option<Agreement>,
}

/// Agreement on random tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Estimate {
    /// Share of positions at which draft and target choose the same token.
    pub agreement: f64,
    /// Positions looked at.
    pub positions: usize,
}

const CLAIM: &str = "speed only, at retention 1: the weights are random and the text means nothing";

/// Positions of random tokens that the search looks at: as many as some 2.5e11 parameter-tokens allow.
const SEARCH_POSITIONS: (usize, usize) = (256, 2048);
const SEARCH_BUDGET: f64 = 2.5e11;
/// Tokens of greedy answers that the written pair is measured on: decoding is bound by memory, so fewer.
const MEASURED_TOKENS: (usize, usize) = (128, 2048);
const MEASURE_BUDGET: f64 = 1.2e11;
/// Random tokens in front of an answer, and tokens of it.
const PROMPT: usize = 32;
const ANSWER: usize = 32;
/// How often a pair that is off is corrected and written again.
const CORRECTIONS: usize = 3;
/// Nearer than this, or than the measurement's own error, nothing is corrected.
const NEAR: f64 = 0.015;

/// Makes a twin, telling `say` about each step.
///
/// # Errors
/// If an option is out of its range, the shape is not known, the tokenizer's directory misses a file, the folder
/// already holds a twin, or a file cannot be written.
pub fn make(options: &TwinOptions, say: &mut dyn FnMut(&str)) -> Result<Twin> {
    tch::no_grad(|| make_inner(options, say))
}

fn make_inner(options: &TwinOptions, say: &mut dyn FnMut(&str)) -> Result<Twin> {
    let wanted = options.agreement;
    if !(wanted > 0.0 && wanted <= 1.0) {
        return Err(EngineError::request(format!(
            "agreement is {wanted}; it must be above 0 and at most 1"
        )));
    }
    let shape = Shape::find(&options.shape, &options.tokenizer)?;
    let layers = shape.layers();
    if options.draft_layers == 0 || options.draft_layers >= layers {
        return Err(EngineError::request(format!(
            "draft-layers is {}; the shape {} has {layers} layers, so it must be between 1 and {}",
            options.draft_layers,
            options.shape,
            layers - 1
        )));
    }
    let folders = ["target", "draft"].map(|half| options.out.join(half));
    if let Some(there) = folders.iter().find(|folder| folder.exists()) {
        return Err(EngineError::request(format!(
            "{} is there already: remove it, or choose another folder with --out",
            there.display()
        )));
    }
    let vocabulary = tokens::Vocabulary::read(&options.tokenizer, shape.vocabulary())?;
    let dtype = if options.bf16 {
        Dtype::Bf16
    } else {
        Dtype::F32
    };
    let config = shape.config(layers, dtype, &options.out)?;
    let draft_config = shape.config(options.draft_layers, dtype, &options.out)?;
    let mut plan = Plan {
        config: &config.1,
        seed: options.seed,
        dtype,
        draft_layers: options.draft_layers,
        silent_rows: vocabulary.special(),
        scale: 0.0,
    };
    let draft_plan = Plan {
        config: &draft_config.1,
        ..plan.clone()
    };
    let weights = plan.parameters() as f64;
    let within = |budget: f64, (least, most): (usize, usize)| {
        ((budget / weights) as usize).clamp(least, most)
    };

    let positions = within(SEARCH_BUDGET, SEARCH_POSITIONS);
    if wanted * (positions as f64) < 1.0 {
        return Err(EngineError::request(format!(
            "agreement is {wanted}; the search looks at {positions} tokens and cannot tell less than {:.4}",
            1.0 / positions as f64
        )));
    }
    say(&format!(
        "looking for the scale that agrees at {wanted} of {positions} random tokens, one layer at a time"
    ));
    let curve = search::search(&plan, wanted, positions)?;
    let mut found = curve.at(wanted)?;

    write_half(
        &folders[1],
        &draft_config.0,
        &draft_plan,
        &vocabulary,
        options,
    )?;
    let tokens = within(MEASURE_BUDGET, MEASURED_TOKENS);
    let mut measured = None;
    let mut offsets: Vec<f64> = Vec::new();
    for round in 0..=CORRECTIONS {
        plan.scale = found.scale;
        say(&format!(
            "writing {} at scale {:.4}",
            folders[0].display(),
            found.scale
        ));
        write_half(&folders[0], &config.0, &plan, &vocabulary, options)?;
        let bytes = match measuring() {
            Precision::F32 => 4 * (plan.parameters() + draft_plan.parameters()),
            _ => plan.bytes() + draft_plan.bytes(),
        };
        if !fits_in_memory(bytes) {
            say(
                "the memory would not hold both models: the agreement is the estimate on random tokens",
            );
            break;
        }
        let now = measure(&folders, tokens, options.seed, &vocabulary)?;
        say(&format!(
            "measured {:.1} % on {} greedy tokens",
            100.0 * now.rate,
            now.tokens
        ));
        let near = (now.rate - wanted).abs() <= NEAR.max(now.error());
        offsets.push(now.rate - found.agreement);
        measured = Some(now);
        if near || found.scale == 0.0 || round == CORRECTIONS {
            break;
        }
        // One measurement has an error of its own; what the answers differ by from random tokens is their mean.
        let offset = offsets.iter().sum::<f64>() / offsets.len() as f64;
        let aim = (wanted - offset).clamp(0.2 * wanted, 1.0 - 0.2 * (1.0 - wanted));
        found = curve.at(aim)?;
    }
    let twin = Twin {
        claim: CLAIM,
        shape: options.shape.clone(),
        seed: options.seed,
        dtype: dtype.name(),
        target_layers: layers,
        draft_layers: options.draft_layers,
        target_parameters: plan.parameters(),
        draft_parameters: draft_plan.parameters(),
        asked: wanted,
        reached: measured
            .as_ref()
            .map_or(found.agreement, |measured| measured.rate),
        scale: found.scale,
        estimate: Estimate {
            agreement: found.agreement,
            positions,
        },
        measured,
    };
    card::write(&options.out, &twin)?;
    Ok(twin)
}

/// Writes one model directory: configuration, tokenizer and preprocessor files, weights.
fn write_half(
    folder: &Path,
    config: &Map<String, Value>,
    plan: &Plan,
    vocabulary: &tokens::Vocabulary,
    options: &TwinOptions,
) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| cannot_write(folder, e))?;
    tokens::write_json(&folder.join("config.json"), &Value::Object(config.clone()))?;
    vocabulary.write(&options.tokenizer, folder)?;
    tensors::write(&folder.join("model.safetensors"), plan)
}

fn measure(
    folders: &[PathBuf; 2],
    tokens: usize,
    seed: u64,
    vocabulary: &tokens::Vocabulary,
) -> Result<Agreement> {
    let [target, draft] = folders;
    let options = LoadOptions {
        precision: measuring(),
        ..LoadOptions::default()
    };
    let load = |dir: &Path| Model::load(dir, &options);
    let prompts = agree::prompts(
        tokens.div_ceil(ANSWER),
        PROMPT,
        seed ^ agree::MEASURING,
        &vocabulary.ordinary(),
    );
    agreement(&load(target)?, &load(draft)?, &prompts, ANSWER)
}

/// As stored, or in f32 where our own kernels do not run: libtorch's bf16 takes hundreds of times as long there.
fn measuring() -> Precision {
    if msao_kernels::supported() {
        Precision::Stored
    } else {
        Precision::F32
    }
}

fn cannot_write(path: &Path, error: std::io::Error) -> EngineError {
    EngineError::request(format!("cannot write {}: {error}", path.display()))
}

/// Whether `bytes` of weights can be loaded without pushing anything else out.
fn fits_in_memory(bytes: u64) -> bool {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = told
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| {
        rest.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.is_none_or(|kib| kib * 1024 > bytes + bytes / 8 + (512 << 20))
}

/// A random prompt generator for measuring a written pair: `count` prompts of `length` ordinary tokens.
pub fn random_prompts(dir: &Path, count: usize, length: usize, seed: u64) -> Result<Vec<Vec<u32>>> {
    let config = ModelConfig::load(dir)?;
    let vocabulary = tokens::Vocabulary::read(dir, config.text.vocab_size)?;
    Ok(agree::prompts(count, length, seed, &vocabulary.ordinary()))
}
