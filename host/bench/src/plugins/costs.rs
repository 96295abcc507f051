//! What a call costs: native Rust, a bare typed call, the sandbox, in one run and by turns.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use msao_core::digest::Digest;
use msao_core::offload::manifest::Manifest;
use msao_core::offload::{Plan, Route};
use msao_hostile::build::Core;
use msao_sandbox::{Failure, Plugin, Policy, PostProcessor, Sandbox, SandboxConfig};

use super::bare::{self, calls};
use super::beginnings;
use super::inputs::{Inputs, manifest};
use super::measure::{Side, by_turns, median};
use super::native;
use crate::report::Row;

/// How much more than a bare call one through the sandbox may cost.
const RATIO: f64 = 1.3;

/// Loads a policy with its own manifest.
///
/// # Errors
/// It is refused, or none.
pub fn load_policy(sandbox: &Sandbox, wasm: &[u8], manifest: &Manifest) -> Result<Arc<Policy>> {
    match sandbox.load(wasm, manifest)? {
        Plugin::Policy(it) => Ok(it),
        Plugin::PostProcessor(_) => bail!("no policy"),
    }
}

/// The same as a node does, whose store has read the component by its digest and found it whole.
///
/// # Errors
/// It is refused, or none.
pub fn load_named(
    sandbox: &Sandbox,
    wasm: &[u8],
    digest: &Digest,
    manifest: &Manifest,
) -> Result<Arc<Policy>> {
    match sandbox.load_named(wasm, digest, manifest)? {
        Plugin::Policy(it) => Ok(it),
        Plugin::PostProcessor(_) => bail!("no policy"),
    }
}

/// Loads a measured policy.
///
/// # Errors
/// It is refused, or none.
pub fn policy(sandbox: &Sandbox, wasm: &[u8]) -> Result<Arc<Policy>> {
    load_policy(sandbox, wasm, &manifest("offload-policy")?)
}

/// Loads a post-processor.
///
/// # Errors
/// It is refused, or none.
pub fn postprocessor(sandbox: &Sandbox, wasm: &[u8]) -> Result<Arc<PostProcessor>> {
    match sandbox.load(wasm, &manifest("probe-postprocessor")?)? {
        Plugin::PostProcessor(it) => Ok(it),
        Plugin::Policy(_) => bail!("no post-processor"),
    }
}

/// A side of a comparison that makes `call` again and again.
pub fn side<'a, T>(mut call: impl FnMut() -> Result<T> + 'a) -> Side<'a> {
    Box::new(move |count| {
        for _ in 0..count {
            black_box(call()?);
        }
        Ok(())
    })
}

fn answered<T>(result: Result<T, Failure>) -> Result<T> {
    result.context("a measured call failed")
}

/// An export's times: native, bare, sandbox, in ns; native NaN where there is nothing to compare.
fn rows_of(name: &str, orientation_us: f64, [native, bare, ours]: [f64; 3]) -> Vec<Row> {
    let us = |ns: f64| ns / 1000.0;
    let shares = [
        ("the plug-in's own arithmetic", native.max(0.0)),
        ("crossing into WebAssembly and back", bare - native.max(0.0)),
        ("the sandbox: pool, clock, conversion, checks", ours - bare),
    ];
    let dearest = shares
        .iter()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map_or("", |it| it.0);
    let parts = shares.map(|(part, ns)| format!("{part}: {:.0} ns", ns));
    vec![
        Row::told(format!("{name}: native Rust"), us(native), " us"),
        Row::told(format!("{name}: bare typed call"), us(bare), " us"),
        Row::told(format!("{name}: through the sandbox"), us(ours), " us").with_details(vec![
            format!("for orientation: {orientation_us} us; dearest part: {dearest}"),
            parts.join("; "),
        ]),
        Row::at_most(format!("{name}: sandbox / bare"), ours / bare, RATIO, ""),
    ]
}

/// Every export beside native Rust and a bare call.
///
/// # Errors
/// A guest cannot be built or a call fails.
pub fn exports(policy_wasm: &[u8], post_wasm: &[u8]) -> Result<Vec<Row>> {
    let inputs = Inputs::default();
    let sandbox = Sandbox::new(&SandboxConfig::default())?;
    let args = calls::PolicyArgs::new(&inputs);
    let mut rows = Vec::new();

    // The least that a call of the contract can be: a step of a plug-in that does nothing, written by hand.
    let nothing = Core {
        world: "offload-policy".to_owned(),
        ..Core::policy()
    }
    .build()?;
    let ours = policy(&sandbox, &nothing)?;
    let mut other = bare::policy(&nothing)?;
    let times = by_turns([
        side(|| Ok(black_box(&inputs.step).kind)),
        side(|| calls::step(&mut other, &args)),
        side(|| answered(ours.step(&inputs.step, &inputs.memo))),
    ])?;
    rows.extend(rows_of("empty call", 0.15, times));

    // Words are of any length; what a call costs without making them is what the sandbox adds to.
    let explaining = Core::policy().build()?;
    let ours = policy(&sandbox, &explaining)?;
    ensure!(ours.explains(), "the policy that is to explain does not");
    let mut other = bare::explaining(&explaining)?;
    let plan = Plan::plain(Route::Edge, 0);
    let times = by_turns([
        side(|| Ok(black_box(&inputs.parts).len())),
        side(|| calls::explain(&mut other, &args)),
        side(|| answered(ours.explain(inputs.plan(), &plan))),
    ])?;
    rows.extend(rows_of("explain (4 parts, 3 nodes, 64 cells)", 3.0, times));

    let ours = policy(&sandbox, policy_wasm)?;
    let other = RefCell::new(bare::policy(policy_wasm)?);
    let decided = answered(ours.plan(inputs.plan()))?;
    ensure!(
        decided == native::plan(inputs.plan()),
        "native Rust and the guest plan differently: {decided:?}"
    );
    let times = by_turns([
        side(|| Ok(native::step(black_box(&inputs.step)))),
        side(|| calls::step(&mut other.borrow_mut(), &args)),
        side(|| answered(ours.step(&inputs.step, &inputs.memo))),
    ])?;
    rows.extend(rows_of("step", 0.3, times));
    let times = by_turns([
        side(|| Ok(native::plan(black_box(inputs.plan())))),
        side(|| calls::plan(&mut other.borrow_mut(), &args)),
        side(|| answered(ours.plan(inputs.plan()))),
    ])?;
    rows.extend(rows_of("plan (4 parts, 3 nodes, 64 cells)", 3.0, times));
    let times = by_turns([
        side(|| {
            Ok(native::observe(
                black_box(&inputs.outcome),
                &inputs.calibration,
            ))
        }),
        side(|| calls::observe(&mut other.borrow_mut(), &args)),
        side(|| answered(ours.observe(&inputs.outcome, &inputs.params, &inputs.calibration))),
    ])?;
    rows.extend(rows_of("observe (64 cells)", 3.0, times));

    let ours = postprocessor(&sandbox, post_wasm)?;
    let mut other = bare::postprocessor(post_wasm)?;
    let score_args = calls::ScoreArgs::new(&inputs);
    let scored = answered(ours.score(&inputs.report, 7, &inputs.params, &inputs.calibration))?;
    ensure!(
        scored == native::score(&inputs.report),
        "native Rust and the guest score differently"
    );
    let times = by_turns([
        side(|| Ok(native::score(black_box(&inputs.report)))),
        side(|| calls::score(&mut other, &score_args)),
        side(|| {
            answered(ours.score_metered(
                &inputs.report,
                7,
                &inputs.params,
                &inputs.calibration,
                None,
            ))
        }),
    ])?;
    let name = "score (1,196 tokens, 8 features)";
    rows.extend(rows_of(name, 30.0, times));
    // What a request waits for: `score` when it is its turn.
    let [bare, here, there] = by_turns([
        side(|| calls::score(&mut other, &score_args)),
        side(|| {
            answered(ours.score_metered(
                &inputs.report,
                7,
                &inputs.params,
                &inputs.calibration,
                None,
            ))
        }),
        side(|| answered(ours.score(&inputs.report, 7, &inputs.params, &inputs.calibration))),
    ])?;
    rows.extend(by_request(bare, here, there));
    Ok(rows)
}

/// `score` as requests call it, beside the bare call, in ns.
fn by_request(bare: f64, here: f64, there: f64) -> [Row; 2] {
    let name = "score as a request calls it";
    let time = Row::told(
        format!("{name}: when it is its turn"),
        there / 1000.0,
        " us",
    );
    let over = format!("the turn: {:.0} ns more than without", there - here);
    [
        time.with_details(vec![over]),
        Row::at_most(format!("{name}: sandbox / bare"), there / bare, RATIO, ""),
    ]
}

/// What comes before a first call.
///
/// # Errors
/// A component is refused or the cache's folder cannot be made.
pub fn beginnings(policy_wasm: &[u8]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let ms = |start: Instant| start.elapsed().as_secs_f64() * 1000.0;
    let sandbox = Sandbox::new(&SandboxConfig::default())?;
    let cold = (0..5)
        .map(|_| {
            let start = Instant::now();
            policy(&sandbox, policy_wasm)?;
            Ok(ms(start))
        })
        .collect::<Result<Vec<f64>>>()?;
    rows.push(Row::at_most(
        "Rust: cold, from bytes to callable",
        median(cold),
        150.0,
        " ms",
    ));

    let folder = tempfile::tempdir()?;
    let config = SandboxConfig {
        cache: Some(folder.path().to_owned()),
        ..SandboxConfig::default()
    };
    let cached = Sandbox::new(&config)?;
    let loaded = policy(&cached, policy_wasm)?;
    let own = (&cached, &config, folder.path());
    rows.extend(beginnings::rows(
        "Rust",
        own,
        (policy_wasm, &loaded),
        Some(1.0),
    )?);
    Ok(rows)
}
