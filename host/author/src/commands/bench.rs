//! `msao policy bench`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use msao_core::offload::{Item, Plan, Route, modality};
use msao_sandbox::{Meter, Plugin};
use serde::Serialize;

use super::Which;
use super::ask::Ready;
use super::run::situation_of;
use crate::cases::situation::{Situation, default_part, default_peer, default_report};
use crate::cases::{Call, Cell, calibration};
use crate::output::{Output, bytes, nanoseconds, table};
use crate::plugin::Project;

/// Calls before the clock counts.
const WARM: u32 = 200;
/// Calls that one figure is made of, at most.
const MOST: usize = 1_000_000;

/// Measure a plug-in: time, instructions and memory of each of its functions
///
/// Times are of whole calls, from the host's values to the host's values, one at a time on one thread, on this machine.
/// Instructions (fuel) and memory come from a second, deterministic run and are the same on every machine. Without --input the
/// calls are: plan with 4 parts, 3 nodes, 64 cells; step; observe; explain; score over 1,196 tokens of 8 features.
///
/// --budget fails (exit code 1) where a figure exceeds its limit: plan=3us means the median, plan.p99=10us the 99th of a
/// hundred, plan.fuel=20000 instructions, memory=2MiB an instance's peak.
///
///   msao policy bench
///   msao policy bench --budget plan=10us,step=1us,plan.fuel=50000,memory=2MiB
///   msao policy bench --input slow.toml
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct BenchArgs {
    #[command(flatten)]
    which: Which,
    /// Limits, NAME=LIMIT, with commas between them.
    #[arg(long, value_delimiter = ',', value_name = "NAME=LIMIT")]
    budget: Vec<String>,
    /// Measure the call of this input alone.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Seconds to measure each function for.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    seconds: f64,
}

/// Figures of one function.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Figures {
    call: Call,
    calls: usize,
    p50_ns: f64,
    p99_ns: f64,
    fuel: Option<u64>,
    memory_peak: u64,
}

/// A figure that is above its limit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Exceeded {
    name: String,
    limit: f64,
    measured: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Benched {
    plugin: String,
    figures: Vec<Figures>,
    memory_peak: u64,
    exceeded: Vec<Exceeded>,
}

/// What the figures are made of where no input is given.
fn standard(project: &Project) -> anyhow::Result<Situation> {
    let mut all = situation_of(None, &project.manifest)?;
    let probed = all.request.flags & msao_core::offload::flag::PROBED != 0;
    let media = [modality::IMAGE, modality::VIDEO, modality::AUDIO];
    let mut parts: Vec<_> = media.map(|kind| default_part(kind, probed)).to_vec();
    parts.append(&mut all.parts);
    all.request.prompt_tokens = parts.iter().map(|part| part.tokens).sum();
    all.parts = parts;
    all.nodes.push(default_peer());
    let cells: Vec<Cell> = (0..64)
        .map(|key| Cell {
            key,
            mean: 1.0,
            variance: 0.1,
            count: 10.0,
        })
        .collect();
    all.calibration = calibration(&cells)?;
    all.report = default_report(vec![Item {
        modality: modality::IMAGE,
        tokens: 1196,
        frames: 1,
        relevance: 1.0,
    }]);
    all.report.dim = 8;
    all.report.features = (0..1196 * 8).map(|i| (i % 17) as f32 * 0.1).collect();
    Ok(all)
}

/// The plan that `step`, `observe` and `explain` go on from where no input says: the policy's own, if it has one for the
/// standard request.
fn planned(plugin: &Plugin, it: &Situation) -> Plan {
    let own = match plugin {
        Plugin::Policy(policy) => policy.plan(it.plan_input()).ok(),
        Plugin::PostProcessor(_) => None,
    };
    match own {
        Some(msao_core::offload::Decision::Run(plan)) => plan,
        _ => Plan::plain(Route::Cloud, 1),
    }
}

fn measure(
    fast: &Plugin,
    metered: &Plugin,
    it: &Situation,
    seconds: f64,
) -> anyhow::Result<Figures> {
    let ready = Ready::new(fast, it)?;
    let failed = || format!("{} fails on this input", it.call.name());
    let call = |plugin: &Plugin, meter: Option<&mut Meter>| {
        let answer = ready.call(plugin, it, meter);
        answer.map(drop).with_context(failed)
    };
    let mut meter = Meter::default();
    call(metered, Some(&mut meter))?;
    for _ in 0..WARM {
        call(fast, None)?;
    }
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut times = Vec::with_capacity(65_536);
    while times.len() < MOST {
        let started = Instant::now();
        call(fast, None)?;
        let ended = Instant::now();
        times.push((ended - started).as_nanos() as f64);
        if ended >= until {
            break;
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = ((times.len() - 1) as f64 * share).round() as usize;
        times.get(place).copied().unwrap_or(f64::NAN)
    };
    Ok(Figures {
        call: it.call,
        calls: times.len(),
        p50_ns: at(0.5),
        p99_ns: at(0.99),
        fuel: meter.fuel,
        memory_peak: meter.memory_peak,
    })
}

/// A limit: a number with the unit of what it limits.
fn limit(text: &str) -> Option<f64> {
    let units = [
        ("ns", 1.0),
        ("us", 1e3),
        ("ms", 1e6),
        ("KiB", 1024.0),
        ("MiB", 1024.0 * 1024.0),
    ];
    let (number, factor) = (units.iter())
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}

fn exceeded(budget: &[String], figures: &[Figures], memory: u64) -> anyhow::Result<Vec<Exceeded>> {
    let mut known: BTreeMap<String, f64> = BTreeMap::new();
    known.insert("memory".to_owned(), memory as f64);
    for it in figures {
        let name = it.call.name();
        known.insert(name.to_owned(), it.p50_ns);
        known.insert(format!("{name}.p99"), it.p99_ns);
        if let Some(fuel) = it.fuel {
            known.insert(format!("{name}.fuel"), fuel as f64);
        }
    }
    let mut above = Vec::new();
    for entry in budget {
        let Some((name, value)) = entry.split_once('=') else {
            bail!("--budget {entry}: NAME=LIMIT is expected, for instance plan=3us");
        };
        let Some(limit) = limit(value) else {
            bail!("--budget {entry}: a number with ns, us, ms, KiB, MiB or no unit is expected");
        };
        let Some(&measured) = known.get(name) else {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            bail!(
                "--budget {entry}: nothing is called {name}; there are {}",
                names.join(", ")
            );
        };
        if measured > limit {
            above.push(Exceeded {
                name: name.to_owned(),
                limit,
                measured,
            });
        }
    }
    Ok(above)
}

fn text(it: &Benched) -> String {
    let rows: Vec<Vec<String>> = (it.figures.iter())
        .map(|it| {
            vec![
                it.call.name().to_owned(),
                nanoseconds(it.p50_ns),
                nanoseconds(it.p99_ns),
                it.fuel.map_or("-".to_owned(), |fuel| fuel.to_string()),
                bytes(it.memory_peak),
                it.calls.to_string(),
            ]
        })
        .collect();
    let head = ["call", "p50", "p99", "fuel", "memory", "calls"];
    let mut text = format!("{}\n{}", it.plugin, table(&head, &rows));
    for above in &it.exceeded {
        text.push_str(&format!(
            "EXCEEDED {}: {:.0}, the budget is {:.0}\n",
            above.name, above.measured, above.limit
        ));
    }
    text
}

pub fn run(args: &BenchArgs, output: Output) -> anyhow::Result<bool> {
    if !(args.seconds > 0.0 && args.seconds <= 600.0) {
        bail!(
            "--seconds is {}; allowed: above 0, at most 600",
            args.seconds
        );
    }
    let project = Project::open(&args.which.path)?;
    let (fast, metered) = (project.load(false)?, project.load(true)?);
    let situations = match &args.input {
        Some(path) => vec![situation_of(Some(path), &project.manifest)?],
        None => {
            let mut all = standard(&project)?;
            all.plan = Some(planned(&fast, &all));
            let calls = match &fast {
                Plugin::PostProcessor(_) => vec![Call::Score],
                Plugin::Policy(policy) => {
                    let mut calls = vec![Call::Plan, Call::Step, Call::Observe];
                    calls.extend(policy.explains().then_some(Call::Explain));
                    calls
                }
            };
            (calls.into_iter())
                .map(|call| Situation {
                    call,
                    ..all.clone()
                })
                .collect()
        }
    };
    let figures = (situations.into_iter())
        .map(|it| measure(&fast, &metered, &it, args.seconds))
        .collect::<anyhow::Result<Vec<Figures>>>()?;
    let memory_peak = figures.iter().map(|it| it.memory_peak).max().unwrap_or(0);
    let benched = Benched {
        plugin: format!("{} {}", project.manifest.name, project.manifest.version),
        exceeded: exceeded(&args.budget, &figures, memory_peak)?,
        figures,
        memory_peak,
    };
    output.answer(&benched, text)?;
    Ok(benched.exceeded.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_units() {
        assert_eq!(limit("3us"), Some(3000.0));
        assert_eq!(limit("300ns"), Some(300.0));
        assert_eq!(limit("2MiB"), Some(2_097_152.0));
        assert_eq!(limit("20000"), Some(20_000.0));
        for wrong in ["", "fast", "-1us", "3 hours", "infms"] {
            assert_eq!(limit(wrong), None, "{wrong}");
        }
    }
}
