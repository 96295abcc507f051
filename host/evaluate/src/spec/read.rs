//! From a file to a checked specification.

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Arrival, ArrivalFormat, Set, Spec, check, locate};

/// Bytes of a specification at most.
const MAX_BYTES: u64 = 1 << 20;

/// Why a specification cannot be used.
#[derive(Debug, Error)]
pub enum SpecError {
    /// It cannot be read.
    #[error("{path}: {source}; name a file that can be read", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Larger than any honest one.
    #[error("{path}: has more than {MAX_BYTES} bytes; a specification is a short text", path = .0.display())]
    TooLarge(PathBuf),
    /// It is no TOML, or has a key or a type that is not allowed. The text names line and key.
    #[error("{0}")]
    Toml(String),
    /// A value that may not be.
    #[error("{at}{key} {problem}", at = .line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Value {
        /// Where it stands, from 1, if it stands somewhere.
        line: Option<usize>,
        /// The key, for instance `links[1].rtt-ms`.
        key: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

impl Spec {
    /// Reads a file, and looks whether the files that it names are there.
    ///
    /// # Errors
    /// [`SpecError`], naming the file, and the line where there is one.
    pub fn read(path: &Path) -> Result<Spec, SpecError> {
        let io = |source| SpecError::Io {
            path: path.to_owned(),
            source,
        };
        let size = fs::metadata(path).map_err(io)?.len();
        if size > MAX_BYTES {
            return Err(SpecError::TooLarge(path.to_owned()));
        }
        let text = fs::read_to_string(path).map_err(io)?;
        let spec = Spec::parse(&text).map_err(|error| match error {
            SpecError::Toml(told) => SpecError::Toml(format!("{}: {told}", path.display())),
            SpecError::Value { line, key, problem } => SpecError::Value {
                line: None,
                key: match line {
                    Some(line) => format!("{}: line {line}: {key}", path.display()),
                    None => format!("{}: {key}", path.display()),
                },
                problem,
            },
            other => other,
        })?;
        spec.files_are_there(path.parent().unwrap_or(Path::new("")))?;
        Ok(spec)
    }

    /// Reads a text, and checks every value.
    ///
    /// # Errors
    /// [`SpecError`].
    pub fn parse(text: &str) -> Result<Spec, SpecError> {
        let mut spec: Spec = toml::from_str(text).map_err(|error: toml::de::Error| {
            SpecError::Toml(error.to_string().trim_end().to_owned())
        })?;
        spec.name_all();
        check::check(&spec).map_err(|wrong| SpecError::Value {
            line: locate::line(text, &wrong.key),
            key: wrong.key,
            problem: wrong.problem,
        })?;
        Ok(spec)
    }

    /// Gives names to what has none.
    fn name_all(&mut self) {
        for data in &mut self.data {
            if data.name.is_empty() {
                let set = match data.set {
                    Set::Demo => "demo",
                    Set::Vqav2 => "vqav2",
                    Set::Mmbench => "mmbench",
                };
                data.name = format!("{set}-{}", data.workload);
            }
        }
        for arrival in &mut self.arrivals {
            let usual = match &*arrival {
                Arrival::Closed { concurrency, .. } => format!("closed-{concurrency}"),
                Arrival::Poisson { rate_per_s, .. } => format!("poisson-{rate_per_s}"),
                Arrival::Bursty { rate_per_s, .. } => format!("bursty-{rate_per_s}"),
                Arrival::Trace { format, .. } => match format {
                    ArrivalFormat::Azure => "trace-azure".to_owned(),
                    ArrivalFormat::Burstgpt => "trace-burstgpt".to_owned(),
                    ArrivalFormat::Mooncake => "trace-mooncake".to_owned(),
                },
            };
            let name = arrival.name_mut();
            if name.is_empty() {
                *name = usual;
            }
        }
    }

    /// The files and folders that it names.
    pub fn files(&self) -> Vec<(String, &Path)> {
        let mut files = Vec::new();
        for (number, data) in self.data.iter().enumerate() {
            if let Some(folder) = &data.folder {
                files.push((format!("data[{number}].folder"), folder.as_path()));
            }
        }
        for (number, data) in self.accuracy.iter().flat_map(|it| &it.data).enumerate() {
            files.push((
                format!("accuracy.data[{number}].folder"),
                data.folder.as_path(),
            ));
        }
        for (number, link) in self.links.iter().enumerate() {
            for (key, trace) in [
                ("up-trace", &link.up_trace),
                ("down-trace", &link.down_trace),
            ] {
                if let Some(trace) = trace {
                    files.push((format!("links[{number}].{key}.file"), trace.file.as_path()));
                }
            }
        }
        for (number, arrival) in self.arrivals.iter().enumerate() {
            if let Arrival::Trace { file, .. } = arrival {
                files.push((format!("arrivals[{number}].file"), file.as_path()));
            }
        }
        files
    }

    /// The command that makes a folder which it names, where it says so.
    fn made_by(&self, file: &Path) -> Option<&str> {
        let mut data = self.accuracy.iter().flat_map(|it| &it.data);
        let made = data.find(|it| it.folder == file)?;
        Some(made.made_by.as_str()).filter(|it| !it.is_empty())
    }

    /// Looks whether what it names is there, seen from `base`.
    ///
    /// # Errors
    /// [`SpecError::Value`], naming the first that is not.
    pub fn files_are_there(&self, base: &Path) -> Result<(), SpecError> {
        for (key, file) in self.files() {
            let path = base.join(file);
            if let Err(error) = fs::metadata(&path) {
                let told = match self.made_by(file) {
                    Some(command) => format!("`{command}` makes it"),
                    None => "paths are seen from the specification's folder".to_owned(),
                };
                return Err(SpecError::Value {
                    line: None,
                    key,
                    problem: format!(
                        "is {}, which cannot be read ({error}); {told}",
                        path.display()
                    ),
                });
            }
        }
        Ok(())
    }
}
