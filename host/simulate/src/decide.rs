//! Who decides: plug-ins, or plain Rust.

use std::path::Path;
use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::manifest::{Manifest, Parameter, ParameterType, Probe};
use msao_core::offload::{
    Action, Calibration, Decision, Outcome, Plan, PlanInput, Report, Scores, StepInput, Update,
};
use msao_registry::sandbox::Failure;
use msao_registry::{Bundle, Loaded, Loader, PolicyPlugin, PostProcessorPlugin};

use crate::error::{Result, SimulateError, must};

/// Why a call has no answer: the host's fallback takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed(pub String);

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Failed {
        Failed(failure.to_string())
    }
}

/// What a policy and a post-processor are asked, as `wit/worlds.wit` has it. They are pure: what was learned comes as an
/// argument, and what is learned is an answer.
pub trait Decides {
    /// Whether the policy wants the probe.
    fn probe(&self) -> Probe {
        Probe::None
    }

    /// How a request is to run. `input.params` is empty: whoever decides knows its own.
    ///
    /// # Errors
    /// [`Failed`].
    fn plan(&mut self, input: PlanInput) -> std::result::Result<Decision, Failed>;

    /// What to do after something happened while drafting.
    ///
    /// # Errors
    /// [`Failed`].
    fn step(&mut self, input: &StepInput, memo: &[u8]) -> std::result::Result<Action, Failed>;

    /// What was learned of a request.
    ///
    /// # Errors
    /// [`Failed`].
    fn observe(
        &mut self,
        _outcome: &Outcome,
        _calibration: &Calibration,
    ) -> std::result::Result<Vec<Update>, Failed> {
        Ok(Vec::new())
    }

    /// What matters of what a probe saw. None: nobody scores, and the traffic's truth takes the answer's place.
    fn score(
        &mut self,
        _report: &Report,
        _seed: u64,
        _calibration: &Calibration,
    ) -> Option<std::result::Result<Scores, Failed>> {
        None
    }
}

/// Plug-ins: a policy, and perhaps a post-processor, with the parameters that they are given.
///
/// Load them with a sandbox that is `deterministic`: else a call may run into its deadline because the machine is busy, and
/// the same seed gives another result.
pub struct Components {
    policy: Arc<dyn PolicyPlugin>,
    params: Vec<f64>,
    postprocessor: Option<(Arc<dyn PostProcessorPlugin>, Vec<f64>)>,
}

impl Components {
    /// A policy, with the defaults of its manifest.
    pub fn new(policy: Arc<dyn PolicyPlugin>) -> Components {
        let params = policy.manifest().defaults();
        Components {
            policy,
            params,
            postprocessor: None,
        }
    }

    /// Reads and loads a policy: an author's folder, or a component with its manifest beside it ([`Bundle::read`]).
    ///
    /// # Errors
    /// [`SimulateError::Plugin`]: the file, and what is wrong with it.
    pub fn load(loader: &dyn Loader, policy: &Path) -> Result<Components> {
        match load(loader, policy)? {
            Loaded::Policy(policy) => Ok(Components::new(policy)),
            Loaded::PostProcessor(_) => Err(SimulateError::Plugin(format!(
                "{} is a post-processor; a policy is wanted",
                policy.display()
            ))),
        }
    }

    /// The same with a post-processor, which is asked where the traffic has a report of what the probe saw.
    ///
    /// # Errors
    /// As [`Components::load`].
    pub fn scored_by(mut self, loader: &dyn Loader, postprocessor: &Path) -> Result<Components> {
        match load(loader, postprocessor)? {
            Loaded::PostProcessor(loaded) => {
                let params = loaded.manifest().defaults();
                self.postprocessor = Some((loaded, params));
                Ok(self)
            }
            Loaded::Policy(_) => Err(SimulateError::Plugin(format!(
                "{} is a policy; a post-processor is wanted",
                postprocessor.display()
            ))),
        }
    }

    /// The policy's manifest: its parameters in their order.
    pub fn manifest(&self) -> &Manifest {
        self.policy.manifest()
    }

    /// What the policy is given, in the manifest's order.
    pub fn params(&self) -> &[f64] {
        &self.params
    }

    /// Gives the policy other parameters. They are as calibration tries them: whole numbers where the manifest wants them, in
    /// range.
    ///
    /// # Errors
    /// [`SimulateError::Value`], naming the parameter and what is allowed.
    pub fn set_params(&mut self, params: Vec<f64>) -> Result<()> {
        let parameters = &self.policy.manifest().parameters;
        let (given, wanted) = (params.len(), parameters.len());
        must(
            given == wanted,
            || "params".to_owned(),
            || format!("has {given} entries; allowed: {wanted}, as the manifest lists"),
        )?;
        for (parameter, &value) in parameters.iter().zip(&params) {
            let (least, most) = range(parameter);
            let whole = !is_whole(parameter) || value.fract() == 0.0;
            must(
                whole && value >= least && value <= most,
                || format!("params.{}", parameter.name),
                || {
                    let kind = if is_whole(parameter) {
                        "whole numbers "
                    } else {
                        ""
                    };
                    format!("is {value}; allowed: {kind}{least} to {most}")
                },
            )?;
        }
        self.params = params;
        Ok(())
    }
}

fn is_whole(parameter: &Parameter) -> bool {
    parameter.kind != ParameterType::Float
}

/// The least and the largest number that a parameter may be, as plug-ins get it.
fn range(parameter: &Parameter) -> (f64, f64) {
    match parameter.kind {
        ParameterType::Bool => (0.0, 1.0),
        ParameterType::Choice => (0.0, parameter.choices.len().saturating_sub(1) as f64),
        ParameterType::Float | ParameterType::Int => (
            parameter.min.unwrap_or(f64::NEG_INFINITY),
            parameter.max.unwrap_or(f64::INFINITY),
        ),
    }
}

fn load(loader: &dyn Loader, path: &Path) -> Result<Loaded> {
    let bundle = Bundle::read(path).map_err(|error| SimulateError::Plugin(error.to_string()))?;
    let digest = Digest::of(&bundle.wasm);
    loader
        .load(&bundle.wasm, &digest, &bundle.manifest)
        .map_err(|problem| SimulateError::Plugin(format!("{}: {problem}", path.display())))
}

impl Decides for Components {
    fn probe(&self) -> Probe {
        self.policy.manifest().probe
    }

    fn plan(&mut self, input: PlanInput) -> std::result::Result<Decision, Failed> {
        let input = PlanInput {
            params: &self.params,
            ..input
        };
        self.policy.plan(input).map_err(Failed::from)
    }

    fn step(&mut self, input: &StepInput, memo: &[u8]) -> std::result::Result<Action, Failed> {
        self.policy.step(input, memo).map_err(Failed::from)
    }

    fn observe(
        &mut self,
        outcome: &Outcome,
        calibration: &Calibration,
    ) -> std::result::Result<Vec<Update>, Failed> {
        (self.policy.observe(outcome, &self.params, calibration)).map_err(Failed::from)
    }

    fn score(
        &mut self,
        report: &Report,
        seed: u64,
        calibration: &Calibration,
    ) -> Option<std::result::Result<Scores, Failed>> {
        let (postprocessor, params) = self.postprocessor.as_ref()?;
        let scores = postprocessor.score(report, seed, params, calibration);
        Some(scores.map_err(Failed::from))
    }
}

/// Two functions, for tests and for baselines: the same plan for everybody, or one that looks at what it is given.
pub struct Plain<P, S> {
    plan: P,
    step: S,
}

impl<P, S> Plain<P, S>
where
    P: FnMut(PlanInput) -> Plan,
    S: FnMut(&StepInput) -> Action,
{
    /// Of these.
    pub fn new(plan: P, step: S) -> Plain<P, S> {
        Plain { plan, step }
    }
}

impl<P, S> Decides for Plain<P, S>
where
    P: FnMut(PlanInput) -> Plan,
    S: FnMut(&StepInput) -> Action,
{
    fn plan(&mut self, input: PlanInput) -> std::result::Result<Decision, Failed> {
        Ok(Decision::Run((self.plan)(input)))
    }

    fn step(&mut self, input: &StepInput, _memo: &[u8]) -> std::result::Result<Action, Failed> {
        Ok((self.step)(input))
    }
}
