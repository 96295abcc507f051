//! The releases that a node has: components and manifests by SHA-256, and their signatures.
//!
//! ```text
//! artifacts/<sha256>.wasm    manifests/<sha256>.toml    signatures/<artifact>-<manifest>.toml
//! releases/<artifact>-<manifest>    (empty: which of them belong together)
//! releases/<artifact>-<manifest>.removed    (empty: what was removed, and has files still)
//! ```
//!
//! A file's name is its content's digest, so damage is found whenever one is read. What is damaged is renamed, so that
//! pushing the release again mends it.
//!
//! A release is here as long as its mark is, which is written last. Removing it renames the mark, and that decides: what a stop
//! leaves of its files goes at the next start. Files that another release names as well stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use msao_core::digest::Digest;
use msao_core::offload::manifest::Manifest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::bundle::Bundle;
use crate::files::{FileError, at, prepare, read, remove, sync_folder, write_whole};
use crate::signing::{SignatureError, SignatureFile};

const MAX_COMPONENT: u64 = 256 << 20;
const MAX_TEXT: u64 = 64 << 10;
/// How the mark of a release ends that was removed.
const REMOVED: &str = ".removed";

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
        /// `the component`, `the manifest` or `the release of the component`.
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
    /// Held by whoever brings or takes away files: which of them a release shares with others is only so for a moment.
    changes: Arc<Mutex<()>>,
}

impl Store {
    /// Opens the store in `folder`, or makes one. What was being removed when an earlier process stopped is gone then.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(folder: &Path) -> Result<Store, FileError> {
        for part in ["artifacts", "manifests", "signatures", "releases"] {
            prepare(&folder.join(part))?;
        }
        let store = Store {
            folder: folder.to_owned(),
            changes: Arc::default(),
        };
        store.finish_removals()?;
        Ok(store)
    }

    fn changes(&self) -> MutexGuard<'_, ()> {
        // What it guards lies on the disk, and is whole at every moment.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn mark_path(&self, release: &Release, ending: &str) -> PathBuf {
        (self.folder.join("releases"))
            .join(format!("{}-{}{ending}", release.artifact, release.manifest))
    }

    /// Keeps a plug-in. Pushing what is here already writes nothing; a new signature replaces the old one.
    ///
    /// # Errors
    /// [`StoreError::File`]. After any stop each file is there whole or not at all.
    pub fn push(&self, bundle: &Bundle) -> Result<Release, StoreError> {
        let release = bundle.release();
        let _changes = self.changes();
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
        if !self.has(&release) {
            write_whole(&self.mark_path(&release, ""), &[])?;
        }
        Ok(release)
    }

    /// Whether a release was pushed here, and not removed since.
    pub fn has(&self, release: &Release) -> bool {
        self.mark_path(release, "").exists()
    }

    /// Takes a release away, and its files where no other release has them as well. Returns how many bytes they had. Serials
    /// are not kept here: those that it used up stay so.
    ///
    /// # Errors
    /// [`FileError`]. Where the mark could be renamed it is gone all the same, and what is left goes at the next start.
    pub fn remove(&self, release: &Release) -> Result<u64, FileError> {
        let _changes = self.changes();
        let mark = self.mark_path(release, "");
        fs::rename(&mark, self.mark_path(release, REMOVED)).map_err(at(&mark, "renamed"))?;
        sync_folder(&self.folder.join("releases"))?;
        self.finish_removal(release)
    }

    /// Takes away what is left of releases that were removed. Returns how many bytes that had.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn finish_removals(&self) -> Result<u64, FileError> {
        let _changes = self.changes();
        let mut bytes = 0;
        for release in self.marked(REMOVED)? {
            bytes += self.finish_removal(&release)?;
        }
        Ok(bytes)
    }

    /// May be done again after any part of it.
    fn finish_removal(&self, release: &Release) -> Result<u64, FileError> {
        // It may have been pushed again since.
        let here = self.releases()?;
        let mut bytes = 0;
        if !here.contains(release) {
            bytes += remove(&self.signature_path(release))?;
        }
        if !here.iter().any(|it| it.manifest == release.manifest) {
            bytes += remove(&self.manifest_path(release.manifest))?;
        }
        if !here.iter().any(|it| it.artifact == release.artifact) {
            bytes += remove(&self.artifact_path(release.artifact))?;
        }
        remove(&self.mark_path(release, REMOVED))?;
        Ok(bytes)
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
        self.marked("")
    }

    /// The releases that have a mark with that ending.
    fn marked(&self, ending: &str) -> Result<Vec<Release>, FileError> {
        let folder = self.folder.join("releases");
        let mut releases = Vec::new();
        for entry in fs::read_dir(&folder).map_err(at(&folder, "read"))? {
            let name = entry.map_err(at(&folder, "read"))?.file_name();
            let name = name.to_string_lossy();
            let parts = name.strip_suffix(ending).and_then(|it| it.split_once('-'));
            let parts = parts.map(|(a, m)| (a.parse(), m.parse()));
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

    /// Every file in the store, by its path.
    fn files(store: &Store) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for part in ["artifacts", "manifests", "signatures", "releases"] {
            let entries = fs::read_dir(store.folder.join(part)).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
        }
        files.sort_unstable();
        files
    }

    fn other_manifest(wasm: &[u8]) -> Bundle {
        let text = bundle(wasm).manifest_text.replace("1.0.0", "1.0.1");
        Bundle::new(wasm.to_vec(), text, None).unwrap()
    }

    #[test]
    fn what_several_releases_share_goes_with_the_last_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        // Two with one component, two with one manifest.
        let [one, newer, two] = [bundle(b"one"), other_manifest(b"one"), bundle(b"two")];
        let releases = [&one, &newer, &two].map(|it| store.push(it).unwrap());
        // Each has the manifest or the component of another: only that of `two` is its own.
        assert_eq!(store.remove(&releases[2]).unwrap(), 3);
        assert!(store.get(&releases[0]).is_ok() && store.get(&releases[1]).is_ok());
        let manifest = one.manifest_text.len() as u64;
        assert_eq!(store.remove(&releases[0]).unwrap(), manifest);
        assert_eq!(store.get(&releases[1]).unwrap().wasm, b"one");
        assert_eq!(store.remove(&releases[1]).unwrap(), manifest + 3);
        assert_eq!(files(&store), Vec::<PathBuf>::new());
        assert!(store.remove(&releases[1]).is_err());
    }

    #[test]
    fn a_removal_that_a_stop_cut_short_is_finished_at_the_next_start() {
        let kept = bundle(b"kept");
        // After the mark was renamed a stop may come before any of these is gone.
        for gone in 0..4 {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            store.push(&kept).unwrap();
            let before = files(&store);
            let release = store.push(&other_manifest(b"removed")).unwrap();
            let signature = store.signature_path(&release);
            fs::write(&signature, b"").unwrap();
            let mark = store.mark_path(&release, "");
            fs::rename(&mark, store.mark_path(&release, REMOVED)).unwrap();
            assert!(!store.has(&release) && store.releases().unwrap().len() == 1);
            let parts = [
                signature,
                store.manifest_path(release.manifest),
                store.artifact_path(release.artifact),
            ];
            for path in parts.iter().take(gone) {
                fs::remove_file(path).unwrap();
            }
            let store = Store::open(folder.path()).unwrap();
            assert_eq!(files(&store), before, "{gone} were gone");
        }
    }

    #[test]
    fn what_was_pushed_again_after_a_removal_that_failed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let release = store.push(&bundle(b"one")).unwrap();
        let mark = store.mark_path(&release, "");
        fs::rename(&mark, store.mark_path(&release, REMOVED)).unwrap();
        assert_eq!(store.push(&bundle(b"one")).unwrap(), release);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.get(&release).unwrap().wasm, b"one");
        assert_eq!(files(&store).len(), 3);
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
