//! pip as a fetcher: wheels are unpacked into a folder of ours, no Python package is ever installed.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::answer;

/// The Python whose wheels are taken. Only their C++ libraries and headers are used, so any one does, and the
/// Python that runs pip need not be of this version.
const WHEEL_PYTHON: &str = "3.12";

/// pip 21 is the first that takes several `--platform`.
const OLDEST: u32 = 21;

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
            match major(&version) {
                Some(major) if major >= OLDEST => return Ok(Self { words, version }),
                _ => too_old = Some((words, version)),
            }
        }
        match too_old {
            Some((words, version)) => {
                let words = words.join(" ");
                bail!(
                    "`{words}` is {version}, and pip {OLDEST} or newer is needed. Upgrade it: \
                     {words} install --user --upgrade pip"
                )
            }
            None => bail!("{INSTALL_HINT}"),
        }
    }

    /// Fetches `requirements` and unpacks them into `folder`, which must not exist yet. Scratch space is taken
    /// beside it, so that the last step is a rename and `/tmp` need not hold gigabytes.
    ///
    /// `whole` says that `requirements` name all that is wanted, with no dependencies to follow.
    pub fn unpack(&self, requirements: &[String], folder: &Path, whole: bool) -> Result<()> {
        let scratch = folder.with_extension("scratch");
        fs::create_dir_all(&scratch)
            .with_context(|| format!("cannot make {}", scratch.display()))?;
        let mut command = command(self.words);
        command
            .args([
                "install",
                "--no-compile",
                "--only-binary=:all:",
                "--no-warn-conflicts",
            ])
            .args(whole.then_some("--no-deps"))
            .args(["--implementation", "cp", "--python-version", WHEEL_PYTHON])
            .args(platforms(std::env::consts::ARCH))
            .arg("--target")
            .arg(folder)
            .args(requirements)
            .env("TMPDIR", &scratch)
            // A user's own settings about where packages go would clash with --target.
            .env("PIP_USER", "0")
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        // Not shown as typed: thirty platforms hide what matters.
        println!(
            "  fetching {} with {}",
            requirements.join(", "),
            self.words.join(" ")
        );
        let status = command
            .status()
            .with_context(|| format!("cannot run {}", self.words.join(" ")))?;
        if !status.success() {
            bail!(
                "pip could not fetch {} (its own message is above). Is there a network, and does pip's index carry \
                 these versions? Run the same command again: wheels that arrived whole are not fetched twice",
                requirements.join(", ")
            );
        }
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
    }
}

fn command(words: &[&str]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().copied().unwrap_or("pip"));
    command.args(words);
    command
}

/// The major version in `pip 23.0.1 from /usr/lib/... (python 3.11)`, if the Python is a 3.
fn major(version: &str) -> Option<u32> {
    let number = version
        .strip_prefix("pip ")?
        .split(['.', ' '])
        .next()?
        .parse()
        .ok()?;
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
        assert_eq!(
            major("pip 23.0.1 from /usr/lib/python3/dist-packages/pip (python 3.11)"),
            Some(23)
        );
        assert_eq!(
            major("pip 20.3.4 from /usr/lib/python2.7/dist-packages/pip (python 2.7)"),
            None
        );
        assert_eq!(major("something else"), None);
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
