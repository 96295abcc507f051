//! What can be wrong with a set's files.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a set cannot be loaded. Every message names the file and says what to do.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What a set consists of is not in its folder.
    #[error("{}: {problem}", .folder.display())]
    Folder {
        /// Where it was looked for.
        folder: PathBuf,
        /// What is missing, or is there more than once, and what to do.
        problem: String,
    },
    /// A file is not what its format asks for.
    #[error("{}: {at}: {problem}", .path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// The line, row, question or field.
        at: String,
        /// What is wrong there and what to do.
        problem: String,
    },
}

impl DataError {
    pub(crate) fn read(path: &Path, source: io::Error) -> DataError {
        DataError::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn folder(folder: &Path, problem: impl Into<String>) -> DataError {
        DataError::Folder {
            folder: folder.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn content(
        path: &Path,
        at: impl Into<String>,
        problem: impl Into<String>,
    ) -> DataError {
        DataError::Content {
            path: path.to_owned(),
            at: at.into(),
            problem: problem.into(),
        }
    }
}
