//! `[sandbox]`: what plug-ins may use.

use std::collections::BTreeMap;
use std::path::PathBuf;

use msao_core::offload::manifest::{Manifest, OwnLimits, World};
use serde::{Deserialize, Serialize};

use crate::error::{LoadError, SandboxError};

/// Milliseconds that a deadline may have at most.
const MAX_DEADLINE_MS: u32 = 60_000;
/// MiB that an instance may have at most.
const MAX_MEMORY_MIB: u32 = 1024;
/// MiB that a component may have at most.
const MAX_ARTIFACT_MIB: u32 = 256;
/// Instances that a sandbox may have at most: each reserves address space, 8 GiB of it.
const MAX_INSTANCES: u32 = 8192;
/// Threads for `score` that there may be at most.
const MAX_SCORE_THREADS: u32 = 256;
/// Callers that may wait for them at most.
const MAX_SCORE_QUEUE: u32 = 65_536;
/// MiB that the cache of compiled code may have at most.
const MAX_CACHE_MIB: u32 = 1 << 20;
/// Table elements that an instance may have at most.
const MAX_TABLE_ELEMENTS: u32 = 1 << 20;

/// What one plug-in may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of an instance in MiB: all its memories, and its tables at 8 bytes an element.
    pub memory_mib: u32,
    /// Elements of all its tables together.
    pub table_elements: u32,
    /// Size of the component's file in MiB.
    pub artifact_mib: u32,
    /// Deadline of `score` in ms.
    pub score_ms: u32,
    /// Deadline of `plan` in ms.
    pub plan_ms: u32,
    /// Deadline of `step` in ms.
    pub step_ms: u32,
    /// Deadline of `observe` in ms.
    pub observe_ms: u32,
    /// Deadline of `explain` in ms.
    pub explain_ms: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_mib: 16,
            table_elements: 65_536,
            artifact_mib: 64,
            score_ms: 50,
            plan_ms: 5,
            step_ms: 1,
            observe_ms: 10,
            explain_ms: 100,
        }
    }
}

/// What the operator says otherwise for one plug-in. What is not named stays as in [`SandboxConfig::limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct LimitOverrides {
    /// See [`Limits::memory_mib`].
    pub memory_mib: Option<u32>,
    /// See [`Limits::table_elements`].
    pub table_elements: Option<u32>,
    /// See [`Limits::artifact_mib`].
    pub artifact_mib: Option<u32>,
    /// See [`Limits::score_ms`].
    pub score_ms: Option<u32>,
    /// See [`Limits::plan_ms`].
    pub plan_ms: Option<u32>,
    /// See [`Limits::step_ms`].
    pub step_ms: Option<u32>,
    /// See [`Limits::observe_ms`].
    pub observe_ms: Option<u32>,
    /// See [`Limits::explain_ms`].
    pub explain_ms: Option<u32>,
}

/// How plug-ins are run.
///
/// ```
/// # use msao_sandbox::SandboxConfig;
/// let config: SandboxConfig = toml::from_str(
///     r#"
///     cache = "/var/cache/msao/plugins"
///
///     [limits]
///     plan-ms = 3
///
///     [plugins.slow-but-good]
///     memory-mib = 64
///     plan-ms = 20
///     "#,
/// )?;
/// assert_eq!(config.limits.plan_ms, 3);
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct SandboxConfig {
    /// What a plug-in may use that is not named in `plugins`.
    pub limits: Limits,
    /// By the name in the manifest.
    pub plugins: BTreeMap<String, LimitOverrides>,
    /// Where compiled code is kept. None: it is compiled at each start.
    pub cache: Option<PathBuf>,
    /// MiB that it may hold; what was not used for longest goes first.
    pub cache_mib: u32,
    /// Instances of all plug-ins together; a call that needs one more fails as overloaded.
    pub instances: u32,
    /// Callers, each on a thread of its own, that `score` at once, of all post-processors together.
    pub score_threads: u32,
    /// Callers of `score` that wait for their turn at most; one more fails as overloaded. Who waits does so for at most
    /// `score-queue` / `score-threads` deadlines.
    pub score_queue: u32,
    /// Deadlines in executed instructions instead of time, so that a call ends the same way wherever it runs. For tests
    /// and replay: slower, and time alone stops nothing.
    pub deterministic: bool,
}

impl Default for SandboxConfig {
    fn default() -> SandboxConfig {
        SandboxConfig {
            limits: Limits::default(),
            plugins: BTreeMap::new(),
            cache: None,
            cache_mib: 2048,
            instances: 256,
            score_threads: 8,
            score_queue: 16,
            deterministic: false,
        }
    }
}

impl Limits {
    fn fields(&self) -> [(&'static str, u32, u32); 8] {
        [
            ("memory-mib", self.memory_mib, MAX_MEMORY_MIB),
            ("table-elements", self.table_elements, MAX_TABLE_ELEMENTS),
            ("artifact-mib", self.artifact_mib, MAX_ARTIFACT_MIB),
            ("score-ms", self.score_ms, MAX_DEADLINE_MS),
            ("plan-ms", self.plan_ms, MAX_DEADLINE_MS),
            ("step-ms", self.step_ms, MAX_DEADLINE_MS),
            ("observe-ms", self.observe_ms, MAX_DEADLINE_MS),
            ("explain-ms", self.explain_ms, MAX_DEADLINE_MS),
        ]
    }

    fn check(&self, at: &str) -> Result<(), SandboxError> {
        for (name, value, most) in self.fields() {
            let field = || format!("{at}.{name}");
            within(field, value, most)?;
        }
        Ok(())
    }

    fn with(&self, own: &LimitOverrides) -> Limits {
        Limits {
            memory_mib: own.memory_mib.unwrap_or(self.memory_mib),
            table_elements: own.table_elements.unwrap_or(self.table_elements),
            artifact_mib: own.artifact_mib.unwrap_or(self.artifact_mib),
            score_ms: own.score_ms.unwrap_or(self.score_ms),
            plan_ms: own.plan_ms.unwrap_or(self.plan_ms),
            step_ms: own.step_ms.unwrap_or(self.step_ms),
            observe_ms: own.observe_ms.unwrap_or(self.observe_ms),
            explain_ms: own.explain_ms.unwrap_or(self.explain_ms),
        }
    }

    /// Lowers these limits to what the plug-in asks of itself.
    fn lowered(mut self, own: &OwnLimits) -> Result<Limits, LoadError> {
        let asked = [
            ("limits.memory-mib", own.memory_mib, &mut self.memory_mib),
            (
                "limits.table-elements",
                own.table_elements,
                &mut self.table_elements,
            ),
            (
                "limits.artifact-mib",
                own.artifact_mib,
                &mut self.artifact_mib,
            ),
            ("limits.score-ms", own.score_ms, &mut self.score_ms),
            ("limits.plan-ms", own.plan_ms, &mut self.plan_ms),
            ("limits.step-ms", own.step_ms, &mut self.step_ms),
            ("limits.observe-ms", own.observe_ms, &mut self.observe_ms),
            ("limits.explain-ms", own.explain_ms, &mut self.explain_ms),
        ];
        for (field, asked, limit) in asked {
            match asked {
                Some(asked) if asked > *limit => {
                    return Err(LoadError::LimitRaised {
                        field,
                        asked,
                        limit: *limit,
                    });
                }
                Some(asked) => *limit = asked,
                None => {}
            }
        }
        Ok(self)
    }
}

fn within(field: impl Fn() -> String, value: u32, most: u32) -> Result<(), SandboxError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(SandboxError::Config {
        field: field(),
        problem: format!("is {value}; allowed: 1 to {most}"),
    })
}

impl SandboxConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// [`SandboxError::Config`], naming the field and what is allowed.
    pub fn check(&self) -> Result<(), SandboxError> {
        self.limits.check("limits")?;
        for (name, plugin) in &self.plugins {
            let limits = self.limits.with(plugin);
            limits.check(&format!("plugins.{name}"))?;
        }
        for (name, value, most) in [
            ("cache-mib", self.cache_mib, MAX_CACHE_MIB),
            ("instances", self.instances, MAX_INSTANCES),
            ("score-threads", self.score_threads, MAX_SCORE_THREADS),
            ("score-queue", self.score_queue, MAX_SCORE_QUEUE),
        ] {
            within(|| name.to_owned(), value, most)?;
        }
        Ok(())
    }

    /// What the operator allows the plug-in called `name`.
    pub fn limits_of(&self, name: &str) -> Limits {
        match self.plugins.get(name) {
            Some(plugin) => self.limits.with(plugin),
            None => self.limits,
        }
    }

    /// What a plug-in may use: what the operator allows it, lowered to what it asks of itself.
    pub(crate) fn limits_for(&self, manifest: &Manifest) -> Result<Limits, LoadError> {
        self.limits_of(&manifest.name).lowered(&manifest.limits)
    }

    /// The largest of a limit over all plug-ins: what the pool has to have room for.
    pub(crate) fn largest(&self, limit: impl Fn(&Limits) -> u32) -> u32 {
        let own = (self.plugins.values()).map(|plugin| limit(&self.limits.with(plugin)));
        own.fold(limit(&self.limits), u32::max)
    }
}

/// The exports that a world must have, without package and version.
pub(crate) fn required_export(world: World) -> &'static str {
    match world {
        World::ProbePostprocessor => "postprocessor",
        World::OffloadPolicy => "policy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(limits: &str) -> Manifest {
        Manifest::parse(&format!(
            "name = \"a\"\nversion = \"1.0.0\"\nworld = \"offload-policy\"\ndescription = \"\"\n\
             state-schema = 0\n[limits]\n{limits}"
        ))
        .unwrap()
    }

    #[test]
    fn a_manifest_lowers_limits_and_never_raises_them() {
        let mut config = SandboxConfig::default();
        let lower = config.limits_for(&manifest("plan-ms = 2")).unwrap();
        assert_eq!((lower.plan_ms, lower.step_ms), (2, 1));
        let refused = config.limits_for(&manifest("plan-ms = 6")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "limits.plan-ms: the manifest asks for 6, the operator allows 5; lower it, or have the operator raise \
             plugins.NAME"
        );
        let own: LimitOverrides = toml::from_str("plan-ms = 20").unwrap();
        config.plugins.insert("a".to_owned(), own);
        let raised = config.limits_for(&manifest("plan-ms = 6")).unwrap();
        assert_eq!(raised.plan_ms, 6);
        assert_eq!(config.largest(|limits| limits.plan_ms), 20);
    }

    #[test]
    fn a_limit_out_of_range_is_named() {
        let config: SandboxConfig = toml::from_str("[plugins.a]\nstep-ms = 0").unwrap();
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "plugins.a.step-ms is 0; allowed: 1 to 60000"
        );
        let config: SandboxConfig = toml::from_str("cache-mib = 0").unwrap();
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "cache-mib is 0; allowed: 1 to 1048576"
        );
        assert!(toml::from_str::<SandboxConfig>("colour = 1").is_err());
    }
}
