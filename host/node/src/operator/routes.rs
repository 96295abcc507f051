//! Which path does what, and who may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, Request, Response};
use msao_api::{ApiError, headers};
use msao_core::offload::manifest::Value as Tuned;
use msao_registry::deployment::NotNow;
use msao_registry::{
    Bundle, Choice, Described, Pick, Receipt, Refused, Release, Removed, SignatureFile, StoreError,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::account;
use super::address::{parameter, parts};
use super::admission::{Operator, allow};
use super::audit::{Audit, Entry};
use super::learned;
use super::own_words::own_words;
use super::words::words;
use crate::config::OperatorRole;
use crate::http::{Arriving, Outgoing, body, respond};
use crate::node::Node;

/// Bytes of a body: the largest component in base64, and some.
const MOST: usize = 400 << 20;
/// A body must have come after so long.
const WITHIN: Duration = Duration::from_secs(300);
/// Decisions that one request lists at most.
const MOST_LISTED: usize = 10_000;

/// Answers one request.
pub async fn route(
    node: Arc<Node>,
    audit: Arc<Audit>,
    request: Request<Arriving>,
) -> Response<Outgoing> {
    let answered = handle(&node, &audit, request).await;
    answered.unwrap_or_else(|error| respond::error(&error))
}

async fn handle(
    node: &Arc<Node>,
    audit: &Arc<Audit>,
    request: Request<Arriving>,
) -> Result<Response<Outgoing>, ApiError> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    match *request.method() {
        Method::GET => {
            let who = admit(node, &request, OperatorRole::Read)?;
            let (node, audit) = (Arc::clone(node), Arc::clone(audit));
            blocking(move || look(&node, &audit, &who, &path, &query)).await
        }
        Method::POST => {
            let role = match path.as_str() {
                "/v1/policies" | "/v1/remove" => OperatorRole::Push,
                _ => OperatorRole::Activate,
            };
            let who = admit(node, &request, role)?;
            let given = request.headers().get(CONTENT_TYPE);
            headers::require_json(given.and_then(|value| value.to_str().ok()))?;
            let body = body::read(request.into_body(), MOST, WITHIN).await?;
            let body = if body.is_empty() { "{}".into() } else { body };
            let asked = serde_json::from_slice(&body);
            let asked: Value = asked.map_err(|error| ApiError::invalid_json(&error.to_string()))?;
            let (node, audit) = (Arc::clone(node), Arc::clone(audit));
            blocking(move || change(&node, &audit, &who, &path, asked)).await
        }
        _ => Err(ApiError::method_not_allowed("GET and POST")),
    }
}

fn admit(
    node: &Node,
    request: &Request<Arriving>,
    role: OperatorRole,
) -> Result<Operator, ApiError> {
    let access = node.access.load();
    allow(&access.operator, request.uri(), request.headers(), role)
}

/// Runs what compiles or reads the disk where it holds nobody up.
async fn blocking(
    work: impl FnOnce() -> Result<Response<Outgoing>, ApiError> + Send + 'static,
) -> Result<Response<Outgoing>, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::internal()))
}

fn look(
    node: &Node,
    audit: &Audit,
    who: &Operator,
    path: &str,
    query: &str,
) -> Result<Response<Outgoing>, ApiError> {
    let plugins = &node.plugins;
    let last = parameter(query, "last")?.map_or(Ok(20), |text| {
        let count = text
            .parse()
            .ok()
            .filter(|count| (1..=MOST_LISTED).contains(count));
        count.ok_or_else(|| {
            ApiError::invalid_value("last", &format!("expected 1 to {MOST_LISTED}."))
        })
    })?;
    let parts = parts(path)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let value = match parts.as_slice() {
        ["v1", "whoami"] => json!({ "name": who.name, "role": who.role }),
        ["v1", "state"] => state(node),
        ["v1", "policies"] => {
            let releases = plugins.releases().map_err(broken)?;
            let releases = releases.into_iter().map(|(release, manifest, signed)| {
                json!({
                    "release": release,
                    "name": manifest.name,
                    "version": manifest.version.to_string(),
                    "world": manifest.world,
                    "description": manifest.description,
                    "signed": signed,
                })
            });
            json!({
                "releases": releases.collect::<Vec<_>>(),
                "deployment": plugins.deployment(),
            })
        }
        ["v1", "history"] => {
            let history = plugins.history(last).into_iter().map(|entry| {
                let by = audit.author(entry.sequence, entry.at_ms);
                let mut told = json!(entry);
                if let Some(told) = told.as_object_mut() {
                    told.insert("by".to_owned(), json!(by));
                }
                told
            });
            json!({ "history": history.collect::<Vec<_>>() })
        }
        ["v1", "decisions"] if parameter(query, "as")?.as_deref() == Some("jsonl") => {
            node.records.settle().map_err(broken)?;
            let mut text = Vec::new();
            node.records.export(&mut text, last).map_err(broken)?;
            let body = body::whole(text);
            return Ok(respond::response(
                200,
                "application/jsonl",
                Vec::new(),
                body,
            ));
        }
        ["v1", "decisions"] => {
            node.records.settle().map_err(broken)?;
            json!({ "decisions": node.records.tail(last).map_err(broken)? })
        }
        ["v1", "decisions", id] => json!(decision(node, id)?),
        ["v1", "decisions", id, "account"] => {
            let record = decision(node, id)?;
            let manifest = record.generation.policy.and_then(|it| plugins.manifest(it));
            account::told(plugins, &record, manifest.as_ref())
        }
        ["v1", "decisions", id, "words"] => {
            let record = decision(node, id)?;
            let manifest = record.generation.policy.and_then(|it| plugins.manifest(it));
            let text = words(&record, manifest.as_ref()) + &own_words(plugins, &record);
            return Ok(respond::text(text));
        }
        ["v1", "failures"] => json!({ "failures": plugins.failures() }),
        ["v1", "failures", id] => {
            let case = plugins.failure(id).map_err(broken)?;
            json!(case.ok_or_else(|| ApiError::not_found(path))?)
        }
        ["v1", "calibration"] => {
            let learned = plugins.learned().into_iter();
            let learned = learned.map(|(name, cells)| (name, json!(cells.calibration())));
            Value::Object(learned.collect())
        }
        ["v1", "calibration", "kept"] => learned::kept(node),
        ["v1", "calibration", "acceptance"] => learned::acceptance(node),
        ["v1", "calibration", "export"] => {
            let kept = match parameter(query, "kept")?.as_deref() {
                None | Some("false") => false,
                Some("true") => true,
                Some(other) => return Err(ApiError::not_one_of("kept", other, &["true", "false"])),
            };
            learned::export(node, parameter(query, "plugin")?.as_deref(), kept)?
        }
        _ => return Err(ApiError::not_found(path)),
    };
    Ok(respond::json(&value, Vec::new()))
}

fn decision(node: &Node, id: &str) -> Result<msao_core::offload::record::DecisionRecord, ApiError> {
    node.records.settle().map_err(broken)?;
    let record = node.records.get(id).map_err(broken)?;
    record.ok_or_else(|| {
        let why = format!(
            "No decision is kept for a request '{id}': it is still under way, was not recorded ([records]), or is older \
             than those that are kept."
        );
        ApiError {
            message: why,
            ..ApiError::not_found(id)
        }
    })
}

/// All of a node at a glance.
pub fn state(node: &Node) -> Value {
    let model = |model: &Option<crate::models::Model>| {
        model.as_ref().map(|model| {
            let load = model.engine.load();
            json!({
                "held": model.held,
                "kernels": load.kernels,
                "graphs": load.graphs,
                "model": model.identity.model.short(),
                "sessions": load.sessions,
                "waiting": load.waiting,
                "kv-free": model.kv_free(),
                "kv-capacity": model.engine.capacity(),
                "passes": load.passes,
                "rows": load.rows,
            })
        })
    };
    let figures = node.figures();
    let peers = node.peers.iter().map(|remote| {
        let (peer, mut row) = (remote.peer(), msao_core::offload::Node::default());
        let status = peer.status();
        peer.fill(&mut row);
        json!({
            "name": peer.name(),
            "up": status.up,
            "draining": status.draining,
            "why": status.why.as_deref(),
            "rtt-ms": row.rtt_ms,
            "jitter-ms": row.jitter_ms,
            "uplink-bps": row.uplink_bps,
            "downlink-bps": row.downlink_bps,
            "stalled": row.stalled,
            "queue-ms": row.queue_ms,
            "planned-ms": row.planned_ms,
            "kv-free": row.kv_free,
            "spread": peer.spread(),
        })
    });
    json!({
        "peers": peers.collect::<Vec<_>>(),
        "node": node.config.node.name,
        "role": node.config.node.role,
        "version": env!("CARGO_PKG_VERSION"),
        "started-s": node.started_s,
        "draining": node.is_draining(),
        "requests": {
            "under-way": node.under_way(),
            "most": node.config.api.requests,
            "over": node.metrics.count(),
        },
        "models": { "draft": model(&node.models.draft), "target": model(&node.models.target) },
        "sessions": node.sessions.as_ref().map(|sessions| sessions.count()),
        "speeds": figures,
        "spread": {
            "draft": node.models.draft.as_ref().map(|_| node.speeds().spread()),
            "target": node.sessions.as_ref().map(|sessions| sessions.speeds().spread()),
        },
        "totals": node.metrics.totals(),
        "plugins": node.plugins.status(),
    })
}

/// What a body asks for.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Pushed {
    component: String,
    manifest: String,
    signature: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", untagged)]
enum Picked {
    Word(String),
    Release(Release),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Chosen {
    policy: Option<Picked>,
    postprocessor: Option<Picked>,
    generation: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct GoneBackTo {
    policy: Option<Picked>,
    postprocessor: Option<Picked>,
    generation: Option<u64>,
    why: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Only {
    generation: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct GoneBack {
    why: Option<String>,
    generation: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Remove {
    release: Option<Release>,
    #[serde(default)]
    unused: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Tune {
    plugin: String,
    values: BTreeMap<String, Option<Tuned>>,
    #[serde(default)]
    gradually: bool,
    generation: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn change(
    node: &Node,
    audit: &Audit,
    who: &Operator,
    path: &str,
    asked: Value,
) -> Result<Response<Outgoing>, ApiError> {
    let what = path.strip_prefix("/v1/").unwrap_or_default();
    let mut entry = Entry {
        who: &who.name,
        what,
        with: told(&asked),
        became: None,
        sequence: None,
    };
    audit.write(&entry).map_err(|error| {
        tracing::error!(%error, "the audit log cannot be written");
        ApiError::internal()
    })?;
    let done = apply(node, what, path, asked);
    entry.became = Some(match &done {
        Ok(_) => "done".into(),
        Err(error) => format!("refused: {}", error.message),
    });
    // 0 is no number of the journal's: another was faster to write the change down.
    let sequence = done.as_ref().ok().and_then(|done| done.get("sequence"));
    entry.sequence = sequence.and_then(Value::as_u64).filter(|it| *it > 0);
    if let Err(error) = audit.write(&entry) {
        // It is done, and that it was asked for is written.
        tracing::error!(%error, "the audit log cannot be written");
    }
    Ok(respond::json(&done?, Vec::new()))
}

/// What the log keeps of a body: no components, and nothing that was learned.
fn told(asked: &Value) -> Value {
    let mut told = asked.clone();
    for list in ["plugins", "acceptance", "audits"] {
        if let Some(list) = told.get_mut(list).filter(|it| it.is_array()) {
            let entries = list.as_array().map_or(0, Vec::len);
            *list = json!(format!("{entries} entries"));
        }
    }
    if let Some(component) = told.get_mut("component") {
        let bytes = component.as_str().map_or(0, str::len);
        *component = json!(format!("{bytes} bytes of base64"));
    }
    told
}

fn apply(node: &Node, what: &str, path: &str, asked: Value) -> Result<Value, ApiError> {
    let plugins = &node.plugins;
    match what {
        "policies" => {
            let pushed: Pushed = body_of(asked)?;
            let wasm = base64::engine::general_purpose::STANDARD.decode(pushed.component.trim());
            let wasm = wasm.map_err(|error| {
                ApiError::invalid_value("component", &format!("it is no base64: {error}."))
            })?;
            let signature = pushed.signature.map(|text| SignatureFile::parse(&text));
            let signature = signature
                .transpose()
                .map_err(|error| ApiError::invalid_value("signature", &format!("{error}.")))?;
            let bundle = Bundle::new(wasm, pushed.manifest, signature)
                .map_err(|error| ApiError::invalid_value("manifest", &format!("{error}.")))?;
            let release = plugins.push(&bundle).map_err(refused)?;
            Ok(json!({
                "release": release,
                "name": bundle.manifest.name,
                "version": bundle.manifest.version.to_string(),
            }))
        }
        "remove" => {
            let Remove { release, unused } = body_of(asked)?;
            let removed = match (release, unused) {
                (Some(release), false) => plugins.remove(release),
                (None, true) => plugins.remove_unused(),
                _ => {
                    let why = "The body: either 'release' or 'unused' is expected.";
                    return Err(ApiError::invalid("invalid_body", None, why));
                }
            };
            Ok(told_of_removed(&removed.map_err(refused)?))
        }
        "activate" | "canary" | "shadow" => {
            let chosen: Chosen = body_of(asked)?;
            let choice = choice(chosen.policy, chosen.postprocessor)?;
            let plugins = plugins.only_if(chosen.generation);
            told_of(match what {
                "activate" => plugins.activate(choice),
                "canary" => plugins.canary(choice),
                _ => plugins.shadow(choice),
            })
        }
        "rollback-to" => {
            let to: GoneBackTo = body_of(asked)?;
            let choice = choice(to.policy, to.postprocessor)?;
            told_of(plugins.only_if(to.generation).rollback_to(choice, to.why))
        }
        "promote" => {
            let Only { generation } = body_of(asked)?;
            told_of(plugins.only_if(generation).promote())
        }
        "off" => {
            let Only { generation } = body_of(asked)?;
            told_of(plugins.only_if(generation).off())
        }
        "shadow-off" => {
            let Nothing {} = body_of(asked)?;
            told_of(plugins.shadow_off())
        }
        "rollback" => {
            let GoneBack { why, generation } = body_of(asked)?;
            let why = why.as_deref().unwrap_or("asked for by an operator");
            told_of(plugins.only_if(generation).rollback(why))
        }
        "tune" => {
            let tune: Tune = body_of(asked)?;
            let plugins = plugins.only_if(tune.generation);
            told_of(plugins.tune(&tune.plugin, tune.values, tune.gradually))
        }
        "calibration/import" => learned::import(node, asked),
        "calibration/reset" => learned::reset(node, asked),
        "drain" => {
            let Nothing {} = body_of(asked)?;
            node.drain();
            Ok(json!({ "draining": true, "under-way": node.under_way() }))
        }
        "undrain" => {
            let Nothing {} = body_of(asked)?;
            node.undrain()
                .map_err(|error| conflict("not_now", format!("{error}.")))?;
            Ok(json!({ "draining": false, "under-way": node.under_way() }))
        }
        _ => Err(ApiError::not_found(path)),
    }
}

fn choice(policy: Option<Picked>, postprocessor: Option<Picked>) -> Result<Choice, ApiError> {
    let pick = |key: &str, picked: Option<Picked>| match picked {
        None => Ok(Pick::Keep),
        Some(Picked::Release(release)) => Ok(Pick::Take(release)),
        Some(Picked::Word(word)) => match word.as_str() {
            "keep" => Ok(Pick::Keep),
            "nothing" => Ok(Pick::Nothing),
            _ => Err(ApiError::not_one_of(key, &word, &["keep", "nothing"])),
        },
    };
    Ok(Choice {
        policy: pick("policy", policy)?,
        postprocessor: pick("postprocessor", postprocessor)?,
    })
}

fn body_of<T: serde::de::DeserializeOwned>(asked: Value) -> Result<T, ApiError> {
    serde_json::from_value(asked)
        .map_err(|error| ApiError::invalid("invalid_body", None, format!("The body: {error}.")))
}

fn told_of(done: Result<Receipt, Refused>) -> Result<Value, ApiError> {
    let receipt = done.map_err(refused)?;
    Ok(json!({
        "generation": receipt.generation,
        "number": receipt.number,
        "sequence": receipt.sequence,
        "notes": receipt.notes,
    }))
}

fn told_of_removed(removed: &Removed) -> Value {
    let told = |it: &Described| {
        let manifest = it.manifest.as_ref();
        json!({
            "release": it.release,
            "name": manifest.map(|it| it.name.as_str()),
            "version": manifest.map(|it| it.version.to_string()),
        })
    };
    let kept = removed.kept.iter().map(|(it, need)| {
        let mut told = told(it);
        if let Some(told) = told.as_object_mut() {
            told.insert("needed".to_owned(), json!(need.name()));
            told.insert("why".to_owned(), json!(need.to_string()));
        }
        told
    });
    json!({
        "removed": removed.removed.iter().map(told).collect::<Vec<_>>(),
        "kept": kept.collect::<Vec<_>>(),
        "bytes": removed.bytes,
    })
}

/// 409: what the node is at stands against it. `code`: why, for programs.
fn conflict(code: &'static str, message: String) -> ApiError {
    ApiError {
        status: 409,
        ..ApiError::invalid(code, None, message)
    }
}

/// A change that the registry refuses: what to do stands in its words.
fn refused(error: Refused) -> ApiError {
    let message = format!("{error}.");
    match error {
        Refused::Journal(_) | Refused::NotDurable(_) | Refused::Store(StoreError::File(_)) => {
            ApiError {
                message,
                ..ApiError::internal()
            }
        }
        // Whoever only wanted it to be so has nothing left to do.
        Refused::NotNow(NotNow::SameAsActive) => conflict("already_active", message),
        Refused::NotNow(_)
        | Refused::Overtaken { .. }
        | Refused::InUse { .. }
        | Refused::Unsettled(_) => conflict("not_now", message),
        Refused::Changed { .. } => conflict("changed", message),
        _ => ApiError::invalid("refused", None, message),
    }
}

fn broken(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "the node's state cannot be read");
    ApiError::internal()
}
