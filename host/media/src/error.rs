//! What can be wrong with an input, said so that its owner knows what to change.

use std::path::{Path, PathBuf};

use crate::sniff::Format;

/// Why an input was refused: what was found, what is allowed, what to do.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// There are no bytes at all.
    #[error("the file is empty; send a file with content")]
    Empty,
    /// The content is none of the formats that this call takes.
    #[error(
        "{found}, and what is expected is {expected}; convert the file, whatever its name says"
    )]
    UnknownFormat {
        /// What the content looks like.
        found: String,
        /// The formats that are taken.
        expected: &'static str,
    },
    /// More encoded bytes than allowed.
    #[error(
        "{bytes} bytes are more than the {limit} allowed; send a smaller file or raise max_bytes"
    )]
    TooManyBytes {
        /// Size of the file.
        bytes: u64,
        /// [`crate::Limits::max_bytes`].
        limit: u64,
    },
    /// A picture or frame larger than allowed.
    #[error(
        "{width} x {height} is {} pixels, more than the {limit} allowed; scale it down or raise max_pixels",
        u64::from(*width) * u64::from(*height)
    )]
    TooManyPixels {
        /// Width in pixels that the header gives.
        width: u32,
        /// Height in pixels that the header gives.
        height: u32,
        /// [`crate::Limits::max_pixels`].
        limit: u64,
    },
    /// A sound or clip that lasts longer than allowed.
    #[error(
        "it lasts {seconds:.1} s or more, over the {limit} s allowed; cut it or raise {setting}"
    )]
    TooLong {
        /// Length in seconds, or how much of it was seen when the limit was passed.
        seconds: f64,
        /// The limit in seconds.
        limit: f64,
        /// The field of [`crate::Limits`] that holds it.
        setting: &'static str,
    },
    /// More frames were asked for than may be kept.
    #[error(
        "{frames} frames are to be kept, more than the {limit} allowed; sample fewer or raise max_frames"
    )]
    TooManyFrames {
        /// How many were to be kept.
        frames: usize,
        /// [`crate::Limits::max_frames`].
        limit: usize,
    },
    /// More frames are stored than there is time to run through.
    #[error(
        "the clip stores {frames} frames, more than the {limit} that are decoded at this size and length; cut it, scale it down or lower its frame rate"
    )]
    TooManyStoredFrames {
        /// How many frames the clip stores.
        frames: u64,
        /// How many are allowed at this size.
        limit: u64,
    },
    /// The kept frames would take more memory than allowed.
    #[error(
        "the frames to keep take {bytes} bytes, more than the {limit} allowed; sample fewer, scale the clip down or raise max_decoded_bytes"
    )]
    TooManyDecodedBytes {
        /// Bytes of RGB of all kept frames.
        bytes: u64,
        /// [`crate::Limits::max_decoded_bytes`].
        limit: u64,
    },
    /// The content is damaged or ends early.
    #[error("damaged or incomplete {format}: {detail}; export or transfer the file again")]
    Corrupt {
        /// What the content claims to be.
        format: Format,
        /// What is wrong with it.
        detail: String,
    },
    /// The content is sound but uses something that is not decoded here.
    #[error("{format} with {detail} is not supported")]
    Unsupported {
        /// What the content is.
        format: Format,
        /// What it uses, and what to use instead.
        detail: String,
    },
    /// The caller's choice of frames is not ascending, or names a frame that there is not: a mistake in the caller.
    #[error("frame {index} was chosen out of {frames}, or not in ascending order")]
    BadChoice {
        /// The offending index.
        index: usize,
        /// How many frames the clip has.
        frames: usize,
    },
    /// A medium cannot be shipped the way that was asked for: a mistake in the caller. See [`crate::ship`].
    #[error("cannot be shipped that way: {detail}")]
    BadWay {
        /// What was asked for, and what can be.
        detail: String,
    },
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    Read(#[from] std::io::Error),
}

impl MediaError {
    /// Names the file that the error is about.
    pub fn at(self, path: &Path) -> FileError {
        FileError {
            path: path.to_path_buf(),
            source: self,
        }
    }

    pub(crate) fn corrupt(format: Format, detail: impl Into<String>) -> Self {
        Self::Corrupt {
            format,
            detail: detail.into(),
        }
    }

    pub(crate) fn unsupported(format: Format, detail: impl Into<String>) -> Self {
        Self::Unsupported {
            format,
            detail: detail.into(),
        }
    }
}

/// A [`MediaError`] with the file that it is about.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub source: MediaError,
}
