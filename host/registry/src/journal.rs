//! The journal of activations and rollouts: a numbered file for each change, each with the whole state after it.
//!
//! ```text
//! journal/00000000000000000042.json
//!     msao-journal 1 <sha256 of all that follows>
//!     { "sequence": 42, "at-ms": ..., "event": ..., "state": ... }
//! ```
//!
//! A file is written under another name, synced, and renamed. So a stop leaves the state before or after a change. The
//! newest file whose checksum holds is what counts; one that is damaged, too large or unreadable is renamed and told, and
//! the one before it taken. One whose checksum holds and that this program does not read was written by another version: then it does not
//! start, because what was active before is not what is active. The last 256 are kept, which is also the history that an operator can read.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use msao_core::digest::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::files::{FileError, at, prepare, read, write_new};

/// Changes that are kept.
const KEPT: u64 = 256;
/// Bytes of a file at most.
const MAX_BYTES: u64 = 4 << 20;
/// How every entry begins, whatever its format: what may change is under the checksum.
const HEAD: &str = "msao-journal 1 ";
const ENDING: &str = "json";

/// One change, and the state after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Entry<E, S> {
    /// Counted up from 1.
    pub sequence: u64,
    /// When, in ms since 1970.
    pub at_ms: f64,
    /// What happened.
    pub event: E,
    /// What is so from then on.
    pub state: S,
}

/// A file of the journal that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Where it lies now.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a journal cannot be opened.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// The newest entry is whole, and of another format.
    #[error(
        "{} is whole, but this program does not read it ({problem}): another version of it wrote it. Start that version, \
         or name another folder",
        .path.display()
    )]
    OtherFormat {
        /// The entry.
        path: PathBuf,
        /// What is not read.
        problem: String,
    },
}

/// Why a file gives no entry.
enum Unread {
    /// It is not what was written.
    Damaged(String),
    /// It is, but this program does not know it.
    OtherFormat(String),
}

/// What opening a journal finds: it, the newest entry that holds, and what does not.
pub type Found<E, S> = (Journal, Option<Entry<E, S>>, Vec<Damaged>);

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    next: u64,
}

fn name(folder: &Path, sequence: u64) -> PathBuf {
    folder.join(format!("{sequence:020}.{ENDING}"))
}

impl Journal {
    /// Opens the journal in `folder`, and finds the newest entry that holds. The damaged ones that are newer are renamed.
    ///
    /// # Errors
    /// [`JournalError`], where the folder cannot be made or read, or another version of this program wrote the newest entry.
    pub fn open<E: DeserializeOwned, S: DeserializeOwned>(
        folder: &Path,
    ) -> Result<Found<E, S>, JournalError> {
        prepare(folder)?;
        let mut numbers = Vec::new();
        let mut highest = 0;
        for entry in fs::read_dir(folder).map_err(at(folder, "read"))? {
            let file = entry.map_err(at(folder, "read"))?.file_name();
            let file = file.to_string_lossy();
            let Some((number, ending)) = file.split_once('.') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            // The number of a damaged one is not used again either.
            highest = highest.max(number);
            if ending == ENDING {
                numbers.push(number);
            }
        }
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut damaged = Vec::new();
        let mut newest = None;
        for number in numbers {
            let path = name(folder, number);
            match load(&path, number) {
                Ok(entry) => {
                    newest = Some(entry);
                    break;
                }
                Err(Unread::OtherFormat(problem)) => {
                    return Err(JournalError::OtherFormat { path, problem });
                }
                Err(Unread::Damaged(reason)) => {
                    let aside = path.with_extension(format!("{ENDING}.damaged"));
                    fs::rename(&path, &aside).map_err(at(&path, "renamed"))?;
                    damaged.push(Damaged {
                        path: aside,
                        reason,
                    });
                }
            }
        }
        let journal = Journal {
            folder: folder.to_owned(),
            next: highest + 1,
        };
        Ok((journal, newest, damaged))
    }

    /// Writes a change down. When it returns, the change is on the disk.
    ///
    /// # Errors
    /// [`FileError`], also for an entry of more bytes than are read back; then the state before still counts.
    pub fn write<E: Serialize, S: Serialize>(
        &mut self,
        at_ms: f64,
        event: E,
        state: S,
    ) -> Result<u64, FileError> {
        let sequence = self.next;
        let path = name(&self.folder, sequence);
        let entry = Entry {
            sequence,
            at_ms,
            event,
            state,
        };
        let body = serde_json::to_vec_pretty(&entry)
            .map_err(|error| at(&path, "written")(error.into()))?;
        let mut bytes = format!("{HEAD}{}\n", Digest::of(&body)).into_bytes();
        bytes.extend(body);
        bytes.push(b'\n');
        if bytes.len() as u64 > MAX_BYTES {
            let problem = format!(
                "it has {} bytes; {MAX_BYTES} at most are read back",
                bytes.len()
            );
            return Err(at(&path, "written")(io::Error::other(problem)));
        }
        write_new(&path, &bytes)?;
        self.next += 1;
        if let Some(old) = sequence.checked_sub(KEPT) {
            // An old entry that stays is no harm.
            let _ = fs::remove_file(name(&self.folder, old));
        }
        Ok(sequence)
    }

    /// The entries that hold, newest first, at most `count`.
    pub fn history<E: DeserializeOwned, S: DeserializeOwned>(
        &self,
        count: usize,
    ) -> Vec<Entry<E, S>> {
        let mut entries = Vec::new();
        let oldest = self.next.saturating_sub(KEPT);
        for number in (oldest..self.next).rev() {
            if entries.len() == count {
                break;
            }
            if let Ok(entry) = load(&name(&self.folder, number), number) {
                entries.push(entry);
            }
        }
        entries
    }
}

fn load<E: DeserializeOwned, S: DeserializeOwned>(
    path: &Path,
    number: u64,
) -> Result<Entry<E, S>, Unread> {
    // One that the disk does not give, or that is too large, is no more use than one that is cut short.
    let bytes = read(path, MAX_BYTES)
        .map_err(|error| Unread::Damaged(error.problem.to_string()))?
        .ok_or_else(|| Unread::Damaged("it is not there".into()))?;
    let entry: Entry<E, S> = parse(&bytes)?;
    if entry.sequence == number {
        Ok(entry)
    } else {
        let problem = format!("it holds number {}, not {number}", entry.sequence);
        Err(Unread::Damaged(problem))
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unread> {
    let damaged = |what: &str| Unread::Damaged(what.to_owned());
    let rest = (bytes.strip_prefix(HEAD.as_bytes()))
        .ok_or_else(|| damaged("it does not begin as a journal does"))?;
    let cut = || damaged("it is cut short");
    let (sum, body) = rest.split_at_checked(64).ok_or_else(cut)?;
    let body = (body.strip_prefix(b"\n"))
        .and_then(|body| body.strip_suffix(b"\n"))
        .ok_or_else(cut)?;
    if Digest::of(body).to_string().as_bytes() != sum {
        return Err(damaged("its checksum is wrong"));
    }
    serde_json::from_slice(body).map_err(|error| Unread::OtherFormat(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(folder: &Path) -> (Journal, Option<Entry<String, u64>>, Vec<Damaged>) {
        Journal::open(folder).unwrap()
    }

    #[test]
    fn the_newest_entry_counts_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, newest, _) = open(folder.path());
        assert!(newest.is_none());
        for state in 1..=300_u64 {
            journal
                .write(0.0, format!("change {state}"), state)
                .unwrap();
        }
        let (journal, newest, damaged) = open(folder.path());
        assert_eq!(newest.map(|entry| entry.state), Some(300));
        assert!(damaged.is_empty());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 256);
        let history: Vec<Entry<String, u64>> = journal.history(3);
        assert_eq!(
            history.iter().map(|it| it.state).collect::<Vec<_>>(),
            [300, 299, 298]
        );
    }

    #[test]
    fn a_file_that_a_stop_left_half_written_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).0.write(0.0, "a", 1_u64).unwrap();
        fs::write(folder.path().join(".under-way-x"), b"msao-jour").unwrap();
        let (_, newest, _) = open(folder.path());
        assert_eq!(newest.unwrap().state, 1);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_entry_of_another_format_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path()).0;
        journal.write(0.0, "a", 1_u64).unwrap();
        journal.write(0.0, "b", "a state of another kind").unwrap();
        let error = Journal::open::<String, u64>(folder.path()).unwrap_err();
        assert!(matches!(error, JournalError::OtherFormat { .. }), "{error}");
        // Everything lies where it lay.
        let (_, newest, damaged) = Journal::open::<String, String>(folder.path()).unwrap();
        assert_eq!(newest.unwrap().state, "a state of another kind");
        assert!(damaged.is_empty());
    }

    #[test]
    fn an_entry_that_is_too_large_or_unreadable_leads_to_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).0.write(0.0, "before", 1_u64).unwrap();
        // Its checksum holds.
        let body = format!(
            "{{\"sequence\":2,\"at-ms\":0.0,\"event\":\"{}\",\"state\":2}}",
            "x".repeat(MAX_BYTES as usize)
        );
        let large = format!("{HEAD}{}\n{body}\n", Digest::of(body.as_bytes()));
        fs::write(name(folder.path(), 2), large).unwrap();
        // No file can be read where a folder lies.
        fs::create_dir(name(folder.path(), 3)).unwrap();
        let (mut journal, newest, damaged) = open(folder.path());
        assert_eq!(newest.unwrap().state, 1);
        let reasons: Vec<&str> = damaged.iter().map(|it| it.reason.as_str()).collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert_eq!(reasons[1], "it is larger than 4194304 bytes");
        assert!(damaged.iter().all(|it| it.path.exists()));
        assert_eq!(journal.write(0.0, "next", 4_u64).unwrap(), 4);
    }

    #[test]
    fn an_entry_that_could_not_be_read_back_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = open(folder.path()).0;
        journal.write(0.0, "before", 1_u64).unwrap();
        let large = "x".repeat(MAX_BYTES as usize);
        let error = journal.write(0.0, &large, 2_u64).unwrap_err().to_string();
        assert!(error.contains("4194304 at most are read back"), "{error}");
        assert_eq!(open(folder.path()).1.unwrap().state, 1);
        assert_eq!(journal.write(0.0, "after", 2_u64).unwrap(), 2);
        let history: Vec<Entry<String, u64>> = journal.history(9);
        assert_eq!(history.len(), 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_flipped_bit_or_cut_leads_to_the_state_before(
            bit in any::<prop::sample::Index>(),
            cut in any::<Option<prop::sample::Index>>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (mut journal, _, _) = open(folder.path());
            journal.write(0.0, "before", 1_u64).unwrap();
            journal.write(0.0, "after", 2_u64).unwrap();
            let path = name(folder.path(), 2);
            let mut bytes = fs::read(&path).unwrap();
            match cut {
                Some(cut) => bytes.truncate(cut.index(bytes.len())),
                None => {
                    let bit = bit.index(bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
            fs::write(&path, bytes).unwrap();
            let (mut journal, newest, damaged) = open(folder.path());
            prop_assert_eq!(newest.unwrap().state, 1);
            prop_assert_eq!(damaged.len(), 1);
            // Its number is not used again, so that the damaged file stays to be looked at.
            prop_assert_eq!(journal.write(0.0, "next", 3_u64).unwrap(), 3);
        }
    }
}
