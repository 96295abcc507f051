//! Cells of an evaluation, played once more by the simulator: how far off it is where something was measured. And how many clients so
//! many clouds serve ([`capacity`]), which only the simulator can say.
//!
//! Each cell's questions are made of what its rows say ([`questions`]), its link is the specification's, its policy the
//! component with the cell's parameters. How fast models are says a profile. What rows do not say is assumed, and told in
//! [`ASSUMED`]. Nothing that is played is ever ranked: it is held against the same cell, measured.
//!
//! Read first: [`play`], [`questions::Known`], [`capacity()`].
#![forbid(unsafe_code)]

mod capacity;
mod questions;

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use msao_core::offload::Status;
use msao_core::offload::manifest::Value;
use msao_evaluate::plan::{Cell, Purpose};
use msao_evaluate::rows::Results;
use msao_evaluate::simulated::{PlayArgs, Played, Plays};
use msao_evaluate::spec::{Arrival, Link, LinkFormat, LinkTrace, Parameter, Policy, Spec};
use msao_link::shaper::{Bandwidth, DirectionConfig, LinkConfig, TraceConfig, TraceFormat};
use msao_registry::sandbox::{Sandbox, SandboxConfig};
use msao_simulate::traffic::{Arrivals, Traffic};
use msao_simulate::{Components, Options, Profile, World, run};

pub use self::capacity::capacity;
use self::questions::{APART_MS, Known};

/// What rows do not say.
pub const ASSUMED: [&str; 6] = [
    "speeds are the profile's, whatever else the machine did",
    "clients ask when they did: who asked later than was due waited as long for that",
    "tokens and bytes of a question's media are shared evenly among them; text is as long as the questions of text alone",
    "clips and sounds have 8 parts; answers need all of a medium, and a probe finds nothing to leave out",
    "what policies learn from before a cell's own questions is what was asked over its link, one each fifth of a second",
    "the target's answer is as long as the baseline's, and guessed as well as any policy's drafts for the same question",
];

/// Bytes of a profile at most.
const MAX_PROFILE: u64 = 4 << 20;
/// Instances of plug-ins: they are called one after the other.
const INSTANCES: u32 = 4;

/// Plays all timed cells of a folder of which every repeat that there is can be played. `base`: what the specification's files
/// are seen from.
///
/// # Errors
/// A component, a profile or a trace is not there or cannot be used.
pub fn play(results: &Results, base: &Path, with: &PlayArgs) -> Result<Plays> {
    let spec = &results.manifest.spec;
    let profile = profile(with)?;
    let (draft, target) = with.engines();
    let sandbox = Sandbox::new(&SandboxConfig {
        instances: INSTANCES,
        // A busy machine must not be taken for a slow policy.
        deterministic: true,
        ..SandboxConfig::default()
    })?;
    let known = Known::of(results);
    // Folders that do not tell it are older, and had nodes on a core each.
    let cores = with.cores.or(results.manifest.facts.node_cores);
    let cores = Some(cores.unwrap_or(1)).filter(|cores| *cores > 0);
    let mut played = Vec::new();
    for data in &spec.data {
        for link in &spec.links {
            for arrival in &spec.arrivals {
                for policy in &spec.policies {
                    let cell = Cell {
                        purpose: Purpose::Timed,
                        data: data.name.clone(),
                        link: link.name.clone(),
                        arrival: arrival.name().to_owned(),
                        policy: policy.name.clone(),
                    };
                    let mut questions = known.learned_from(spec, &cell);
                    let lead = questions.len();
                    let from_ms = questions.last().map_or(0.0, |it| it.arrives_ms + APART_MS);
                    let asked = known.asked(spec, &cell, from_ms);
                    if asked.questions.is_empty() {
                        continue;
                    }
                    questions.extend(asked.questions);
                    let traffic = Traffic {
                        questions,
                        arrivals: arrivals(arrival),
                    };
                    let mut world = World::pair(profile.clone(), draft, target, shape(link, base)?);
                    for edge in &mut world.edges {
                        edge.cores = cores;
                    }
                    for cloud in &mut world.clouds {
                        cloud.draft = Some(draft.to_owned());
                        cloud.cores = cores;
                        // Of cores both models have their shares anyway.
                        cloud.one_device = cores.is_none();
                    }
                    world.rules.bring = true;
                    let mut decides = components(&sandbox, &with.plugins, policy)?;
                    let told = || {
                        format!(
                            "{}, {}, {}, {}",
                            cell.data, cell.link, cell.arrival, cell.policy
                        )
                    };
                    let came_to = one(
                        spec,
                        &world,
                        (&traffic, lead, asked.late_ms.as_slice()),
                        &mut decides,
                        &cell,
                    );
                    played.push(came_to.with_context(told)?);
                }
            }
        }
    }
    let mut assumed: Vec<String> = ASSUMED.map(str::to_owned).into();
    assumed.push(match cores {
        Some(cores) => format!(
            "each node has cores: {cores}; of these its models have their share and all else has, and what a profile says of a node's work is that node's, clients' own included"
        ),
        None => "a node's work beside its models takes nothing from them".to_owned(),
    });
    Ok(Plays {
        cells: played,
        assumed,
    })
}

/// `lead`: of the questions so many come first and count nowhere. `late_ms`: by question behind them, what its client had waited before
/// it asked.
fn one(
    spec: &Spec,
    world: &World,
    (traffic, lead, late_ms): (&Traffic, usize, &[f64]),
    decides: &mut Components,
    cell: &Cell,
) -> Result<Played> {
    let options = Options {
        seed: spec.seed,
        keep: true,
        ..Options::default()
    };
    let results = run(world, traffic, decides, options)?;
    let answered = results.ended.iter();
    let answered = answered.filter(|it| it.outcome.status <= Status::Degraded as u8);
    let times = answered.filter_map(|it| {
        let late_ms = late_ms.get((it.question as usize).checked_sub(lead)?);
        Some(it.outcome.total_ms.max(0.0) + late_ms.copied().unwrap_or(0.0))
    });
    let times: Vec<f64> = times.collect();
    Ok(Played {
        cell: cell.clone(),
        asked: traffic.questions.len() - lead,
        mean_ms: msao_evaluate::stats::mean(&times),
        answered: times.len(),
    })
}

fn profile(with: &PlayArgs) -> Result<Profile> {
    match &with.profile {
        Some(path) => read_profile(path),
        None => Ok(Profile::measured()?),
    }
}

fn read_profile(path: &Path) -> Result<Profile> {
    let told = || path.display().to_string();
    let size = std::fs::metadata(path).with_context(told)?.len();
    if size > MAX_PROFILE {
        bail!(
            "{} has {size} bytes; allowed: up to {MAX_PROFILE}",
            path.display()
        );
    }
    let text = std::fs::read_to_string(path).with_context(told)?;
    Profile::parse(&text).with_context(told)
}

/// The policy as the cell had it.
fn components(sandbox: &Sandbox, plugins: &Path, policy: &Policy) -> Result<Components> {
    let path = |name: &str| {
        let path = plugins.join(format!("{name}.wasm"));
        anyhow::ensure!(
            path.is_file(),
            "policy \"{}\": there is no {}; `cargo xtask plugins` makes it, or name another folder with --plugins",
            policy.name,
            path.display()
        );
        Ok(path)
    };
    let mut components = Components::load(sandbox, &path(&policy.policy)?)?;
    if let Some(name) = &policy.postprocessor {
        components = components.scored_by(sandbox, &path(name)?)?;
    }
    let manifest = components.manifest();
    let mut params = manifest.defaults();
    for (name, value) in &policy.parameters {
        let declared = manifest.parameter(name);
        let declared = declared.and_then(|at| Some((at, manifest.parameters.get(at)?)));
        let (at, declared) = declared.with_context(|| {
            format!(
                "policy \"{}\": {} declares no parameter {name}",
                policy.name, policy.policy
            )
        })?;
        let number = declared.number(&value_of(value)).map_err(|problem| {
            anyhow::anyhow!("policy \"{}\": parameters.{name}: {problem}", policy.name)
        })?;
        if let Some(param) = params.get_mut(at) {
            *param = number;
        }
    }
    components.set_params(params)?;
    Ok(components)
}

fn value_of(parameter: &Parameter) -> Value {
    match parameter {
        Parameter::Bool(value) => Value::Bool(*value),
        Parameter::Int(value) => Value::Int(*value),
        Parameter::Number(value) => Value::Float(*value),
        Parameter::Text(value) => Value::Text(value.clone()),
    }
}

fn arrivals(arrival: &Arrival) -> Arrivals {
    match arrival {
        Arrival::Closed { concurrency, .. } => Arrivals::InTurn {
            clients: *concurrency,
            think_ms: 0.0,
        },
        Arrival::Poisson { .. } | Arrival::Bursty { .. } | Arrival::Trace { .. } => {
            Arrivals::ByClock
        }
    }
}

/// A link as the simulator has it.
fn shape(link: &Link, base: &Path) -> Result<LinkConfig> {
    let way = |mbit: Option<f64>, trace: &Option<LinkTrace>| -> Result<DirectionConfig> {
        let bandwidth = mbit.map(|mbit| Bandwidth::from_bps((mbit * 1e6).round() as u64));
        Ok(DirectionConfig {
            bandwidth: bandwidth.transpose()?,
            trace: trace.as_ref().map(|trace| TraceConfig {
                file: base.join(&trace.file),
                format: match trace.format {
                    LinkFormat::Mahimahi => TraceFormat::Mahimahi,
                    LinkFormat::Hsdpa => TraceFormat::Hsdpa,
                },
            }),
            delay_ms: link.rtt_ms / 2.0,
            jitter_ms: link.jitter_ms,
        })
    };
    Ok(LinkConfig {
        up: way(link.up_mbit, &link.up_trace)?,
        down: way(link.down_mbit, &link.down_trace)?,
        ..LinkConfig::default()
    })
}
