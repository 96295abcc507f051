//! One request's way through its generation. Every method answers, whatever the plug-ins do.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use msao_core::digest::Digest;
use msao_core::offload::check::Violation;
use msao_core::offload::kept::MediumKept;
use msao_core::offload::manifest::{Ahead, Probe};
use msao_core::offload::record::{Called, GenerationId, OpenedAhead, Step};
use msao_core::offload::{
    Action, Decision, Node, Part, Plan, PlanInput, Report, Request, Route, Scores, StepInput,
    Update, flag, modality,
};
use msao_sandbox::{Export, Failure, FailureKind};
use msao_state::{Snapshot, Wanted};

use super::generation::{Generation, REVOKED};
use super::table::Arm;
use super::{Inner, Note};
pub use crate::canary::Side;
use crate::cases::CaseInput;
use crate::fallback::{fallback_plan, fallback_scores, fallback_step};
use crate::shadow::Shadow;

/// Steps that a record keeps at most; an answer that takes more is replayed as far as that.
const MAX_STEPS: usize = 8192;
/// What records and metrics call a call that the open breaker kept away.
const KEPT_AWAY: &str = "breaker";

/// A request, from its arrival to its end. It stays with its generation, whatever is activated meanwhile. Dropped without
/// [`Ticket::finish`] or [`Ticket::withdraw`], it counts as lost.
pub struct Ticket {
    pub(super) inner: Arc<Inner>,
    pub(super) generation: Arc<Generation>,
    pub(super) number: u64,
    /// On the clock of canaries.
    pub(super) began_ms: u64,
    pub(super) id: String,
    pub(super) content: Digest,
    pub(super) arm: Option<Arm>,
    pub(super) shadow: Option<Arc<Shadow>>,
    pub(super) wanted: Wanted,
    pub(super) policy_cells: Arc<Snapshot>,
    pub(super) postprocessor_cells: Arc<Snapshot>,
    /// A call failed, and a fallback ran.
    pub(super) failed: bool,
    /// And that was the generation's fault: the sandbox had room.
    pub(super) blamed: bool,
    /// An open breaker kept a call away.
    pub(super) spared: bool,
    pub(super) score_updates: Vec<Update>,
    pub(super) probed: Option<Probed>,
    pub(super) asked: Option<Called<Decision>>,
    pub(super) planned: Option<Called<Decision>>,
    /// It was planned before, and what that led to is over.
    pub(super) replanned: bool,
    pub(super) input: Option<(Request, Vec<Part>, Vec<Node>)>,
    pub(super) plan: Plan,
    /// `step` has failed: the rest of the answer is drafted by the fallback.
    pub(super) stepless: bool,
    pub(super) steps: Vec<Step>,
    /// The media, and what was read of each.
    pub(super) media: Vec<MediumKept>,
    /// A session was opened before there was a plan.
    pub(super) ahead: Option<OpenedAhead>,
    pub(super) finished: bool,
}

/// The probe's call, as far as it is needed later.
pub(crate) struct Probed {
    pub(crate) report: Option<Arc<Report>>,
    pub(crate) seed: u64,
    pub(crate) scores: Called<Scores>,
}

/// What a failed call is called in records.
fn kind_of(failure: &Failure) -> String {
    failure.kind.name().to_owned()
}

/// `parts` as `plan` sees them after the probe: media in prompt order take the scores of the report's items, text is needed
/// whole.
pub fn with_scores(parts: &[Part], scores: &Scores) -> Vec<Part> {
    let mut items = scores.items.iter();
    (parts.iter())
        .map(|part| {
            let score = (part.modality != modality::TEXT)
                .then(|| items.next())
                .flatten();
            let (necessity, mas, unusual) = score.map_or((1.0, 0.0, 0.0), |score| {
                (score.necessity, score.mas, score.unusual)
            });
            Part {
                necessity,
                mas,
                unusual,
                ..part.clone()
            }
        })
        .collect()
}

impl Ticket {
    pub(super) fn new(
        inner: Arc<Inner>,
        generation: Arc<Generation>,
        number: u64,
        id: &str,
        content: Digest,
        arm: Option<Arm>,
        shadow: Option<Arc<Shadow>>,
    ) -> Ticket {
        generation.requests.fetch_add(1, Ordering::Relaxed);
        generation.in_flight.fetch_add(1, Ordering::Relaxed);
        let began_ms = inner.now_ms();
        if let Some(arm) = &arm {
            let mut trial = arm.trial.lock().unwrap_or_else(PoisonError::into_inner);
            trial.start(arm.side, number, content, began_ms);
        }
        let wanted = (inner.records.as_ref()).map_or(Wanted::Nothing, |records| records.wanted(id));
        let policy = generation.policy.as_ref();
        let postprocessor = generation.postprocessor.as_ref();
        Ticket {
            policy_cells: policy.map_or_else(Snapshot::empty, |part| part.cells.snapshot()),
            postprocessor_cells: (postprocessor)
                .map_or_else(Snapshot::empty, |part| part.cells.snapshot()),
            inner,
            generation,
            number,
            began_ms,
            id: id.to_owned(),
            content,
            arm,
            shadow,
            wanted,
            failed: false,
            blamed: false,
            spared: false,
            score_updates: Vec::new(),
            probed: None,
            asked: None,
            planned: None,
            replanned: false,
            input: None,
            plan: Plan::plain(Route::Edge, 0),
            stepless: false,
            steps: Vec::new(),
            media: Vec::new(),
            ahead: None,
            finished: false,
        }
    }

    /// Who decides about this request.
    pub fn generation(&self) -> &GenerationId {
        &self.generation.id
    }

    /// The number of that generation, which is never used twice.
    pub fn number(&self) -> u64 {
        self.generation.spec.number
    }

    /// Which side of a canary it counts for; None while there is none.
    pub fn side(&self) -> Option<Side> {
        self.arm.as_ref().map(|arm| arm.side)
    }

    /// Whether the policy wants the probe: with [`Probe::Full`] it runs before [`Self::plan`], with [`Probe::Ask`] only if
    /// `plan` says so.
    pub fn probe(&self) -> Probe {
        self.generation.probe()
    }

    /// What the policy has begun at a peer while the probe runs.
    pub fn ahead(&self) -> Ahead {
        self.generation.ahead()
    }

    /// Whether a call has failed so far, and a fallback ran.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Whether anybody will read what the plug-ins were given.
    fn keeps(&self) -> bool {
        self.wanted != Wanted::Nothing || self.shadow.is_some()
    }

    /// Calls one export through its breaker. Where it was kept away or failed: why, by name.
    pub(super) fn call<T>(
        &mut self,
        export: Export,
        call: impl FnOnce(&Generation) -> Result<T, Failure>,
        input: impl FnOnce(&Ticket) -> CaseInput,
    ) -> Called<T> {
        let generation = Arc::clone(&self.generation);
        if generation.is_withdrawn() {
            self.failed = true;
            return Called::Failed(REVOKED.to_owned());
        }
        let guard = generation.guard(export);
        let breaker = &self.inner.config.breaker;
        let Some(permit) = guard.ask(|| self.inner.now_ms(), breaker) else {
            self.failed = true;
            self.blamed = true;
            if !std::mem::replace(&mut self.spared, true) {
                generation.spared.fetch_add(1, Ordering::Relaxed);
            }
            return Called::Failed(KEPT_AWAY.to_owned());
        };
        let watcher = self.inner.watcher.get();
        let began = watcher.map(|_| Instant::now());
        let called = call(&generation);
        if let Some((watcher, began)) = watcher.zip(began) {
            let failure = called.as_ref().err().map(|failure| failure.kind.name());
            watcher(export, began.elapsed(), failure);
        }
        match called {
            Ok(answer) => {
                guard.succeeded(permit, || self.inner.now_ms(), breaker);
                Called::Answered(answer)
            }
            Err(failure) => {
                let blame = failure.kind.is_plugins_fault();
                guard.failed(permit, blame, self.content, self.inner.now_ms(), breaker);
                let kind = kind_of(&failure);
                if blame {
                    let input = || input(self);
                    (self.inner).failed(&generation, self.content, failure, input);
                }
                self.failed = true;
                self.blamed |= blame;
                Called::Failed(kind)
            }
        }
    }

    /// Scores what the probe saw. Fallback: all is needed, nothing can go. `seed` is the request's.
    pub fn score(&mut self, report: &Arc<Report>, seed: u64) -> Scores {
        if self.generation.postprocessor.is_none() {
            return fallback_scores(report);
        }
        let cells = Arc::clone(&self.postprocessor_cells);
        let called = self.call(
            Export::Score,
            |generation| match &generation.postprocessor {
                Some(part) => {
                    let calibration = cells.shared();
                    part.plugin.score(report, seed, &part.params, calibration)
                }
                None => Ok(fallback_scores(report)),
            },
            |ticket| CaseInput::Score {
                report: Report::clone(report),
                seed,
                params: ticket.postprocessor_params(),
                calibration: ticket.postprocessor_cells.calibration().clone(),
            },
        );
        let scores = match &called {
            Called::Answered(scores) => {
                self.score_updates.clone_from(&scores.updates);
                scores.clone()
            }
            Called::Failed(_) => fallback_scores(report),
        };
        if self.keeps() {
            let whole = self.shadow.is_some() || self.wanted == Wanted::All;
            self.probed = Some(Probed {
                report: whole.then(|| Arc::clone(report)),
                seed,
                scores: called,
            });
        }
        scores
    }

    pub(super) fn postprocessor_params(&self) -> Vec<f64> {
        (self.generation.postprocessor.as_ref()).map_or_else(Vec::new, |part| part.params.clone())
    }

    pub(super) fn policy_params(&self) -> Vec<f64> {
        (self.generation.policy.as_ref()).map_or_else(Vec::new, |part| part.params.clone())
    }

    /// Decides how the request runs. [`Decision::Probe`] comes only from a policy that may ask, and only once: run the
    /// probe, [`Self::score`] it, and ask again with [`flag::PROBED`] set and the parts from [`with_scores`]. Fallback:
    /// `cloud` if a peer with the target is up, else `edge`.
    ///
    /// Asked once more after it has planned, because what it planned cannot be, it begins anew: so does the record, which
    /// tells of the last plan alone. It may not ask for the probe then.
    pub fn plan(&mut self, request: &Request, parts: &[Part], nodes: &[Node]) -> Decision {
        if self.has_planned() {
            self.begin_anew();
        }
        if self.keeps() {
            self.input = Some((request.clone(), parts.to_vec(), nodes.to_vec()));
        }
        if self.generation.policy.is_none() {
            self.plan = fallback_plan(request, parts, nodes);
            return Decision::Run(self.plan.clone());
        }
        let probed = request.flags & flag::PROBED != 0;
        let asks = self.probe() == Probe::Ask;
        let may_ask = asks && !probed && !self.replanned && self.asked.is_none();
        let cells = Arc::clone(&self.policy_cells);
        let called = self.call(
            Export::Plan,
            |generation| match &generation.policy {
                Some(part) => {
                    let input = PlanInput {
                        request,
                        parts,
                        nodes,
                        params: &part.params,
                        calibration: cells.calibration(),
                    };
                    let decision = part.plugin.plan(input)?;
                    if decision == Decision::Probe && !may_ask {
                        return Err(no_probe(generation));
                    }
                    Ok(decision)
                }
                None => Ok(Decision::Run(fallback_plan(request, parts, nodes))),
            },
            |ticket| {
                let params = ticket.policy_params();
                let input = PlanInput {
                    request,
                    parts,
                    nodes,
                    params: &params,
                    calibration: ticket.policy_cells.calibration(),
                };
                CaseInput::plan(input, None)
            },
        );
        let decision = match &called {
            Called::Answered(decision) => decision.clone(),
            Called::Failed(_) => {
                // There is no memo of the policy's that `step` could go by.
                self.stepless = true;
                Decision::Run(fallback_plan(request, parts, nodes))
            }
        };
        if asks && !probed && !self.replanned && self.asked.is_none() {
            self.asked = Some(called);
        } else {
            self.planned = Some(called);
        }
        if let Decision::Run(plan) = &decision {
            self.plan.clone_from(plan);
        }
        decision
    }

    /// Whether `plan` has led to a plan; that it asked for the probe is none.
    fn has_planned(&self) -> bool {
        let probes = Some(&Decision::Probe);
        let asked = self.asked.as_ref();
        self.planned.is_some() || asked.is_some_and(|called| called.answer() != probes)
    }

    /// What was asked and answered under a plan that is void would not replay together with the next one.
    fn begin_anew(&mut self) {
        self.replanned = true;
        self.asked = None;
        self.planned = None;
        self.steps.clear();
    }

    /// Says what the host made of the plan, where it did otherwise than planned. The memo stays the policy's.
    pub fn ran(&mut self, plan: Plan) {
        let memo = std::mem::take(&mut self.plan.memo);
        self.plan = Plan { memo, ..plan };
    }

    /// Says what was read of the request's media, in prompt order, for the record. What is said last counts.
    pub fn kept(&mut self, media: Vec<MediumKept>) {
        self.media = media;
    }

    /// Says what became of a session that was opened before there was a plan, for the record.
    pub fn opened_ahead(&mut self, became: OpenedAhead) {
        self.ahead = Some(became);
    }

    /// Says what to do while drafting. Fallback, from the first failure to the request's end: exact, four drafts a round.
    #[inline]
    pub fn step(&mut self, input: &StepInput) -> Action {
        let route = self.plan.route;
        if self.stepless || self.generation.policy.is_none() {
            return fallback_step(route, input);
        }
        let memo = std::mem::take(&mut self.plan.memo);
        let called = self.call(
            Export::Step,
            |generation| match &generation.policy {
                Some(part) => part.plugin.step(input, &memo),
                None => Ok(fallback_step(route, input)),
            },
            |_| CaseInput::Step {
                input: *input,
                memo: memo.clone(),
            },
        );
        self.plan.memo = memo;
        let action = match &called {
            Called::Answered(action) => *action,
            Called::Failed(_) => {
                self.stepless = true;
                fallback_step(route, input)
            }
        };
        if self.keeps() && self.steps.len() < MAX_STEPS {
            self.steps.push(Step {
                input: *input,
                action: called,
            });
        }
        action
    }

    /// Asks the policy to say in words why it planned so. None: it does not explain, or failed to.
    pub fn explain(&mut self, request: &Request, parts: &[Part], nodes: &[Node]) -> Option<String> {
        let plan = self.plan.clone();
        let cells = Arc::clone(&self.policy_cells);
        let params = self.policy_params();
        let input = PlanInput {
            request,
            parts,
            nodes,
            params: &params,
            calibration: cells.calibration(),
        };
        (self.inner)
            .words(&self.generation, self.content, input, &plan)
            .ok()
    }
}

/// A policy asked for the probe where it may not.
pub(crate) fn no_probe(generation: &Generation) -> Failure {
    let manifest = generation.policy.as_ref().map(|it| it.plugin.manifest());
    let plugin = manifest.map_or_else(String::new, |it| format!("{} {}", it.name, it.version));
    let violation = Violation {
        field: "decision".into(),
        rule: "is probe; allowed once a request, with probe = \"ask\" in the manifest, before the probe has run".into(),
    };
    Failure {
        plugin: plugin.into(),
        export: Export::Plan,
        message: violation.to_string(),
        kind: FailureKind::Answer(Box::new(violation)),
        backtrace: None,
        memory_peak: 0,
        elapsed: std::time::Duration::ZERO,
    }
}

impl Inner {
    /// Keeps a failing input, charges the generation, and leaves it if its budget is spent.
    pub(crate) fn failed(
        &self,
        generation: &Arc<Generation>,
        content: Digest,
        failure: Failure,
        input: impl FnOnce() -> CaseInput,
    ) {
        let why = format!("{}: {}", failure.export, failure.message);
        self.keep_case(generation, content, failure, input);
        let spent = generation.charge(content, self.now_ms(), &self.config.error_budget);
        let why = format!("its error budget is spent; the last failure: {why}");
        if spent && self.retreat(generation, why) {
            // The keeper writes it down; were its queue full, it finds the generation by itself.
            let number = generation.spec.number;
            let _ = self.notes.try_send(Note::Retreated { number });
        }
    }
}
