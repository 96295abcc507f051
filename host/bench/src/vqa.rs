//! Questions of the demo world, as both models are asked them here.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use msao_core::chat::{Content, Message, Modality, Part};
use msao_datasets::{Item, Set, Source};

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
    /// The right answer, word by word.
    pub answer: String,
}

/// Reads the questions of a folder that the recipe's `data.py` wrote, those to calibrate with too.
///
/// # Errors
/// As [`Set::load_demo`].
pub fn read(dir: &Path) -> Result<Vec<Question>> {
    let set = Set::load_demo(dir)?;
    set.items.into_iter().map(Question::of).collect()
}

impl Question {
    fn of(item: Item) -> Result<Question> {
        let media = item.media.into_iter().map(|(modality, source)| {
            let Source::File(path) = source else {
                bail!("question {}: its media are no files", item.id);
            };
            Ok((modality, path))
        });
        Ok(Question {
            media: media.collect::<Result<_>>()?,
            id: item.id,
            text: item.text,
            needs: item.needs,
            kind: item.kind.to_string(),
            long: item.long,
            seen_mix: item.seen_mix,
            answer: item.answer.to_string(),
        })
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_asked_with_their_files() {
        let dir = msao_golden::root().join("../../models/heldout");
        let all = read(&dir).unwrap();
        assert_eq!(all.len(), 2_415);
        let first = &all[0];
        assert_eq!(first.answer, "right");
        assert_eq!(first.needs, [Modality::Image]);
        let file = dir.join(format!("images/COCO_demo_{:012}.jpg", first.id / 1_000));
        let (messages, files) = first.ask(&[]);
        assert_eq!(files, [(Modality::Image, file.as_path())]);
        let parts = |messages: &[Message]| match &messages[0].content {
            Content::Parts(parts) => parts.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(parts(&messages), 2);
        // Without its picture the words are left.
        let (messages, files) = first.ask(&[Modality::Image]);
        assert_eq!((parts(&messages), files.len()), (1, 0));
    }
}
