//! A node: its engines, what it knows of itself and of its peers, and who has a session on it.

use msao_core::offload::{self, capability};
use msao_link::estimate::{EstimateConfig, Figures, Speeds, UNKNOWN};
use msao_session::depth::PassTimes;

use crate::engine::Engine;
use crate::link::Told;
use crate::slab::Key;

/// A peer, and the link to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub node: usize,
    pub link: usize,
}

/// See the module. Engines go by number.
pub(crate) struct Node {
    pub draft: Option<usize>,
    pub target: Option<usize>,
    /// Of the draft model, and of the target.
    pub draft_speeds: Speeds,
    pub target_speeds: Speeds,
    /// How long the target's passes take for a session.
    pub times: PassTimes,
    /// Sessions that the target works for.
    pub busy: u32,
    pub sessions: Vec<Key>,
    pub most_sessions: usize,
    pub price_per_mtok: f64,
    pub told: Told,
    pub peers: Vec<Peer>,
}

impl Node {
    pub fn new(draft: Option<usize>, target: Option<usize>, config: &EstimateConfig) -> Node {
        Node {
            draft,
            target,
            draft_speeds: Speeds::new(config),
            target_speeds: Speeds::new(config),
            times: PassTimes::default(),
            busy: 0,
            sessions: Vec::new(),
            most_sessions: usize::MAX,
            price_per_mtok: 0.0,
            told: Told::default(),
            peers: Vec::new(),
        }
    }

    /// How fast it is and how long new work waits, by all its models.
    pub fn figures(&self, now_ms: f64, engines: &[Engine]) -> Figures {
        let of = |engine: Option<usize>, speeds: &Speeds| {
            let engine = engines.get(engine?)?;
            let figures = speeds.figures(now_ms, engine.oldest_ms(now_ms), engine.kv_free());
            let planned_ms = planned_ms(engine.waiting_tokens(), figures.prefill_tok_per_s);
            Some(Figures {
                planned_ms,
                ..figures
            })
        };
        let own = of(self.draft, &self.draft_speeds);
        let target = of(self.target, &self.target_speeds);
        match (own, target) {
            // A draft model that has answered nobody here may have drafted beside the target.
            (Some(own), Some(target)) if own.draft_tok_per_s > 0.0 => Figures {
                draft_tok_per_s: own.draft_tok_per_s,
                ..target
            },
            (_, Some(target)) => target,
            (own, None) => own.unwrap_or(Figures::UNKNOWN),
        }
    }

    /// Its row as it sees itself.
    pub fn own_row(&self, figures: Figures, confidence_floor: f64) -> offload::Node {
        let mut row = offload::Node {
            up: true,
            can: self.can(true),
            uplink_bps: UNKNOWN,
            uplink_sd_bps: UNKNOWN,
            downlink_bps: UNKNOWN,
            price_per_mtok: UNKNOWN,
            confidence_floor,
            ..offload::Node::default()
        };
        figures.fill(&mut row);
        row
    }

    /// Its row as a node sees it that has a draft model or has none, without what is measured.
    pub fn row_for(&self, drafts: bool, confidence_floor: f64, cached_bytes: f64) -> offload::Node {
        offload::Node {
            up: true,
            can: self.can(drafts),
            price_per_mtok: self.price_per_mtok,
            cached_bytes,
            confidence_floor,
            ..offload::Node::default()
        }
    }

    /// All models of a simulation have one tokenizer.
    fn can(&self, drafts: bool) -> u32 {
        let bits = [
            (drafts, capability::SAME_TOKENIZER),
            (self.draft.is_some(), capability::DRAFT),
            (self.target.is_some(), capability::TARGET),
            (self.target.is_some() && drafts, capability::VERIFY),
        ];
        let there = bits.into_iter().filter(|(there, _)| *there);
        there.fold(0, |can, (_, bit)| can | bit)
    }
}

/// How long it takes to read what waits, at so many tokens a second, as a node tells it (`Waits` of `host/node`): 0 where
/// nobody waits, unknown where somebody does and nothing is known of the speed.
fn planned_ms(tokens: u64, tok_per_s: f64) -> f64 {
    match tokens {
        0 => 0.0,
        tokens if tok_per_s > 0.0 => tokens as f64 / tok_per_s * 1000.0,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_as_planned() {
        assert_eq!(planned_ms(0, UNKNOWN), 0.0);
        assert_eq!(planned_ms(300, 2000.0), 150.0);
        assert_eq!(planned_ms(300, UNKNOWN), UNKNOWN);
    }
}
