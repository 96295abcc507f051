//! `msao policy record`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use msao_core::offload::manifest::World;
use msao_registry::driver::{Driver, record_set};
use serde::Serialize;

use super::Which;
use crate::files;
use crate::output::{Output, bytes};
use crate::plugin::{Project, sandbox};

/// Decisions that one recording may hold: they are kept in memory until they are written.
const MAX_DECISIONS: u32 = 200_000;

/// Record what a policy decides about requests that are drawn at random
///
/// Something to replay before a node has recorded real traffic. Requests, links, queues and outcomes are drawn from --seed
/// (nothing is measured); the decisions are the component's own, made by the runtime that nodes use, `step` and `observe`
/// included. The same component, seed and count give the same bytes on every machine.
///
///   msao policy record --seed 7 --count 1000 --out decisions.jsonl
///   msao policy record . --postprocessor ../scores --out decisions.jsonl
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct RecordArgs {
    #[command(flatten)]
    which: Which,
    /// Of the traffic.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Decisions.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    count: u32,
    /// The post-processor that scores what the probe sees, where the policy wants the probe.
    #[arg(long, value_name = "PLUG-IN")]
    postprocessor: Option<PathBuf>,
    /// Share of the decisions whose probe report is recorded too, in [0, 1]; without it `score` is not replayed.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE")]
    reports: f64,
    /// Share of the requests whose peer refuses them before the first token, so that they are planned again, in [0, 1].
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    refusals: f64,
    /// The file to write; standard output where it is left out.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Written {
    file: PathBuf,
    decisions: u64,
    bytes: u64,
}

pub fn run(args: &RecordArgs, output: Output) -> anyhow::Result<bool> {
    if args.count == 0 || args.count > MAX_DECISIONS {
        bail!("--count is {}; allowed: 1 to {MAX_DECISIONS}", args.count);
    }
    for (name, share) in [("reports", args.reports), ("refusals", args.refusals)] {
        if !(0.0..=1.0).contains(&share) {
            bail!("--{name} is {share}; allowed: 0 to 1");
        }
    }
    let project = Project::open(&args.which.path)?;
    if project.manifest.world != World::OffloadPolicy {
        bail!(
            "{} is a {}; name a policy, and this one with --postprocessor",
            project.manifest.name,
            project.manifest.world
        );
    }
    project.wasm()?;
    let postprocessor = (args.postprocessor.as_ref())
        .map(|path| Project::open(path).map(|project| project.component))
        .transpose()?;
    let traffic = Driver::new(args.seed).refusing(args.refusals);
    let record = |out: &mut dyn Write| {
        record_set(
            Arc::new(sandbox(&project.manifest, true)?),
            &project.component,
            postprocessor.as_deref(),
            (traffic.clone(), args.count as usize),
            args.reports,
            out,
        )
        .with_context(|| format!("recording {}", project.manifest.name))
    };
    let Some(file) = &args.out else {
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        record(&mut out)?;
        out.flush()?;
        return Ok(true);
    };
    let mut decisions = 0;
    let written = files::write_with(file, |out| {
        decisions = record(out)?.decisions;
        Ok(())
    })?;
    let told = Written {
        file: file.clone(),
        decisions,
        bytes: written,
    };
    output.answer(&told, |told| {
        format!(
            "{}: {} decisions, {}\n",
            told.file.display(),
            told.decisions,
            bytes(told.bytes)
        )
    })?;
    Ok(true)
}
