//! The signature that lies beside a component.

use std::path::{Path, PathBuf};

use anyhow::Context;
use msao_core::digest::Digest;
use msao_registry::{Release, SignatureFile, Trust};
use serde::Serialize;

use crate::files;
use crate::plugin::Project;

/// Where the signature of `component` lies: `NAME.msao.sig` beside `NAME.wasm`.
pub fn place(component: &Path) -> PathBuf {
    component.with_extension("msao.sig")
}

/// What a signature speaks for.
pub fn release(project: &Project) -> anyhow::Result<Release> {
    Ok(Release {
        artifact: Digest::of(&project.wasm()?),
        manifest: Digest::of(project.manifest_text.as_bytes()),
    })
}

/// How a plug-in stands with its signature.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Signed {
    /// There is none.
    Unsigned,
    /// It holds for this component and this manifest. Whether a node trusts the key is for its operator to say.
    Holds {
        /// By whom.
        key: String,
        /// Which release.
        serial: u64,
    },
    /// It does not.
    Broken {
        /// What is wrong.
        problem: String,
    },
}

/// Reads the signature beside a component, if there is one.
///
/// # Errors
/// When the file cannot be read.
pub fn read(component: &Path) -> anyhow::Result<Option<SignatureFile>> {
    let path = place(component);
    if !path.is_file() {
        return Ok(None);
    }
    let file = SignatureFile::parse(&files::read_text(&path)?);
    Ok(Some(file.with_context(|| format!("{}", path.display()))?))
}

/// Holds the signature beside the component of `project` against component and manifest.
///
/// # Errors
/// When the component cannot be read.
pub fn state(project: &Project) -> anyhow::Result<Signed> {
    let release = release(project)?;
    let file = match read(&project.component) {
        Ok(None) => return Ok(Signed::Unsigned),
        Ok(Some(file)) => file,
        Err(error) => {
            return Ok(Signed::Broken {
                problem: format!("{error:#}"),
            });
        }
    };
    // Trusting the key that signed leaves the question whether it signed this.
    let trust = Trust {
        keys: [("author".to_owned(), file.key)].into(),
        ..Trust::default()
    };
    Ok(match trust.check(&release, Some(&file)) {
        Ok(_) => Signed::Holds {
            key: file.key.to_string(),
            serial: file.serial,
        },
        Err(problem) => Signed::Broken {
            problem: problem.to_string(),
        },
    })
}
