//! What a machine was found to cost, for the simulator. Who measures it comes from outside.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

/// What is measured, and where it goes.
#[derive(Args, Clone, Debug)]
pub struct ProfileArgs {
    /// The file that is written; what is there is replaced.
    #[arg(long, value_name = "FILE", default_value = "profile.toml")]
    pub out: PathBuf,
    /// The folder with demo-draft, demo-target and heldout.
    #[arg(long, value_name = "FOLDER", default_value = "models")]
    pub models: PathBuf,
    /// The folder of components that `cargo xtask plugins` makes.
    #[arg(long, value_name = "FOLDER", default_value = "target/plugins")]
    pub plugins: PathBuf,
    /// The edge's model [default: demo-draft of --models].
    #[arg(long, value_name = "DIR", requires = "target")]
    pub draft: Option<PathBuf>,
    /// The cloud's model [default: demo-target of --models].
    #[arg(long, value_name = "DIR", requires = "draft")]
    pub target: Option<PathBuf>,
    /// Threads of each model. `msao bench run` has one.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: u16,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Profiled {
    /// The file.
    pub toml: String,
    /// The same for programs, in its order.
    pub figures: Vec<Figure>,
}

/// One figure of the file.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Figure {
    /// Its table, such as `engines.draft`.
    pub table: String,
    /// Its name, which ends with its unit where it has one.
    pub name: String,
    /// As it is written.
    pub value: f64,
    /// How it was measured.
    pub how: String,
}

impl Profiled {
    /// As a table for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut table = None;
        for figure in &self.figures {
            if table.replace(&figure.table) != Some(&figure.table) {
                out.push_str(&format!("{}\n", figure.table));
            }
            out.push_str(&format!("  {:<26} {}\n", figure.name, figure.value));
        }
        out
    }
}
