//! The Python with Hugging Face transformers that speed is compared with. Only `cargo xtask prove serving` wants it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::lock::CacheLock;
use crate::pip::Pip;
use crate::places::Places;
use crate::run::answer;

/// Names a Python of the user's own. The prover reads it too.
pub const VARIABLE: &str = "MSAO_REFERENCE_PYTHON";
/// Where that Python finds the packages that were fetched.
const PACKAGES: &str = "PYTHONPATH";
/// Moves with host/bench/reference/requirements.txt.
const FOLDER: &str = "reference-transformers-5.17.0-torch-2.11.0";
/// The same with a torch that has its CUDA libraries.
const CUDA_FOLDER: &str = "reference-transformers-5.17.0-torch-2.11.0-cuda";
const REQUIREMENTS: &str = "host/bench/reference/requirements.txt";

/// The variables with which the prover finds the reference, after fetching it if need be.
///
/// On a GPU it must run there as well, for which it needs another torch than on a processor.
pub fn ensure_there(places: &Places, cuda: bool) -> Result<Vec<(&'static str, OsString)>> {
    if let Some(own) = env::var_os(VARIABLE) {
        let version = check(Path::new(&own), None).with_context(|| {
            format!(
                "{VARIABLE} is {}; set it to a Python with {REQUIREMENTS}, or unset it to have one fetched",
                own.display()
            )
        })?;
        println!("  reference        transformers {version} ({VARIABLE})");
        return Ok(Vec::new());
    }
    let pip = Pip::find()?;
    let (name, size) = match cuda {
        true => (CUDA_FOLDER, "some 6 GB on disk"),
        false => (
            FOLDER,
            "some 5 GB on disk (1.5 GB where PyTorch's own index can be reached)",
        ),
    };
    let folder = places.cache.join(name);
    if !folder.exists() {
        let lock = CacheLock::take(&places.cache)?;
        if !folder.exists() {
            println!("  Hugging Face transformers, to compare with: {size}, once for all clones");
            let requirements = places.root.join(REQUIREMENTS);
            lock.make_folder(name, |folder| {
                pip.install(&requirements, &folder.join("packages"), cuda)
            })?;
        }
    }
    let packages = folder.join("packages");
    let python = PathBuf::from(pip.python());
    let version = check(&python, Some(&packages)).with_context(|| {
        format!(
            "what was fetched does not work with this Python; delete {} and run this again",
            folder.display()
        )
    })?;
    println!(
        "  reference        transformers {version} in {}",
        folder.display()
    );
    Ok(vec![
        (VARIABLE, python.into_os_string()),
        (PACKAGES, packages.into_os_string()),
    ])
}

/// The version of transformers that a Python has, which must be the one that the requirements name.
fn check(python: &Path, packages: Option<&Path>) -> Result<String> {
    let mut command = Command::new(python);
    command.args([
        "-c",
        "import torch, transformers; print(transformers.__version__)",
    ]);
    if let Some(packages) = packages {
        command.env(PACKAGES, packages);
    }
    let version = answer(&mut command)
        .with_context(|| format!("{} cannot import torch and transformers", python.display()))?;
    let wanted = FOLDER
        .strip_prefix("reference-transformers-")
        .and_then(|rest| rest.split('-').next())
        .unwrap_or_default();
    ensure!(
        version == wanted,
        "it has transformers {version}, and the rows are held against {wanted}"
    );
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_folder_is_named_after_what_the_requirements_pin() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = fs::read_to_string(root.join(REQUIREMENTS)).unwrap();
        let pinned = |package: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(package));
            line.and_then(|rest| rest.strip_prefix("=="))
                .unwrap()
                .to_owned()
        };
        let named = format!(
            "reference-transformers-{}-torch-{}",
            pinned("transformers"),
            pinned("torch")
        );
        assert_eq!(FOLDER, named);
        assert_eq!(CUDA_FOLDER, format!("{named}-cuda"));
    }

    #[test]
    fn a_python_without_transformers_is_refused() {
        let error = check(Path::new("/nowhere/python"), None).unwrap_err();
        assert!(error.to_string().contains("cannot import"), "{error}");
    }
}
