//! Recorded decisions, asked again.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use msao_author::replay::compare::Verdict;
use msao_author::replay::report::Report;
use msao_author::replay::{self, Options};
use msao_sandbox::{Policy, Sandbox, SandboxConfig};
use msao_state::{Recorded, read_jsonl};

use super::costs;
use super::shipped::{POLICIES, Shelf};
use crate::report::Row;

/// Plans a second on one core.
const AIM: f64 = 200_000.0;
/// Decisions that are asked at least: a recording stands behind itself so often that a turn of another program, of some
/// milliseconds, is a small part of the time.
const DECISIONS: usize = 18_000;
/// How often all are asked.
const TURNS: usize = 7;

fn recorded(name: &str) -> Result<Recorded> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/decisions")
        .join(format!("{name}.jsonl.zst"));
    let open = File::open(&file).with_context(|| file.display().to_string())?;
    Ok(read_jsonl(BufReader::new(open))?)
}

/// A policy with what was recorded of it, and how its replays went.
struct Replaying {
    name: &'static str,
    policy: Arc<Policy>,
    recorded: Recorded,
    reports: Vec<Report>,
}

impl Replaying {
    fn new(name: &'static str, sandbox: &Sandbox, shelf: &Shelf) -> Result<Replaying> {
        let (wasm, manifest) = shelf.get(name)?;
        let policy = costs::load_policy(sandbox, &wasm, &manifest)?;
        let mut recorded = recorded(name)?;
        let once = recorded.decisions.clone();
        while !once.is_empty() && recorded.decisions.len() < DECISIONS {
            recorded.decisions.extend(once.iter().cloned());
        }
        Ok(Replaying {
            name,
            policy,
            recorded,
            reports: Vec::with_capacity(TURNS),
        })
    }

    fn replay(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut report = replay::policy(&self.policy, &self.recorded, &Options::default())?;
        report.finish(Duration::ZERO, start.elapsed());
        self.reports.push(report);
        Ok(())
    }

    fn rows(mut self) -> Option<[Row; 2]> {
        let differ = |report: &Report| {
            report.decisions - report.count(Verdict::Same)
                + (report.steps.calls - report.steps.same)
                + (report.observes.calls - report.observes.same)
        };
        let most_differ = self.reports.iter().map(differ).max()?;
        (self.reports).sort_by(|a, b| a.speed.plans_per_s.total_cmp(&b.speed.plans_per_s));
        let [slowest, .., fastest] = self.reports.as_slice() else {
            return None;
        };
        let report = self.reports.get(self.reports.len() / 2)?;
        let (name, speed) = (self.name, &report.speed);
        Some([
            Row::at_most(
                format!("{name}: answers that differ from the recorded, in any bit"),
                most_differ as f64,
                0.0,
                "",
            )
            .with_details(vec![format!(
                "{} answers in each of {} turns: {} of plan, {} of step, {} of observe",
                report.decisions + report.steps.calls + report.observes.calls,
                self.reports.len(),
                report.decisions,
                report.steps.calls,
                report.observes.calls
            )]),
            Row::at_least(
                format!("{name}: plans a second on one core"),
                speed.plans_per_s,
                AIM,
                "",
            )
            .with_details(vec![
                format!(
                    "median turn; slowest {:.0}, fastest {:.0}",
                    slowest.speed.plans_per_s, fastest.speed.plans_per_s
                ),
                format!(
                    "{} plans for {} decisions (two where the probe was asked for): {:.0} decisions a second, \
                     {:.0} with preparing, step, observe and comparing",
                    report.plan_calls, report.decisions, speed.decisions_per_s, speed.whole_per_s
                ),
            ]),
        ])
    }
}

/// Every shipped policy against what was recorded of it, one after the other in each turn, so that a machine that is slower
/// for some seconds is so for all of them.
///
/// # Errors
/// A component or a recording is missing.
pub fn rows(shelf: &Shelf) -> Result<Vec<Row>> {
    let sandbox = Sandbox::new(&SandboxConfig::default())?;
    let mut all = POLICIES
        .iter()
        .map(|name| Replaying::new(name, &sandbox, shelf))
        .collect::<Result<Vec<Replaying>>>()?;
    for _ in 0..TURNS {
        all.iter_mut().try_for_each(Replaying::replay)?;
    }
    let rows = all.into_iter().map(|replaying| {
        let name = replaying.name;
        replaying
            .rows()
            .with_context(|| format!("{name} was never replayed"))
    });
    Ok(rows
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}
