//! One question of a set, with all that is needed to ask it and to score an answer.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use msao_core::chat::Modality;
use serde::{Serialize, Serializer};

use crate::facts::Description;
use crate::files::MAX_MEDIUM;
use crate::mmbench::Choice;
use crate::vqa::Answers;

/// The media that a prompt carries; an order of nothing but names, written `image+audio`, or `text` for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mix {
    image: bool,
    video: bool,
    audio: bool,
}

impl Mix {
    /// Words alone.
    pub const TEXT: Mix = Mix {
        image: false,
        video: false,
        audio: false,
    };
    /// Pictures alone.
    pub const IMAGE: Mix = Mix {
        image: true,
        ..Mix::TEXT
    };
    /// A clip alone.
    pub const VIDEO: Mix = Mix {
        video: true,
        ..Mix::TEXT
    };
    /// A sound alone.
    pub const AUDIO: Mix = Mix {
        audio: true,
        ..Mix::TEXT
    };

    /// The mix of these modalities.
    pub fn of(modalities: impl IntoIterator<Item = Modality>) -> Mix {
        let mut mix = Mix::TEXT;
        for modality in modalities {
            match modality {
                Modality::Text => {}
                Modality::Image => mix.image = true,
                Modality::Video => mix.video = true,
                Modality::Audio => mix.audio = true,
            }
        }
        mix
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.image, Modality::Image),
            (self.video, Modality::Video),
            (self.audio, Modality::Audio),
        ];
        let names = all.into_iter().filter(|(here, _)| *here);
        let names: Vec<&str> = names.map(|(_, modality)| modality.name()).collect();
        let none = names.is_empty();
        out.pad(&if none {
            "text".to_owned()
        } else {
            names.join("+")
        })
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let one = |name: &str| match name {
            "text" => Ok(Modality::Text),
            "image" => Ok(Modality::Image),
            "video" => Ok(Modality::Video),
            "audio" => Ok(Modality::Audio),
            _ => Err(format!(
                "{text:?} is no mix: write text, or image, video and audio joined by +"
            )),
        };
        let all: Result<Vec<Modality>, String> = text.split('+').map(one).collect();
        Ok(Mix::of(all?))
    }
}

impl Serialize for Mix {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Where a medium is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a file, which was there when the set was loaded.
    File(PathBuf),
    /// In the set's own file.
    Bytes {
        /// The medium; shared by all questions about it.
        bytes: Arc<[u8]>,
        /// Its type, as its first bytes say.
        mime: &'static str,
    },
}

impl Source {
    /// The medium's type, by the file's name or by its bytes; `application/octet-stream` where the name says nothing.
    pub fn mime(&self) -> &'static str {
        match self {
            Source::File(path) => mime_of(path),
            Source::Bytes { mime, .. } => mime,
        }
    }

    /// The medium's bytes.
    ///
    /// # Errors
    /// The file cannot be read, or is larger than [`MAX_MEDIUM`].
    pub fn bytes(&self) -> io::Result<Arc<[u8]>> {
        let path = match self {
            Source::Bytes { bytes, .. } => return Ok(bytes.clone()),
            Source::File(path) => path,
        };
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_MEDIUM + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_MEDIUM {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("{}: larger than {} MiB", path.display(), MAX_MEDIUM >> 20),
            ));
        }
        Ok(bytes.into())
    }
}

fn mime_of(path: &Path) -> &'static str {
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending.unwrap_or_default().to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "mp4" => "video/mp4",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "flac" => "audio/flac",
        _ => "application/octet-stream",
    }
}

/// The picture format that these bytes begin like.
pub(crate) fn picture_mime(bytes: &[u8]) -> Option<&'static str> {
    let riff = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [0x89, b'P', b'N', b'G', ..] => Some("image/png"),
        [b'G', b'I', b'F', b'8', ..] => Some("image/gif"),
        _ if riff => Some("image/webp"),
        _ => None,
    }
}

/// What an answer is held against.
#[derive(Clone, Debug, PartialEq)]
pub enum Reference {
    /// Ten people's answers: soft accuracy.
    Vqa(Answers),
    /// One of several options: right or wrong.
    Choice(Choice),
    /// A description of a scene of the demo world: the share of its facts.
    Facts(Description),
}

/// One question of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// VQAv2's `question_id`, MMBench's `index`. Unique within a set.
    pub id: u64,
    /// The set's name.
    pub set: Arc<str>,
    /// VQAv2's `question_type`, MMBench's `category`.
    pub kind: Arc<str>,
    /// VQAv2's `answer_type`, MMBench's `l2-category`; empty where there is none.
    pub answer_type: Arc<str>,
    /// What the prompt carries.
    pub mix: Mix,
    /// The words of the prompt, which follow the media.
    pub text: String,
    /// In the order of the prompt: images, clip, sound.
    pub media: Vec<(Modality, Source)>,
    /// Modalities without which it cannot be answered, where the set says so.
    pub needs: Vec<Modality>,
    /// Whether the answer is a description rather than a word or two.
    pub long: bool,
    /// False for mixes that the demo models never saw in training; their figures are reported apart.
    pub seen_mix: bool,
    /// The right answer in the set's own words: VQAv2's `multiple_choice_answer`, the letter of MMBench's.
    pub answer: Arc<str>,
    /// What answers are held against.
    pub reference: Reference,
}
