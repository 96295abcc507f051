//! A node's figures as a heartbeat carries them.
//!
//! On the wire a speed of 0 is an unknown one, and there is no word for an unknown queue: a node knows its own. What
//! share of drafts is accepted is seen by each edge for itself and does not travel.

use msao_link::estimate::{Figures, UNKNOWN};
use msao_session::frame::Heartbeat;

/// A heartbeat with these figures; its times are left at 0. What is unknown or cannot be is sent as 0.
pub fn to_heartbeat(figures: Figures) -> Heartbeat {
    let figures = figures.checked();
    Heartbeat {
        queue_ms: figures.queue_ms.max(0.0),
        planned_ms: figures.planned_ms.max(0.0),
        kv_free: figures.kv_free.max(0.0),
        prefill_tok_per_s: figures.prefill_tok_per_s.max(0.0),
        draft_tok_per_s: figures.draft_tok_per_s.max(0.0),
        target_tok_per_s: figures.target_tok_per_s.max(0.0),
        verify_ms: figures.verify_ms.max(0.0),
        ..Heartbeat::default()
    }
}

/// The figures in a heartbeat.
pub fn from_heartbeat(heartbeat: &Heartbeat) -> Figures {
    let rate = |value: f64| if value > 0.0 { value } else { UNKNOWN };
    Figures {
        queue_ms: heartbeat.queue_ms,
        planned_ms: heartbeat.planned_ms,
        kv_free: heartbeat.kv_free,
        prefill_tok_per_s: rate(heartbeat.prefill_tok_per_s),
        draft_tok_per_s: rate(heartbeat.draft_tok_per_s),
        target_tok_per_s: rate(heartbeat.target_tok_per_s),
        verify_ms: rate(heartbeat.verify_ms),
        acceptance: UNKNOWN,
    }
    .checked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_stays_so() {
        let figures = Figures {
            queue_ms: 3.0,
            planned_ms: 8.0,
            kv_free: 1000.0,
            target_tok_per_s: 20.0,
            ..Figures::UNKNOWN
        };
        assert_eq!(from_heartbeat(&to_heartbeat(figures)), figures);
        let wrong = Figures {
            queue_ms: f64::NAN,
            ..Figures::UNKNOWN
        };
        assert_eq!(to_heartbeat(wrong), Heartbeat::default());
    }
}
