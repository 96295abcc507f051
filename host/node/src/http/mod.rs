//! What clients see: the inference API over HTTP/1.1 and HTTP/2 on one port.
//!
//! A connection's version is known before hyper sees it: by ALPN with TLS, else by the preface of HTTP/2, for which there is
//! the same time as for a header. Every wait that a client could draw out has an end.

pub(crate) mod body;
mod connection;
pub(crate) mod respond;
mod routes;

use std::sync::Arc;
use std::time::Duration;

pub use self::body::{Arriving, Outgoing, Unread};
pub use self::connection::{Certificate, Handler, Limits, Server, Tls};
use crate::config::{Api, Operator};
use crate::node::{Node, StartError};

/// Where the certificate for clients lies.
pub fn certificate(api: &Api) -> Option<Certificate<'_>> {
    let (chain, key) = api.tls_cert.as_deref().zip(api.tls_key.as_deref())?;
    Some(Certificate {
        chain: ("api.tls-cert", chain),
        key: ("api.tls-key", key),
    })
}

/// Where the certificate for operators lies.
pub fn operators_certificate(operator: &Operator) -> Option<Certificate<'_>> {
    let (chain, key) = (operator.tls_cert.as_deref()).zip(operator.tls_key.as_deref())?;
    Some(Certificate {
        chain: ("operator.tls-cert", chain),
        key: ("operator.tls-key", key),
    })
}

/// Opens the port for clients.
///
/// # Errors
/// The address cannot be listened on, or certificate and key cannot be used.
pub async fn bind(node: &Arc<Node>) -> Result<Server, StartError> {
    let api = &node.config.api;
    let certificate = certificate(api);
    let limits = Limits {
        connections: api.connections as usize,
        headers_within: Duration::from_secs(u64::from(api.headers_within_s)),
        header_bytes: api.headers_kib << 10,
        unread: Duration::from_secs(u64::from(api.unread_s)),
        drain: Duration::from_secs(u64::from(node.config.node.drain_s)),
    };
    let served = Arc::clone(node);
    let handler: Handler =
        Arc::new(move |request| Box::pin(routes::route(Arc::clone(&served), request)));
    let metrics = node.metrics.clone();
    Server::bind(
        "api.listen",
        api.listen,
        certificate,
        limits,
        metrics,
        handler,
    )
    .await
}
