//! What a node says of itself.

use msao_core::offload::Node;
use serde::{Deserialize, Serialize};

use super::{UNKNOWN, amount};

/// A node's own figures, which it tells its peers with each heartbeat. Units and ranges are those of the fields of the same
/// name in [`Node`]; [`UNKNOWN`] for what it does not know. What is missing in a message is unknown, and what is new in it
/// is ignored, so that nodes of different age understand each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Figures {
    /// Wait before new work begins.
    pub queue_ms: f64,
    /// Work taken on, from anywhere, that has not begun.
    pub planned_ms: f64,
    /// Tokens for which the cache has room.
    pub kv_free: f64,
    /// Tokens that the larger model reads a second.
    pub prefill_tok_per_s: f64,
    /// Tokens a second of one answer, draft model.
    pub draft_tok_per_s: f64,
    /// Tokens a second of one answer, target model.
    pub target_tok_per_s: f64,
    /// A pass that verifies eight drafts.
    pub verify_ms: f64,
    /// Share of drafts accepted of late.
    pub acceptance: f64,
}

impl Default for Figures {
    fn default() -> Figures {
        Figures::UNKNOWN
    }
}

impl Figures {
    /// Nothing is known.
    pub const UNKNOWN: Figures = Figures {
        queue_ms: UNKNOWN,
        planned_ms: UNKNOWN,
        kv_free: UNKNOWN,
        prefill_tok_per_s: UNKNOWN,
        draft_tok_per_s: UNKNOWN,
        target_tok_per_s: UNKNOWN,
        verify_ms: UNKNOWN,
        acceptance: UNKNOWN,
    };

    /// The same, with [`UNKNOWN`] in place of what cannot be: a peer is not trusted to send only what its documentation
    /// allows.
    #[must_use]
    pub fn checked(self) -> Figures {
        let checked = |value: f64| if amount(value) { value } else { UNKNOWN };
        let acceptance = checked(self.acceptance);
        Figures {
            queue_ms: checked(self.queue_ms),
            planned_ms: checked(self.planned_ms),
            kv_free: checked(self.kv_free),
            prefill_tok_per_s: checked(self.prefill_tok_per_s),
            draft_tok_per_s: checked(self.draft_tok_per_s),
            target_tok_per_s: checked(self.target_tok_per_s),
            verify_ms: checked(self.verify_ms),
            acceptance: if acceptance <= 1.0 {
                acceptance
            } else {
                UNKNOWN
            },
        }
    }

    /// Writes them into a node, for policies to see. Other fields stay as they are.
    pub fn fill(self, node: &mut Node) {
        let checked = self.checked();
        node.queue_ms = checked.queue_ms;
        node.planned_ms = checked.planned_ms;
        node.kv_free = checked.kv_free;
        node.prefill_tok_per_s = checked.prefill_tok_per_s;
        node.draft_tok_per_s = checked.draft_tok_per_s;
        node.target_tok_per_s = checked.target_tok_per_s;
        node.verify_ms = checked.verify_ms;
        node.acceptance = checked.acceptance;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_say_what_cannot_be() {
        let said = Figures {
            queue_ms: f64::NAN,
            kv_free: -7.0,
            prefill_tok_per_s: f64::INFINITY,
            draft_tok_per_s: 100.0,
            acceptance: 1.5,
            ..Figures::UNKNOWN
        };
        let expected = Figures {
            draft_tok_per_s: 100.0,
            ..Figures::UNKNOWN
        };
        let mut node = Node::default();
        said.fill(&mut node);
        assert_eq!(said.checked(), expected);
        assert_eq!((node.queue_ms, node.draft_tok_per_s), (UNKNOWN, 100.0));
    }

    #[test]
    fn older_and_newer_peers_are_understood() {
        let read: Figures = toml::from_str("queue-ms = 3.0\nnot-yet-invented = 1").unwrap();
        let expected = Figures {
            queue_ms: 3.0,
            ..Figures::UNKNOWN
        };
        assert_eq!(read, expected);
    }
}
