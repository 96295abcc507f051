//! A process that measures: Hugging Face's script or this program's own hidden command. Both speak the same lines.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use msao_engine::Place;
use serde::{Deserialize, Serialize};

/// One measurement: prompts of equal length, one batch, greedy.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Request {
    /// Token ids of each prompt.
    pub prompts: Vec<Vec<u32>>,
    /// Tokens of every answer.
    pub new_tokens: usize,
    /// Runs after a warm-up; the fastest counts.
    pub repeats: usize,
}

impl Request {
    /// The same with shorter prompts and answers.
    pub fn cut(&self, prompt_tokens: usize, new_tokens: usize) -> Request {
        let cut = |prompt: &Vec<u32>| prompt.iter().take(prompt_tokens).copied().collect();
        Request {
            prompts: self.prompts.iter().map(cut).collect(),
            new_tokens: self.new_tokens.min(new_tokens),
            repeats: self.repeats,
        }
    }

    /// Tokens of each prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompts.first().map_or(0, Vec::len)
    }
}

/// What a measurement gave.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Told {
    /// Which way of running was the fastest, figure by figure (Hugging Face has several).
    #[serde(default)]
    pub modes: Modes,
    /// Tokens of each prompt that were read: fewer than asked for where that would have taken too long.
    #[serde(default)]
    pub prompt_tokens: usize,
    /// Tokens of each answer: fewer than asked for where that would have taken too long.
    #[serde(default)]
    pub new_tokens: usize,
    /// Tokens a second of the whole batch, between the first and the last.
    pub decode_tokens_per_s: f64,
    /// Prompt tokens a second of the whole batch, until the first tokens.
    pub prefill_tokens_per_s: f64,
    /// Until the first tokens.
    pub first_token_ms: f64,
    /// Peak of anonymous memory above the process before the model was loaded.
    pub peak_anonymous_bytes: u64,
    /// Peak of what tensors held of a GPU's memory; 0 on the processor.
    #[serde(default)]
    pub peak_device_bytes: u64,
    /// The answers.
    pub tokens: Vec<Vec<u32>>,
}

impl Told {
    /// The better figure of two measurements, each for itself: a pause of the machine spoils one of them.
    pub fn best(self, other: Told) -> Told {
        Told {
            modes: Modes {
                decode: if other.decode_tokens_per_s > self.decode_tokens_per_s {
                    other.modes.decode
                } else {
                    self.modes.decode
                },
                prefill: if other.prefill_tokens_per_s > self.prefill_tokens_per_s {
                    other.modes.prefill
                } else {
                    self.modes.prefill
                },
                first: if other.first_token_ms < self.first_token_ms {
                    other.modes.first
                } else {
                    self.modes.first
                },
            },
            prompt_tokens: self.prompt_tokens.min(other.prompt_tokens),
            new_tokens: self.new_tokens.min(other.new_tokens),
            decode_tokens_per_s: self.decode_tokens_per_s.max(other.decode_tokens_per_s),
            prefill_tokens_per_s: self.prefill_tokens_per_s.max(other.prefill_tokens_per_s),
            first_token_ms: self.first_token_ms.min(other.first_token_ms),
            peak_anonymous_bytes: self.peak_anonymous_bytes.max(other.peak_anonymous_bytes),
            peak_device_bytes: self.peak_device_bytes.max(other.peak_device_bytes),
            tokens: self.tokens,
        }
    }
}

/// The way of running that gave each figure.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Modes {
    /// Tokens a second of decoding.
    #[serde(default)]
    pub decode: String,
    /// Tokens a second of reading the prompt.
    #[serde(default)]
    pub prefill: String,
    /// Time to the first token.
    #[serde(default)]
    pub first: String,
}

/// What a process says when it can be asked.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Ready {
    /// Bytes of weights as held.
    pub weight_bytes: u64,
    /// Bytes of a cache that is set aside whole, as on a GPU; 0 where it is taken as it fills.
    #[serde(default)]
    pub cache_bytes: u64,
}

/// An answer or why there is none.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Failed {
        error: String,
        #[serde(default)]
        failed: serde_json::Value,
    },
    Told(Told),
}

/// A running process; it ends with this value.
pub struct Measurer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    name: String,
    /// What it said at the start.
    pub ready: Ready,
}

impl Measurer {
    /// Hugging Face's side.
    pub fn reference(
        python: &Path,
        script: &Path,
        model: &Path,
        dtype: &str,
        (place, threads): (Place, usize),
        (modes, seconds): (&str, f64),
    ) -> Result<Self> {
        let mut command = Command::new(python);
        command
            .arg(script)
            .args(["--dtype", dtype, "--modes", modes])
            .args(["--threads", &threads.to_string()])
            .args(["--device", &place.to_string()])
            .args(["--seconds", &seconds.to_string()])
            .arg("--model")
            .arg(model)
            .env("HF_HUB_OFFLINE", "1")
            .env("TRANSFORMERS_VERBOSITY", "error")
            .env("HF_HUB_DISABLE_PROGRESS_BARS", "1");
        Self::start(command, "Hugging Face")
    }

    /// Our side: `prover` is this program.
    pub fn ours(
        prover: &Path,
        model: &Path,
        precision: &str,
        int8: bool,
        (place, threads): (Place, usize),
    ) -> Result<Self> {
        let mut command = Command::new(prover);
        command
            .arg(super::ours::COMMAND)
            .arg(model)
            .args([precision, if int8 { "int8" } else { "plain" }])
            .arg(threads.to_string())
            .arg(place.to_string());
        Self::start(command, "our engine")
    }

    fn start(mut command: Command, name: &str) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("{name}: cannot run {:?}", command.get_program()))?;
        let input = child.stdin.take().context("no pipe to the process")?;
        let output = child.stdout.take().context("no pipe from the process")?;
        let mut measurer = Measurer {
            child,
            input,
            output: BufReader::new(output),
            name: name.to_owned(),
            ready: Ready {
                weight_bytes: 0,
                cache_bytes: 0,
            },
        };
        let line = measurer.line()?;
        measurer.ready = serde_json::from_str(&line).with_context(|| format!("{name}: {line}"))?;
        Ok(measurer)
    }

    /// Measures once.
    pub fn ask(&mut self, request: &Request) -> Result<Told> {
        let line = serde_json::to_string(request)? + "\n";
        self.input
            .write_all(line.as_bytes())
            .and_then(|()| self.input.flush())
            .with_context(|| format!("{} has ended", self.name))?;
        let line = self.line()?;
        match serde_json::from_str(&line) {
            Ok(Line::Told(told)) => Ok(told),
            Ok(Line::Failed { error, failed }) => Err(anyhow!("{}: {error} {failed}", self.name)),
            Err(error) => Err(anyhow!("{}: {error}: {line}", self.name)),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!(
                "{} ended before it answered; its own words are above",
                self.name
            );
        }
        Ok(line)
    }
}

impl Drop for Measurer {
    fn drop(&mut self) {
        // It may have ended by itself already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
