//! Holds a plug-in's answers against the contract's ranges.
//!
//! An answer that breaks a rule is refused as a whole. The violation names the field and the rule, so that its author
//! knows what to mend.

use std::fmt;

use super::calibration::{MAX_UPDATES, Operation, Update};
use super::plan::{MAX_MEMO, Plan, Route, Treatment};
use super::report::{Report, Score, Scores};
use super::request::{Node, Part, capability, modality};

/// Rounds under way, and drafts a round, at most.
pub const MAX_ROUND: u32 = 64;
/// Longest patience, in ms.
pub const MAX_PATIENCE_MS: f64 = 60_000.0;
/// Terms that a plan may name.
pub const MAX_TERMS: usize = 64;
/// Bytes of an explanation.
pub const MAX_EXPLANATION: usize = 4096;

/// A rule of the contract that an answer broke.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {rule}")]
pub struct Violation {
    /// Where, for instance `parts[2].target.keep`.
    pub field: String,
    /// What is wrong with it and what is allowed, for instance `is NaN; allowed: 0 to 1`.
    pub rule: String,
}

fn broken(field: impl Into<String>, rule: impl Into<String>) -> Violation {
    Violation {
        field: field.into(),
        rule: rule.into(),
    }
}

fn within(
    field: impl FnOnce() -> String,
    value: f64,
    allowed: bool,
    range: impl fmt::Display,
) -> Result<(), Violation> {
    if allowed {
        return Ok(());
    }
    Err(broken(field(), format!("is {value}; allowed: {range}")))
}

fn share(field: impl FnOnce() -> String, value: f64) -> Result<(), Violation> {
    within(field, value, (0.0..=1.0).contains(&value), "0 to 1")
}

fn finite(field: impl FnOnce() -> String, value: f64) -> Result<(), Violation> {
    within(field, value, value.is_finite(), "a finite number")
}

fn at_most(field: &str, what: &str, count: usize, most: usize) -> Result<(), Violation> {
    if count <= most {
        return Ok(());
    }
    Err(broken(
        field,
        format!("has {count} {what}; at most {most} are allowed"),
    ))
}

/// Checks what `plan` returned for `parts` and `nodes`. `reasons` and `terms`: how many the manifest lists.
///
/// # Errors
/// The first rule that is broken.
pub fn plan(
    plan: &Plan,
    parts: &[Part],
    nodes: &[Node],
    reasons: usize,
    terms: usize,
) -> Result<(), Violation> {
    peer(plan, nodes)?;
    for (field, value) in [
        ("gamma-max", plan.gamma_max),
        ("in-flight-max", plan.in_flight_max),
    ] {
        let allowed = (1..=MAX_ROUND).contains(&value);
        within(
            || field.to_owned(),
            f64::from(value),
            allowed,
            format_args!("1 to {MAX_ROUND}"),
        )?;
    }
    let patience = plan.patience_ms;
    within(
        || "patience-ms".to_owned(),
        patience,
        patience > 0.0 && patience <= MAX_PATIENCE_MS,
        format_args!("above 0, at most {MAX_PATIENCE_MS}"),
    )?;
    if !plan.parts.is_empty() && plan.parts.len() != parts.len() {
        return Err(broken(
            "parts",
            format!(
                "has {} entries; allowed: none, or {}, one for each part of the request",
                plan.parts.len(),
                parts.len()
            ),
        ));
    }
    for (i, (planned, part)) in plan.parts.iter().zip(parts).enumerate() {
        for (side, treatment) in [("draft", &planned.draft), ("target", &planned.target)] {
            treated(treatment, part.modality, || format!("parts[{i}].{side}"))?;
        }
    }
    at_most("memo", "bytes", plan.memo.len(), MAX_MEMO)?;
    let reason = plan.reason as usize;
    within(
        || "reason".to_owned(),
        f64::from(plan.reason),
        reason < reasons.max(1),
        format_args!("a number below {}, the manifest's reasons", reasons.max(1)),
    )?;
    at_most("terms", "values", plan.terms.len(), terms.min(MAX_TERMS))?;
    for (i, &term) in plan.terms.iter().enumerate() {
        finite(|| format!("terms[{i}]"), term)?;
    }
    Ok(())
}

fn peer(plan: &Plan, nodes: &[Node]) -> Result<(), Violation> {
    let peer = plan.peer as usize;
    if plan.route == Route::Edge {
        return within(
            || "peer".to_owned(),
            f64::from(plan.peer),
            peer < nodes.len().max(1),
            format_args!(
                "on route edge 0, or the row that media are brought to, up to {}",
                nodes.len().saturating_sub(1)
            ),
        );
    }
    // A node that has the target itself may be its own cloud.
    let own = nodes
        .first()
        .is_some_and(|node| node.can & capability::TARGET != 0);
    within(
        || "peer".to_owned(),
        f64::from(plan.peer),
        peer < nodes.len() && (peer > 0 || own),
        format_args!(
            "a peer's row, {} to {}",
            u8::from(!own),
            nodes.len().saturating_sub(1)
        ),
    )
}

fn treated(
    treatment: &Treatment,
    modality: u8,
    name: impl Fn() -> String,
) -> Result<(), Violation> {
    share(|| format!("{}.keep", name()), treatment.keep)?;
    if modality == modality::TEXT && treatment.keep != 1.0 {
        return Err(broken(
            format!("{}.keep", name()),
            format!("is {}; allowed: 1, text is never pruned", treatment.keep),
        ));
    }
    for (field, value) in [("scale", treatment.scale), ("frames", treatment.frames)] {
        within(
            || format!("{}.{field}", name()),
            value,
            value > 0.0 && value <= 1.0,
            "above 0, at most 1",
        )?;
    }
    within(
        || format!("{}.quality", name()),
        f64::from(treatment.quality),
        treatment.quality <= 100,
        "0 to 100",
    )
}

/// Checks the updates that a call returned.
///
/// # Errors
/// The first rule that is broken.
pub fn updates(updates: &[Update]) -> Result<(), Violation> {
    at_most("updates", "entries", updates.len(), MAX_UPDATES)?;
    for (i, update) in updates.iter().enumerate() {
        finite(|| format!("updates[{i}].value"), update.value)?;
        let weight = update.weight;
        let (allowed, range) = match update.operation {
            Operation::Sample => (weight > 0.0 && weight <= 1.0, "above 0, at most 1"),
            Operation::Add | Operation::Clear => (weight == 1.0, "1 for add and clear"),
        };
        within(|| format!("updates[{i}].weight"), weight, allowed, range)?;
        let allowed = update.operation != Operation::Clear || update.value == 0.0;
        within(
            || format!("updates[{i}].value"),
            update.value,
            allowed,
            "0 for clear",
        )?;
    }
    Ok(())
}

/// Checks what `score` returned for `report`.
///
/// # Errors
/// The first rule that is broken.
pub fn scores(scores: &Scores, report: &Report) -> Result<(), Violation> {
    if scores.items.len() != report.items.len() {
        return Err(broken(
            "items",
            format!(
                "has {} entries; allowed: {}, one for each item",
                scores.items.len(),
                report.items.len()
            ),
        ));
    }
    let mut seen = Vec::new();
    for (i, (score, item)) in scores.items.iter().zip(&report.items).enumerate() {
        let shares = [
            ("necessity", score.necessity),
            ("mas", score.mas),
            ("spatial", score.spatial),
            ("temporal", score.temporal),
            ("unusual", score.unusual),
        ];
        for (field, value) in shares {
            share(|| format!("items[{i}].{field}"), value)?;
        }
        keep_order(score, item.tokens, i, &mut seen)?;
    }
    updates(&scores.updates)
}

/// `seen` is memory that is used again.
fn keep_order(
    score: &Score,
    tokens: u32,
    item: usize,
    seen: &mut Vec<bool>,
) -> Result<(), Violation> {
    let order = &score.keep_order;
    let name = || format!("items[{item}].keep-order");
    at_most(&name(), "tokens", order.len(), tokens as usize)?;
    seen.clear();
    seen.resize(tokens as usize, false);
    for (place, &token) in order.iter().enumerate() {
        match seen.get_mut(token as usize) {
            Some(taken @ false) => *taken = true,
            Some(_) => {
                return Err(broken(
                    format!("{}[{place}]", name()),
                    format!("names token {token} a second time"),
                ));
            }
            None => {
                return Err(broken(
                    format!("{}[{place}]", name()),
                    format!("is {token}; allowed: below {tokens}, the item's tokens"),
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
