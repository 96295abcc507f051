//! A plug-in's answer as JSON, with the manifest's names where the contract has numbers.

use msao_core::offload::manifest::{Manifest, Named};
use msao_core::offload::{Action, Decision, Plan, Scores, Update};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The name of reason `number`.
pub fn reason_name(manifest: &Manifest, number: u32) -> Option<&str> {
    manifest
        .reasons
        .get(number as usize)
        .map(|reason| reason.name.as_str())
}

/// The terms of a plan, each with what the manifest says of it.
pub fn terms<'a>(manifest: &'a Manifest, plan: &'a Plan) -> impl Iterator<Item = (&'a Named, f64)> {
    manifest.terms.iter().zip(plan.terms.iter().copied())
}

fn value(answer: &impl Serialize) -> Value {
    // Plain records of numbers, lists and words have a JSON form.
    serde_json::to_value(answer).unwrap_or(Value::Null)
}

/// A plan; `reason` and `terms` by the manifest's names.
pub fn plan(manifest: &Manifest, plan: &Plan) -> Value {
    let mut fields = match value(plan) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    if let Some(name) = reason_name(manifest, plan.reason) {
        fields.insert("reason".to_owned(), name.into());
    }
    let terms = terms(manifest, plan)
        .map(|(term, number)| (term.name.clone(), json!(number)))
        .collect::<Map<_, _>>();
    fields.insert("terms".to_owned(), Value::Object(terms));
    Value::Object(fields)
}

/// What `plan` said: the plan's fields, or the word `probe`.
pub fn decision(manifest: &Manifest, decision: &Decision) -> Value {
    match decision {
        Decision::Run(run) => plan(manifest, run),
        Decision::Probe => "probe".into(),
    }
}

/// What `step` said: a word.
pub fn action(action: Action) -> Value {
    value(&action)
}

/// What `observe` said: a list.
pub fn updates(updates: &[Update]) -> Value {
    value(&updates)
}

/// What `score` said.
pub fn scores(scores: &Scores) -> Value {
    value(scores)
}

/// A call that failed: its kind, as metrics name it, and the message.
pub fn failure(kind: &str, message: &str) -> Value {
    json!({ "failure": { "kind": kind, "message": message } })
}
