//! WORDS: what the target's ids say, for an edge that has another tokenizer.

use serde::{Deserialize, Serialize};

use super::limits::{MAX_WORD_BYTES, MAX_WORDS};
use super::wire::at_most;
use super::{FrameError, Kind, SessionId, cbor};

/// One id of the target's vocabulary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// The id.
    pub id: u32,
    /// The bytes that it stands for: often a part of a character. At most 4 KiB.
    #[serde(with = "cbor::bytes")]
    pub bytes: Vec<u8>,
    /// A text that is meant for people leaves it out.
    #[serde(default)]
    pub special: bool,
}

/// The ids that the verdicts behind this name for the first time, where the OPEN told of another tokenizer than the target's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    /// The session.
    pub session: SessionId,
    /// At most 256.
    pub words: Vec<Word>,
}

impl Words {
    pub(super) fn check(&self) -> Result<(), FrameError> {
        let kind = Kind::Words;
        at_most(kind, "words", MAX_WORDS, self.words.len())?;
        let longest = self.words.iter().map(|word| word.bytes.len()).max();
        at_most(kind, "words.bytes", MAX_WORD_BYTES, longest.unwrap_or(0))
    }
}
