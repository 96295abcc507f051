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

/// Makes a folder, where there is none, so that it is there after any stop.
pub(crate) fn make(folder: &Path) -> Result<(), FileError> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    make(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(at(folder, "made")(error));
        }
        _ => {}
    }
    sync_folder(parent)
}

/// Makes a folder and takes away what an earlier stop left half-written in it.
pub(crate) fn prepare(folder: &Path) -> Result<(), FileError> {
    make(folder)?;
    for entry in fs::read_dir(folder).map_err(at(folder, "read"))? {
        let entry = entry.map_err(at(folder, "read"))?;
        if entry.file_name().to_string_lossy().starts_with(UNDER_WAY) {
            let path = entry.path();
            fs::remove_file(&path).map_err(at(&path, "removed"))?;
        }
    }
    Ok(())
}

/// [`write_whole`] for a file that is not there yet: where it fails, the file is not there afterwards either.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    gone_if_failed(path, write_whole(path, bytes))
}

fn gone_if_failed(path: &Path, written: Result<(), FileError>) -> Result<(), FileError> {
    written.inspect_err(|_| {
        // After the rename only the folder's sync can fail: a restart would find what the caller was told is not so.
        let _ = fs::remove_file(path);
        let _ = path.parent().map(sync_folder);
    })
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

/// Takes a file away, so that it is gone after any stop. Returns how many bytes it had; where there is none, 0.
pub(crate) fn remove(path: &Path) -> Result<u64, FileError> {
    let bytes = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(at(path, "removed")(error)),
    };
    fs::remove_file(path).map_err(at(path, "removed"))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(bytes)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_whose_folder_could_not_be_synced_is_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        prepare(path.parent().unwrap()).unwrap();
        write_new(&path, b"whole").unwrap();
        assert_eq!(read(&path, 5).unwrap().as_deref(), Some(&b"whole"[..]));
        assert_eq!((remove(&path).unwrap(), remove(&path).unwrap()), (5, 0));
        write_new(&path, b"whole").unwrap();
        let failed = Err(at(&path, "synced")(io::Error::other("no")));
        assert!(gone_if_failed(&path, failed).is_err());
        assert_eq!(read(&path, 5).unwrap(), None);
    }
}
