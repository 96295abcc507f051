//! Which language a plug-in is written in.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// A language that there are tools for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// Rust, with the SDK in `plugins/sdk` or without.
    Rust,
    /// C, with bindings made by wit-bindgen.
    C,
    /// JavaScript, in QuickJS.
    JavaScript,
    /// Python, in CPython.
    Python,
}

impl Language {
    /// All of them.
    pub const ALL: [Language; 4] = [
        Language::Rust,
        Language::C,
        Language::JavaScript,
        Language::Python,
    ];

    /// The name on a command line, and that of the folder of its template.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::C => "c",
            Language::JavaScript => "javascript",
            Language::Python => "python",
        }
    }

    /// The file in a plug-in's folder that says that it is written in this language.
    pub fn source(self) -> &'static str {
        match self {
            Language::Rust => "Cargo.toml",
            Language::C => "policy.c",
            Language::JavaScript => "policy.js",
            Language::Python => "policy.py",
        }
    }

    /// The language of the plug-in in `folder`: the first whose source is there.
    pub fn of(folder: &Path) -> Option<Language> {
        (Language::ALL.into_iter()).find(|language| folder.join(language.source()).is_file())
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Language {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        (Language::ALL.into_iter())
            .find(|language| language.name() == name)
            .ok_or_else(|| {
                format!("\"{name}\" is no language; allowed: rust, c, javascript, python")
            })
    }
}
