//! `msao policy explain`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::record::{Approach, DecisionRecord, unprobed};
use msao_core::offload::{Calibration, Decision, PlanInput};
use msao_sandbox::Policy;
use serde::Serialize;

use super::Which;
use super::run::situation_of;
use crate::cases::answer::{self, terms};
use crate::output::Output;
use crate::plugin::Project;

/// Say in words why a policy decides as it does
///
/// Of an input (as `msao policy run` takes it), or of a recorded decision. Tells the manifest's meaning of the plan's reason
/// and terms, and the policy's own explanation where it has one.
///
///   msao policy explain . slow.toml
///   msao policy explain . --recorded decisions.jsonl --id sim-7-12
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ExplainArgs {
    #[command(flatten)]
    which: Which,
    /// An input, or - for standard input; the defaults where it is left out.
    #[arg(conflicts_with = "recorded")]
    input: Option<PathBuf>,
    /// Recorded decisions, JSON lines.
    #[arg(long, value_name = "FILE", requires = "id")]
    recorded: Option<PathBuf>,
    /// The recorded decision's request id.
    #[arg(long, requires = "recorded")]
    id: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Term {
    name: String,
    value: f64,
    unit: String,
    meaning: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Explained {
    plan: serde_json::Value,
    reason: Option<String>,
    reason_means: Option<String>,
    terms: Vec<Term>,
    /// The policy's own words.
    words: Option<String>,
}

/// What is told of a policy that wants the probe first.
fn wants_probe(manifest: &Manifest, why: &str) -> Explained {
    Explained {
        plan: answer::decision(manifest, &Decision::Probe),
        reason: None,
        reason_means: Some(why.to_owned()),
        terms: Vec::new(),
        words: None,
    }
}

/// A recorded decision as this policy would have come to it: with the probe's scores only where it would have seen them.
fn recorded(
    policy: &Policy,
    record: &DecisionRecord,
    calibration: &Calibration,
) -> anyhow::Result<Explained> {
    let manifest = policy.manifest();
    let as_it_was = PlanInput {
        request: &record.request,
        parts: &record.parts,
        nodes: &record.nodes,
        params: &record.given.params,
        calibration,
    };
    let (request, parts) = unprobed(&record.request, &record.parts);
    let before = PlanInput {
        request: &request,
        parts: &parts,
        ..as_it_was
    };
    match record.approach(manifest.probe) {
        Approach::AsItWas => explained(policy, as_it_was),
        Approach::Unprobed => explained(policy, before),
        // The scores are there: if it looks, it decides by what it sees.
        Approach::UnprobedFirst => match policy.plan(before)? {
            Decision::Probe => explained(policy, as_it_was),
            Decision::Run(_) => explained(policy, before),
        },
        Approach::Unknown => Ok(wants_probe(
            manifest,
            "it wants the probe's scores before it decides, and the probe did not run for this request",
        )),
    }
}

fn explained(policy: &Policy, input: PlanInput) -> anyhow::Result<Explained> {
    let manifest: &Manifest = policy.manifest();
    let plan = match policy.plan(input)? {
        Decision::Run(plan) => plan,
        Decision::Probe => {
            return Ok(wants_probe(
                manifest,
                "it wants the probe's scores before it decides: give a part its necessity and mas",
            ));
        }
    };
    let reason = manifest.reasons.get(plan.reason as usize);
    Ok(Explained {
        reason: reason.map(|reason| reason.name.clone()),
        reason_means: reason.map(|reason| reason.meaning.clone()),
        terms: terms(manifest, &plan)
            .map(|(term, value)| Term {
                name: term.name.clone(),
                value,
                unit: term.unit.clone(),
                meaning: term.meaning.clone(),
            })
            .collect(),
        words: policy.explain(input, &plan)?,
        plan: answer::plan(manifest, &plan),
    })
}

fn text(it: &Explained) -> String {
    let word = |name: &str| match it.plan.get(name) {
        Some(serde_json::Value::String(word)) => word.clone(),
        Some(other) => other.to_string(),
        None => it.plan.as_str().unwrap_or("?").to_owned(),
    };
    let mut text = match it.plan.is_object() {
        true => format!(
            "route {} to node {}, {}\n",
            word("route"),
            word("peer"),
            word("mode")
        ),
        false => format!("{}\n", word("")),
    };
    match (&it.reason, &it.reason_means) {
        (Some(reason), Some(means)) => text.push_str(&format!("because {reason}: {means}\n")),
        (None, Some(means)) => text.push_str(&format!("{means}\n")),
        _ => text.push_str("its manifest gives no reason\n"),
    }
    for term in &it.terms {
        let unit = match term.unit.as_str() {
            "" => String::new(),
            unit => format!(" {unit}"),
        };
        text.push_str(&format!(
            "  {} = {}{unit}  ({})\n",
            term.name, term.value, term.meaning
        ));
    }
    if let Some(words) = &it.words {
        text.push_str(&format!("\n{}\n", words.trim_end()));
    }
    text
}

pub fn run(args: &ExplainArgs, output: Output) -> anyhow::Result<bool> {
    let project = Project::open(&args.which.path)?;
    let policy = project.policy(true)?;
    let told = match (&args.recorded, &args.id) {
        (Some(path), Some(id)) => {
            let file =
                File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            let all = msao_state::read_jsonl(BufReader::new(file))
                .with_context(|| format!("{}", path.display()))?;
            let record = (all.decisions.iter())
                .find(|record| record.id == *id)
                .with_context(|| format!("{} has no decision {id}", path.display()))?;
            let snapshot = (all.snapshots.get(&record.given.calibration))
                .context("the decision's calibration is not in the file")?;
            if record.given.params.len() != project.manifest.parameters.len() {
                bail!(
                    "{id} was decided with {} parameters; {} has {}",
                    record.given.params.len(),
                    project.manifest.name,
                    project.manifest.parameters.len()
                );
            }
            recorded(&policy, record, snapshot.calibration())?
        }
        _ => {
            let situation = situation_of(args.input.as_deref(), &project.manifest)?;
            explained(&policy, situation.plan_input())?
        }
    };
    output.answer(&told, text)?;
    Ok(true)
}
