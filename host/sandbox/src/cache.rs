//! Compiled code on disk, so that a start neither inspects nor compiles.
//!
//! Compiled code runs without a sandbox. So only what this host itself has written is read back: every file carries a code
//! of authentication (keyed BLAKE3, over all of it and its name) under a key that lies in the same folder, readable by this
//! user alone. A file whose code is wrong is passed over and written anew. Whoever can read the key could as well replace
//! the program.
//!
//! The file is mapped, checked whole, and run as it is mapped: copying tens of megabytes would cost more than all the rest.
//! So nobody may write to it, not even its owner's programs by mistake (mode 0400; one that is not is passed over), and
//! this host replaces it only by renaming another over it, which leaves what is mapped as it was.
//!
//! A file is the code, what is known of the component ([`Known`]), the length of that, and the code of authentication. It is
//! there only if the component was parsed whole, compiled, and had a first instance whose exports have the contract's types,
//! all by this version of this host: then none of it has to be done again for the same world. Whether it serves the
//! manifest's world is asked each time.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use memmap2::{Mmap, MmapOptions};
use msao_core::digest::Digest;
use msao_core::offload::manifest::World;
use serde::{Deserialize, Serialize};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::call::text;
use crate::error::{LoadError, SandboxError};
use crate::inspect::{CONTRACT, Inspection};

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;
const CODE_BYTES: usize = 32;
const LENGTH_BYTES: usize = 4;
/// Compiled components that are kept, however small; those not used for longest go first.
const MAX_KEPT: usize = 128;
/// Bytes from which on all cores work at the code of authentication. Waking them takes longer than a small file by one.
const SHARED_FROM: usize = 1 << 20;
/// Who may do what to a file of compiled code: its owner may read it.
const MODE: u32 = 0o400;
/// How often a file says that it is in use; pruning need not know it any sooner.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// The form of the files, and what [`crate::inspect()`] looks at. Raise it when either changes.
const REVISION: u32 = 3;
/// Where what the exports' types are compared with is written, and which exports are.
const TYPES: [&str; 3] = [
    include_str!("wire.rs"),
    include_str!("policy.rs"),
    include_str!("postprocessor.rs"),
];
/// Files that were being written when the process was stopped: one that is older than this is nobody's any more.
const LEFT_OVER: Duration = Duration::from_secs(60);

/// A folder of compiled components.
pub struct Cache {
    folder: PathBuf,
    /// Bytes of all compiled components together; the newest is kept whatever its size.
    most: u64,
    key: [u8; KEY_BYTES],
    /// Names the compiler's version and settings, this processor, and this host's version: another one must not run this
    /// one's code, nor believe what it found.
    engine: u64,
}

/// A component that can be linked, and what inspecting it found.
pub struct Compiled {
    pub component: Component,
    pub inspection: Inspection,
    /// The world whose exports' types have been compared.
    pub compared: Option<World>,
    /// The code, where it is to be kept once the component is known to serve.
    pub fresh: Option<Vec<u8>>,
}

/// What is kept beside the code.
#[derive(Serialize, Deserialize)]
struct Known<I> {
    inspection: I,
    compared: World,
}

impl Cache {
    /// Opens the folder, or makes it with a key of its own. It is to hold `most` bytes at most.
    ///
    /// # Errors
    /// [`SandboxError::Cache`]: it cannot be written, or others may read its key.
    pub fn open(folder: &Path, most: u64, engine: &Engine) -> Result<Cache, SandboxError> {
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let path = folder.join(KEY_FILE);
        let key = match read_key(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(folder, &path),
            read => read,
        };
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        (REVISION, env!("CARGO_PKG_VERSION"), CONTRACT, TYPES).hash(&mut hasher);
        let cache = Cache {
            folder: folder.to_path_buf(),
            most,
            key: key.map_err(|error| failed(&path, error))?,
            engine: hasher.finish(),
        };
        // What cannot be removed is in nobody's way. The limits may have been other ones.
        let _ = cache.clear();
        let _ = cache.prune();
        Ok(cache)
    }

    /// What is kept of the component called `digest`.
    pub fn get(&self, engine: &Engine, digest: &Digest) -> Option<Compiled> {
        let name = self.name(digest);
        let file = File::open(self.folder.join(&name)).ok()?;
        let metadata = file.metadata().ok()?;
        if metadata.mode() & 0o777 != MODE {
            return None;
        }
        let bytes = map(&file).ok()?;
        let (code, known) = self.check(&name, &bytes)?;
        // Of the very file that was checked, whatever is called so now.
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let component = deserialize_file(engine, &path)
            // A system without /proc: a copy does as well, and costs more.
            .or_else(|_| deserialize(engine, code))
            .ok()?;
        // Says that it is in use. Where that fails it is pruned too early.
        let said = metadata.modified().ok().and_then(|at| at.elapsed().ok());
        if said.is_none_or(|ago| ago > SAY_AGAIN) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(Compiled {
            component,
            inspection: known.inspection,
            compared: Some(known.compared),
            fresh: None,
        })
    }

    /// Keeps the code of a component that has had an instance in the world `compared`, with what was found by inspecting it. A
    /// folder that cannot be written costs a compilation at each start and fails nothing.
    pub fn keep(&self, digest: &Digest, code: &[u8], inspection: &Inspection, compared: World) {
        let known = Known {
            inspection,
            compared,
        };
        let _ = self.write(&self.name(digest), code, &known);
    }

    fn name(&self, digest: &Digest) -> String {
        format!("{digest}-{:016x}.cwasm", self.engine)
    }

    /// The code of authentication of a file, from what comes before it.
    fn code(&self, name: &str, bytes: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // The name's length is always the same, so that the two cannot be taken for each other.
        hasher.update(name.as_bytes());
        if bytes.len() < SHARED_FROM {
            hasher.update(bytes);
        } else {
            hasher.update_rayon(bytes);
        }
        hasher.finalize()
    }

    /// A file's compiled code and what is known of it, if this host has written it so.
    fn check<'a>(&self, name: &str, bytes: &'a [u8]) -> Option<(&'a [u8], Known<Inspection>)> {
        let (rest, code) = bytes.split_last_chunk::<CODE_BYTES>()?;
        // Takes the same time wherever they differ.
        if self.code(name, rest) != blake3::Hash::from_bytes(*code) {
            return None;
        }
        let (rest, length) = rest.split_last_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (code, known) = rest.split_at_checked(rest.len().checked_sub(length)?)?;
        Some((code, serde_json::from_slice(known).ok()?))
    }

    /// Written beside and renamed, so that no reader ever sees half a file.
    fn write(&self, name: &str, code: &[u8], known: &Known<&Inspection>) -> io::Result<()> {
        let known = serde_json::to_vec(known)?;
        let length = u32::try_from(known.len()).map_err(io::Error::other)?;
        let bytes = [code, &known, &length.to_le_bytes()].concat();
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(MODE))
            .tempfile_in(&self.folder)?;
        file.write_all(&bytes)?;
        file.write_all(self.code(name, &bytes).as_bytes())?;
        file.as_file().sync_data()?;
        file.persist(self.folder.join(name))?;
        self.prune()
    }

    /// When each was last used, where it is, and its size.
    fn files(&self) -> io::Result<Vec<(SystemTime, PathBuf, u64)>> {
        let entries = fs::read_dir(&self.folder)?.map(|entry| {
            let entry = entry?;
            let metadata = entry.metadata()?;
            Ok((metadata.modified()?, entry.path(), metadata.len()))
        });
        // One that another process has just removed is none.
        Ok(entries
            .filter_map(|entry: io::Result<_>| entry.ok())
            .collect())
    }

    fn prune(&self) -> io::Result<()> {
        let mut kept = self.files()?;
        kept.retain(|(_, path, _)| path.extension().is_some_and(|it| it == "cwasm"));
        kept.sort();
        let (mut count, mut bytes) = (0, 0);
        // What was used last comes first, and has the first claim.
        for (_, path, size) in kept.iter().rev() {
            count += 1;
            bytes += size;
            if count > MAX_KEPT || (bytes > self.most && count > 1) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Removes what stopped processes have left half written.
    fn clear(&self) -> io::Result<()> {
        for (modified, path, _) in self.files()? {
            let name = path.file_name().unwrap_or_default();
            let old = modified.elapsed().is_ok_and(|age| age > LEFT_OVER);
            if old && name.as_encoded_bytes().starts_with(b".tmp") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Compiles a component; its code comes with it where it is to be kept.
///
/// # Errors
/// [`LoadError::Compile`].
pub fn compile(
    engine: &Engine,
    wasm: &[u8],
    inspection: Inspection,
    keep: bool,
) -> Result<Compiled, LoadError> {
    let compiled = || {
        if !keep {
            return Ok((Component::from_binary(engine, wasm)?, None));
        }
        let code = engine.precompile_component(wasm)?;
        Ok((deserialize(engine, &code)?, Some(code)))
    };
    let (component, fresh) = compiled()
        .map_err(|error: wasmtime::Error| LoadError::Compile(text(&format!("{error:#}"))))?;
    Ok(Compiled {
        component,
        inspection,
        compared: None,
        fresh,
    })
}

// The places in which code is read, and run, that wasmtime has not just compiled itself.
#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: nobody changes the file while it is mapped: only this user could, who would have to make it writable first,
    // and this host never does.
    unsafe { MmapOptions::new().populate().map(file) }
}

#[allow(unsafe_code)]
fn deserialize_file(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: these bytes came from `Engine::precompile_component` of this very wasmtime, for this engine's settings, and
    // were written under our key; they have been found unchanged, and stay so (see `map`). What follows the code in the
    // file is no part of what its header describes.
    unsafe { Component::deserialize_file(engine, path) }
}

#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: these bytes came from `Engine::precompile_component` of this very wasmtime: either just now, or before they
    // were written under our key, for this engine's settings, and read back unchanged into memory that nobody else can
    // write to.
    unsafe { Component::deserialize(engine, code) }
}

fn failed(path: &Path, error: io::Error) -> SandboxError {
    SandboxError::Cache {
        path: path.to_path_buf(),
        error,
    }
}

fn read_key(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "others may read or write the key; delete the whole folder, since others may have written to it",
        ));
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key)?;
    Ok(key)
}

/// Several processes may do this at once: the first one's key is everybody's.
fn make_key(folder: &Path, path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|error| io::Error::other(error.to_string()))?;
    let mut file = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)?;
    file.write_all(&key)?;
    file.as_file().sync_data()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(key),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => read_key(path),
        Err(error) => Err(error.error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_is_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), u64::MAX, &Engine::default()).unwrap();
        let path = |i: usize| folder.path().join(format!("{i}.cwasm"));
        let now = SystemTime::now();
        for i in 0..MAX_KEPT + 3 {
            fs::write(path(i), "code").unwrap();
            let used = now - Duration::from_secs(1000 - i as u64);
            File::open(path(i)).unwrap().set_modified(used).unwrap();
        }
        // Written first, used last.
        File::open(path(0)).unwrap().set_modified(now).unwrap();
        cache.prune().unwrap();
        let left = |i| path(i).exists();
        assert!(left(0) && left(4) && left(MAX_KEPT + 2));
        assert!(!left(1) && !left(2) && !left(3));
        assert!(folder.path().join(KEY_FILE).exists());
    }

    #[test]
    fn all_together_take_no_more_room_than_they_may() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), 250, &Engine::default()).unwrap();
        let path = |i: u64| folder.path().join(format!("{i}.cwasm"));
        let write = |i: u64, bytes: usize| {
            fs::write(path(i), vec![0; bytes]).unwrap();
            let used = SystemTime::now() - Duration::from_secs(1000 - i);
            File::open(path(i)).unwrap().set_modified(used).unwrap();
        };
        for i in 0..4 {
            write(i, 100);
        }
        cache.prune().unwrap();
        let left = || (0..5).filter(|&i| path(i).exists()).collect::<Vec<_>>();
        assert_eq!(left(), [2, 3]);
        // One that is larger than all may be is kept alone: it is in use.
        write(4, 300);
        cache.prune().unwrap();
        assert_eq!(left(), [4]);
    }
}
