//! The models of a node: what prepares their prompts, what computes them, and what tells them from others.

mod engine;
mod identity;
mod orders;
mod waits;

use std::path::Path;
use std::sync::Arc;

use msao_core::sampling::SamplingParams;
use msao_engine::service::{Service, ServiceError, ServiceOptions};
use msao_engine::{LoadOptions, NearDuplicates, Place, Precision, Quantize, RunnerOptions};
use msao_processor::{GenerationDefaults, Options, Processor, ProcessorError, VideoSampling};
use msao_session::frame::Identity;
use thiserror::Error;

pub use self::engine::{Awaited, Engine, Seat};
pub use self::orders::{Done, Opening, Order, Orders};
pub use self::waits::{Wait, Waits};
use crate::config;

/// Tokens that a block of an engine's cache holds.
const BLOCK: usize = msao_engine::CACHE_BLOCK;

/// Why a model is not there.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The files that prepare prompts.
    #[error("models.{role}: {error}")]
    Processor {
        /// `draft` or `target`.
        role: &'static str,
        /// Why.
        error: Box<ProcessorError>,
    },
    /// The weights.
    #[error("models.{role}: {error}")]
    Engine {
        /// `draft` or `target`.
        role: &'static str,
        /// Why.
        error: ServiceError,
    },
    /// A file that names it.
    #[error("models.{role}: {error}")]
    Read {
        /// `draft` or `target`.
        role: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// A value that the configuration's check let through.
    #[error("models.{role}.{key}: {problem}")]
    Value {
        /// `draft` or `target`.
        role: &'static str,
        /// The key.
        key: &'static str,
        /// What is wrong.
        problem: String,
    },
}

/// A model, loaded.
#[derive(Clone)]
pub struct Model {
    /// Computes.
    pub engine: Arc<dyn Engine>,
    /// Prepares prompts and reads answers.
    pub processor: Arc<Processor>,
    /// Tells it from others.
    pub identity: Identity,
    /// How its files want it to be sampled.
    pub defaults: SamplingParams,
    /// How it is held, for people and fingerprints: `f32/none on cpu`, with what it passes over of clips.
    pub held: String,
    /// Who waits for a seat.
    pub waits: Arc<Waits>,
}

impl Model {
    /// Loads the model that a section of the configuration names. `fps`: how clips are sampled where its files say
    /// nothing. `near`: which frames it need not encode.
    ///
    /// # Errors
    /// [`ModelError`].
    pub async fn load(
        role: &'static str,
        section: &config::Model,
        fps: f64,
        near: Option<NearDuplicates>,
    ) -> Result<Model, ModelError> {
        let folder = section.path.clone();
        let held = format!("{}/{}", section.precision, section.quantize);
        let read = move |folder: &Path, held: &str| {
            let processor = Processor::load(folder).map_err(|error| ModelError::Processor {
                role,
                error: Box::new(error),
            })?;
            let processor = sample_at(processor, fps);
            // And which segments of a sound are heard together: what is laid out of one is named by those.
            let (sampling, chunk) = (processor.options().sampling, processor.sound_chunk());
            let sampling = format!("{sampling:?} {chunk:?}");
            let identity = identity::identity(folder, held, &sampling)
                .map_err(|error| ModelError::Read { role, error })?;
            Ok((processor, identity))
        };
        let (folder_of_files, held_as) = (folder.clone(), held.clone());
        let files = tokio::task::spawn_blocking(move || read(&folder_of_files, &held_as));
        let load = load_options(role, section)?;
        let service = Service::start(folder, load, service_options(section, near));
        let service = service
            .await
            .map_err(|error| ModelError::Engine { role, error })?;
        let (processor, identity) = files.await.map_err(|_| ModelError::Engine {
            role,
            error: ServiceError::Stopped,
        })??;
        Ok(Model {
            engine: Arc::new(service),
            defaults: defaults(processor.generation()),
            processor: Arc::new(processor),
            identity,
            held: match near {
                Some(near) => format!("{held} on {}, near {}", section.device, near.block),
                None => format!("{held} on {}", section.device),
            },
            waits: Arc::default(),
        })
    }

    /// Ids that its tokenizer knows.
    pub fn vocabulary(&self) -> u32 {
        self.processor.tokenizer().vocab_size() as u32
    }

    /// Ids that end an answer.
    pub fn ends(&self) -> &[u32] {
        &self.processor.generation().eos_token_ids
    }

    /// Tokens for which its cache has room. What only kept prefixes hold counts as free: they give way.
    pub fn kv_free(&self) -> f64 {
        let load = self.engine.load();
        let held = load.held_blocks.saturating_sub(load.prefix_blocks) * BLOCK;
        self.engine.capacity().saturating_sub(held) as f64
    }
}

/// Hugging Face keeps every frame of a clip where the model's files say nothing, which nobody wants to wait for.
fn sample_at(processor: Processor, fps: f64) -> Processor {
    let silent = processor.options().sampling == VideoSampling::Model
        && !processor.media_config().video.sample;
    if !silent {
        return processor;
    }
    let options = Options {
        sampling: VideoSampling::Fps(fps),
        ..processor.options().clone()
    };
    processor.with_options(options)
}

fn load_options(role: &'static str, section: &config::Model) -> Result<LoadOptions, ModelError> {
    let wrong = |key| move |problem| ModelError::Value { role, key, problem };
    let precision = match section.precision.as_str() {
        "model" => "stored",
        other => other,
    };
    let quantize = match section.quantize.as_str() {
        "none" => None,
        how => Some(how.parse::<Quantize>().map_err(wrong("quantize"))?),
    };
    Ok(LoadOptions {
        place: section.device.parse::<Place>().map_err(wrong("device"))?,
        precision: precision.parse::<Precision>().map_err(wrong("precision"))?,
        quantize,
        ..LoadOptions::default()
    })
}

fn service_options(section: &config::Model, near: Option<NearDuplicates>) -> ServiceOptions {
    ServiceOptions {
        runner: RunnerOptions {
            cache_bytes: u64::from(section.cache_mib) << 20,
            media_cache_bytes: u64::from(section.media_cache_mib) << 20,
            prefixes: section.prefixes as usize,
            near_duplicates: near,
            ..Default::default()
        },
        threads: (section.threads > 0).then_some(section.threads as usize),
        waiting: section.waiting as usize,
        ..ServiceOptions::default()
    }
}

/// What a model's files say of sampling; where they want none, the most likely token is taken.
fn defaults(files: &GenerationDefaults) -> SamplingParams {
    let penalty = f64::from(files.repetition_penalty);
    if !files.do_sample {
        return SamplingParams {
            temperature: 0.0,
            repetition_penalty: penalty,
            ..SamplingParams::default()
        };
    }
    SamplingParams {
        temperature: f64::from(files.temperature),
        top_k: u32::try_from(files.top_k).ok().filter(|&k| k > 0),
        top_p: f64::from(files.top_p),
        repetition_penalty: penalty,
        ..SamplingParams::default()
    }
}
