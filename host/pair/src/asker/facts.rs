//! What an evaluation is made with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use msao_core::digest::Digest;
use msao_evaluate::manifest::Facts;
use msao_evaluate::spec::{Pair, Spec};
use sha2::{Digest as _, Sha256};

use super::{Models, twin};
use crate::pair::Places;

pub(super) fn facts(places: &Places, models: &Models, spec: &Spec, base: &Path) -> Result<Facts> {
    let mut digests = BTreeMap::new();
    digests.insert("msao".to_owned(), of_file(&places.msao)?);
    for (role, folder) in [("draft", &models.draft), ("target", &models.target)] {
        digests.insert(format!("models/{role}"), of_folder(folder, true)?);
    }
    let components: BTreeSet<&String> = (spec.policies.iter())
        .flat_map(|it| [Some(&it.policy), it.postprocessor.as_ref()])
        .flatten()
        .collect();
    for name in components {
        for extension in ["wasm", "toml"] {
            let file = format!("{name}.{extension}");
            digests.insert(
                format!("plugins/{file}"),
                of_file(&places.plugins.join(&file))?,
            );
        }
    }
    for data in &spec.data {
        let folder = match &data.folder {
            Some(folder) => base.join(folder),
            None => places.models.join("heldout"),
        };
        // Pictures of a published set are gigabytes: their names and sizes tell them apart well enough.
        digests.insert(
            format!("data/{}", data.name),
            of_folder(&folder, data.folder.is_none())?,
        );
    }
    for data in spec.accuracy.iter().flat_map(|it| &it.data) {
        digests.insert(
            format!("accuracy/{}", data.instead_of),
            of_folder(&base.join(&data.folder), false)?,
        );
    }
    let mut emulated = vec![
        "both nodes are processes of this machine, the edge on core 0, the cloud on core 1, the client on any".to_owned(),
        "links are shaped within the edge's process: bandwidth, delay and jitter; no packet is lost".to_owned(),
    ];
    if let Pair::Twin(name) = &spec.pair {
        emulated.push(twin::told(name));
    }
    Ok(Facts {
        commit: commit().unwrap_or_else(|| "not in a checkout".to_owned()),
        versions: BTreeMap::from([("msao".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        digests,
        emulated,
        // Each has a thread a model, and so is kept on a core (`Pair::start`).
        node_cores: Some(1),
    })
}

/// The checkout's, with a mark where files have been changed.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let told = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(told.stdout).ok()?;
        told.status.success().then(|| text.trim().to_owned())
    };
    let head = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let mark = if changed.is_empty() {
        ""
    } else {
        " and changes"
    };
    Some(head + mark)
}

/// The `name` of a plug-in's manifest.
pub(super) fn plugin_name(manifest: &str) -> Option<&str> {
    let line = manifest
        .lines()
        .find_map(|line| line.strip_prefix("name"))?;
    let value = line.trim_start().strip_prefix('=')?.trim();
    value.strip_prefix('"')?.strip_suffix('"')
}

fn of_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    add_file(path, &mut hasher)?;
    Ok(Digest(hasher.finalize().into()).to_string())
}

fn add_file(path: &Path, hasher: &mut Sha256) -> Result<()> {
    let told = || path.display().to_string();
    let mut file = File::open(path).with_context(told)?;
    let mut bytes = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut bytes).with_context(told)?;
        match bytes.get(..read) {
            Some(some) if read > 0 => hasher.update(some),
            _ => return Ok(()),
        }
    }
}

/// Names and sizes of all files; of a folder that is read `whole` their bytes too, else those of tables alone.
fn of_folder(folder: &Path, whole: bool) -> Result<String> {
    let mut files = Vec::new();
    list(folder, &mut files)?;
    files.sort();
    let mut hasher = Sha256::new();
    for path in files {
        let size = std::fs::metadata(&path).map_or(0, |it| it.len());
        let name = path.strip_prefix(folder).unwrap_or(&path).display();
        hasher.update(format!("{name} {size}\n").as_bytes());
        let is_table =
            (path.extension()).is_some_and(|it| it == "json" || it == "tsv" || it == "zst");
        if whole || is_table {
            add_file(&path, &mut hasher)?;
        }
    }
    Ok(Digest(hasher.finalize().into()).to_string())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let told = || folder.display().to_string();
    for entry in std::fs::read_dir(folder).with_context(told)? {
        let path = entry.with_context(told)?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_has_a_name() {
        assert_eq!(
            plugin_name("name = \"msao\"\nversion = \"1\"\n"),
            Some("msao")
        );
        assert_eq!(plugin_name("[[parameters]]\nlabel = 1\n"), None);
    }

    #[test]
    fn a_folder_is_known_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        std::fs::write(folder.path().join("a.tsv"), "one").unwrap();
        std::fs::write(folder.path().join("images/1.jpg"), "two").unwrap();
        let [table, whole] = [false, true].map(|whole| of_folder(folder.path(), whole).unwrap());
        assert_ne!(table, whole);
        // As long, and a picture: only who reads it sees it.
        std::fs::write(folder.path().join("images/1.jpg"), "owt").unwrap();
        assert_eq!(of_folder(folder.path(), false).unwrap(), table);
        assert_ne!(of_folder(folder.path(), true).unwrap(), whole);
        std::fs::write(folder.path().join("a.tsv"), "six").unwrap();
        assert_ne!(of_folder(folder.path(), false).unwrap(), table);
    }
}
