//! Who changed what, appended to a file and synced before it is done.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::clock::since_1970_ms;

/// Changes whose author is remembered: more than the journal keeps.
const REMEMBERED: usize = 1024;

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
    /// The journal's number of the change, once it is done and is one that the journal keeps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
}

/// Who made a change that the journal keeps.
#[derive(Debug, Deserialize)]
struct Author {
    at_ms: f64,
    who: String,
    sequence: u64,
}

#[derive(Debug)]
struct Log {
    file: File,
    /// Oldest first.
    authors: VecDeque<Author>,
}

impl Log {
    fn remember(&mut self, author: Author) {
        if self.authors.len() == REMEMBERED {
            self.authors.pop_front();
        }
        self.authors.push_back(author);
    }
}

/// The log.
#[derive(Debug)]
pub struct Audit {
    log: Mutex<Log>,
}

impl Audit {
    /// Opens the file to be appended to, and reads who made which change.
    ///
    /// # Errors
    /// It cannot be.
    pub fn open(path: &Path) -> io::Result<Audit> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(named)?;
        }
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path);
        let mut log = Log {
            file: opened.map_err(named)?,
            authors: VecDeque::new(),
        };
        let read = log.file.try_clone().map_err(named)?;
        for line in BufReader::new(read).split(b'\n') {
            // Lines of requests that are not done, and what a stop has cut short, name no change.
            if let Ok(author) = serde_json::from_slice(&line.map_err(named)?) {
                log.remember(author);
            }
        }
        Ok(Audit {
            log: Mutex::new(log),
        })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut log = self.log();
        log.file.write_all(&text)?;
        log.file.sync_data()?;
        if let Some(sequence) = entry.sequence {
            log.remember(Author {
                at_ms: line.at_ms,
                who: entry.who.to_owned(),
                sequence,
            });
        }
        Ok(())
    }

    /// Who made the change of that number and time in the journal; `None`: the node itself, or nobody wrote it down.
    pub fn author(&self, sequence: u64, at_ms: f64) -> Option<String> {
        let log = self.log();
        let mut newest_first = log.authors.iter().rev();
        // Who is told after a change was there before it did not make it: a journal that was taken away begins at 1 again.
        let author = newest_first.find(|it| it.sequence == sequence && it.at_ms >= at_ms)?;
        Some(author.who.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(who: &str, sequence: Option<u64>) -> Entry<'_> {
        Entry {
            who,
            what: "activate",
            with: serde_json::Value::Null,
            became: sequence.map(|_| "done".to_owned()),
            sequence,
        }
    }

    #[test]
    fn authors_are_known_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/audit.jsonl");
        let audit = Audit::open(&path).unwrap();
        audit.write(&entry("alice", None)).unwrap();
        audit.write(&entry("alice", Some(7))).unwrap();
        audit.write(&entry("bob", Some(8))).unwrap();
        // A stop in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"at_ms\":1.0,\"who\":\"eve").unwrap();
        for audit in [audit, Audit::open(&path).unwrap()] {
            assert_eq!(audit.author(7, 1.0).as_deref(), Some("alice"));
            assert_eq!(audit.author(8, 1.0).as_deref(), Some("bob"));
            assert_eq!(audit.author(9, 1.0), None);
            // A change that came later than the line has another author.
            assert_eq!(audit.author(7, since_1970_ms() + 1000.0), None);
        }
    }

    #[test]
    fn only_the_newest_authors_are_held() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        let mut text = String::new();
        for sequence in 0..2 * REMEMBERED {
            text += &format!("{{\"at_ms\":5.0,\"who\":\"alice\",\"sequence\":{sequence}}}\n");
        }
        std::fs::write(&path, text).unwrap();
        let audit = Audit::open(&path).unwrap();
        assert_eq!(audit.log().authors.len(), REMEMBERED);
        assert_eq!(audit.author(3, 1.0), None);
        assert!(audit.author(2 * REMEMBERED as u64 - 1, 1.0).is_some());
    }
}
