//! What an answer is worth.
//!
//! ```text
//! reward = 1 - (w_time * time + w_energy * energy + w_price * price) / (w_time + w_energy + w_price)
//! time   = min(1, total / (2 * goal))                    1/2 for an answer that comes just in time
//! energy = min(1, J / tokens / energy-scale),            J = operations and bytes, each by what one of it takes
//! price  = min(1, 10^6 * cost / tokens / price-scale)
//! ```
//!
//! Energy and price are those of a token, of prompt and answer: a long request is no worse than a short one.

use msao_plugin::{Outcome, Route};

use crate::{Note, Settings};

/// `value` of `much`, in `[0, 1]`. What is not a number is as bad as can be.
fn share(value: f64, much: f64) -> f64 {
    let share = value / much;
    if share.is_nan() {
        1.0
    } else {
        share.clamp(0.0, 1.0)
    }
}

/// Joules of operations and bytes.
fn energy_j(outcome: &Outcome, tokens: f64, settings: &Settings) -> f64 {
    let away = outcome.route != Route::Edge as u8;
    // Not every node counts what a peer computes.
    let cloud_flops = match outcome.cloud_flops {
        flops if flops > 0.0 => flops,
        _ if away && outcome.peer > 0 => tokens * settings.cloud_gflop_per_token * 1e9,
        _ => 0.0,
    };
    let bytes = outcome.sent_bytes + outcome.received_bytes;
    let computed =
        outcome.edge_flops * settings.edge_pj_per_flop + cloud_flops * settings.cloud_pj_per_flop;
    computed * 1e-12 + bytes * settings.link_nj_per_byte * 1e-9
}

/// The reward of an answer, in `[0, 1]`.
pub(crate) fn of(outcome: &Outcome, note: &Note, settings: &Settings) -> f64 {
    let tokens = (f64::from(note.prompt_tokens) + f64::from(outcome.tokens)).max(1.0);
    let time = match outcome.total_ms {
        // Nothing came.
        total_ms if total_ms < 0.0 => 1.0,
        total_ms => share(total_ms, 2.0 * note.goal_ms),
    };
    let energy = share(
        energy_j(outcome, tokens, settings) / tokens,
        settings.energy_scale,
    );
    let price = share(outcome.cost * 1e6 / tokens, settings.price_scale);
    let weights = [
        settings.time_weight,
        settings.energy_weight,
        settings.price_weight,
    ];
    let all: f64 = weights.iter().sum();
    if all > 0.0 {
        let spent = weights[0] * time + weights[1] * energy + weights[2] * price;
        1.0 - share(spent, all)
    } else {
        // Weights of nothing leave one thing that everybody wants.
        1.0 - time
    }
}
