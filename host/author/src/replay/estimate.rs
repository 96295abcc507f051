//! What a plan would cost in time, bytes and money: estimated, where nothing was run.
//!
//! All times in ms. With `n` the tokens of the answer, `a` the share of drafts that the target accepts, `gamma` the drafts a
//! round, `t_d` and `t_t` the time of a token of the draft and of the target model, `t_v` that of a verifying pass:
//!
//! ```text
//! kept    = sum over parts of tokens * min(keep, frames) * scale^2   (no more than the kept frames hold)
//! bytes   = sum over media of bytes * frames * scale^2 * (quality / 100, or 1 for the original)
//!           * (keep, where the rest is cropped or flattened) - bytes that the peer has, at least 0; + bytes of the text
//! upload  = 8000 * bytes / uplink_bps
//! E       = (1 - a^(gamma + 1)) / (1 - a)                              tokens of a synchronous round
//! L       = rtt + t_v + t_v / 2 + queue + 8000 * round / uplink_bps    a round's way there and back
//!
//! edge         ttft = queue + planned + 1000 * kept / prefill                       total = ttft + n * t_d
//! cloud        ttft = rtt + upload + queue + planned + 1000 * kept / prefill        total = ttft + n * t_t
//! cloud-draft  ttft as cloud                                       total = ttft + n / E * (gamma * t_d + t_v), t_d there
//! speculate    ttft = the later of edge's and cloud's, which overlap
//!              one round under way:      total = ttft + n / E * (gamma * t_d + L)
//!              more:                     total = ttft + n * (t_d + (1 - a) * L)
//! cost    = price * (tokens that the peer reads and writes) / 10^6
//! ```
//!
//! `E` and the last line are the system's own formulas for synchronous rounds and for drafting on while verdicts are in
//! flight: such a stream yields `1 / (1 - a)` tokens per `a / (1 - a) * t_d + t_d + L`. What the estimates leave out: variance
//! of the link, other requests, the probe, accuracy.

use msao_core::offload::{Node, Part, Plan, Rest, Route, Treatment, modality};
use serde::Serialize;

/// A plan's estimated cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Estimate {
    /// To the first token.
    pub ttft_ms: f64,
    /// To the last.
    pub total_ms: f64,
    /// Of that, uploading.
    pub upload_ms: f64,
    /// To the peer.
    pub sent_bytes: f64,
    /// In the operator's unit.
    pub cost: f64,
}

/// Bytes of a message that carries `ids` token ids: a header and four bytes each.
pub fn round_bytes(ids: f64) -> f64 {
    64.0 + 4.0 * ids
}

/// Time of one, at `per_second`.
fn each_ms(per_second: f64) -> Option<f64> {
    (per_second > 0.0).then(|| 1000.0 / per_second)
}

fn treatment(plan: &Plan, part: usize, draft: bool) -> Treatment {
    match plan.parts.get(part) {
        Some(planned) if draft => planned.draft,
        Some(planned) => planned.target,
        None => Treatment::WHOLE,
    }
}

fn kept_tokens(plan: &Plan, parts: &[Part], draft: bool) -> f64 {
    (parts.iter().enumerate())
        .map(|(i, part)| {
            let how = treatment(plan, i, draft);
            f64::from(part.tokens) * how.keep.min(how.frames) * how.scale * how.scale
        })
        .sum()
}

fn upload_bytes(plan: &Plan, parts: &[Part], peer: &Node) -> f64 {
    let mut media = 0.0;
    let mut text = 0.0;
    for (i, part) in parts.iter().enumerate() {
        if part.modality == modality::TEXT {
            text += part.bytes;
            continue;
        }
        let how = treatment(plan, i, false);
        let quality = match how.quality {
            0 => 1.0,
            quality => f64::from(quality) / 100.0,
        };
        let rest = match how.rest {
            Rest::Send if how.keep > 0.0 => 1.0,
            _ => how.keep,
        };
        media += part.bytes * how.frames * how.scale * how.scale * quality * rest;
    }
    (media - peer.cached_bytes.max(0.0)).max(0.0) + text
}

/// Tokens that a synchronous round of `gamma` drafts yields at acceptance `a`.
pub fn round_yield(a: f64, gamma: f64) -> f64 {
    if a >= 1.0 {
        return gamma + 1.0;
    }
    let mut power = a;
    for _ in 0..gamma as u32 {
        power *= a;
    }
    (1.0 - power) / (1.0 - a)
}

/// What `plan` would cost for an answer of `tokens` tokens. None: a speed or a bandwidth that it needs is not known, or
/// the peer is not there.
pub fn estimate(plan: &Plan, parts: &[Part], nodes: &[Node], tokens: u32) -> Option<Estimate> {
    let n = f64::from(tokens);
    let here = nodes.first()?;
    let begin = |node: &Node, kept: f64| {
        let prefill_ms = kept * each_ms(node.prefill_tok_per_s)?;
        Some(node.queue_ms.max(0.0) + node.planned_ms.max(0.0) + prefill_ms)
    };
    let edge_ttft = || begin(here, kept_tokens(plan, parts, true));
    if plan.route == Route::Edge {
        let ttft_ms = edge_ttft()?;
        let read = kept_tokens(plan, parts, true);
        return Some(Estimate {
            ttft_ms,
            total_ms: ttft_ms + n * each_ms(here.draft_tok_per_s)?,
            cost: here.price_per_mtok.max(0.0) * (read + n) / 1e6,
            ..Estimate::default()
        });
    }
    let peer = nodes.get(plan.peer as usize)?;
    let own = plan.peer == 0;
    let sent_bytes = if own {
        0.0
    } else {
        upload_bytes(plan, parts, peer)
    };
    let bit_ms = if own {
        0.0
    } else {
        8.0 * each_ms(peer.uplink_bps)?
    };
    let upload_ms = bit_ms * sent_bytes;
    let read = kept_tokens(plan, parts, false);
    let cloud_ttft = peer.rtt_ms.max(0.0) + upload_ms + begin(peer, read)?;
    let gamma = f64::from(plan.gamma_max);
    let a = peer.acceptance;
    let judged = || (a >= 0.0 && peer.verify_ms >= 0.0).then_some(());
    let (ttft_ms, more_ms, round) = match plan.route {
        Route::CloudDraft => {
            judged()?;
            let draft_ms = each_ms(peer.draft_tok_per_s)?;
            let round_ms = gamma * draft_ms + peer.verify_ms;
            (cloud_ttft, n / round_yield(a, gamma) * round_ms, 0.0)
        }
        Route::Speculate => {
            judged()?;
            let draft_ms = each_ms(here.draft_tok_per_s)?;
            let round = round_bytes(gamma);
            let waits = peer.verify_ms * 1.5 + peer.queue_ms.max(0.0);
            let link_ms = peer.rtt_ms.max(0.0) + waits + bit_ms * round;
            let rounds = n / round_yield(a, gamma);
            let more_ms = if plan.in_flight_max > 1 {
                n * (draft_ms + (1.0 - a) * link_ms)
            } else {
                rounds * (gamma * draft_ms + link_ms)
            };
            (edge_ttft()?.max(cloud_ttft), more_ms, rounds * round)
        }
        Route::Cloud | Route::Edge => (cloud_ttft, n * each_ms(peer.target_tok_per_s)?, 0.0),
    };
    Some(Estimate {
        ttft_ms,
        total_ms: ttft_ms + more_ms,
        upload_ms,
        sent_bytes: sent_bytes + round,
        cost: peer.price_per_mtok.max(0.0) * (read + n) / 1e6,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::situation::{default_here, default_part, default_peer};

    fn of(plan: &Plan, peer: Node) -> Option<Estimate> {
        let parts = [
            default_part(modality::IMAGE, true),
            default_part(modality::TEXT, true),
        ];
        estimate(plan, &parts, &[default_here(), peer], 40)
    }

    #[test]
    fn the_formulas_by_hand() {
        let edge = of(&Plan::plain(Route::Edge, 0), default_peer()).unwrap();
        // 432 tokens at 800 a second, then 40 at 25 ms.
        assert_eq!((edge.ttft_ms, edge.total_ms), (540.0, 1540.0));
        let cloud = of(&Plan::plain(Route::Cloud, 1), default_peer()).unwrap();
        // 120,128 bytes at 50 Mbit/s are 19.22 ms; rtt 20, queue 5, 432 tokens at 8,000 a second 54.
        assert!((cloud.ttft_ms - (20.0 + 19.220_48 + 5.0 + 54.0)).abs() < 1e-9);
        assert!((cloud.total_ms - cloud.ttft_ms - 1000.0).abs() < 1e-9);
        assert!((cloud.cost - 472e-6).abs() < 1e-12);
        assert_eq!(round_yield(0.0, 4.0), 1.0);
        assert_eq!(round_yield(1.0, 4.0), 5.0);
        assert!((round_yield(0.5, 2.0) - 1.75).abs() < 1e-12);
    }

    #[test]
    fn a_stream_beats_the_cloud_only_where_the_system_says_so() {
        // t_d + (1 - a) * L < t_t decides, whatever the rest.
        for (acceptance, rtt_ms) in [(0.9, 5.0), (0.9, 200.0), (0.3, 5.0), (0.99, 300.0)] {
            let peer = Node {
                acceptance,
                rtt_ms,
                queue_ms: 0.0,
                target_tok_per_s: 20.0,
                ..default_peer()
            };
            let link_ms = rtt_ms + 45.0 + 8000.0 * round_bytes(4.0) / peer.uplink_bps;
            let wins = 25.0 + (1.0 - acceptance) * link_ms < 50.0;
            let stream = Plan {
                in_flight_max: 4,
                ..Plan::plain(Route::Speculate, 1)
            };
            let after = |plan: &Plan| {
                let all = of(plan, peer.clone()).unwrap();
                all.total_ms - all.ttft_ms
            };
            assert_eq!(
                after(&stream) < after(&Plan::plain(Route::Cloud, 1)),
                wins,
                "{rtt_ms}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_not_estimated() {
        let unknown = Node {
            uplink_bps: -1.0,
            ..default_peer()
        };
        assert_eq!(of(&Plan::plain(Route::Cloud, 1), unknown), None);
        assert_eq!(of(&Plan::plain(Route::Cloud, 7), default_peer()), None);
    }

    #[test]
    fn what_is_dropped_is_not_sent() {
        let mut plan = Plan::plain(Route::Cloud, 1);
        let half = Treatment {
            keep: 0.5,
            rest: Rest::Crop,
            ..Treatment::WHOLE
        };
        let whole = msao_core::offload::PartPlan {
            draft: Treatment::WHOLE,
            target: Treatment::WHOLE,
        };
        plan.parts = vec![
            msao_core::offload::PartPlan {
                target: half,
                ..whole
            },
            whole,
        ];
        assert_eq!(of(&plan, default_peer()).unwrap().sent_bytes, 60_128.0);
        let known = Node {
            cached_bytes: 1e9,
            ..default_peer()
        };
        assert_eq!(of(&plan, known).unwrap().sent_bytes, 128.0);
    }
}
