//! A loaded model and the sequences it runs.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use msao_core::chat::Modality;
use msao_core::inputs::{Array, ModelInputs};
use msao_core::meter::{Meter, Phase};
use msao_kernels::{Format, Instructions};
use tch::{Kind, Tensor};

use crate::audio::{AudioEncoder, AudioRun};
use crate::config::ModelConfig;
use crate::device::{Place, Precision, kind_name};
use crate::error::{EngineError, Result};
use crate::language::LanguageModel;
use crate::nn::{Work, index_tensor};
use crate::pass::{Input, Part, State};
use crate::pool::{Capacity, Pool};
use crate::positions::{Positions, positions};
use crate::prompt::{Item, Prompt, mel_values, patch_values};
use crate::repeats::Repeats;
use crate::vision::{VisionEncoder, VisionRun};
use crate::weights::{Holding, Weights};

/// Most bytes of logits that [`Model::forward`] makes: they are held a few times over on their way to a file.
const MAX_LOGIT_BYTES: usize = 4 << 30;

/// How to hold a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Where.
    pub place: Place,
    /// How exactly.
    pub precision: Precision,
    /// How the language model's matrices are held, if not as exactly as everything else.
    pub quantize: Option<Quantize>,
    /// What computes the language model's layers.
    pub kernels: Kernels,
}

/// A coarser way to hold matrices. Products are still computed in the model's precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantize {
    /// 8-bit integers, symmetric, with one scale an output row.
    Int8,
}

impl std::str::FromStr for Quantize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "int8" => Ok(Quantize::Int8),
            _ => Err(format!("\"{text}\" is no way to quantise; use int8")),
        }
    }
}

/// What computes the language model's layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// Our own kernels where the processor has the instructions for them, else libtorch.
    #[default]
    Best,
    /// libtorch.
    Libtorch,
}

impl LoadOptions {
    /// How the language model's matrices are held.
    fn holding(&self, kind: Kind, config: &ModelConfig) -> Holding {
        let ours = self.place == Place::Cpu
            && self.kernels == Kernels::Best
            && msao_kernels::supported()
            && config.text.head_dim <= msao_kernels::MOST_HEAD_DIM;
        match (kind, self.quantize) {
            (Kind::Float | Kind::BFloat16, Some(Quantize::Int8)) if ours => {
                Holding::Packed(Format::Int8)
            }
            (_, Some(Quantize::Int8)) => Holding::Quantized,
            (Kind::Float, None) if ours => Holding::Packed(Format::F32),
            (Kind::BFloat16, None) if ours => Holding::Packed(Format::Bf16),
            (_, None) => Holding::Plain,
        }
    }
}

/// What computes the layers, by name. Says so where it is not what was hoped for.
fn kernels_in_use(dir: &Path, options: &LoadOptions, holding: Holding, kind: Kind) -> &'static str {
    match (holding, msao_kernels::instructions()) {
        (Holding::Packed(_), Some(Instructions::Avx512)) => "avx512",
        (Holding::Packed(_), Some(Instructions::Avx2)) => "avx2",
        (_, instructions) => {
            if options.place == Place::Cpu && options.kernels == Kernels::Best {
                tracing::warn!(
                    model = %dir.display(),
                    precision = kind_name(kind),
                    instructions = instructions.is_some(),
                    "libtorch computes this model's layers, several times slower than our own kernels, which need AVX2 \
                     with FMA and F16C or AVX-512 with VBMI and BF16, and f32 or bf16"
                );
            }
            "libtorch"
        }
    }
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
    kernels: &'static str,
}

/// One conversation's state with a cache of its own: what the model has read and written so far, and what that cost.
#[derive(Debug)]
pub struct Sequence {
    pool: Pool,
    state: State,
}

impl Sequence {
    /// Tokens in the cache.
    pub fn tokens(&self) -> usize {
        self.state.tokens()
    }

    /// What this sequence has cost so far.
    pub fn meter(&self) -> &Meter {
        &self.state.meter
    }

    /// Charges the cache's bytes, as they are now, for the time since the last charge.
    pub(crate) fn charge_cache(&mut self) {
        self.state.charge_cache(&self.pool);
    }
}

/// A medium on its way through its encoder, which can be left between two blocks.
#[derive(Debug)]
pub(crate) struct Encoding {
    run: EncoderRun,
    /// Whose features the temporal patches take that are not encoded.
    repeats: Option<Repeats>,
    phase: Phase,
    /// What the account held before it began.
    mark: u64,
}

#[derive(Debug)]
enum EncoderRun {
    Vision(VisionRun),
    Audio(AudioRun),
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
        Self::load_until(dir, options, None)
    }

    /// As [`Model::load`], giving up between two tensors once `stop` is true.
    pub(crate) fn load_until(
        dir: &Path,
        options: &LoadOptions,
        stop: Option<Arc<AtomicBool>>,
    ) -> Result<Self> {
        tch::no_grad(|| Self::load_inner(dir, options, stop))
    }

    fn load_inner(
        dir: &Path,
        options: &LoadOptions,
        stop: Option<Arc<AtomicBool>>,
    ) -> Result<Self> {
        let config = ModelConfig::load(dir)?;
        let weights = Weights::open(dir)?;
        let kind = options.precision.kind(weights.stored_kind());
        let mut weights = weights.target(kind, options.place.device()?);
        weights.stop_with(stop);
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
        weights.hold(options.holding(kind, &config));
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
            kernels: kernels_in_use(dir, options, weights.holding(), kind),
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

    /// Bytes that every pass over text reads: the language model's matrices, an embedding that serves as output layer
    /// included, one that does not left out.
    pub fn language_bytes(&self) -> u64 {
        self.language.pass_bytes()
    }

    /// The precision held: `f32`, `bf16` or `f16`.
    pub fn precision(&self) -> &'static str {
        kind_name(self.kind)
    }

    /// What computes the language model's layers: our own kernels, by the instructions that they use (`avx512`, `avx2`), or
    /// `libtorch`.
    pub fn kernels(&self) -> &'static str {
        self.kernels
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
            pool: self.new_pool(Capacity::Growing)?,
            state: State::new(),
        })
    }

    /// An empty cache for any number of sequences.
    pub(crate) fn new_pool(&self, capacity: Capacity) -> Result<Pool> {
        Pool::new(&self.config.text, self.language.cache_place(), capacity)
    }

    /// Reads a prompt into an empty sequence and returns the logits that follow it: `vocab_size` values.
    pub fn prefill(&self, inputs: &ModelInputs, sequence: &mut Sequence) -> Result<Vec<f32>> {
        self.read_prompt(inputs, sequence, 1)
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
        let mut sequence = self.start()?;
        let data = self.read_prompt(inputs, &mut sequence, inputs.input_ids.len())?;
        Ok(Array { shape, data })
    }

    /// Goes on from the cache with given tokens and returns the logits after each: `[tokens, vocab_size]` row by row.
    pub fn extend(&self, tokens: &[u32], sequence: &mut Sequence) -> Result<Vec<f32>> {
        if tokens.is_empty() {
            return Err(EngineError::request("no tokens to go on with"));
        }
        if sequence.state.prompt == [0; 2] {
            return Err(EngineError::request(
                "no prompt has been read to go on from",
            ));
        }
        self.check_room(sequence.tokens() + tokens.len(), 0)?;
        let part = Part {
            state: &mut sequence.state,
            input: Input::Tokens(tokens),
            phase: Phase::Decode,
            wanted: tokens.len(),
        };
        self.pass_of_one(&mut sequence.pool, part)
    }

    /// Forgets the last `count` tokens that were added by [`Model::extend`]. The prompt cannot be forgotten in part.
    pub fn roll_back(&self, count: usize, sequence: &mut Sequence) -> Result<()> {
        sequence.state.roll_back(count, &mut sequence.pool)
    }

    pub(crate) fn check_room(&self, tokens: usize, spare: usize) -> Result<()> {
        let limit = self.config.text.max_positions;
        if tokens + spare > limit {
            return Err(EngineError::TooLong { tokens, limit });
        }
        Ok(())
    }

    /// Encodes media, embeds the prompt and runs the layers over it. Returns the logits after its last `wanted` tokens;
    /// where that is one, a token of context must stay free to answer with.
    fn read_prompt(
        &self,
        inputs: &ModelInputs,
        sequence: &mut Sequence,
        wanted: usize,
    ) -> Result<Vec<f32>> {
        if sequence.tokens() > 0 {
            return Err(EngineError::request(
                "a prompt can only be read into an empty sequence",
            ));
        }
        self.check_room(inputs.extent(), usize::from(wanted == 1))?;
        let mut prompt = self.prompt(inputs)?;
        while let Some(item) = prompt.next_item() {
            let features = self.encode(inputs, item, &mut sequence.state.meter)?;
            prompt.put(&features)?;
        }
        let axes = prompt.positions.axes.each_ref().map(Vec::as_slice);
        let part = Part {
            state: &mut sequence.state,
            input: Input::Embedded { x: &prompt.x, axes },
            phase: Phase::Prefill,
            wanted,
        };
        let logits = self.pass_of_one(&mut sequence.pool, part)?;
        sequence.state.end_prompt(prompt.positions.next);
        Ok(logits)
    }

    /// Embeds a prompt, its media still to be encoded.
    pub(crate) fn prompt(&self, inputs: &ModelInputs) -> Result<Prompt> {
        if inputs.input_ids.is_empty() {
            return Err(EngineError::request("the prompt is empty"));
        }
        tch::no_grad(|| {
            self.place.enter()?;
            Prompt::new(
                &self.config,
                inputs,
                self.language.embed(&inputs.input_ids)?,
            )
        })
    }

    /// The features of one media item, `[tokens, hidden]`.
    pub(crate) fn encode(
        &self,
        inputs: &ModelInputs,
        item: &Item,
        meter: &mut Meter,
    ) -> Result<Tensor> {
        let repeats = Repeats::of(&self.config, inputs, item, None)?;
        let mut encoding = self.start_encoding(inputs, item, repeats.as_ref(), meter)?;
        loop {
            if let Some(features) = self.encode_on(&mut encoding, meter)? {
                return Ok(features);
            }
        }
    }

    /// Begins to encode a media item: of a clip that repeats itself what `repeats` names.
    pub(crate) fn start_encoding(
        &self,
        inputs: &ModelInputs,
        item: &Item,
        repeats: Option<&Repeats>,
        meter: &mut Meter,
    ) -> Result<Encoding> {
        let phase = match item.modality {
            Modality::Text | Modality::Image | Modality::Video => Phase::Vision,
            Modality::Audio => Phase::Audio,
        };
        let mark = meter.mark();
        let run = self.charged(phase, meter, |work| match (item.modality, &self.audio) {
            (Modality::Audio, Some(encoder)) => {
                let mels = mel_values(inputs, item)?;
                Ok(EncoderRun::Audio(encoder.start(&mels, work)?))
            }
            (Modality::Audio, None) => Err(self.deaf()),
            _ => {
                let (values, grid) = patch_values(inputs, item)?;
                let run = match repeats {
                    Some(repeats) => {
                        let (values, grid) = repeats.gather(values, grid);
                        self.vision.start(&values, &[grid], work)
                    }
                    None => self.vision.start(values, &[grid], work),
                };
                run.map(EncoderRun::Vision)
            }
        });
        match run {
            Ok(run) => Ok(Encoding {
                run,
                repeats: repeats.cloned(),
                phase,
                mark,
            }),
            Err(error) => {
                meter.release_to(mark);
                Err(error)
            }
        }
    }

    /// Goes on with a medium by one block of its encoder. Gives the features, `[tokens, hidden]`, once they are there.
    /// After an error the encoding is over.
    pub(crate) fn encode_on(
        &self,
        encoding: &mut Encoding,
        meter: &mut Meter,
    ) -> Result<Option<Tensor>> {
        let Encoding {
            run,
            repeats,
            phase,
            mark,
        } = encoding;
        let features = self.charged(*phase, meter, |work| {
            let features = match (run, &self.audio) {
                (EncoderRun::Vision(run), _) => self.vision.step(run, work),
                (EncoderRun::Audio(run), Some(encoder)) => encoder.step(run, work),
                (EncoderRun::Audio(_), None) => Err(self.deaf()),
            }?;
            match (features, repeats) {
                (Some(features), Some(repeats)) => spread(&features, repeats, work).map(Some),
                (features, _) => Ok(features),
            }
        });
        if !matches!(features, Ok(None)) {
            meter.release_to(*mark);
        }
        features
    }

    /// Does some work and charges the time that it takes.
    fn charged<T>(
        &self,
        phase: Phase,
        meter: &mut Meter,
        run: impl FnOnce(&mut Work) -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        let mut work = Work { meter, phase };
        let result = (self.place.enter()).and_then(|()| tch::no_grad(|| run(&mut work)));
        let waited = self.place.wait();
        meter.add_time(phase, started.elapsed());
        let done = result?;
        waited?;
        Ok(done)
    }

    fn deaf(&self) -> EngineError {
        EngineError::request(format!(
            "{} does not hear: send no audio",
            self.config.family.name()
        ))
    }

    /// The token embedding and the layers.
    pub(crate) fn language(&self) -> &LanguageModel {
        &self.language
    }

    fn pass_of_one(&self, pool: &mut Pool, part: Part) -> Result<Vec<f32>> {
        Ok(self.pass(pool, &mut [part])?.of(0).to_vec())
    }
}

/// The features of all temporal patches of a clip, `[tokens, hidden]`, from those of the ones that were encoded.
fn spread(features: &Tensor, repeats: &Repeats, work: &mut Work) -> Result<Tensor> {
    let rows = features.size().first().map_or(0, |&rows| rows as usize);
    let each = rows / repeats.encoded().len().max(1);
    let index = index_tensor(&repeats.rows(each), features.device())?;
    Ok(work.hold(features.f_index_select(0, &index)?))
}
