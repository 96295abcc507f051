//! `msao`: adaptive speculative offloading, after MSAO (arXiv 2604.02945), whose equations are not published: the
//! formulas are this project's.
//!
//! **`plan`** predicts time to the first token and to the last for every node and route that can run the request
//! ([`model`], [`stream`]), from the figures that the host hands over *now*, and takes the least of
//!
//! ```text
//! score = first-weight * first + total + cost-weight * price + target-charge * time there + doubt * amiss * tokens    (doubt: route edge only)
//! ```
//!
//! among those that keep the deadline and find room ([`arms`], [`choice`]). So a link or a queue that changes is
//! answered by the very next plan. What was learned corrects the predictions by what they were off before, by no more
//! than `correction-limit`, and never takes the figures' place ([`off`]; [`cells`] lists all that is learned). Now and
//! then, where predictions lie close, a route that was not taken for long is tried.
//!
//! **The draft model's own answer** is a cascade: what it is not sure of is the target's, and all behind it ([`step`]). So `amiss`
//! is how often the target chooses otherwise where the draft model *is* sure, and that only a target can tell: now and then a
//! request that the draft model would answer has its drafts verified instead ([`choice`]), often at first, ever fewer later.
//!
//! **Speculation** is declined where a token of the stream, `draft + (1 - a) * L`, is not at least `margin` quicker
//! than one of the peer's target, alone or with a draft model beside it.
//!
//! **Retention** ([`retention`]): for the draft model hard, since it costs no more than acceptance; for the target gently,
//! where it saves a share of the time, mildest means first. Leaving tokens out costs nothing that has not been paid, and
//! spares the target's memory too: a share `prune-worth` is enough, where making media anew takes `worth`. What is unlike
//! anything that calibration has seen keeps more.
//!
//! **The probe** is asked for only where it can change the plan ([`probe`]).
//!
//! **`step`** ([`step`]) drafts on as long as the next token is likely enough to stand, sends, waits, commits what is
//! sure enough in confident mode, leaves an answer to the target whose drafts do not stand, and finishes without a peer
//! that is lost.
//!
//! **For comparison** two of its parts can be switched off. Without `speculation` no target is asked to verify drafts, be
//! they from here or from a draft model beside it; without `calibration` nothing that was learned is used. It is learned
//! all the same.
//!
//! **`observe`** ([`learn`]) compares what became of it with what was predicted.
//!
//! A plan is a few thousand instructions: nothing but `+ - * /` and comparisons, each node looked at once, cells walked
//! and not searched one by one.

#![cfg_attr(target_arch = "wasm32", no_std)]

extern crate alloc;

mod arms;
mod cells;
mod choice;
mod learn;
mod model;
mod off;
mod planning;
mod probe;
mod retention;
mod shape;
mod step;
mod stream;
mod words;

use msao_plugin::prelude::*;

/// The manifest's reasons, by number.
mod reason {
    pub const QUICKEST: u32 = 0;
    pub const SPECULATES: u32 = 1;
    pub const DECLINES: u32 = 2;
    pub const NO_TARGET: u32 = 3;
    pub const MEDIA_STAY: u32 = 4;
    pub const ONLY_ONE: u32 = 5;
    pub const LATE: u32 = 6;
    pub const TRIES: u32 = 7;
    pub const NONE: u32 = 8;
    pub const CHECKS: u32 = 9;
}

parameters! {
    /// In the manifest's order.
    pub(crate) struct Settings {
        cost_weight: f64,
        target_charge: f64,
        first_weight: f64,
        doubt: f64,
        bandwidth_caution: f64,
        margin: f64,
        give_back: f64,
        draft_charge: f64,
        rounds_per_pass: f64,
        patience: f64,
        give_up: f64,
        confident_min: f64,
        escalate_below: f64,
        escalate_window: u32,
        escalate_late: f64,
        bring_from: f64,
        checks_first: f64,
        checks_least: f64,
        draft_keep_min: f64,
        target_keep_min: f64,
        target_keep_max: f64,
        draft_drop: f64,
        target_drop: f64,
        target_quality: u32,
        target_scale_min: f64,
        worth: f64,
        prune_worth: f64,
        probe_tokens: u32,
        correction_weight: f64,
        correction_limit: f64,
        explore: f64,
        explore_band: f64,
        explore_after: u32,
        length_weight: f64,
        length_prior: f64,
        acceptance_prior: f64,
        speculation: bool,
        calibration: bool,
    }
}

impl Settings {
    /// What a request is planned from: without calibration nothing was ever learned. `nothing` is what is known then.
    pub(crate) fn input<'a>(
        &self,
        input: &PlanInput<'a>,
        nothing: &'a Calibration,
    ) -> PlanInput<'a> {
        PlanInput {
            calibration: if self.calibration {
                input.calibration
            } else {
                nothing
            },
            ..*input
        }
    }
}

/// Bits of [`Note::flags`].
mod noted {
    /// Only an exact answer will do.
    pub const EXACT: u8 = 1;
    /// The target's node gets media that were made anew.
    pub const ANEW: u8 = 2;
    /// The probe has run.
    pub const PROBED: u8 = 4;
}

memo! {
    /// What `step` and `observe` go by. A plan that nothing can run has none.
    pub(crate) struct Note {
        /// Of the plan, by number.
        route: u8,
        row: u32,
        /// The request's [`shape::Shape`], by number, and its text.
        shape: u8,
        text: u8,
        flags: u8,
        /// Requests that had been learned from.
        requests: f64,
        /// As predicted from the nodes' figures alone: to the first token, what comes once behind it, each further
        /// token.
        first_ms: f32,
        tail_ms: f32,
        token_ms: f32,
        /// Bytes of media to be sent, by the formula alone; 0 for none.
        bytes: f32,
        /// Share of the media's tokens that the formula keeps for the target.
        kept: f32,
        /// What the probe was thought to take.
        probe_ms: f32,
        /// Of the stream: a draft, a verdict but for round trip and queue, these two as they are, one more draft in a
        /// pass.
        draft_ms: f32,
        verdict_ms: f32,
        rtt_ms: f32,
        queue_ms: f32,
        more_ms: f32,
        acceptance: f32,
        /// A token of the target alone, beside which the stream's are held.
        plain_ms: f32,
        draft_charge: f32,
        give_back: f32,
        /// Acceptance probability from which on a draft is committed unverified; above 1: none is.
        commit_from: f32,
        /// Acceptance probability below which a token of an edge answer is left to the target, up to the window and behind
        /// it; 0: never.
        escalate_below: f32,
        escalate_late: f32,
        escalate_window: u32,
        /// What a draft must be as sure of to be an edge answer's, wherever it is.
        sure_from: f32,
        /// Drafts a round.
        chunk: u32,
        /// Wait for a verdict after which the peer is given up.
        give_up_ms: f32,
    }
}

/// The policy.
#[derive(Debug)]
pub struct Msao;

/// The lesser of two; the second where one is not a number.
pub(crate) fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// The greater of two; the second where one is not a number.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// The square root of what is in `[0, 1]`, to within a millionth; 0 of what is not.
pub(crate) fn root(value: f64) -> f64 {
    if !(value > 1e-12 && value <= 1.0) {
        return 0.0;
    }
    // Heron's: each step doubles the digits that are right, once it is near.
    let mut root = 1.0;
    for _ in 0..24 {
        root = 0.5 * (root + value / root);
    }
    root
}

/// `value` between both; what is not a number is the lower one.
pub(crate) fn within(value: f64, low: f64, high: f64) -> f64 {
    if value > low {
        smaller(value, high)
    } else {
        low
    }
}

impl Policy for Msao {
    fn plan(input: &PlanInput) -> Decision {
        let settings = Settings::read(input.params);
        let nothing = Calibration::default();
        let input = &settings.input(input, &nothing);
        let weighed = arms::weigh(input, &settings);
        let Some(chosen) = choice::choose(&weighed, input, &settings) else {
            return Decision::Run(planning::nothing());
        };
        if probe::is_wanted(input, &settings, &weighed, chosen.arm) {
            return Decision::Probe;
        }
        Decision::Run(planning::plan(input, &settings, &weighed, &chosen))
    }

    fn step(input: &StepInput, memo: &[u8]) -> Action {
        match Note::decode(memo) {
            Some(note) => step::next(input, &note),
            // A fallback's plan, or one that nothing can run.
            None => Action::Finish,
        }
    }

    fn observe(outcome: &Outcome, params: &[f64], calibration: &Calibration) -> Vec<Update> {
        learn::updates(outcome, &Settings::read(params), calibration)
    }
}

impl Explain for Msao {
    fn explain(input: &PlanInput, plan: &Plan) -> String {
        words::explain(input, plan)
    }
}

export_policy!(Msao, explain);

#[cfg(test)]
mod tests;
