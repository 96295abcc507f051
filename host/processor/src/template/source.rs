//! Where a model directory keeps its chat template.
//!
//! In Hugging Face's order of preference (`ProcessorMixin.get_processor_dict`, transformers 5.17): the key
//! `chat_template` of `processor_config.json`, `chat_template.json`, `chat_template.jinja` (further templates beside it
//! in `additional_chat_templates/`); and then, as a tokenizer alone would, `tokenizer_config.json`. A list of named
//! templates counts by its entry `default`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::ProcessorError;
use crate::files::{lookup, read_json, read_text};

/// The template's text and the file that it is from.
pub(crate) fn find(
    dir: &Path,
    tokenizer_config: Option<&Value>,
) -> Result<(String, PathBuf), ProcessorError> {
    for name in ["processor_config.json", "chat_template.json"] {
        let path = dir.join(name);
        if let Some(config) = read_json(&path)?
            && let Some(value) = lookup(&config, "chat_template")
        {
            return default_of(value, &path).map(|text| (text, path));
        }
    }
    for name in [
        "chat_template.jinja",
        "additional_chat_templates/default.jinja",
    ] {
        let path = dir.join(name);
        if let Some(text) = read_text(&path)? {
            return Ok((text, path));
        }
    }
    let path = dir.join("tokenizer_config.json");
    if let Some(value) = tokenizer_config.and_then(|config| lookup(config, "chat_template")) {
        return default_of(value, &path).map(|text| (text, path));
    }
    Err(ProcessorError::MissingFile {
        path: dir.join("chat_template.jinja"),
        wanted: "the chat template is there, in chat_template.json, or in tokenizer_config.json"
            .to_owned(),
    })
}

/// A template as it is written, or the one named `default` of a list or an object of named ones.
fn default_of(value: &Value, path: &Path) -> Result<String, ProcessorError> {
    let text = match value {
        Value::String(text) => Some(text.as_str()),
        Value::Array(named) => named
            .iter()
            .find(|entry| lookup(entry, "name").and_then(Value::as_str) == Some("default"))
            .and_then(|entry| lookup(entry, "template"))
            .and_then(Value::as_str),
        Value::Object(_) => lookup(value, "default").and_then(Value::as_str),
        _ => None,
    };
    text.map(str::to_owned).ok_or_else(|| {
        ProcessorError::config(
            path,
            "chat_template",
            "must be a template, or named templates with one named `default`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_file_wins_and_every_form_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let tokenizer = serde_json::json!({"chat_template": [{"name": "tool", "template": "t"}, {"name": "default", "template": "list"}]});
        let found = |tokenizer: Option<&Value>| find(dir.path(), tokenizer).map(|(text, _)| text);
        assert!(
            found(None)
                .unwrap_err()
                .to_string()
                .contains("chat_template.jinja: not found")
        );
        assert_eq!(found(Some(&tokenizer)).unwrap(), "list");
        put("chat_template.jinja", "jinja");
        assert_eq!(found(Some(&tokenizer)).unwrap(), "jinja");
        put("chat_template.json", r#"{"chat_template": "legacy"}"#);
        assert_eq!(found(Some(&tokenizer)).unwrap(), "legacy");
        put(
            "processor_config.json",
            r#"{"chat_template": {"default": "processor"}}"#,
        );
        assert_eq!(found(None).unwrap(), "processor");
        put("processor_config.json", r#"{"chat_template": 5}"#);
        let error = found(None).unwrap_err().to_string();
        assert!(
            error.contains("processor_config.json: chat_template: must be"),
            "{error}"
        );
    }
}
