//! The CUDA libraries: which, from where, and how torch finds them.
//!
//! The wheel that libtorch comes from holds the CUDA half too (`wheel/torch/lib/libtorch_cuda.so`). It is never
//! linked: a program opens it at start-up where there is a GPU. It looks for NVIDIA's libraries in
//! `$ORIGIN/../../nvidia/*/lib`, that is in `wheel/nvidia`. They are fetched into a folder of their own,
//! `~/.cache/msao/libtorch-2.11.0-cuda`, because only a whole folder can appear in one step, and then linked file by
//! file to where they are looked for: whole folders would not do, for the loader takes `..` after a link.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::libtorch::{Libtorch, Source, VERSION, folder_name, names_in};
use crate::lock::{CacheLock, remove_all};
use crate::metadata::{cuda_requirements, extra_requirements, split_extras};
use crate::pip::Pip;
use crate::places::relink;

/// One line on the CUDA half, for people.
pub fn state(libtorch: &Libtorch) -> Result<String> {
    const MISSING: &str =
        "not there; only a GPU needs them. To have them: cargo xtask setup --cuda";
    let there = match (&libtorch.source, &libtorch.folder) {
        (Source::PyTorch, _) | (_, None) => return Ok("as that PyTorch has them".to_owned()),
        (Source::User(_), Some(home)) => home.join("lib/libtorch_cuda.so").exists(),
        (Source::Ours, Some(home)) => {
            let cuda = fetched(home);
            cuda.exists() && links(&cuda, home)?.iter().all(|link| link.exists(home))
        }
    };
    Ok(if there {
        "there".to_owned()
    } else {
        MISSING.to_owned()
    })
}

/// Adds the CUDA libraries to our libtorch; for a libtorch of the user's, checks that it has its CUDA half.
/// Returns where they are, for people.
pub fn ensure_there(libtorch: &Libtorch) -> Result<String> {
    match (&libtorch.source, &libtorch.folder) {
        (Source::PyTorch, _) | (_, None) => Ok("of the active Python's PyTorch".to_owned()),
        (Source::User(_), Some(home)) => {
            let half = home.join("lib/libtorch_cuda.so");
            ensure!(
                half.exists(),
                "{} is missing: this libtorch is for CPUs alone. Set LIBTORCH to one with CUDA, or unset it",
                half.display()
            );
            Ok(format!("in {}", home.display()))
        }
        (Source::Ours, Some(home)) => {
            let cuda = fetched(home);
            if !cuda.exists() {
                fetch(home, &cuda)?;
            }
            for link in links(&cuda, home)? {
                if !link.exists(home) {
                    relink(&link.target, &home.join(&link.name))?;
                }
            }
            Ok(format!("in {}", cuda.display()))
        }
    }
}

/// Beside the libtorch that they are for, which need not lie in the cache folder of today's environment.
fn fetched(home: &Path) -> PathBuf {
    home.with_file_name(folder_name("cuda"))
}

fn fetch(home: &Path, cuda: &Path) -> Result<()> {
    let cache = cuda.parent().context("no cache folder")?;
    let lock = CacheLock::take(cache)?;
    // Looked at again under the lock: another set-up may just have made it.
    if cuda.exists() {
        return Ok(());
    }
    let pip = Pip::find()?;
    println!(
        "  the CUDA libraries that torch {VERSION} requires: 2 GB to fetch, 3 GB on disk, once for all clones"
    );
    lock.make_folder(&folder_name("cuda"), |folder| {
        let wheels = lock.wheels();
        let torch = metadata(&home.join("wheel"), "torch")?;
        let peek = folder.join("peek");
        let requirements = resolve(&torch, |toolkit| {
            pip.unpack(&[toolkit], &wheels, &peek)?;
            metadata(&peek, "cuda_toolkit")
        })?;
        remove_all(&peek)?;
        pip.unpack(&requirements, &wheels, &folder.join("wheel"))
    })?;
    Ok(())
}

/// All wheels that a torch's metadata asks for; `toolkit_metadata` fetches the toolkit's, which names the rest.
fn resolve(
    torch: &str,
    toolkit_metadata: impl Fn(String) -> Result<String>,
) -> Result<Vec<String>> {
    let mut wheels = Vec::new();
    for requirement in cuda_requirements(torch) {
        match split_extras(&requirement) {
            Some((extras, toolkit)) => {
                wheels.extend(extra_requirements(&toolkit_metadata(toolkit)?, &extras));
            }
            None => wheels.push(requirement),
        }
    }
    ensure!(
        !wheels.is_empty(),
        "torch's metadata names no CUDA libraries"
    );
    Ok(wheels)
}

/// The METADATA of a package among unpacked wheels.
fn metadata(wheels: &Path, package: &str) -> Result<String> {
    let folders = names_in(wheels, |name| {
        name.starts_with(&format!("{package}-")) && name.ends_with(".dist-info")
    })?;
    let folder = folders
        .first()
        .with_context(|| format!("{} holds no {package}", wheels.display()))?;
    let file = wheels.join(folder).join("METADATA");
    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

/// A library where torch looks for it.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    /// Relative to libtorch's folder.
    name: PathBuf,
    /// Relative to the folder that the link lies in, so that the cache folder may move.
    target: PathBuf,
}

impl Link {
    fn exists(&self, home: &Path) -> bool {
        home.join(&self.name).exists()
    }
}

/// The links from `wheel/nvidia/PACKAGE/lib` to all libraries that were fetched.
fn links(cuda: &Path, home: &Path) -> Result<Vec<Link>> {
    let nvidia = Path::new("wheel/nvidia");
    let up = Path::new("../../../../..");
    let beside = cuda
        .file_name()
        .with_context(|| format!("{} has no name", home.display()))?;
    let mut links = Vec::new();
    for package in names_in(&cuda.join(nvidia), |_| true)? {
        let folder = nvidia.join(package).join("lib");
        if !cuda.join(&folder).is_dir() {
            continue;
        }
        for library in names_in(&cuda.join(&folder), |name| name.contains(".so"))? {
            let name = folder.join(library);
            let target = up.join(beside).join(&name);
            links.push(Link { name, target });
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: PathBuf) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn libraries_are_linked_to_where_torch_looks_and_what_is_there_stays() {
        let cache = tempfile::tempdir().unwrap();
        let home = cache.path().join("libtorch-2.11.0-cpu");
        let cuda = fetched(&home);
        put(home.join("wheel/nvidia/cu13/lib/libcudart.so.13"));
        for library in [
            "cu13/lib/libcudart.so.13",
            "cu13/lib/libcublas.so.13",
            "cudnn/lib/libcudnn.so.9",
        ] {
            put(cuda.join("wheel/nvidia").join(library));
        }
        put(cuda.join("wheel/nvidia/cu13/include/cuda.h"));

        let libtorch = Libtorch {
            source: Source::Ours,
            folder: Some(home.clone()),
        };
        assert!(state(&libtorch).unwrap().starts_with("not there"));
        ensure_there(&libtorch).unwrap();
        assert_eq!(state(&libtorch).unwrap(), "there");

        let nvidia = home.join("wheel/nvidia");
        for library in ["cu13/lib/libcublas.so.13", "cudnn/lib/libcudnn.so.9"] {
            assert_eq!(
                fs::canonicalize(nvidia.join(library)).unwrap(),
                fs::canonicalize(cuda.join("wheel/nvidia").join(library)).unwrap()
            );
        }
        assert!(!nvidia.join("cu13/lib/libcudart.so.13").is_symlink());
        assert!(!nvidia.join("cu13/include").exists());
    }

    #[test]
    fn the_toolkit_is_asked_for_its_extras() {
        let torch = "\
Requires-Dist: cuda-toolkit[cublas]==13.0.2; platform_system == \"Linux\"
Requires-Dist: nvidia-cudnn-cu13==9.19.0.56; platform_system == \"Linux\"
";
        let wheels = resolve(torch, |toolkit| {
            assert_eq!(toolkit, "cuda-toolkit==13.0.2");
            Ok("Requires-Dist: nvidia-cublas==13.1.0.3.*; extra == \"cublas\"".to_owned())
        });
        assert_eq!(
            wheels.unwrap(),
            ["nvidia-cublas==13.1.0.3.*", "nvidia-cudnn-cu13==9.19.0.56"]
        );
        assert!(resolve("Name: torch", |_| Ok(String::new())).is_err());
    }
}
