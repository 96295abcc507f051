//! Text to token ids and back, by the model's own `tokenizer.json`.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::decoders::DecoderWrapper;

use crate::detokenize::DetokenStream;
use crate::error::ProcessorError;
use crate::files::{MAX_TOKENIZER_BYTES, lookup, read_required, typed};
use crate::token_table::{Kind, TokenTable};

/// Largest token id that is accepted; a table of all ids is kept.
const MAX_ID: u32 = 1 << 22;

/// A byte-level BPE tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    table: Arc<TokenTable>,
    special_tokens: Vec<(String, String)>,
    path: PathBuf,
}

/// The keys of `tokenizer_config.json` that name a special token.
const SPECIAL_KEYS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

#[derive(serde::Deserialize)]
struct RawToken {
    content: String,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Loads `tokenizer.json`, and the special tokens that `tokenizer_config.json` names.
    pub(crate) fn load(dir: &Path, config: Option<&Value>) -> Result<Self, ProcessorError> {
        let path = dir.join("tokenizer.json");
        let bytes = read_required(
            &path,
            MAX_TOKENIZER_BYTES,
            "the family's vocabulary is in it",
        )?;
        let fail = |message: String| ProcessorError::Tokenizer {
            path: path.clone(),
            message,
        };
        serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
            .map_err(|error| fail(format!("not valid JSON: {error}")))?;
        let mut inner = shielded(|| tokenizers::Tokenizer::from_bytes(&bytes)).map_err(&fail)?;
        drop(bytes);
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(fail(
                "its decoder is not ByteLevel, the only one that is supported".to_owned(),
            ));
        }
        // Truncation and padding are a caller's choice, never the file's (as Hugging Face resets them on each call).
        inner
            .with_truncation(None)
            .map_err(|error| fail(error.to_string()))?;
        inner.with_padding(None);
        let config_path = dir.join("tokenizer_config.json");
        if let Some(config) = config {
            add_missing_tokens(&mut inner, config, &config_path)?;
        }
        let added = inner.get_added_tokens_decoder();
        let mut tokens: Vec<_> = added
            .into_iter()
            .map(|(id, token)| {
                (
                    id,
                    token.content,
                    if token.special {
                        Kind::Special
                    } else {
                        Kind::Text
                    },
                )
            })
            .collect();
        tokens.extend(
            inner
                .get_vocab(false)
                .into_iter()
                .map(|(token, id)| (id, token, Kind::Text)),
        );
        if let Some((id, token, _)) = tokens.iter().find(|&&(id, _, _)| id > MAX_ID) {
            return Err(fail(format!(
                "the token `{token}` has the id {id}, and ids up to {MAX_ID} are accepted"
            )));
        }
        let special_tokens = config
            .map(|config| special_tokens(config, &config_path))
            .transpose()?;
        Ok(Self {
            inner,
            table: Arc::new(TokenTable::new(tokens)),
            special_tokens: special_tokens.unwrap_or_default(),
            path,
        })
    }

    /// The ids of a text. Special tokens that are written out in it become their ids, as Hugging Face has it.
    ///
    /// # Errors
    /// If the text defeats the vocabulary's own splitting pattern.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ProcessorError> {
        let encoding = shielded(|| self.inner.encode_fast(text, true));
        encoding
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|message| ProcessorError::Tokenizer {
                path: self.path.clone(),
                message,
            })
    }

    /// The text of ids. Bytes that are not UTF-8 become U+FFFD; ids without a token are left out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let bytes: Vec<u8> = ids
            .iter()
            .flat_map(|&id| self.table.bytes(id, skip_special))
            .copied()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Starts decoding a sequence that arrives token by token.
    pub fn stream(&self, skip_special: bool) -> DetokenStream {
        DetokenStream::new(Arc::clone(&self.table), skip_special)
    }

    /// One more than the largest id that has a token, added tokens included.
    ///
    /// Models often have more rows of logits than this; an id from here on has no text.
    pub fn vocab_size(&self) -> usize {
        self.table.len()
    }

    /// The bytes that an id stands for: often a part of a character. `None` for an id without a token.
    pub fn token_bytes(&self, id: u32) -> Option<&[u8]> {
        self.table.entry(id).map(|(bytes, _)| bytes)
    }

    /// The text of one id alone, with U+FFFD for a part of a character. `None` for an id without a token.
    pub fn token_text(&self, id: u32) -> Option<Cow<'_, str>> {
        self.token_bytes(id).map(String::from_utf8_lossy)
    }

    /// The id of a token as the vocabulary writes it (special tokens as they are).
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether an id is a special token, which a text meant for people leaves out.
    pub fn is_special(&self, id: u32) -> bool {
        self.table
            .entry(id)
            .is_some_and(|(_, kind)| kind == Kind::Special)
    }

    /// The special tokens that the files name: `eos_token` and so on, with their text.
    pub fn special_tokens(&self) -> &[(String, String)] {
        &self.special_tokens
    }

    /// The text of one special token that the files name.
    pub(crate) fn special_token(&self, key: &str) -> Option<&str> {
        self.special_tokens
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, token)| token.as_str())
    }

    /// Whether the id is matched before the text is split, so that repeating its text repeats its id.
    pub(crate) fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_tokens_decoder().contains_key(&id)
    }
}

/// Runs the tokenizers crate, which panics on some damaged files and states what it expected.
///
/// The panic hook still prints: a panic in a dependency is worth reporting to its authors.
fn shielded<T>(call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => {
            Err("its content makes no tokenizer: the tokenizers library gave up on it".to_owned())
        }
    }
}

/// Adds the tokens that `tokenizer_config.json` has and `tokenizer.json` has not.
fn add_missing_tokens(
    inner: &mut tokenizers::Tokenizer,
    config: &Value,
    path: &Path,
) -> Result<(), ProcessorError> {
    let Some(Value::Object(listed)) = lookup(config, "added_tokens_decoder") else {
        return Ok(());
    };
    let mut missing = Vec::new();
    for (id, value) in listed {
        let key = format!("added_tokens_decoder.{id}");
        let token: RawToken = typed(value, path, &key)?;
        let id: u32 = id
            .parse()
            .map_err(|_| ProcessorError::config(path, &key, "its name must be a token id"))?;
        if inner.token_to_id(&token.content).is_none() {
            missing.push((id, token));
        }
    }
    missing.sort_by_key(|&(id, _)| id);
    for (id, token) in missing {
        let added = AddedToken::from(token.content.clone(), token.special)
            .normalized(token.normalized)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .single_word(token.single_word);
        inner.add_tokens(&[added]);
        let got = inner.token_to_id(&token.content);
        if got != Some(id) {
            let message = format!(
                "`{}` is not in tokenizer.json and would get the id {got:?}",
                token.content
            );
            return Err(ProcessorError::config(
                path,
                format!("added_tokens_decoder.{id}"),
                message,
            ));
        }
    }
    Ok(())
}

/// The named special tokens: the usual keys, the family's own (`image_token`), and those of `extra_special_tokens`.
fn special_tokens(config: &Value, path: &Path) -> Result<Vec<(String, String)>, ProcessorError> {
    let text = |key: &str, value: &Value| -> Result<String, ProcessorError> {
        let inner = value.get("content").unwrap_or(value);
        inner.as_str().map(str::to_owned).ok_or_else(|| {
            ProcessorError::config(
                path,
                key,
                "must be a token, or an object with its text under `content`",
            )
        })
    };
    let mut out = Vec::new();
    for key in SPECIAL_KEYS {
        if let Some(value) = lookup(config, key) {
            out.push((key.to_owned(), text(key, value)?));
        }
    }
    let top = config.as_object().into_iter().flatten();
    let extra = lookup(config, "extra_special_tokens")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    for (key, value) in extra.chain(top) {
        let usual = SPECIAL_KEYS.contains(&key.as_str());
        let is_token = value.is_string() || value.get("content").is_some();
        if key.ends_with("_token") && is_token && !usual && !out.iter().any(|(name, _)| name == key)
        {
            out.push((key.clone(), text(key, value)?));
        }
    }
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::token_table::byte_of;

    /// A tokenizer of single bytes, with one special token and one merge.
    pub(crate) fn bytes_tokenizer() -> Tokenizer {
        let mut vocab = serde_json::Map::new();
        let mut letters: Vec<char> = (0..0x144)
            .filter_map(char::from_u32)
            .filter(|&c| byte_of(c).is_some())
            .collect();
        letters.sort_by_key(|&c| byte_of(c));
        for (id, letter) in letters.iter().enumerate() {
            vocab.insert(letter.to_string(), id.into());
        }
        vocab.insert("he".to_owned(), 256.into());
        let json = serde_json::json!({
            "version": "1.0", "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
            "padding": null, "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
            "added_tokens": [{"id": 257, "content": "<|end|>", "single_word": false, "lstrip": false, "rstrip": false,
                              "normalized": false, "special": true}],
            "model": {"type": "BPE", "vocab": vocab, "merges": ["h e"]},
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        let config = serde_json::json!({
            "eos_token": {"content": "<|end|>"}, "bos_token": null, "image_token": "<|i|>",
            "added_tokens_decoder": {"258": {"content": "<tool>", "special": false}},
        });
        Tokenizer::load(dir.path(), Some(&config)).unwrap()
    }

    #[test]
    fn ids_and_texts_go_both_ways_whole() {
        let tokenizer = bytes_tokenizer();
        let text = "hé, 你好 🎉<|end|><tool>";
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.len() > 2, "the file's truncation does not count");
        assert_eq!(&ids[ids.len() - 2..], [257, 258]);
        assert_eq!(tokenizer.decode(&ids, false), text);
        assert_eq!(tokenizer.decode(&ids, true), "hé, 你好 🎉<tool>");
        assert_eq!(tokenizer.vocab_size(), 259);
        assert_eq!(tokenizer.token_bytes(256), Some(b"he".as_slice()));
        assert_eq!(tokenizer.token_text(0xE4).as_deref(), Some("\u{FFFD}"));
        assert_eq!(
            (
                tokenizer.token_bytes(259),
                tokenizer.decode(&[70_000], false).as_str()
            ),
            (None, "")
        );
        assert!(tokenizer.is_special(257) && !tokenizer.is_special(258));
        assert_eq!(tokenizer.special_token("eos_token"), Some("<|end|>"));
        assert_eq!(tokenizer.special_token("image_token"), Some("<|i|>"));
    }

    #[test]
    fn bad_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let error = Tokenizer::load(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: not found"), "{error}");
        std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
        let error = Tokenizer::load(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: "), "{error}");
    }
}
