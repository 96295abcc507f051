//! What operators do on a running node, over HTTP on a listener of its own: look, bring plug-ins, change what is active.
//!
//! | method and path | role | does |
//! |---|---|---|
//! | `GET /v1/whoami` | read | whose token it is: `{name, role}`; `local` and `activate` without tokens |
//! | `GET /v1/state` | read | the node: requests, models, sessions, plug-ins |
//! | `GET /v1/policies` | read | releases that are here, and what is active |
//! | `POST /v1/policies` | push | brings a release: `{component (base64), manifest, signature?}` |
//! | `POST /v1/remove` | push | takes releases away that nothing needs: `{release}`, or `{unused: true}` for all of them |
//! | `POST /v1/activate`, `/v1/canary`, `/v1/shadow` | activate | `{policy?, postprocessor?, generation?}`, each of the first two a release, `"keep"` or `"nothing"` |
//! | `POST /v1/rollback-to` | activate | the same, and `why?` |
//! | `POST /v1/promote`, `/v1/off` | activate | `{generation?}` |
//! | `POST /v1/shadow-off` | activate | |
//! | `POST /v1/rollback` | activate | `{why?, generation?}` |
//! | `POST /v1/tune` | activate | `{plugin, values, gradually?, generation?}` |
//! | `GET /v1/history` | read | the newest changes, `?last=N`; each with who made it (`by`; null: the node itself) |
//! | `GET /v1/decisions`, `/v1/decisions/ID`, `.../ID/words` | read | decisions, `?last=N`; `&as=jsonl` to replay them elsewhere |
//! | `GET /v1/decisions/ID/account` | read | scores with their parts, what was kept, and why: `msao_core::offload::account`, with the policy's own words |
//! | `GET /v1/failures`, `/v1/failures/ID` | read | failing inputs |
//! | `GET /v1/calibration` | read | what plug-ins have learned |
//! | `GET /v1/calibration/kept` | read | which cells are kept: of what is active, and of other plug-ins, schemas and models |
//! | `GET /v1/calibration/acceptance` | read | what the node has learned itself: the acceptance of drafts, and audits |
//! | `GET /v1/calibration/export` | read | all of it, to be taken to another node; `?plugin=NAME` for one plug-in's cells alone; `?kept=true` with those that are kept of what is not active |
//! | `POST /v1/calibration/import` | activate | takes in what was exported, as far as plug-in, schema and models are the same |
//! | `POST /v1/calibration/reset` | activate | `{plugin}`, `{plugin, kept: true, state-schema?, models?}` for what is not active too, or `{acceptance: true, pair?}` |
//! | `POST /v1/drain` | activate | takes no more requests, and tells peers so |
//! | `POST /v1/undrain` | activate | takes requests again; 409 once the process is being stopped |
//!
//! `generation` is a number: the change is made only if the active generation still has it (for a promotion the canary, for a
//! rollback whichever of the two would be left), and is else refused with 409. Parts of a path and values of a query may have
//! percent-escapes.
//!
//! The code of a 409 says why: `already_active` (what was asked for is what runs), `changed` (another `generation` than the one
//! that was named), `not_now` (all else).
//!
//! Whoever changes something is written down first, in `audit.jsonl` in the node's state. Without tokens only requests that
//! name this machine are answered (`admission.rs`). Errors have the form of the inference API's.

mod account;
mod address;
mod admission;
mod audit;
mod learned;
mod own_words;
mod routes;
mod treatments;
mod words;

use std::sync::Arc;
use std::time::Duration;

pub use self::words::words;
use crate::http::{Handler, Limits, Server, operators_certificate};
use crate::node::{Node, StartError};

/// Opens the operators' port; `None` where the configuration names none.
///
/// # Errors
/// The address cannot be listened on, certificate and key cannot be used, or the audit log not written.
pub async fn bind(node: &Arc<Node>) -> Result<Option<Server>, StartError> {
    let Some(address) = node.config.operator.listen else {
        return Ok(None);
    };
    let audit = audit::Audit::open(&node.config.node.state.join("audit.jsonl"));
    let audit = Arc::new(audit.map_err(StartError::Audit)?);
    let limits = Limits {
        connections: 64,
        headers_within: Duration::from_secs(10),
        header_bytes: 64 << 10,
        unread: Duration::from_secs(30),
        drain: Duration::from_secs(5),
    };
    let served = Arc::clone(node);
    let handler: Handler = Arc::new(move |request| {
        let (node, audit) = (Arc::clone(&served), Arc::clone(&audit));
        Box::pin(routes::route(node, audit, request))
    });
    let metrics = node.metrics.clone();
    let certificate = operators_certificate(&node.config.operator);
    let bound = Server::bind(
        "operator.listen",
        address,
        certificate,
        limits,
        metrics,
        handler,
    );
    bound.await.map(Some)
}
