//! Files that are there whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// How files under way begin. What a stop leaves of them is swept away at the next start.
const UNDER_WAY: &str = ".under-way-";

/// A file that could not be read or written.
#[derive(Debug, Error)]
#[error("{} cannot be {doing}: {problem}", .path.display())]
pub struct FileError {
    /// The file or folder.
    pub path: PathBuf,
    /// What was being done.
    pub doing: &'static str,
    /// What the operating system said.
    pub problem: io::Error,
}

pub(crate) fn at<'a>(
    path: &'a Path,
    doing: &'static str,
) -> impl FnOnce(io::Error) -> FileError + 'a {
    move |problem| FileError {
        path: path.to_owned(),
        doing,
        problem,
    }
}

/// Makes a folder and takes away what an earlier stop left half-written in it.
pub(crate) fn prepare(folder: &Path) -> Result<(), FileError> {
    fs::create_dir_all(folder).map_err(at(folder, "made"))?;
    for entry in fs::read_dir(folder).map_err(at(folder, "read"))? {
        let entry = entry.map_err(at(folder, "read"))?;
        if entry.file_name().to_string_lossy().starts_with(UNDER_WAY) {
            let path = entry.path();
            fs::remove_file(&path).map_err(at(&path, "removed"))?;
        }
    }
    Ok(())
}

/// Writes `bytes` so that after any stop the file has all of them or is as it was: a temporary file, its fsync, a rename,
/// the folder's fsync.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(UNDER_WAY)
        .tempfile_in(folder)
        .map_err(at(folder, "written to"))?;
    file.write_all(bytes).map_err(at(path, "written"))?;
    file.as_file().sync_all().map_err(at(path, "synced"))?;
    file.persist(path)
        .map_err(|error| at(path, "renamed to")(error.error))?;
    sync_folder(folder)
}

pub(crate) fn sync_folder(folder: &Path) -> Result<(), FileError> {
    let open = File::open(folder).map_err(at(folder, "opened"))?;
    open.sync_all().map_err(at(folder, "synced"))
}

/// The bytes of a file of at most `most` bytes; None where there is none.
pub(crate) fn read(path: &Path, most: u64) -> Result<Option<Vec<u8>>, FileError> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path, "opened")(error)),
    };
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(at(path, "read"))?;
    if bytes.len() as u64 > most {
        let problem = io::Error::other(format!("it is larger than {most} bytes"));
        return Err(at(path, "read")(problem));
    }
    Ok(Some(bytes))
}
