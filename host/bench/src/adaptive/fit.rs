//! Calibrating `mas-joint`: from the attention that questions pay to an item to how often the item was needed.
//!
//! What is fitted sees a calibration set alone (`cargo xtask data` draws it), never the held-out one, and only mixes that the
//! models were trained on. Of each item it sees what a plug-in sees of it, and whether dropping it did harm: never the
//! words of the question, its kind, or what the generator says is needed.
//!
//! Three things come of it:
//! - for each modality a map that never falls from `ln relevance` to the share of items that were needed
//!   ([`super::isotonic`]), to look at;
//! - parameters of the plug-in: the `sharpness` by which its own map is likeliest, then the knots that make of its necessity
//!   the probability of harm ([`msao_adapt::necessity`]), where its manifest has them;
//! - the cells that it has learned from this traffic by itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use msao_adapt::necessity;
use msao_core::chat::Modality;
use msao_core::offload::{Calibration, Report};
use msao_state::Folding;

use super::isotonic::Map;
use super::judges::{Judge, Judges};
use super::lab::Lab;
use super::measure::{Depth, Measured, NONE, measure};
use super::pins::{knots, with_pins};
use super::progress::Progress;
use super::questions::World;
use super::setting::{Setting, questions};
use super::work::share;

/// Questions that are seen.
const QUESTIONS: usize = 600;
/// Seed of their choice; held-out ones have another.
const SEED: u64 = 0xca11;
/// Modalities that have a map.
const MODALITIES: [Modality; 3] = [Modality::Image, Modality::Video, Modality::Audio];
/// Knots of a map.
const KNOTS: usize = 6;
/// The parameter of the plug-in's own map.
const SHARPNESS: &str = "sharpness";
/// Steps of the search for it: each narrows it down by 0.618.
const STEPS: u32 = 20;
/// Logarithms of relevance are held within this, as plug-ins hold them.
const MAX_LOG: f64 = 10.0;
/// A share that is never taken for surer than this is: what a single surprise may cost.
const SUREST: f64 = 0.999;

/// What came of a fit.
#[derive(Clone, Debug)]
pub struct Fit {
    /// From `ln relevance` to the share of items that were needed.
    pub maps: BTreeMap<Modality, Map>,
    /// Parameters that are to be other than their defaults, by name.
    pub pins: BTreeMap<String, f64>,
    /// All parameters, in the manifest's order.
    pub params: Vec<f64>,
    /// What the plug-in has learned.
    pub calibration: Calibration,
    /// Mean logarithmic loss of necessity for "needed", by the defaults and as fitted, in nats an item.
    pub losses: (f64, f64),
    /// What it is of.
    pub of: Vec<(&'static str, String)>,
    /// Items of each modality, and how many were needed.
    pub seen: BTreeMap<Modality, (usize, usize)>,
}

/// An item, as the fit sees it.
struct Seen {
    modality: Modality,
    ln_relevance: f64,
    needed: bool,
}

/// A question, as the fit sees it.
struct Shown {
    report: Report,
    seed: u64,
    items: Vec<Seen>,
}

/// Fits the first of `judges` to the calibration set.
///
/// # Errors
/// Data, a model or the plug-in fails, or it is interrupted.
pub fn fit(setting: &Setting, judges: &Judges) -> Result<Fit> {
    let judge = judges.first()?;
    let shown = look(setting, judges)?;
    let items = || shown.iter().flat_map(|it| &it.items);
    let mut maps = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for modality in MODALITIES {
        let of: Vec<(f64, bool)> = items()
            .filter(|item| item.modality == modality)
            .map(|item| (item.ln_relevance, item.needed))
            .collect();
        seen.insert(modality, (of.len(), of.iter().filter(|it| it.1).count()));
        maps.insert(modality, Map::fit(&of, KNOTS));
    }
    let calibration = learned(judge, &shown)?;
    let defaults = judge.manifest().defaults();
    let mut pins = sharpness(judge, &calibration, &shown)?;
    pins.extend(shape(judge, &pins, &calibration, &shown)?);
    let params = with_pins(judge.manifest(), &pins)?;
    let loss = |params: &[f64]| loss(judge, params, &calibration, &shown);
    Ok(Fit {
        losses: (loss(&defaults)?, loss(&params)?),
        of: vec![
            ("data", setting.calibration.display().to_string()),
            ("questions", questions(&setting.calibration)?.to_string()),
            ("pair", setting.pair()?),
            (
                "post-processor",
                format!("{} {}", judge.name, judge.manifest().version),
            ),
            ("asked", shown.len().to_string()),
        ],
        maps,
        pins,
        params,
        calibration,
        seen,
    })
}

/// Asks the calibration questions.
fn look(setting: &Setting, judges: &Judges) -> Result<Vec<Shown>> {
    setting.check_apart()?;
    let all = crate::vqa::read(&setting.calibration)?;
    let asked = World::new(&all).seen(QUESTIONS, SEED);
    let processor = setting.processor()?;
    let mut shown: BTreeMap<usize, Shown> = BTreeMap::new();
    let mut progress = Progress::new("questions to calibrate with", asked.len(), 0);
    share(
        &asked,
        setting.workers,
        &setting.interrupt,
        || Lab::load(&setting.models, &processor),
        |lab, asked| {
            let (measured, report) = measure(lab, judges, asked, Depth::Harm)?;
            Ok(Shown {
                report,
                seed: asked.seed(),
                items: as_seen(&measured),
            })
        },
        |number, it| {
            shown.insert(number, it);
            progress.step();
            Ok(())
        },
    )?;
    progress.end();
    (setting.interrupt).check("nothing is kept of a calibration that was not finished")?;
    ensure!(
        !shown.is_empty(),
        "{} asks nothing about any medium",
        setting.calibration.display()
    );
    // In the order in which they were asked, whoever was quicker.
    Ok(shown.into_values().collect())
}

fn as_seen(measured: &Measured) -> Vec<Seen> {
    let items = measured.items.iter().map(|item| Seen {
        modality: item.modality,
        ln_relevance: item.relevance.ln().clamp(-MAX_LOG, MAX_LOG),
        needed: item.harm >= NONE,
    });
    items.collect()
}

/// What the plug-in learns from this traffic by itself, with the defaults of its parameters.
fn learned(judge: &Judge, shown: &[Shown]) -> Result<Calibration> {
    let params = judge.manifest().defaults();
    let mut cells = Folding::new(Calibration::default());
    for it in shown {
        let scores = judge.score_by(&params, cells.calibration(), &it.report, it.seed)?;
        cells.fold(&scores.updates);
    }
    Ok(cells.calibration().clone())
}

/// Mean logarithmic loss of necessity for "needed", in nats an item.
fn loss(judge: &Judge, params: &[f64], calibration: &Calibration, shown: &[Shown]) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for it in shown {
        let scores = judge.score_by(params, calibration, &it.report, it.seed)?;
        for (score, item) in scores.items.iter().zip(&it.items) {
            let right = if item.needed {
                score.necessity
            } else {
                1.0 - score.necessity
            };
            sum -= right.clamp(1.0 - SUREST, SUREST).ln();
            count += 1.0;
        }
    }
    Ok(sum / f64::max(count, 1.0))
}

/// The sharpness with the least loss, where the plug-in has it and lets it be tuned.
fn sharpness(
    judge: &Judge,
    calibration: &Calibration,
    shown: &[Shown],
) -> Result<BTreeMap<String, f64>> {
    let manifest = judge.manifest();
    let place = manifest.parameter(SHARPNESS);
    let parameter = place.and_then(|place| manifest.parameters.get(place));
    let tuned = parameter.filter(|parameter| parameter.tune);
    let (Some(place), Some(parameter)) = (place, tuned) else {
        return Ok(BTreeMap::new());
    };
    let (Some(min), Some(max)) = (parameter.min, parameter.max) else {
        return Ok(BTreeMap::new());
    };
    let mut params = manifest.defaults();
    let best = golden(min.max(1e-6).ln(), max.max(1e-6).ln(), |ln| {
        if let Some(value) = params.get_mut(place) {
            *value = ln.exp().clamp(min, max);
        }
        loss(judge, &params, calibration, shown)
    })?;
    // Three digits are more than the data tell.
    let rounded = (best.exp() * 1000.0).round() / 1000.0;
    Ok(BTreeMap::from([(
        SHARPNESS.to_owned(),
        rounded.clamp(min, max),
    )]))
}

/// The knots that make of necessity by `pins` the probability of harm, where the plug-in has places for them.
fn shape(
    judge: &Judge,
    pins: &BTreeMap<String, f64>,
    calibration: &Calibration,
    shown: &[Shown],
) -> Result<BTreeMap<String, f64>> {
    let Some(names) = knots(judge.manifest()) else {
        return Ok(BTreeMap::new());
    };
    let plain = with_pins(judge.manifest(), pins)?;
    let mut measured = Vec::new();
    for it in shown {
        let scores = judge.score_by(&plain, calibration, &it.report, it.seed)?;
        let items = scores.items.iter().zip(&it.items);
        measured.extend(items.map(|(score, item)| necessity::Measured {
            necessity: score.necessity,
            // Nothing but whether there was any counts.
            harm: f64::from(u8::from(item.needed)),
        }));
    }
    let fitted = necessity::fit(&measured, 0.5)?;
    let rounded = fitted.map(|knot| (knot * 1000.0).round() / 1000.0);
    Ok(names.into_iter().zip(rounded).collect())
}

/// Where a function that falls and then rises is lowest, by golden sections (J. Kiefer, 1953).
fn golden(mut low: f64, mut high: f64, mut of: impl FnMut(f64) -> Result<f64>) -> Result<f64> {
    let section = (f64::sqrt(5.0) - 1.0) / 2.0;
    let (mut one, mut two) = (high - section * (high - low), low + section * (high - low));
    let (mut at_one, mut at_two) = (of(one)?, of(two)?);
    for _ in 0..STEPS {
        if at_one <= at_two {
            (high, two, at_two) = (two, one, at_one);
            one = high - section * (high - low);
            at_one = of(one)?;
        } else {
            (low, one, at_one) = (one, two, at_two);
            two = low + section * (high - low);
            at_two = of(two)?;
        }
    }
    Ok((low + high) / 2.0)
}

impl Fit {
    /// As TOML: what was seen, the maps, and the parameters as a node's configuration pins them.
    pub fn toml(&self, judge: &str) -> String {
        let list = |values: &[f64]| {
            let each: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
            format!("[{}]", each.join(", "))
        };
        let mut out = String::from(
            "# Fitted by `msao-prove adaptive --fit`; docs/adaptive.md says how. [policy.pins] can go into a node's configuration.\n\n\
             [of]\n",
        );
        for (key, value) in &self.of {
            let _ = writeln!(out, "{key} = {value:?}");
        }
        let _ = writeln!(out, "harm-in-nats-per-token = {NONE:?}");
        let (before, after) = self.losses;
        let _ = writeln!(
            out,
            "loss-by-defaults = {before:?}\nloss-as-fitted = {after:?}"
        );
        for (modality, map) in &self.maps {
            let (items, needed) = self.seen.get(modality).copied().unwrap_or_default();
            let _ = writeln!(
                out,
                "\n[map.{}]\nitems = {items}\nneeded = {needed}\nln-relevance = {}\nnecessity = {}",
                modality.name(),
                list(&map.at),
                list(&map.height)
            );
        }
        let _ = writeln!(out, "\n[policy.pins.{judge}]");
        for (name, value) in &self.pins {
            let _ = writeln!(out, "{name} = {value:?}");
        }
        let cells = &self.calibration;
        let _ = writeln!(
            out,
            "\n[cells]\nkeys = {:?}\nmean = {}\nvariance = {}\ncount = {}",
            cells.keys,
            list(&cells.mean),
            list(&cells.variance),
            list(&cells.count)
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> Map {
        Map {
            at: vec![-1.0, 2.0],
            height: vec![0.25, 0.75],
        }
    }

    #[test]
    fn golden_sections_find_the_lowest_place() {
        let found = golden(-3.0, 5.0, |x| Ok((x - 1.25) * (x - 1.25))).unwrap();
        assert!((found - 1.25).abs() < 1e-3, "{found}");
        let at_the_end = golden(0.0, 1.0, Ok).unwrap();
        assert!(at_the_end < 1e-3, "{at_the_end}");
        assert!(golden(0.0, 1.0, |_| Err(anyhow::anyhow!("no"))).is_err());
    }

    #[test]
    fn what_is_written_says_what_was_seen() {
        let fit = Fit {
            maps: BTreeMap::from([(Modality::Image, map())]),
            pins: BTreeMap::from([("sharpness".to_owned(), 2.5)]),
            params: vec![2.5],
            calibration: Calibration {
                keys: vec![4],
                mean: vec![0.5],
                variance: vec![1e-9],
                count: vec![3.0],
            },
            losses: (0.7, 0.4),
            of: vec![("data", "a \"folder\"".to_owned())],
            seen: BTreeMap::from([(Modality::Image, (9, 4))]),
        };
        let text = fit.toml("mas-joint");
        for line in [
            "data = \"a \\\"folder\\\"\"",
            "[map.image]\nitems = 9\nneeded = 4\nln-relevance = [-1.0, 2.0]\nnecessity = [0.25, 0.75]",
            "[policy.pins.mas-joint]\nsharpness = 2.5\n",
            "keys = [4]\nmean = [0.5]\nvariance = [1e-9]\ncount = [3.0]",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
