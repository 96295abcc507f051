//! World `offload-policy`.

use msao_core::digest::Digest;
use msao_core::offload::check::{self, MAX_EXPLANATION, MAX_TERMS, Violation};
use msao_core::offload::manifest::{Manifest, Probe};
use msao_core::offload::{
    Action, Calibration, Decision, MAX_MEMO, MAX_UPDATES, Outcome, Plan, PlanInput, StepInput,
    Update,
};
use wasmtime::Store;
use wasmtime::component::{Instance as Linked, TypedFunc};

use crate::call::{Found, Functions, Loaded, Meter, Plug, Usage};
use crate::config::Limits;
use crate::error::{Export, Failure, LoadError};
use crate::inspect::Inspection;
use crate::instance::State;
use crate::typed;
use crate::wire;

type PlanArgs<'a> = (
    wire::Request,
    &'a [wire::Part],
    &'a [wire::Node],
    &'a [f64],
    wire::Calibration<'a>,
);
type StepArgs<'a> = (
    u32,
    f64,
    f64,
    f64,
    f64,
    u32,
    u32,
    u32,
    u32,
    u32,
    f64,
    f64,
    f64,
    f64,
    &'a [u8],
);
type ObserveArgs<'a> = (wire::Outcome<'a>, &'a [f64], wire::Calibration<'a>);
type ExplainArgs<'a> = (
    wire::Request,
    &'a [wire::Part],
    &'a [wire::Node],
    &'a [f64],
    wire::Calibration<'a>,
    wire::PlanRef<'a>,
);

/// The arguments of a [`TypedFunc`] may live shorter than those it was found with: it keeps none.
pub struct PolicyFunctions {
    plan: TypedFunc<PlanArgs<'static>, (wire::Decision,)>,
    step: TypedFunc<StepArgs<'static>, (wire::Action,)>,
    observe: TypedFunc<ObserveArgs<'static>, (Vec<wire::Update>,)>,
    explain: Option<TypedFunc<ExplainArgs<'static>, (String,)>>,
    /// Rows of small tables, rewritten for each call.
    parts: Vec<wire::Part>,
    nodes: Vec<wire::Node>,
    part_plans: Vec<wire::PartPlan>,
}

pub struct PolicyIndices {
    plan: typed::Export<PlanArgs<'static>, (wire::Decision,)>,
    step: typed::Export<StepArgs<'static>, (wire::Action,)>,
    observe: typed::Export<ObserveArgs<'static>, (Vec<wire::Update>,)>,
    explain: Option<typed::Export<ExplainArgs<'static>, (String,)>>,
}

impl Functions for PolicyFunctions {
    type Indices = PolicyIndices;

    fn indices(found: &Found) -> Result<PolicyIndices, LoadError> {
        Ok(PolicyIndices {
            plan: found.export("policy", "plan", "policy.plan")?,
            step: found.export("policy", "step", "policy.step")?,
            observe: found.export("policy", "observe", "policy.observe")?,
            explain: (found.inspection.explains)
                .then(|| found.export("explanation", "explain", "explanation.explain"))
                .transpose()?,
        })
    }

    fn find(
        indices: &PolicyIndices,
        store: &mut Store<State>,
        instance: &Linked,
    ) -> wasmtime::Result<PolicyFunctions> {
        let plan = indices.plan.find(store, instance);
        let step = indices.step.find(store, instance);
        let observe = indices.observe.find(store, instance);
        let explain = (indices.explain.as_ref())
            .map(|export| export.find(store, instance))
            .transpose();
        typed::compared(&[
            typed::wrong(&plan),
            typed::wrong(&step),
            typed::wrong(&observe),
            typed::wrong(&explain),
        ])?;
        Ok(PolicyFunctions {
            plan: plan?,
            step: step?,
            observe: observe?,
            explain: explain?,
            parts: Vec::new(),
            nodes: Vec::new(),
            part_plans: Vec::new(),
        })
    }
}

/// A policy that can be called from many threads at once. Every answer has been held against the contract.
pub struct Policy {
    plug: Plug<PolicyFunctions>,
}

fn rewrite<'a, From: 'a, To: std::convert::From<&'a From>>(into: &mut Vec<To>, rows: &'a [From]) {
    into.clear();
    into.extend(rows.iter().map(To::from));
}

impl Policy {
    pub(crate) fn new(
        loaded: Loaded,
        inspection: &Inspection,
        compared: bool,
    ) -> Result<Policy, LoadError> {
        Plug::new(loaded, inspection, compared).map(|plug| Policy { plug })
    }

    /// The component's digest.
    pub fn digest(&self) -> &Digest {
        &self.plug.loaded.digest
    }

    /// The manifest that it was loaded with.
    pub fn manifest(&self) -> &Manifest {
        &self.plug.loaded.manifest
    }

    /// The limits in force.
    pub fn limits(&self) -> &Limits {
        &self.plug.loaded.limits
    }

    /// Whether it explains its plans.
    pub fn explains(&self) -> bool {
        self.plug.explains()
    }

    /// Makes instances until there are `count` of them, so that the first calls need not.
    ///
    /// # Errors
    /// [`LoadError::Instantiate`].
    pub fn warm(&self, count: u32) -> Result<(), LoadError> {
        self.plug.warm(count)
    }

    /// What it uses now.
    pub fn usage(&self) -> Usage {
        self.plug.usage()
    }

    /// Calls `f` once for each idle instance, which is the one that a call from within gets: for measuring all of them.
    ///
    /// # Errors
    /// The first of `f`, after which it is not called any more.
    pub fn each_idle<E>(&self, mut f: impl FnMut(&Policy) -> Result<(), E>) -> Result<(), E> {
        self.plug.each_idle(|| f(self))
    }

    /// Asks how a request is to run.
    ///
    /// # Errors
    /// [`Failure`]; a decision that breaks a rule of the contract is one.
    pub fn plan(&self, input: PlanInput) -> Result<Decision, Failure> {
        self.plan_metered(input, None)
    }

    /// [`Policy::plan`], telling what it used.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn plan_metered(
        &self,
        input: PlanInput,
        meter: Option<&mut Meter>,
    ) -> Result<Decision, Failure> {
        let manifest = self.manifest();
        let answer = input.parts.len() * size_of::<wire::PartPlan>() + MAX_MEMO + MAX_TERMS * 8;
        self.plug.call(
            Export::Plan,
            self.limits().plan_ms,
            answer,
            meter,
            |store, functions| {
                rewrite(&mut functions.parts, input.parts);
                rewrite(&mut functions.nodes, input.nodes);
                let args = (
                    input.request.into(),
                    functions.parts.as_slice(),
                    functions.nodes.as_slice(),
                    input.params,
                    input.calibration.into(),
                );
                functions.plan.call(store, args)
            },
            |(decision,)| {
                let decision = decision.into();
                match &decision {
                    Decision::Run(plan) => check::plan(
                        plan,
                        input.parts,
                        input.nodes,
                        manifest.reasons.len(),
                        manifest.terms.len(),
                    )?,
                    Decision::Probe if manifest.probe == Probe::Ask => {}
                    Decision::Probe => {
                        return Err(Violation {
                            field: "decision".to_owned(),
                            rule: "is `probe`; allowed only with probe = \"ask\" in the manifest"
                                .to_owned(),
                        });
                    }
                }
                Ok(decision)
            },
        )
    }

    /// Asks what to do after something happened while drafting.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn step(&self, input: &StepInput, memo: &[u8]) -> Result<Action, Failure> {
        self.step_metered(input, memo, None)
    }

    /// [`Policy::step`], telling what it used.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn step_metered(
        &self,
        input: &StepInput,
        memo: &[u8],
        meter: Option<&mut Meter>,
    ) -> Result<Action, Failure> {
        self.plug.call(
            Export::Step,
            self.limits().step_ms,
            0,
            meter,
            |store, functions| {
                let args = (
                    input.kind,
                    input.p_accept,
                    input.top1,
                    input.entropy_nats,
                    input.margin,
                    input.judged,
                    input.accepted,
                    input.unsent,
                    input.in_flight,
                    input.committed,
                    input.waited_ms,
                    input.elapsed_ms,
                    input.rtt_ms,
                    input.queue_ms,
                    memo,
                );
                functions.step.call(store, args)
            },
            |(action,)| Ok(action.into()),
        )
    }

    /// Tells what became of a request; the answer is what was learned.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn observe(
        &self,
        outcome: &Outcome,
        params: &[f64],
        calibration: &Calibration,
    ) -> Result<Vec<Update>, Failure> {
        self.observe_metered(outcome, params, calibration, None)
    }

    /// [`Policy::observe`], telling what it used.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn observe_metered(
        &self,
        outcome: &Outcome,
        params: &[f64],
        calibration: &Calibration,
        meter: Option<&mut Meter>,
    ) -> Result<Vec<Update>, Failure> {
        self.plug.call(
            Export::Observe,
            self.limits().observe_ms,
            MAX_UPDATES * size_of::<wire::Update>(),
            meter,
            |store, functions| {
                rewrite(&mut functions.part_plans, &outcome.parts);
                let args = (
                    wire::Outcome::new(outcome, &functions.part_plans),
                    params,
                    calibration.into(),
                );
                functions.observe.call(store, args)
            },
            |(updates,)| {
                let updates: Vec<Update> = updates.into_iter().map(Into::into).collect();
                check::updates(&updates)?;
                Ok(updates)
            },
        )
    }

    /// Asks why `plan` is as it is. None: this policy explains nothing.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn explain(&self, input: PlanInput, plan: &Plan) -> Result<Option<String>, Failure> {
        self.explain_metered(input, plan, None)
    }

    /// [`Policy::explain`], telling what it used.
    ///
    /// # Errors
    /// As there.
    pub fn explain_metered(
        &self,
        input: PlanInput,
        plan: &Plan,
        meter: Option<&mut Meter>,
    ) -> Result<Option<String>, Failure> {
        self.plug.call(
            Export::Explain,
            self.limits().explain_ms,
            MAX_EXPLANATION,
            meter,
            |store, functions| {
                let Some(explain) = &functions.explain else {
                    return Ok(None);
                };
                rewrite(&mut functions.parts, input.parts);
                rewrite(&mut functions.nodes, input.nodes);
                rewrite(&mut functions.part_plans, &plan.parts);
                let args = (
                    input.request.into(),
                    functions.parts.as_slice(),
                    functions.nodes.as_slice(),
                    input.params,
                    input.calibration.into(),
                    wire::PlanRef::new(plan, &functions.part_plans),
                );
                explain.call(store, args).map(|(text,)| Some(text))
            },
            |text| match text {
                Some(text) if text.len() > MAX_EXPLANATION => Err(Violation {
                    field: "explanation".to_owned(),
                    rule: format!(
                        "has {} bytes; at most {MAX_EXPLANATION} are allowed",
                        text.len()
                    ),
                }),
                text => Ok(text),
            },
        )
    }
}

impl Plug<PolicyFunctions> {
    fn explains(&self) -> bool {
        self.indices().explain.is_some()
    }
}
