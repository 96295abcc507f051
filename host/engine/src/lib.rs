//! Multimodal inference on libtorch: the only crate that knows tensors.
//!
//! It loads a local Hugging Face directory of the Qwen2-VL, Qwen2.5-VL or Qwen2.5-Omni (thinker) family
//! ([`Model::load`]), reads a prompt with its media ([`Model::prefill`]), goes on token by token
//! ([`Model::extend`], or [`generate`] for the whole loop) and counts what that costs, from the shapes that ran
//! ([`msao_core::meter::Meter`]). It computes what Hugging Face transformers 5.17 computes; `tests/golden` holds it
//! to that.
//!
//! A [`Model`] belongs to one thread at a time, since libtorch's tensors do; each conversation has a [`Sequence`] of its
//! own.

mod attention;
mod audio;
pub mod config;
mod cuda;
mod device;
mod error;
mod fixed;
mod generate;
mod keep;
mod language;
mod logits;
pub mod machine;
mod media_cache;
mod model;
mod native;
mod near;
mod nn;
mod paged;
mod pages;
mod pass;
mod pool;
mod positions;
mod prefix_cache;
mod probe;
mod prompt;
mod quantized;
mod repeats;
mod runner;
pub mod service;
mod team;
pub mod twin;
mod vision;
pub mod weights;

pub use config::{Family, ModelConfig};
pub use cuda::DeviceMemory;
pub use device::{Place, Precision};
pub use error::{EngineError, Result};
pub use generate::{GenerateOptions, Generated, Step, Stop, generate};
pub use keep::Keep;
pub use logits::Logits;
pub use media_cache::MediaKeys;
pub use model::{Kernels, LoadOptions, Model, Quantize, Sequence};
pub use near::NearDuplicates;
pub use pool::BLOCK as CACHE_BLOCK;
pub use positions::{Positions, positions};
pub use probe::ProbeOptions;
pub use prompt::{Item, items};
pub use runner::{Needs, Occupancy, OpenOptions, Padding, Runner, RunnerOptions, SequenceId, Work};

/// Sets how many threads one operation may use, for the whole process.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(threads.clamp(1, 1024) as i32);
}
