//! What a rollout does on one node: look, bring, activate, promote, go back.

use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use msao_core::offload::manifest::World;
use serde_json::{Value, json};

use super::guard::{Found, Ours};
use crate::client::{Client, ClientError};
use crate::glance::{Generation, Glance};
use crate::plugin::Plugin;
use crate::policy::choice_of;
use crate::release::{Listed, Named, Release, listed, resolve};

/// Looks at a node that did not answer a change, before it counts as unknown what became of it.
const LOOKS: u32 = 3;
const BETWEEN: Duration = Duration::from_millis(500);

/// What is rolled out.
pub struct Payload {
    here: Vec<(Plugin, Listed)>,
    there: Vec<String>,
}

impl Payload {
    /// Reads what lies here; what nodes are to have is found on each of them.
    ///
    /// # Errors
    /// A plug-in that cannot be read.
    pub fn read(names: &[String]) -> anyhow::Result<Payload> {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for name in names {
            match Named::new(name) {
                Named::Here(path) => {
                    let path: PathBuf = path;
                    let plugin = Plugin::read(&path)?;
                    let listed = plugin.listed();
                    here.push((plugin, listed));
                }
                Named::There(name) => there.push(name),
            }
        }
        Ok(Payload { here, there })
    }

    /// The releases, once those that nodes have are found among `on_node`.
    pub fn releases(&self, on_node: &[Listed]) -> anyhow::Result<Vec<Listed>> {
        let mut found: Vec<Listed> = self.here.iter().map(|(_, it)| it.clone()).collect();
        for name in &self.there {
            found.push(resolve(name, on_node)?.clone());
        }
        // Two for one place are found now rather than on the first node.
        choice_of(&found, false)?;
        Ok(found)
    }

    /// Brings what lies here to a node.
    pub fn push(&self, client: &Client) -> anyhow::Result<()> {
        self.here
            .iter()
            .try_for_each(|(plugin, _)| plugin.push(client).map(drop))
    }
}

/// What a node says before anything is done.
pub struct Before {
    /// Its state.
    pub glance: Glance,
    /// The releases to bring, as they are there.
    pub releases: Vec<Listed>,
    /// The generation, if the node runs them already.
    pub has: Option<Has>,
}

/// A node has what is rolled out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Has {
    /// All requests are planned by it: the generation.
    Active(u64),
    /// A canary is: the generation.
    Canary(u64),
}

/// Whether a generation of a deployment is made of these releases.
fn runs(spec: Option<&Value>, releases: &[Listed]) -> bool {
    let Some(spec) = spec else {
        return false;
    };
    releases.iter().all(|it| {
        let place = match it.world {
            World::OffloadPolicy => "policy",
            World::ProbePostprocessor => "postprocessor",
        };
        let there = spec
            .get(place)
            .cloned()
            .map(serde_json::from_value::<Release>);
        matches!(there, Some(Ok(release)) if release == it.release)
    })
}

/// Looks at a node, and whether a rollout may begin there.
///
/// # Errors
/// It cannot be reached, is draining, or has another canary under way.
pub fn look(client: &Client, payload: &Payload) -> anyhow::Result<Before> {
    let glance = Glance::read(&client.get("/v1/state")?);
    let policies = client.get("/v1/policies")?;
    let releases = payload.releases(&listed(&policies))?;
    let spec = |at: &str| policies.pointer(at);
    let number = |at: &str| {
        spec(at)
            .and_then(|it| it.get("number"))
            .and_then(Value::as_u64)
    };
    let mut has = None;
    if runs(spec("/deployment/active"), &releases) {
        has = number("/deployment/active").map(Has::Active);
    } else if runs(spec("/deployment/rollout/candidate"), &releases) {
        has = number("/deployment/rollout/candidate").map(Has::Canary);
    }
    if glance.draining {
        bail!("it is draining, and takes no more requests");
    }
    if let Some(canary) = glance
        .canary
        .as_ref()
        .filter(|_| !matches!(has, Some(Has::Canary(_))))
    {
        bail!(
            "a canary is under way, {}: promote it or roll it back first",
            canary.candidate.words()
        );
    }
    Ok(Before {
        glance,
        releases,
        has,
    })
}

/// What a change became.
pub enum Became {
    /// It is done: the generation.
    Done(u64),
    /// It is not, and nothing has changed.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// Asks for a change; where no answer comes, looks whether it is done.
pub fn change(client: &Client, path: &str, body: &Value, ours: &Ours) -> Became {
    let error = match client.post(path, body) {
        Ok(receipt) => {
            return match receipt.get("number").and_then(Value::as_u64) {
                Some(number) => Became::Done(number),
                None => Became::Unknown(format!("the answer names no generation: {receipt}")),
            };
        }
        Err(error) => error,
    };
    let may_be_done = match &error {
        // Told after it took effect: the node could only not write it down.
        ClientError::Failed { .. } | ClientError::Answer { .. } => true,
        error => error.is_silence(),
    };
    if !may_be_done {
        return Became::Refused(error.to_string());
    }
    for _ in 0..LOOKS {
        if let Ok(state) = client.get("/v1/state") {
            let glance = Glance::read(&state);
            return match ours.find(&glance) {
                Found::Active(it) => Became::Done(it.number),
                Found::Canary(it) => Became::Done(it.candidate.number),
                Found::Gone if error.is_silence() => Became::Unknown(error.to_string()),
                Found::Gone => Became::Refused(error.to_string()),
            };
        }
        sleep(BETWEEN);
    }
    Became::Unknown(error.to_string())
}

/// How a node came away from it.
pub enum Away {
    /// By a rollback. What is active now.
    RolledBack(String),
    /// It had left it already. What is active.
    Left(String),
}

/// Goes back on a node, if what it runs is still what the rollout put there.
///
/// # Errors
/// Why not.
pub fn go_back(client: &Client, ours: &Ours, why: &str) -> anyhow::Result<Away> {
    let glance = Glance::read(
        &client
            .get("/v1/state")
            .context("its state cannot be asked")?,
    );
    let active = |glance: &Glance| {
        let active = glance.active.as_ref();
        active.map_or_else(|| "what was before".to_owned(), Generation::words)
    };
    let number = match ours.find(&glance) {
        Found::Canary(canary) => canary.candidate.number,
        Found::Active(generation) => generation.number,
        Found::Gone => return Ok(Away::Left(active(&glance))),
    };
    // Without a number nobody knew whether the change had been done: it has.
    if ours.number != 0 && number != ours.number {
        bail!("somebody has changed it since: generation {number} runs the same plug-in");
    }
    // A rollback drops a canary first: it must be ours.
    let canary = glance
        .canary
        .as_ref()
        .filter(|it| it.candidate.number != number);
    if let Some(canary) = canary {
        bail!(
            "somebody else's canary is under way there, {}",
            canary.candidate.words()
        );
    }
    // Should it be changed between the look and this, the node refuses: what is left is ours or nothing.
    client.post("/v1/rollback", &json!({ "why": why, "generation": number }))?;
    let after = client.get("/v1/state").map(|it| Glance::read(&it));
    Ok(Away::RolledBack(after.map_or_else(
        |_| "what was before".to_owned(),
        |it| active(&it),
    )))
}
