//! Held-out questions in VQAv2's file format, with our own extra keys.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use msao_core::chat::{Content, Message, Modality, Part};
use serde::Deserialize;

/// One question with its media and its reference answer.
#[derive(Clone, Debug)]
pub struct Question {
    /// The file's question_id.
    pub id: u64,
    /// The words.
    pub text: String,
    /// Media files in the order of the prompt: images, clip, sound.
    pub media: Vec<(Modality, PathBuf)>,
    /// Modalities without which it cannot be answered.
    pub needs: Vec<Modality>,
    /// The kind of question, for figures by kind.
    pub kind: String,
    /// Whether the answer is a description rather than a word or two.
    pub long: bool,
    /// Whether a model trained by the recipe has seen this mix of modalities.
    pub seen_mix: bool,
    /// The most frequent answer.
    pub answer: String,
}

#[derive(Deserialize)]
struct Questions {
    questions: Vec<RawQuestion>,
}

#[derive(Deserialize)]
struct RawQuestion {
    question_id: u64,
    question: String,
    #[serde(default)]
    images: Vec<PathBuf>,
    video: Option<PathBuf>,
    audio: Option<PathBuf>,
    #[serde(default)]
    needs: Vec<Modality>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    answer_length: String,
    #[serde(default)]
    split: String,
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<RawAnnotation>,
}

#[derive(Deserialize)]
struct RawAnnotation {
    question_id: u64,
    multiple_choice_answer: String,
}

/// Reads the questions and annotations of a folder that the recipe's `data.py` wrote, packed by zstd or not.
pub fn read(dir: &Path) -> Result<Vec<Question>> {
    let load = |name: &str| -> Result<(PathBuf, Vec<u8>)> {
        let path = dir.join(name);
        let bytes = msao_golden::stored(&path).with_context(|| path.display().to_string())?;
        Ok((path, bytes))
    };
    let (path, bytes) = load("v2_mscoco_demo_annotations.json")?;
    let annotations: Annotations =
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    let mut answers: HashMap<u64, String> = annotations
        .annotations
        .into_iter()
        .map(|a| (a.question_id, a.multiple_choice_answer))
        .collect();
    let (path, bytes) = load("v2_OpenEnded_mscoco_demo_questions.json")?;
    let questions: Questions =
        serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    let each = questions.questions.into_iter().map(|raw| {
        let images = raw
            .images
            .iter()
            .map(|file| (Modality::Image, dir.join(file)));
        let video = raw
            .video
            .iter()
            .map(|file| (Modality::Video, dir.join(file)));
        let audio = raw
            .audio
            .iter()
            .map(|file| (Modality::Audio, dir.join(file)));
        Ok(Question {
            media: images.chain(video).chain(audio).collect(),
            answer: answers
                .remove(&raw.question_id)
                .with_context(|| format!("question {} has no annotation", raw.question_id))?,
            id: raw.question_id,
            text: raw.question,
            needs: raw.needs,
            kind: raw.kind,
            long: raw.answer_length == "long",
            seen_mix: raw.split != "unseen-mix",
        })
    });
    each.collect()
}

impl Question {
    /// The chat that asks it, without the media of the given kinds; and the files that are left, in order.
    pub fn ask(&self, without: &[Modality]) -> (Vec<Message>, Vec<(Modality, &Path)>) {
        let files: Vec<(Modality, &Path)> = self
            .media
            .iter()
            .filter(|(modality, _)| !without.contains(modality))
            .map(|(modality, path)| (*modality, path.as_path()))
            .collect();
        let part = |(modality, path): &(Modality, &Path)| {
            let reference = path.display().to_string();
            match modality {
                Modality::Video => Part::Video { video: reference },
                Modality::Audio => Part::Audio { audio: reference },
                _ => Part::Image { image: reference },
            }
        };
        let mut parts: Vec<Part> = files.iter().map(part).collect();
        parts.push(Part::Text {
            text: self.text.clone(),
        });
        let message = Message {
            role: "user".into(),
            content: Content::Parts(parts),
        };
        (vec![message], files)
    }
}
