//! A plug-in under development: its folder, its manifest, its component, and the loaded thing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use msao_core::offload::manifest::Manifest;
use msao_sandbox::{Limits, Plugin, Policy, Sandbox, SandboxConfig};

use crate::files;

/// The manifest's file.
pub const MANIFEST: &str = "policy.toml";
/// The folder of cases.
pub const CASES: &str = "cases";
/// The folder of what is built.
pub const TARGET: &str = "target";

/// A plug-in's folder.
#[derive(Clone, Debug)]
pub struct Project {
    /// Where.
    pub folder: PathBuf,
    /// What its author says of it.
    pub manifest: Manifest,
    /// The manifest as it is written: what is signed.
    pub manifest_text: String,
    /// Its component, which may not have been built.
    pub component: PathBuf,
}

/// Looks for the manifest of a component: beside it, or in the folder that `target` is in.
fn manifest_of(component: &Path) -> Option<PathBuf> {
    let beside = component.parent()?;
    let above = (beside.file_name() == Some(TARGET.as_ref()))
        .then(|| beside.parent())
        .flatten();
    let named = component.with_extension("toml");
    ([
        Some(named),
        Some(beside.join(MANIFEST)),
        above.map(|folder| folder.join(MANIFEST)),
    ])
    .into_iter()
    .flatten()
    .find(|path| path.is_file())
}

impl Project {
    /// Finds the plug-in that `path` names: its folder, its manifest, or its component.
    ///
    /// # Errors
    /// When there is no manifest, or a wrong one; says what to do.
    pub fn open(path: &Path) -> anyhow::Result<Project> {
        let is_component = path.extension().is_some_and(|ending| ending == "wasm");
        let manifest_path = if is_component {
            if !path.is_file() {
                bail!("there is no file {}", path.display());
            }
            manifest_of(path).with_context(|| {
                format!(
                    "{} has no manifest: {MANIFEST} is expected beside it, or in the folder above `{TARGET}`",
                    path.display()
                )
            })?
        } else if path.extension().is_some_and(|ending| ending == "toml") {
            path.to_owned()
        } else {
            path.join(MANIFEST)
        };
        if !manifest_path.is_file() {
            bail!(
                "there is no {}; name a plug-in's folder, or make one with `msao policy new NAME`",
                manifest_path.display()
            );
        }
        let manifest_text = files::read_text(&manifest_path)?;
        let manifest = Manifest::parse(&manifest_text)
            .with_context(|| format!("{}", manifest_path.display()))?;
        let folder = match manifest_path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let component = if is_component {
            path.to_owned()
        } else {
            let file = Path::new(TARGET).join(format!("{}.wasm", manifest.name));
            match folder == Path::new(".") {
                true => file,
                false => folder.join(file),
            }
        };
        Ok(Project {
            folder,
            manifest,
            manifest_text,
            component,
        })
    }

    /// The component's bytes.
    ///
    /// # Errors
    /// When it was not built.
    pub fn wasm(&self) -> anyhow::Result<Vec<u8>> {
        if !self.component.is_file() {
            bail!(
                "there is no {}: build it with `msao policy build {}`",
                self.component.display(),
                self.folder.display()
            );
        }
        std::fs::read(&self.component)
            .with_context(|| format!("cannot read {}", self.component.display()))
    }

    /// Loads the component. `deterministic`: limits are instructions rather than time, so that an answer never depends on
    /// the machine.
    ///
    /// # Errors
    /// What is wrong with the component and how to mend it.
    pub fn load(&self, deterministic: bool) -> anyhow::Result<Plugin> {
        let sandbox = sandbox(&self.manifest, deterministic)?;
        sandbox
            .load(&self.wasm()?, &self.manifest)
            .with_context(|| format!("{}", self.component.display()))
    }

    /// Loads the component under the limits that it had on a node. Where its manifest has come to ask for more, it gets
    /// that.
    ///
    /// # Errors
    /// As [`Project::load`].
    pub fn load_within(&self, limits: &Limits) -> anyhow::Result<Plugin> {
        let sandbox = sandbox_within(&self.manifest, *limits, true)?;
        sandbox
            .load(&self.wasm()?, &self.manifest)
            .with_context(|| format!("{}", self.component.display()))
    }

    /// Loads a policy.
    ///
    /// # Errors
    /// As [`Project::load`]; also where it is a post-processor.
    pub fn policy(&self, deterministic: bool) -> anyhow::Result<Arc<Policy>> {
        match self.load(deterministic)? {
            Plugin::Policy(policy) => Ok(policy),
            Plugin::PostProcessor(_) => bail!(
                "{} is a {}; a policy is wanted",
                self.manifest.name,
                self.manifest.world
            ),
        }
    }
}

/// The sandbox for a plug-in. What an operator allows is not known here, so the limits that its manifest asks for are granted.
///
/// # Errors
/// When the engine cannot be set up.
pub fn sandbox(manifest: &Manifest, deterministic: bool) -> anyhow::Result<Sandbox> {
    sandbox_within(manifest, Limits::default(), deterministic)
}

/// The same with other limits than a node's defaults, raised where the manifest asks for more.
fn sandbox_within(
    manifest: &Manifest,
    limits: Limits,
    deterministic: bool,
) -> anyhow::Result<Sandbox> {
    Ok(Sandbox::new(&SandboxConfig {
        limits: granted(manifest, limits),
        cache: compiled(),
        instances: 4,
        deterministic,
        ..SandboxConfig::default()
    })?)
}

/// Where compiled components are kept from one command to the next; compiling an interpreter takes seconds. None: there is
/// no folder for it, and each command compiles.
fn compiled() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let folder = absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))?
        .join("msao/compiled-plugins");
    std::fs::create_dir_all(&folder).is_ok().then_some(folder)
}

/// What a plug-in needs beyond the limits that a node gives by default: keys of `[sandbox.plugins.NAME]`, each with what is
/// asked for and what there is. `bytes`: its component's size.
pub fn beyond_defaults(manifest: &Manifest, bytes: u64) -> Vec<(&'static str, u32, u32)> {
    let (own, default) = (&manifest.limits, Limits::default());
    let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
    [
        ("memory-mib", own.memory_mib, default.memory_mib),
        ("table-elements", own.table_elements, default.table_elements),
        (
            "artifact-mib",
            Some(own.artifact_mib.unwrap_or(mib).max(mib)),
            default.artifact_mib,
        ),
        ("score-ms", own.score_ms, default.score_ms),
        ("plan-ms", own.plan_ms, default.plan_ms),
        ("step-ms", own.step_ms, default.step_ms),
        ("observe-ms", own.observe_ms, default.observe_ms),
        ("explain-ms", own.explain_ms, default.explain_ms),
    ]
    .into_iter()
    .filter_map(|(key, own, default)| Some((key, own.filter(|own| *own > default)?, default)))
    .collect()
}

/// `limits`, raised where the manifest asks for more.
fn granted(manifest: &Manifest, limits: Limits) -> Limits {
    let own = &manifest.limits;
    let higher = |own: Option<u32>, limit: u32| own.unwrap_or(limit).max(limit);
    Limits {
        memory_mib: higher(own.memory_mib, limits.memory_mib),
        table_elements: higher(own.table_elements, limits.table_elements),
        artifact_mib: higher(own.artifact_mib, limits.artifact_mib),
        score_ms: higher(own.score_ms, limits.score_ms),
        plan_ms: higher(own.plan_ms, limits.plan_ms),
        step_ms: higher(own.step_ms, limits.step_ms),
        observe_ms: higher(own.observe_ms, limits.observe_ms),
        explain_ms: higher(own.explain_ms, limits.explain_ms),
    }
}
