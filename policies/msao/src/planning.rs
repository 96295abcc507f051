//! From what was chosen to the plan.

use alloc::vec;

use msao_plugin::{Mode, Node, Plan, PlanInput, Route, capability, flag};

use crate::arms::Weighed;
use crate::choice::Chosen;
use crate::model::{Link, MOST, Machine, amount};
use crate::retention::{makes_anew, part_plans};
use crate::stream::{more_ms, verdict_ms};
use crate::{Note, Settings, larger, noted, probe, reason, smaller, within};

/// Drafts a round at most. `step` sends rounds before they are as long, but for what piled up in between.
const GAMMA_MAX: u32 = 32;
/// Drafts a round that are aimed at, at most.
const MAX_CHUNK: f64 = 16.0;
/// Rounds under way at most, and at least.
const MAX_ROUNDS: f64 = 64.0;
const MIN_ROUNDS: f64 = 4.0;
/// Patience, in ms.
const LEAST_PATIENCE_MS: f64 = 100.0;
const MOST_PATIENCE_MS: f64 = 60_000.0;
/// The same for a target that has taken an edge answer over, about which the plan knows nothing.
const TAKEN_OVER_MS: f64 = 5_000.0;
/// A threshold that no probability reaches.
const NEVER: f64 = 2.0;

/// What a plan may tell: a number that is finite.
fn told(value: f64) -> f64 {
    if value.is_finite() { value } else { -1.0 }
}

/// Nothing can run it: left to the draft model here, should it come up.
pub(crate) fn nothing() -> Plan {
    Plan {
        reason: reason::NONE,
        ..Plan::plain(Route::Edge, 0)
    }
}

/// Acceptance probability from which on drafts may be committed unverified with this peer.
fn commit_from(input: &PlanInput, settings: &Settings, node: &Node, route: Route) -> f64 {
    let floor = node.confidence_floor;
    let may = route == Route::Speculate && !input.request.has(flag::EXACT);
    // A floor that is no number allows nothing.
    if may && (0.0..=1.0).contains(&floor) {
        larger(settings.confident_min, floor)
    } else {
        NEVER
    }
}

/// Acceptance probability below which an edge answer is left to a target, if one can take it over.
fn escalate_below(input: &PlanInput, settings: &Settings, route: Route) -> f64 {
    let heir = capability::TARGET | capability::SAME_TOKENIZER;
    if route == Route::Edge && probe::somebody_is(input, heir) {
        settings.escalate_below
    } else {
        0.0
    }
}

pub(crate) fn plan(
    input: &PlanInput,
    settings: &Settings,
    weighed: &Weighed,
    chosen: &Chosen,
) -> Plan {
    let arm = chosen.arm;
    let node = input.nodes.get(arm.row as usize).unwrap_or(&Node::UNKNOWN);
    let (machine, link) = (
        Machine::of(node),
        Link::of(arm.row, node, settings.bandwidth_caution),
    );
    let media = &weighed.media;
    let draft_ms = Machine::of(input.here()).draft_ms;
    let verdict = verdict_ms(&machine, &link);
    let wait_ms = link.rtt_ms + verdict + machine.queue_ms;
    // `step` is told the round trip as it is then, without jitter.
    let rtt_ms = smaller(amount(node.rtt_ms, link.rtt_ms), link.rtt_ms);
    let per_round = machine.pass_ms / (settings.rounds_per_pass * draft_ms);
    let chunk = within(per_round, 1.0, MAX_CHUNK) as u32;
    let rounds = wait_ms / (f64::from(chunk) * draft_ms) + MIN_ROUNDS;
    let patience_ms = match arm.route {
        Route::Edge => TAKEN_OVER_MS,
        _ => settings.patience * wait_ms + arm.first_ms,
    };
    let patience_ms = within(patience_ms, LEAST_PATIENCE_MS, MOST_PATIENCE_MS);
    let commit_from = commit_from(input, settings, node, arm.route);
    let confident = commit_from <= 1.0;
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let parts = part_plans(input, settings, media, arm);
    let bytes = match arm.row {
        0 => 0.0,
        _ => media.bytes_to_send(arm.level, amount(node.cached_bytes, 0.0)),
    };
    let anew = makes_anew(arm.level);
    let note = Note {
        route: arm.route as u8,
        row: arm.row,
        shape: weighed.shape.number() as u8,
        text: weighed.shape.text as u8,
        flags: bit(input.request.has(flag::EXACT), noted::EXACT)
            | bit(anew, noted::ANEW)
            | bit(media.scored, noted::PROBED),
        requests: weighed.requests,
        first_ms: arm.times.first_ms as f32,
        tail_ms: arm.times.tail_ms as f32,
        token_ms: arm.times.token_ms as f32,
        bytes: (if anew { bytes / media.bytes_off } else { bytes }) as f32,
        kept: media.kept as f32,
        probe_ms: probe::predicted_ms(input, media) as f32,
        draft_ms: draft_ms as f32,
        verdict_ms: (verdict + link.rtt_ms - rtt_ms) as f32,
        rtt_ms: rtt_ms as f32,
        queue_ms: machine.queue_ms as f32,
        more_ms: more_ms(&machine, &link) as f32,
        acceptance: arm.acceptance as f32,
        plain_ms: arm.plain_ms as f32,
        draft_charge: settings.draft_charge as f32,
        give_back: settings.give_back as f32,
        commit_from: commit_from as f32,
        escalate_below: escalate_below(input, settings, arm.route) as f32,
        escalate_late: settings.escalate_late as f32,
        sure_from: settings.escalate_below as f32,
        escalate_window: settings.escalate_window,
        chunk,
        give_up_ms: (settings.give_up * patience_ms) as f32,
    };
    let least = |route: Route| {
        let mut least = MOST;
        for other in weighed.arms.iter().filter(|other| other.route == route) {
            if other.score < least {
                least = other.score;
            }
        }
        if least < MOST { least } else { -1.0 }
    };
    Plan {
        mode: if confident {
            Mode::Confident
        } else {
            Mode::Exact
        },
        gamma_max: GAMMA_MAX,
        in_flight_max: within(rounds, MIN_ROUNDS, MAX_ROUNDS) as u32,
        patience_ms,
        parts,
        memo: note.encode(),
        reason: chosen.reason,
        terms: vec![
            told(arm.score),
            told(chosen.next),
            told(least(Route::Edge)),
            told(least(Route::Cloud)),
            told(least(Route::CloudDraft)),
            told(least(Route::Speculate)),
            told(arm.first_ms),
            told(arm.total_ms),
            told(arm.waits_ms),
            told(arm.upload_ms),
            told(arm.read_ms),
            told(arm.times.token_ms),
            told(weighed.tokens),
            told(arm.price_ms),
            told(arm.doubt_ms),
            told(arm.acceptance),
            told(if arm.row > 0 { wait_ms } else { -1.0 }),
            told(arm.first_off),
            told(arm.rest_off),
            arm.level as f64,
            told(media.kept),
            told(bytes),
            told(arm.charge_ms),
        ],
        ..Plan::plain(arm.route, arm.row.max(arm.brings_to))
    }
}
