//! What a model family does to a chat before the model sees it, and to ids after: chat template, token ids, patches
//! of pictures and clips, mel features of sounds; streaming text and stop strings on the way back.
//!
//! A [`Processor`] is loaded from a Hugging Face directory of Qwen2-VL, Qwen2.5-VL or Qwen2.5-Omni (the thinker) by
//! the directory's own files, and gives what the family's own processor gives (transformers 5.17): equal ids and
//! grids, pixels equal before normalisation, mel features within 1e-4. It never panics on files or requests, and what
//! it allocates is bounded by the model's context and by [`Options::max_media_bytes`].
//!
//! Of media a part may be laid out, or all at another size: [`Processor::prepare_shown`].
//!
//! Read first: [`Processor`], [`Prepared`], [`Tokenizer`]. What differs between families is in `family/`, one module
//! each. Position ids are the engine's business.
//!
//! Not done, and refused or documented where it matters: the sound track of a clip is not interleaved with its frames
//! (`use_audio_in_video`), batches are not padded (one prompt at a time), tools are not handed to the template.
#![forbid(unsafe_code)]

mod config;
mod content_free;
mod decode;
mod detokenize;
mod error;
mod family;
mod files;
mod generation;
mod layout;
mod mel;
mod patches;
mod placeholders;
mod prepare;
mod processor;
mod resize;
pub mod safetensors_io;
mod serving;
mod shown;
mod smart_resize;
mod stop;
mod template;
mod token_table;
mod tokenizer;
mod video;

pub use config::{ClipConfig, Filter, MediaConfig, PictureConfig, PixelBounds, SoundConfig};
pub use decode::DecodeError;
pub use detokenize::DetokenStream;
pub use error::ProcessorError;
pub use family::Family;
pub use generation::GenerationDefaults;
pub use layout::{Extent, Window, centre};
pub use placeholders::MediaSpan;
pub use prepare::{Media, Prepared};
pub use processor::{Options, Processor};
pub use shown::Shown;
pub use smart_resize::{MAX_ASPECT_RATIO, SizeError, smart_resize};
pub use stop::{Emitted, StopStrings};
pub use template::{FUEL, MAX_OUTPUT_BYTES};
pub use tokenizer::Tokenizer;
pub use video::VideoSampling;
