//! Files of a set, packed by zstd or not, read as a stream and within limits.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::DataError;

/// Bytes of one JSON file at most, unpacked. The largest published one, VQAv2's training annotations, has some 400 MB.
pub const MAX_JSON: u64 = 2 << 30;
/// Bytes of one table at most, unpacked.
pub const MAX_TABLE: u64 = 4 << 30;
/// Bytes of one field of a table at most.
pub const MAX_FIELD: usize = 64 << 20;
/// Bytes of all the pictures of a table at most, decoded; they are held in memory.
pub const MAX_PICTURES: usize = 2 << 30;
/// Bytes of one medium in a file of its own at most.
pub const MAX_MEDIUM: u64 = 256 << 20;
/// Questions of a set at most.
pub const MAX_ITEMS: usize = 2_000_000;

const PACKED: &str = ".zst";

/// A reader that fails, rather than ends, where a file goes on past its limit.
struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("larger than the {} MiB that are read", self.limit >> 20),
            )
        })?;
        Ok(count)
    }
}

/// What `path` holds, unpacked where its name ends in `.zst`, and no more than `limit` bytes of it.
pub(crate) fn open(path: &Path, limit: u64) -> Result<Box<dyn BufRead>, DataError> {
    let file = File::open(path).map_err(|error| DataError::read(path, error))?;
    let inner: Box<dyn Read> = if path.to_string_lossy().ends_with(PACKED) {
        let unpacked = zstd::Decoder::new(file).map_err(|error| DataError::read(path, error))?;
        Box::new(unpacked)
    } else {
        Box::new(file)
    };
    let bounded = Bounded {
        inner,
        left: limit,
        limit,
    };
    Ok(Box::new(BufReader::with_capacity(1 << 18, bounded)))
}

/// A file whose name begins and ends in a given way.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// What is between beginning and end.
    pub(crate) middle: String,
}

/// All files of a folder whose name is `begin`, something, `end`, packed or not; of a file that is there both ways only the one
/// that is not packed. In order of their names.
pub(crate) fn find(folder: &Path, begin: &str, end: &str) -> Result<Vec<Found>, DataError> {
    let failed = |error| DataError::read(folder, error);
    let mut found: Vec<(bool, Found)> = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let bare = name.strip_suffix(PACKED);
        let inner = bare.unwrap_or(name).strip_prefix(begin);
        if let Some(middle) = inner.and_then(|inner| inner.strip_suffix(end)) {
            let middle = middle.to_owned();
            found.push((bare.is_some(), Found { path, middle }));
        }
    }
    found.sort_by(|(packed, a), (more_packed, b)| {
        (&a.middle, packed).cmp(&(&b.middle, more_packed))
    });
    found.dedup_by(|(_, later), (_, earlier)| later.middle == earlier.middle);
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

/// The file `name` of a folder, or else its packed form.
pub(crate) fn stored(folder: &Path, name: &str) -> Option<PathBuf> {
    let packed = format!("{name}{PACKED}");
    [name, &packed]
        .into_iter()
        .map(|name| folder.join(name))
        .find(|path| path.is_file())
}
