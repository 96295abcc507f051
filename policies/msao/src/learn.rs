//! What is learned from how a request went.
//!
//! A prediction is held against what came as things were: the first token's time without the probe, which was over
//! before the plan; the rest's for as many tokens as came. Nothing is learned of times where the host ran it otherwise
//! than planned.

use alloc::vec::Vec;

use msao_plugin::{Calibration, Outcome, Route, Update, overrides, status};

use crate::cells::{self, MAX_ROWS, seen};
use crate::off::FAR_OFF;
use crate::shape::Shape;
use crate::{Note, Settings, larger, noted, within};

/// By how much a request that failed, or lost its peer, counts as late.
const FAILED: f64 = 3.0;
/// Tokens behind the first from which on their pace says something.
const PACE_TOKENS: f64 = 3.0;
/// Drafts of which the share that stood counts whole.
const MANY_DRAFTS: f64 = 32.0;
/// Bytes of media below which what was sent says nothing of how they were made anew.
const SOME_BYTES: f64 = 4096.0;
/// How much one edge answer counts at least in how many are left to a target.
const SLOWLY: f64 = 0.05;
/// How much a request counts at least in how often drafts do not stand that were sure.
const LEAST_OF_MANY: f64 = 1.0 / 512.0;
/// An outcome that weighs nothing is none.
const LEAST_WEIGHT: f64 = 1e-6;

/// Collects updates; a value that is no number is left out.
struct Learned(Vec<Update>);

impl Learned {
    fn sample(&mut self, key: u32, value: f64, weight: f64) {
        if value.is_finite() {
            let weight = within(weight, LEAST_WEIGHT, 1.0);
            self.0.push(Update::sample(key, value, weight));
        }
    }

    /// By what factor a prediction was off.
    fn off(&mut self, key: u32, found: f64, predicted: f64, weight: f64) {
        if found >= 0.0 && predicted > 0.0 {
            let off = within(found / predicted, 1.0 / FAR_OFF, FAR_OFF);
            self.sample(key, off, weight);
        }
    }
}

fn route_of(number: u8) -> Option<Route> {
    let routes = [
        Route::Edge,
        Route::Cloud,
        Route::CloudDraft,
        Route::Speculate,
    ];
    routes.get(usize::from(number)).copied()
}

pub(crate) fn updates(
    outcome: &Outcome,
    settings: &Settings,
    calibration: &Calibration,
) -> Vec<Update> {
    let mut learned = Learned(Vec::with_capacity(12));
    let Some((note, shape, route)) = Note::decode(&outcome.memo).and_then(|note| {
        let shape = Shape::with_number(u32::from(note.shape), u32::from(note.text))?;
        Some((note, shape, route_of(note.route)?))
    }) else {
        return learned.0;
    };
    if note.row >= MAX_ROWS {
        return learned.0;
    }
    let weight = settings.correction_weight;
    learned.0.push(Update::add(cells::REQUESTS, 1.0));
    let otherwise = overrides::ROUTE | overrides::PEER | overrides::FALLBACK;
    let as_planned = outcome.overrides & otherwise == 0
        && outcome.route == note.route
        && outcome.peer == note.row;
    match outcome.status {
        status::ANSWERED => {
            length(&mut learned, outcome, settings, shape);
            if as_planned {
                times(&mut learned, outcome, &note, route, weight);
            }
            acceptance(&mut learned, outcome, &note, shape, weight);
            gate(&mut learned, outcome, &note, shape, calibration);
            media(&mut learned, outcome, &note, shape, weight);
        }
        status::DEGRADED => {
            length(&mut learned, outcome, settings, shape);
            failed(&mut learned, &note, route, weight);
        }
        // The client's own affair.
        status::CANCELLED => {}
        _ => failed(&mut learned, &note, route, weight),
    }
    learned.0
}

/// The weight by which all samples of a cell count alike: else the first one alone would say how it is for a long time.
fn alike_at_first(calibration: &Calibration, key: u32) -> f64 {
    let count = seen(calibration.get(key)).map_or(0.0, |(_, count)| count);
    1.0 / (count + 1.0)
}

/// How long answers to such requests are.
fn length(learned: &mut Learned, outcome: &Outcome, settings: &Settings, shape: Shape) {
    let tokens = f64::from(outcome.tokens);
    for key in [
        cells::length(shape),
        cells::length_by_bucket(shape),
        cells::length_by_text(shape),
    ] {
        learned.sample(key, tokens, settings.length_weight);
    }
}

/// How far off the times were.
fn times(learned: &mut Learned, outcome: &Outcome, note: &Note, route: Route, weight: f64) {
    let first_ms = outcome.ttft_ms;
    if first_ms < 0.0 || !first_ms.is_finite() {
        return;
    }
    let row = note.row;
    let probe_ms = within(outcome.probe_ms, 0.0, first_ms);
    let predicted_ms = f64::from(note.first_ms);
    let key = match note.flags & noted::PROBED != 0 && route == Route::Edge {
        true => cells::BEHIND_PROBE,
        false => cells::first(row, route),
    };
    learned.off(key, first_ms - probe_ms, predicted_ms, weight);
    let behind = f64::from(outcome.tokens) - 1.0;
    if behind >= PACE_TOKENS {
        let rest_ms = outcome.total_ms - first_ms;
        let predicted_ms = f64::from(note.tail_ms) + behind * f64::from(note.token_ms);
        learned.off(cells::rest(row, route), rest_ms, predicted_ms, weight);
    }
    learned.sample(cells::last(row, route), note.requests, 1.0);
}

/// The peer was lost, had no room, or failed.
fn failed(learned: &mut Learned, note: &Note, route: Route, weight: f64) {
    if route != Route::Edge {
        learned.sample(cells::first(note.row, route), FAILED, weight);
        learned.sample(cells::last(note.row, route), note.requests, 1.0);
    }
}

/// How often drafts stood, where a target judged them.
fn acceptance(learned: &mut Learned, outcome: &Outcome, note: &Note, shape: Shape, weight: f64) {
    let sum = |counts: &[u32]| counts.iter().map(|count| f64::from(*count)).sum::<f64>();
    let (drafted, accepted) = (sum(&outcome.drafted), sum(&outcome.accepted));
    if drafted > 0.0 && outcome.peer == note.row {
        let share = within(accepted / drafted, 0.0, 1.0);
        let weight = weight * within(drafted / MANY_DRAFTS, 0.0, 1.0);
        learned.sample(cells::acceptance(note.row, shape), share, weight);
    }
}

/// Of edge answers, whether a target took over. Of drafts that were judged elsewhere, how many did not stand that would have been
/// sure enough: those of the host's bins that are, and of the one that the threshold lies in. And whether an edge answer would have
/// been left to a target, for where none is given nothing else tells.
fn gate(
    learned: &mut Learned,
    outcome: &Outcome,
    note: &Note,
    shape: Shape,
    calibration: &Calibration,
) {
    let mut was_left = |yes: bool| {
        for key in [cells::left(shape), cells::left_by_text(shape)] {
            let weight = larger(alike_at_first(calibration, key), SLOWLY);
            learned.sample(key, f64::from(u8::from(yes)), weight);
        }
    };
    if note.route == Route::Edge as u8 {
        let otherwise = overrides::ROUTE | overrides::PEER | overrides::FALLBACK;
        let below = f64::from(note.escalate_below);
        if below > 0.0 && outcome.overrides & otherwise == 0 {
            was_left(outcome.route != note.route);
        }
        return;
    }
    let bins = outcome.drafted.len().min(outcome.accepted.len());
    let bin_of = |threshold: f32| (f64::from(threshold) * bins as f64) as usize;
    let from = bin_of(note.sure_from);
    let judged = outcome.drafted.iter().copied().fold(0, u32::saturating_add);
    if judged > 0 && note.sure_from > 0.0 {
        // Which of them were the first few nobody tells: of a longer answer they are taken to be as sure as they must be. Not all of
        // an answer need have been judged.
        let late = outcome.tokens.max(judged) > note.escalate_window;
        let least = if late {
            bin_of(note.escalate_late)
        } else {
            from
        };
        was_left(outcome.drafted.iter().take(least).any(|drafts| *drafts > 0));
    }
    let (mut drafted, mut amiss) = (0.0, 0.0);
    for (all, stood) in outcome.drafted.iter().zip(&outcome.accepted).skip(from) {
        drafted += f64::from(*all);
        amiss += f64::from(all.saturating_sub(*stood));
    }
    if drafted > 0.0 {
        // Rare as it is, it takes many to tell: all drafts count alike at first. One that is amiss of an answer of two would weigh
        // like fifteen of an answer of thirty if all requests did.
        for (key, length) in [
            (cells::amiss(shape), cells::length(shape)),
            (cells::amiss_by_text(shape), cells::length_by_text(shape)),
        ] {
            let usual = seen(calibration.get(length)).map_or(drafted, |(mean, _)| mean);
            let weight = drafted / larger(usual, 1.0) * alike_at_first(calibration, key);
            learned.sample(key, amiss / drafted, within(weight, LEAST_OF_MANY, 1.0));
        }
    }
}

/// What the probe took, what the formula keeps, and what was sent of media that were made anew.
fn media(learned: &mut Learned, outcome: &Outcome, note: &Note, shape: Shape, weight: f64) {
    let probed = note.flags & noted::PROBED != 0;
    if probed && shape.mix != 0 {
        if outcome.probe_ms > 0.0 {
            let predicted_ms = f64::from(note.probe_ms);
            learned.off(cells::PROBE, outcome.probe_ms, predicted_ms, weight);
        }
        let kept = within(f64::from(note.kept), 0.0, 1.0);
        learned.sample(cells::kept(shape), kept, weight);
    }
    let anew = note.flags & noted::ANEW != 0 && outcome.overrides & overrides::RETENTION == 0;
    let planned = f64::from(note.bytes);
    if anew && planned >= SOME_BYTES && outcome.sent_bytes > 0.0 {
        learned.off(cells::bytes(shape), outcome.sent_bytes, planned, weight);
    }
}
