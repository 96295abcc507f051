//! Where things lie: the checkout, the user's cache, the links between them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::run::{answer, cargo};

/// The folders that set-up reads and writes.
#[derive(Debug, Clone)]
pub struct Places {
    /// The root of the checkout.
    pub root: PathBuf,
    /// `msao/` in the user's cache folder: shared by all clones, safe to delete.
    pub cache: PathBuf,
}

impl Places {
    /// Finds both folders from the environment.
    pub fn find() -> Result<Self> {
        // cargo sets the variable when it runs this program; the path that was compiled in serves a direct call.
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest)
            .parent()
            .context("xtask lies in no workspace")?
            .to_path_buf();
        ensure!(
            root.join("rust-toolchain.toml").is_file(),
            "{} is not a checkout of MSAO: run `cargo xtask` inside one",
            root.display()
        );
        let cache = cache_folder(
            env::var_os("XDG_CACHE_HOME").as_deref(),
            env::var_os("HOME").as_deref(),
        )
        .context("no cache folder: set HOME, or XDG_CACHE_HOME to an absolute path")?;
        Ok(Self { root, cache })
    }

    /// The ignored link that `.cargo/config.toml` names as LIBTORCH.
    pub fn libtorch_link(&self) -> PathBuf {
        self.root.join(".deps").join("libtorch")
    }
}

/// `msao` in the cache folder of the XDG base directory specification, which tells to ignore relative values.
fn cache_folder(xdg_cache_home: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let absolute = |value: &OsStr| Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    xdg_cache_home
        .and_then(absolute)
        .or_else(|| home.and_then(absolute).map(|home| home.join(".cache")))
        .map(|cache| cache.join("msao"))
}

/// The folder that cargo builds into: `target/`, or what CARGO_TARGET_DIR or the user's configuration says.
pub fn target_folder(places: &Places) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let mut metadata = cargo();
    metadata.args(["metadata", "--format-version=1", "--no-deps", "--offline"]);
    let text = answer(metadata.current_dir(&places.root)).context("`cargo metadata` fails")?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("`cargo metadata` says something else")?;
    Ok(metadata.target_directory)
}

/// Makes `link` point to `target`, replacing an older link in one step so that a concurrent build sees either.
pub fn relink(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let folder = link.parent().context("a link needs a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let fresh = link.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", fresh.display()));
        }
        _ => {}
    }
    std::os::unix::fs::symlink(target, &fresh)
        .and_then(|()| fs::rename(&fresh, link))
        .with_context(|| format!("cannot link {} to {}", link.display(), target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_follows_the_xdg_specification() {
        let cache = |xdg: Option<&str>, home: Option<&str>| {
            cache_folder(xdg.map(OsStr::new), home.map(OsStr::new))
        };
        let path = |path: &str| Some(PathBuf::from(path));
        assert_eq!(cache(Some("/x"), Some("/home/a")), path("/x/msao"));
        assert_eq!(cache(None, Some("/home/a")), path("/home/a/.cache/msao"));
        assert_eq!(
            cache(Some(""), Some("/home/a")),
            path("/home/a/.cache/msao")
        );
        assert_eq!(
            cache(Some("rel"), Some("/home/a")),
            path("/home/a/.cache/msao")
        );
        assert_eq!(cache(None, None), None);
    }

    #[test]
    fn a_link_is_made_kept_and_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("deps").join("lib");
        for target in ["/one", "/one", "/two"] {
            relink(Path::new(target), &link).unwrap();
            assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        }
        assert_eq!(fs::read_dir(link.parent().unwrap()).unwrap().count(), 1);
    }
}
