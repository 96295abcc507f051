//! The worked example in four languages: the same plans, and what each costs.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Context, Result};
use msao_core::offload::{Calibration, Decision, Plan, PlanInput};
use msao_registry::driver::Driver;
use msao_sandbox::{Limits, Sandbox, SandboxConfig};

use super::bare::{self, calls};
use super::beginnings;
use super::costs::{load_policy, side};
use super::inputs::Inputs;
use super::measure::by_turns;
use super::shipped::{LANGUAGES, Shelf};
use crate::report::Row;

const INPUTS: usize = 10_000;

fn config() -> SandboxConfig {
    let default = SandboxConfig::default();
    SandboxConfig {
        // How long an answer takes is not asked here; an interpreter wants room.
        limits: Limits {
            memory_mib: 128,
            plan_ms: 10_000,
            ..default.limits
        },
        ..default
    }
}

/// A plan with the bits of its numbers: -0 is not 0 here.
fn exactly(decision: &Decision) -> (String, Vec<u64>) {
    let terms = match decision {
        Decision::Run(Plan { terms, .. }) => terms.iter().map(|term| term.to_bits()).collect(),
        Decision::Probe => Vec::new(),
    };
    (format!("{decision:?}"), terms)
}

/// The same plans on 10,000 random requests.
///
/// # Errors
/// A component is missing or a call fails.
pub fn same(shelf: &Shelf) -> Result<Vec<Row>> {
    let sandbox = Sandbox::new(&config())?;
    let mut policies = Vec::new();
    for language in LANGUAGES {
        let (wasm, manifest) = shelf.get(&format!("quickest-{language}"))?;
        let params = manifest.defaults();
        policies.push((language, load_policy(&sandbox, &wasm, &manifest)?, params));
    }
    let mut differing = Vec::new();
    let mut routes = std::collections::BTreeMap::<String, u32>::new();
    let cells = |number: usize| {
        let keys: Vec<u32> = (0..6).filter(|key| number >> key & 1 == 1).collect();
        let column = |scale: f64| keys.iter().map(|key| scale * f64::from(key + 1)).collect();
        Calibration {
            mean: column(0.37),
            variance: column(0.11),
            count: column(3.0),
            keys: keys.clone(),
        }
    };
    for (number, scenario) in Driver::new(11).take(INPUTS).enumerate() {
        let calibration = cells(number);
        let mut first = None;
        for (language, policy, params) in &policies {
            let decision = policy
                .plan(PlanInput {
                    request: &scenario.request,
                    parts: &scenario.parts,
                    nodes: &scenario.nodes,
                    params,
                    calibration: &calibration,
                })
                .with_context(|| format!("{language}, input {number}"))?;
            let answer = exactly(&decision);
            match &first {
                None => {
                    let route = match &decision {
                        Decision::Run(plan) => format!("{:?}", plan.route),
                        Decision::Probe => "probe".to_owned(),
                    };
                    *routes.entry(route).or_default() += 1;
                    first = Some(answer);
                }
                Some(expected) if answer != *expected => {
                    differing.push(format!("input {number}, {language}"));
                }
                Some(_) => {}
            }
        }
    }
    let mut row = Row::all(
        "Rust, C, JavaScript and Python plan alike",
        INPUTS,
        differing,
    );
    row.details.truncate(10);
    row.details.push(format!("routes: {routes:?}"));
    Ok(vec![row])
}

/// What a plan, an instance and a load from the cache cost in each language.
///
/// # Errors
/// A component is missing or a call fails.
pub fn costs(shelf: &Shelf) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let config = SandboxConfig {
        cache: Some(folder.path().to_owned()),
        ..config()
    };
    let sandbox = Sandbox::new(&config)?;
    let mut rows = Vec::new();
    for language in LANGUAGES {
        let (wasm, manifest) = shelf.get(&format!("quickest-{language}"))?;
        let start = Instant::now();
        let ours = load_policy(&sandbox, &wasm, &manifest)?;
        let cold = start.elapsed().as_secs_f64() * 1000.0;
        rows.push(Row::told(format!("{language}: cold compile"), cold, " ms"));
        let orientation_ms = match language {
            "python" => Some(5.0),
            "rust" | "c" => Some(1.0),
            _ => None,
        };
        let here = (&sandbox, &config, folder.path());
        rows.extend(beginnings::rows(
            language,
            here,
            (&wasm, &ours),
            orientation_ms,
        )?);
        let own = Inputs {
            params: manifest.defaults(),
            ..Inputs::default()
        };
        let args = calls::PolicyArgs::new(&own);
        let other = RefCell::new(bare::policy(&wasm)?);
        let times = by_turns([
            side(|| calls::plan(&mut other.borrow_mut(), &args)),
            side(|| ours.plan(own.plan()).context("a measured call failed")),
        ])?;
        let [bare, ours] = times;
        rows.push(
            Row::told(format!("{language}: plan"), ours / 1000.0, " us")
                .with_details(vec![format!("bare typed call {:.1} us", bare / 1000.0)]),
        );
        rows.push(Row::at_most(
            format!("{language}: plan, sandbox / bare"),
            ours / bare,
            1.3,
            "",
        ));
    }
    Ok(rows)
}
