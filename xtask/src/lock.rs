//! One set-up at a time: a lock in the cache folder, and folders that become visible only when they are complete.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::is_missing;

/// Names of unfinished folders begin so.
const UNFINISHED: &str = "unfinished-";

/// The right to change the cache folder. The system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub struct CacheLock {
    cache: PathBuf,
    _file: File,
}

impl CacheLock {
    /// Waits for another set-up to end, then removes what an interrupted one left behind.
    pub fn take(cache: &Path) -> Result<Self> {
        let name = cache.join("lock");
        let file = fs::create_dir_all(cache)
            .and_then(|()| File::create(&name))
            .with_context(|| format!("cannot write to the cache folder {}", cache.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                println!("  another `cargo xtask` is setting up: waiting for it to end");
                file.lock()
                    .with_context(|| format!("cannot lock {}", name.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", name.display()));
            }
        }
        let lock = Self {
            cache: cache.to_path_buf(),
            _file: file,
        };
        lock.sweep()?;
        Ok(lock)
    }

    /// Where fetched wheels wait to be unpacked. They outlive an interrupted set-up.
    pub fn wheels(&self) -> PathBuf {
        self.cache.join("wheels")
    }

    /// Makes the folder `name`: `fill` writes into an unfinished one beside it, which is renamed when it is whole.
    /// The wheels that it was made of are then deleted.
    pub fn make_folder(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let unfinished = self.cache.join(format!("{UNFINISHED}{name}"));
        let finished = self.cache.join(name);
        fs::create_dir_all(&unfinished)
            .with_context(|| format!("cannot make {}", unfinished.display()))?;
        fill(&unfinished)?;
        remove_all(&finished)?;
        fs::rename(&unfinished, &finished)
            .with_context(|| format!("cannot make {}", finished.display()))?;
        remove_all(&self.wheels())?;
        Ok(finished)
    }

    /// Whoever holds the lock is alone, so anything unfinished is left over.
    fn sweep(&self) -> Result<()> {
        let entries = fs::read_dir(&self.cache)
            .with_context(|| format!("cannot read {}", self.cache.display()))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                println!(
                    "  removing what an interrupted set-up left: {}",
                    entry.path().display()
                );
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }
}

/// A folder of the cache, made by `fetch` if it is not there yet. `what` is told then: what it is for, and its size.
pub fn made_once(
    cache: &Path,
    name: &str,
    what: &str,
    fetch: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let folder = cache.join(name);
    if !folder.exists() {
        let lock = CacheLock::take(cache)?;
        // Looked at under the lock: another set-up may just have fetched it.
        if !folder.exists() {
            println!("  {name}: {what}, once for all clones");
            lock.make_folder(name, fetch)?;
        }
    }
    Ok(folder)
}

/// Removes a folder and all in it; nothing there is fine.
pub fn remove_all(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if !is_missing(&error) => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_only_when_it_is_whole() {
        let cache = tempfile::tempdir().unwrap();
        let lock = CacheLock::take(cache.path()).unwrap();
        let failed = lock.make_folder("thing", |folder| {
            fs::write(folder.join("half"), "").unwrap();
            anyhow::bail!("interrupted")
        });
        assert!(failed.is_err());
        assert!(!cache.path().join("thing").exists());
        drop(lock);

        let lock = CacheLock::take(cache.path()).unwrap();
        let made = lock
            .make_folder("thing", |folder| {
                assert_eq!(
                    fs::read_dir(folder).unwrap().count(),
                    0,
                    "the left-over is gone"
                );
                Ok(fs::write(folder.join("whole"), "")?)
            })
            .unwrap();
        assert!(made.join("whole").is_file());
    }

    #[test]
    fn a_second_set_up_waits_for_the_first() {
        let cache = tempfile::tempdir().unwrap();
        let first = CacheLock::take(cache.path()).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let path = cache.path().to_path_buf();
        let second = std::thread::spawn(move || {
            let lock = CacheLock::take(&path);
            sender.send(()).unwrap();
            lock.is_ok()
        });
        let wait = std::time::Duration::from_millis(100);
        assert!(receiver.recv_timeout(wait).is_err(), "held by the first");
        drop(first);
        assert!(second.join().unwrap());
    }
}
