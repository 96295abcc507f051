//! A loaded model and the sequences it runs.

use std::path::Path;
use std::time::Instant;

use msao_core::inputs::{Array, ModelInputs, patch_count};
use msao_core::meter::{Meter, Phase};
use tch::{Kind, Tensor};

use crate::audio::{AudioEncoder, token_count};
use crate::cache::KvCache;
use crate::config::ModelConfig;
use crate::device::{Place, Precision, kind_name};
use crate::error::{EngineError, Result};
use crate::language::LanguageModel;
use crate::nn::{Work, index_tensor};
use crate::positions::{Positions, positions};
use crate::vision::VisionEncoder;
use crate::weights::Weights;

/// Most bytes of logits that [`Model::forward`] makes: they are held a few times over on their way to a file.
const MAX_LOGIT_BYTES: usize = 4 << 30;

/// How to hold a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Where.
    pub place: Place,
    /// How exactly.
    pub precision: Precision,
}

/// A checkpoint in memory, ready to run.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    vision: VisionEncoder,
    audio: Option<AudioEncoder>,
    language: LanguageModel,
    weight_bytes: u64,
    kind: Kind,
    place: Place,
}

/// One conversation's state: what the model has read and written so far, and what that cost.
#[derive(Debug)]
pub struct Sequence {
    cache: KvCache,
    /// Where the next token stands in time, height and width.
    next_position: [i64; 3],
    /// Tokens of the prompt, which stay.
    prompt_tokens: usize,
    meter: Meter,
    /// When the cache was last charged for.
    cache_since: Instant,
}

impl Sequence {
    /// Tokens in the cache.
    pub fn tokens(&self) -> usize {
        self.cache.tokens()
    }

    /// What this sequence has cost so far.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Charges the cache's bytes, as they are now, for the time since the last charge.
    pub(crate) fn charge_cache(&mut self) {
        let now = Instant::now();
        self.meter
            .keep_cache(self.cache.bytes(), now - self.cache_since);
        self.cache_since = now;
    }
}

/// Names under which checkpoints of different generations keep the same part, newest first.
struct Names {
    visual: &'static str,
    language: &'static str,
    /// Prefix of everything: whole Omni checkpoints keep the thinker beside the talker.
    root: &'static str,
}

const LAYOUTS: [Names; 3] = [
    Names {
        root: "",
        visual: "model.visual",
        language: "model.language_model",
    },
    Names {
        root: "",
        visual: "visual",
        language: "model",
    },
    Names {
        root: "thinker.",
        visual: "visual",
        language: "model",
    },
];

impl Model {
    /// Loads the checkpoint in `dir`.
    pub fn load(dir: &Path, options: &LoadOptions) -> Result<Self> {
        tch::no_grad(|| Self::load_inner(dir, options))
    }

    fn load_inner(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let config = ModelConfig::load(dir)?;
        let weights = Weights::open(dir)?;
        let kind = options.precision.kind(weights.stored_kind());
        let mut weights = weights.target(kind, options.place.device()?);
        let layout = LAYOUTS
            .iter()
            .find(|names| {
                weights.has(&format!(
                    "{}{}.embed_tokens.weight",
                    names.root, names.language
                ))
            })
            .ok_or_else(|| {
                let tried: Vec<String> = LAYOUTS
                    .iter()
                    .map(|names| format!("{}{}.embed_tokens.weight", names.root, names.language))
                    .collect();
                EngineError::checkpoint(
                    dir,
                    format!(
                        "no safetensors file here holds the token embedding under any of {}",
                        tried.join(", ")
                    ),
                )
            })?;
        let named = |part: &str| format!("{}{part}", layout.root);
        let head = named("lm_head");
        let tied = config
            .tied
            .unwrap_or(!weights.has(&format!("{head}.weight")));
        let vision = VisionEncoder::load(
            &mut weights,
            &named(layout.visual),
            config.family,
            &config.vision,
        )?;
        let audio = match &config.audio {
            Some(audio) => Some(AudioEncoder::load(
                &mut weights,
                &named("audio_tower"),
                audio,
            )?),
            None => None,
        };
        let language = LanguageModel::load(
            &mut weights,
            &named(layout.language),
            if tied { None } else { Some(&head) },
            &config.text,
        )?;
        Ok(Model {
            vision,
            audio,
            language,
            weight_bytes: weights.taken_bytes(),
            kind,
            place: options.place,
            config,
        })
    }

    /// The checkpoint's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Bytes of weights as held.
    pub fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// The precision held: `f32`, `bf16` or `f16`.
    pub fn precision(&self) -> &'static str {
        kind_name(self.kind)
    }

    /// Where the model is held.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Prompt positions, as Hugging Face's `get_rope_index` gives them.
    pub fn positions(&self, inputs: &ModelInputs) -> Result<Positions> {
        positions(&self.config, inputs)
    }

    /// An empty sequence.
    pub fn start(&self) -> Result<Sequence> {
        Ok(Sequence {
            cache: self.language.new_cache()?,
            next_position: [0; 3],
            prompt_tokens: 0,
            meter: Meter::new(),
            cache_since: Instant::now(),
        })
    }

    /// Reads a prompt into an empty sequence and returns the logits that follow it: `vocab_size` values.
    pub fn prefill(&self, inputs: &ModelInputs, sequence: &mut Sequence) -> Result<Vec<f32>> {
        tch::no_grad(|| {
            let hidden = self.read_prompt(inputs, sequence, 1)?;
            let last = hidden.f_narrow(0, hidden.size().first().copied().unwrap_or(1) - 1, 1)?;
            let logits = self.timed(sequence, Phase::Prefill, |_, work| {
                self.language.logits(&last, work)
            })?;
            to_floats(&logits)
        })
    }

    /// The logits of every prompt position, `[L, vocab_size]`, as a plain forward pass of the reference gives them.
    pub fn forward(&self, inputs: &ModelInputs) -> Result<Array> {
        let shape = vec![inputs.input_ids.len(), self.config.text.vocab_size];
        let bytes = 4 * shape.iter().product::<usize>();
        if bytes > MAX_LOGIT_BYTES {
            return Err(EngineError::request(format!(
                "logits for {} tokens of a vocabulary of {} take {bytes} bytes, and {MAX_LOGIT_BYTES} are allowed: \
                 give a shorter prompt",
                inputs.input_ids.len(),
                self.config.text.vocab_size
            )));
        }
        tch::no_grad(|| {
            let mut sequence = self.start()?;
            let hidden = self.read_prompt(inputs, &mut sequence, 0)?;
            let logits = self.timed(&mut sequence, Phase::Prefill, |_, work| {
                self.language.logits(&hidden, work)
            })?;
            Ok(Array {
                shape,
                data: to_floats(&logits)?,
            })
        })
    }

    /// Goes on from the cache with given tokens and returns the logits after each: `[tokens, vocab_size]` row by row.
    pub fn extend(&self, tokens: &[u32], sequence: &mut Sequence) -> Result<Vec<f32>> {
        if tokens.is_empty() {
            return Err(EngineError::request("no tokens to go on with"));
        }
        if sequence.prompt_tokens == 0 {
            return Err(EngineError::request(
                "no prompt has been read to go on from",
            ));
        }
        self.check_room(sequence.tokens() + tokens.len(), 0)?;
        tch::no_grad(|| {
            let new = tokens.len() as i64;
            let axes = sequence
                .next_position
                .map(|start| (start..start + new).collect::<Vec<i64>>());
            let x = self.language.embed(tokens)?;
            let logits = self.timed(sequence, Phase::Decode, |cache, work| {
                let axes = axes.each_ref().map(Vec::as_slice);
                let hidden = self.language.forward(&x, axes, cache, work)?;
                self.language.logits(&hidden, work)
            })?;
            sequence.next_position = sequence.next_position.map(|position| position + new);
            to_floats(&logits)
        })
    }

    /// Forgets the last `count` tokens that were added by [`Model::extend`]. The prompt cannot be forgotten in part.
    pub fn roll_back(&self, count: usize, sequence: &mut Sequence) -> Result<()> {
        let added = sequence.tokens() - sequence.prompt_tokens;
        if count > added {
            return Err(EngineError::request(format!(
                "{count} tokens to forget, and only {added} were added behind the prompt"
            )));
        }
        sequence.charge_cache();
        sequence.cache.truncate(sequence.tokens() - count);
        sequence.next_position = sequence
            .next_position
            .map(|position| position - count as i64);
        Ok(())
    }

    fn check_room(&self, tokens: usize, spare: usize) -> Result<()> {
        let limit = self.config.text.max_positions;
        if tokens + spare > limit {
            return Err(EngineError::TooLong { tokens, limit });
        }
        Ok(())
    }

    /// Encodes media, embeds the prompt and runs the layers over it. `spare` tokens of context must stay free.
    fn read_prompt(
        &self,
        inputs: &ModelInputs,
        sequence: &mut Sequence,
        spare: usize,
    ) -> Result<Tensor> {
        if inputs.input_ids.is_empty() {
            return Err(EngineError::request("the prompt is empty"));
        }
        if sequence.tokens() > 0 {
            return Err(EngineError::request(
                "a prompt can only be read into an empty sequence",
            ));
        }
        self.check_room(inputs.input_ids.len(), spare)?;
        let positions = self.positions(inputs)?;
        let mut x = self.language.embed(&inputs.input_ids)?;
        for (patches, placeholder, what) in [
            (&inputs.images, self.config.image_token, "image"),
            (&inputs.videos, self.config.video_token, "video"),
        ] {
            if let Some(patches) = patches {
                let unit = self.config.vision.merge_size * self.config.vision.merge_size;
                let tokens = patch_count(&patches.grids) / unit;
                let places = self.places(inputs, placeholder, tokens, what)?;
                let features = self.timed(sequence, Phase::Vision, |_, work| {
                    self.vision.encode(patches, work)
                })?;
                x = x.f_index_copy(0, &places, &features)?;
            }
        }
        if let Some(mels) = &inputs.audio {
            let (Some(encoder), Some(placeholder)) = (&self.audio, self.config.audio_token) else {
                return Err(EngineError::request(format!(
                    "{} does not hear: send no audio",
                    self.config.family.name()
                )));
            };
            let tokens = mels
                .valid_frames
                .iter()
                .map(|&frames| token_count(frames))
                .sum();
            let places = self.places(inputs, placeholder, tokens, "audio")?;
            let features =
                self.timed(sequence, Phase::Audio, |_, work| encoder.encode(mels, work))?;
            x = x.f_index_copy(0, &places, &features)?;
        } else if let Some(placeholder) = self.config.audio_token {
            let _none = self.places(inputs, placeholder, 0, "audio")?;
        }
        let axes = positions.axes.each_ref().map(Vec::as_slice);
        let hidden = self.timed(sequence, Phase::Prefill, |cache, work| {
            self.language.forward(&x, axes, cache, work)
        })?;
        sequence.next_position = positions.next;
        sequence.prompt_tokens = inputs.input_ids.len();
        Ok(hidden)
    }

    /// Runs one phase of a sequence by the clock, charging the cache for the time at the size that it had before.
    fn timed(
        &self,
        sequence: &mut Sequence,
        phase: Phase,
        run: impl FnOnce(&mut KvCache, &mut Work) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let started = Instant::now();
        sequence.charge_cache();
        let mut work = Work {
            meter: &mut sequence.meter,
            phase,
        };
        let mark = work.meter.mark();
        let result = run(&mut sequence.cache, &mut work);
        work.meter.release_to(mark);
        self.place.wait();
        sequence.meter.add_time(phase, started.elapsed());
        sequence.charge_cache();
        result
    }

    /// Indices of the placeholders, of which there must be `count`.
    fn places(
        &self,
        inputs: &ModelInputs,
        placeholder: u32,
        count: usize,
        what: &str,
    ) -> Result<Tensor> {
        let places: Vec<i64> = inputs
            .input_ids
            .iter()
            .zip(0i64..)
            .filter(|(id, _)| **id == placeholder)
            .map(|(_, place)| place)
            .collect();
        if places.len() != count {
            return Err(EngineError::request(format!(
                "the prompt has {} {what} placeholder tokens (id {placeholder}); its media make {count}",
                places.len()
            )));
        }
        index_tensor(&places, self.place.device()?)
    }
}

/// A tensor's values in f32, in order.
fn to_floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor
        .f_to_kind(Kind::Float)?
        .f_to_device(tch::Device::Cpu)?
        .f_contiguous()?;
    let mut values = vec![0f32; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}
