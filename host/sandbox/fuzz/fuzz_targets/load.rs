//! Loading and calling, as a policy and as a post-processor: any bytes give an answer, a failure or an error.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{
    Calibration, Item, Outcome, Plan, PlanInput, Report, Request, Route, StepInput,
};
use msao_hostile::{MANIFEST, SCORE_MANIFEST};
use msao_sandbox::{Plugin, Sandbox, SandboxConfig};

static SANDBOX: OnceLock<(Sandbox, [Manifest; 2])> = OnceLock::new();

fn call(plugin: &Plugin) {
    let calibration = Calibration::default();
    match plugin {
        Plugin::Policy(policy) => {
            let request = Request::default();
            let input = PlanInput {
                request: &request,
                parts: &[],
                nodes: &[],
                params: &[],
                calibration: &calibration,
            };
            let _ = policy.plan(input);
            let _ = policy.step(&StepInput::default(), &[]);
            let _ = policy.observe(&Outcome::default(), &[], &calibration);
            let _ = policy.explain(input, &Plan::plain(Route::Edge, 0));
        }
        Plugin::PostProcessor(postprocessor) => {
            let report = Report {
                items: vec![Item {
                    modality: 1,
                    tokens: 4,
                    frames: 1,
                    relevance: 1.0,
                }],
                ..Report::default()
            };
            let _ = postprocessor.score_metered(&report, 1, &[], &calibration, None);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (sandbox, manifests) = SANDBOX.get_or_init(|| {
        let sandbox = Sandbox::new(&SandboxConfig::default()).expect("a sandbox");
        let manifests = [MANIFEST, SCORE_MANIFEST];
        (
            sandbox,
            manifests.map(|text| Manifest::parse(text).expect("a manifest")),
        )
    });
    for manifest in manifests {
        if let Ok(plugin) = sandbox.load(bytes, manifest) {
            call(&plugin);
        }
    }
});
