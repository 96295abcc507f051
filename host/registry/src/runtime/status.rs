//! What an operator is told.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use msao_core::offload::record::GenerationId;
use msao_sandbox::Export;
use msao_state::RecordStats;
use serde::Serialize;

use super::generation::Generation;
use super::{CallWatcher, Plugins};
use crate::canary::{ArmFigures, Verdict};
use crate::shadow::ShadowStats;

/// One export of one generation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExportStatus {
    /// `closed`, `open` or `probing`.
    pub breaker: &'static str,
    /// Calls that were asked for.
    pub calls: u64,
    /// Of them, those that failed.
    pub failures: u64,
    /// Of them, those that the open breaker kept away.
    pub skipped: u64,
}

/// One generation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GenerationStatus {
    /// Never used twice.
    pub number: u64,
    /// What it is made of.
    pub id: GenerationId,
    /// The policy's name and version.
    pub policy: Option<String>,
    /// The post-processor's name and version.
    pub postprocessor: Option<String>,
    /// Requests that it got.
    pub requests: u64,
    /// Requests that are under way.
    pub in_flight: u64,
    /// Different inputs that it failed on in the window, and how many it may not fail on.
    pub error_budget: (u64, u64),
    /// By export.
    pub exports: BTreeMap<&'static str, ExportStatus>,
}

/// The canary.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RolloutStatus {
    /// It.
    pub candidate: GenerationStatus,
    /// Which step, from 0 on.
    pub step: usize,
    /// Its share of sessions.
    pub share: f64,
    /// `hold`: it waits; `worse`: it is to be dropped; `fine`: nothing speaks against the next step.
    pub verdict_kind: &'static str,
    /// What it waits for, or what is wrong.
    pub verdict: String,
    /// Figures of the stable generation at this step.
    pub stable_figures: ArmFigures,
    /// Figures of the candidate at this step.
    pub candidate_figures: ArmFigures,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Status {
    /// What plans requests.
    pub active: GenerationStatus,
    /// What a rollback goes back to; None: the built-in fallback.
    pub previous: Option<GenerationStatus>,
    /// The canary.
    pub rollout: Option<RolloutStatus>,
    /// What runs beside, and how it compares.
    pub shadow: Option<(GenerationStatus, ShadowStats)>,
    /// Generations that decide: the active one, a candidate, and those that were left with requests under way. Without a
    /// candidate it is 2 after a swap, and 1 again when the old requests are over.
    pub live_generations: u64,
    /// Generations in memory, the fallback that is always there left out: those, the warm one before the active one, and a
    /// shadow.
    pub generations_in_memory: u64,
    /// A change that could not be written down yet: after a stop now, the state before it would be active.
    pub not_durable: Option<String>,
    /// Failing inputs that are kept.
    pub failing_inputs: usize,
    /// Failing inputs that were not kept, for want of time or disk.
    pub failing_inputs_dropped: u64,
    /// Decision records.
    pub records: Option<RecordStats>,
}

fn generation(it: &Generation, plugins: &Plugins) -> GenerationStatus {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let exports = Export::ALL.map(|export| {
        let guard = it.guard(export);
        let status = ExportStatus {
            breaker: guard.state().name(),
            calls: count(&guard.calls),
            failures: count(&guard.failures),
            skipped: count(&guard.skipped),
        };
        (export.name(), status)
    });
    GenerationStatus {
        number: it.spec.number,
        id: it.id.clone(),
        policy: (it.policy.as_ref())
            .map(|part| part.plugin.manifest())
            .map(|manifest| format!("{} {}", manifest.name, manifest.version)),
        postprocessor: (it.postprocessor.as_ref())
            .map(|part| part.plugin.manifest())
            .map(|manifest| format!("{} {}", manifest.name, manifest.version)),
        requests: count(&it.requests),
        in_flight: count(&it.in_flight),
        error_budget: it.budget(&plugins.inner.config.error_budget),
        exports: exports.into_iter().collect(),
    }
}

impl Plugins {
    /// From here on `watcher` is told of each call. False: somebody else is told already.
    pub fn watch_calls(&self, watcher: CallWatcher) -> bool {
        self.inner.watcher.set(watcher).is_ok()
    }

    /// What is active, how it fares, and what may come.
    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let table = inner.table.load_full();
        let rollout = table.canary.as_ref().map(|canary| {
            let trial = canary.trial.lock().unwrap_or_else(PoisonError::into_inner);
            let (stable_figures, candidate_figures) = trial.figures();
            let verdict = trial.judge(&inner.config.canary);
            RolloutStatus {
                candidate: generation(&canary.generation, self),
                step: trial.step(),
                share: canary.share,
                verdict_kind: verdict.kind(),
                verdict: match verdict {
                    Verdict::Hold(why) | Verdict::Worse(why) => why,
                    Verdict::Fine => "nothing speaks against the next step".into(),
                },
                stable_figures,
                candidate_figures,
            }
        });
        let shadow = (table.shadow.as_ref())
            .map(|shadow| (generation(&shadow.generation, self), shadow.stats()));
        Status {
            active: generation(&table.stable, self),
            previous: (table.previous.as_ref()).map(|it| generation(it, self)),
            rollout,
            shadow,
            live_generations: inner.live(),
            generations_in_memory: inner.in_memory.count().saturating_sub(1),
            not_durable: inner.not_durable(),
            failing_inputs: inner.cases.list().len(),
            failing_inputs_dropped: inner.dropped_cases.load(Ordering::Relaxed),
            records: inner.records.as_ref().map(|records| records.stats()),
        }
    }
}
