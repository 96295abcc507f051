//! The folder that results are kept in: `rows.csv`, `turns.csv`, `manifest.json`.
//!
//! Rows are appended as they come. When a turn is through, its rows are brought to the disk, and then its *end mark* goes to
//! `turns.csv`: how many rows it has and where they end. Only rows of turns with a mark count. So whatever happens, a kill, a
//! full disk, a lost power supply, the next run finds the last mark, cuts off what is behind it, and repeats that turn.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::field::{self, Field};
use super::results::{Results, check_size, marks};
use super::{Row, columns};
use crate::csv;
use crate::manifest::ManifestError;

pub(super) const ROWS: &str = "rows.csv";
pub(super) const TURNS: &str = "turns.csv";
const LOCK: &str = "lock";

/// What is wrong with a folder.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(
        "{path} cannot be written: {source}; what was there is as it was. Make room, or whatever it lacks, and start again with the same folder: finished turns stay",
        path = .path.display()
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another run is writing it.
    #[error("{path} is being written by another run; wait for its end, or name another folder", path = .0.display())]
    Busy(PathBuf),
    /// There are no results.
    #[error("{path} has no results ({ROWS}, {TURNS}, manifest.json); name the folder of a run", path = .0.display())]
    None(PathBuf),
    /// A file is not as this program leaves it.
    #[error("{path}: line {line} {problem}; the file was changed: restore it, or begin anew in another folder", path = .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Rows that were there are gone.
    #[error(
        "{path}: has {has} bytes, but {TURNS} tells of {wanted}; the file was cut: restore it, or begin anew in another folder",
        path = .path.display()
    )]
    Cut {
        /// The file.
        path: PathBuf,
        /// That it has.
        has: u64,
        /// That it had.
        wanted: u64,
    },
    /// The manifest's.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

columns! {
    /// The end mark of a turn.
    Finished {
        /// [`crate::plan::Turn::id`].
        turn: String,
        /// The run that asked it.
        run: String,
        /// Its rows.
        rows: u64,
        /// Bytes of `rows.csv` up to the end of its rows.
        rows_end: u64,
        /// When it began, in ms since 1970.
        began_unix_ms: u64,
        /// How long it took, in ms, warm-up and preparation included.
        wall_ms: u64,
        /// Joules of the whole machine from the end of its warm-up on. None: the machine does not tell.
        energy_j: Option<f64>,
    }
}

impl Finished {
    pub(super) fn header() -> String {
        let mut text = String::new();
        csv::write(&mut text, Finished::COLUMNS.iter().copied());
        text
    }

    /// Whether a file that begins like this is one of end marks. There were none of energy once.
    pub(super) fn is_header(line: &str) -> bool {
        let header = Finished::header();
        line == header || line == header.replace(",energy_j", "")
    }

    /// Of a line.
    pub(super) fn of(line: &str) -> Result<Finished, String> {
        let mut fields: Vec<&str> = line.trim_end().split(',').collect();
        if fields.len() + 1 == Finished::COLUMNS.len() {
            fields.push("");
        }
        let mut fields = fields.into_iter();
        let mark = Finished::take(&mut fields)?;
        if fields.next().is_some() {
            return Err("has too many fields".to_owned());
        }
        Ok(mark)
    }

    fn line(&self) -> String {
        let mut fields = Vec::new();
        let _odd = self.put(&mut fields);
        let mut text = String::new();
        csv::write(&mut text, fields.iter().map(String::as_str));
        text
    }
}

/// A file that grows by whole pieces.
#[derive(Debug)]
struct Appender {
    path: PathBuf,
    file: File,
    end: u64,
}

impl Appender {
    /// What is behind `end` is cut off.
    fn open(path: PathBuf, end: u64) -> Result<Appender, FolderError> {
        let open = || {
            let mut options = OpenOptions::new();
            let mut file = options
                .create(true)
                .write(true)
                .truncate(false)
                .open(&path)?;
            file.set_len(end)?;
            file.seek(SeekFrom::Start(end))?;
            Ok(file)
        };
        match open() {
            Ok(file) => Ok(Appender { path, file, end }),
            Err(source) => Err(FolderError::Write { path, source }),
        }
    }

    /// All of it, or nothing.
    fn append(&mut self, text: &str) -> Result<(), FolderError> {
        if let Err(source) = self.file.write_all(text.as_bytes()) {
            // If this fails too, the next run cuts it.
            let _left = self.file.set_len(self.end);
            let _left = self.file.seek(SeekFrom::Start(self.end));
            return Err(self.failed(source));
        }
        self.end += text.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), FolderError> {
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> FolderError {
        FolderError::Write {
            path: self.path.clone(),
            source,
        }
    }
}

/// A folder that a run writes.
#[derive(Debug)]
pub struct Folder {
    rows: Appender,
    turns: Appender,
    finished: HashMap<String, Finished>,
    written: u64,
    #[cfg(test)]
    pub(crate) room: Option<u64>,
    /// Held as long as the folder is open.
    _lock: File,
}

impl Folder {
    /// Opens a folder, or makes one. What a half-done turn left is cut off.
    ///
    /// # Errors
    /// [`FolderError`]: it cannot be written, another run has it, or its files are not as they were left.
    pub fn open(path: &Path) -> Result<Folder, FolderError> {
        let write = |path: PathBuf| move |source| FolderError::Write { path, source };
        fs::create_dir_all(path).map_err(write(path.to_owned()))?;
        let lock_path = path.join(LOCK);
        let lock = File::create(&lock_path).map_err(write(lock_path.clone()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::Busy(path.to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(FolderError::Write {
                    path: lock_path,
                    source,
                });
            }
        }
        let (marks, marks_end) = marks(&path.join(TURNS))?;
        let rows_end = marks.last().map_or(0, |it| it.rows_end);
        check_size(&path.join(ROWS), rows_end)?;
        let mut folder = Folder {
            rows: Appender::open(path.join(ROWS), rows_end)?,
            turns: Appender::open(path.join(TURNS), marks_end)?,
            finished: marks.into_iter().map(|it| (it.turn.clone(), it)).collect(),
            written: 0,
            #[cfg(test)]
            room: None,
            _lock: lock,
        };
        if folder.rows.end == 0 {
            folder.rows.append(&Row::header())?;
            folder.rows.sync()?;
        }
        if folder.turns.end == 0 {
            folder.turns.append(&Finished::header())?;
            folder.turns.sync()?;
        }
        Ok(folder)
    }

    /// Whether a turn has its end mark.
    pub fn is_finished(&self, turn: &str) -> bool {
        self.finished.contains_key(turn)
    }

    /// Turns with an end mark.
    pub fn finished(&self) -> usize {
        self.finished.len()
    }

    /// What counts of it so far.
    ///
    /// # Errors
    /// [`FolderError`]: it is not as it was left.
    pub fn results(&self) -> Result<Results, FolderError> {
        Results::read(self.rows.path.parent().unwrap_or(Path::new("")))
    }

    /// Adds a row of the turn that is under way.
    ///
    /// # Errors
    /// [`FolderError::Write`]; nothing of the row is there then.
    pub fn add(&mut self, row: &Row) -> Result<(), FolderError> {
        let line = row.line();
        #[cfg(test)]
        if let Some(room) = &mut self.room {
            match room.checked_sub(line.len() as u64) {
                Some(left) => *room = left,
                None => {
                    // As much as fits, as a full disk has it.
                    let part = line.get(..*room as usize).unwrap_or("");
                    let _torn = self.rows.file.write_all(part.as_bytes());
                    return Err(self.rows.failed(io::ErrorKind::StorageFull.into()));
                }
            }
        }
        self.rows.append(&line)?;
        self.written += 1;
        Ok(())
    }

    /// Ends the turn that is under way: its rows count from now on.
    ///
    /// # Errors
    /// [`FolderError::Write`]; the turn then does not count.
    pub fn finish(
        &mut self,
        turn: &str,
        run: &str,
        began_unix_ms: u64,
        wall_ms: u64,
        energy_j: Option<f64>,
    ) -> Result<(), FolderError> {
        self.rows.sync()?;
        let finished = Finished {
            turn: turn.to_owned(),
            run: run.to_owned(),
            rows: self.written,
            rows_end: self.rows.end,
            began_unix_ms,
            wall_ms,
            energy_j,
        };
        self.turns.append(&finished.line())?;
        self.turns.sync()?;
        self.written = 0;
        self.finished.insert(turn.to_owned(), finished);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Measured};
    use super::*;
    use crate::plan::Purpose;

    #[test]
    fn a_full_disk_is_told_and_takes_nothing() {
        // Everything that is written to it fails as on a full disk.
        let Ok(file) = OpenOptions::new().write(true).open("/dev/full") else {
            return;
        };
        let mut full = Appender {
            path: "rows.csv".into(),
            file,
            end: 0,
        };
        let told = full.append("a row\n").unwrap_err().to_string();
        assert!(
            told.contains("rows.csv cannot be written") && told.contains("start again"),
            "{told}"
        );
        assert_eq!(full.end, 0);
    }

    #[test]
    fn a_turn_whose_mark_finds_no_room_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let row = Row {
            key: Key {
                run: "r1".to_owned(),
                turn: "t".to_owned(),
                repeat: 0,
                purpose: Purpose::Timed,
                data: "d".to_owned(),
                link: "l".to_owned(),
                arrival: "a".to_owned(),
                policy: "p".to_owned(),
                index: 0,
                seed: 0,
            },
            measured: Measured::default(),
        };
        let mut store = Folder::open(folder.path()).unwrap();
        store.add(&row).unwrap();
        let marks = File::options().write(true).open("/dev/full").unwrap();
        let marks = std::mem::replace(&mut store.turns.file, marks);
        let told = store.finish("t", "r1", 1, 1, None).unwrap_err().to_string();
        assert!(
            told.contains("turns.csv cannot be written") && told.contains("finished turns stay"),
            "{told}"
        );
        assert!(!store.is_finished("t"));
        drop((store, marks));
        // The next run asks it anew.
        let mut store = Folder::open(folder.path()).unwrap();
        assert_eq!(store.finished(), 0);
        let rows = fs::read_to_string(folder.path().join(ROWS)).unwrap();
        assert_eq!(rows, Row::header());
        store.add(&row).unwrap();
        store.finish("t", "r2", 2, 1, None).unwrap();
        drop(store);
        assert!(Folder::open(folder.path()).unwrap().is_finished("t"));
    }

    #[test]
    fn torn_marks_are_cut_and_changed_ones_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(TURNS);
        let header = Finished::header();
        let mark = |turn: &str, end: u64| {
            let finished = Finished {
                turn: turn.to_owned(),
                run: "r".to_owned(),
                rows: 1,
                rows_end: end,
                began_unix_ms: 5,
                wall_ms: 6,
                energy_j: (end > 10).then_some(7.5),
            };
            finished.line()
        };
        let two = format!("{header}{}{}", mark("a", 10), mark("b", 20));
        for (text, count, end) in [
            (String::new(), 0, 0),
            ("turn,ru".to_owned(), 0, 0),
            (two.clone(), 2, two.len()),
            (format!("{two}c,r,1"), 2, two.len()),
            (format!("{two}\0\0\0\n"), 2, two.len()),
        ] {
            fs::write(&path, &text).unwrap();
            let (marks, found) = marks(&path).unwrap();
            assert_eq!((marks.len(), found), (count, end as u64), "{text:?}");
        }
        // Of before there was energy.
        let old = "turn,run,rows,rows_end,began_unix_ms,wall_ms\na,r,1,10,5,6\n";
        fs::write(&path, format!("{old}{}", mark("b", 20))).unwrap();
        let (marks_of_old, _) = marks(&path).unwrap();
        let told: Vec<_> = marks_of_old.iter().map(|it| it.energy_j).collect();
        assert_eq!(told, [None, Some(7.5)]);
        fs::write(&path, format!("{header}c,r,1\n{}", mark("a", 10))).unwrap();
        let told = marks(&path).unwrap_err().to_string();
        assert!(told.contains("line 2 has no rows_end"), "{told}");
        fs::write(
            &path,
            format!(
                "{header}{}{}{}",
                mark("b", 20),
                mark("a", 10),
                mark("c", 30)
            ),
        )
        .unwrap();
        assert!(marks(&path).unwrap_err().to_string().contains("line 3"));
    }
}
