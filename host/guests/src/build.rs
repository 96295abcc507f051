//! Calling a language's tool.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use msao_core::offload::manifest::World;

use crate::tools::{RUST_TARGET, Tools};
use crate::{Language, c, wit};

/// Why there is no component.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No known source in the folder.
    #[error(
        "{} holds no plug-in's source; expected: Cargo.toml (Rust), policy.c, policy.js or policy.py",
        .0.display()
    )]
    NoSource(PathBuf),
    /// A tool is not there; says how to get it.
    #[error("{0}")]
    Missing(String),
    /// A tool said no; it has printed why.
    #[error("{tool} ended with {status}; its own message is above")]
    Failed {
        /// Which.
        tool: String,
        /// How it ended.
        status: String,
    },
    /// What came out is not what was expected.
    #[error("{0}")]
    Unexpected(String),
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// For `map_err`, with the file's name.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> BuildError + '_ {
    move |error| BuildError::File {
        path: path.to_owned(),
        error,
    }
}

/// What is built.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The plug-in's folder.
    pub folder: &'a Path,
    /// The world that its manifest names. A policy that exports `explain` gets `explaining-policy` by itself.
    pub world: World,
}

/// Makes a component of a plug-in's sources and writes it to `component`, whose folder is made. Tools print to
/// standard error. Returns the language.
///
/// # Errors
/// [`BuildError`]; an older component is then left as it was.
pub fn build(source: &Source, component: &Path, tools: &Tools) -> Result<Language, BuildError> {
    let language = Language::of(source.folder)
        .ok_or_else(|| BuildError::NoSource(source.folder.to_owned()))?;
    let folder = component.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(at(folder))?;
    let scratch = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(folder)
        .map_err(at(folder))?;
    let contract = scratch.path().join("wit");
    wit::write(&contract).map_err(at(&contract))?;
    let made = scratch.path().join("component.wasm");
    match language {
        Language::Rust => rust(source.folder, &made)?,
        Language::C => c::build(source, &contract, scratch.path(), &made, tools)?,
        Language::JavaScript => javascript(source, &contract, &made, tools)?,
        Language::Python => python(source, &contract, scratch.path(), &made, tools)?,
    }
    fs::rename(&made, component).map_err(at(component))?;
    Ok(language)
}

/// The world's name in the contract. Whether a policy explains itself its source says: `words` is how its language writes
/// the export.
pub(crate) fn world_of(
    source: &Source,
    language: Language,
    words: &str,
) -> Result<String, BuildError> {
    let path = source.folder.join(language.source());
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    Ok(match source.world {
        World::OffloadPolicy if text.contains(words) => "explaining-policy".to_owned(),
        world => world.to_string(),
    })
}

/// Runs a tool. What it prints goes to standard error: standard output belongs to the caller's own answer.
pub(crate) fn run(command: &mut Command) -> Result<(), BuildError> {
    let tool = Path::new(command.get_program())
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let failed = |status: String| BuildError::Failed { tool, status };
    let output = command.stdin(Stdio::null()).output();
    let output = match output {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => output,
        Err(error) => return Err(failed(error.to_string())),
    };
    let said = [output.stdout, output.stderr].concat();
    let _ = io::Write::write_all(&mut io::stderr(), &said);
    Err(failed(output.status.to_string()))
}

fn rust(folder: &Path, made: &Path) -> Result<(), BuildError> {
    let manifest = folder.join("Cargo.toml");
    let mut cargo = Command::new("cargo");
    cargo
        .args(["build", "--release", "--target", RUST_TARGET, "--lib"])
        .arg("--message-format=json-render-diagnostics")
        .arg("--manifest-path")
        .arg(&manifest)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = cargo.output().map_err(at(&manifest))?;
    if !output.status.success() {
        return Err(BuildError::Failed {
            tool: "cargo".to_owned(),
            status: output.status.to_string(),
        });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // The plug-in is built last, after what it depends on.
    let component = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| {
            message
                .get("reason")
                .is_some_and(|reason| reason == "compiler-artifact")
        })
        .filter_map(|message| {
            message
                .get("filenames")
                .and_then(|names| names.as_array().cloned())
        })
        .flatten()
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .rfind(|name| name.extension() == Some(OsStr::new("wasm")));
    let component = component.ok_or_else(|| {
        BuildError::Unexpected(format!(
            "{} makes no component: it needs `[lib] crate-type = [\"cdylib\"]`",
            manifest.display()
        ))
    })?;
    fs::copy(&component, made).map_err(at(&component))?;
    Ok(())
}

fn javascript(
    source: &Source,
    contract: &Path,
    made: &Path,
    tools: &Tools,
) -> Result<(), BuildError> {
    let world = world_of(source, Language::JavaScript, "export const explanation")?;
    let tool = tools.componentize_qjs().map_err(BuildError::Missing)?;
    // Without --sync the component would speak the asynchronous ABI, which no host of this contract does.
    run(tool
        .command()
        .args(["--sync", "--stub-wasi", "--world", &world])
        .arg("--wit")
        .arg(contract)
        .arg("--js")
        .arg(source.folder.join(Language::JavaScript.source()))
        .arg("--output")
        .arg(made))
}

fn python(
    source: &Source,
    contract: &Path,
    scratch: &Path,
    made: &Path,
    tools: &Tools,
) -> Result<(), BuildError> {
    let world = world_of(source, Language::Python, "class Explanation(")?;
    let tool = tools.componentize_py().map_err(BuildError::Missing)?;
    // The whole folder would be taken into the component, and its path with it: of the sources alone, a copy.
    let sources = scratch.join("sources");
    copy_sources(source.folder, &sources, "py")?;
    run(tool
        .command()
        .current_dir(&sources)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg("--wit-path")
        .arg(absolute(contract)?)
        .args(["--world", &world])
        .args(["componentize", "--stub-wasi", "policy", "--output"])
        .arg(absolute(made)?))
}

fn absolute(path: &Path) -> Result<PathBuf, BuildError> {
    std::path::absolute(path).map_err(at(path))
}

/// Copies the files with this extension that lie in `folder` itself.
pub(crate) fn copy_sources(folder: &Path, to: &Path, extension: &str) -> Result<(), BuildError> {
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in fs::read_dir(folder).map_err(at(folder))?.flatten() {
        let path = entry.path();
        if path.extension() == Some(OsStr::new(extension)) {
            fs::copy(&path, to.join(entry.file_name())).map_err(at(&path))?;
        }
    }
    Ok(())
}
