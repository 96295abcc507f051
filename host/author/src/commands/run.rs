//! `msao policy run`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use msao_core::offload::manifest::Manifest;
use msao_registry::{Case, CaseInput, CaseSummary};
use msao_sandbox::Plugin;
use serde_json::{Map, Value};

use super::Which;
use super::ask::{Asked, ask};
use crate::cases::expect::flat;
use crate::cases::situation::{Situation, situation};
use crate::cases::{self, Call, Given};
use crate::files;
use crate::output::Output;
use crate::plugin::Project;

/// Give a plug-in one input and print its answer
///
/// The input has the keys of a case but for name and expect, in TOML or JSON; a failing input that a node has kept
/// (`msao policy failures --pull ID`) is one too: it runs under the limits that it had there, and where it ends otherwise than
/// there, that is said. Without an input the defaults are given. Exit code 1 when the call fails.
///
///   msao policy run                                      the defaults
///   msao policy run . slow.toml
///   echo 'peer = []' | msao policy run . -
///   msao policy run --defaults                           the whole input, to see what can be changed
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct RunArgs {
    #[command(flatten)]
    which: Which,
    /// A file, or - for standard input.
    input: Option<PathBuf>,
    /// The function to call, whatever the input says.
    #[arg(long, value_name = "NAME")]
    call: Option<String>,
    /// Print the whole input instead of calling.
    #[arg(long)]
    defaults: bool,
}

/// The input in `path`, or the defaults, as far as `path` says.
fn read(path: Option<&Path>) -> anyhow::Result<Map<String, Value>> {
    Ok(match path {
        None => Map::new(),
        Some(path) if path == Path::new("-") => {
            let mut text = String::new();
            std::io::stdin()
                .lock()
                .take(files::MAX_TEXT + 1)
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            if text.len() as u64 > files::MAX_TEXT {
                bail!("standard input has more than {} bytes", files::MAX_TEXT);
            }
            cases::parse(&text, Path::new("standard input"))?
        }
        Some(path) => cases::parse(&files::read_text(path)?, path)?,
    })
}

/// The whole input that `path` stands for: a case's keys, or a failure that a node has kept.
///
/// # Errors
/// Naming the file and what is wrong with it.
pub fn situation_of(path: Option<&Path>, manifest: &Manifest) -> anyhow::Result<Situation> {
    input_of(path, manifest).map(|(situation, _)| situation)
}

/// The same, and what a node has kept of a failure beside the input.
fn input_of(
    path: Option<&Path>,
    manifest: &Manifest,
) -> anyhow::Result<(Situation, Option<CaseSummary>)> {
    let mut map = read(path)?;
    let name = || path.map_or_else(String::new, |path| path.display().to_string());
    if map.contains_key("failure") && map.contains_key("input") {
        let case: Case = serde_json::from_value(Value::Object(map)).with_context(name)?;
        let situation = failed(case.input, &case.failure.export, manifest)?;
        return Ok((situation, Some(case.failure)));
    }
    // A case is an input too.
    for key in ["name", "about", "expect"] {
        map.remove(key);
    }
    let given = cases::given(map).with_context(name)?;
    let situation = situation(&given, manifest).with_context(name)?;
    Ok((situation, None))
}

/// The plug-in under the limits that a kept failure had, else under those that its manifest asks for.
fn loaded(project: &Project, kept: Option<&CaseSummary>) -> anyhow::Result<Plugin> {
    match kept.and_then(|kept| kept.limits.as_ref()) {
        Some(limits) => project.load_within(limits),
        None => project.load(true),
    }
}

/// How the call ended otherwise than on the node that has kept it, if it did.
fn otherwise(kept: &CaseSummary, asked: &Asked) -> Option<String> {
    let here = match &asked.failure {
        Some(failure) if failure.kind.name() == kept.kind => return None,
        Some(failure) => format!("it fails as {}", failure.kind.name()),
        None => "it answers".to_owned(),
    };
    let why = match kept.kind.as_str() {
        "deadline" | "overloaded" | "breaker" => {
            "; a node counts time, and this command instructions"
        }
        _ if !kept.redacted.is_empty() => "; a part of the input was left out there",
        _ => "",
    };
    Some(format!(
        "on the node {} failed as {} after {:.1} ms; here {here}{why}",
        kept.export, kept.kind, kept.elapsed_ms
    ))
}

/// The input on which a call failed.
fn failed(input: CaseInput, export: &str, manifest: &Manifest) -> anyhow::Result<Situation> {
    let mut it = situation(&Given::default(), manifest)?;
    it.call = call(export)?;
    match input {
        CaseInput::Score {
            report,
            seed,
            params,
            calibration,
        } => {
            it.report = report;
            it.request.seed = seed;
            (it.params, it.calibration) = (params, calibration);
        }
        CaseInput::Plan {
            request,
            parts,
            nodes,
            params,
            calibration,
            explained,
        } => {
            (it.request, it.parts, it.nodes) = (request, parts, nodes);
            (it.params, it.calibration) = (params, calibration);
            it.plan = explained;
        }
        CaseInput::Step { input, memo } => {
            it.step = input;
            it.memo = Some(memo);
        }
        CaseInput::Observe {
            outcome,
            params,
            calibration,
        } => {
            it.memo = Some(outcome.memo.clone());
            it.outcome = outcome;
            (it.params, it.calibration) = (params, calibration);
        }
    }
    Ok(it)
}

/// The function called `name`.
fn call(name: &str) -> anyhow::Result<Call> {
    serde_json::from_value(Value::String(name.to_owned()))
        .ok()
        .with_context(|| {
            format!("the call is \"{name}\"; allowed: plan, step, observe, explain, score")
        })
}

fn lines(value: &Value) -> String {
    (flat(value).into_iter())
        .map(|(name, value)| match name.as_str() {
            "" => format!("{value}\n"),
            name => format!("{name} = {value}\n"),
        })
        .collect()
}

fn shown(situation: &Situation) -> String {
    lines(&serde_json::to_value(situation).unwrap_or_default())
}

pub fn run(args: &RunArgs, output: Output) -> anyhow::Result<bool> {
    let project = Project::open(&args.which.path)?;
    let (mut situation, mut kept) = input_of(args.input.as_deref(), &project.manifest)?;
    if let Some(name) = &args.call {
        situation.call = call(name)?;
        // Of another function nothing was kept.
        kept = kept.filter(|kept| kept.export == *name);
    }
    if args.defaults {
        output.answer(&situation, shown)?;
        return Ok(true);
    }
    let asked = ask(&loaded(&project, kept.as_ref())?, &situation)?;
    output.answer(&asked.answer, lines)?;
    if let Some(otherwise) = kept.and_then(|kept| otherwise(&kept, &asked)) {
        output.warn(otherwise);
    }
    if let Some(backtrace) = asked.failure.as_ref().and_then(|f| f.backtrace.as_ref()) {
        output.note(backtrace);
    }
    Ok(asked.failure.is_none())
}
