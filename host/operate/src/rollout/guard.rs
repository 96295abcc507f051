//! Guardrails: what a node's state must not show after it got a release.
//!
//! Pure: the state before the change, the state now, and how much worse it may be. A share is held against the share of
//! the same node before the change (since its start), so a node that always had some failures is not blamed on the release;
//! and it takes [`FEWEST`] events, so that one unlucky request stops nothing.

use serde::Serialize;

use crate::glance::{Calls, Canary, Generation, Glance};

/// Events of a kind that a share needs before it counts.
const FEWEST: u64 = 3;
/// Requests that a side of a canary must have reported before its figures count.
const FEWEST_REPORTED: u64 = 20;

/// How much worse than before a node may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Share of failed requests, of a plug-in's failed calls, and of a canary's errors, beyond that before.
    pub failed: f64,
    /// Share of degraded requests beyond that before.
    pub degraded: f64,
    /// Share of requests that ran otherwise than planned, beyond that before.
    pub overridden: f64,
    /// How much longer a canary's times may be: 0.25 is a quarter.
    pub slower: f64,
    /// How much longer the node's own times may be than before: 1.0 is twice as long.
    pub latency: f64,
    /// Share of the error budget that may be spent.
    pub budget: f64,
}

/// A guardrail that gave way.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tripped {
    /// Which.
    pub guardrail: &'static str,
    /// What was seen.
    pub why: String,
}

fn tripped(guardrail: &'static str, why: String) -> Result<(), Tripped> {
    Err(Tripped { guardrail, why })
}

/// What the rollout put on a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Ours {
    /// The generation's number.
    pub number: u64,
    /// The policy's digest, where the rollout brings one.
    pub policy: Option<String>,
    /// The post-processor's digest, where the rollout brings one.
    pub postprocessor: Option<String>,
}

impl Ours {
    /// Whether a generation runs what the rollout brings.
    fn is_in(&self, generation: &Generation) -> bool {
        let same =
            |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        generation.number == self.number
            || same(&self.policy, &generation.policy_digest)
                && same(&self.postprocessor, &generation.postprocessor_digest)
    }

    /// Where it is on a node.
    pub fn find<'a>(&self, glance: &'a Glance) -> Found<'a> {
        if let Some(canary) = glance
            .canary
            .as_ref()
            .filter(|it| self.is_in(&it.candidate))
        {
            return Found::Canary(canary);
        }
        match glance.active.as_ref().filter(|it| self.is_in(it)) {
            Some(active) => Found::Active(active),
            None => Found::Gone,
        }
    }
}

/// Where a rollout's generation is on a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found<'a> {
    /// It plans a share of the sessions.
    Canary(&'a Canary),
    /// It plans all.
    Active(&'a Generation),
    /// It plans nothing any more.
    Gone,
}

/// Whether a node may keep what it got.
///
/// # Errors
/// The first guardrail that gave way.
pub fn judge(before: &Glance, now: &Glance, ours: &Ours, limits: &Limits) -> Result<(), Tripped> {
    if before.started_s != now.started_s {
        return tripped("restart", "the node has restarted since".to_owned());
    }
    if now.draining {
        return tripped("draining", "the node takes no more requests".to_owned());
    }
    if let Some(why) = &now.not_durable {
        return tripped(
            "journal",
            format!("the change is not on the node's disk: {why}"),
        );
    }
    match ours.find(now) {
        Found::Gone => {
            let active = now
                .active
                .as_ref()
                .map(Generation::words)
                .unwrap_or_default();
            return tripped(
                "left",
                format!(
                    "the node has left it by itself, or somebody else has changed it; active is {active}"
                ),
            );
        }
        Found::Active(generation) => plugins(generation, limits)?,
        Found::Canary(canary) => {
            plugins(&canary.candidate, limits)?;
            compare(canary, limits)?;
        }
    }
    requests(before, now, limits)?;
    latency(before, now, limits)
}

/// How a plug-in itself fares.
fn plugins(generation: &Generation, limits: &Limits) -> Result<(), Tripped> {
    for Calls {
        name,
        breaker,
        calls,
        failures,
        ..
    } in &generation.exports
    {
        if breaker == "open" || breaker == "probing" {
            return tripped(
                "breaker",
                format!("the breaker of {name} is {breaker}: {failures} of {calls} calls failed"),
            );
        }
        share(
            "calls",
            &format!("calls of {name} failed"),
            (*failures, *calls),
            (0, 0),
            limits.failed,
        )?;
    }
    match generation.error_budget {
        Some((spent, limit)) if spent > 0 && spent as f64 > limits.budget * limit as f64 => {
            tripped(
                "error-budget",
                format!("{spent} of {limit} inputs of the error budget are spent"),
            )
        }
        _ => Ok(()),
    }
}

fn of(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// A share that may exceed the one before by `tolerance`.
fn share(
    guardrail: &'static str,
    what: &str,
    now: (u64, u64),
    before: (u64, u64),
    tolerance: f64,
) -> Result<(), Tripped> {
    let (is, was) = (of(now.0, now.1), of(before.0, before.1));
    if now.0 < FEWEST || is <= was + tolerance {
        return Ok(());
    }
    let was = if before.1 == 0 {
        String::new()
    } else {
        format!(", {:.1}% before", was * 100.0)
    };
    tripped(
        guardrail,
        format!("{} of {} {what} ({:.1}%{was})", now.0, now.1, is * 100.0),
    )
}

/// How long the node's requests take, once enough of them are over since.
fn latency(before: &Glance, now: &Glance, limits: &Limits) -> Result<(), Tripped> {
    if now.outcomes().since(before.outcomes()).all() < FEWEST_REPORTED {
        return Ok(());
    }
    for (what, is, was) in [
        ("first token", now.ttft_p95_ms, before.ttft_p95_ms),
        ("last token", now.total_p95_ms, before.total_p95_ms),
    ] {
        let Some((is, was)) = is.zip(was) else {
            continue;
        };
        if was > 0.0 && is > was * (1.0 + limits.latency) {
            return tripped(
                "latency",
                format!(
                    "95% of the newest requests have their {what} within {is:.0} ms, before it was {was:.0} ms"
                ),
            );
        }
    }
    Ok(())
}

/// What became of the node's requests.
fn requests(before: &Glance, now: &Glance, limits: &Limits) -> Result<(), Tripped> {
    let (was, since) = (before.outcomes(), now.outcomes().since(before.outcomes()));
    share(
        "failed",
        "requests failed",
        (since.failed, since.all()),
        (was.failed, was.all()),
        limits.failed,
    )?;
    share(
        "degraded",
        "requests lost their peer",
        (since.degraded, since.all()),
        (was.degraded, was.all()),
        limits.degraded,
    )?;
    if let (Some(is), Some(had)) = (now.overridden, before.overridden) {
        let changed = is.saturating_sub(had);
        share(
            "overridden",
            "requests ran otherwise than planned",
            (changed, since.all()),
            (had, was.all()),
            limits.overridden,
        )?;
    }
    Ok(())
}

/// A canary beside what it is to replace.
fn compare(canary: &Canary, limits: &Limits) -> Result<(), Tripped> {
    let (stable, candidate) = (&canary.stable_figures, &canary.candidate_figures);
    if candidate.reported < FEWEST_REPORTED {
        return Ok(());
    }
    let events = |share: f64| (share * candidate.reported as f64).round() as u64;
    for (guardrail, what, is, was, tolerance) in [
        (
            "canary-errors",
            "the canary's requests failed",
            candidate.errors,
            stable.errors,
            limits.failed,
        ),
        (
            "canary-overridden",
            "the canary's requests ran otherwise than planned",
            candidate.overrides,
            stable.overrides,
            limits.overridden,
        ),
    ] {
        if events(is) >= FEWEST && is > was + tolerance {
            return tripped(
                guardrail,
                format!(
                    "{:.1}% of {what}, {:.1}% of the others",
                    is * 100.0,
                    was * 100.0
                ),
            );
        }
    }
    if stable.reported < FEWEST_REPORTED {
        return Ok(());
    }
    for (what, is, was) in [
        ("first token", candidate.ttft_p95_ms, stable.ttft_p95_ms),
        ("last token", candidate.total_p95_ms, stable.total_p95_ms),
    ] {
        if was > 0.0 && is > was * (1.0 + limits.slower) {
            return tripped(
                "canary-latency",
                format!(
                    "95% of the canary's requests have their {what} within {is:.0} ms, of the others within {was:.0} ms"
                ),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
