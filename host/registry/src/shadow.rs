//! A generation that runs beside, without effect: after an answer it is asked what it would have done.
//!
//! Requests wait in a bounded queue and are dropped first when the node is busy. What the shadow learns goes to cells of its
//! own. Its outcome is unknown where it decides otherwise: it is compared up to the first difference, and learns from the
//! outcome only where there is none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use msao_core::offload::manifest::Probe;
use msao_core::offload::record::Step;
use msao_core::offload::{
    Decision, Node, Outcome, Part, Plan, PlanInput, Report, Request, Scores, flag,
};
use msao_sandbox::Failure;
use serde::Serialize;

use crate::fallback::fallback_scores;
use crate::runtime::Generation;
use crate::runtime::with_scores;

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
    /// Requests that it was not asked about because too many waited, or the node was busy.
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
    pub(crate) request: Request,
    pub(crate) parts: Vec<Part>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) probe: Option<(Report, u64)>,
    pub(crate) decision: Decision,
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
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn compare(&self, job: &Job) {
        let found = self.ask(job);
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.compared += 1;
        let difference = match found {
            Ok(difference) => difference,
            Err(failure) => {
                stats.failed += 1;
                stats.last_failure = Some(failure.to_string());
                Some("failure")
            }
        };
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

    /// The first difference.
    fn ask(&self, job: &Job) -> Result<Option<&'static str>, Box<Failure>> {
        let generation = &self.generation;
        let Some(policy) = &generation.policy else {
            return Ok(None);
        };
        let cells = policy.cells.snapshot();
        let mut request = job.request.clone();
        let mut parts = job.parts.clone();
        if let (Some(own), Some((report, seed))) = (&generation.postprocessor, &job.probe) {
            let learned = own.cells.snapshot();
            let scores = (own.plugin).score(report, *seed, &own.params, learned.calibration())?;
            parts = with_scores(&parts, &scores);
            let _ = own.cells.update(scores.updates);
        } else if let Some((report, _)) = &job.probe {
            let neutral: Scores = fallback_scores(report);
            parts = with_scores(&parts, &neutral);
        }
        let asks = policy.plugin.manifest().probe == Probe::Ask;
        let plan = |request: &Request, parts: &[Part]| {
            policy.plugin.plan(PlanInput {
                request,
                parts,
                nodes: &job.nodes,
                params: &policy.params,
                calibration: cells.calibration(),
            })
        };
        let mut decision = None;
        if asks {
            request.flags &= !flag::PROBED;
            let unprobed: Vec<Part> = (parts.iter().cloned())
                .map(|part| Part {
                    necessity: -1.0,
                    mas: -1.0,
                    unusual: -1.0,
                    ..part
                })
                .collect();
            decision = Some(plan(&request, &unprobed)?);
        }
        if matches!(decision, None | Some(Decision::Probe)) {
            if asks && job.probe.is_none() {
                // It wants a probe that did not run: what it would have said to it is unknown.
                return Ok(Some("probe"));
            }
            request.flags = job.request.flags;
            decision = Some(plan(&request, &parts)?);
        }
        let (Some(Decision::Run(own)), Decision::Run(run)) = (&decision, &job.decision) else {
            return Ok(Some("probe"));
        };
        if let Some(difference) = planned_otherwise(own, run) {
            return Ok(Some(difference));
        }
        for step in &job.steps {
            let action = policy.plugin.step(&step.input, &own.memo)?;
            if step.action.answer().is_some_and(|taken| *taken != action) {
                return Ok(Some("step"));
            }
        }
        let outcome = Outcome {
            memo: own.memo.clone(),
            ..job.outcome.clone()
        };
        let updates = (policy.plugin).observe(&outcome, &policy.params, cells.calibration())?;
        let _ = policy.cells.update(updates);
        Ok(None)
    }
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
pub(crate) fn work(jobs: &Receiver<(Arc<Shadow>, Box<Job>)>, stopping: &AtomicBool) {
    while !stopping.load(Ordering::SeqCst) {
        match jobs.recv_timeout(LOOK) {
            Ok((shadow, job)) if !shadow.generation.is_condemned() => shadow.compare(&job),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
}
