//! Reading a file whole, without trusting its size.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{FileError, MediaError};
use crate::limits::Limits;

/// Reads a file of at most `limits.max_bytes`; the size is checked before anything is read, and again while
/// reading, since pipes and growing files do not know theirs.
///
/// # Errors
/// [`MediaError::Empty`], [`MediaError::TooManyBytes`] or [`MediaError::Read`], with the path.
pub fn read_file(path: &Path, limits: &Limits) -> Result<Vec<u8>, FileError> {
    read(path, limits).map_err(|error| error.at(path))
}

fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, MediaError> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_file() {
        limits.check_bytes(meta.len())?;
    }
    let mut bytes = Vec::new();
    file.take(limits.max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    limits.check_bytes(bytes.len() as u64)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_names_the_file_and_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("holiday.mp4");
        std::fs::write(&path, [7; 100]).unwrap();
        let limits = Limits {
            max_bytes: 99,
            ..Limits::default()
        };
        let message = read_file(&path, &limits).unwrap_err().to_string();
        assert!(
            message.contains("holiday.mp4") && message.contains("99") && message.contains("100"),
            "{message}"
        );
        assert_eq!(read_file(&path, &Limits::default()).unwrap().len(), 100);
    }

    #[test]
    fn empty_missing_and_folder_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nothing.png");
        assert!(matches!(
            read_file(&path, &Limits::default()).unwrap_err().source,
            MediaError::Read(_)
        ));
        std::fs::write(&path, []).unwrap();
        assert!(matches!(
            read_file(&path, &Limits::default()).unwrap_err().source,
            MediaError::Empty
        ));
        assert!(matches!(
            read_file(dir.path(), &Limits::default())
                .unwrap_err()
                .source,
            MediaError::Read(_)
        ));
    }
}
