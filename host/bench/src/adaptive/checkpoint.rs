//! What was measured, question by question, in a file that a later run goes on from.
//!
//! The first line says what the figures are of: models, components, parameters, settings, data. A run for which that differs
//! begins anew. Each further line is a question's figures, as JSON; a last line that a stop has cut is passed over. The
//! file goes once all of it has become rows: the next run measures again.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that are read of such a file; what lies behind is measured again.
const MOST: u64 = 256 << 20;

/// Such a file, open for more.
#[derive(Debug)]
pub struct Checkpoint<T> {
    path: PathBuf,
    file: File,
    of: PhantomData<fn(T)>,
}

impl<T: Serialize + DeserializeOwned> Checkpoint<T> {
    /// Opens the file at `path`, made anew where it is `fresh`, not there or of something other than `what`. Gives what it
    /// holds, too.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn open(path: &Path, what: &str, fresh: bool) -> Result<(Checkpoint<T>, Vec<T>)> {
        let records = match fresh {
            true => Vec::new(),
            false => read(path, what),
        };
        let shown = || path.display().to_string();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(shown)?;
        }
        // Written whole under another name first: what is cut off or of something else is gone then.
        let whole = path.with_extension("new");
        let mut file = File::create(&whole).with_context(shown)?;
        writeln!(file, "{}", serde_json::to_string(what)?).with_context(shown)?;
        for record in &records {
            writeln!(file, "{}", serde_json::to_string(record)?).with_context(shown)?;
        }
        fs::rename(&whole, path).with_context(shown)?;
        let checkpoint = Checkpoint {
            path: path.to_owned(),
            file,
            of: PhantomData,
        };
        Ok((checkpoint, records))
    }

    /// Adds a question's figures.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn add(&mut self, record: &T) -> Result<()> {
        let line = serde_json::to_string(record)? + "\n";
        let written = self.file.write_all(line.as_bytes());
        written.with_context(|| self.path.display().to_string())
    }

    /// Removes the file.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| self.path.display().to_string())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a file holds of `what`; nothing where it cannot be read.
fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Vec<T> {
    let Ok(file) = File::open(path) else {
        return Vec::new();
    };
    let mut lines = BufReader::new(file.take(MOST))
        .lines()
        .map_while(Result::ok);
    let first = lines.next();
    let is_of = first.and_then(|line| serde_json::from_str::<String>(&line).ok());
    if is_of.as_deref() != Some(what) {
        return Vec::new();
    }
    lines
        .map_while(|line| serde_json::from_str(&line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_again_for_the_same_thing_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("scores.jsonl");
        let open = |what: &str, fresh| Checkpoint::<(u32, f64)>::open(&path, what, fresh).unwrap();
        let (mut checkpoint, before) = open("one \"model\"", false);
        assert!(before.is_empty());
        checkpoint.add(&(1, 0.1)).unwrap();
        checkpoint.add(&(2, -3.5)).unwrap();
        drop(checkpoint);
        // A stop in the middle of a line.
        let cut = fs::read_to_string(&path).unwrap() + "[3,";
        fs::write(&path, cut).unwrap();
        let (mut checkpoint, before) = open("one \"model\"", false);
        assert_eq!(before, [(1, 0.1), (2, -3.5)]);
        checkpoint.add(&(3, 1.0)).unwrap();
        drop(checkpoint);
        assert_eq!(open("one \"model\"", false).1.len(), 3);
        assert!(open("another", false).1.is_empty());
        assert!(open("one \"model\"", false).1.is_empty());
    }

    #[test]
    fn fresh_begins_anew_and_what_is_done_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scores.jsonl");
        let open = |fresh| Checkpoint::<u32>::open(&path, "it", fresh).unwrap();
        open(false).0.add(&1).unwrap();
        assert!(open(true).1.is_empty());
        let (checkpoint, _) = open(false);
        assert_eq!(checkpoint.path(), path);
        checkpoint.remove().unwrap();
        assert!(!path.exists());
        fs::write(&path, [0xff, 0xfe, b'\n']).unwrap();
        assert!(open(false).1.is_empty());
    }
}
