//! Compiled code on disk, so that a start does not compile.
//!
//! Compiled code runs without a sandbox. So only what this host itself has written is read back: every file carries a code
//! of authentication (HMAC-SHA256) under a key that lies in the same folder, readable by this user alone. A file whose code
//! is wrong is passed over and written anew. Whoever can read the key could as well replace the program.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use msao_core::digest::Digest;
use sha2::Sha256;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::error::{LoadError, SandboxError};

const KEY_FILE: &str = "key";
const KEY_BYTES: usize = 32;
const CODE_BYTES: usize = 32;
/// Compiled components that are kept; the oldest go first.
const MAX_KEPT: usize = 128;

/// A folder of compiled components.
pub struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
    /// Names the compiler's version and settings and this processor: another one must not run this one's code.
    engine: u64,
}

impl Cache {
    /// Opens the folder, or makes it with a key of its own.
    ///
    /// # Errors
    /// [`SandboxError::Cache`]: it cannot be written, or others may read its key.
    pub fn open(folder: &Path, engine: &Engine) -> Result<Cache, SandboxError> {
        fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        let path = folder.join(KEY_FILE);
        let key = match read_key(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_key(folder, &path),
            read => read,
        };
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache {
            folder: folder.to_path_buf(),
            key: key.map_err(|error| failed(&path, error))?,
            engine: hasher.finish(),
        })
    }

    /// The compiled form of `wasm`, from the folder or compiled now and kept. Whether it was there comes with it.
    ///
    /// # Errors
    /// [`LoadError::Compile`]. A folder that cannot be written costs a compilation at each start and fails nothing.
    pub fn compiled(
        &self,
        engine: &Engine,
        digest: &Digest,
        wasm: &[u8],
    ) -> Result<(Component, bool), LoadError> {
        let path = self.folder.join(self.name(digest));
        if let Some(component) = self.read(engine, digest, &path) {
            return Ok((component, true));
        }
        let code = engine
            .precompile_component(wasm)
            .map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        let _ = self.write(digest, &code, &path);
        let component =
            deserialize(engine, &code).map_err(|error| LoadError::Compile(format!("{error:#}")))?;
        Ok((component, false))
    }

    fn name(&self, digest: &Digest) -> String {
        format!("{digest}-{:016x}.cwasm", self.engine)
    }

    fn code(&self, digest: &Digest, code: &[u8]) -> Option<Hmac<Sha256>> {
        // A key of this length is always taken.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(self.name(digest).as_bytes());
        mac.update(code);
        Some(mac)
    }

    fn read(&self, engine: &Engine, digest: &Digest, path: &Path) -> Option<Component> {
        let bytes = fs::read(path).ok()?;
        let (tag, code) = bytes.split_at_checked(CODE_BYTES)?;
        self.code(digest, code)?.verify_slice(tag).ok()?;
        deserialize(engine, code).ok()
    }

    /// Written beside and renamed, so that no reader ever sees half a file.
    fn write(&self, digest: &Digest, code: &[u8], path: &Path) -> io::Result<()> {
        let mac = (self.code(digest, code)).ok_or_else(|| io::Error::other("no code"))?;
        let mut file = tempfile::Builder::new()
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(&self.folder)?;
        file.write_all(&mac.finalize().into_bytes())?;
        file.write_all(code)?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        self.prune()
    }

    fn prune(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            if path.extension().is_some_and(|it| it == "cwasm") {
                kept.push((entry.metadata()?.modified()?, path));
            }
        }
        kept.sort();
        let excess = kept.len().saturating_sub(MAX_KEPT);
        (kept.iter().take(excess)).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

/// Compiles without keeping anything.
///
/// # Errors
/// [`LoadError::Compile`].
pub fn compile(engine: &Engine, wasm: &[u8]) -> Result<Component, LoadError> {
    Component::from_binary(engine, wasm).map_err(|error| LoadError::Compile(format!("{error:#}")))
}

// The one place in which code is run that wasmtime has not just compiled itself.
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
