//! What was learned, for operators: to look at, to take along, to take in, to forget.
//!
//! Cells belong to a plug-in, the schema of its state and a pair of models; the acceptance map to a pair of models. What
//! is taken in has to fit all of them. Audits are shown, and never taken in: they are evidence of a node's own traffic.

use msao_api::ApiError;
use msao_core::offload::Calibration;
use msao_registry::state::CellsKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::adapt::{Exported, Pair};
use crate::node::Node;

/// The version of what is exported; no other is taken in.
const VERSION: u32 = 1;

/// What the node has learned itself: acceptance of drafts, and audits.
pub fn acceptance(node: &Node) -> Value {
    let confident = &node.config.confident;
    json!({
        "budget": confident.budget,
        "audit-rate": confident.audit_rate,
        "delta": confident.delta,
        "settle-drafts": confident.settle_drafts,
        "pairs": node.adapt.figures(),
        "counted": node.adapt.counted(),
    })
}

/// A plug-in's cells.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Cells {
    key: CellsKey,
    cells: Calibration,
}

/// What there is of cells: of which plug-in, schema and models, how many, and whether the active generation goes by them.
pub fn kept(node: &Node) -> Value {
    let kept = node.plugins.kept_learned().into_iter();
    let told = kept.map(|(key, snapshot, active)| {
        json!({ "key": key, "cells": snapshot.calibration().len(), "active": active })
    });
    json!({ "kept": told.collect::<Vec<_>>() })
}

/// All that is learned, to be taken to another node: of one plug-in alone, where one is named. `kept`: what is kept of
/// plug-ins, schemas and models that are not active, too.
///
/// # Errors
/// The plug-in is not active, or nothing is kept of it.
pub fn export(node: &Node, plugin: Option<&str>, kept: bool) -> Result<Value, ApiError> {
    node.calibration.settle();
    let active = node.plugins.learned_by_key().into_iter();
    let others = kept.then(|| node.plugins.kept_learned());
    let others = others.into_iter().flatten();
    // Of what is not active an empty set tells nothing.
    let others = others.filter(|(_, it, active)| !active && !it.calibration().is_empty());
    let all = active.chain(others.map(|(key, snapshot, _)| (key, snapshot)));
    let wanted = all.filter(|(key, _)| plugin.is_none_or(|plugin| key.plugin == plugin));
    let cells = wanted.map(|(key, snapshot)| Cells {
        key,
        cells: snapshot.calibration().clone(),
    });
    let cells: Vec<Cells> = cells.collect();
    if let Some(plugin) = plugin {
        if cells.is_empty() {
            let why = match kept {
                true => format!("nothing is kept of '{plugin}'."),
                false => format!("'{plugin}' is not active."),
            };
            return Err(ApiError::invalid_value("plugin", &why));
        }
        return Ok(json!({ "version": VERSION, "node": node.config.node.name, "plugins": cells }));
    }
    Ok(json!({
        "version": VERSION,
        "node": node.config.node.name,
        "plugins": cells,
        "acceptance": node.adapt.export(),
        "audits": node.adapt.figures(),
    }))
}

/// What is to be taken in, as [`export`] gave it.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Taken {
    version: u32,
    /// Where it was learned: for people.
    #[serde(default, rename = "node")]
    _node: Option<String>,
    #[serde(default)]
    plugins: Vec<Value>,
    #[serde(default)]
    acceptance: Vec<Value>,
    /// Of another node's traffic: passed over.
    #[serde(default, rename = "audits")]
    _audits: Value,
}

/// A word of what is to be taken in, for people.
fn word<'a>(value: &'a Value, at: &str) -> &'a str {
    value.pointer(at).and_then(Value::as_str).unwrap_or("?")
}

/// Takes in what was exported, each part for itself: what does not fit is told, with why, and changes nothing.
///
/// # Errors
/// It is no export, or of another version.
pub fn import(node: &Node, asked: Value) -> Result<Value, ApiError> {
    let taken: Taken = serde_json::from_value(asked)
        .map_err(|error| ApiError::invalid("invalid_body", None, format!("The body: {error}.")))?;
    if taken.version != VERSION {
        let why = format!("is {}; this node takes {VERSION}.", taken.version);
        return Err(ApiError::invalid_value("version", &why));
    }
    let (mut done, mut refused) = (Vec::new(), Vec::new());
    for value in taken.plugins {
        let what = format!("the cells of {}", word(&value, "/key/plugin"));
        let cells = serde_json::from_value::<Cells>(value).map_err(|error| error.to_string());
        let took = cells.and_then(|it| {
            let took = node.plugins.take_learned(&it.key, &it.cells);
            took.map_err(|error| error.to_string())
        });
        match took {
            Ok(cells) => done.push(json!({ "what": what, "cells": cells })),
            Err(why) => refused.push(json!({ "what": what, "why": why })),
        }
    }
    let served = node.pairs();
    for value in taken.acceptance {
        let [draft, target] = ["/pair/draft", "/pair/target"].map(|at| {
            let digest = word(&value, at);
            digest.chars().take(12).collect::<String>()
        });
        let what = format!("the acceptance of {draft}/{target}");
        let exported = serde_json::from_value::<Exported>(value).map_err(|error| error.to_string());
        let took = exported.and_then(|it| {
            let took = node.adapt.import(it, &served);
            took.map_err(|error| error.to_string())
        });
        match took {
            Ok(drafts) => done.push(json!({ "what": what, "drafts": drafts })),
            Err(why) => refused.push(json!({ "what": what, "why": why })),
        }
    }
    if let Err(problem) = node.adapt.checkpoint() {
        // It is learned; the next checkpoint tries again.
        tracing::warn!(problem, "what was taken in is not on the disk yet");
    }
    Ok(json!({ "taken": done, "refused": refused }))
}

/// What is to be forgotten.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Reset {
    plugin: Option<String>,
    /// What is kept of the plug-in, be it active or not; of this schema and these models alone, where they are named.
    #[serde(default)]
    kept: bool,
    state_schema: Option<u32>,
    models: Option<String>,
    #[serde(default)]
    acceptance: bool,
    pair: Option<Pair>,
}

/// Has a plug-in forget its cells, in use or all that are kept of it; or the node what it has learned of its drafts, audits
/// included: of a pair, or of all.
///
/// # Errors
/// Nothing is named, the plug-in is not active, or nothing is kept of it or known of the pair.
pub fn reset(node: &Node, asked: Value) -> Result<Value, ApiError> {
    let reset: Reset = serde_json::from_value(asked)
        .map_err(|error| ApiError::invalid("invalid_body", None, format!("The body: {error}.")))?;
    match reset {
        Reset {
            plugin: Some(plugin),
            kept: true,
            state_schema,
            models,
            acceptance: false,
            pair: None,
        } => {
            let all = node.plugins.kept_learned().into_iter();
            let keys = all.map(|(key, ..)| key).filter(|key| {
                key.plugin == plugin
                    && state_schema.is_none_or(|schema| key.state_schema == schema)
                    && (models.as_ref()).is_none_or(|models| key.models == *models)
            });
            let keys: Vec<CellsKey> = keys.collect();
            if keys.is_empty() {
                let why = format!("nothing of that kind is kept of '{plugin}'.");
                return Err(ApiError::invalid_value("plugin", &why));
            }
            let forgotten = keys.iter().map(|key| node.plugins.forget_kept(key));
            let cells: usize = forgotten.sum();
            Ok(json!({ "plugin": plugin, "sets": keys.len(), "cells": cells }))
        }
        Reset {
            plugin: Some(plugin),
            kept: false,
            state_schema: None,
            models: None,
            acceptance: false,
            pair: None,
        } => {
            let forgotten = node.plugins.forget_learned(&plugin).ok_or_else(|| {
                ApiError::invalid_value("plugin", &format!("'{plugin}' is not active."))
            })?;
            Ok(json!({ "plugin": plugin, "cells": forgotten }))
        }
        Reset {
            plugin: None,
            kept: false,
            state_schema: None,
            models: None,
            acceptance: true,
            pair,
        } => {
            let pairs = match pair {
                Some(pair) => vec![pair],
                None => node.adapt.pairs(),
            };
            let forgotten: Vec<u64> = (pairs.iter())
                .filter_map(|pair| node.adapt.forget(pair))
                .collect();
            if forgotten.len() < pairs.len() {
                return Err(ApiError::invalid_value("pair", "nothing is known of it."));
            }
            let drafts: u64 = forgotten.iter().sum();
            Ok(json!({ "pairs": forgotten.len(), "drafts": drafts }))
        }
        _ => {
            let why = "The body: either 'plugin' or 'acceptance': true is expected; beside the first 'kept': true, and with \
                       that 'state-schema' and 'models'; 'pair' beside the second alone.";
            Err(ApiError::invalid("invalid_body", None, why))
        }
    }
}
