//! Who changed what, appended to a file and synced before it is done.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::clock::since_1970_ms;

/// One change, before or after it.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// The token's name.
    pub who: &'a str,
    /// What is asked.
    pub what: &'a str,
    /// With what.
    pub with: serde_json::Value,
    /// What became of it; `None` before.
    pub became: Option<String>,
}

/// The log.
#[derive(Debug)]
pub struct Audit {
    file: Mutex<File>,
}

impl Audit {
    /// Opens the file to be appended to.
    ///
    /// # Errors
    /// It cannot be.
    pub fn open(path: &Path) -> io::Result<Audit> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(named)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Audit {
            file: Mutex::new(file.map_err(named)?),
        })
    }

    /// Writes an entry down.
    ///
    /// # Errors
    /// It is not on the disk: what it speaks of must not be done.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        #[derive(Serialize)]
        struct Line<'a> {
            at_ms: f64,
            #[serde(flatten)]
            entry: &'a Entry<'a>,
        }
        let line = Line {
            at_ms: since_1970_ms().round(),
            entry,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&text)?;
        file.sync_data()
    }
}
