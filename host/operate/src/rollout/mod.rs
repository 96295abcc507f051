//! `msao policy rollout`: a release for many nodes, a few at first, watched, and taken back where it does harm.
//!
//! [`drive`] goes from wave to wave; [`guard`] says whether a node may keep what it got; [`fleet`] reads the nodes and cuts the
//! waves; [`report`] tells what stands where. Nothing is kept on this disk: nodes know what they run, so the same command
//! again goes on where the last one ended.

mod change;
mod drive;
mod fleet;
mod guard;
mod place;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::Args;

pub use self::fleet::Wave;
pub use self::guard::{Limits, Ours, Tripped, judge};
use crate::interrupt::Interrupt;
use crate::output::Output;

/// Bring a plug-in to many nodes in waves, and take it back if it does harm
///
/// Each wave pushes and activates on so many nodes more, then watches every node that has it so far. If one guardrail gives
/// way on one node, the rollout stops and rolls back the nodes that it has changed. Ctrl-C stops and leaves everything as it
/// stands; the same command again goes on from there. The nodes are listed in a file, in the order in which they are taken:
///
///   [[node]]
///   name = "edge-1"
///   url = "http://10.0.0.1:8081"
///   token-file = "edge-1.token"      # relative to this file; may be left out
///
///   msao policy rollout policies/patient --nodes fleet.toml --wave 1,10%,100% --watch 120
///   msao policy rollout patient@0.2.0 --nodes fleet.toml --canary
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct RolloutArgs {
    /// A plug-in's folder or .wasm, which is pushed to each node, or a release that all of them have. A policy, a
    /// post-processor, or one of each.
    #[arg(value_name = "PLUG-IN", num_args = 1..=2, required = true)]
    releases: Vec<String>,
    /// The list of nodes (TOML).
    #[arg(long, value_name = "FILE")]
    nodes: PathBuf,
    /// How many nodes have it after each wave: numbers or shares.
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "1,10%,100%"
    )]
    wave: Vec<Wave>,
    /// How long each wave is watched.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    watch: f64,
    /// Between two looks at the nodes.
    #[arg(long, value_name = "SECONDS", default_value_t = 1.0, value_parser = seconds)]
    every: f64,
    /// Make it a canary on each node first, watch that, then promote it and watch again.
    #[arg(long)]
    canary: bool,
    /// Leave it where it is when a guardrail gives way.
    #[arg(long)]
    keep: bool,
    /// Guardrail: failed requests, failed calls of the plug-in and a canary's errors, beyond their share before.
    #[arg(long, value_name = "SHARE", default_value = "1%", value_parser = share, help_heading = "Guardrails")]
    max_failed: f64,
    /// Guardrail: requests that lost their peer, beyond their share before.
    #[arg(long, value_name = "SHARE", default_value = "5%", value_parser = share, help_heading = "Guardrails")]
    max_degraded: f64,
    /// Guardrail: requests that ran otherwise than planned, beyond their share before.
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = share, help_heading = "Guardrails")]
    max_overridden: f64,
    /// Guardrail: how much longer than the others' a canary's times may be.
    #[arg(long, value_name = "SHARE", default_value = "25%", value_parser = share, help_heading = "Guardrails")]
    max_slower: f64,
    /// Guardrail: how much longer the node's newest requests may take than those before (95th percentiles; 100% is twice as
    /// long).
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = share, help_heading = "Guardrails")]
    max_latency: f64,
    /// Guardrail: how much of the error budget may be spent.
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = share, help_heading = "Guardrails")]
    max_budget: f64,
    /// Answer with one JSON value on standard output.
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let fits = |it: &f64| (0.01..=86_400.0).contains(it);
    text.parse()
        .ok()
        .filter(fits)
        .ok_or_else(|| "expected 0.01 to 86400 seconds".to_owned())
}

fn share(text: &str) -> Result<f64, String> {
    let value: Option<f64> = match text.strip_suffix('%') {
        Some(percent) => percent.parse().ok().map(|it: f64| it / 100.0),
        None => text.parse().ok(),
    };
    value
        .filter(|it| (0.0..=10.0).contains(it))
        .ok_or_else(|| "expected a share such as 1% or 0.01".to_owned())
}

/// How a rollout goes, beside what and where.
#[derive(Clone, Copy, Debug)]
struct Manner {
    watch: Duration,
    every: Duration,
    canary: bool,
    keep: bool,
    limits: Limits,
}

impl RolloutArgs {
    pub(crate) fn output(&self) -> Output {
        Output { json: self.json }
    }
}

pub(crate) fn run(args: &RolloutArgs) -> anyhow::Result<bool> {
    let output = args.output();
    let manner = Manner {
        watch: Duration::from_secs_f64(args.watch),
        every: Duration::from_secs_f64(args.every),
        canary: args.canary,
        keep: args.keep,
        limits: Limits {
            failed: args.max_failed,
            degraded: args.max_degraded,
            overridden: args.max_overridden,
            slower: args.max_slower,
            latency: args.max_latency,
            budget: args.max_budget,
        },
    };
    let members = fleet::read(&args.nodes)?;
    let waves = fleet::cut(&args.wave, members.len())?;
    let interrupt = Interrupt::watch()?;
    let payload = change::Payload::read(&args.releases)?;
    let mut drive = drive::Drive::prepare(members, waves, payload, manner, interrupt, output)?;
    if drive.is_pointless() {
        bail!("every node of {} has it already", args.nodes.display());
    }
    let report = drive.run();
    output.answer(&report, report::Report::words)?;
    Ok(report.is_fine())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_both_ways() {
        assert_eq!(share("1%"), Ok(0.01));
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("-1%").is_err() && share("x").is_err() && share("2000%").is_err());
        assert!(seconds("0").is_err() && seconds("1e9").is_err());
        assert_eq!(seconds("0.5"), Ok(0.5));
    }
}
