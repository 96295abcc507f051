//! Generations that take over while requests are decided, and many threads that teach at once: the registry's own proofs, with
//! components in the sandbox.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use msao_core::offload::record::GenerationId;
use msao_core::offload::{BINS, Plan, Scores};
use msao_registry::proof::{Belongs, ObserveFigures, SwapFigures, SwapRun, observes, swaps};
use msao_registry::state::{CalibrationStore, RecordConfig, RecordRing, SledStorage, Storage};
use msao_registry::{Bundle, Choice, Options, Pick, Plugins, PolicyConfig, Site};
use msao_sandbox::{Sandbox, SandboxConfig};

use super::inputs::manifest_text;
use crate::report::Row;

/// What the aims name.
const RUN: SwapRun = SwapRun {
    before: 1000,
    swaps: 1000,
    rollbacks: 200,
    threads: 8,
    calls: 1_000_000,
    steps: 4,
};
const AIM_MS: f64 = 1.0;
/// How much more memory may be held during the last tenth of the exchanges than during the first, in percent.
const FLAT: f64 = 2.0;
/// Threads that finish requests at once, and requests of each.
const TEACHERS: u64 = 64;
const LESSONS: u64 = 200;
/// Updates of each `observe` of the measured policy: one a bin with drafts.
const UPDATES: u64 = BINS as u64;

/// A runtime on the real sandbox and a real database, in `folder`.
///
/// # Errors
/// Something cannot be opened.
pub fn open(folder: &Path) -> Result<(Plugins, Arc<CalibrationStore>)> {
    let storage: Arc<dyn Storage> = Arc::new(SledStorage::open(&folder.join("state"))?.storage);
    let calibration = Arc::new(CalibrationStore::open(Arc::clone(&storage))?);
    // Small, so that it is full long before the first look at the memory.
    let records = RecordConfig {
        keep: 200,
        mib: 2,
        ..RecordConfig::default()
    };
    let sandbox = Sandbox::new(&SandboxConfig {
        cache: Some(folder.join("compiled")),
        ..SandboxConfig::default()
    })?;
    let opened = Plugins::open(Options {
        folder: folder.join("registry"),
        config: PolicyConfig {
            allow_unsigned: true,
            ..PolicyConfig::default()
        },
        loader: Arc::new(sandbox),
        calibration: Arc::clone(&calibration),
        records: Some(Arc::new(RecordRing::open(storage, records)?)),
        site: Site {
            models: "draft/target".into(),
            node: "edge".into(),
        },
    })?;
    ensure!(opened.warnings.is_empty(), "{:?}", opened.warnings);
    Ok((opened.plugins, calibration))
}

/// A thousand exchanges under load.
///
/// # Errors
/// A component is refused.
pub fn rows(policy: &[u8], other: &[u8], post: &[u8]) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("compiled"))?;
    let (plugins, _) = open(folder.path())?;
    let text = manifest_text("offload-policy");
    let scorer = Bundle::new(post.to_vec(), manifest_text("probe-postprocessor"), None)?;
    let scorer = plugins.push(&scorer)?;
    let mut choices = Vec::new();
    let mut memos = Vec::new();
    for (wasm, memo) in [(policy, 7u8), (other, 8u8)] {
        let release = plugins.push(&Bundle::new(wasm.to_vec(), text.clone(), None)?)?;
        memos.push((release.artifact, memo));
        choices.push(Choice {
            policy: Pick::Take(release),
            postprocessor: Pick::Take(scorer),
        });
    }
    let last = choices.last().copied().unwrap_or_default();
    plugins.activate(last)?;
    let plan_belongs = |id: &GenerationId, plan: &Plan| {
        memos
            .iter()
            .any(|(artifact, memo)| id.policy == Some(*artifact) && plan.memo == [*memo; 16])
    };
    let belongs = Belongs {
        plan: &plan_belongs,
        scores: &|_, scores: &Scores| scores.items.len() == 1,
    };
    let found = swaps(&plugins, &choices, &belongs, RUN)?;
    let quantiles = |times: &[f64]| {
        let of = |share| SwapFigures::quantile(times, share);
        format!(
            "p50 {:.3} ms, p99 {:.3} ms, worst {:.3} ms",
            of(0.5),
            of(0.99),
            of(1.0)
        )
    };
    let p99 = |times: &[f64]| SwapFigures::quantile(times, 0.99);
    let (then, at_end) = found.memory_mib;
    Ok(vec![
        Row::at_least("exchanges", found.swaps as f64, RUN.swaps as f64, ""),
        Row::at_least(
            format!("calls meanwhile, by {} threads", RUN.threads),
            found.calls as f64,
            RUN.calls as f64,
            "",
        )
        .with_details(vec![format!("{} requests", found.requests)]),
        Row::at_most("requests with a failed call", found.failed as f64, 0.0, ""),
        Row::at_most(
            "requests with two generations' answers",
            found.mixed as f64,
            0.0,
            "",
        ),
        Row::at_most(
            "commit to the first decision by the new one, p99",
            p99(&found.first_decision_ms),
            AIM_MS,
            " ms",
        )
        .with_details(vec![quantiles(&found.first_decision_ms)]),
        Row::at_most(
            "rollback, call to the first decision by the old one, p99",
            p99(&found.rollback_ms),
            AIM_MS,
            " ms",
        )
        .with_details(vec![
            quantiles(&found.rollback_ms),
            format!("until it is on the disk: {}", quantiles(&found.durable_ms)),
        ]),
        Row::at_most(
            "memory, the last tenth of the way over the first",
            100.0 * (at_end / then - 1.0),
            FLAT,
            " %",
        )
        .with_details(vec![format!(
            "{then:.1} MiB, {at_end:.1} MiB; {:.1} MiB early in the {} exchanges before, which fill the allocator's arenas",
            found.memory_before_mib, RUN.before
        )]),
        Row::at_most(
            "generations that decide, at the end",
            found.live_at_end as f64,
            1.0,
            "",
        ),
        Row::at_most(
            "generations in memory at the end",
            found.in_memory_at_end as f64,
            2.0,
            "",
        )
        .with_details(vec!["the active one, and the warm one before it".into()]),
    ])
}

/// 64 threads that teach at once.
///
/// # Errors
/// The component is refused.
pub fn teaching(policy: &[u8]) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("compiled"))?;
    let (plugins, calibration) = open(folder.path())?;
    let text = manifest_text("offload-policy");
    let release = plugins.push(&Bundle::new(policy.to_vec(), text, None)?)?;
    plugins.activate(Choice::policy(release))?;
    let ObserveFigures {
        requests,
        failed,
        updates,
        counted,
        seconds,
    } = observes(&plugins, &calibration, TEACHERS, LESSONS);
    let wanted = (requests - failed) * UPDATES;
    Ok(vec![
        Row::at_most(
            format!("updates lost, {TEACHERS} threads"),
            wanted.abs_diff(updates) as f64,
            0.0,
            "",
        )
        .with_details(vec![format!(
            "{updates} updates of {requests} requests in {seconds:.2} s, {failed} with a failed call, which teach nothing"
        )]),
        Row::at_most(
            "updates that the cells do not count",
            (wanted as f64 - counted).abs(),
            0.0,
            "",
        )
        .with_details(vec![format!("the cells' counts rose by {counted}")]),
        Row::at_most("requests with a failed call", failed as f64, 0.0, ""),
    ])
}
