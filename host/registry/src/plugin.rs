//! What the runtime asks of the two kinds of plug-ins. The sandbox's own implement it; unit tests bring plain Rust.

use std::sync::Arc;

use msao_core::digest::Digest;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{
    Action, Calibration, Decision, Outcome, Plan, PlanInput, Report, Scores, StepInput, Update,
};
use msao_sandbox::{Failure, Limits, Plugin, Policy, PostProcessor, Sandbox};

/// A policy that can be called from many threads. What each call means stands in `wit/worlds.wit`; answers keep the
/// contract's ranges.
pub trait PolicyPlugin: Send + Sync {
    /// Its component.
    fn digest(&self) -> Digest;
    /// Its manifest.
    fn manifest(&self) -> &Manifest;
    /// Makes instances until there are so many, before they are needed.
    fn warm(&self, count: u32) -> Result<(), String>;
    /// Instances that there are.
    fn instances(&self) -> u32 {
        0
    }
    /// The limits in force, where there are any.
    fn limits(&self) -> Option<Limits> {
        None
    }
    /// Decides how a request runs.
    fn plan(&self, input: PlanInput) -> Result<Decision, Failure>;
    /// Says what to do while drafting.
    fn step(&self, input: &StepInput, memo: &[u8]) -> Result<Action, Failure>;
    /// Learns from what became of it.
    fn observe(
        &self,
        outcome: &Outcome,
        params: &[f64],
        calibration: &Calibration,
    ) -> Result<Vec<Update>, Failure>;
    /// Says why, where it can.
    fn explain(&self, input: PlanInput, plan: &Plan) -> Result<Option<String>, Failure>;
}

/// A post-processor that can be called from many threads.
pub trait PostProcessorPlugin: Send + Sync {
    /// Its component.
    fn digest(&self) -> Digest;
    /// Its manifest.
    fn manifest(&self) -> &Manifest;
    /// Makes instances until there are so many, before they are needed.
    fn warm(&self, count: u32) -> Result<(), String>;
    /// Instances that there are.
    fn instances(&self) -> u32 {
        0
    }
    /// The limits in force, where there are any.
    fn limits(&self) -> Option<Limits> {
        None
    }
    /// Says what matters; it may have to wait for its turn.
    fn score(
        &self,
        report: &Report,
        seed: u64,
        params: &[f64],
        calibration: &Calibration,
    ) -> Result<Scores, Failure>;
}

/// A plug-in that was loaded.
#[derive(Clone)]
pub enum Loaded {
    /// World `offload-policy`.
    Policy(Arc<dyn PolicyPlugin>),
    /// World `probe-postprocessor`.
    PostProcessor(Arc<dyn PostProcessorPlugin>),
}

/// Makes plug-ins of components. Slow: never on a request's path.
pub trait Loader: Send + Sync {
    /// Checks and compiles a component. `digest` has been verified to be its digest.
    ///
    /// # Errors
    /// What is wrong with it and how to mend it.
    fn load(&self, wasm: &[u8], digest: &Digest, manifest: &Manifest) -> Result<Loaded, String>;
}

impl Loader for Sandbox {
    fn load(&self, wasm: &[u8], digest: &Digest, manifest: &Manifest) -> Result<Loaded, String> {
        match self.load_named(wasm, digest, manifest) {
            Ok(Plugin::Policy(policy)) => Ok(Loaded::Policy(policy)),
            Ok(Plugin::PostProcessor(postprocessor)) => Ok(Loaded::PostProcessor(postprocessor)),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl PolicyPlugin for Policy {
    fn digest(&self) -> Digest {
        *Policy::digest(self)
    }

    fn manifest(&self) -> &Manifest {
        Policy::manifest(self)
    }

    fn warm(&self, count: u32) -> Result<(), String> {
        Policy::warm(self, count).map_err(|error| error.to_string())
    }

    fn instances(&self) -> u32 {
        self.usage().instances
    }

    fn limits(&self) -> Option<Limits> {
        Some(*Policy::limits(self))
    }

    fn plan(&self, input: PlanInput) -> Result<Decision, Failure> {
        Policy::plan(self, input)
    }

    fn step(&self, input: &StepInput, memo: &[u8]) -> Result<Action, Failure> {
        Policy::step(self, input, memo)
    }

    fn observe(
        &self,
        outcome: &Outcome,
        params: &[f64],
        calibration: &Calibration,
    ) -> Result<Vec<Update>, Failure> {
        Policy::observe(self, outcome, params, calibration)
    }

    fn explain(&self, input: PlanInput, plan: &Plan) -> Result<Option<String>, Failure> {
        Policy::explain(self, input, plan)
    }
}

impl PostProcessorPlugin for PostProcessor {
    fn digest(&self) -> Digest {
        *PostProcessor::digest(self)
    }

    fn manifest(&self) -> &Manifest {
        PostProcessor::manifest(self)
    }

    fn warm(&self, count: u32) -> Result<(), String> {
        PostProcessor::warm(self, count).map_err(|error| error.to_string())
    }

    fn instances(&self) -> u32 {
        self.usage().instances
    }

    fn limits(&self) -> Option<Limits> {
        Some(*PostProcessor::limits(self))
    }

    fn score(
        &self,
        report: &Report,
        seed: u64,
        params: &[f64],
        calibration: &Calibration,
    ) -> Result<Scores, Failure> {
        PostProcessor::score(self, report, seed, params, calibration)
    }
}
