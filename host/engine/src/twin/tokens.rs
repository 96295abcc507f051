//! A twin's tokenizer, template and preprocessor files, taken over from a thinker's directory.
//!
//! The shape's vocabulary is larger than the tokenizer's: every id that has no token gets a word of its own (` w1234`), so
//! that whatever the model chooses can be sampled, written and read.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::cannot_write;
use crate::error::{EngineError, Result};

/// Files that are copied as they are; the first four must be there.
const COPIED: [&str; 6] = [
    "chat_template.jinja",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "video_preprocessor_config.json",
    "msao.json",
];
const NEEDED: usize = 4;
const TOKENIZER: &str = "tokenizer.json";
/// The largest file that is taken over.
const MAX_BYTES: u64 = 64 << 20;

/// A tokenizer for all of a shape's ids.
#[derive(Debug)]
pub(super) struct Vocabulary {
    /// `tokenizer.json`, widened.
    tokenizer: Value,
    special: Vec<u32>,
    size: usize,
}

impl Vocabulary {
    /// Reads the tokenizer of `dir` and widens it to `size` ids.
    pub fn read(dir: &Path, size: usize) -> Result<Self> {
        if let Some(file) = COPIED
            .iter()
            .take(NEEDED)
            .chain([&TOKENIZER])
            .find(|file| !dir.join(file).is_file())
        {
            return Err(EngineError::request(format!(
                "{} is missing: a twin takes it over from the directory that --tokenizer names, such as \
                 models/demo-target of a checkout",
                dir.join(file).display()
            )));
        }
        let path = dir.join(TOKENIZER);
        let fail = |problem: String| EngineError::checkpoint(&path, problem);
        let mut tokenizer: Value =
            serde_json::from_slice(&read(&path)?).map_err(|e| fail(format!("not JSON: {e}")))?;
        let added: Vec<(String, u32)> = tokenizer
            .get("added_tokens")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|token| {
                let id = token.get("id")?.as_u64()?;
                Some((
                    token.get("content")?.as_str()?.to_owned(),
                    u32::try_from(id).ok()?,
                ))
            })
            .collect();
        let words = tokenizer
            .pointer_mut("/model/vocab")
            .and_then(Value::as_object_mut)
            .ok_or_else(|| fail("model.vocab is missing".into()))?;
        let mut taken = vec![false; size];
        let ids = words
            .values()
            .filter_map(Value::as_u64)
            .chain(added.iter().map(|(_, id)| u64::from(*id)));
        for id in ids {
            match usize::try_from(id).ok().and_then(|id| taken.get_mut(id)) {
                Some(taken) => *taken = true,
                None => {
                    return Err(fail(format!(
                        "the token with id {id} does not fit the shape's vocabulary of {size}"
                    )));
                }
            }
        }
        // An added token that the model's vocabulary knows keeps its id, whatever the vocabulary's length.
        for (content, id) in &added {
            words.insert(content.clone(), json!(id));
        }
        for (id, _) in taken.iter().enumerate().filter(|(_, taken)| !**taken) {
            words.entry(format!("\u{120}w{id}")).or_insert(json!(id));
        }
        Ok(Vocabulary {
            tokenizer,
            special: added.into_iter().map(|(_, id)| id).collect(),
            size,
        })
    }

    /// Ids that no answer should hold.
    pub fn special(&self) -> &[u32] {
        &self.special
    }

    /// All other ids.
    pub fn ordinary(&self) -> Vec<u32> {
        super::agree::ordinary(self.size, &self.special)
    }

    /// Writes the tokenizer and copies its companions from `from` to `to`.
    pub fn write(&self, from: &Path, to: &Path) -> Result<()> {
        write_json(&to.join(TOKENIZER), &self.tokenizer)?;
        // The same vocabulary and merges in the older pair of files.
        if let Some(words) = self.tokenizer.pointer("/model/vocab") {
            write_json(&to.join("vocab.json"), words)?;
        }
        for file in COPIED.iter().chain([&"merges.txt"]) {
            let path: PathBuf = from.join(file);
            if path.is_file() {
                let target = to.join(file);
                std::fs::write(&target, read(&path)?).map_err(|e| cannot_write(&target, e))?;
            }
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| EngineError::read(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        let problem = format!("larger than {MAX_BYTES} bytes, the most that a twin takes over");
        return Err(EngineError::checkpoint(path, problem));
    }
    Ok(bytes)
}

/// Writes JSON: large maps on one line, others for people.
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let large = value
        .as_object()
        .is_some_and(|map: &Map<_, _>| map.len() > 100)
        || value.get("model").is_some();
    let text = if large {
        serde_json::to_string(value)
    } else {
        serde_json::to_string_pretty(value)
    };
    let text = text.map_err(|e| EngineError::request(format!("{}: {e}", path.display())))?;
    std::fs::write(path, text + "\n").map_err(|e| cannot_write(path, e))
}
