//! `perllm`: scheduling after PerLLM (Yang and others, arXiv 2405.14636), to compare others with. Requests are services
//! with demands; a bandit learns for each class of demands which node and route serves it best, and holds to constraints.
//!
//! **From the paper**: requests differ in what they demand, and are scheduled onto edge and cloud servers so that energy
//! (of transmission, inference, idling) is least while each keeps its processing time, the links their bandwidth and the
//! servers their computing capacity; this is a multi-armed bandit, solved by an upper confidence bound with a term
//! `theta * P(t)` that charges for violated constraints (CS-UCB). The paper's text was not at hand: this is from memory and
//! from summaries, which name the objective, the constraints and that term. How the paper writes index, reward and
//! violation is unchecked, so this is a scheduler *after* PerLLM and not PerLLM.
//!
//! **This project's own**, where the paper is silent, or measures what a node here does not:
//!
//! - *Arms*: each row of nodes by route `edge`, `cloud` and `cloud-draft` ([`arms`]). The paper speculates nowhere, so
//!   route `speculate` is none. An arm that cannot run (node down, model not there, media that must stay, an exact
//!   answer from the draft) is left out rather than charged.
//! - *Classes*: four questions with yes or no ([`demand`]): long prompt, long answer, large upload, short deadline.
//! - *Index*, over the arms that can run, with `n` trials of the arm in this class and `t` of all of them:
//!
//!   ```text
//!   index = mean + exploration * sqrt(ln(1 + t) / n) - penalty * P
//!   ```
//!
//!   An untried arm has mean 1, the best there is, and `n = 1`: so it is tried soon, unless it oversteps constraints. Of
//!   equal indices the request's seed chooses.
//! - *Violation* `P`, the sum of four, each `min(1, used / allowed - 1)` or 0 where it is kept ([`arms`]): predicted time
//!   of the deadline (or `goal-ms`), upload time of `upload-share` of that (bandwidth), wait of `wait-share` of it and
//!   tokens of the room in the node's cache (computing).
//! - *Reward* in `[0, 1]` ([`reward`]): 1 less the weighted mean of time, energy and price, each as a share of what is
//!   much. No node measures energy, so it is reckoned from operations and bytes; idling is left out, since it does not
//!   depend on where a request runs. An answer that lost its peer, was refused or failed rewards with 0.
//! - *Statistics* are calibration cells, sampled by `observe`; their mean is the plain one at first and then fades by
//!   `weight`, for links and loads drift.
//!
//! As in the paper the reward knows no quality: a draft model that is quick and cheap gets all that does not demand
//! exact answers.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

mod arms;
mod choice;
mod demand;
mod reward;
mod words;

use msao_plugin::prelude::*;
use msao_plugin::status;

use crate::arms::ArmId;
use crate::choice::{Chosen, choose};
use crate::demand::Demand;

/// The manifest's reasons, by number.
mod reason {
    pub const BEST: u32 = 0;
    pub const UNTRIED: u32 = 1;
    pub const OVERSTEPS: u32 = 2;
    pub const ONLY_ONE: u32 = 3;
    pub const NONE: u32 = 4;
}

parameters! {
    /// In the manifest's order.
    pub(crate) struct Settings {
        exploration: f64,
        penalty: f64,
        goal_ms: f64,
        upload_share: f64,
        wait_share: f64,
        time_weight: f64,
        energy_weight: f64,
        price_weight: f64,
        edge_pj_per_flop: f64,
        cloud_pj_per_flop: f64,
        cloud_gflop_per_token: f64,
        link_nj_per_byte: f64,
        energy_scale: f64,
        price_scale: f64,
        weight: f64,
        long_prompt: u32,
        long_answer: u32,
        large_upload: f64,
        short_deadline: f64,
    }
}

memo! {
    /// What `observe` goes by: which arm was chosen for what. A plan without an arm has none.
    pub(crate) struct Note {
        class: u32,
        arm: u32,
        goal_ms: f64,
        /// As the nodes' figures have it, before what was learned.
        predicted_ms: f64,
        prompt_tokens: u32,
    }
}

/// Cells of rewards come first: a class has room for so many arms.
const CLASS_STRIDE: u32 = 256;
/// Behind them, an arm each, how far off predictions were.
const TIME_CELLS: u32 = 16 * CLASS_STRIDE;

/// The cell of an arm's reward for a class of demands.
pub(crate) fn reward_cell(class: u32, arm: ArmId) -> u32 {
    class * CLASS_STRIDE + arm.number()
}

/// The cell of how long an arm took, divided by what was predicted.
pub(crate) fn time_cell(arm: ArmId) -> u32 {
    TIME_CELLS + arm.number()
}

/// An outcome that weighs nothing is none.
const LEAST_WEIGHT: f64 = 1e-6;

/// A prediction is never taken to be further off than by this factor.
const FAR_OFF: f64 = 20.0;

/// The policy.
#[derive(Debug)]
pub struct PerLlm;

/// `value` between both; what is not a number is the lower one.
pub(crate) fn within(value: f64, low: f64, high: f64) -> f64 {
    match value > low {
        true if value < high => value,
        true => high,
        false => low,
    }
}

/// What a plan may tell: a number that is finite.
fn told(value: f64) -> f64 {
    if value.is_finite() { value } else { -1.0 }
}

fn plan(input: &PlanInput) -> Plan {
    let settings = Settings::read(input.params);
    let demand = Demand::of(input, &settings);
    let class = f64::from(demand.class);
    let Some(Chosen {
        arm, reason, arms, ..
    }) = choose(input, &demand, &settings)
    else {
        return Plan {
            reason: reason::NONE,
            terms: vec![-1.0, -1.0, -1.0, -1.0, -1.0, class, 0.0],
            ..Plan::plain(Route::Edge, 0)
        };
    };
    let note = Note {
        class: demand.class,
        arm: arm.id.number(),
        goal_ms: demand.goal_ms,
        predicted_ms: arm.forecast.predicted_ms,
        prompt_tokens: input.request.prompt_tokens,
    };
    Plan {
        memo: note.encode(),
        reason,
        terms: vec![
            told(arm.index),
            told(arm.mean),
            told(arm.bonus),
            told(arm.forecast.violation.sum()),
            told(arm.forecast.corrected_ms),
            class,
            arms as f64,
        ],
        ..Plan::plain(arm.id.route, arm.id.row)
    }
}

impl Policy for PerLlm {
    fn plan(input: &PlanInput) -> Decision {
        Decision::Run(plan(input))
    }

    /// Called only where the draft model answers alone.
    fn step(_input: &StepInput, _memo: &[u8]) -> Action {
        Action::Finish
    }

    fn observe(outcome: &Outcome, params: &[f64], calibration: &Calibration) -> Vec<Update> {
        let settings = Settings::read(params);
        let Some((note, arm)) = Note::decode(&outcome.memo)
            .and_then(|note| Some((note, ArmId::of(note.arm)?)))
            .filter(|(note, _)| note.class < demand::CLASSES)
        else {
            return Vec::new();
        };
        let as_chosen = arm.row == outcome.peer && arm.route as u8 == outcome.route;
        let reward = match outcome.status {
            // The client's own affair.
            status::CANCELLED => return Vec::new(),
            status::ANSWERED if !as_chosen => return Vec::new(),
            status::ANSWERED => reward::of(outcome, &note, &settings),
            // The peer was lost, had no room, or failed: the choice was bad, wherever the answer came from.
            _ => 0.0,
        };
        let learn = |key: u32, value: f64| {
            let seen = calibration.get(key).map_or(0.0, |cell| cell.count.max(0.0));
            let plain = 1.0 / (seen + 1.0);
            let weight = within(plain.max(settings.weight), LEAST_WEIGHT, 1.0);
            Update::sample(key, value, weight)
        };
        let mut updates = vec![learn(reward_cell(note.class, arm), reward)];
        let off = outcome.total_ms / note.predicted_ms;
        if outcome.status == status::ANSWERED && off.is_finite() && off > 0.0 {
            let off = within(off, 1.0 / FAR_OFF, FAR_OFF);
            updates.push(learn(time_cell(arm), off));
        }
        updates
    }
}

impl Explain for PerLlm {
    fn explain(input: &PlanInput, _plan: &Plan) -> String {
        words::explain(input)
    }
}

export_policy!(PerLlm, explain);

#[cfg(test)]
mod tests;
