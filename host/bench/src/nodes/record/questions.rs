//! What each policy is asked for its recording: texts, pictures, a clip and a sound, with and without what a client may demand.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::nodes::client::question;

/// Files that questions are about.
pub struct Media {
    /// Of the requests that come before the recorded ones.
    pub scene: PathBuf,
    image: PathBuf,
    other: PathBuf,
    clip: PathBuf,
    sound: PathBuf,
}

impl Media {
    /// Those of the demo and of its held-out data.
    ///
    /// # Errors
    /// There are too few.
    pub fn find(models: &Path) -> Result<Media> {
        let nth = |folder: &str, ending: &str, number: usize| -> Result<PathBuf> {
            let folder = models.join("heldout").join(folder);
            let entries =
                std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
            let mut files: Vec<PathBuf> = entries
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.extension().is_some_and(|it| it == ending))
                .collect();
            files.sort();
            let file = files.into_iter().nth(number);
            file.with_context(|| format!("{} has too few {ending}", folder.display()))
        };
        Ok(Media {
            scene: models.join("demo-media/scene.png"),
            image: nth("images", "jpg", 0)?,
            other: nth("images", "jpg", 1)?,
            clip: nth("clips", "mp4", 0)?,
            sound: nth("sounds", "wav", 0)?,
        })
    }

    /// What every policy is asked while the cloud is there, with what the client demands.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn requests(&self) -> Result<Vec<Value>> {
        let (image, other, clip, sound) = (&self.image, &self.other, &self.clip, &self.sound);
        let greedy = || json!({ "temperature": 0 });
        Ok(vec![
            asking(&[], "What is 7 plus 6?", greedy())?,
            asking(&[("image", image)], "Describe the scene.", greedy())?,
            asking(&[("video", clip)], "Which way does it move?", greedy())?,
            asking(&[("audio", sound)], "How many beeps are there?", greedy())?,
            asking(
                &[("image", other), ("audio", sound)],
                "Which are more, the beeps or the shapes?",
                greedy(),
            )?,
            asking(
                &[],
                "Say something.",
                json!({ "temperature": 0.9, "seed": 7 }),
            )?,
            // The same picture again: it is there already.
            asking(
                &[("image", image)],
                "Which colours are there?",
                json!({ "temperature": 0.7, "seed": 8 }),
            )?,
            asking(
                &[("image", image)],
                "How many shapes are there?",
                json!({ "temperature": 0, "msao": { "require": "exact" } }),
            )?,
            asking(
                &[("image", other)],
                "Describe the scene.",
                json!({ "temperature": 0, "msao": { "media": "edge-only" } }),
            )?,
            asking(
                &[("video", clip)],
                "Describe the clip.",
                json!({ "temperature": 0, "logprobs": true }),
            )?,
        ])
    }

    /// What it is asked once the cloud is lost.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn when_lost(&self) -> Result<Vec<Value>> {
        let greedy = || json!({ "temperature": 0 });
        Ok(vec![
            asking(&[], "What is 3 plus 4?", greedy())?,
            asking(&[("image", &self.image)], "Describe the scene.", greedy())?,
        ])
    }
}

/// A question, with what else is asked for. Answers are short: each token is a step, and each step is recorded.
///
/// # Errors
/// A file cannot be read.
pub fn asking(files: &[(&str, &PathBuf)], words: &str, more: Value) -> Result<Value> {
    let files: Vec<(&str, &Path)> = files
        .iter()
        .map(|(kind, path)| (*kind, path.as_path()))
        .collect();
    let mut body = question("msao-demo", &files, words)?;
    if let (Value::Object(fields), Value::Object(more)) = (&mut body, more) {
        fields.insert("max_completion_tokens".to_owned(), json!(16));
        fields.extend(more);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_has_what_else_is_asked_for() {
        let body = asking(&[], "Hello", json!({ "temperature": 0, "seed": 3 })).unwrap();
        assert_eq!(
            (&body["seed"], &body["temperature"]),
            (&json!(3), &json!(0))
        );
        assert_eq!(body["max_completion_tokens"], 16);
        assert_eq!(body["messages"][0]["content"][0]["text"], "Hello");
        let missing = PathBuf::from("no-such-picture.png");
        assert!(asking(&[("image", &missing)], "What is it?", json!({})).is_err());
    }
}
