//! A generation that runs beside, without effect: after an answer it is asked what it would have done.
//!
//! It is asked as it would have been: with scores only if it wants them. Requests wait in a bounded queue and are dropped
//! first when the node is busy. Calls go through its breakers, and what fails is kept and charged as with any generation. What the shadow learns goes to cells of its
//! own. Its outcome is unknown where it decides otherwise: it is compared up to the first difference, and learns from the
//! outcome only where there is none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use msao_core::digest::Digest;
use msao_core::offload::manifest::Probe;
use msao_core::offload::record::{Approach, Step, unprobed};
use msao_core::offload::{Decision, Node, Outcome, Part, Plan, PlanInput, Report, Request, flag};
use msao_sandbox::{Export, Failure};
use serde::Serialize;

use crate::cases::CaseInput;
use crate::fallback::fallback_scores;
use crate::runtime::{Generation, Inner, no_probe, with_scores};

/// Reasons that are counted apart; further ones are counted as one.
const MAX_REASONS: usize = 1024;

/// How often both decided alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Agreement {
    /// Alike.
    pub alike: u64,
    /// Otherwise.
    pub otherwise: u64,
}

/// What the shadow did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ShadowStats {
    /// Requests that it was asked about.
    pub compared: u64,
    /// Requests that it was not asked about because too many waited, the node was busy, or its breaker is open.
    pub dropped: u64,
    /// Its calls that failed.
    pub failed: u64,
    /// By the active generation's reason.
    pub by_reason: BTreeMap<String, Agreement>,
    /// Where they first differ: `probe`, `route`, `peer`, `mode`, `rounds`, `parts`, `step`.
    pub first_difference: BTreeMap<String, u64>,
    /// The last failure.
    pub last_failure: Option<String>,
}

/// A request that is over.
pub(crate) struct Job {
    pub(crate) content: Digest,
    pub(crate) request: Request,
    pub(crate) parts: Vec<Part>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) probe: Option<(Arc<Report>, u64)>,
    pub(crate) decision: Decision,
    pub(crate) replanned: bool,
    pub(crate) reason: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) outcome: Outcome,
}

pub(crate) type Queue = SyncSender<(Arc<Shadow>, Box<Job>)>;

/// A generation in the shadow.
pub(crate) struct Shadow {
    pub(crate) generation: Arc<Generation>,
    queue: Queue,
    busy: Arc<AtomicBool>,
    dropped: AtomicU64,
    stats: Mutex<ShadowStats>,
}

impl Shadow {
    pub(crate) fn new(generation: Arc<Generation>, queue: Queue, busy: Arc<AtomicBool>) -> Shadow {
        Shadow {
            generation,
            queue,
            busy,
            dropped: AtomicU64::new(0),
            stats: Mutex::default(),
        }
    }

    pub(crate) fn stats(&self) -> ShadowStats {
        let stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        ShadowStats {
            dropped: self.dropped.load(Ordering::Relaxed),
            ..stats.clone()
        }
    }

    /// Never waits.
    pub(crate) fn offer(self: Arc<Shadow>, job: Job) {
        let busy = self.busy.load(Ordering::Relaxed);
        let sent = if busy {
            Err(())
        } else {
            let sent = self.queue.try_send((Arc::clone(&self), Box::new(job)));
            sent.map_err(|error: TrySendError<_>| drop(error))
        };
        if sent.is_err() {
            self.drop_one();
        }
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn compare(&self, inner: &Inner, job: &Job) {
        let found = self.ask(inner, job);
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        let difference = match found {
            Ok(difference) => difference,
            Err(NoAnswer::KeptAway) => return self.drop_one(),
            Err(NoAnswer::Failed(words)) => {
                stats.failed += 1;
                stats.last_failure = Some(words);
                Some("failure")
            }
        };
        stats.compared += 1;
        let known = stats.by_reason.contains_key(&job.reason);
        let reason = if known || stats.by_reason.len() < MAX_REASONS {
            job.reason.clone()
        } else {
            "others".to_owned()
        };
        let agreement = stats.by_reason.entry(reason).or_default();
        match difference {
            None => agreement.alike += 1,
            Some(difference) => {
                agreement.otherwise += 1;
                *(stats.first_difference.entry(difference.to_owned())).or_default() += 1;
            }
        }
    }

    /// Calls an export as a request would: through its breaker, and what fails is kept and charged.
    fn call<T>(
        &self,
        inner: &Inner,
        export: Export,
        content: Digest,
        call: impl FnOnce() -> Result<T, Failure>,
        input: impl FnOnce() -> CaseInput,
    ) -> Result<T, NoAnswer> {
        let generation = &self.generation;
        if generation.is_withdrawn() {
            return Err(NoAnswer::KeptAway);
        }
        let (guard, breaker) = (generation.guard(export), &inner.config.breaker);
        let Some(permit) = guard.ask(|| inner.now_ms(), breaker) else {
            return Err(NoAnswer::KeptAway);
        };
        match call() {
            Ok(answer) => {
                guard.succeeded(permit, || inner.now_ms(), breaker);
                Ok(answer)
            }
            Err(failure) => {
                let blame = failure.kind.is_plugins_fault();
                guard.failed(permit, blame, content, inner.now_ms(), breaker);
                if !blame {
                    // No room, or a fault of the host's: it says nothing about the candidate.
                    return Err(NoAnswer::KeptAway);
                }
                let words = failure.to_string();
                inner.failed(generation, content, failure, input);
                Err(NoAnswer::Failed(words))
            }
        }
    }

    /// Parts as its own post-processor scores them.
    fn scored(&self, inner: &Inner, job: &Job) -> Result<Vec<Part>, NoAnswer> {
        let Some((report, seed)) = &job.probe else {
            return Ok(job.parts.clone());
        };
        let Some(own) = &self.generation.postprocessor else {
            return Ok(with_scores(&job.parts, &fallback_scores(report)));
        };
        let learned = own.cells.snapshot();
        let scores = self.call(
            inner,
            Export::Score,
            job.content,
            || (own.plugin).score(report, *seed, &own.params, learned.shared()),
            || CaseInput::Score {
                report: Report::clone(report),
                seed: *seed,
                params: own.params.clone(),
                calibration: learned.calibration().clone(),
            },
        )?;
        let parts = with_scores(&job.parts, &scores);
        let _ = own.cells.update(scores.updates);
        Ok(parts)
    }

    /// The first difference.
    fn ask(&self, inner: &Inner, job: &Job) -> Result<Option<&'static str>, NoAnswer> {
        let Some(policy) = &self.generation.policy else {
            return Ok(None);
        };
        self.generation.requests.fetch_add(1, Ordering::Relaxed);
        let cells = policy.cells.snapshot();
        let probed = job.request.flags & flag::PROBED != 0;
        let approach = Approach::new(policy.plugin.manifest().probe, probed).again(job.replanned);
        let plan = |request: &Request, parts: &[Part], may_ask: bool| {
            let input = PlanInput {
                request,
                parts,
                nodes: &job.nodes,
                params: &policy.params,
                calibration: cells.calibration(),
            };
            self.call(
                inner,
                Export::Plan,
                job.content,
                || match policy.plugin.plan(input)? {
                    Decision::Probe if !may_ask => Err(no_probe(&self.generation)),
                    decision => Ok(decision),
                },
                || CaseInput::plan(input, None),
            )
        };
        let asks = policy.plugin.manifest().probe == Probe::Ask && !job.replanned;
        let (bare_request, bare_parts) = unprobed(&job.request, &job.parts);
        let decision = match approach {
            Approach::Unknown => return Ok(Some("probe")),
            Approach::AsItWas if probed => plan(&job.request, &self.scored(inner, job)?, false)?,
            Approach::AsItWas | Approach::Unprobed => plan(&bare_request, &bare_parts, asks)?,
            Approach::UnprobedFirst => match plan(&bare_request, &bare_parts, true)? {
                Decision::Probe => plan(&job.request, &self.scored(inner, job)?, false)?,
                decision => decision,
            },
        };
        let (Decision::Run(own), Decision::Run(run)) = (&decision, &job.decision) else {
            // What it would have said to a probe that did not run is unknown.
            return Ok(Some("probe"));
        };
        if let Some(difference) = planned_otherwise(own, run) {
            return Ok(Some(difference));
        }
        for step in &job.steps {
            let action = self.call(
                inner,
                Export::Step,
                job.content,
                || policy.plugin.step(&step.input, &own.memo),
                || CaseInput::Step {
                    input: step.input,
                    memo: own.memo.clone(),
                },
            )?;
            if step.action.answer().is_some_and(|taken| *taken != action) {
                return Ok(Some("step"));
            }
        }
        let outcome = Outcome {
            memo: own.memo.clone(),
            ..job.outcome.clone()
        };
        let updates = self.call(
            inner,
            Export::Observe,
            job.content,
            || (policy.plugin).observe(&outcome, &policy.params, cells.calibration()),
            || CaseInput::Observe {
                outcome: outcome.clone(),
                params: policy.params.clone(),
                calibration: cells.calibration().clone(),
            },
        )?;
        let _ = policy.cells.update(updates);
        Ok(None)
    }
}

/// Why the shadow did not answer.
enum NoAnswer {
    /// Its breaker is open, or a key that signed it was revoked.
    KeptAway,
    /// A call failed; how, in words.
    Failed(String),
}

/// What of the plan is otherwise; memo, reason and terms are the policy's own business.
fn planned_otherwise(own: &Plan, run: &Plan) -> Option<&'static str> {
    let rounds = |plan: &Plan| {
        (
            plan.gamma_max,
            plan.in_flight_max,
            plan.patience_ms.to_bits(),
        )
    };
    if own.route != run.route {
        Some("route")
    } else if own.peer != run.peer {
        Some("peer")
    } else if own.mode != run.mode {
        Some("mode")
    } else if rounds(own) != rounds(run) {
        Some("rounds")
    } else if own.parts != run.parts {
        Some("parts")
    } else {
        None
    }
}

/// Between looks at whether the runtime ends.
const LOOK: Duration = Duration::from_millis(100);

/// The shadow's thread: one request after the other, until the runtime ends. Tickets that outlive it are no reason to stay.
pub(crate) fn work(inner: &Inner, jobs: &Receiver<(Arc<Shadow>, Box<Job>)>) {
    while !inner.stopping.load(Ordering::SeqCst) {
        match jobs.recv_timeout(LOOK) {
            // What waited when the node became busy is dropped as well.
            Ok((shadow, _)) if inner.busy.load(Ordering::Relaxed) => shadow.drop_one(),
            Ok((shadow, job)) if !shadow.generation.is_condemned() => shadow.compare(inner, &job),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}
