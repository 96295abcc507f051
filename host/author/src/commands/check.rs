//! `msao policy check`.

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::Which;
use super::signed::{self, Signed};
use crate::output::{Output, bytes};
use crate::plugin::Project;

/// Check that a node would take a plug-in, and say what is wrong and how to mend it
///
/// Looks at the manifest, the kind of file, its world and version of the contract, what it imports, the types of its
/// functions (by compiling it), its size, and its signature. Exit code 1 when something is wrong.
///
///   msao policy check
///   msao policy check --signed target/patient.wasm    an unsigned one is wrong too
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct CheckArgs {
    #[command(flatten)]
    which: Which,
    /// Take a missing signature for a fault.
    #[arg(long)]
    signed: bool,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Looked {
    at: &'static str,
    fine: bool,
    said: String,
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checked {
    plugin: String,
    fine: bool,
    checks: Vec<Looked>,
}

impl Checked {
    fn look(&mut self, at: &'static str, result: Result<String, String>) -> bool {
        let fine = result.is_ok();
        let (Ok(said) | Err(said)) = result;
        self.fine &= fine;
        self.checks.push(Looked { at, fine, said });
        fine
    }

    /// Whether nothing is wrong.
    pub fn is_fine(&self) -> bool {
        self.fine
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for look in &self.checks {
            let sign = if look.fine { "ok   " } else { "WRONG" };
            text.push_str(&format!("{sign} {:<10} {}\n", look.at, look.said));
        }
        text
    }
}

/// Checks a plug-in whose manifest has been read.
///
/// # Errors
/// When the component cannot be read.
pub fn check(project: &Project, must_be_signed: bool) -> anyhow::Result<Checked> {
    let manifest = &project.manifest;
    let mut checked = Checked {
        plugin: manifest.name.clone(),
        fine: true,
        checks: Vec::new(),
    };
    checked.look(
        "manifest",
        Ok(format!(
            "{} {}, world {}, {} parameters, {} reasons, {} terms",
            manifest.name,
            manifest.version,
            manifest.world,
            manifest.parameters.len(),
            manifest.reasons.len(),
            manifest.terms.len()
        )),
    );
    let wasm = match project.wasm() {
        Ok(wasm) => wasm,
        Err(error) => {
            checked.look("file", Err(format!("{error:#}")));
            return Ok(checked);
        }
    };
    let found = match msao_sandbox::inspect(&wasm) {
        Ok(found) => found,
        Err(error) => {
            checked.look("file", Err(error.to_string()));
            return Ok(checked);
        }
    };
    let kind = format!("a component, {}", bytes(found.size));
    checked.look("file", Ok(kind));
    let contract: Vec<String> = (found.contract.iter())
        .map(|(interface, version)| format!("{interface}@{version}"))
        .collect();
    // The sandbox's own checks: size, world, version, imports, types. It says the first that fails.
    let loaded = project.load(true).map(|plugin| {
        let foreign = |name: &&String| !name.starts_with("msao:offload/");
        let imports = match found.imports.iter().filter(foreign).count() {
            0 => "imports nothing but the contract's types".to_owned(),
            n => format!("imports {n} interfaces of WASI, where it finds nothing"),
        };
        format!(
            "exports {}; {imports}; {} loads",
            contract.join(", "),
            plugin.digest().short()
        )
    });
    checked.look("contract", loaded.map_err(|error| format!("{error:#}")));
    let state = signed::state(project).context("the signature")?;
    checked.look(
        "signature",
        match state {
            Signed::Holds { key, serial } => Ok(format!("serial {serial}, by {key}")),
            Signed::Unsigned if must_be_signed => {
                Err("there is none; sign it with `msao policy sign`".to_owned())
            }
            Signed::Unsigned => {
                Ok("none; nodes take it only where policy.allow-unsigned is set".to_owned())
            }
            Signed::Broken { problem } => {
                Err(format!("{problem}; sign it again with `msao policy sign`"))
            }
        },
    );
    Ok(checked)
}

pub fn run(args: &CheckArgs, output: Output) -> anyhow::Result<bool> {
    let project = match Project::open(&args.which.path) {
        Ok(project) => project,
        Err(error) => {
            let mut checked = Checked {
                plugin: args.which.path.display().to_string(),
                fine: true,
                checks: Vec::new(),
            };
            checked.look("manifest", Err(format!("{error:#}")));
            output.answer(&checked, Checked::text)?;
            return Ok(false);
        }
    };
    let checked = check(&project, args.signed)?;
    output.answer(&checked, Checked::text)?;
    Ok(checked.is_fine())
}
