//! Recorded decisions against a candidate: what it would have done otherwise.
//!
//! *Frozen*, the candidate gets the calibration that was recorded with each decision; *learning*, it begins with the first
//! decision's and folds its own updates. Where its plan is the recorded one, `step` and `observe` are replayed too, up to
//! the first answer that differs: from there on the recorded events are no longer what would have happened.

pub mod compare;
pub mod estimate;
pub mod report;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use msao_core::digest::Digest;
use msao_core::offload::manifest::{Manifest, Probe};
use msao_core::offload::record::{Approach, Called, DecisionRecord, unprobed};
use msao_core::offload::{Calibration, Decision, Outcome, Part, Plan, PlanInput, Request, flag};
use msao_sandbox::{Failure, Policy, PostProcessor};
use msao_state::{Folding, Recorded};

use self::compare::{Verdict, decisions, differences, host_failed, same_updates};
use self::report::{Replayed, Report};

/// Decisions whose plans are asked for in one go, between two looks at the clock: enough that looking takes no time, few
/// enough that their answers are written to memory that was just in use, as a node's are.
const BATCH: usize = 128;

/// How to replay.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Fold the candidate's own updates instead of giving it the recorded calibration.
    pub learn: bool,
    /// The candidate's parameters. None: the recorded ones where there are as many, else the manifest's.
    pub params: Option<Vec<f64>>,
}

/// A request as the candidate sees it before the probe, where that is not as it was recorded.
struct Unprobed {
    request: Request,
    parts: Vec<Part>,
}

/// Everything that a call needs, found out before the clock runs.
struct Prepared<'a> {
    record: &'a DecisionRecord,
    approach: Approach,
    /// The first answer may be *probe*.
    may_ask: bool,
    unprobed: Option<Unprobed>,
    params: &'a [f64],
    calibration: Arc<Calibration>,
}

fn called<T>(answer: Result<T, Failure>) -> Called<T> {
    match answer {
        Ok(answer) => Called::Answered(answer),
        Err(failure) => Called::Failed(failure.kind.name().to_owned()),
    }
}

/// An answer as a node takes it: a policy that wants the probe where it may not has failed.
fn as_taken(answer: Called<Decision>, may_ask: bool) -> Called<Decision> {
    match answer {
        Called::Answered(Decision::Probe) if !may_ask => Called::Failed("answer".to_owned()),
        answer => answer,
    }
}

fn prepare<'a>(
    record: &'a DecisionRecord,
    manifest: &Manifest,
    options: &'a Options,
    defaults: &'a [f64],
    calibration: Arc<Calibration>,
) -> Prepared<'a> {
    let probed = record.request.flags & flag::PROBED != 0;
    let approach = record.approach(manifest.probe);
    let may_ask = manifest.probe == Probe::Ask && !record.replanned;
    let may_ask = may_ask && (approach == Approach::UnprobedFirst || !probed);
    let first = matches!(approach, Approach::Unprobed | Approach::UnprobedFirst);
    let unprobed = first.then(|| {
        let (request, parts) = unprobed(&record.request, &record.parts);
        Unprobed { request, parts }
    });
    let recorded = &record.given.params;
    let params = match &options.params {
        Some(params) => params,
        None if recorded.len() == defaults.len() => recorded.as_slice(),
        None => defaults,
    };
    Prepared {
        record,
        approach,
        may_ask,
        unprobed,
        params,
        calibration,
    }
}

/// The last decision of a call of `plan`, and the calls that it took.
struct Answered {
    decision: Called<Decision>,
    calls: u64,
}

impl Prepared<'_> {
    fn input<'b>(&'b self, calibration: &'b Calibration) -> PlanInput<'b> {
        let (request, parts) = match &self.unprobed {
            Some(unprobed) => (&unprobed.request, &unprobed.parts),
            None => (&self.record.request, &self.record.parts),
        };
        PlanInput {
            request,
            parts,
            nodes: &self.record.nodes,
            params: self.params,
            calibration,
        }
    }

    fn plan(&self, policy: &Policy, calibration: &Calibration) -> Answered {
        if self.approach == Approach::Unknown {
            return Answered {
                decision: Called::Answered(Decision::Probe),
                calls: 0,
            };
        }
        let input = self.input(calibration);
        let first = as_taken(called(policy.plan(input)), self.may_ask);
        let again = self.approach == Approach::UnprobedFirst;
        if first == Called::Answered(Decision::Probe) && again {
            let input = PlanInput {
                request: &self.record.request,
                parts: &self.record.parts,
                ..input
            };
            return Answered {
                decision: as_taken(called(policy.plan(input)), false),
                calls: 2,
            };
        }
        Answered {
            decision: first,
            calls: 1,
        }
    }

    /// What was recorded: the last answer of `plan`, or the plan that ran where no policy was asked.
    fn recorded(&self) -> Called<Decision> {
        (self.record.planned.as_ref())
            .or(self.record.asked.as_ref())
            .cloned()
            .unwrap_or_else(|| Called::Answered(Decision::Run(self.record.ran.clone())))
    }
}

fn run(decision: &Called<Decision>) -> Option<&Plan> {
    match decision {
        Called::Answered(Decision::Run(plan)) => Some(plan),
        _ => None,
    }
}

/// Replays `recorded` against `policy`.
///
/// # Errors
/// When a decision names a calibration that is not there.
pub fn policy(policy: &Policy, recorded: &Recorded, options: &Options) -> anyhow::Result<Report> {
    let manifest = policy.manifest();
    let defaults = manifest.defaults();
    let mut report = Report::new(manifest, policy.digest(), options.learn);
    report.skipped_lines = recorded.skipped;
    let snapshots: HashMap<Digest, Arc<Calibration>> = (recorded.snapshots.iter())
        .map(|(digest, snapshot)| (*digest, Arc::new(snapshot.calibration().clone())))
        .collect();
    let calibration = |record: &DecisionRecord| {
        snapshots
            .get(&record.given.calibration)
            .map(Arc::clone)
            .with_context(|| {
                format!(
                    "decision {} names calibration {}, which is not in the file",
                    record.id, record.given.calibration
                )
            })
    };
    let mut learned = Folding::new(match recorded.decisions.first() {
        Some(record) => Calibration::clone(&*calibration(record)?),
        None => Calibration::default(),
    });
    // A fresh instance is made once, outside the measured time.
    policy.warm(1)?;
    for batch in recorded.decisions.chunks(BATCH) {
        let started = Instant::now();
        let prepared = batch
            .iter()
            .map(|record| {
                let calibration = calibration(record)?;
                Ok(prepare(record, manifest, options, &defaults, calibration))
            })
            .collect::<anyhow::Result<Vec<Prepared>>>()?;
        report.speed.prepare_s += started.elapsed().as_secs_f64();
        if options.learn {
            for prepared in &prepared {
                let started = Instant::now();
                let seen = learned.calibration();
                let answer = prepared.plan(policy, seen);
                report.timed(answer.calls, 1, started.elapsed());
                let updates = judge(&mut report, policy, prepared, &answer.decision, seen);
                learned.fold(&updates);
            }
        } else {
            let mut answers = Vec::with_capacity(prepared.len());
            let started = Instant::now();
            for prepared in &prepared {
                answers.push(prepared.plan(policy, &prepared.calibration));
            }
            let elapsed = started.elapsed();
            let calls = answers.iter().map(|answer| answer.calls).sum();
            report.timed(calls, answers.len() as u64, elapsed);
            for (prepared, answer) in prepared.iter().zip(&answers) {
                let calibration = Arc::clone(&prepared.calibration);
                judge(
                    &mut report,
                    policy,
                    prepared,
                    &answer.decision,
                    &calibration,
                );
            }
        }
    }
    Ok(report)
}

/// Compares one decision with what was recorded, and goes on with `step` and `observe`. Returns the candidate's updates.
fn judge(
    report: &mut Report,
    policy: &Policy,
    prepared: &Prepared,
    decision: &Called<Decision>,
    calibration: &Calibration,
) -> Vec<msao_core::offload::Update> {
    let record = prepared.record;
    let recorded = prepared.recorded();
    let mut verdict = decisions(&recorded, decision);
    // With `ask` the first answer is a decision as well.
    if let (Some(asked), Some(_)) = (&record.asked, &record.planned)
        && policy.manifest().probe == Probe::Ask
        && verdict == Verdict::Same
    {
        let first = policy.plan(prepared.input(calibration));
        let first = as_taken(called(first), prepared.may_ask);
        verdict = decisions(asked, &first);
    }
    let (before, after) = (run(&recorded), run(decision));
    let differing = match (before, after) {
        (Some(before), Some(after)) => differences(before, after),
        _ => Vec::new(),
    };
    report.decided(Replayed {
        record,
        recorded: &recorded,
        candidate: decision,
        verdict,
        differing: &differing,
    });
    let Some(after) = after else {
        return Vec::new();
    };
    let comparable = before.is_some_and(|before| before.route == after.route);
    if !comparable {
        return Vec::new();
    }
    let mut same = true;
    for step in &record.steps {
        if host_failed(&step.action) {
            // From here on the fallback drafted.
            break;
        }
        let action = called(policy.step(&step.input, &after.memo));
        same = action == step.action;
        report.stepped(same);
        if !same {
            break;
        }
    }
    let (Some(outcome), true) = (&record.outcome, same) else {
        return Vec::new();
    };
    let outcome = Outcome {
        memo: after.memo.clone(),
        ..outcome.clone()
    };
    let updates = called(policy.observe(&outcome, prepared.params, calibration));
    if let Some(recorded) = record.updates.as_ref().filter(|it| !host_failed(it)) {
        report.observed(match (recorded, &updates) {
            (Called::Answered(a), Called::Answered(b)) => same_updates(a, b),
            (a, b) => a == b,
        });
    }
    updates.answer().cloned().unwrap_or_default()
}

/// How a replay of a post-processor went.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Scored {
    /// Decisions in the file.
    pub decisions: u64,
    /// Of them, those with the probe's report, which were replayed.
    pub replayed: u64,
    /// Of them, those whose call failed for want of room or time or by an open breaker; they are left out.
    pub host_failed: u64,
    /// Lines of the file that could not be read and were left out.
    pub skipped_lines: u64,
    /// Whether it got what its own updates had made of the first calibration, instead of the recorded one. Only requests with
    /// a report taught it: it has learned less than on the node, where others were scored as well.
    pub learned: bool,
    /// Of those replayed, answered as recorded, to the bit.
    pub same: u64,
    /// Ids of the first that were not.
    pub examples: Vec<String>,
    /// Scores a second.
    pub scores_per_s: f64,
}

/// Replays the recorded calls of `score` against `postprocessor`.
///
/// # Errors
/// When a decision names a calibration that is not there.
pub fn postprocessor(
    postprocessor: &PostProcessor,
    recorded: &Recorded,
    options: &Options,
) -> anyhow::Result<Scored> {
    let defaults = postprocessor.manifest().defaults();
    let mut scored = Scored {
        skipped_lines: recorded.skipped,
        learned: options.learn,
        ..Scored::default()
    };
    let mut spent = Duration::ZERO;
    let mut learned: Option<Folding> = None;
    postprocessor.warm(1)?;
    for record in &recorded.decisions {
        scored.decisions += 1;
        let Some(scoring) = &record.scoring else {
            continue;
        };
        let Some(given) = &scoring.report else {
            continue;
        };
        if host_failed(&scoring.scores) {
            scored.host_failed += 1;
            continue;
        }
        let snapshot = (recorded.snapshots.get(&scoring.given.calibration)).with_context(|| {
            format!("decision {} names calibration that is not there", record.id)
        })?;
        let params = match &options.params {
            Some(params) => params,
            None if scoring.given.params.len() == defaults.len() => &scoring.given.params,
            None => &defaults,
        };
        // It begins with what was known when the first one was scored.
        let learning = learned.get_or_insert_with(|| Folding::new(snapshot.calibration().clone()));
        let seen = match options.learn {
            true => learning.calibration(),
            false => snapshot.calibration(),
        };
        let seed = record.request.seed;
        let started = Instant::now();
        let answer = postprocessor.score_metered(given, seed, params, seen, None);
        spent += started.elapsed();
        scored.replayed += 1;
        if let (true, Ok(scores)) = (options.learn, &answer) {
            learning.fold(&scores.updates);
        }
        let answer = called(answer);
        // As JSON, numbers are told apart to the bit, a negative zero too.
        if serde_json::to_vec(&answer)? == serde_json::to_vec(&scoring.scores)? {
            scored.same += 1;
        } else if scored.examples.len() < 10 {
            scored.examples.push(record.id.clone());
        }
    }
    scored.scores_per_s = scored.replayed as f64 / spent.as_secs_f64().max(1e-9);
    Ok(scored)
}
