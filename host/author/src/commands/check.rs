//! `msao policy check`.

use anyhow::Context;
use clap::Args;
use msao_core::offload::manifest::{Ahead, Manifest, World};
use msao_sandbox::{Inspection, LoadError};
use serde::Serialize;

use super::Which;
use super::signed::{self, Signed};
use crate::output::{Output, bytes};
use crate::plugin::{Project, beyond_defaults};

/// Check that a node would take a plug-in, and say what is wrong and how to mend it
///
/// Looks at the manifest, the kind of file, its world and version of the contract, what it imports, the types of its
/// functions (by compiling it), what it needs beyond a node's default limits, and its signature. All that is wrong is told
/// at once. Exit code 1 when something is.
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

    /// Looks at what a component exports and imports; false: something is in the way of linking it.
    fn look_at_names(&mut self, found: &Inspection, world: World) -> bool {
        let (imports, contract): (Vec<LoadError>, Vec<LoadError>) =
            (found.problems(world).into_iter()).partition(LoadError::is_about_imports);
        let can_link = imports.is_empty() && contract.is_empty();
        if contract.is_empty() {
            let names: Vec<String> = (found.contract.iter())
                .map(|(interface, version)| format!("{interface}@{version}"))
                .collect();
            self.look("contract", Ok(format!("exports {}", names.join(", "))));
        }
        for problem in contract {
            self.look("contract", Err(problem.to_string()));
        }
        if imports.is_empty() {
            let foreign = |name: &&String| !name.starts_with("msao:offload/");
            let said = match found.imports.iter().filter(foreign).count() {
                0 => "nothing but the contract's types".to_owned(),
                n => format!("{n} interfaces of WASI, where it finds nothing"),
            };
            self.look("imports", Ok(said));
        }
        for problem in imports {
            self.look("imports", Err(problem.to_string()));
        }
        can_link
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
            // Further lines stand below the first.
            let said = look.said.replace('\n', "\n                 ");
            text.push_str(&format!("{sign} {:<10} {said}\n", look.at));
        }
        text
    }
}

/// What a node has to allow beyond its defaults, as the lines of its configuration.
fn limits(manifest: &Manifest, bytes: u64) -> String {
    let beyond = beyond_defaults(manifest, bytes);
    if beyond.is_empty() {
        return "a node's defaults suffice".to_owned();
    }
    let asked: Vec<String> = (beyond.iter())
        .map(|(key, asked, default)| format!("{key} {asked}, where a node gives {default}"))
        .collect();
    let lines: Vec<String> = (beyond.iter())
        .map(|(key, asked, _)| format!("{key} = {asked}"))
        .collect();
    format!(
        "needs {}: it is refused unless the operator writes\n[sandbox.plugins.{}]\n{}",
        asked.join("; "),
        manifest.name,
        lines.join("\n")
    )
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
            "{} {}, world {}, {} parameters, {} reasons, {} terms{}",
            manifest.name,
            manifest.version,
            manifest.world,
            manifest.parameters.len(),
            manifest.reasons.len(),
            manifest.terms.len(),
            match manifest.ahead {
                Ahead::None => "",
                Ahead::Session => ", opens a session ahead of its plan",
            }
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
    let can_link = checked.look_at_names(&found, manifest.world);
    checked.look("limits", Ok(limits(manifest, found.size)));
    // Whether the types are right shows when it is linked, and what cannot be linked has nothing to compare.
    if can_link {
        match project.load(true) {
            Ok(plugin) => {
                let said = format!("are the contract's; {} loads", plugin.digest().short());
                checked.look("types", Ok(said));
            }
            Err(error) => match error.downcast_ref() {
                Some(LoadError::Types(types)) => {
                    for it in types {
                        checked.look("types", Err(it.to_string()));
                    }
                }
                _ => {
                    checked.look("types", Err(format!("{error:#}")));
                }
            },
        }
    }
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
