//! `msao policy replay`.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Args;
use msao_sandbox::Plugin;
use serde_json::{Map, Value};

use super::Which;
use crate::cases::situation::params;
use crate::output::Output;
use crate::plugin::Project;
use crate::replay::{self, Options};

/// Replay recorded decisions against a plug-in: what it would have done otherwise
///
/// The file has the JSON lines that a node exports, or `msao policy record` wrote. Every decision is asked again with what
/// was recorded: request, parts, nodes, parameters and calibration. Told are flips (another route, peer or mode), other
/// changes, both by the plug-in's reasons, and whether `step` and `observe` answer as before. Equal means equal to the bit.
///
/// Where the plans differ, time, bytes and cost of both are estimated, and the difference is told as an estimate. n tokens
/// of answer, acceptance a, gamma drafts a round, t_d and t_t the time of a draft's and a target's token, t_v of a verifying
/// pass; all in ms:
///
///   upload       8000 * bytes / uplink-bps, bytes by keep, frames, scale and quality, less what the peer has
///   edge         queue + prefill + n * t_d
///   cloud        rtt + upload + queue + prefill + n * t_t
///   cloud-draft  as cloud, but n / E * (gamma * t_d + t_v),  E = (1 - a^(gamma + 1)) / (1 - a)
///   speculate    the later of both starts + n / E * (gamma * t_d + L),  L = rtt + 1.5 * t_v + queue + upload of a round;
///                with more than one round under way + n * (t_d + (1 - a) * L)
///
/// With --learn the plug-in starts with the first decision's calibration and folds its own updates; where its plan differs
/// from the recorded one nothing is learned, since what would have come of it is not known. A post-processor folds the
/// updates of its own scores, of the decisions that have the probe's report.
///
///   msao policy replay decisions.jsonl
///   msao policy replay decisions.jsonl policies/patient --param rtt-limit=80
///   msao policy replay decisions.jsonl --same         exit code 1 unless everything is the same
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct ReplayArgs {
    /// Recorded decisions, JSON lines.
    recorded: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Give the recorded calibration (the default).
    #[arg(long, conflicts_with = "learn")]
    frozen: bool,
    /// Fold the plug-in's own updates.
    #[arg(long)]
    learn: bool,
    /// A parameter by name; the others are the manifest's defaults then. Without any, the recorded ones are given.
    #[arg(long, value_name = "NAME=VALUE")]
    param: Vec<String>,
    /// Exit code 1 unless every answer is the recorded one, to the bit.
    #[arg(long)]
    same: bool,
    /// Limits in instructions instead of time: slower, and the same on every machine.
    #[arg(long)]
    deterministic: bool,
}

/// `NAME=VALUE` pairs, values as TOML writes them; a bare word is a choice's name.
fn pairs(list: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut map = Map::new();
    for pair in list {
        let Some((name, value)) = pair.split_once('=') else {
            bail!("--param {pair}: NAME=VALUE is expected");
        };
        let value = serde_json::from_str(value).unwrap_or(Value::String(value.to_owned()));
        map.insert(name.to_owned(), value);
    }
    Ok(map)
}

pub fn run(args: &ReplayArgs, output: Output) -> anyhow::Result<bool> {
    let project = Project::open(&args.which.path)?;
    let options = Options {
        learn: args.learn,
        params: match args.param.is_empty() {
            true => None,
            false => Some(params(&project.manifest, &pairs(&args.param)?)?),
        },
    };
    let plugin = project.load(args.deterministic)?;
    let started = Instant::now();
    let file = File::open(&args.recorded)
        .with_context(|| format!("cannot read {}", args.recorded.display()))?;
    let recorded = msao_state::read_jsonl(BufReader::with_capacity(1 << 20, file))
        .with_context(|| format!("{}", args.recorded.display()))?;
    let read = started.elapsed();
    if let Some(error) = &recorded.first_skipped {
        let path = args.recorded.display();
        let others = match recorded.skipped {
            1 => String::new(),
            lines => format!(", the first of {lines}"),
        };
        output.note(format_args!("{path}: left out{others}: {error}"));
    }
    if recorded.decisions.is_empty() {
        bail!("{} has no decisions", args.recorded.display());
    }
    match plugin {
        Plugin::Policy(policy) => {
            let mut report = replay::policy(&policy, &recorded, &options)?;
            report.finish(read, started.elapsed());
            output.answer(&report, replay::report::Report::text)?;
            Ok(!args.same || report.is_same())
        }
        Plugin::PostProcessor(postprocessor) => {
            let scored = replay::postprocessor(&postprocessor, &recorded, &options)?;
            output.answer(&scored, |scored| {
                let learned = match scored.learned {
                    true => "it learned from its own scores, of these decisions alone\n",
                    false => "",
                };
                format!(
                    "{} of {} decisions have the probe's report; {} of them scored as recorded, to the bit ({:.0} scores/s)\n{learned}{}",
                    scored.replayed,
                    scored.decisions,
                    scored.same,
                    scored.scores_per_s,
                    scored.examples.iter().map(|id| format!("  differs: {id}\n")).collect::<String>()
                )
            })?;
            Ok(!args.same || scored.same == scored.replayed)
        }
    }
}
