//! What can go wrong, and what to do then.

use std::path::{Path, PathBuf};

/// Why a checkpoint was not loaded or a request not run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the checkpoint is not what it should be.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, naming the key or tensor.
        problem: String,
    },
    /// The checkpoint is of a family that is not built in.
    #[error(
        "{}: model_type \"{found}\" is not a family this engine knows; it loads {}",
        path.display(),
        crate::config::Family::KNOWN.join(", ")
    )]
    UnknownFamily {
        /// The config file.
        path: PathBuf,
        /// Its model_type.
        found: String,
    },
    /// The request does not fit the model.
    #[error("{0}")]
    Request(String),
    /// Prompt and answer together are longer than the model can attend to.
    #[error(
        "the prompt has {tokens} tokens, the model's context holds {limit} (max_position_embeddings) and at least \
         one must be left for the answer: shorten the text, or send smaller or fewer images, clips and sounds"
    )]
    TooLong {
        /// Tokens in the prompt.
        tokens: usize,
        /// The model's context.
        limit: usize,
    },
    /// The cache has no room for the tokens.
    #[error(
        "the cache has room for {free} of its {limit} tokens and {wanted} more are needed: wait for others to end, \
         or give it more memory"
    )]
    CacheFull {
        /// Tokens to be added.
        wanted: usize,
        /// Tokens' worth of free blocks.
        free: usize,
        /// Tokens that the cache can hold in all.
        limit: usize,
    },
    /// The device that was asked for is not there, or has failed for good.
    #[error("{0}")]
    Device(String),
    /// A GPU has no memory left for what a pass needs beside weights and cache.
    #[error(
        "the GPU has no memory left: wait for others to end, or leave it more beside the cache ({said})"
    )]
    DeviceFull {
        /// What libtorch said.
        said: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {}", first_lines(.0))]
    Torch(tch::TchError),
    /// Our own kernels refused a matrix.
    #[error("kernels: {0}")]
    Kernels(#[from] msao_kernels::KernelError),
    /// A bug. Whoever took part in the work has ended, nobody else.
    #[error(
        "the engine panicked: {0}; sessions that took no part in that work go on; please report it"
    )]
    Panicked(String),
    /// The sampler could not pick a token.
    #[error("sampling: {0}")]
    Sampling(#[from] msao_core::sampling::SampleError),
}

/// What libtorch says before it tells where in its own code it was.
fn first_lines(error: &tch::TchError) -> String {
    let text = error.to_string();
    let said = text
        .split("\nException raised from")
        .next()
        .unwrap_or_default();
    said.trim().replace('\n', " ")
}

/// What libtorch's own code throws keeps its kind; of the rest, which tch finds by itself, only the text.
fn torch_again(error: &tch::TchError) -> tch::TchError {
    match error {
        tch::TchError::Torch(said) => tch::TchError::Torch(said.clone()),
        other => tch::TchError::Torch(other.to_string()),
    }
}

impl From<tch::TchError> for EngineError {
    fn from(error: tch::TchError) -> Self {
        let said = first_lines(&error);
        // The allocator's own error, and those of the libraries that allocate for themselves.
        let full = [
            "CUDA out of memory",
            "CUDA error: out of memory",
            "CUBLAS_STATUS_ALLOC_FAILED",
            "CUDNN_STATUS_ALLOC_FAILED",
        ];
        if full.iter().any(|full| said.contains(full)) {
            EngineError::DeviceFull { said }
        } else if said.contains("CUDA error") {
            EngineError::Device(said)
        } else {
            EngineError::Torch(error)
        }
    }
}

impl EngineError {
    /// Whether it is only for want of room, so that the same may succeed later.
    pub fn is_want_of_room(&self) -> bool {
        matches!(
            self,
            EngineError::CacheFull { .. } | EngineError::DeviceFull { .. }
        )
    }

    /// The same error once more, for another who is to be told of it.
    pub(crate) fn again(&self) -> Self {
        match self {
            EngineError::Read { path, source } => EngineError::Read {
                path: path.clone(),
                source: std::io::Error::new(source.kind(), source.to_string()),
            },
            EngineError::Checkpoint { path, problem } => {
                EngineError::checkpoint(path, problem.as_str())
            }
            EngineError::UnknownFamily { path, found } => EngineError::UnknownFamily {
                path: path.clone(),
                found: found.clone(),
            },
            EngineError::Request(said) => EngineError::Request(said.clone()),
            &EngineError::TooLong { tokens, limit } => EngineError::TooLong { tokens, limit },
            &EngineError::CacheFull {
                wanted,
                free,
                limit,
            } => EngineError::CacheFull {
                wanted,
                free,
                limit,
            },
            EngineError::Device(said) => EngineError::Device(said.clone()),
            EngineError::DeviceFull { said } => EngineError::DeviceFull { said: said.clone() },
            EngineError::Torch(error) => EngineError::Torch(torch_again(error)),
            EngineError::Kernels(error) => EngineError::Kernels(error.clone()),
            EngineError::Panicked(said) => EngineError::Panicked(said.clone()),
            EngineError::Sampling(error) => EngineError::Sampling(*error),
        }
    }

    pub(crate) fn read(path: &Path, source: std::io::Error) -> Self {
        EngineError::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn checkpoint(path: &Path, problem: impl Into<String>) -> Self {
        EngineError::Checkpoint {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }

    /// From what [`std::panic::catch_unwind`] caught.
    pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Self {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        EngineError::Panicked(said.unwrap_or("it did not say why").to_owned())
    }

    pub(crate) fn request(problem: impl Into<String>) -> Self {
        EngineError::Request(problem.into())
    }
}

/// This crate's results.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;
