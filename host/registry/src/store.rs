//! The releases that a node has: components and manifests by SHA-256, and their signatures.
//!
//! ```text
//! artifacts/<sha256>.wasm    manifests/<sha256>.toml    signatures/<artifact>-<manifest>.toml
//! releases/<artifact>-<manifest>    (empty: which of them belong together)
//! ```
//!
//! A file's name is its content's digest, so damage is found whenever one is read. What is damaged is renamed, so that
//! pushing the release again mends it.

use std::fs;
use std::path::{Path, PathBuf};

use msao_core::digest::Digest;
use msao_core::offload::manifest::Manifest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::Bundle;
use crate::files::{FileError, at, prepare, read, write_whole};
use crate::signing::{SignatureError, SignatureFile};

const MAX_COMPONENT: u64 = 256 << 20;
const MAX_TEXT: u64 = 64 << 10;

/// One component with one manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Release {
    /// SHA-256 of the component.
    pub artifact: Digest,
    /// SHA-256 of the manifest.
    pub manifest: Digest,
}

/// Why a release cannot be kept or had.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not here.
    #[error("{what} {digest} is not here; push the release again")]
    Missing {
        /// `the component` or `the manifest`.
        what: &'static str,
        /// Which.
        digest: Digest,
    },
    /// What lies there is something else.
    #[error("{what} {digest} is damaged, and lies now at {}; push the release again", .aside.display())]
    Damaged {
        /// `the component`, `the manifest` or `the signature`.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// Its new name.
        aside: PathBuf,
    },
    /// A manifest that this program does not read (any more).
    #[error("the manifest {0} does not do: {1}")]
    Manifest(Digest, msao_core::offload::manifest::ManifestError),
    /// A signature that this program does not read (any more).
    #[error(transparent)]
    Signature(#[from] SignatureError),
}

/// The folder of all releases.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the store in `folder`, or makes one.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(folder: &Path) -> Result<Store, FileError> {
        for part in ["artifacts", "manifests", "signatures", "releases"] {
            prepare(&folder.join(part))?;
        }
        Ok(Store {
            folder: folder.to_owned(),
        })
    }

    fn artifact_path(&self, digest: Digest) -> PathBuf {
        self.folder.join("artifacts").join(format!("{digest}.wasm"))
    }

    fn manifest_path(&self, digest: Digest) -> PathBuf {
        self.folder.join("manifests").join(format!("{digest}.toml"))
    }

    fn signature_path(&self, release: &Release) -> PathBuf {
        (self.folder.join("signatures"))
            .join(format!("{}-{}.toml", release.artifact, release.manifest))
    }

    /// Keeps a plug-in. Pushing what is here already writes nothing; a new signature replaces the old one.
    ///
    /// # Errors
    /// [`StoreError::File`]. After any stop each file is there whole or not at all.
    pub fn push(&self, bundle: &Bundle) -> Result<Release, StoreError> {
        let release = bundle.release();
        for (path, bytes) in [
            (self.artifact_path(release.artifact), bundle.wasm.as_slice()),
            (
                self.manifest_path(release.manifest),
                bundle.manifest_text.as_bytes(),
            ),
        ] {
            let most = bytes.len() as u64;
            // A file of another length is damaged: it is written anew like one that is not there.
            let here = read(&path, most).ok().flatten();
            if here.as_deref() != Some(bytes) {
                write_whole(&path, bytes)?;
            }
        }
        if let Some(signature) = &bundle.signature {
            write_whole(
                &self.signature_path(&release),
                signature.to_text().as_bytes(),
            )?;
        }
        let mark = format!("{}-{}", release.artifact, release.manifest);
        let mark = self.folder.join("releases").join(mark);
        if !mark.exists() {
            write_whole(&mark, &[])?;
        }
        Ok(release)
    }

    fn content(
        &self,
        what: &'static str,
        path: &Path,
        digest: Digest,
        most: u64,
    ) -> Result<Vec<u8>, StoreError> {
        // What was written has at most so much: a longer file is no disk's error.
        let too_long = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > most);
        if !too_long {
            let bytes = read(path, most)?.ok_or(StoreError::Missing { what, digest })?;
            if Digest::of(&bytes) == digest {
                return Ok(bytes);
            }
        }
        let aside = path.with_extension("damaged");
        fs::rename(path, &aside).map_err(at(path, "renamed"))?;
        Err(StoreError::Damaged {
            what,
            digest,
            aside,
        })
    }

    /// A release that is kept, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn get(&self, release: &Release) -> Result<Bundle, StoreError> {
        let text = self.content(
            "the manifest",
            &self.manifest_path(release.manifest),
            release.manifest,
            MAX_TEXT,
        )?;
        let wasm = self.content(
            "the component",
            &self.artifact_path(release.artifact),
            release.artifact,
            MAX_COMPONENT,
        )?;
        let signature = self.signature(release)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        Bundle::new(wasm, text, signature)
            .map_err(|error| StoreError::Manifest(release.manifest, error))
    }

    /// The signature that lies with a release now; None: it has none.
    ///
    /// # Errors
    /// [`StoreError::File`] and [`StoreError::Signature`].
    pub fn signature(&self, release: &Release) -> Result<Option<SignatureFile>, StoreError> {
        let bytes = read(&self.signature_path(release), MAX_TEXT)?;
        let file = bytes.map(|bytes| SignatureFile::parse(&String::from_utf8_lossy(&bytes)));
        Ok(file.transpose()?)
    }

    /// A release's manifest, and whether it is signed; None: it is not whole. The component is not read, and what is
    /// damaged stays where it lies: to look is no reason to touch it.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn describe(&self, release: &Release) -> Result<Option<(Manifest, bool)>, FileError> {
        let Some(text) = read(&self.manifest_path(release.manifest), MAX_TEXT)? else {
            return Ok(None);
        };
        let is_here = self.artifact_path(release.artifact).is_file();
        if !is_here || Digest::of(&text) != release.manifest {
            return Ok(None);
        }
        let Ok(manifest) = Manifest::parse(&String::from_utf8_lossy(&text)) else {
            return Ok(None);
        };
        let is_signed = self.signature_path(release).is_file();
        Ok(Some((manifest, is_signed)))
    }

    /// The releases that were pushed here, in no order that means anything.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn releases(&self) -> Result<Vec<Release>, FileError> {
        let folder = self.folder.join("releases");
        let mut releases = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at(&folder, "read"))? {
            let name = entry.map_err(at(&folder, "read"))?.file_name();
            let name = name.to_string_lossy();
            let parts = name.split_once('-').map(|(a, m)| (a.parse(), m.parse()));
            if let Some((Ok(artifact), Ok(manifest))) = parts {
                releases.push(Release { artifact, manifest });
            }
        }
        releases.sort_unstable();
        Ok(releases)
    }

    /// The components that are here.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn artifacts(&self) -> Result<Vec<Digest>, FileError> {
        let folder = self.folder.join("artifacts");
        let mut digests = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at(&folder, "read"))? {
            let name = entry.map_err(at(&folder, "read"))?.file_name();
            let name = name.to_string_lossy();
            if let Some(digest) = name.strip_suffix(".wasm").and_then(|it| it.parse().ok()) {
                digests.push(digest);
            }
        }
        digests.sort_unstable();
        Ok(digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(wasm: &[u8]) -> Bundle {
        let manifest = "name = \"a\"\nversion = \"1.0.0\"\nworld = \"offload-policy\"\ndescription = \"\"\n\
                        state-schema = 0\n";
        Bundle::new(wasm.to_vec(), manifest.to_owned(), None).unwrap()
    }

    #[test]
    fn what_was_pushed_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.releases().unwrap(), []);
        let mut pushed: Vec<Release> = [&b"one"[..], b"two", b"one"]
            .map(|wasm| store.push(&bundle(wasm)).unwrap())
            .into();
        pushed.sort_unstable();
        pushed.dedup();
        assert_eq!(store.releases().unwrap(), pushed);
        assert_eq!(pushed.len(), 2);
    }

    #[test]
    fn damage_is_found_told_and_mended_by_pushing_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let release = store.push(&bundle(b"component")).unwrap();
        assert_eq!(store.get(&release).unwrap().wasm, b"component");
        let path = store.artifact_path(release.artifact);
        fs::write(&path, b"Component").unwrap();
        let Err(StoreError::Damaged { aside, .. }) = store.get(&release) else {
            panic!("damage was not found");
        };
        assert_eq!(fs::read(aside).unwrap(), b"Component");
        assert!(matches!(
            store.get(&release),
            Err(StoreError::Missing { .. })
        ));
        assert_eq!(store.push(&bundle(b"component")).unwrap(), release);
        assert_eq!(store.get(&release).unwrap().wasm, b"component");
        assert_eq!(store.artifacts().unwrap(), [release.artifact]);
    }

    #[test]
    fn a_file_that_is_too_long_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let release = store.push(&bundle(b"component")).unwrap();
        let longer = vec![b'#'; MAX_TEXT as usize + 1];
        fs::write(store.manifest_path(release.manifest), longer).unwrap();
        assert!(matches!(
            store.get(&release),
            Err(StoreError::Damaged {
                what: "the manifest",
                ..
            })
        ));
    }

    #[test]
    fn looking_at_a_release_reads_no_component_and_moves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let release = store.push(&bundle(b"component")).unwrap();
        let component = store.artifact_path(release.artifact);
        fs::write(&component, b"Component").unwrap();
        let (manifest, is_signed) = store.describe(&release).unwrap().unwrap();
        assert_eq!((manifest.name.as_str(), is_signed), ("a", false));
        let path = store.manifest_path(release.manifest);
        fs::write(&path, b"name = \"b\"").unwrap();
        assert_eq!(store.describe(&release).unwrap(), None);
        assert!(path.is_file() && component.is_file());
        store.push(&bundle(b"component")).unwrap();
        assert!(store.describe(&release).unwrap().is_some());
        fs::remove_file(&component).unwrap();
        assert_eq!(store.describe(&release).unwrap(), None);
    }

    #[test]
    fn pushing_mends_a_damaged_file_that_nobody_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let release = store.push(&bundle(b"component")).unwrap();
        fs::write(store.artifact_path(release.artifact), b"component and more").unwrap();
        store.push(&bundle(b"component")).unwrap();
        assert_eq!(store.get(&release).unwrap().wasm, b"component");
    }
}
