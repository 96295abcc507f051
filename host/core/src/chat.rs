//! A conversation as the model families' chat templates see it.

use serde::{Deserialize, Serialize};

/// A kind of content that a request can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Modality {
    /// Written words.
    Text,
    /// A still picture.
    Image,
    /// A moving picture without its sound.
    Video,
    /// A sound.
    Audio,
}

impl Modality {
    /// The modality's name in messages and reports.
    pub fn name(self) -> &'static str {
        match self {
            Modality::Text => "text",
            Modality::Image => "image",
            Modality::Video => "video",
            Modality::Audio => "audio",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`; handed to the chat template as it is.
    pub role: String,
    /// What is said.
    pub content: Content,
}

/// What a turn says: a bare string, or a list of parts in reading order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Text alone.
    Text(String),
    /// Text and media in reading order.
    Parts(Vec<Part>),
}

/// One part of a turn, in Hugging Face's form: `{"type": "image", "image": "cat.png"}`.
///
/// Media are named by a path or another reference that the caller resolves; nothing here reads them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Part {
    /// Written words.
    Text {
        /// The words.
        text: String,
    },
    /// A still picture.
    Image {
        /// Path or reference.
        image: String,
    },
    /// A clip.
    Video {
        /// Path or reference.
        video: String,
    },
    /// A sound.
    Audio {
        /// Path or reference.
        audio: String,
    },
}

impl Part {
    /// The modality of this part and, for media, the reference that names it.
    pub fn modality(&self) -> (Modality, Option<&str>) {
        match self {
            Part::Text { .. } => (Modality::Text, None),
            Part::Image { image } => (Modality::Image, Some(image)),
            Part::Video { video } => (Modality::Video, Some(video)),
            Part::Audio { audio } => (Modality::Audio, Some(audio)),
        }
    }
}

impl Message {
    /// The parts of this turn; a bare string counts as one text part.
    pub fn parts(&self) -> Vec<Part> {
        match &self.content {
            Content::Text(text) => vec![Part::Text { text: text.clone() }],
            Content::Parts(parts) => parts.clone(),
        }
    }
}
