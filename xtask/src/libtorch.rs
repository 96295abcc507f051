//! libtorch: whose is used, what is fetched, how it is laid out.
//!
//! torch's wheel on PyPI carries libtorch and its headers. torch-sys wants the shape of a libtorch archive, so set-up
//! makes one of links around the unpacked wheel, with the CPU half alone to link against:
//!
//! ```text
//! ~/.cache/msao/libtorch-2.11.0-cpu/
//!   wheel/           torch, nvidia (CUDA runtime and CUPTI, which libtorch_cpu.so is linked with)
//!   lib/             links to the libraries of the CPU half; libtorch.so, a linker script that names them
//!   include          -> wheel/torch/include
//!   build-version    2.11.0
//! ```
//!
//! The CUDA half of the same wheel is never linked; [`crate::cuda`] adds what it needs to be opened.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::lock::CacheLock;
use crate::pip::Pip;
use crate::places::{Places, relink};
use crate::run::answer;

/// Moves together with `tch` in the workspace's Cargo.toml.
pub const VERSION: &str = "2.11.0";

/// What libtorch_cpu.so is linked with beyond its own wheel, as torch 2.11.0's `cuda-toolkit==13.0.2` pins it.
const CPU_COMPANIONS: [&str; 2] = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-cupti==13.0.85"];

/// The headers that CUDA's own headers ask for, which no wheel above has.
const CUDA_HEADERS: &str = "nvidia-cuda-crt==13.0.88";

/// The name of a folder in the cache: with its version, so that checkouts of different age do not disturb each other.
pub fn folder_name(half: &str) -> String {
    format!("libtorch-{VERSION}-{half}")
}

/// Whose libtorch the build uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `LIBTORCH_USE_PYTORCH`: the PyTorch of the active Python environment.
    PyTorch,
    /// `LIBTORCH`: a folder of the user's.
    User(PathBuf),
    /// The one that set-up fetches.
    Ours,
}

/// What set-up found or made.
#[derive(Debug)]
pub struct Libtorch {
    pub source: Source,
    /// Its folder; unknown for a PyTorch, which torch-sys asks by itself.
    pub folder: Option<PathBuf>,
}

impl Libtorch {
    /// One line for people.
    pub fn describe(&self) -> String {
        let folder = self
            .folder
            .as_deref()
            .map(|folder| folder.display().to_string());
        let folder = folder.unwrap_or_default();
        match self.source {
            Source::PyTorch => "of the active Python's PyTorch (LIBTORCH_USE_PYTORCH)".to_owned(),
            Source::User(_) => format!("in {folder} (LIBTORCH)"),
            Source::Ours => format!("in {folder}"),
        }
    }
}

/// Reads the choice from the environment.
pub fn source(places: &Places) -> Source {
    choose(
        env::var_os("LIBTORCH_USE_PYTORCH").is_some(),
        env::var_os("LIBTORCH"),
        &places.libtorch_link(),
    )
}

/// cargo sets LIBTORCH to our own link (`.cargo/config.toml`) when the user has not set it. torch-sys takes any
/// LIBTORCH_USE_PYTORCH for a yes, and before LIBTORCH.
fn choose(use_pytorch: bool, libtorch: Option<OsString>, link: &Path) -> Source {
    match libtorch.map(PathBuf::from) {
        _ if use_pytorch => Source::PyTorch,
        Some(folder) if folder != link => Source::User(folder),
        _ => Source::Ours,
    }
}

/// Looks without changing anything: the libtorch that a build would use now, or why there is none.
pub fn look(places: &Places) -> Result<Libtorch> {
    let source = source(places);
    let folder = match &source {
        Source::PyTorch => {
            check_pytorch()?;
            None
        }
        Source::User(folder) => {
            check(folder).with_context(|| {
                format!(
                    "LIBTORCH is {}; set it to a libtorch {VERSION}, or unset it to have one fetched",
                    folder.display()
                )
            })?;
            Some(folder.clone())
        }
        Source::Ours => {
            let link = places.libtorch_link();
            check(&link)?;
            Some(
                fs::canonicalize(&link)
                    .with_context(|| format!("cannot follow {}", link.display()))?,
            )
        }
    };
    Ok(Libtorch { source, folder })
}

/// Makes sure that there is a libtorch to build with, fetching it where the user has none of their own.
pub fn ensure_there(places: &Places) -> Result<Libtorch> {
    if source(places) == Source::Ours && check(&places.libtorch_link()).is_err() {
        let cached = places.cache.join(folder_name("cpu"));
        let lock = CacheLock::take(&places.cache)?;
        // Looked at under the lock: another set-up may just have made it.
        if check(&cached).is_err() {
            fetch(&lock)?;
        }
        drop(lock);
        relink(&cached, &places.libtorch_link())?;
    }
    if source(places) == Source::Ours {
        ensure_cuda_headers(places)?;
    }
    look(places)
}

/// Is this a whole libtorch of our version, headers and all?
fn check(folder: &Path) -> Result<()> {
    let include =
        env::var_os("LIBTORCH_INCLUDE").map_or_else(|| folder.to_path_buf(), PathBuf::from);
    let lib = env::var_os("LIBTORCH_LIB").map_or_else(|| folder.to_path_buf(), PathBuf::from);
    for needed in [
        lib.join("lib/libtorch_cpu.so"),
        lib.join("lib/libc10.so"),
        lib.join("lib/libtorch.so"),
        include.join("include/torch/csrc/api/include/torch/torch.h"),
    ] {
        ensure!(needed.exists(), "{} is missing", needed.display());
    }
    if env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_none()
        && let Some(version) = version_of(folder)
    {
        ensure!(
            version == VERSION,
            "{} is libtorch {version}, and this build wants {VERSION}",
            folder.display()
        );
    }
    Ok(())
}

/// The version without its `+cu130`: archives say it in `build-version`, Python packages in `version.py`. A
/// libtorch that says it nowhere is taken at its user's word, as torch-sys does.
fn version_of(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join("build-version"))
        .ok()
        .or_else(|| {
            let script = fs::read_to_string(folder.join("version.py")).ok()?;
            let value = script
                .lines()
                .find_map(|line| line.strip_prefix("__version__ = "))?;
            Some(value.trim_matches(['\'', '"']).to_owned())
        })?;
    text.trim().split('+').next().map(str::to_owned)
}

fn check_pytorch() -> Result<()> {
    let script = "import torch; print(torch.__version__.split('+')[0])";
    // The same choice as torch-sys makes.
    let python = if env::var_os("VIRTUAL_ENV").is_some() {
        "python"
    } else {
        "python3"
    };
    match answer(Command::new(python).args(["-c", script])) {
        Some(version) if version == VERSION => Ok(()),
        Some(_) if env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some() => Ok(()),
        Some(version) => bail!(
            "LIBTORCH_USE_PYTORCH is set, and `{python}` has torch {version} where {VERSION} is wanted: install \
             torch=={VERSION}, or unset it to have libtorch fetched"
        ),
        None => bail!(
            "LIBTORCH_USE_PYTORCH is set, and `{python}` cannot import torch: install torch=={VERSION} in the active \
             environment, or unset it to have libtorch fetched"
        ),
    }
}

/// Adds the headers that the engine's own CUDA code needs, and no GPU, to the libtorch that set-up fetched.
fn ensure_cuda_headers(places: &Places) -> Result<()> {
    const INCLUDE: &str = "wheel/nvidia/cu13/include";
    let home = fs::canonicalize(places.libtorch_link())
        .with_context(|| format!("cannot follow {}", places.libtorch_link().display()))?;
    let crt = home.join(INCLUDE).join("crt");
    if crt.exists() {
        return Ok(());
    }
    let lock = CacheLock::take(&places.cache)?;
    if crt.exists() {
        return Ok(());
    }
    let pip = Pip::find()?;
    let name = format!("cuda-headers-{VERSION}");
    let folder = lock.make_folder(&name, |folder| {
        pip.unpack(
            &[CUDA_HEADERS.to_owned()],
            &lock.wheels(),
            &folder.join("wheel"),
        )
    })?;
    // In one step, so that what is there is whole.
    fs::rename(folder.join(INCLUDE).join("crt"), &crt)
        .with_context(|| format!("cannot make {}", crt.display()))?;
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
}

fn fetch(lock: &CacheLock) -> Result<PathBuf> {
    let pip = Pip::find()?;
    println!(
        "  libtorch {VERSION} comes from torch's wheel: 0.5 GB to fetch, 1.3 GB on disk, once for all clones"
    );
    lock.make_folder(&folder_name("cpu"), |folder| {
        let mut requirements = vec![format!("torch=={VERSION}")];
        requirements.extend(CPU_COMPANIONS.map(str::to_owned));
        pip.unpack(&requirements, &lock.wheels(), &folder.join("wheel"))?;
        lay_out(folder)
    })
}

/// Builds the shape of a libtorch archive around `folder/wheel`.
fn lay_out(folder: &Path) -> Result<()> {
    let lib = folder.join("lib");
    fs::create_dir_all(&lib).with_context(|| format!("cannot make {}", lib.display()))?;
    for (from, wanted) in [
        ("wheel/torch/lib", of_cpu_half as fn(&str) -> bool),
        ("wheel/nvidia/cu13/lib", of_cpu_companions),
    ] {
        for name in names_in(&folder.join(from), wanted)? {
            relink(&Path::new("..").join(from).join(&name), &lib.join(&name))?;
        }
    }
    // `-ltorch` asks for a library that in the wheel pulls in the CUDA half; this script stands in for it.
    write(&lib.join("libtorch.so"), "INPUT(libtorch_cpu.so)\n")?;
    relink(Path::new("wheel/torch/include"), &folder.join("include"))?;
    // Last: `check` takes a folder with a version for a whole one.
    write(&folder.join("build-version"), &format!("{VERSION}\n"))?;
    check(folder).context("the wheel does not hold what was expected of it")
}

/// The libraries in the wheel that libtorch_cpu.so needs. On x86-64 these are c10 and gomp, on aarch64 the Arm
/// Compute Library and the NVIDIA linear algebra ones as well.
fn of_cpu_half(name: &str) -> bool {
    const OTHERS: [&str; 6] = ["cuda", "nvrtc", "nvshmem", "python", "shm", "global_deps"];
    name.contains(".so") && name != "libtorch.so" && !OTHERS.iter().any(|part| name.contains(part))
}

fn of_cpu_companions(name: &str) -> bool {
    name.starts_with("libcudart.so.") || name.starts_with("libcupti.so.")
}

/// The names in `folder` that are wanted.
pub fn names_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("no {}: was the wheel's layout changed?", folder.display()))?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| wanted(name)).collect())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libtorch_of_the_users_goes_first() {
        let link = Path::new("/clone/.deps/libtorch");
        let choose =
            |pytorch, libtorch: Option<&str>| choose(pytorch, libtorch.map(Into::into), link);
        assert_eq!(choose(false, None), Source::Ours);
        assert_eq!(choose(false, Some("/clone/.deps/libtorch")), Source::Ours);
        assert_eq!(
            choose(false, Some("/opt/libtorch")),
            Source::User("/opt/libtorch".into())
        );
        assert_eq!(choose(true, Some("/opt/libtorch")), Source::PyTorch);
    }

    /// A wheel with the names that torch 2.11.0 has.
    fn wheel(folder: &Path, torch_libs: &[&str]) {
        let put = |path: String| {
            let path = folder.join("wheel").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        for name in torch_libs {
            put(format!("torch/lib/{name}"));
        }
        for name in [
            "libcudart.so.13",
            "libcupti.so.13",
            "libnvperf_host.so",
            "libcudadevrt.a",
        ] {
            put(format!("nvidia/cu13/lib/{name}"));
        }
        put("torch/include/torch/csrc/api/include/torch/torch.h".to_owned());
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().flatten();
        let mut names: Vec<_> = entries
            .map(|e| e.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_layout_links_the_cpu_half_alone() {
        let folder = tempfile::tempdir().unwrap();
        let x86_64 = [
            "libc10.so",
            "libc10_cuda.so",
            "libcaffe2_nvrtc.so",
            "libgomp.so.1",
            "libshm.so",
            "libtorch.so",
            "libtorch_cpu.so",
            "libtorch_cuda.so",
            "libtorch_cuda_linalg.so",
            "libtorch_global_deps.so",
            "libtorch_nvshmem.so",
            "libtorch_python.so",
        ];
        wheel(folder.path(), &x86_64);
        lay_out(folder.path()).unwrap();
        assert_eq!(
            names(&folder.path().join("lib")),
            [
                "libc10.so",
                "libcudart.so.13",
                "libcupti.so.13",
                "libgomp.so.1",
                "libtorch.so",
                "libtorch_cpu.so"
            ]
        );
        assert_eq!(
            fs::read_link(folder.path().join("lib/libtorch_cpu.so")).unwrap(),
            Path::new("../wheel/torch/lib/libtorch_cpu.so")
        );
        check(folder.path()).unwrap();
    }

    #[test]
    fn a_layout_with_a_part_missing_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        wheel(folder.path(), &["libc10.so", "libgomp.so.1"]);
        let error = lay_out(folder.path()).unwrap_err();
        assert!(
            format!("{error:#}").contains("libtorch_cpu.so is missing"),
            "{error:#}"
        );
    }

    #[test]
    fn another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        wheel(folder.path(), &["libc10.so", "libtorch_cpu.so"]);
        lay_out(folder.path()).unwrap();
        fs::write(folder.path().join("build-version"), "2.9.0+cpu\n").unwrap();
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(
            error.contains("is libtorch 2.9.0, and this build wants 2.11.0"),
            "{error}"
        );
    }

    #[test]
    fn a_python_package_says_its_version_too() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("version.py"),
            "x = 1\n__version__ = '2.11.0+cu130'\n",
        )
        .unwrap();
        assert_eq!(version_of(folder.path()).as_deref(), Some("2.11.0"));
    }
}
