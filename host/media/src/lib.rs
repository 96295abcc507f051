//! Bounded decoding of images, sounds and clips into plain pixels and samples.
//!
//! What comes in was sent by somebody else: it may be cut off, damaged, mislabelled or made to exhaust
//! memory. This crate turns it into plain arrays or into a [`MediaError`] that says what was found, what
//! is allowed and what to do next. Three promises hold for every input:
//!
//! - **Nothing panics and nothing is silently partial.** A file that ends early is [`MediaError::Corrupt`].
//! - **Memory is bounded by [`Limits`]**, which are checked against the header before anything is decoded.
//! - **The content decides what a file is** ([`sniff`]), never its name.
//!
//! The decoders are libraries that bring their own code, so nothing has to be installed on the host:
//! `image` (PNG, JPEG, WebP, GIF), `symphonia` (WAV, MP3, FLAC), `openh264` (H.264). The containers of
//! clips (MP4, and the frame lists of GIF and WebP) are read here, because a sample table of a few bytes
//! can claim billions of samples and the count has to be refused before it is believed.
//!
//! What was decoded can be made smaller for the way to another node, and is opened there under the same promises:
//! [`ship`].
//!
//! Read first: [`Limits`], [`decode_image`], [`decode_audio`], [`decode_video`].
//!
//! ```
//! use msao_media::{decode_image, Limits, MediaError};
//!
//! let refused = decode_image(b"just text", &Limits::default());
//! assert!(matches!(refused, Err(MediaError::UnknownFormat { .. })));
//! ```
#![forbid(unsafe_code)]

mod audio;
mod bytes;
mod error;
mod file;
mod guard;
mod image;
mod limits;
mod png;
pub mod ship;
mod sniff;
mod video;
mod webp;

pub use self::audio::{AudioClip, SAMPLE_RATE, decode_audio};
pub use self::error::{FileError, MediaError};
pub use self::file::read_file;
pub use self::image::{RgbImage, decode_image};
pub use self::limits::Limits;
pub use self::png::encode_png;
pub use self::sniff::{Format, MediaKind, sniff};
pub use self::video::{VideoClip, VideoInfo, decode_video, probe_video};
