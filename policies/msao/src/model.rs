//! Nodes and links as predictions count with them.
//!
//! ```text
//! uplink = max(uplink-bps - caution * uplink-sd-bps, uplink-bps / 5) * (1 - stalled)
//! upload = 8000 * bytes / uplink
//! ```
//!
//! Everything that comes out is finite and not negative, whatever came in.

use msao_plugin::Node;

use crate::{larger, smaller, within};

/// More than any honest time in ms, number of bytes or rate; sums and products of a few of these are finite.
pub(crate) const MOST: f64 = 1e12;

/// A node or a link that was never measured is taken for a middling one, so that it is neither shunned nor preferred.
const READ_MS: f64 = 0.2;
const DRAFT_MS: f64 = 10.0;
const TARGET_MS: f64 = 25.0;
const UPLINK_BPS: f64 = 20e6;
const RTT_MS: f64 = 20.0;

/// However much bandwidth varies, this share of it is counted on.
const SURE_SHARE: f64 = 0.2;
/// However much a link stood still of late, it moves in the rest of the time.
const MOST_STALLED: f64 = 0.95;

/// `value`, or `otherwise` where it is not known.
pub(crate) fn amount(value: f64, otherwise: f64) -> f64 {
    if value >= 0.0 {
        smaller(value, MOST)
    } else {
        otherwise
    }
}

/// Time of one, at so many a second.
fn each_ms(per_second: f64, otherwise: f64) -> f64 {
    if per_second > 0.0 {
        smaller(1000.0 / per_second, MOST)
    } else {
        otherwise
    }
}

/// A node's times, in ms.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) queue_ms: f64,
    /// Until new work begins: the queue, and what was planned onto it.
    pub(crate) waits_ms: f64,
    /// A token of the prompt.
    pub(crate) read_ms: f64,
    /// A token of the draft model.
    pub(crate) draft_ms: f64,
    /// A token of the target.
    pub(crate) target_ms: f64,
    /// A pass of the target over eight drafts.
    pub(crate) pass_ms: f64,
}

impl Machine {
    pub(crate) fn of(node: &Node) -> Machine {
        let queue_ms = amount(node.queue_ms, 0.0);
        // A target that is only known to verify makes a token in no more time than a pass over drafts.
        let unknown_ms = if node.verify_ms > 0.0 {
            smaller(node.verify_ms, MOST)
        } else {
            TARGET_MS
        };
        let target_ms = each_ms(node.target_tok_per_s, unknown_ms);
        Machine {
            queue_ms,
            waits_ms: queue_ms + amount(node.planned_ms, 0.0),
            read_ms: each_ms(node.prefill_tok_per_s, READ_MS),
            draft_ms: each_ms(node.draft_tok_per_s, DRAFT_MS),
            target_ms,
            pass_ms: amount(node.verify_ms, target_ms),
        }
    }

    /// What a draft model beside the target takes to read a prompt, as a share of the target's own time for it: as their
    /// tokens are to each other, and no more than that.
    pub(crate) fn beside_share(&self) -> f64 {
        smaller(self.draft_ms / self.target_ms, 1.0)
    }
}

/// The way to a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Round trip with its mean deviation, in ms.
    pub(crate) rtt_ms: f64,
    /// Time of a byte from here to there, in ms.
    pub(crate) byte_ms: f64,
}

impl Link {
    /// From this node to itself.
    pub(crate) const NONE: Link = Link {
        rtt_ms: 0.0,
        byte_ms: 0.0,
    };

    /// To a node in this row. `caution`: deviations that are taken off the bandwidth.
    pub(crate) fn of(row: u32, node: &Node, caution: f64) -> Link {
        if row == 0 {
            return Link::NONE;
        }
        let bps = if node.uplink_bps >= 0.0 {
            node.uplink_bps
        } else {
            UPLINK_BPS
        };
        let cautious = bps - caution * amount(node.uplink_sd_bps, 0.0);
        let moves = 1.0 - within(node.stalled, 0.0, MOST_STALLED);
        let bps = larger(cautious, SURE_SHARE * bps) * moves;
        Link {
            rtt_ms: amount(node.rtt_ms, RTT_MS) + amount(node.jitter_ms, 0.0),
            byte_ms: if bps > 0.0 {
                smaller(8000.0 / bps, MOST)
            } else {
                MOST
            },
        }
    }
}
