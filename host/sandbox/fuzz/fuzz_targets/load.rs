//! Loading and calling: any bytes give an answer, a failure or an error.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{Calibration, Outcome, PlanInput, Request, StepInput};
use msao_hostile::MANIFEST;
use msao_sandbox::{Plugin, Sandbox, SandboxConfig};

static SANDBOX: OnceLock<(Sandbox, Manifest)> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let (sandbox, manifest) = SANDBOX.get_or_init(|| {
        let sandbox = Sandbox::new(&SandboxConfig::default()).expect("a sandbox");
        (sandbox, Manifest::parse(MANIFEST).expect("a manifest"))
    });
    let Ok(Plugin::Policy(policy)) = sandbox.load(bytes, manifest) else {
        return;
    };
    let calibration = Calibration::default();
    let _ = policy.plan(PlanInput {
        request: &Request::default(),
        parts: &[],
        nodes: &[],
        params: &[],
        calibration: &calibration,
    });
    let _ = policy.step(&StepInput::default(), &[]);
    let _ = policy.observe(&Outcome::default(), &[], &calibration);
});
