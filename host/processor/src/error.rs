//! Everything that can be wrong with a model's files or with a request.

use std::path::{Path, PathBuf};

use msao_core::chat::Modality;

/// Why a model's files could not be used, or a chat could not be prepared.
///
/// Errors about files name the file (and the key); errors about limits name the limit.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// A file that the family needs is not there.
    #[error("{path}: not found; {wanted}")]
    MissingFile {
        /// The file that was looked for.
        path: PathBuf,
        /// What it is needed for, or which file would do instead.
        wanted: String,
    },
    /// The file exists and cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is larger than a file of its kind may be.
    #[error("{path}: {bytes} bytes, and a file of this kind may have at most {limit}")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The limit on it.
        limit: u64,
    },
    /// The file is not JSON, or a key holds what it must not.
    #[error("{path}: {key}: {message}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key within it, dotted; `.` is the whole file.
        key: String,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// `config.json` names a family that has no module here.
    #[error("{path}: model_type: `{found}` is not a known family; known are {known}")]
    UnknownFamily {
        /// The file.
        path: PathBuf,
        /// The value of `model_type`.
        found: String,
        /// Every value that is understood.
        known: String,
    },
    /// The tokenizer cannot be loaded or failed on a text.
    #[error("{path}: {message}")]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The chat template does not parse, or refused or failed on this chat.
    #[error("{path}: chat template: {message}")]
    Template {
        /// The file that the template came from.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The media that were handed over are not those that the messages name.
    #[error(
        "the messages name {named} media parts and {given} media were given; give one for each, in their order"
    )]
    MediaCount {
        /// Media parts in the messages.
        named: usize,
        /// Media handed over.
        given: usize,
    },
    /// A medium is of another kind than the part that it stands for.
    #[error("media item {index} is {given:?} and the messages have {named:?} there")]
    MediaOrder {
        /// Position among the media, from 0.
        index: usize,
        /// What the message's part is.
        named: Modality,
        /// What was handed over.
        given: Modality,
    },
    /// The family does not take this kind of medium.
    #[error("media item {index}: the family {family} does not take {modality:?} input")]
    Modality {
        /// Position among the media, from 0.
        index: usize,
        /// The family's name.
        family: &'static str,
        /// What it does not take.
        modality: Modality,
    },
    /// The rendered prompt has more or fewer placeholders than there are media.
    #[error(
        "the rendered prompt has {found} times `{token}` and {given} {modality:?} media were given; a text must not \
         contain this token, and the chat template must write it once for each medium"
    )]
    Placeholders {
        /// Kind of medium.
        modality: Modality,
        /// The placeholder as text.
        token: String,
        /// How often the prompt has it.
        found: usize,
        /// How many media of the kind there are.
        given: usize,
    },
    /// One medium cannot be processed.
    #[error("media item {index} ({modality:?}): {message}")]
    Media {
        /// Position among the media, from 0.
        index: usize,
        /// Its kind.
        modality: Modality,
        /// What is wrong, with the limit.
        message: String,
    },
    /// The prompt does not fit into the model's context.
    #[error(
        "the prompt has {tokens} tokens and the model's context holds {limit} ({source_of_limit})"
    )]
    PromptTooLong {
        /// Tokens, media included.
        tokens: usize,
        /// Tokens that fit.
        limit: usize,
        /// Where the limit is from.
        source_of_limit: String,
    },
    /// The values of all media would take more memory than is allowed.
    #[error(
        "the media of the prompt take {bytes} bytes as model inputs and {limit} are allowed; send fewer or smaller ones"
    )]
    MediaTooLarge {
        /// Bytes that the values would take.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A safetensors file lacks a tensor or holds it in another form.
    #[error("{path}: {tensor}: {message}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name; `.` is the whole file.
        tensor: String,
        /// What is wrong, and the shape or type wanted.
        message: String,
    },
}

impl ProcessorError {
    pub(crate) fn config(path: &Path, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Config {
            path: path.to_owned(),
            key: key.into(),
            message: message.into(),
        }
    }

    pub(crate) fn media(index: usize, modality: Modality, message: impl Into<String>) -> Self {
        Self::Media {
            index,
            modality,
            message: message.into(),
        }
    }
}
