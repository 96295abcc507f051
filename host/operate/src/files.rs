//! Files that are there whole or not at all, and files that are read only so far.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// Naming the file, when it cannot be read or is larger.
pub fn read(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut bytes = Vec::new();
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > most {
        bail!(
            "{} is larger than {most} bytes, which is more than any honest one",
            path.display()
        );
    }
    Ok(bytes)
}

/// Reads a text of at most `most` bytes.
///
/// # Errors
/// Naming the file, when it cannot be read, is larger, or no UTF-8.
pub fn read_text(path: &Path, most: u64) -> anyhow::Result<String> {
    let text = String::from_utf8(read(path, most)?);
    text.with_context(|| format!("{} is no UTF-8 text", path.display()))
}

/// Writes what `fill` writes to `path`, over what is there: to a file beside it first, which is then renamed.
///
/// # Errors
/// What `fill` says, and when the file cannot be written; `path` is then as it was.
pub fn write_with<T>(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let folder = path
        .parent()
        .filter(|it| !it.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let at = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new()
        .prefix(".msao-")
        .tempfile_in(folder)
        .with_context(at)?;
    let filled = fill(file.as_file_mut())?;
    file.as_file().sync_all().with_context(at)?;
    readable(file.as_file()).with_context(at)?;
    file.persist(path)
        .map_err(|error| error.error)
        .with_context(at)?;
    Ok(filled)
}

/// Temporary files are private; what is made here is for everyone whom the folder is for.
#[cfg(unix)]
fn readable(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_file: &File) -> std::io::Result<()> {
    Ok(())
}

/// Whether everyone on this machine may read a file.
#[cfg(unix)]
pub fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o004 != 0)
}

/// Whether everyone on this machine may read a file.
#[cfg(not(unix))]
pub fn is_open_to_all(_path: &Path) -> bool {
    false
}
