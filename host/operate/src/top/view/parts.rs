//! What stands in the sections of a frame.

use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::super::history::{History, RECENT_S, SHORT_S};
use super::{BAD, DIM, GOOD};
use crate::glance::{Glance, Load, Outcomes, Peer};
use crate::output::{bytes, share};

/// Characters of a bar.
const BAR: usize = 16;

/// `12.3/s`, and a dash before anything is known.
pub fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |it| format!("{it:.1}/s"))
}

fn byte_rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |it| format!("{}/s", bytes(it)))
}

/// A share as a bar: `[####......]`.
pub fn bar(part: f64) -> String {
    let full = ((part.clamp(0.0, 1.0) * BAR as f64).round() as usize).min(BAR);
    format!("[{}{}]", "#".repeat(full), ".".repeat(BAR - full))
}

/// Counts and rates by route, and how long requests took.
pub fn routes_of<'a>(glance: &'a Glance, history: &'a History) -> Vec<Line<'a>> {
    // What matters most comes first: a narrow terminal cuts the rest.
    let head = format!(
        "{:11}{:>9}{:>9}{:>7}{:>6}{:>6}{:>5}",
        "", "a second", "answered", "failed", "degr.", "canc.", "ref."
    );
    let mut lines = vec![Line::styled(head, DIM)];
    lines.extend(glance.routes.iter().map(|(name, it)| {
        let Outcomes {
            answered,
            degraded,
            cancelled,
            refused,
            failed,
        } = *it;
        let all = |glance: &Glance| {
            let route = glance.routes.iter().find(|(other, _)| other == name);
            route.map_or(0, |(_, it)| it.all())
        };
        let style = if failed > 0 { BAD } else { Style::new() };
        let second = rate(history.rate(SHORT_S, all));
        Line::from(vec![
            Span::raw(format!("{name:11}{second:>9}{answered:>9}")),
            Span::styled(format!("{failed:>7}"), style),
            Span::raw(format!("{degraded:>6}{cancelled:>6}{refused:>5}")),
        ])
    }));
    lines.extend(glance.times().map(Line::from));
    lines
}

/// Drafts, bytes, peers.
pub fn link_of<'a>(glance: &'a Glance, history: &'a History) -> Vec<Line<'a>> {
    let recent = history.part(RECENT_S, |it| (it.accepted, it.drafted));
    let recent = recent.map_or_else(|| "-".to_owned(), |it| format!("{:.1}%", it * 100.0));
    let mut lines = vec![
        Line::from(format!(
            "accepted {recent} of late, {} of all",
            share(glance.accepted, glance.drafted)
        )),
        Line::from(format!(
            "drafted {:>7}  {}",
            glance.drafted,
            rate(history.rate(SHORT_S, |it| it.drafted))
        )),
        Line::from(format!(
            "up   {:>10}  {}",
            bytes(glance.up_bytes as f64),
            byte_rate(history.rate(SHORT_S, |it| it.up_bytes))
        )),
        Line::from(format!(
            "down {:>10}  {}",
            bytes(glance.down_bytes as f64),
            byte_rate(history.rate(SHORT_S, |it| it.down_bytes))
        )),
    ];
    if glance.unverified > 0 {
        lines.push(Line::from(format!(
            "unverified tokens {}",
            glance.unverified
        )));
    }
    lines.extend(glance.peers.iter().map(peer));
    lines
}

fn peer(peer: &Peer) -> Line<'_> {
    let (up, style) = match peer.up {
        Some(true) if peer.draining => ("draining", BAD),
        Some(true) => ("up", GOOD),
        Some(false) => ("DOWN", BAD),
        None => ("?", Style::new()),
    };
    let mut words = String::new();
    if let Some(why) = &peer.why {
        words.push_str(&format!(": {why}"));
    }
    if let Some(rtt_ms) = peer.rtt_ms {
        words.push_str(&format!(" {rtt_ms:.0} ms"));
    }
    if let Some(bps) = peer.uplink_bps {
        words.push_str(&format!(", {:.0} Mbit/s", bps / 1e6));
    }
    if let Some(queue_ms) = peer.queue_ms {
        words.push_str(&format!(", queue {queue_ms:.0} ms"));
    }
    Line::from(vec![
        Span::raw(format!("{} ", peer.name)),
        Span::styled(up, style),
        Span::raw(words),
    ])
}

/// Queues, cache and passes of each model.
pub fn models_of<'a>(glance: &'a Glance, history: &'a History) -> Vec<Line<'a>> {
    type Which = fn(&Glance) -> Option<&Load>;
    let speeds = [glance.draft_tok_per_s, glance.target_tok_per_s];
    let which: [(&str, Which); 2] = [
        ("draft", |it| it.draft.as_ref()),
        ("target", |it| it.target.as_ref()),
    ];
    let mut lines = Vec::new();
    for ((name, load), speed) in which.into_iter().zip(speeds) {
        let Some(it) = load(glance) else {
            continue;
        };
        let cache = it
            .kv
            .filter(|(_, capacity)| *capacity > 0.0)
            .map(|(free, capacity)| {
                let used = (capacity - free) / capacity;
                format!("cache {} {:.0}%", bar(used), used * 100.0)
            });
        let passes = history.rate(SHORT_S, |it| load(it).map_or(0, |it| it.passes));
        let rows = history.part(SHORT_S, |it| {
            load(it).map_or((0, 0), |it| (it.rows, it.passes))
        });
        let speed = speed.map(|it| format!("  {it:.0} tok/s"));
        let rows = rows.map(|it| format!(" of {it:.1} rows"));
        lines.push(Line::from(format!(
            "{name:6} {:>3} sessions {:>3} waiting  {}  {} passes{}{}",
            it.sessions,
            it.waiting,
            cache.unwrap_or_default(),
            rate(passes),
            rows.unwrap_or_default(),
            speed.unwrap_or_default()
        )));
    }
    if lines.is_empty() {
        lines.push(Line::from("none here"));
    }
    if let Some(sessions) = glance.sessions {
        lines.push(Line::from(format!("{sessions} sessions of other nodes")));
    }
    lines
}
