//! Reading a model directory's files: bounded, and with errors that name the file and the key.

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::ProcessorError;

/// Largest configuration file or chat template that is read.
pub(crate) const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// Largest `tokenizer.json` that is read; those of the known families have about 11 MB.
pub(crate) const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// The bytes of a file, or `None` if there is no such file.
pub(crate) fn read_optional(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ProcessorError> {
    let read = |source| ProcessorError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let bytes = file.metadata().map_err(read)?.len();
    let mut content = Vec::new();
    // The length is only a claim (it may be a pipe, or grow), so the read itself is bounded too.
    let taken = file
        .take(limit + 1)
        .read_to_end(&mut content)
        .map_err(read)? as u64;
    if taken > limit {
        return Err(ProcessorError::FileTooLarge {
            path: path.to_owned(),
            bytes: bytes.max(taken),
            limit,
        });
    }
    Ok(Some(content))
}

/// The bytes of a file that must be there; `wanted` says what for.
pub(crate) fn read_required(
    path: &Path,
    limit: u64,
    wanted: &str,
) -> Result<Vec<u8>, ProcessorError> {
    read_optional(path, limit)?.ok_or_else(|| ProcessorError::MissingFile {
        path: path.to_owned(),
        wanted: wanted.to_owned(),
    })
}

/// A configuration file as JSON, or `None` if there is no such file.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, ProcessorError> {
    let Some(bytes) = read_optional(path, MAX_CONFIG_BYTES)? else {
        return Ok(None);
    };
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| ProcessorError::config(path, ".", format!("not valid JSON: {error}")))?;
    if !value.is_object() {
        return Err(ProcessorError::config(path, ".", "must be a JSON object"));
    }
    Ok(Some(value))
}

/// A text file, or `None` if there is no such file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, ProcessorError> {
    let Some(bytes) = read_optional(path, MAX_CONFIG_BYTES)? else {
        return Ok(None);
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|error| ProcessorError::config(path, ".", format!("not UTF-8: {error}")))
}

/// Reads `value`, found at `prefix` of the file, into a typed section; an error names the dotted key.
pub(crate) fn typed<T: DeserializeOwned>(
    value: &Value,
    path: &Path,
    prefix: &str,
) -> Result<T, ProcessorError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let key = match (prefix, inner.as_str()) {
            ("", inner) => inner.to_owned(),
            (prefix, ".") => prefix.to_owned(),
            (prefix, inner) => format!("{prefix}.{inner}"),
        };
        ProcessorError::config(path, key, error.into_inner().to_string())
    })
}

/// The value at a dotted path of a JSON object; `None` where a step is missing or null.
pub(crate) fn lookup<'a>(value: &'a Value, dotted: &str) -> Option<&'a Value> {
    dotted
        .split('.')
        .try_fold(value, |value, step| value.get(step))
        .filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Section {
        #[expect(dead_code, reason = "only its type is of interest")]
        sizes: Vec<u32>,
    }

    #[test]
    fn a_type_error_names_the_file_and_the_dotted_key() {
        let value = serde_json::json!({"sizes": [1, "two"]});
        let error = typed::<Section>(
            &value,
            Path::new("m/processor_config.json"),
            "image_processor",
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("m/processor_config.json: image_processor.sizes[1]: invalid type"),
            "{text}"
        );
    }

    #[test]
    fn a_file_over_its_limit_is_refused_and_a_missing_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert!(read_optional(&path, 4).unwrap().is_none());
        std::fs::write(&path, b"12345").unwrap();
        let text = read_optional(&path, 4).unwrap_err().to_string();
        assert!(
            text.contains("a.json: 5 bytes") && text.contains("at most 4"),
            "{text}"
        );
        assert!(
            read_json(&path)
                .unwrap_err()
                .to_string()
                .contains("JSON object")
        );
    }
}
