//! `msao policy new`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use include_dir::Dir;
use msao_core::offload::manifest::Manifest;
use msao_guests::{Language, Tools, write_wit};
use serde::Serialize;

use crate::files;
use crate::output::Output;
use crate::plugin::{CASES, MANIFEST};
use crate::templates::{
    POLICIES, POLICY_CASES, POSTPROCESSOR_CASES, POSTPROCESSORS, SDK, SDK_WORKSPACE, unpack,
};

/// Where the Rust SDK lies in a new plug-in.
const VENDOR: &str = "vendor";

/// The worlds for which there is a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// decides how a request runs
    OffloadPolicy,
    /// scores what the probe saw of a request's media
    ProbePostprocessor,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::OffloadPolicy => "offload-policy",
            Kind::ProbePostprocessor => "probe-postprocessor",
        }
    }
}

/// Make the folder of a new plug-in
///
/// It has a manifest, sources that build, cases that pass, and nothing that is fetched: the contract and, for Rust, the SDK
/// come with this program.
///
///   msao policy new patient --lang rust
///   msao policy new slim --lang python
///   msao policy new scores --lang rust --world probe-postprocessor
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct NewArgs {
    /// The plug-in's name, and that of its folder: lower-case letters, digits and hyphens.
    name: String,
    /// The language of its sources.
    #[arg(long, default_value = "rust")]
    lang: Language,
    /// What it is.
    #[arg(long, default_value = "offload-policy")]
    world: Kind,
    /// The folder to make instead of one called NAME.
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Made {
    folder: PathBuf,
    language: String,
    world: Kind,
    /// What is missing to build it, and the way to get it.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

/// What the manifest of a plug-in in Python ends with.
const PYTHON_LIMITS: &str = r#"
# Python's interpreter needs more than the 16 MiB that plug-ins get by default: operators who run this plug-in allow it
# with `memory-mib = 64` under `[sandbox.plugins.{{name}}]`.
[limits]
memory-mib = 64
"#;

/// The template of a plug-in, and its first cases.
fn template(
    world: Kind,
    language: Language,
) -> anyhow::Result<(&'static Dir<'static>, &'static str)> {
    let (templates, cases): (&'static Dir, _) = match world {
        Kind::OffloadPolicy => (&POLICIES, POLICY_CASES),
        Kind::ProbePostprocessor => (&POSTPROCESSORS, POSTPROCESSOR_CASES),
    };
    let template = templates.get_dir(language.name()).with_context(|| {
        let known: Vec<String> = (templates.dirs())
            .map(|template| template.path().display().to_string())
            .collect();
        format!(
            "there is no template of a {} in {language}; there is one in {}",
            world.name(),
            known.join(", ")
        )
    })?;
    Ok((template, cases))
}

/// Puts the plug-in's name where a template has `{{name}}`, and the SDK's folder where it has `{{sdk}}`.
fn name_it(folder: &Path, name: &str) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            name_it(&path, name)?;
            continue;
        }
        let text = files::read_text(&path)?;
        let named = text
            .replace("{{name}}", name)
            .replace("{{sdk}}", &format!("{VENDOR}/plugins/sdk"));
        if named != text {
            files::write(&path, named.as_bytes())?;
        }
    }
    Ok(())
}

/// The SDK, the workspace that it belongs to, and the contract that its bindings are made from, as they lie in the tree.
fn vendor(folder: &Path) -> anyhow::Result<()> {
    let vendor = folder.join(VENDOR);
    unpack(&SDK, &vendor.join("plugins/sdk"))?;
    write_wit(&vendor.join("wit"))?;
    let mut workspace = String::new();
    for line in SDK_WORKSPACE.lines() {
        match line.starts_with("members") {
            true => workspace.push_str("members = [\"sdk\"]"),
            false => workspace.push_str(line),
        }
        workspace.push('\n');
    }
    files::write(&vendor.join("plugins/Cargo.toml"), workspace.as_bytes())
}

pub fn run(args: &NewArgs, output: Output) -> anyhow::Result<bool> {
    let folder = match &args.folder {
        Some(folder) => folder.clone(),
        None => PathBuf::from(&args.name),
    };
    if folder.exists() {
        bail!(
            "{} is there already; choose another name or --folder",
            folder.display()
        );
    }
    let (template, cases) = template(args.world, args.lang)?;
    // Made beside its place under another name, then moved: it is there whole or not at all.
    let parent = match folder.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let staging = tempfile::Builder::new()
        .prefix(".msao-new-")
        .tempdir_in(parent)
        .with_context(|| format!("cannot write in {}", parent.display()))?;
    let inside = staging.path().join("plug-in");
    unpack(template, &inside)?;
    files::write(&inside.join(CASES).join("first.toml"), cases.as_bytes())?;
    if args.lang == Language::Python {
        let manifest = inside.join(MANIFEST);
        let text = files::read_text(&manifest)? + PYTHON_LIMITS;
        files::write(&manifest, text.as_bytes())?;
    }
    files::write(&inside.join(".gitignore"), b"/target\n__pycache__\n")?;
    name_it(&inside, &args.name)?;
    if args.lang == Language::Rust {
        vendor(&inside)?;
        // The SDK inherits from a workspace of its own, of which the plug-in's must not make it a member.
        let cargo = inside.join("Cargo.toml");
        let text = files::read_text(&cargo)?;
        if !text.contains("exclude") {
            let apart = format!("[workspace]\nexclude = [\"{VENDOR}\"]");
            files::write(&cargo, text.replace("[workspace]", &apart).as_bytes())?;
        }
    }
    Manifest::parse(&files::read_text(&inside.join(MANIFEST))?)
        .with_context(|| format!("\"{}\" cannot be a plug-in's name", args.name))?;
    fs::rename(&inside, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let missing = Tools::find().state(args.lang).err();
    let made = Made {
        folder,
        language: args.lang.to_string(),
        world: args.world,
        missing,
    };
    output.answer(&made, |made| {
        let folder = made.folder.display();
        let mut text = format!(
            "{folder}: world {}, in {}. Next:\n  cd {folder}\n  msao policy build\n  msao policy test\n",
            made.world.name(),
            made.language
        );
        if let Some(missing) = &made.missing {
            text.push_str(&format!("To build it: {missing}\n"));
        }
        text
    })?;
    Ok(true)
}
