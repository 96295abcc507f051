//! `msao policy test`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use msao_sandbox::Plugin;
use serde::Serialize;

use super::Which;
use super::ask::ask;
use crate::cases::expect::{Mismatch, compare, diff};
use crate::cases::situation::situation;
use crate::cases::{self, Case};
use crate::output::Output;
use crate::plugin::{CASES, Project};

/// Run a plug-in's cases: what it is given, and what is expected of it
///
/// Cases are TOML or JSON files in the folder `cases` beside policy.toml. A case tells what is different from the defaults
/// (a text question of 32 tokens, one fast peer behind a good link; `msao policy run --defaults` prints all of them) and
/// what matters of the answer:
///
///   [[case]]
///   name = "a slow link keeps an image at the edge"
///   part = [{ modality = "image", tokens = 400 }]        # image, video, audio; the text comes by itself
///   peer = [{ uplink-bps = 1e6, rtt-ms = 200 }]          # one table a peer; [] for none
///   params = { rtt-limit = 60 }                          # by the manifest's names
///   cell = [{ key = 7, mean = 0.5, count = 10 }]         # what was learned
///   expect = { route = "edge", reason = "link-slow", terms = { rtt = { min = 100 } } }
///
/// `call` names the function: "plan" (the default), "step", "observe", "explain", or "score" for a post-processor. Other
/// tables: request, text, here (this node), step, outcome, report, plan; `memo` is the plan's unless it is given.
///
/// In place of a value `expect` may have a check: { min, max }, { near, within }, { one-of = [..] }, { not }, { contains },
/// { length }. `plan` answers a table or the word "probe", `step` a word, `observe` a list of updates, `explain` a text. A
/// call that fails answers { failure = { kind = "trap", message = ".." } }.
///
/// Limits are instructions here rather than time, so that a case gives the same answer on every machine. Exit code 1 when a
/// case fails.
///
///   msao policy test                            the plug-in in this folder
///   msao policy test policies/patient slow      cases of another whose name contains "slow"
///   msao policy test --cases more/edge.toml     another file or folder of cases
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct TestArgs {
    #[command(flatten)]
    which: Which,
    /// Only cases whose name contains this.
    filter: Option<String>,
    /// A file or folder of cases instead of `cases` in the plug-in's folder.
    #[arg(long, value_name = "PATH")]
    cases: Option<PathBuf>,
}

/// What came of a case.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Tried {
    file: PathBuf,
    name: String,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mismatches: Vec<Wrong>,
    /// What is wrong with the case itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    shown: String,
}

#[derive(Debug, Serialize)]
struct Wrong {
    at: String,
    expected: String,
    found: String,
}

/// What came of all cases.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tested {
    plugin: String,
    passed: usize,
    failed: usize,
    cases: Vec<Tried>,
}

impl Tested {
    /// Whether every case passed.
    pub fn is_fine(&self) -> bool {
        self.failed == 0
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for tried in &self.cases {
            if tried.passed {
                text.push_str(&format!("ok    {}\n", tried.name));
                continue;
            }
            text.push_str(&format!(
                "FAIL  {} ({})\n",
                tried.name,
                tried.file.display()
            ));
            for line in tried.shown.lines() {
                text.push_str(&format!("      {line}\n"));
            }
        }
        text.push_str(&format!(
            "{}: {} passed, {} failed\n",
            self.plugin, self.passed, self.failed
        ));
        text
    }
}

fn tried(plugin: &Plugin, file: &Path, case: Case) -> Tried {
    let mut tried = Tried {
        file: file.to_owned(),
        name: case.name.clone(),
        passed: false,
        answer: None,
        mismatches: Vec::new(),
        error: None,
        shown: String::new(),
    };
    let asked = cases::given(case.given)
        .and_then(|given| situation(&given, plugin.manifest()))
        .and_then(|situation| ask(plugin, &situation));
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            let error = format!("{error:#}");
            tried.shown = format!("the case is wrong: {error}");
            tried.error = Some(error);
            return tried;
        }
    };
    let mismatches = compare(&case.expect, &asked.answer);
    tried.passed = mismatches.is_empty();
    if !tried.passed {
        if !case.about.is_empty() {
            tried.shown = format!("{}\n", case.about);
        }
        tried.shown.push_str(&diff(&asked.answer, &mismatches));
        if let Some(failure) = &asked.failure {
            tried.shown.push_str(&format!("{failure}\n"));
            tried
                .shown
                .push_str(failure.backtrace.as_deref().unwrap_or_default());
        }
        tried.answer = Some(asked.answer);
        tried.mismatches = (mismatches.into_iter())
            .map(
                |Mismatch {
                     at,
                     expected,
                     found,
                 }| Wrong {
                    at,
                    expected,
                    found,
                },
            )
            .collect();
    }
    tried
}

/// Runs the cases of `project` that `filter` leaves, or those in `place`.
///
/// # Errors
/// When the component cannot be loaded or a file of cases cannot be read.
pub fn test(
    project: &Project,
    place: Option<&Path>,
    filter: Option<&str>,
) -> anyhow::Result<Tested> {
    let folder = project.folder.join(CASES);
    let place = place.unwrap_or(&folder);
    let files = match place.is_file() {
        true => vec![place.to_owned()],
        false => cases::find(place)?,
    };
    if files.is_empty() {
        bail!(
            "there are no cases in {}: write one, `msao policy test --help` shows how",
            place.display()
        );
    }
    let plugin = project.load(true)?;
    let mut tested = Tested {
        plugin: format!("{} {}", project.manifest.name, project.manifest.version),
        passed: 0,
        failed: 0,
        cases: Vec::new(),
    };
    for file in &files {
        let all = cases::read(file)?;
        let wanted = all
            .into_iter()
            .filter(|case| filter.is_none_or(|part| case.name.contains(part)));
        tested
            .cases
            .extend(wanted.map(|case| tried(&plugin, file, case)));
    }
    if let (Some(filter), true) = (filter, tested.cases.is_empty()) {
        bail!(
            "no case of {} has \"{filter}\" in its name",
            place.display()
        );
    }
    tested.passed = tested.cases.iter().filter(|tried| tried.passed).count();
    tested.failed = tested.cases.len() - tested.passed;
    Ok(tested)
}

pub fn run(args: &TestArgs, output: Output) -> anyhow::Result<bool> {
    let project = Project::open(&args.which.path)?;
    let tested = test(&project, args.cases.as_deref(), args.filter.as_deref())
        .with_context(|| format!("testing {}", project.manifest.name))?;
    output.answer(&tested, Tested::text)?;
    Ok(tested.is_fine())
}
