//! The demo pair at work on one thread: what the draft's probe sees of a question, and what either model makes of what is
//! left of it.
//!
//! All of it goes through the engine's [`Runner`], as a node's does: the probe behind the first layers of the draft, keep
//! lists before the first layer, reference answers as drafts that are verified. Encoded media are kept, so that a
//! question that is asked many times over is encoded once.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use msao_core::chat::Modality;
use msao_core::inputs::ModelInputs;
use msao_core::probe::ProbeReport;
use msao_core::sampling::{Sampler, SamplingParams, Scratch};
use msao_engine::{
    Keep, LoadOptions, MediaKeys, Model, Needs, OpenOptions, Precision, ProbeOptions, Runner,
    RunnerOptions, SequenceId, Work,
};
use msao_processor::Processor;

use crate::vqa::Question;

/// Keys and values of one question at a time.
const CACHE_BYTES: u64 = 128 << 20;
/// Features of a question's media, and of some before.
const MEDIA_BYTES: u64 = 32 << 20;
/// Most tokens of a short answer: no right one has half as many.
const LONGEST: usize = 48;

/// A question laid out for both models.
#[derive(Debug)]
pub struct Prompt {
    inputs: Arc<ModelInputs>,
    keys: MediaKeys,
    /// The last medium: the content-free text follows one of its kind.
    last: Option<Modality>,
}

/// Which model is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The small one.
    Draft,
    /// The large one.
    Target,
}

/// Both models, loaded.
#[derive(Debug)]
pub struct Lab<'a> {
    processor: &'a Processor,
    draft: Runner,
    target: Runner,
    /// Greedy.
    sampler: Sampler,
}

impl<'a> Lab<'a> {
    /// Loads the pair in `models`, in f32, for this thread alone. `processor`: the pair's, which both share.
    ///
    /// # Errors
    /// A model is not there, or cannot be loaded.
    pub fn load(models: &Path, processor: &'a Processor) -> Result<Lab<'a>> {
        // Each of the threads that share the work computes by itself.
        msao_engine::set_threads(1);
        let params = SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        };
        let vocabulary = processor.tokenizer().vocab_size() as u32;
        Ok(Lab {
            processor,
            draft: load(&models.join("demo-draft"))?,
            target: load(&models.join("demo-target"))?,
            sampler: Sampler::new(params, vocabulary, &[])?,
        })
    }

    /// Reads a question from its files on.
    ///
    /// # Errors
    /// A file is not there, or no medium.
    pub fn prompt(&self, question: &Question) -> Result<Prompt> {
        let inputs = Arc::new(crate::serving::prepare(self.processor, question)?.inputs);
        Ok(Prompt {
            keys: MediaKeys::of(self.target.model().config(), &inputs, None)?,
            inputs,
            last: question.media.last().map(|(modality, _)| *modality),
        })
    }

    /// What the draft's probe sees. `seed`: of the features' projection.
    ///
    /// # Errors
    /// The engine's.
    pub fn look(&mut self, prompt: &Prompt, seed: u64) -> Result<ProbeReport> {
        let content_free = match prompt.last {
            Some(modality) => self.processor.content_free(modality)?,
            None => Vec::new(),
        };
        let options = OpenOptions {
            keep: None,
            probe: Some(ProbeOptions { content_free, seed }),
        };
        visit(&mut self.draft, prompt, 1, &options, |runner, id, _| {
            Ok(runner.probed(id)?)
        })
    }

    /// The ids of a reference answer, with the one that ends it.
    ///
    /// # Errors
    /// The tokenizer's, or the model names no end.
    pub fn reference(&self, answer: &str) -> Result<Vec<u32>> {
        let mut ids = self.processor.tokenizer().encode(answer)?;
        let ends = &self.processor.generation().eos_token_ids;
        ids.push(
            *ends
                .first()
                .context("the model names no id that ends an answer")?,
        );
        Ok(ids)
    }

    /// The target's log-probability of an answer of given ids, its end included: nats a token.
    ///
    /// # Errors
    /// The engine's, or the answer has no id.
    pub fn log_probability(
        &mut self,
        prompt: &Prompt,
        keep: Option<Keep>,
        answer: &[u32],
    ) -> Result<f64> {
        let (_, before) = answer.split_last().context("the answer has no token")?;
        let sampler = &self.sampler;
        let options = OpenOptions { keep, probe: None };
        let reserve = before.len().max(1);
        visit(
            &mut self.target,
            prompt,
            reserve,
            &options,
            |runner, id, mut rows| {
                if !before.is_empty() {
                    let verified = runner.run(&[(id, Work::Extend(before))])?;
                    rows.extend_from_slice(verified.of(0));
                }
                let width = runner.model().config().text.vocab_size;
                let mut sum = 0.0;
                for (row, id) in rows.chunks_exact(width).zip(answer) {
                    sum += sampler.top_logprobs(row, *id, 0)?.chosen.logprob;
                }
                Ok(sum / answer.len() as f64)
            },
        )
    }

    /// Whether a model's greedy answer is the reference, word for word: the demo's own scorer.
    ///
    /// # Errors
    /// The engine's.
    pub fn is_right(
        &mut self,
        side: Side,
        prompt: &Prompt,
        keep: Option<Keep>,
        reference: &str,
    ) -> Result<bool> {
        let ends = &self.processor.generation().eos_token_ids;
        let sampler = &self.sampler;
        let runner = match side {
            Side::Draft => &mut self.draft,
            Side::Target => &mut self.target,
        };
        let options = OpenOptions { keep, probe: None };
        let tokens = visit(runner, prompt, LONGEST, &options, |runner, id, mut row| {
            let mut scratch = Scratch::default();
            let mut tokens: Vec<u32> = Vec::new();
            while tokens.len() < LONGEST {
                let pick = sampler.pick(&row, tokens.len() as u32, None, &mut scratch)?;
                if ends.contains(&pick.id) {
                    break;
                }
                tokens.push(pick.id);
                row = runner
                    .run(&[(id, Work::Extend(&[pick.id]))])?
                    .of(0)
                    .to_vec();
            }
            Ok(tokens)
        })?;
        let said = self.processor.tokenizer().decode(&tokens, true);
        Ok(said.trim() == reference)
    }
}

fn load(dir: &Path) -> Result<Runner> {
    let options = LoadOptions {
        // The figures are those of the stored values computed in f32, as the pair's own are.
        precision: Precision::F32,
        ..LoadOptions::default()
    };
    let caches = RunnerOptions {
        cache_bytes: CACHE_BYTES,
        media_cache_bytes: MEDIA_BYTES,
        // The same prompt comes again with other tokens of it.
        prefixes: 0,
        ..RunnerOptions::default()
    };
    let model = Model::load(dir, &options).with_context(|| dir.display().to_string())?;
    Ok(Runner::new(model, &caches)?)
}

/// Reads a prompt, hands the logits that follow it to `then` (none behind a probe), and lets go of it.
fn visit<T>(
    runner: &mut Runner,
    prompt: &Prompt,
    reserve: usize,
    options: &OpenOptions,
    then: impl FnOnce(&mut Runner, SequenceId, Vec<f32>) -> Result<T>,
) -> Result<T> {
    let (inputs, keys) = (Arc::clone(&prompt.inputs), prompt.keys.clone());
    let id = runner.open_hashed(inputs, Some(keys), reserve, options)?;
    let result = read(runner, id).and_then(|row| then(runner, id, row));
    runner.close(id)?;
    result
}

fn read(runner: &mut Runner, id: SequenceId) -> Result<Vec<f32>> {
    loop {
        match runner.needs(id)? {
            Needs::Encoding => runner.encode(id)?,
            Needs::Reading(left) => {
                let logits = runner.run(&[(id, Work::Read(left))])?;
                if !logits.of(0).is_empty() {
                    return Ok(logits.of(0).to_vec());
                }
            }
            Needs::Keeping | Needs::Nothing => return Ok(Vec::new()),
        }
    }
}
