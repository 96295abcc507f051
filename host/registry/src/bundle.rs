//! A plug-in as it lies on an author's or an operator's disk: component, manifest, and perhaps a signature.

use std::path::{Path, PathBuf};

use msao_core::digest::Digest;
use msao_core::offload::manifest::{Manifest, ManifestError};
use thiserror::Error;

use crate::files::{FileError, read};
use crate::signing::{SignatureError, SignatureFile};
use crate::store::Release;

/// Bytes of a component at most, before anything looks at it. The sandbox's own limit is lower.
const MAX_COMPONENT: u64 = 256 << 20;
/// Bytes of a manifest or a signature at most.
const MAX_TEXT: u64 = 64 << 10;

/// Why a plug-in cannot be read.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not there.
    #[error("{} is missing: a plug-in is {what}", .path.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What a plug-in consists of.
        what: &'static str,
    },
    /// The manifest does not do.
    #[error("{}: {error}", .path.display())]
    Manifest {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: ManifestError,
    },
    /// The signature's file does not do.
    #[error("{}: {error}", .path.display())]
    Signature {
        /// Its file.
        path: PathBuf,
        /// Why.
        error: SignatureError,
    },
}

/// A plug-in, read.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The component's bytes, not looked at yet.
    pub wasm: Vec<u8>,
    /// The manifest's text, byte for byte: what its digest is of.
    pub manifest_text: String,
    /// The manifest.
    pub manifest: Manifest,
    /// The signature, where there is one.
    pub signature: Option<SignatureFile>,
}

const FOLDER: &str = "a folder with policy.toml and target/NAME.wasm (made by `msao policy build`), or a .wasm file with \
                      NAME.toml or policy.toml beside it, or policy.toml one folder up";

impl Bundle {
    /// Puts a plug-in together.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub fn new(
        wasm: Vec<u8>,
        manifest_text: String,
        signature: Option<SignatureFile>,
    ) -> Result<Bundle, ManifestError> {
        Ok(Bundle {
            manifest: Manifest::parse(&manifest_text)?,
            wasm,
            manifest_text,
            signature,
        })
    }

    /// Reads a plug-in: `path` is an author's folder (`policy.toml`, `target/NAME.wasm`), or a component with
    /// `NAME.toml` or `policy.toml` beside it, or `policy.toml` one folder up. A signature is `NAME.msao.sig` beside the component.
    ///
    /// # Errors
    /// [`BundleError`], naming the file.
    pub fn read(path: &Path) -> Result<Bundle, BundleError> {
        let parent = path.parent().unwrap_or(Path::new("."));
        let manifest_path = if path.is_dir() {
            path.join("policy.toml")
        } else {
            // Its own comes first: a folder may hold many plug-ins.
            let beside = [path.with_extension("toml"), parent.join("policy.toml")];
            let there = beside.into_iter().find(|path| path.is_file());
            there.unwrap_or_else(|| parent.join("..").join("policy.toml"))
        };
        let manifest_text = Bundle::text(&manifest_path)?.ok_or_else(|| BundleError::Missing {
            path: manifest_path.clone(),
            what: FOLDER,
        })?;
        let manifest = Manifest::parse(&manifest_text).map_err(|error| BundleError::Manifest {
            path: manifest_path,
            error,
        })?;
        let component = if path.is_dir() {
            path.join("target").join(format!("{}.wasm", manifest.name))
        } else {
            path.to_owned()
        };
        let wasm = read(&component, MAX_COMPONENT)?.ok_or_else(|| BundleError::Missing {
            path: component.clone(),
            what: FOLDER,
        })?;
        let signature_path = component.with_extension("msao.sig");
        let signature = Bundle::text(&signature_path)?
            .map(|text| SignatureFile::parse(&text))
            .transpose()
            .map_err(|error| BundleError::Signature {
                path: signature_path,
                error,
            })?;
        Ok(Bundle {
            wasm,
            manifest_text,
            manifest,
            signature,
        })
    }

    fn text(path: &Path) -> Result<Option<String>, FileError> {
        let bytes = read(path, MAX_TEXT)?;
        // What is not UTF-8 fails as TOML, with the place named.
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Its name by content.
    pub fn release(&self) -> Release {
        Release {
            artifact: Digest::of(&self.wasm),
            manifest: Digest::of(self.manifest_text.as_bytes()),
        }
    }
}
