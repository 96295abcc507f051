//! How a model's files want it to be sampled and where it stops.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::ProcessorError;
use crate::family::{Family, model_lookup};
use crate::files::{read_json, typed};
use crate::tokenizer::Tokenizer;

/// A model's own sampling settings. A missing one is Hugging Face's default.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationDefaults {
    /// Every id that ends a text: of `generation_config.json`, else `config.json`, else the tokenizer's.
    pub eos_token_ids: Vec<u32>,
    /// Fills batches, from the same places.
    pub pad_token_id: Option<u32>,
    /// Sample; else take the likeliest token.
    pub do_sample: bool,
    /// Divides the logits; above 0.
    pub temperature: f32,
    /// Only so many of the likeliest tokens; 0 is all.
    pub top_k: usize,
    /// Only the likeliest tokens that have this probability together; 1 is all.
    pub top_p: f32,
    /// Divides the positive logits of tokens seen before, multiplies the negative ones; 1 is off.
    pub repetition_penalty: f32,
}

#[derive(Debug, Default, Deserialize)]
struct Raw {
    eos_token_id: Option<Ids>,
    pad_token_id: Option<u32>,
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    repetition_penalty: Option<f32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

impl Ids {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Ids::One(id) => vec![id],
            Ids::Many(ids) => ids,
        }
    }
}

/// Reads the settings; `config` is the content of `config.json`.
pub(crate) fn load(
    dir: &Path,
    config: &Value,
    family: Family,
    tokenizer: &Tokenizer,
) -> Result<GenerationDefaults, ProcessorError> {
    let path = dir.join("generation_config.json");
    let file = read_json(&path)?;
    let raw: Raw = file
        .map(|value| typed(&value, &path, ""))
        .transpose()?
        .unwrap_or_default();
    let positive = |key: &str, value: Option<f32>| match value {
        Some(value) if !(value.is_finite() && value > 0.0) => Err(ProcessorError::config(
            &path,
            key,
            format!("is {value}, and must be above 0"),
        )),
        value => Ok(value.unwrap_or(1.0)),
    };

    let config_path = dir.join("config.json");
    let of_config = |key: &str| -> Result<Vec<u32>, ProcessorError> {
        for key in [key.to_owned(), format!("text_config.{key}")] {
            if let Some(value) = model_lookup(family, config, &key) {
                return typed::<Ids>(value, &config_path, &key).map(Ids::into_vec);
            }
        }
        Ok(Vec::new())
    };
    let of_tokenizer = |key: &str| {
        tokenizer
            .special_token(key)
            .and_then(|token| tokenizer.token_id(token))
    };

    let mut eos_token_ids = raw
        .eos_token_id
        .map_or_else(|| of_config("eos_token_id"), |ids| Ok(ids.into_vec()))?;
    if eos_token_ids.is_empty() {
        eos_token_ids.extend(of_tokenizer("eos_token"));
    }
    let pad_token_id = match raw.pad_token_id {
        Some(id) => Some(id),
        None => of_config("pad_token_id")?
            .first()
            .copied()
            .or_else(|| of_tokenizer("pad_token")),
    };
    Ok(GenerationDefaults {
        eos_token_ids,
        pad_token_id,
        do_sample: raw.do_sample.unwrap_or(false),
        temperature: positive("temperature", raw.temperature)?,
        top_k: raw.top_k.unwrap_or(50),
        top_p: positive("top_p", raw.top_p)?,
        repetition_penalty: positive("repetition_penalty", raw.repetition_penalty)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::bytes_tokenizer;

    fn with(generation: Option<&str>, config: Value) -> Result<GenerationDefaults, String> {
        let dir = tempfile::tempdir().unwrap();
        if let Some(text) = generation {
            std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
        }
        load(dir.path(), &config, Family::Qwen2_5Omni, &bytes_tokenizer())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_end_of_a_text_is_looked_for_in_three_places() {
        let config = serde_json::json!({"thinker_config": {"text_config": {"eos_token_id": 7}}});
        assert_eq!(
            with(Some(r#"{"eos_token_id": [3, 4]}"#), config.clone())
                .unwrap()
                .eos_token_ids,
            [3, 4]
        );
        assert_eq!(with(None, config).unwrap().eos_token_ids, [7]);
        assert_eq!(
            with(None, serde_json::json!({})).unwrap().eos_token_ids,
            [257]
        );
    }

    #[test]
    fn settings_are_read_and_checked() {
        let read = with(
            Some(r#"{"do_sample": true, "temperature": 0.1, "top_k": 1}"#),
            Value::Null,
        )
        .unwrap();
        assert_eq!(
            (read.do_sample, read.temperature, read.top_k, read.top_p),
            (true, 0.1, 1, 1.0)
        );
        let error = with(Some(r#"{"temperature": 0}"#), Value::Null).unwrap_err();
        assert!(
            error.contains("generation_config.json: temperature: is 0"),
            "{error}"
        );
        let error = with(Some(r#"{"top_k": -1}"#), Value::Null).unwrap_err();
        assert!(error.contains("generation_config.json: top_k: "), "{error}");
    }
}
