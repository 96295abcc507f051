//! Files of a folder, never written over unasked.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Existing, PkiError};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Everyone.
    Open,
    /// Its owner: mode 0600.
    Secret,
}

impl Secrecy {
    fn mode(self) -> u32 {
        match self {
            Secrecy::Open => 0o644,
            Secrecy::Secret => 0o600,
        }
    }
}

/// Writes files into a folder, which is made where it is missing.
pub(super) fn write_all(
    folder: &Path,
    files: &[(&str, String, Secrecy)],
    existing: Existing,
) -> Result<(), PkiError> {
    fs::create_dir_all(folder).map_err(|source| PkiError::File {
        file: folder.to_owned(),
        source,
    })?;
    // All are looked at before one is written, so that no folder is left with halves of two.
    if existing == Existing::Keep {
        let there = files.iter().map(|(name, ..)| folder.join(name));
        if let Some(file) = there
            .into_iter()
            .find(|file| file.symlink_metadata().is_ok())
        {
            return Err(PkiError::Exists(file));
        }
    }
    files
        .iter()
        .try_for_each(|(name, text, secrecy)| write(folder.join(name), text, *secrecy, existing))
}

fn write(file: PathBuf, text: &str, secrecy: Secrecy, existing: Existing) -> Result<(), PkiError> {
    let written = match existing {
        // Made anew, or not at all.
        Existing::Keep => make(&file, text, secrecy),
        // Through a file beside it, so that nobody ever reads half of one.
        Existing::Replace => {
            let beside = file.with_extension(format!("new-{}", std::process::id()));
            let written = make(&beside, text, secrecy).and_then(|()| fs::rename(&beside, &file));
            if written.is_err() {
                // The error that is told is the one that counts.
                let _ = fs::remove_file(&beside);
            }
            written
        }
    };
    written.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => PkiError::Exists(file),
        _ => PkiError::File { file, source },
    })
}

fn make(file: &Path, text: &str, secrecy: Secrecy) -> io::Result<()> {
    let mut out = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(secrecy.mode())
        .open(file)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()
}
