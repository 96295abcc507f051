//! Reading a folder: what has an end mark, and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::Row;
use super::folder::{Finished, FolderError, ROWS, TURNS};
use crate::csv;
use crate::manifest::Manifest;

/// Bytes of a file that is read whole: some ten million rows.
const MAX_BYTES: u64 = 8 << 30;

/// Everything that counts in a folder.
#[derive(Clone, Debug)]
pub struct Results {
    /// What was run, on what.
    pub manifest: Manifest,
    /// End marks by turn.
    pub finished: BTreeMap<String, Finished>,
    /// Rows of finished turns, in the order in which they came.
    pub rows: Vec<Row>,
}

impl Results {
    /// Reads a folder, whether its run has ended or not.
    ///
    /// # Errors
    /// [`FolderError`]: there is nothing, or it is not as it was left.
    pub fn read(path: &Path) -> Result<Results, FolderError> {
        let rows_path = path.join(ROWS);
        if !rows_path.exists() || !path.join(TURNS).exists() {
            return Err(FolderError::None(path.to_owned()));
        }
        let Some(manifest) = Manifest::read(path)? else {
            return Err(FolderError::None(path.to_owned()));
        };
        let (marks, _) = marks(&path.join(TURNS))?;
        let rows_end = marks.last().map_or(0, |it| it.rows_end);
        check_size(&rows_path, rows_end)?;
        let text = read_text(&rows_path, rows_end)?;
        let broken = |line, problem: String| FolderError::Broken {
            path: rows_path.clone(),
            line,
            problem,
        };
        let mut rows = Vec::new();
        let mut counts: HashMap<String, u64> = HashMap::new();
        for record in csv::Records::new(&text) {
            let (line, fields) =
                record.map_err(|(line, problem)| broken(line, problem.to_owned()))?;
            if line == 1 {
                let mut header = String::new();
                csv::write(&mut header, fields.iter().map(String::as_str));
                if header != Row::header() {
                    return Err(broken(
                        line,
                        "is not the header that this version writes".to_owned(),
                    ));
                }
                continue;
            }
            let row = Row::of(&fields).map_err(|problem| broken(line, problem))?;
            *counts.entry(row.key.turn.clone()).or_default() += 1;
            rows.push(row);
        }
        for (number, mark) in marks.iter().enumerate() {
            let has = counts.remove(&mark.turn).unwrap_or(0);
            if has != mark.rows {
                return Err(FolderError::Broken {
                    path: path.join(TURNS),
                    line: number + 2,
                    problem: format!(
                        "tells of {} rows of turn {}, of which {ROWS} has {has}",
                        mark.rows, mark.turn
                    ),
                });
            }
        }
        if let Some(turn) = counts.keys().next() {
            return Err(broken(
                1,
                format!("is followed by rows of turn {turn}, which has no end mark"),
            ));
        }
        let finished = marks.into_iter().map(|it| (it.turn.clone(), it)).collect();
        Ok(Results {
            manifest,
            finished,
            rows,
        })
    }
}

/// That a file has at least so many bytes.
pub(super) fn check_size(path: &Path, wanted: u64) -> Result<(), FolderError> {
    let has = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => {
            return Err(FolderError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    if has < wanted {
        return Err(FolderError::Cut {
            path: path.to_owned(),
            has,
            wanted,
        });
    }
    Ok(())
}

/// The first so many bytes of a file.
fn read_text(path: &Path, bytes: u64) -> Result<String, FolderError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?
            .take(bytes.min(MAX_BYTES))
            .read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| FolderError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The end marks of a file, in their order, and where the last whole line ends. A torn last line is none.
pub(super) fn marks(path: &Path) -> Result<(Vec<Finished>, u64), FolderError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(source) => {
            return Err(FolderError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    let (mut marks, mut end) = (Vec::<Finished>::new(), 0);
    let mut lines = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
        .peekable();
    while let Some((number, line)) = lines.next() {
        let last = lines.peek().is_none();
        match mark(number, line) {
            // Rows end further on with each turn.
            Ok(Some(mark)) if marks.last().is_none_or(|it| it.rows_end <= mark.rows_end) => {
                marks.push(mark)
            }
            Ok(None) => {}
            // A mark of which the disk holds a part, or zeros.
            Err(_) if last => break,
            told => {
                let problem = told
                    .err()
                    .unwrap_or("has a mark before the one before it".to_owned());
                return Err(FolderError::Broken {
                    path: path.to_owned(),
                    line: number + 1,
                    problem,
                });
            }
        }
        end += line.len() as u64;
    }
    Ok((marks, end))
}

/// None of the header.
fn mark(number: usize, line: &[u8]) -> Result<Option<Finished>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "is no UTF-8".to_owned())?;
    if !text.ends_with('\n') {
        return Err("has no end".to_owned());
    }
    if number == 0 {
        return if Finished::is_header(text) {
            Ok(None)
        } else {
            Err("is not the header that this version writes".to_owned())
        };
    }
    Finished::of(text).map(Some)
}
