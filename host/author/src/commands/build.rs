//! `msao policy build`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use msao_core::digest::Digest;
use msao_guests::{Source, Tools};
use serde::Serialize;

use super::Which;
use crate::output::{Output, bytes};
use crate::plugin::Project;

/// Build a plug-in's component from its sources
///
/// The language is told by the sources: Cargo.toml (Rust, with cargo), policy.c (C, with zig), policy.js (JavaScript, with
/// componentize-qjs), policy.py (Python, with componentize-py). The component becomes target/NAME.wasm in the plug-in's
/// folder. A tool that is missing is named with the way to get it; `msao policy doctor` lists all of them.
///
///   msao policy build                   the plug-in in this folder
///   msao policy build policies/patient  another one
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct BuildArgs {
    #[command(flatten)]
    which: Which,
}

/// What was built.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Built {
    language: String,
    component: PathBuf,
    bytes: u64,
    digest: Digest,
}

/// Builds the sources of `project` and puts the component where the other commands look for it.
///
/// # Errors
/// When a tool is missing, with the way to get it, or fails, after what it said.
pub fn build(project: &Project) -> anyhow::Result<msao_guests::Language> {
    let source = Source {
        folder: &project.folder,
        world: project.manifest.world,
    };
    msao_guests::build(&source, &project.component, &Tools::find())
        .with_context(|| format!("building {}", project.manifest.name))
}

pub fn run(args: &BuildArgs, output: Output) -> anyhow::Result<bool> {
    let project = Project::open(&args.which.path)?;
    let language = build(&project)?;
    let wasm = project.wasm()?;
    let built = Built {
        language: language.to_string(),
        component: project.component,
        bytes: wasm.len() as u64,
        digest: Digest::of(&wasm),
    };
    output.answer(&built, |built| {
        format!(
            "{} ({}, {}, {})\n",
            built.component.display(),
            built.language,
            bytes(built.bytes),
            built.digest.short()
        )
    })?;
    Ok(true)
}
