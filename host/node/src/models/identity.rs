//! What tells a model from another: digests over the files that decide what it computes.

use std::io;
use std::path::{Path, PathBuf};

use msao_core::digest::Digest;
use msao_session::frame::Identity;
use sha2::{Digest as _, Sha256};

/// What ids mean.
const TOKENIZER: [&str; 2] = ["tokenizer.json", "merges.txt"];
/// How a chat and its media become ids and pixels.
const PROCESSOR: [&str; 7] = [
    "chat_template.jinja",
    "chat_template.json",
    "msao.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
];

/// The digests of the model in `folder`. `held`: how its weights are held, such as `bf16/none`; `sampling`: how clips are
/// sampled where the files leave it open, and what else of the layout of media is not in the processor's own files.
///
/// Reads all weights: some seconds for a large model.
///
/// # Errors
/// A file cannot be read; the path stands in the message.
pub fn identity(folder: &Path, held: &str, sampling: &str) -> io::Result<Identity> {
    let mut weights = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| named(folder, &error))? {
        let path = entry?.path();
        let is_weights = path
            .extension()
            .is_some_and(|extension| extension == "safetensors");
        if is_weights {
            weights.push(path);
        }
    }
    weights.push(folder.join("config.json"));
    weights.sort();
    let present = |names: &[&str]| -> Vec<PathBuf> {
        let paths = names.iter().map(|name| folder.join(name));
        paths.filter(|path| path.is_file()).collect()
    };
    Ok(Identity {
        model: of_files(&weights, held)?,
        tokenizer: of_files(&present(&TOKENIZER), "")?,
        processor: of_files(&present(&PROCESSOR), sampling)?,
    })
}

/// Over each file's name, length and content, and a text behind them.
fn of_files(paths: &[PathBuf], text: &str) -> io::Result<Digest> {
    let mut all = Sha256::new();
    for path in paths {
        let mut file = std::fs::File::open(path).map_err(|error| named(path, &error))?;
        let mut one = Sha256::new();
        let bytes = io::copy(&mut file, &mut one).map_err(|error| named(path, &error))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        all.update((name.len() as u64).to_le_bytes());
        all.update(name.as_bytes());
        all.update(bytes.to_le_bytes());
        all.update(one.finalize());
    }
    all.update(text.as_bytes());
    Ok(Digest(all.finalize().into()))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_changes_the_digest_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        for name in [
            "config.json",
            "a.safetensors",
            "tokenizer.json",
            "chat_template.jinja",
        ] {
            write(name, name);
        }
        let first = identity(folder.path(), "f32", "2").unwrap();
        write("README.md", "words");
        assert_eq!(identity(folder.path(), "f32", "2").unwrap(), first);
        write("b.safetensors", "");
        let second = identity(folder.path(), "f32", "2").unwrap();
        assert_ne!(second.model, first.model);
        assert_eq!(
            (second.tokenizer, second.processor),
            (first.tokenizer, first.processor)
        );
        write("chat_template.jinja", "another");
        let third = identity(folder.path(), "bf16", "2").unwrap();
        assert_ne!(third.model, second.model);
        assert_ne!(third.processor, second.processor);
        assert_eq!(third.tokenizer, second.tokenizer);
    }
}
