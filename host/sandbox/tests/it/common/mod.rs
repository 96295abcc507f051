//! What the tests of this folder share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)] // a test's helpers may panic

use std::path::{Path, PathBuf};
use std::sync::Arc;

use msao_core::offload::manifest::Manifest;
use msao_core::offload::{
    Calibration, Decision, Item, Node, Outcome, Part, Plan, PlanInput, Report, Request, Route,
    StepInput,
};
use msao_hostile::build::Core;
use msao_hostile::{MANIFEST, SCORE_MANIFEST};
use msao_sandbox::{Failure, Plugin, Policy, PostProcessor, Sandbox, SandboxConfig};

pub fn sandbox(config: SandboxConfig) -> Sandbox {
    Sandbox::new(&config).unwrap()
}

pub fn policy_manifest() -> Manifest {
    Manifest::parse(MANIFEST).unwrap()
}

pub fn policy(sandbox: &Sandbox, core: &Core) -> Arc<Policy> {
    match sandbox.load(&core.build().unwrap(), &policy_manifest()) {
        Ok(Plugin::Policy(policy)) => policy,
        Ok(Plugin::PostProcessor(_)) => panic!("a post-processor"),
        Err(error) => panic!("{error}"),
    }
}

pub fn honest_policy(sandbox: &Sandbox) -> Arc<Policy> {
    policy(sandbox, &Core::policy())
}

pub fn honest_postprocessor(sandbox: &Sandbox) -> Arc<PostProcessor> {
    let manifest = Manifest::parse(SCORE_MANIFEST).unwrap();
    let wasm = Core::postprocessor().build().unwrap();
    match sandbox.load(&wasm, &manifest).unwrap() {
        Plugin::PostProcessor(it) => it,
        Plugin::Policy(_) => panic!("a policy"),
    }
}

/// One text and this node alone.
pub fn with_input<T>(f: impl FnOnce(PlanInput) -> T) -> T {
    f(PlanInput {
        request: &Request::default(),
        parts: &[Part::default()],
        nodes: &[Node {
            up: true,
            ..Node::default()
        }],
        params: &[1.0, 2.0],
        calibration: &Calibration {
            keys: vec![1, 2],
            mean: vec![0.5, 0.25],
            variance: vec![0.0, 0.1],
            count: vec![3.0, 4.0],
        },
    })
}

pub fn plan(policy: &Policy) -> Result<Decision, Failure> {
    with_input(|input| policy.plan(input))
}

/// One item of four tokens.
pub fn report() -> Report {
    Report {
        items: vec![Item {
            modality: 1,
            tokens: 4,
            frames: 1,
            relevance: 1.0,
        }],
        saliency: vec![1.0; 4],
        relevance: vec![1.0; 4],
        baseline: vec![1.0; 4],
        frame: vec![0; 4],
        y: vec![0, 0, 1, 1],
        x: vec![0, 1, 0, 1],
        similarity: vec![2.0; 4],
        dim: 2,
        features: vec![0.5; 8],
    }
}

/// Calls an export by name and forgets the answer.
pub fn call(plugin: &Plugin, export: &str) -> Result<(), Failure> {
    let calibration = Calibration::default();
    match plugin {
        Plugin::PostProcessor(it) => it.score(&report(), 1, &[], &calibration).map(drop),
        Plugin::Policy(it) => match export {
            "plan" => plan(it).map(drop),
            "step" => it.step(&StepInput::default(), &[1, 2, 3]).map(drop),
            "observe" => (it.observe(&Outcome::default(), &[], &calibration)).map(drop),
            _ => {
                let plan = Plan::plain(Route::Edge, 0);
                with_input(|input| it.explain(input, &plan)).map(drop)
            }
        },
    }
}

/// The one file of compiled code in a cache.
pub fn cached(folder: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(folder)
        .unwrap()
        .map(|it| it.unwrap().path());
    let code = files.find(|path| path.extension().is_some_and(|it| it == "cwasm"));
    code.unwrap()
}
