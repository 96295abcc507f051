//! Files that are there whole or not at all, whenever the program is interrupted.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};

/// Bytes of any text that is read: manifests, cases, keys, inputs. A node keeps no failure that is longer.
pub const MAX_TEXT: u64 = msao_registry::Cases::MAX_BYTES;

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Writes `bytes` to `path`, over what is there: to a file beside it first, which is then renamed.
///
/// # Errors
/// When it cannot be written; `path` is then as it was.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    write_with(path, |out| Ok(out.write_all(bytes)?)).map(drop)
}

/// Like [`write`], for what `fill` writes. Returns the bytes that there are.
///
/// # Errors
/// What `fill` says, and when the file cannot be written; `path` is then as it was.
pub fn write_with(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let folder = folder_of(path);
    let write = || -> anyhow::Result<u64> {
        fs::create_dir_all(folder)?;
        let mut file = tempfile::Builder::new()
            .prefix(".msao-")
            .tempfile_in(folder)?;
        let mut out = BufWriter::new(file.as_file_mut());
        fill(&mut out)?;
        out.flush()?;
        drop(out);
        file.as_file().sync_all()?;
        // Temporary files are private; what is made here is for everyone whom the folder is for.
        readable(file.as_file())?;
        let bytes = file.as_file().metadata()?.len();
        file.persist(path).map_err(|error| error.error)?;
        Ok(bytes)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(unix)]
fn readable(file: &fs::File) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable(_file: &fs::File) -> std::io::Result<()> {
    Ok(())
}

/// Reads a text of at most [`MAX_TEXT`] bytes.
///
/// # Errors
/// Naming the file, when it cannot be read, is too large or no UTF-8.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    let size = fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len();
    if size > MAX_TEXT {
        bail!(
            "{} has {size} bytes; at most {MAX_TEXT} are read",
            path.display()
        );
    }
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/file");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read_text(&path).unwrap(), "two");
        let beside: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(beside.len(), 1);
        let error = write(&path.join("below"), b"three").unwrap_err();
        assert!(format!("{error:#}").contains("cannot write"));
    }
}
