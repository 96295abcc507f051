//! pip as a fetcher: wheels are unpacked into folders of ours, nothing is ever installed into the user's Python.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::lock::remove_all;
use crate::run::answer;

/// The Python whose wheels are taken. Only their C++ libraries and headers are used, so any one does, and the
/// Python that runs pip need not be of this version.
const WHEEL_PYTHON: &str = "3.12";

/// The first that takes several `--platform`.
const OLDEST: (u32, u32) = (20, 3);

const INSTALL_HINT: &str = "\
libtorch is fetched with pip, and no Python 3 with pip was found. Install it, then run this again:
  Debian, Ubuntu   sudo apt-get install python3-pip
  Fedora           sudo dnf install python3-pip
  elsewhere        python3 -m ensurepip --user
Or point LIBTORCH to a libtorch of your own (see `cargo xtask help`).";

/// A pip that can be called.
#[derive(Debug)]
pub struct Pip {
    /// The words that start it.
    words: &'static [&'static str],
    /// What it says about itself, such as `pip 23.0.1 from ... (python 3.11)`.
    pub version: String,
}

impl Pip {
    /// Looks for a pip of Python 3 on PATH.
    pub fn find() -> Result<Self> {
        const CANDIDATES: [&[&str]; 4] = [
            &["python3", "-m", "pip"],
            &["python", "-m", "pip"],
            &["pip3"],
            &["pip"],
        ];
        let mut too_old = None;
        for words in CANDIDATES {
            let Some(version) = answer(command(words).arg("--version")) else {
                continue;
            };
            match number(&version) {
                Some(number) if number >= OLDEST => return Ok(Self { words, version }),
                _ => too_old = Some((words, version)),
            }
        }
        match too_old {
            Some((words, version)) => {
                let words = words.join(" ");
                let (major, minor) = OLDEST;
                bail!(
                    "`{words}` is {version}, and pip {major}.{minor} or newer is needed. Upgrade it: \
                     {words} install --user --upgrade pip"
                )
            }
            None => bail!("{INSTALL_HINT}"),
        }
    }

    /// Fetches the wheels that `requirements` name, without following their dependencies, and unpacks them into
    /// `folder`, which must not exist yet.
    ///
    /// Each wheel is kept in `wheels` until all are unpacked: a run that was interrupted goes on with the next one,
    /// whether or not pip's own cache may hold what this index serves. Scratch space is taken beside `folder`, so
    /// that pip's last step is a rename and `/tmp` need not hold gigabytes.
    pub fn unpack(&self, requirements: &[String], wheels: &Path, folder: &Path) -> Result<()> {
        let scratch = folder.with_extension("scratch");
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot make {}", scratch.display()))?;
        for requirement in requirements {
            let mut fetch = self.command("download", &scratch);
            fetch.arg("--dest").arg(wheels).arg(requirement);
            self.must(&mut fetch).with_context(|| {
                format!(
                    "{requirement} could not be fetched; pip's own message is above. Is there a network, and does \
                     pip's index carry this version? Run the same command again: it goes on where this one ended"
                )
            })?;
        }
        let mut install = self.command("install", &scratch);
        install.args([
            "--quiet",
            "--no-compile",
            "--no-warn-conflicts",
            "--no-index",
            "--find-links",
        ]);
        install
            .arg(wheels)
            .arg("--target")
            .arg(folder)
            .args(requirements);
        self.must(&mut install).with_context(|| {
            format!(
                "the wheels could not be unpacked; pip's own message is above. Is the disk full? If a wheel is \
                 damaged, delete {} and run the same command again",
                wheels.display()
            )
        })?;
        remove_all(&scratch)
    }

    /// Installs all that a requirements file names, dependencies included, into `folder`, for the Python that
    /// [`Pip::python`] names. Without `cuda` torch comes without its CUDA libraries, where PyTorch's own index can be reached.
    pub fn install(&self, requirements: &Path, folder: &Path, cuda: bool) -> Result<()> {
        let scratch = folder.with_extension("scratch");
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot make {}", scratch.display()))?;
        let mut install = command(self.words);
        install
            .args([
                "install",
                "--quiet",
                "--no-warn-conflicts",
                "--only-binary=:all:",
            ])
            .args(match cuda {
                true => Vec::new(),
                false => self.torch_index(&scratch),
            })
            .arg("--target")
            .arg(folder)
            .arg("--requirement")
            .arg(requirements);
        self.must(settled(&mut install, &scratch))
            .with_context(|| {
                format!(
                    "{} could not be installed; pip's own message is above. Is there a network?",
                    requirements.display()
                )
            })?;
        remove_all(&scratch)
    }

    /// The option that names PyTorch's own index, whose torch is for the processor alone, if it answers: pip would
    /// otherwise ask a silent one for minutes, package by package.
    fn torch_index(&self, scratch: &Path) -> Vec<&'static str> {
        const CPU: &str = "https://download.pytorch.org/whl/cpu";
        let mut ask = command(self.words);
        ask.args(["install", "--dry-run", "--quiet", "--no-deps"])
            .args([
                "--retries",
                "0",
                "--timeout",
                "5",
                "--index-url",
                CPU,
                "torch",
            ])
            .arg("--target")
            .arg(scratch.join("asked"));
        match answer(settled(&mut ask, scratch)) {
            Some(_) => vec!["--extra-index-url", CPU],
            None => Vec::new(),
        }
    }

    /// The Python that this pip belongs to.
    pub fn python(&self) -> &'static str {
        match self.words.first() {
            Some(&"python" | &"pip") => "python",
            _ => "python3",
        }
    }

    fn command(&self, verb: &str, scratch: &Path) -> Command {
        let mut command = command(self.words);
        command
            .args([verb, "--no-deps", "--only-binary=:all:"])
            .args(["--implementation", "cp", "--python-version", WHEEL_PYTHON])
            .args(platforms(std::env::consts::ARCH));
        settled(&mut command, scratch);
        command
    }

    /// Not shown as typed: thirty platforms hide what matters.
    fn must(&self, command: &mut Command) -> Result<()> {
        let words = self.words.join(" ");
        let status = command
            .status()
            .with_context(|| format!("cannot run {words}"))?;
        ensure!(status.success(), "`{words}` ended with {status}");
        Ok(())
    }
}

/// With scratch space of ours, and without a user's own settings about where packages go: they would clash with --target.
fn settled<'a>(command: &'a mut Command, scratch: &Path) -> &'a mut Command {
    command
        .env("TMPDIR", scratch)
        .env("PIP_USER", "0")
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .env("PIP_ROOT_USER_ACTION", "ignore")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
}

fn command(words: &[&str]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().copied().unwrap_or("pip"));
    command.args(words);
    command
}

/// The version in `pip 23.0.1 from /usr/lib/... (python 3.11)`, if the Python is a 3.
fn number(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.strip_prefix("pip ")?.split(['.', ' ']);
    let number = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    version.contains("(python 3").then_some(number)
}

/// `--platform` for every manylinux that torch 2.11 and its CUDA libraries are published for. pip does not know
/// that a newer glibc runs wheels made for older ones when it is told the platform, so each is named.
fn platforms(arch: &str) -> Vec<OsString> {
    let numbered = (5..=28)
        .rev()
        .map(|glibc_minor| format!("manylinux_2_{glibc_minor}_{arch}"));
    let named = ["manylinux2014", "manylinux2010", "manylinux1", "linux"]
        .map(|platform| format!("{platform}_{arch}"));
    numbered
        .chain(named)
        .flat_map(|platform| ["--platform".into(), platform.into()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_a_pip_for_python_3() {
        let path = "from /usr/lib/python3/dist-packages/pip";
        assert_eq!(
            number(&format!("pip 23.0.1 {path} (python 3.11)")),
            Some((23, 0))
        );
        assert_eq!(
            number(&format!("pip 21.0 {path} (python 3.11)")),
            Some((21, 0))
        );
        assert_eq!(number(&format!("pip 20.3.4 {path} (python 2.7)")), None);
        assert_eq!(number("something else"), None);
    }

    #[test]
    fn names_the_platforms_of_this_architecture() {
        let platforms = platforms("aarch64");
        assert!(platforms.contains(&"manylinux_2_28_aarch64".into()));
        assert!(platforms.contains(&"manylinux2014_aarch64".into()));
        assert!(
            !platforms
                .iter()
                .any(|word| word.to_string_lossy().contains("x86"))
        );
    }
}
