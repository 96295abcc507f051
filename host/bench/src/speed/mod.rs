//! Our speed beside Hugging Face's, on the same weights, threads and prompts, in one run.
//!
//! Each side is a process of its own ([`child::Measurer`]) that loads the model and is asked in turns, so that what else the
//! machine does strikes both. Hugging Face's side is `reference/generate_speed.py`, given its best; ours is this
//! program's hidden command ([`ours`]).

pub mod child;
pub mod ours;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use msao_engine::twin::{TwinOptions, make, random_prompts};
use msao_engine::{ModelConfig, Place};

use self::child::{Measurer, Request, Told};
use crate::machine::{BELIEVABLE, Machine};
use crate::report::Row;

/// The environment variable that names a Python with transformers; `cargo xtask prove serving` sets it.
pub const PYTHON: &str = "MSAO_REFERENCE_PYTHON";

const BATCHES: [usize; 3] = [1, 4, 16];
/// Tokens of a prompt in the decode rows.
const PROMPT: usize = 64;
/// Tokens of a prompt in the prefill rows.
const LONG_PROMPT: usize = 512;
/// Times that both sides are asked in turns.
const TURNS: usize = 2;
/// Bytes that may come on top of weights and cache.
const SPARE: f64 = 300e6;
/// The share of the memory-bandwidth limit aimed at.
const SHARE: f64 = 80.0;
/// Answers by whose median it is judged, and answers where it is only told.
const JUDGED_TURNS: usize = 9;
const TOLD_TURNS: usize = 3;
/// The twin that stands for 0.5B.
const TWIN: &str = "0.5b";

/// What to compare.
pub struct Options<'a> {
    /// This program.
    pub prover: &'a Path,
    /// The folder that holds demo-target.
    pub models: &'a Path,
    /// Where the twin is made and kept.
    pub scratch: &'a Path,
    /// Where both sides compute.
    pub place: Place,
    /// Threads for both sides.
    pub threads: usize,
    /// Ways in which Hugging Face may run; the fastest counts, figure by figure.
    pub modes: &'a str,
    /// Seconds that Hugging Face may take for a figure in each of its ways, about; prompts and answers are cut to that.
    pub reference_seconds: f64,
    /// Only models with one of these names.
    pub only: &'a [String],
}

/// One model in one precision, and how many times Hugging Face's decode speed ours must reach.
struct Case {
    name: &'static str,
    precision: &'static str,
    int8: bool,
    reference: &'static str,
    aim: f64,
    new_tokens: usize,
    /// Whether the share of the bandwidth limit is judged.
    large: bool,
}

const CASES: [Case; 5] = [
    Case {
        name: "demo",
        precision: "f32",
        int8: false,
        reference: "float32",
        aim: 3.0,
        new_tokens: 65,
        large: false,
    },
    Case {
        name: "demo",
        precision: "bf16",
        int8: false,
        reference: "bfloat16",
        aim: 3.0,
        new_tokens: 65,
        large: false,
    },
    Case {
        name: TWIN,
        precision: "f32",
        int8: false,
        reference: "float32",
        aim: 1.3,
        new_tokens: 25,
        large: true,
    },
    Case {
        name: TWIN,
        precision: "bf16",
        int8: false,
        reference: "bfloat16",
        aim: 1.3,
        new_tokens: 25,
        large: true,
    },
    Case {
        name: TWIN,
        precision: "bf16",
        int8: true,
        reference: "bfloat16",
        aim: 2.0,
        new_tokens: 25,
        large: true,
    },
];

/// All rows of the comparison, the machine's limits first.
pub fn rows(options: &Options) -> Result<Vec<Row>> {
    let machine = Machine::measure(options.place, options.threads)?;
    let mut rows = machine.rows();
    for case in &CASES {
        if options.only.is_empty() || options.only.iter().any(|name| name == case.name) {
            let measured = case.rows(options, &machine);
            rows.extend(measured.unwrap_or_else(|error| {
                vec![Row::failed(case.title(), "measured", format!("{error:#}"))]
            }));
        }
    }
    Ok(rows)
}

/// The directory of a case's model.
fn directory(name: &str, options: &Options) -> Result<PathBuf> {
    if name == TWIN {
        twin(options.scratch, options.models)
    } else {
        Ok(options.models.join("demo-target"))
    }
}

/// The directory of the 0.5B twin's target; the twin is made at first, in `scratch`, with the tokenizer of demo-target in
/// `models`.
pub fn twin(scratch: &Path, models: &Path) -> Result<PathBuf> {
    let out = scratch.join(format!("twin-{TWIN}"));
    if !out.join("twin.json").is_file() {
        // What an interrupted run has left.
        if out.exists() {
            std::fs::remove_dir_all(&out).with_context(|| out.display().to_string())?;
        }
        eprintln!("making the {TWIN} twin in {}, once", out.display());
        let wish = TwinOptions {
            shape: TWIN.to_owned(),
            draft_layers: 4,
            agreement: 0.8,
            seed: 0,
            bf16: true,
            tokenizer: models.join("demo-target"),
            out: out.clone(),
        };
        make(&wish, &mut |step| eprintln!("  {step}"))?;
    }
    Ok(out.join("target"))
}

/// The Python with transformers.
fn python() -> Result<PathBuf> {
    std::env::var_os(PYTHON).map(PathBuf::from).with_context(|| {
        format!(
            "{PYTHON} is not set: run `cargo xtask prove serving`, which fetches a Python environment, or set it to a \
             Python with host/bench/reference/requirements.txt"
        )
    })
}

impl Case {
    fn title(&self) -> String {
        let int8 = if self.int8 { " int8" } else { "" };
        format!("{} {}{int8}", self.name, self.precision)
    }

    fn rows(&self, options: &Options, machine: &Machine) -> Result<Vec<Row>> {
        let dir = directory(self.name, options)?;
        let config = ModelConfig::load(&dir)?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/generate_speed.py");
        let mut ours = Measurer::ours(
            options.prover,
            &dir,
            self.precision,
            self.int8,
            (options.place, options.threads),
        )?;
        let mut theirs = Measurer::reference(
            &python()?,
            &script,
            &dir,
            self.reference,
            (options.place, options.threads),
            (options.modes, options.reference_seconds),
        )?;
        let mut rows = Vec::new();
        for batch in BATCHES {
            let request = Request {
                prompts: random_prompts(&dir, batch, PROMPT, batch as u64)?,
                new_tokens: self.new_tokens,
                repeats: 2,
            };
            rows.extend(self.decode_rows(&mut ours, &mut theirs, &request, &config, machine)?);
        }
        let request = Request {
            prompts: random_prompts(&dir, 1, LONG_PROMPT, 7)?,
            new_tokens: 2,
            repeats: 2,
        };
        rows.push(match in_turns(&mut ours, &mut theirs, &request) {
            Ok((us, them)) => self
                .beside(
                    &format!("prefill of {LONG_PROMPT} tokens"),
                    (us.prefill_tokens_per_s, them.prefill_tokens_per_s),
                    " tokens/s",
                    1.0,
                    &them.modes.prefill,
                )
                .with_more(cut(&request, &them)),
            Err(error) => self.missed(&format!("prefill of {LONG_PROMPT} tokens"), 1.0, &error),
        });
        Ok(rows)
    }

    fn decode_rows(
        &self,
        ours: &mut Measurer,
        theirs: &mut Measurer,
        request: &Request,
        config: &ModelConfig,
        machine: &Machine,
    ) -> Result<Vec<Row>> {
        let batch = request.prompts.len();
        let what = format!("decode at batch {batch}");
        let (us, them) = match in_turns(ours, theirs, request) {
            Ok(both) => both,
            Err(error) => return Ok(vec![self.missed(&what, self.aim, &error)]),
        };
        // Both sides did as much as theirs had time for.
        let step = Step::new(
            config,
            self,
            batch,
            them.prompt_tokens + them.new_tokens / 2,
        );
        let mut decode = self
            .beside(
                &what,
                (us.decode_tokens_per_s, them.decode_tokens_per_s),
                " tokens/s",
                self.aim,
                &them.modes.decode,
            )
            .with_more(cut(request, &them));
        decode.details.push(same_tokens(&us, &them));
        let mut rows = vec![decode];
        // A small model lies in the processor's caches: memory is no limit to it.
        if self.large {
            // Batch 16 is judged by the rows on verification and batches; here the aim is for reading the weights.
            let judged = batch == 1 && machine.place == Place::Cpu;
            let alone = Request {
                repeats: 1,
                ..request.cut(them.prompt_tokens, them.new_tokens)
            };
            let work = (step.bytes, step.flops, self.precision == "bf16");
            let turns = if judged { JUDGED_TURNS } else { TOLD_TURNS };
            let shares = machine.in_turns(turns, work, || {
                Ok(batch as f64 / ours.ask(&alone)?.decode_tokens_per_s)
            })?;
            let name = format!("{}: share of the limit, {what}", self.title());
            let share = if judged {
                Row::between(name, shares.median(), SHARE, BELIEVABLE, " %")
            } else {
                Row::told(name, shares.median(), " %")
            };
            rows.push(share.with_details(vec![shares.words()]));
        }
        rows.push(self.beside(
            &format!("first token at batch {batch}, inverted"),
            (1e3 / us.first_token_ms, 1e3 / them.first_token_ms),
            " /s",
            1.0,
            &them.modes.first,
        ));
        // On a GPU the cache is set aside whole.
        let (what, cache, peak, theirs) = match machine.place {
            Place::Cpu => (
                "memory above weights and cache",
                step.cache_bytes,
                us.peak_anonymous_bytes,
                them.peak_anonymous_bytes,
            ),
            Place::Cuda(_) => (
                "device memory above weights and cache",
                ours.ready.cache_bytes as f64,
                us.peak_device_bytes,
                them.peak_device_bytes,
            ),
        };
        let over = peak as f64 - ours.ready.weight_bytes as f64 - cache;
        rows.push(
            Row::at_most(
                format!("{}: {what}, batch {batch}", self.title()),
                over / 1e6,
                SPARE / 1e6,
                " MB",
            )
            .with_details(vec![format!(
                "peak {:.0} MB above the bare process, weights {:.0} MB; Hugging Face {:.0} MB",
                peak as f64 / 1e6,
                ours.ready.weight_bytes as f64 / 1e6,
                theirs as f64 / 1e6
            )]),
        );
        Ok(rows)
    }

    /// Our figure over theirs, larger being better.
    fn beside(&self, what: &str, (us, them): (f64, f64), unit: &str, aim: f64, mode: &str) -> Row {
        let against = if self.int8 {
            " of Hugging Face's bf16"
        } else {
            " of Hugging Face's"
        };
        Row::at_least(
            format!("{}: {what}, times{against}", self.title()),
            us / them,
            aim,
            " x",
        )
        .with_details(vec![format!(
            "{us:.1}{unit}; Hugging Face {them:.1}{unit} ({mode})"
        )])
    }

    fn missed(&self, what: &str, aim: f64, error: &anyhow::Error) -> Row {
        let name = format!("{}: {what}, times of Hugging Face's", self.title());
        Row::failed(name, &format!(">= {aim} x"), format!("{error:#}"))
    }
}

/// Asks both sides in turns and keeps each side's best. Where they would take too long both read and write less.
fn in_turns(ours: &mut Measurer, theirs: &mut Measurer, request: &Request) -> Result<(Told, Told)> {
    // Ours first: what cannot be asked of us need not be asked of them.
    let (mut us, mut them) = (ours.ask(request)?, theirs.ask(request)?);
    let cut = request.cut(them.prompt_tokens, them.new_tokens);
    if cut.prompt_tokens() < request.prompt_tokens() || cut.new_tokens < request.new_tokens {
        us = ours.ask(&cut)?;
    }
    for _ in 1..TURNS {
        us = us.best(ours.ask(&cut)?);
        them = them.best(theirs.ask(&cut)?);
    }
    Ok((us, them))
}

/// Tells where less was measured than was asked for.
fn cut(request: &Request, them: &Told) -> Option<String> {
    let (prompt, answer) = (request.prompt_tokens(), request.new_tokens);
    (them.prompt_tokens < prompt || them.new_tokens < answer).then(|| {
        format!(
            "cut for both sides, Hugging Face being too slow here: {} of {prompt} tokens of the prompt, {} of {answer} of \
             the answer",
            them.prompt_tokens, them.new_tokens
        )
    })
}

/// How many tokens both sides chose alike, up to the first in each answer that differs: behind it the texts differ.
fn same_tokens(us: &Told, them: &Told) -> String {
    let pairs = || us.tokens.iter().zip(&them.tokens);
    let alike: usize = pairs()
        .map(|(ours, theirs)| ours.iter().zip(theirs).take_while(|(a, b)| a == b).count())
        .sum();
    let all: usize = us.tokens.iter().map(Vec::len).sum();
    format!("{alike} of {all} tokens alike before the first difference of each answer")
}

/// What one decode step must read and compute.
struct Step {
    bytes: f64,
    flops: f64,
    /// The batch's whole cache at the end of the answers, about.
    cache_bytes: f64,
}

impl Step {
    /// For `batch` sequences that hold `tokens` each.
    fn new(config: &ModelConfig, case: &Case, batch: usize, tokens: usize) -> Self {
        let text = &config.text;
        let heads = text.heads + 2 * text.kv_heads;
        let layer = text.hidden_size * (heads * text.head_dim + text.heads * text.head_dim)
            + 3 * text.hidden_size * text.intermediate_size;
        let matrices = (text.layers * layer + text.vocab_size * text.hidden_size) as f64;
        let value = if case.precision == "f32" { 4.0 } else { 2.0 };
        let weight = if case.int8 { 1.0 } else { value };
        let cached = (2 * text.layers * text.kv_heads * text.head_dim * tokens * batch) as f64;
        let attention = (4 * text.layers * text.heads * text.head_dim * tokens * batch) as f64;
        Step {
            bytes: matrices * weight + cached * value,
            flops: 2.0 * matrices * batch as f64 + attention,
            cache_bytes: cached * value,
        }
    }
}
