//! What is played: the policy, the traffic that the records make, the world that they tell of.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use msao_adapt::audit::{Audit, AuditConfig, Audited};
use msao_core::digest::Digest;
use msao_core::offload::manifest::{Manifest, OwnLimits, Value, World as PluginWorld};
use msao_core::offload::record::DecisionRecord;
use msao_core::offload::{Calibration, Status};
use msao_operate::files;
use msao_registry::Bundle;
use msao_registry::sandbox::{Limits, Sandbox, SandboxConfig};
use msao_registry::state::{Recorded as Records, read_jsonl};
use msao_simulate::traffic::{Guessing, Question, Recorded, Traffic};
use msao_simulate::{Components, Profile, World};
use serde::{Deserialize, Serialize};

use crate::judge::Wanted;

/// Bytes of a profile or a world at most.
const MAX_TEXT: u64 = 4 << 20;
/// Requests that are played for a point at most.
const MOST_REQUESTS: u32 = 1_000_000;
/// Instances of plug-ins: they are called one after the other.
const INSTANCES: u32 = 4;

/// What is played.
#[derive(Args, Clone, Debug)]
pub struct SceneArgs {
    /// The policy: its folder, or its .wasm with the manifest beside it.
    #[arg(long, value_name = "PLUG-IN")]
    pub policy: PathBuf,
    /// Recorded decisions, JSON lines, as a node exports them (`msao node decisions --jsonl`).
    #[arg(long, value_name = "FILE")]
    pub records: PathBuf,
    /// A post-processor that scores what the probe saw, where the records have that; elsewhere the recorded scores are taken for
    /// the truth.
    #[arg(long, value_name = "PLUG-IN")]
    pub postprocessor: Option<PathBuf>,
    /// Requests to play for each point at least: the records are asked again, drawn anew, until there are so many.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub requests: u32,
    /// How much faster requests come than they did.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub pace: f64,
    /// What models cost on kinds of node (TOML, docs/simulator.md) [default: the figures of this project's own measurements].
    #[arg(long, value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// The profile's engine for draft models.
    #[arg(long, default_value = "demo-draft-zen3", value_name = "ENGINE")]
    pub draft: String,
    /// The profile's engine for targets.
    #[arg(long, default_value = "demo-target-zen3", value_name = "ENGINE")]
    pub target: String,
    /// Nodes and links (TOML, docs/simulator.md) [default: those that the records tell of].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["draft", "target"])]
    pub world: Option<PathBuf>,
    /// Holds a parameter at a value instead of its default, as a node's pins do; it is not tuned then.
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    pub param: Vec<(String, Value)>,
}

/// A plug-in by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Content {
    component: Digest,
    manifest: Digest,
}

/// What a trace depends on beside the seed: what goes on from a trace must be the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Played {
    /// The policy.
    pub policy: Content,
    /// The post-processor.
    pub postprocessor: Option<Content>,
    /// Of the records' file.
    pub records: Digest,
    /// Of the world, with the profile and the threshold that audits have opened.
    pub world: Digest,
    /// Requests for a point.
    pub requests: u32,
    /// How much faster they come than they did.
    pub pace: f64,
    /// What is held.
    pub held: BTreeMap<String, Value>,
}

/// See the module.
pub struct Scene {
    /// The policy's manifest.
    pub manifest: Manifest,
    /// The policy, and perhaps a post-processor.
    pub components: Components,
    /// Where it is played.
    pub world: World,
    /// What is asked.
    pub traffic: Traffic,
    /// What the policy had learned when the records began.
    pub calibration: Calibration,
    /// All of it by digest.
    pub played: Played,
    /// What people should know of it.
    pub notes: Vec<String>,
}

/// A value as TOML and JSON write it; a bare word is a choice's name.
fn assignment(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| format!("\"{text}\" is no NAME=VALUE"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::Text(value.to_owned()));
    Ok((name.to_owned(), value))
}

impl SceneArgs {
    /// Reads everything and sets it up. `seed`: of the audits' coin.
    ///
    /// # Errors
    /// A file cannot be read or says what cannot be, by the option that names it; nothing that was recorded can be played.
    pub fn scene(&self, wanted: &Wanted, seed: u64) -> anyhow::Result<Scene> {
        if !(1..=MOST_REQUESTS).contains(&self.requests) {
            bail!(
                "--requests is {}; allowed: 1 to {MOST_REQUESTS}",
                self.requests
            );
        }
        let mut notes = Vec::new();
        let (records, digest) = read(&self.records, &mut notes)?;
        let mut world = self.world(&records, &mut notes)?;
        let traffic = self.traffic(&records, world.edge_count(), &mut notes)?;
        if let Some(budget) = wanted.budget {
            let config = AuditConfig {
                budget,
                delta: wanted.delta,
                rate: 1.0,
                ..AuditConfig::new(seed)
            };
            let opened = opened(config, &traffic)?;
            world.rules.confidence_floor = opened.unwrap_or(NOTHING);
            world.rules.budget = true;
            notes.push(match opened {
                Some(threshold) => format!(
                    "audits of all these requests open {threshold:.6}: tokens at least so probable may be committed unverified"
                ),
                None => "audits of all these requests open no threshold within the budget: nothing is committed unverified in \
                         sessions"
                    .to_owned(),
            });
        }
        world.check()?;
        let (manifest, components, policy, postprocessor) = self.components()?;
        let held: BTreeMap<String, Value> = self.param.iter().cloned().collect();
        if held.len() < self.param.len() {
            bail!("--param names a parameter twice: give it once");
        }
        let played = Played {
            policy,
            postprocessor,
            records: digest,
            world: Digest::of(&serde_json::to_vec(&world)?),
            requests: traffic.questions.len() as u32,
            pace: self.pace,
            held,
        };
        Ok(Scene {
            calibration: learned(&records, &policy.component, &mut notes),
            manifest,
            components,
            world,
            traffic,
            played,
            notes,
        })
    }

    /// What is asked, dealt to so many edges.
    fn traffic(
        &self,
        records: &Records,
        edges: u32,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Traffic> {
        let recorded = Recorded {
            edges,
            pace: self.pace,
            ..Recorded::default()
        };
        let once = recorded.traffic(&records.decisions)?;
        let count = once.questions.len() as u32;
        let rounds = self.requests.div_ceil(count.max(1));
        if rounds > 1 {
            notes.push(format!(
                "{count} answered requests are asked {rounds} times, each time drawn anew"
            ));
        }
        let guessed = |it: &&Question| matches!(it.guessing, Guessing::Recorded { .. });
        let known = once.questions.iter().filter(guessed).count();
        if 2 * known < once.questions.len() {
            notes.push(format!(
                "of {} requests no drafts were recorded: how well they are guessed is taken from the others, or assumed",
                once.questions.len() - known
            ));
        }
        Ok(once.repeated(rounds))
    }

    fn world(&self, records: &Records, notes: &mut Vec<String>) -> anyhow::Result<World> {
        let profile = match &self.profile {
            Some(path) => {
                let text = files::read_text(path, MAX_TEXT)?;
                Some(Profile::parse(&text).with_context(|| path.display().to_string())?)
            }
            None => None,
        };
        let Some(path) = &self.world else {
            let profile = match profile {
                Some(profile) => profile,
                None => Profile::measured()?,
            };
            let records = &records.decisions;
            let world = World::recorded(records, profile, &self.draft, &self.target)?;
            notes.push(format!(
                "nodes are simulated by the profile's figures for {} and {}; --profile and --world say otherwise",
                self.draft, self.target
            ));
            return Ok(world);
        };
        let text = files::read_text(path, MAX_TEXT)?;
        let mut world = World::parse(&text).with_context(|| path.display().to_string())?;
        if let Some(profile) = profile {
            if world.profile.is_some() {
                bail!(
                    "{} has a profile of its own: leave --profile out",
                    path.display()
                );
            }
            world.profile = Some(profile);
        }
        Ok(world)
    }

    /// The policy's manifest, what decides, and either plug-in by content.
    fn components(&self) -> anyhow::Result<(Manifest, Components, Content, Option<Content>)> {
        let policy = Bundle::read(&self.policy)?;
        if policy.manifest.world != PluginWorld::OffloadPolicy {
            bail!(
                "{} is a {}; name a policy, and this one with --postprocessor",
                policy.manifest.name,
                policy.manifest.world
            );
        }
        let scores = (self.postprocessor.as_ref())
            .map(|path| Bundle::read(path))
            .transpose()?;
        let asked = std::iter::once(&policy).chain(&scores);
        let limits = asked.fold(Limits::default(), |limits, it| {
            granted(&it.manifest.limits, limits)
        });
        // Deterministic: a busy machine must not be taken for a slow policy.
        let sandbox = Sandbox::new(&SandboxConfig {
            limits,
            instances: INSTANCES,
            deterministic: true,
            ..SandboxConfig::default()
        })?;
        let mut components = Components::load(&sandbox, &self.policy)?;
        if let Some(path) = &self.postprocessor {
            components = components.scored_by(&sandbox, path)?;
        }
        let content = |bundle: &Bundle| {
            let release = bundle.release();
            Content {
                component: release.artifact,
                manifest: release.manifest,
            }
        };
        let contents = (content(&policy), scores.as_ref().map(content));
        Ok((policy.manifest, components, contents.0, contents.1))
    }
}

/// A confidence floor that no probability reaches.
const NOTHING: f64 = 2.0;

/// The lowest acceptance probability that audits of all this traffic would open, each of its requests being audited.
fn opened(config: AuditConfig, traffic: &Traffic) -> anyhow::Result<Option<f64>> {
    let mut audit = Audit::new(config)?;
    for (number, question) in (0..).zip(&traffic.questions) {
        if audit.admit(number) {
            let audited = match question.rejected() {
                Some(acceptance) => Audited::Rejected { acceptance },
                None => Audited::Agreed,
            };
            audit.finished(number, audited);
        }
    }
    Ok(audit.open_threshold())
}

/// What an operator allows is not known here, so the limits that a manifest asks for are granted.
fn granted(own: &OwnLimits, limits: Limits) -> Limits {
    let higher = |own: Option<u32>, limit: u32| own.map_or(limit, |own| own.max(limit));
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

/// The records, and the digest of their file.
fn read(path: &Path, notes: &mut Vec<String>) -> anyhow::Result<(Records, Digest)> {
    let named = || path.display().to_string();
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let records = read_jsonl(BufReader::with_capacity(1 << 20, &file)).with_context(named)?;
    if let Some(error) = &records.first_skipped {
        notes.push(format!(
            "{}: {} lines are left out, the first: {error}",
            path.display(),
            records.skipped
        ));
    }
    if !records.decisions.iter().any(is_answered) {
        bail!(
            "{} has no decision of a request that was answered: there is nothing to play",
            path.display()
        );
    }
    // What counts is what was read, however the file was written.
    let (mut seen, mut text) = (Vec::new(), Vec::new());
    for decision in &records.decisions {
        text.clear();
        serde_json::to_writer(&mut text, decision)?;
        seen.extend(Digest::of(&text).0);
    }
    Ok((records, Digest::of(&seen)))
}

fn is_answered(record: &DecisionRecord) -> bool {
    let outcome = record.outcome.as_ref();
    outcome.is_some_and(|it| it.status <= Status::Degraded as u8 && it.tokens > 0)
}

/// What the policy had learned when the records began, if they are its own: cells of another one mean something else.
fn learned(records: &Records, policy: &Digest, notes: &mut Vec<String>) -> Calibration {
    let Some(first) = records.decisions.first() else {
        return Calibration::default();
    };
    let snapshot = records.snapshots.get(&first.given.calibration);
    let known = snapshot.map_or_else(Calibration::default, |it| it.calibration().clone());
    if first.generation.policy.as_ref() == Some(policy) || known.is_empty() {
        return known;
    }
    notes.push(
        "the records are of another policy, or another build of it: this one begins without what was learned"
            .to_owned(),
    );
    Calibration::default()
}

#[cfg(test)]
mod tests {
    use msao_simulate::traffic::Drawn;

    use super::*;

    #[test]
    fn a_held_parameter_is_read_as_a_manifest_writes_it() {
        let read = |text: &str| assignment(text).map(|(_, value)| value);
        assert_eq!(read("a=4"), Ok(Value::Int(4)));
        assert_eq!(read("a=0.5"), Ok(Value::Float(0.5)));
        assert_eq!(read("a=true"), Ok(Value::Bool(true)));
        assert_eq!(read("a=exact"), Ok(Value::Text("exact".to_owned())));
        for wrong in ["a", "=3", "a="] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn audits_open_what_the_traffic_allows() {
        let traffic = |drafts: Drawn| Traffic {
            questions: (0..600)
                .map(|seed| Question {
                    seed,
                    guessing: Guessing::Drawn(drafts),
                    ..Question::plain(0, 10, 30)
                })
                .collect(),
            ..Traffic::default()
        };
        let config = AuditConfig {
            budget: 0.02,
            rate: 1.0,
            ..AuditConfig::new(1)
        };
        // A draft that is always right may commit everything, one that is wrong however sure it is nothing.
        let lowest = opened(config, &traffic(Drawn::even(1.0))).unwrap();
        assert!(lowest.is_some_and(|it| it < 0.6), "{lowest:?}");
        let sure = Drawn {
            overconfidence: 0.999_999,
            ..Drawn::even(0.5)
        };
        assert_eq!(opened(config, &traffic(sure)).unwrap(), None);
    }

    #[test]
    fn limits_are_never_lowered() {
        let own = OwnLimits {
            memory_mib: Some(64),
            plan_ms: Some(1),
            ..OwnLimits::default()
        };
        let limits = granted(&own, Limits::default());
        assert_eq!((limits.memory_mib, limits.plan_ms), (64, 5));
    }
}
