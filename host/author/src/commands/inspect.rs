//! `msao policy inspect`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use msao_core::digest::Digest;
use serde::Serialize;

use crate::output::{Output, bytes};
use crate::plugin::Project;

/// Say what a component is, by parsing alone
///
/// Prints size, digest, the worlds of the contract that it serves, what it exports and imports, and which tools made it.
/// Nothing of it is compiled or run, so any file may be inspected.
///
///   msao policy inspect target/patient.wasm
///   msao policy inspect --json . | jq .imports
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct InspectArgs {
    /// A component, or a plug-in's folder.
    #[arg(default_value = ".")]
    path: PathBuf,
}

/// What a component is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Inspected {
    file: PathBuf,
    bytes: u64,
    digest: Digest,
    worlds: Vec<String>,
    explains: bool,
    contract: Vec<String>,
    exports: Vec<String>,
    imports: Vec<String>,
    producers: Vec<String>,
    modules: usize,
}

pub fn run(args: &InspectArgs, output: Output) -> anyhow::Result<bool> {
    // A file needs no manifest to be looked at.
    let file = match args.path.is_file() && args.path.extension().is_none_or(|e| e != "toml") {
        true => args.path.clone(),
        false => {
            let project = Project::open(&args.path)?;
            project.wasm()?;
            project.component
        }
    };
    let wasm = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let found = msao_sandbox::inspect(&wasm).with_context(|| format!("{}", file.display()))?;
    let inspected = Inspected {
        file,
        bytes: found.size,
        digest: Digest::of(&wasm),
        worlds: found.worlds.iter().map(ToString::to_string).collect(),
        explains: found.explains,
        contract: (found.contract.iter())
            .map(|(interface, version)| format!("msao:offload/{interface}@{version}"))
            .collect(),
        exports: found.exports,
        imports: found.imports,
        producers: found.producers,
        modules: found.modules,
    };
    output.answer(&inspected, text)?;
    Ok(true)
}

fn text(it: &Inspected) -> String {
    let list = |items: &[String]| match items {
        [] => "none".to_owned(),
        items => items.join("\n            "),
    };
    let worlds = match it.worlds.as_slice() {
        [] => "none of the contract's".to_owned(),
        worlds if it.explains => format!("{}, and explains itself", worlds.join(", ")),
        worlds => worlds.join(", "),
    };
    format!(
        "{}\n  size      {} ({} core modules)\n  sha-256   {}\n  world     {worlds}\n  exports   {}\n  imports   {}\n  made by   \
         {}\n",
        it.file.display(),
        bytes(it.bytes),
        it.modules,
        it.digest,
        list(&it.exports),
        list(&it.imports),
        list(&it.producers)
    )
}
