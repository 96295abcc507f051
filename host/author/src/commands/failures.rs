//! `msao policy failures`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use msao_registry::{Case, CaseSummary};
use msao_state::Redact;
use serde::Serialize;

use crate::files;
use crate::output::{Output, bytes, plain, table};

/// The cases' folder within a node's plug-in folder.
const CASES: &str = "cases";

/// List the inputs on which plug-ins have failed on a node, or pull one to replay it
///
/// A node keeps each input that made a plug-in trap, run too long, eat memory or answer nonsense, once, however often it came.
/// --pull writes one to a file, which `msao policy run` takes. With --json: {"failures": [..], "unread": [what is wrong with a
/// file that could not be read, ..]}.
///
/// Without --node a running node is asked, as `msao node failures` does, which can be told which one; it tells "failures" alone.
///
///   msao policy failures
///   msao policy failures --node /var/lib/msao/plugins
///   msao policy failures --node /var/lib/msao/plugins --pull 3f9a
///   msao policy run policies/patient 3f9a12bc00d4e561.json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct FailuresArgs {
    /// A node's plug-in folder, or its folder of cases [default: a running node is asked].
    #[arg(long, value_name = "FOLDER")]
    node: Option<PathBuf>,
    /// The case to pull: its id, or how it begins.
    #[arg(long, value_name = "ID")]
    pull: Option<String>,
    /// The file to write instead of ID.json in this folder.
    #[arg(long, value_name = "FILE", requires = "pull")]
    out: Option<PathBuf>,
}

impl FailuresArgs {
    /// The same question to a running node, as the arguments of `msao node failures`.
    pub(super) fn of_running_node(&self, json: bool) -> Option<Vec<OsString>> {
        if self.node.is_some() {
            return None;
        }
        let mut words: Vec<OsString> = ["node", "failures"].map(OsString::from).into();
        if let Some(id) = &self.pull {
            words.extend(["--pull".into(), id.into()]);
        }
        if let Some(out) = &self.out {
            words.extend(["--out".into(), out.into()]);
        }
        words.extend(json.then(|| "--json".into()));
        Some(words)
    }
}

/// Reads one kept failure.
///
/// # Errors
/// When the file is none.
pub fn read(path: &Path) -> anyhow::Result<Case> {
    serde_json::from_str(&files::read_text(path)?)
        .with_context(|| format!("{} is no failure that a node has kept", path.display()))
}

/// What there is.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listed<'a> {
    /// Newest first.
    failures: Vec<&'a CaseSummary>,
    /// What is wrong with the files that could not be read.
    unread: Vec<String>,
}

/// Failures with their files, newest first.
type Kept = Vec<(PathBuf, Case)>;

/// Every failure that can be read, and what is wrong with the others.
fn all(folder: &Path) -> anyhow::Result<(Kept, Vec<String>)> {
    let inner = folder.join(CASES);
    let folder = match inner.is_dir() {
        true => inner,
        false => folder.to_owned(),
    };
    let entries = std::fs::read_dir(&folder).with_context(|| {
        format!(
            "cannot read {}: name a node's plug-in folder",
            folder.display()
        )
    })?;
    let (mut cases, mut unread) = (Vec::new(), Vec::new());
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            match read(&path) {
                Ok(case) => cases.push((path, case)),
                Err(error) => unread.push(format!("{error:#}")),
            }
        }
    }
    cases.sort_by(|(_, a), (_, b)| b.failure.at_ms.total_cmp(&a.failure.at_ms));
    Ok((cases, unread))
}

/// What a replay has to know beside the input.
fn circumstances(failure: &CaseSummary) -> String {
    let mut text = String::new();
    if let Some(limits) = &failure.limits {
        let deadline_ms = match failure.export.as_str() {
            "score" => limits.score_ms,
            "plan" => limits.plan_ms,
            "step" => limits.step_ms,
            "observe" => limits.observe_ms,
            _ => limits.explain_ms,
        };
        text.push_str(&format!(
            "limits on that node: {} MiB, {deadline_ms} ms; it took {} and {:.1} ms\n",
            limits.memory_mib,
            bytes(failure.memory_peak),
            failure.elapsed_ms
        ));
    }
    if !failure.redacted.is_empty() {
        let words = failure.redacted.iter().map(|what| match what {
            Redact::Tenant => "the tenant",
            Redact::Report => "the probe's report",
            Redact::Steps => "how sure the draft was",
            Redact::Media => "what was read of the media",
        });
        text.push_str(&format!(
            "left out by the node's operator: {}; a replay may go otherwise\n",
            words.collect::<Vec<_>>().join(", ")
        ));
    }
    text
}

pub fn run(args: &FailuresArgs, output: Output) -> anyhow::Result<bool> {
    let Some(node) = &args.node else {
        bail!("name a node's plug-in folder with --node; `msao node failures` asks a running node");
    };
    let (cases, unread) = all(node)?;
    for problem in &unread {
        output.note(format_args!("left out: {problem}"));
    }
    let Some(id) = &args.pull else {
        let listed = Listed {
            failures: cases.iter().map(|(_, case)| &case.failure).collect(),
            unread,
        };
        output.answer(&listed, |listed| {
            if listed.failures.is_empty() {
                return format!("no failure was kept in {}\n", node.display());
            }
            let rows: Vec<Vec<String>> = (listed.failures.iter())
                .map(|it| {
                    vec![
                        plain(&it.id),
                        plain(&it.plugin),
                        plain(&it.export),
                        plain(&it.kind),
                        bytes(it.memory_peak),
                        format!("{:.1} ms", it.elapsed_ms),
                        plain(&it.message).chars().take(80).collect(),
                    ]
                })
                .collect();
            let head = ["id", "plug-in", "call", "kind", "memory", "time", "message"];
            table(&head, &rows)
        })?;
        return Ok(true);
    };
    let found: Vec<_> = (cases.iter())
        .filter(|(_, case)| case.failure.id.starts_with(id.as_str()))
        .collect();
    let (path, case) = match found.as_slice() {
        [one] => one,
        [] => {
            bail!("no failure's id begins with {id}; `msao policy failures --node ...` lists them")
        }
        many => bail!(
            "{} failures' ids begin with {id}; say more of it",
            many.len()
        ),
    };
    let out = match &args.out {
        Some(out) => out.clone(),
        // Not by the id that it gives itself: the file may come from anybody.
        None => PathBuf::from(path.file_name().unwrap_or_default()),
    };
    files::write(&out, files::read_text(path)?.as_bytes())?;
    output.answer(&case.failure, |failure| {
        let mut text = format!(
            "{}: {} {} failed ({}): {}\n",
            out.display(),
            plain(&failure.plugin),
            plain(&failure.export),
            plain(&failure.kind),
            plain(&failure.message)
        );
        if let Some(backtrace) = &failure.backtrace {
            text.push_str(&format!("{}\n", backtrace.trim_end()));
        }
        text.push_str(&circumstances(failure));
        text.push_str(&format!(
            "replay it: msao policy run PLUG-IN {}\n",
            out.display()
        ));
        text
    })?;
    Ok(true)
}
