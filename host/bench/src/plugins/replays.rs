//! Recorded decisions, asked again.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use msao_author::replay::{self, Options};
use msao_sandbox::{Sandbox, SandboxConfig};
use msao_state::{Recorded, read_jsonl};

use super::costs;
use super::shipped::{POLICIES, Shelf};
use crate::report::Row;

/// Decisions a second on one core.
const AIM: f64 = 200_000.0;
/// Decisions that are asked at least: a recording stands behind itself so often that a turn of another program, of some
/// milliseconds, is a small part of the time.
const DECISIONS: usize = 18_000;

fn recorded(name: &str) -> Result<Recorded> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/data/decisions")
        .join(format!("{name}.jsonl"));
    let open = File::open(&file).with_context(|| file.display().to_string())?;
    Ok(read_jsonl(BufReader::new(open))?)
}

/// Every shipped policy against what was recorded of it.
///
/// # Errors
/// A component or a recording is missing.
pub fn rows(shelf: &Shelf) -> Result<Vec<Row>> {
    let sandbox = Sandbox::new(&SandboxConfig::default())?;
    let mut rows = Vec::new();
    for name in POLICIES {
        let (wasm, manifest) = shelf.get(name)?;
        let policy = costs::load_policy(&sandbox, &wasm, &manifest)?;
        let mut recorded = recorded(name)?;
        let once = recorded.decisions.clone();
        while !once.is_empty() && recorded.decisions.len() < DECISIONS {
            recorded.decisions.extend(once.iter().cloned());
        }
        let start = Instant::now();
        let mut report = replay::policy(&policy, &recorded, &Options::default())?;
        let took = start.elapsed();
        report.finish(std::time::Duration::ZERO, took);
        let calls = report.decisions + report.steps.calls + report.observes.calls;
        let differ = report.decisions - report.count(replay::compare::Verdict::Same)
            + (report.steps.calls - report.steps.same)
            + (report.observes.calls - report.observes.same);
        rows.push(
            Row::at_most(
                format!("{name}: answers that differ from the recorded, in any bit"),
                differ as f64,
                0.0,
                "",
            )
            .with_details(vec![format!(
                "{calls} answers: {} of plan, {} of step, {} of observe",
                report.decisions, report.steps.calls, report.observes.calls
            )]),
        );
        rows.push(
            Row::at_least(
                format!("{name}: decisions a second on one core"),
                report.speed.decisions_per_s,
                AIM,
                "",
            )
            .with_details(vec![format!(
                "with preparing, step, observe and comparing: {:.0} decisions a second",
                report.speed.whole_per_s
            )]),
        );
    }
    Ok(rows)
}
