//! `cargo xtask data`: questions that are not committed, drawn by the recipe of the demo models: those that accuracy is told by, and
//! those that post-processors are calibrated with.
//!
//! ```text
//! ~/.cache/msao/demo-data-.../packages   from PyPI: what draws and packs, some 200 MB; torch is not among it
//! target/data/accuracy/                  as models/heldout, without the table; some 150 MB
//! target/data/calibration/               likewise, with mixes alone that the models have seen; below 1 MB
//! target/data/.../made-of                a hash of the recipe and of what was asked of it
//! target/data/unfinished-HASH/           what an interrupted one has left; the next one goes on with it
//! ```
//!
//! Specifications of evaluations name the folder (`configs/bench`), wherever cargo builds to.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

use crate::lock::{made_once, remove_all};
use crate::pip::Pip;
use crate::places::Places;
use crate::run::{answer, must};
use crate::setup::row;

/// Questions that are drawn together.
pub struct Set {
    /// The folder, seen from the checkout.
    folder: &'static str,
    /// What the recipe is asked for.
    wanted: &'static [&'static str],
    /// For people.
    what: &'static str,
    cost: &'static str,
}

/// As many questions as accuracy is asked at most, of scenes that nothing else has seen (models/recipe/README.md).
pub const ACCURACY: Set = Set {
    folder: "target/data/accuracy",
    wanted: &["--apart", "20000", "--first", "200001"],
    what: "accuracy data",
    cost: "questions that accuracy is told by: some minutes and 150 MB, once; an interrupted one is gone on with",
};
/// What a calibration sees, and no figure is of.
pub const CALIBRATION: Set = Set {
    folder: "target/data/calibration",
    wanted: &["--first", "60001", "--scale", "0.4", "--seen"],
    what: "calibration data",
    cost: "questions that post-processors are calibrated with: some seconds, once",
};
/// Folders of unfinished ones begin so.
const UNFINISHED: &str = "unfinished-";
const STAMP: &str = "made-of";
const RECIPE: &str = "models/recipe";
const REQUIREMENTS: &str = "requirements-data.txt";
/// Of the recipe, what a question depends on.
const SOURCES: [&str; 4] = ["data.py", "world.py", "packed.py", REQUIREMENTS];
const IMPORTS: &str = "import av, numpy, PIL, soundfile, zstandard";

/// `cargo xtask data`.
pub fn command(places: &Places) -> Result<ExitCode> {
    ensure_there(places, &CALIBRATION)?;
    ensure_there(places, &ACCURACY)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that the questions of a set are there, as the recipe would draw them now.
pub fn ensure_there(places: &Places, set: &Set) -> Result<()> {
    let folder = places.root.join(set.folder);
    let made_of = made_of(&places.root, set)?;
    if !is_made(&folder, &made_of) {
        let shelf = folder.parent().context("the data lie in no folder")?;
        fs::create_dir_all(shelf).with_context(|| format!("cannot make {}", shelf.display()))?;
        let name = shelf.join("lock");
        let lock =
            File::create(&name).with_context(|| format!("cannot write {}", name.display()))?;
        // One at a time; the system takes it back when the process ends, however it ends.
        lock.lock()
            .with_context(|| format!("cannot lock {}", name.display()))?;
        if !is_made(&folder, &made_of) {
            make(places, set, &folder, &made_of)?;
        }
    }
    row(set.what, &format!("there, in {}", set.folder));
    Ok(())
}

/// Whether a folder is whole, and made of this.
fn is_made(folder: &Path, made_of: &str) -> bool {
    fs::read_to_string(folder.join(STAMP)).is_ok_and(|it| it == made_of)
}

fn make(places: &Places, set: &Set, folder: &Path, made_of: &str) -> Result<()> {
    let unfinished = folder.with_file_name(format!("{UNFINISHED}{made_of}"));
    sweep(folder, &unfinished)?;
    let (python, packages) = python(places)?;
    println!("  {}", set.cost);
    let mut draw = Command::new(python);
    draw.arg(places.root.join(RECIPE).join("data.py"))
        .arg(&unfinished)
        .args(set.wanted)
        .env("PYTHONPATH", packages)
        // No byte code beside the recipe.
        .env("PYTHONDONTWRITEBYTECODE", "1");
    must(&mut draw).with_context(|| {
        format!(
            "the {} are not drawn yet; the same command goes on from there",
            set.what
        )
    })?;
    let stamp = unfinished.join(STAMP);
    fs::write(&stamp, made_of).with_context(|| format!("cannot write {}", stamp.display()))?;
    remove_all(folder)?;
    fs::rename(&unfinished, folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Removes what other recipes have left unfinished.
fn sweep(folder: &Path, unfinished: &Path) -> Result<()> {
    let shelf = folder.parent().context("the data lie in no folder")?;
    let entries =
        fs::read_dir(shelf).with_context(|| format!("cannot read {}", shelf.display()))?;
    for entry in entries.flatten() {
        let is_one = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        if is_one && entry.path() != unfinished {
            remove_all(&entry.path())?;
        }
    }
    Ok(())
}

/// A Python, and where it finds what the recipe imports, fetched if need be.
fn python(places: &Places) -> Result<(&'static str, PathBuf)> {
    let pip = Pip::find()?;
    let requirements = places.root.join(RECIPE).join(REQUIREMENTS);
    let text = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let what = "what draws pictures, clips and sounds: 200 MB on disk";
    let folder = made_once(&places.cache, &packages_name(&text)?, what, |folder| {
        // There is no torch among them that could do without CUDA.
        pip.install(&requirements, &folder.join("packages"), true)
    })?;
    let packages = folder.join("packages");
    let mut imports = Command::new(pip.python());
    imports.args(["-c", IMPORTS]).env("PYTHONPATH", &packages);
    ensure!(
        answer(&mut imports).is_some(),
        "what was fetched does not work with this Python; delete {} and run this again",
        folder.display()
    );
    Ok((pip.python(), packages))
}

/// A folder's name that moves with what is pinned.
fn packages_name(requirements: &str) -> Result<String> {
    let mut name = "demo-data".to_owned();
    for line in requirements.lines().filter(|it| !it.starts_with('#')) {
        let Some((package, version)) = line.split_once("==") else {
            bail!("{RECIPE}/{REQUIREMENTS}: {line:?} pins no version");
        };
        name.push_str(&format!("-{package}-{version}"));
    }
    Ok(name)
}

/// A hash of what the data depend on: the recipe, its packages' versions, and what is asked of it.
fn made_of(root: &Path, set: &Set) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    set.wanted.hash(&mut hasher);
    for name in SOURCES {
        let path = root.join(RECIPE).join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        (name, bytes).hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_proof_asks_what_is_made_here() {
        let spec = fs::read_to_string(root().join("configs/bench/prove.toml")).unwrap();
        assert!(spec.contains(&format!("folder = \"../../{}\"", ACCURACY.folder)));
        assert!(spec.contains("made-by = \"cargo xtask data\""));
    }

    #[test]
    fn the_recipe_imports_nothing_that_is_not_fetched() {
        // Its own files, and the packages by the names that are imported.
        let known = [
            "world",
            "packed",
            "av",
            "numpy",
            "PIL",
            "soundfile",
            "zstandard",
        ];
        let standard = [
            "__future__",
            "argparse",
            "base64",
            "collections",
            "csv",
            "dataclasses",
            "functools",
            "io",
            "json",
            "math",
            "pathlib",
            "random",
            "sys",
            "time",
        ];
        for source in SOURCES.iter().filter(|it| it.ends_with(".py")) {
            let text = fs::read_to_string(root().join(RECIPE).join(source)).unwrap();
            let imported = text.lines().filter_map(|line| {
                let line = line.trim_start();
                let rest = line.strip_prefix("import ");
                let rest = rest.or_else(|| {
                    line.strip_prefix("from ")
                        .filter(|_| line.contains(" import "))
                })?;
                rest.split([' ', '.', ',']).next()
            });
            for module in imported {
                assert!(
                    known.contains(&module) || standard.contains(&module),
                    "{source} imports {module}: {REQUIREMENTS} and IMPORTS must have it"
                );
            }
        }
    }

    #[test]
    fn packages_have_a_folder_of_their_versions() {
        let text = fs::read_to_string(root().join(RECIPE).join(REQUIREMENTS)).unwrap();
        let name = packages_name(&text).unwrap();
        assert!(name.starts_with("demo-data-numpy-"), "{name}");
        assert_eq!(
            packages_name("# why\na==1\nb==2.3\n").unwrap(),
            "demo-data-a-1-b-2.3"
        );
        assert!(packages_name("a>=1\n").is_err());
    }

    #[test]
    fn only_what_is_whole_and_of_this_recipe_counts() {
        let shelf = tempfile::tempdir().unwrap();
        let folder = shelf.path().join("accuracy");
        let [ours, other] = ["1", "2"].map(|it| shelf.path().join(format!("{UNFINISHED}{it}")));
        for folder in [&folder, &ours, &other] {
            fs::create_dir(folder).unwrap();
        }
        assert!(!is_made(&folder, "1"));
        fs::write(folder.join(STAMP), "2").unwrap();
        assert!(!is_made(&folder, "1") && is_made(&folder, "2"));
        sweep(&folder, &ours).unwrap();
        assert!(ours.exists() && folder.exists() && !other.exists());
        let of = |set| made_of(&root(), set).unwrap();
        assert_eq!(of(&ACCURACY), of(&ACCURACY));
        assert_ne!(of(&ACCURACY), of(&CALIBRATION));
    }
}
