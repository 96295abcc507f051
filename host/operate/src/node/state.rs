//! `msao node state`.

use clap::Args;

use crate::connect::Common;
use crate::glance::{Calls, Generation, Glance, Load};
use crate::output::{bytes, now_s, share, span, table};

/// Tell how a node is: requests, models, routes, plug-ins
///
/// `msao top` shows the same as it changes.
///
///   msao node state
///   msao node state --json | jq .requests
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub struct StateArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

pub fn run(args: &StateArgs) -> anyhow::Result<bool> {
    let value = args.common.client()?.get("/v1/state")?;
    args.common
        .output()
        .answer(&value, |value| words(&Glance::read(value), now_s()))?;
    Ok(true)
}

fn model(name: &str, load: &Load) -> String {
    let kv = load
        .kv
        .map(|(free, capacity)| format!("; cache: {:.0} of {capacity:.0} tokens free", free));
    format!(
        "  {name}: {} {}; {} sessions, {} of them waiting{}\n",
        load.model,
        load.held,
        load.sessions,
        load.waiting,
        kv.unwrap_or_default()
    )
}

/// What is wrong with a generation, in words; empty: nothing.
pub fn troubles(generation: &Generation) -> Vec<String> {
    let mut troubles = Vec::new();
    for Calls {
        name,
        breaker,
        calls,
        failures,
        ..
    } in &generation.exports
    {
        if !breaker.is_empty() && breaker != "closed" {
            troubles.push(format!(
                "the breaker of {name} is {breaker}, {failures} of {calls} calls failed"
            ));
        } else if *failures > 0 {
            troubles.push(format!("{failures} of {calls} calls of {name} failed"));
        }
    }
    if let Some((spent, limit)) = generation.error_budget.filter(|(spent, _)| *spent > 0) {
        troubles.push(format!(
            "{spent} of {limit} inputs of its error budget are spent"
        ));
    }
    troubles
}

fn words(glance: &Glance, now_s: f64) -> String {
    let up = glance
        .started_s
        .map(|started| format!(", up {}", span(now_s - started)));
    let mut text = format!(
        "{} ({}), msao {}{}{}\n\n",
        glance.node,
        glance.role,
        glance.version,
        up.unwrap_or_default(),
        if glance.draining {
            "; DRAINING, it takes no more requests"
        } else {
            ""
        }
    );
    let most = glance.most.map(|most| format!(" of at most {most}"));
    text.push_str(&format!(
        "requests\n  {} under way{}, {} over, {} connections\n",
        glance.under_way,
        most.unwrap_or_default(),
        glance.over,
        glance.connections
    ));
    let rows: Vec<Vec<String>> = glance
        .routes
        .iter()
        .filter(|(_, it)| it.all() > 0)
        .map(|(name, it)| {
            let counts = [
                it.answered,
                it.degraded,
                it.cancelled,
                it.refused,
                it.failed,
            ];
            std::iter::once(name.clone())
                .chain(counts.map(|it| it.to_string()))
                .collect()
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(
            &[
                "route",
                "answered",
                "degraded",
                "cancelled",
                "refused",
                "failed",
            ],
            &rows,
        ));
    }
    if let Some(words) = glance.times() {
        text.push_str(&format!("  {words}\n"));
    }
    text.push_str(&format!(
        "  drafts: {} of {} accepted ({}) in {} rounds; {} tokens unverified\n",
        glance.accepted,
        glance.drafted,
        share(glance.accepted, glance.drafted),
        glance.rounds,
        glance.unverified
    ));
    text.push_str(&format!(
        "  link: {} up, {} down\n",
        bytes(glance.up_bytes as f64),
        bytes(glance.down_bytes as f64)
    ));
    for peer in &glance.peers {
        let up = match peer.up {
            Some(true) if peer.draining => "draining",
            Some(true) => "up",
            Some(false) => "DOWN",
            None => "?",
        };
        let why = peer.why.as_ref().map(|it| format!(": {it}"));
        let rtt = peer.rtt_ms.map(|it| format!(", round trip {it:.1} ms"));
        text.push_str(&format!(
            "  peer {}: {up}{}{}\n",
            peer.name,
            why.unwrap_or_default(),
            rtt.unwrap_or_default()
        ));
    }
    text.push_str("\nmodels\n");
    for (name, load) in [("draft", &glance.draft), ("target", &glance.target)] {
        if let Some(load) = load {
            text.push_str(&model(name, load));
        }
    }
    if let Some(sessions) = glance.sessions {
        text.push_str(&format!("  {sessions} sessions of other nodes\n"));
    }
    text.push_str("\nplug-ins\n");
    for line in crate::policy::plans(glance).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    let canary = glance.canary.as_ref().map(|it| &it.candidate);
    for generation in glance.active.iter().chain(canary) {
        for trouble in troubles(generation) {
            text.push_str(&format!("  generation {}: {trouble}\n", generation.number));
        }
    }
    if glance.failing_inputs > 0 {
        text.push_str(&format!(
            "  {} failing inputs are kept: msao node failures\n",
            glance.failing_inputs
        ));
    }
    if let Some((kept, lost)) = glance.records {
        text.push_str(&format!("  {kept} decisions are kept, {lost} were lost\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_told_in_words() {
        let value = serde_json::from_str(include_str!("../../tests/data/state.json")).unwrap();
        let text = words(&Glance::read(&value), 1_767_229_200.0);
        assert_eq!(text, include_str!("../../tests/data/state.txt"), "{text}");
    }

    #[test]
    fn an_empty_state_has_words_too() {
        let text = words(&Glance::default(), 0.0);
        assert!(text.contains("0 under way"), "{text}");
    }
}
